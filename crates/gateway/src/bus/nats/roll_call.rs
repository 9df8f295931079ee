//! Which gateways of the pool are heard again after an outage of NATS.
//!
//! Gateways reconnect one after the other. What the first sends before the others have subscribed again, they never
//! get; so after an outage it waits for those that it heard before. Each asks for the others' reports when its
//! connection stands, and who is asked answers at once.

use std::collections::HashSet;

use tokio::sync::{Notify, watch};

/// See the module.
#[derive(Debug, Default)]
pub struct RollCall {
    gateways: watch::Sender<Gateways>,
    begun: Notify,
}

#[derive(Debug, Default)]
struct Gateways {
    /// Heard, and neither draining nor forgotten.
    present: HashSet<String>,
    /// Those of them that were not heard since the connection broke.
    missing: HashSet<String>,
}

impl RollCall {
    /// A gateway that serves was heard.
    pub fn heard(&self, gateway: &str) {
        self.gateways.send_if_modified(|gateways| {
            if !gateways.present.contains(gateway) {
                gateways.present.insert(gateway.to_owned());
            }
            gateways.missing.remove(gateway)
        });
    }

    /// Nothing more is expected of a gateway: it drains, or is forgotten.
    pub fn gone(&self, gateway: &str) {
        self.gateways.send_if_modified(|gateways| {
            gateways.present.remove(gateway);
            gateways.missing.remove(gateway)
        });
    }

    /// Waits until the connection has come back: the others are to be asked.
    pub async fn begun(&self) {
        self.begun.notified().await;
    }

    /// The connection stands.
    pub(super) fn begin(&self) {
        self.begun.notify_one();
    }

    /// The connection broke: who was present is missing until it is heard again.
    pub(super) fn broke(&self) {
        self.gateways.send_modify(|gateways| gateways.missing.clone_from(&gateways.present));
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

    #[test]
    fn who_was_heard_before_is_awaited_until_it_is_heard_again_or_gone() {
        let roll_call = RollCall::default();
        assert!(is_complete(&roll_call), "nobody is known yet");
        for gateway in ["a", "b", "c"] {
            roll_call.heard(gateway);
        }
        roll_call.gone("c");
        roll_call.broke();
        assert_eq!(roll_call.missing(), 2);
        roll_call.heard("a");
        assert!(!is_complete(&roll_call));
        roll_call.gone("b");
        assert!(is_complete(&roll_call));
        roll_call.broke();
        assert_eq!(roll_call.missing(), 1, "who is gone is not awaited again");
    }
}
