//! Which gateways of the pool are heard again after an outage of NATS.
//!
//! Gateways reconnect one after the other. What the first sends before the others have subscribed again, they never
//! get; so after an outage it waits for those that it heard before. Each asks for the others' reports when its
//! connection stands, and who is asked answers at once. Only an answer counts, or another's question: a server that was
//! frozen still hands out what was written to it on connections that are gone.
//!
//! A gateway with several connections neither asks nor answers before each of them has carried a round trip: what it
//! says on one of them tells nothing of the subscriptions on the others.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::echo::Echo;

/// Who was heard within this time before the connection broke is awaited. A frozen server is noticed only after 9 s, and
/// nobody is heard in that time.
const RECENT: Duration = Duration::from_secs(20);

/// See the module.
#[derive(Debug, Default)]
pub struct RollCall {
    gateways: watch::Sender<Gateways>,
    begun: Notify,
    /// Of this gateway's connections.
    echoes: Vec<Arc<Echo>>,
}

#[derive(Debug, Default)]
struct Gateways {
    /// Who was heard, and when; but not who drains.
    present: HashMap<String, Instant>,
    /// Those of them that have not come back since the connection broke.
    missing: HashSet<String>,
}

impl RollCall {
    /// The roll call of a gateway with connections that have these echoes.
    pub(super) fn new(echoes: Vec<Arc<Echo>>) -> Self {
        Self { echoes, ..Self::default() }
    }

    /// Waits until each of this gateway's connections has carried a round trip: then NATS has all its subscriptions. With
    /// one connection there is nothing to wait for, as what is said on it stands behind them. False when the bus ends.
    pub async fn proven(&self) -> bool {
        if self.echoes.len() < 2 {
            return true;
        }
        join_all(self.echoes.iter().map(|echo| echo.round_trip()))
            .await
            .into_iter()
            .all(|came| came)
    }

    /// A gateway that serves was heard; `back` says that it spoke after the connection stood again.
    pub fn heard(&self, gateway: &str, back: bool) {
        self.gateways.send_if_modified(|gateways| {
            gateways.present.insert(gateway.to_owned(), Instant::now());
            back && gateways.missing.remove(gateway)
        });
    }

    /// Nothing more is expected of a gateway: it drains.
    pub fn gone(&self, gateway: &str) {
        self.gateways.send_if_modified(|gateways| {
            gateways.present.remove(gateway);
            gateways.missing.remove(gateway)
        });
    }

    /// Waits until all connections have come back: the others are to be asked.
    pub async fn begun(&self) {
        self.begun.notified().await;
    }

    /// All connections stand.
    pub(super) fn begin(&self) {
        self.begun.notify_one();
    }

    /// A connection broke: who was heard lately is missing until it is back.
    pub(super) fn broke(&self) {
        self.gateways.send_modify(|gateways| {
            gateways.present.retain(|_, heard| heard.elapsed() < RECENT);
            gateways.missing = gateways.present.keys().cloned().collect();
        });
    }

    /// Waits until nobody is missing.
    pub(super) async fn complete(&self) {
        // The sender lives as long as this value.
        let _ = self.gateways.subscribe().wait_for(|gateways| gateways.missing.is_empty()).await;
    }

    /// How many are missing.
    pub(super) fn missing(&self) -> usize {
        self.gateways.borrow().missing.len()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn is_complete(roll_call: &RollCall) -> bool {
        roll_call.complete().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_heard_long_ago_is_not_awaited() {
        let roll_call = RollCall::default();
        roll_call.heard("a", false);
        tokio::time::advance(RECENT / 2).await;
        roll_call.heard("b", false);
        tokio::time::advance(RECENT / 2).await;
        roll_call.broke();
        assert_eq!(roll_call.missing(), 1);
        roll_call.heard("b", true);
        assert!(is_complete(&roll_call));
    }

    #[test]
    fn who_was_heard_before_is_awaited_until_it_is_heard_again_or_gone() {
        let roll_call = RollCall::default();
        assert!(is_complete(&roll_call), "nobody is known yet");
        for gateway in ["a", "b", "c"] {
            roll_call.heard(gateway, false);
        }
        roll_call.gone("c");
        roll_call.broke();
        assert_eq!(roll_call.missing(), 2);
        roll_call.heard("a", true);
        roll_call.heard("b", false);
        assert!(!is_complete(&roll_call), "what b said may be old");
        roll_call.gone("b");
        assert!(is_complete(&roll_call));
        roll_call.broke();
        assert_eq!(roll_call.missing(), 1, "who is gone is not awaited again");
    }
}
