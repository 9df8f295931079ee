//! Which rooms are another operator's: one with another release or namespace, and so with a lease of its own.
//!
//! Each room's status names the operator that manages it. A room that names another is left alone while that one's lease
//! is renewed. One that is gone, or has stood still for the lease's duration, has given its rooms up.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hubbub_api::is_dns_label;
use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::MicroTime};
use kube::Api;

use crate::{
    context::Context,
    error::{ReconcileError, in_words},
    lease::{self, DURATION},
};

/// How often the lease of another operator is looked at.
const PERIOD: Duration = Duration::from_secs(5);

/// How long until a room of another operator is looked at again.
pub const AGAIN: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct Claims {
    own: String,
    others: Mutex<HashMap<String, Claimant>>,
}

/// What is known of another operator.
#[derive(Debug, Default)]
struct Claimant {
    looked: Option<Instant>,
    /// Its lease, and since when that has stood still.
    seen: Option<(Renewal, Instant)>,
    gone: bool,
    /// Why its lease cannot be read.
    trouble: Option<String>,
}

/// What changes in a lease when it is taken or renewed: holder and renewTime.
type Renewal = (Option<String>, Option<MicroTime>);

/// What a look at a lease has shown.
#[derive(Debug, Clone)]
enum Look {
    Missing,
    There(Renewal),
    Failed(String),
}

impl Claimant {
    fn saw(&mut self, look: Look, now: Instant) {
        self.trouble = None;
        match look {
            Look::Missing => self.gone = true,
            Look::There(state) => {
                let stands = self.seen.take().filter(|(seen, _)| *seen == state);
                let since = stands.map_or(now, |(_, since)| since);
                self.gone = now.duration_since(since) > DURATION;
                self.seen = Some((state, since));
            }
            Look::Failed(trouble) => self.trouble = Some(trouble),
        }
    }
}

impl Claims {
    /// Those of everybody but the operator of that release.
    #[must_use]
    pub fn new(namespace: &str, instance: &str) -> Self {
        Self { own: format!("{namespace}/{instance}"), others: Mutex::default() }
    }

    /// What this operator writes into the statuses of its rooms: `namespace/instance`.
    #[must_use]
    pub fn own(&self) -> &str {
        &self.own
    }

    /// Whether a room that names `operator` is another's, as far as is known: who is not known to be gone is there.
    #[must_use]
    pub fn are_others(&self, operator: Option<&str>) -> bool {
        let Some(operator) = operator.filter(|operator| *operator != self.own) else {
            return false;
        };
        parts(operator).is_some() && !self.others().get(operator).is_some_and(|other| other.gone)
    }

    /// The same, after a look at that operator's lease if the last was some time ago.
    pub async fn are_others_now(&self, context: &Context, operator: Option<&str>) -> bool {
        let Some(operator) = operator.filter(|operator| *operator != self.own) else {
            return false;
        };
        let Some((namespace, instance)) = parts(operator) else { return false };
        if self.is_due(operator, Instant::now()) {
            let look = look(context, namespace, instance).await;
            let mut others = self.others();
            others.entry(operator.to_owned()).or_default().saw(look, Instant::now());
        }
        self.are_others(Some(operator))
    }

    /// Why it cannot be told whether that operator is there.
    #[must_use]
    pub fn trouble(&self, operator: &str) -> Option<String> {
        self.others().get(operator).and_then(|other| other.trouble.clone())
    }

    /// Whether its lease is to be looked at; it is by who asks.
    fn is_due(&self, operator: &str, now: Instant) -> bool {
        let mut others = self.others();
        let other = others.entry(operator.to_owned()).or_default();
        let due = other.looked.is_none_or(|looked| now.duration_since(looked) >= PERIOD);
        if due {
            other.looked = Some(now);
        }
        due
    }

    fn others(&self) -> MutexGuard<'_, HashMap<String, Claimant>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Namespace and release. What is something else was not written by an operator.
fn parts(operator: &str) -> Option<(&str, &str)> {
    let (namespace, instance) = operator.split_once('/')?;
    (is_dns_label(namespace) && is_dns_label(instance)).then_some((namespace, instance))
}

async fn look(context: &Context, namespace: &str, instance: &str) -> Look {
    let leases: Api<Lease> = Api::namespaced(context.client(), namespace);
    match context.in_time(leases.get(&lease::name(instance))).await {
        Ok(lease) => {
            let spec = lease.spec.unwrap_or_default();
            Look::There((spec.holder_identity, spec.renew_time))
        }
        Err(ReconcileError::Api(kube::Error::Api(status))) if status.is_not_found() => {
            Look::Missing
        }
        Err(error) => Look::Failed(in_words(&error)),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    #[test]
    fn a_claim_holds_while_its_lease_is_renewed() {
        let claims = Claims::new("chat", "hubbub");
        assert!(!claims.are_others(None));
        assert!(!claims.are_others(Some("chat/hubbub")));
        assert!(
            !claims.are_others(Some("not an operator")) && !claims.are_others(Some("a/b/../c"))
        );
        assert!(claims.are_others(Some("other/hubbub")), "until it is known to be gone");

        let mut now = Instant::now();
        let mut saw = |look: Look, after: u64| {
            now += Duration::from_secs(after);
            let mut others = claims.others();
            others.entry("other/hubbub".to_owned()).or_default().saw(look, now);
            drop(others);
            claims.are_others(Some("other/hubbub"))
        };
        let renewed = |second: i64| {
            let at = Timestamp::from_second(second).unwrap();
            Look::There((Some("pod".to_owned()), Some(MicroTime(at))))
        };
        // The clock in the lease may be any: only its standing still counts.
        assert!(saw(renewed(7), 0));
        assert!(saw(renewed(9), 100));
        assert!(saw(renewed(9), 15));
        assert!(saw(Look::Failed("forbidden".to_owned()), 60), "who cannot be seen may be there");
        assert!(!saw(renewed(9), 1));
        assert!(saw(renewed(1), 1), "back");
        assert!(saw(Look::There((None, None)), 1), "an upgrade gives the lease up for a moment");
        assert!(!saw(Look::There((None, None)), 16));
        assert!(saw(renewed(2), 1));
        assert!(!saw(Look::Missing, 1), "uninstalled");
    }

    #[test]
    fn a_lease_is_looked_at_now_and_then() {
        let claims = Claims::new("chat", "hubbub");
        let now = Instant::now();
        assert!(claims.is_due("other/hubbub", now));
        assert!(!claims.is_due("other/hubbub", now + Duration::from_secs(4)));
        assert!(claims.is_due("other/hubbub", now + PERIOD));
    }
}
