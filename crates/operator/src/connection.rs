//! The connection to NATS as people are told of it: whether it stands, and if not, why.

use std::{
    future::ready,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hubbub_nats::{NatsOptions, causes};
use tokio::time::Instant;

use crate::operator::StartError;

/// How long a new cause must have been the only one before statuses tell it instead of the one before. Causes that come and go
/// by turns would have every room written by turns.
const SETTLED: Duration = Duration::from_secs(30);

/// Why NATS cannot be reached. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Trouble(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What the last tries came to, and since when they all have.
    latest: Option<(String, Instant)>,
    told: Option<String>,
}

impl Trouble {
    /// Some tries to connect have failed because of this.
    pub fn failed(&self, cause: String) {
        let mut state = self.state();
        let now = Instant::now();
        let same = state.latest.take().filter(|(latest, _)| *latest == cause);
        let since = same.map_or(now, |(_, since)| since);
        if state.told.is_none() || now.duration_since(since) >= SETTLED {
            state.told = Some(cause.clone());
        }
        state.latest = Some((cause, since));
    }

    /// The connection stands.
    pub fn is_over(&self) {
        *self.state() = State::default();
    }

    /// What the last tries came to, for the log.
    #[must_use]
    pub fn latest(&self) -> Option<String> {
        self.state().latest.as_ref().map(|(cause, _)| cause.clone())
    }

    /// The cause for statuses, which changes seldom.
    #[must_use]
    pub fn settled(&self) -> Option<String> {
        self.state().told.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins to connect, and tells why it fails.
///
/// # Errors
///
/// [`StartError`], for options that cannot work; that NATS is away is none.
pub async fn connect(options: &NatsOptions, trouble: &Trouble) -> Result<nats::Client, StartError> {
    let (servers, options) = options.prepare()?;
    let trouble = trouble.clone();
    // It is called before each try, with what came of those before.
    let options = options.reconnect_to_server_callback(move |servers, _| {
        causes(&servers).into_iter().for_each(|cause| trouble.failed(cause));
        // The client's own choice is right.
        ready(None)
    });
    Ok(options.connect(servers).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn statuses_are_told_a_cause_that_lasts() {
        let trouble = Trouble::default();
        assert_eq!((trouble.latest(), trouble.settled()), (None, None));
        trouble.failed("refused".to_owned());
        assert_eq!(trouble.settled().as_deref(), Some("refused"), "the first at once");
        for _ in 0..600 {
            tokio::time::advance(Duration::from_secs(1)).await;
            trouble.failed("timed out".to_owned());
            trouble.failed("refused".to_owned());
        }
        assert_eq!(trouble.settled().as_deref(), Some("refused"), "not by turns");
        trouble.failed("wrong password".to_owned());
        assert_eq!(trouble.latest().as_deref(), Some("wrong password"));
        assert_eq!(trouble.settled().as_deref(), Some("refused"));
        tokio::time::advance(SETTLED).await;
        trouble.failed("wrong password".to_owned());
        assert_eq!(trouble.settled().as_deref(), Some("wrong password"));
        trouble.is_over();
        assert_eq!((trouble.latest(), trouble.settled()), (None, None));
    }
}
