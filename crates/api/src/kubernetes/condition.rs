//! The conditions of a room's status, and the reasons that they give. Both are part of the API.

use std::fmt;

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The spec keeps every rule. Trouble of gateways never turns it.
    Accepted,
    /// Every gateway of the pool that serves runs this generation of the room.
    Programmed,
    /// The room serves members as declared: a summary of the two above.
    Ready,
    /// The keys of tokens are as they stand in the ConfigMap or at the address that the room names. Only there for such a room.
    KeysResolved,
    /// Changes wait, because the annotation [`PAUSED`](super::PAUSED) says so. Only there while it does.
    Paused,
}

impl ConditionType {
    /// As it stands in the status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Programmed => "Programmed",
            Self::Ready => "Ready",
            Self::KeysResolved => "KeysResolved",
            Self::Paused => "Paused",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a condition is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not looked at yet.
    Pending,
    /// The spec keeps every rule.
    Accepted,
    /// The spec breaks a rule; the message names all that are broken.
    Invalid,
    /// The object cannot be read by this operator; the message says where.
    Unreadable,
    /// All serving gateways of the pool run this generation.
    Programmed,
    /// Some serving gateways of the pool do not run this generation yet.
    Propagating,
    /// No gateway of the pool serves.
    NoGateways,
    /// The pool's own objects cannot be written; the message says why.
    PoolFailed,
    /// The room moves to another pool, and stays where it is until a gateway of that pool serves.
    PoolStarting,
    /// The operator does not reach NATS, so it can neither publish the policy nor hear gateways.
    NatsUnavailable,
    /// The policy cannot be published; the message says why.
    NotPublished,
    /// The keys of tokens were fetched.
    KeysResolved,
    /// The keys of tokens cannot be had from where the room says they stand; the message says why.
    KeysUnavailable,
    /// The spec is not accepted, so the last good one stays in force.
    NotAccepted,
    /// The room serves members as declared.
    Ready,
    /// The annotation is set.
    Paused,
}

impl Reason {
    /// As it stands in the status, in Events and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Accepted => "Accepted",
            Self::Invalid => "Invalid",
            Self::Unreadable => "Unreadable",
            Self::Programmed => "Programmed",
            Self::Propagating => "Propagating",
            Self::NoGateways => "NoGateways",
            Self::PoolFailed => "PoolFailed",
            Self::PoolStarting => "PoolStarting",
            Self::NatsUnavailable => "NatsUnavailable",
            Self::NotPublished => "NotPublished",
            Self::KeysResolved => "KeysResolved",
            Self::KeysUnavailable => "KeysUnavailable",
            Self::NotAccepted => "NotAccepted",
            Self::Ready => "Ready",
            Self::Paused => "Paused",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
