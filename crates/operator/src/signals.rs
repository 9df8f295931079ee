//! SIGTERM and SIGINT: the first lets what is under way end and gives the lease up, the second ends the process at once.

use hubbub_program::Signals;
use tokio_util::sync::CancellationToken;

/// Cancels `stop` at the first signal and returns the exit code at the second.
pub async fn second(mut signals: Signals, stop: &CancellationToken) -> u8 {
    let (signal, _) = signals.next().await;
    tracing::info!(signal, "stopping");
    stop.cancel();
    let (second, code) = signals.next().await;
    tracing::warn!(signal = second, "second signal: ending at once, the lease is not given up");
    code
}
