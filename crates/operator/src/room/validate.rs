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
    /// It keeps every rule, and the keys of its tokens are being looked for; what was in force stays until it is known whether there are any.
    Await,
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
            Err(PolicyError::KeysElsewhere) => Verdict::Await,
            Err(PolicyError::Invalid(violations)) => {
                let told: Vec<String> = violations.iter().map(ToString::to_string).collect();
                Verdict::Refuse(Reason::Invalid, told.join("; "))
            }
            Err(error) => Verdict::Refuse(Reason::Invalid, error.to_string()),
        },
    };
    Validated { observed, verdict }
}

/// The room's policy, with the keys that were fetched for it, or those of the published one if they are of the same place. Where there are none
/// it has none, so that nobody enters by a token: what asks for tokens is never open because its keys cannot be had. Only a room that is
/// not served, or asks for tokens already, is left as it is until its place was looked at for the first time.
fn policy(room: &ChatRoomResource, observed: &Observed) -> Result<RoomPolicy, PolicyError> {
    let declared = room.declared();
    match RoomPolicy::from_chat_room(&declared) {
        Err(PolicyError::KeysElsewhere) => {}
        policy => return policy,
    }
    if let Some(keys) = &observed.keys.keys {
        return RoomPolicy::with_keys(&declared, keys.to_vec());
    }
    let before = observed.entry.policy.as_ref().map(|published| published.auth.jwt.as_ref());
    let is_first_look = observed.keys.fault.is_none();
    let without = RoomPolicy::with_keys(&declared, Vec::new())?;
    let place = without.auth.jwt.as_ref().and_then(|jwt| jwt.keys_from.as_ref());
    match before {
        Some(Some(jwt)) if jwt.keys_from.as_ref() == place => {
            RoomPolicy::with_keys(&declared, jwt.keys.clone())
        }
        None | Some(Some(_)) if is_first_look => Err(PolicyError::KeysElsewhere),
        _ => Ok(without),
    }
}

pub(crate) fn is_paused(room: &ChatRoomResource) -> bool {
    let annotations = room.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(PAUSED)).is_some_and(|value| value == "true")
}
