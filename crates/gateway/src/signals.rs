//! SIGTERM and SIGINT: the first begins the drain or joins it, the second ends the process at once.

use hubbub_program::Signals;

use crate::drain::Drain;

/// Begins the drain at the first signal and returns the exit code at the second.
pub async fn second(mut signals: Signals, drain: &Drain) -> u8 {
    let (first, _) = signals.next().await;
    drain.begin(first);
    let (second, code) = signals.next().await;
    tracing::warn!(signal = second, "second signal: ending at once, members are not told");
    code
}
