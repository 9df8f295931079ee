//! What has to be written for a room. Pure: the same room at the same moment gives the same plan.

use hubbub_api::{RoomPolicy, kubernetes::FINALIZER};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    Observed,
    validate::{Validated, Verdict},
};

/// What is to be written, in this order: finalizer, policy, and for a room that goes the other way round.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) observed: Observed,
    pub(super) verdict: Verdict,
    pub(super) finalizer: Finalizer,
    pub(super) policy: Policy,
}

/// What becomes of the finalizer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finalizer {
    Keep,
    /// The finalizers that the object is to have, set before its policy is published.
    Add(Vec<String>),
    /// The same, set after its policy has been taken out.
    Remove(Vec<String>),
}

/// What becomes of the policy in the bucket.
#[derive(Debug, PartialEq)]
pub(super) enum Policy {
    /// It is as it should be.
    Keep,
    Put(Box<RoomPolicy>),
    Remove,
    /// It cannot be compared: the bucket has not been read.
    Unknown,
    /// The room moves to a pool where nobody would serve it yet: it stays where it is.
    Hold,
}

pub(super) fn plan(Validated { observed, verdict }: Validated) -> Plan {
    let policy = policy(&observed, &verdict);
    let finalizer = match (observed.seen.metadata(), &verdict) {
        (Some(metadata), Verdict::Withdraw) => without(metadata),
        (Some(metadata), Verdict::Serve(_)) => with(metadata),
        _ => Finalizer::Keep,
    };
    Plan { observed, verdict, finalizer, policy }
}

fn policy(observed: &Observed, verdict: &Verdict) -> Policy {
    let wanted = match verdict {
        Verdict::Pause | Verdict::Refuse(..) | Verdict::Await => return Policy::Keep,
        Verdict::Withdraw if !observed.bucket_read => return Policy::Unknown,
        Verdict::Withdraw if observed.entry.present => return Policy::Remove,
        Verdict::Withdraw => return Policy::Keep,
        Verdict::Serve(wanted) => wanted,
    };
    if !observed.bucket_read {
        return Policy::Unknown;
    }
    let Some(published) = &observed.entry.policy else {
        return Policy::Put(wanted.clone());
    };
    if **published == **wanted {
        return Policy::Keep;
    }
    if published.pool != wanted.pool && observed.serving.is_empty() {
        return Policy::Hold;
    }
    Policy::Put(wanted.clone())
}

fn with(metadata: &ObjectMeta) -> Finalizer {
    let mut finalizers = metadata.finalizers.clone().unwrap_or_default();
    if finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return Finalizer::Keep;
    }
    finalizers.push(FINALIZER.to_owned());
    Finalizer::Add(finalizers)
}

fn without(metadata: &ObjectMeta) -> Finalizer {
    let mut finalizers = metadata.finalizers.clone().unwrap_or_default();
    let before = finalizers.len();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    if finalizers.len() == before { Finalizer::Keep } else { Finalizer::Remove(finalizers) }
}
