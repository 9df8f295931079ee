//! SIGTERM and SIGINT: the first lets what is under way end and gives the lease up, the second ends the process at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

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
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Self { terminate: signal(terminate)?, interrupt: signal(interrupt)? })
    }

    /// Cancels `stop` at the first signal and returns at the second, with the exit code that a shell would tell.
    pub async fn second(mut self, stop: &CancellationToken) -> u8 {
        let (signal, _) = self.next().await;
        tracing::info!(signal, "stopping");
        stop.cancel();
        self.next().await.1
    }

    async fn next(&mut self) -> (&'static str, u8) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", 143),
            _ = self.interrupt.recv() => ("SIGINT", 130),
        }
    }
}
