//! Awaiting what must come about, instead of sleeping and hoping.

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// When a test gives up on what should come about at once. Far beyond what any machine needs: a test must never
/// fail because the machine is busy.
pub const GIVE_UP: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until `condition` holds.
///
/// # Panics
///
/// After [`GIVE_UP`], naming `what`.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < GIVE_UP, "gave up waiting until {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Awaits `future`, and gives up after [`GIVE_UP`].
///
/// # Panics
///
/// After [`GIVE_UP`], naming `what`.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(GIVE_UP, future).await {
        Ok(output) => output,
        Err(_) => panic!("gave up waiting for {what}"),
    }
}
