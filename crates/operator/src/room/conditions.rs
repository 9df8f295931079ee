//! The conditions of a room: what is true of it, and why. Pure.

use hubbub_api::kubernetes::{ConditionType, Reason};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// Whether something is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition before it is dated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) kind: ConditionType,
    pub(super) truth: Truth,
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl Finding {
    pub(super) fn new(
        kind: ConditionType,
        truth: Truth,
        reason: Reason,
        message: impl Into<String>,
    ) -> Self {
        Self { kind, truth, reason, message: message.into() }
    }

    /// The condition, with the time of its last change: that of the condition before, if it says the same.
    pub(super) fn dated(
        self,
        before: &[Condition],
        generation: Option<i64>,
        now: Timestamp,
    ) -> Condition {
        let old = find(before, self.kind).filter(|old| old.status == self.truth.as_str());
        Condition {
            type_: self.kind.as_str().to_owned(),
            status: self.truth.as_str().to_owned(),
            reason: self.reason.as_str().to_owned(),
            message: self.message,
            observed_generation: generation,
            last_transition_time: old.map_or(Time(now), |old| old.last_transition_time.clone()),
        }
    }
}

/// The condition of that type.
pub(super) fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

/// Ready is what the other two come to, and nothing else.
pub(super) fn ready(accepted: &Finding, programmed: &Finding) -> Finding {
    let (truth, from) = match (accepted.truth, programmed.truth) {
        (Truth::True, Truth::True) => {
            let message = "the room serves members as declared";
            return Finding::new(ConditionType::Ready, Truth::True, Reason::Ready, message);
        }
        (Truth::False, _) => (Truth::False, accepted),
        (_, Truth::False) => (Truth::False, programmed),
        (Truth::Unknown, _) => (Truth::Unknown, accepted),
        (_, Truth::Unknown) => (Truth::Unknown, programmed),
    };
    Finding::new(ConditionType::Ready, truth, from.reason, from.message.clone())
}
