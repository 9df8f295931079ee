//! SIGTERM and SIGINT: the first begins the drain or joins it, the second ends the process at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::drain::Drain;

/// Exit code of a process that a second signal ended, as a shell would tell it: 128 and the signal's number.
const CODES: [(SignalKind, u8); 2] =
    [(SignalKind::terminate(), 143), (SignalKind::interrupt(), 130)];

/// Listens from now on, so that no signal after this ends the process unheard.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over both signals.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn listen() -> io::Result<Self> {
        let [(terminate, _), (interrupt, _)] = CODES;
        Ok(Self { terminate: signal(terminate)?, interrupt: signal(interrupt)? })
    }

    /// Begins the drain at the first signal and returns the exit code at the second.
    pub async fn second(mut self, drain: &Drain) -> u8 {
        let (first, _) = self.next().await;
        drain.begin(first);
        let (second, code) = self.next().await;
        tracing::warn!(signal = second, "second signal: ending at once, members are not told");
        code
    }

    async fn next(&mut self) -> (&'static str, u8) {
        let [(_, terminated), (_, interrupted)] = CODES;
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", terminated),
            _ = self.interrupt.recv() => ("SIGINT", interrupted),
        }
    }
}
