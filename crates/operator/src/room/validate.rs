//! What is to become of a room: its object judged by the rules.

use hubbub_api::{
    PolicyError, RoomPolicy,
    kubernetes::{ChatRoomResource, PAUSED, Reason},
};

use super::{Observed, Seen};

/// A room and the verdict on it.
#[derive(Debug)]
pub(super) struct Validated {
    pub(super) observed: Observed,
    pub(super) verdict: Verdict,
}

/// What is to become of a room.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is gone, or goes: its policy must leave the bucket.
    Withdraw,
    /// It is to be left as it is.
    Pause,
    /// It is to be served by this policy.
    Serve(Box<RoomPolicy>),
    /// It keeps every rule, but the keys of its tokens are not known; what was in force stays. With why, if they could not be had.
    Await(Option<String>),
    /// It breaks rules or cannot be read; what was in force stays.
    Refuse(Reason, String),
}

pub(super) fn validate(observed: Observed) -> Validated {
    let verdict = match &observed.seen {
        Seen::Gone => Verdict::Withdraw,
        // A room that is to go goes, even when it is paused: its namespace could not be deleted otherwise.
        seen if seen.is_leaving() => Verdict::Withdraw,
        Seen::Unreadable(unreadable) => Verdict::Refuse(
            Reason::Unreadable,
            format!(
                "the object cannot be read: {}; mend it, or upgrade the operator if a newer one wrote it",
                unreadable.error
            ),
        ),
        Seen::Room(room) if is_paused(room) => Verdict::Pause,
        Seen::Room(room) => match policy(room, &observed) {
            Ok(policy) => Verdict::Serve(Box::new(policy)),
            Err(PolicyError::KeysElsewhere) => Verdict::Await(observed.keys.fault.clone()),
            Err(PolicyError::Invalid(violations)) => {
                let told: Vec<String> = violations.iter().map(ToString::to_string).collect();
                Verdict::Refuse(Reason::Invalid, told.join("; "))
            }
            Err(error) => Verdict::Refuse(Reason::Invalid, error.to_string()),
        },
    };
    Validated { observed, verdict }
}

/// The room's policy, with the keys that were fetched for it. Where none were, the published one is as good, as long as it is of the same
/// spec: its keys were fetched from the same place.
fn policy(room: &ChatRoomResource, observed: &Observed) -> Result<RoomPolicy, PolicyError> {
    let declared = room.declared();
    match (RoomPolicy::from_chat_room(&declared), &observed.keys.keys, &observed.entry.policy) {
        (Err(PolicyError::KeysElsewhere), Some(keys), _) => {
            RoomPolicy::with_keys(&declared, keys.to_vec())
        }
        (Err(PolicyError::KeysElsewhere), None, Some(published))
            if published.generation == declared.metadata.generation =>
        {
            Ok(RoomPolicy::clone(published))
        }
        (policy, ..) => policy,
    }
}

pub(crate) fn is_paused(room: &ChatRoomResource) -> bool {
    let annotations = room.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(PAUSED)).is_some_and(|value| value == "true")
}
