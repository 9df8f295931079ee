//! A room, from what is seen of it to what is told of it: **observe → validate → plan → apply → status**.
//!
//! Each step takes what the one before returned, so none can be left out: a status is only computed from what was applied.
//! Only `observe` reads from outside and only `apply` and the last lines here write; the rest is pure, and is told the time.

mod apply;
mod conditions;
mod observe;
mod plan;
mod status;
#[cfg(test)]
mod tests;
mod validate;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hubbub_api::kubernetes::ChatRoomStatus;

use crate::{claims::AGAIN, context::Context, error::ReconcileError};

pub use observe::{Observed, Seen};
pub(crate) use validate::is_paused;

/// A room as the API server names it. Neither part is known to be a DNS label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomKey {
    /// The namespace.
    pub namespace: String,
    /// The name in it.
    pub name: String,
}

impl RoomKey {
    /// The key under which its policy stands in the bucket.
    #[must_use]
    pub fn policy_key(&self) -> String {
        format!("{}.{}", self.namespace, self.name)
    }

    /// As reports name it: `namespace/name`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// What is remembered of each room between two looks.
#[derive(Debug, Default)]
pub struct Memories(Mutex<HashMap<RoomKey, Memory>>);

/// What is remembered of a room.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// The status that was written last, and the version of the object that it was written over.
    pub written: Option<(ChatRoomStatus, Option<String>)>,
    /// When that was.
    pub written_at: Option<Instant>,
    /// The version of the object over which it was claimed, until what came of it is seen.
    pub claimed: Option<String>,
    /// When its policy was put into the bucket last.
    pub published_at: Option<Instant>,
}

impl Memories {
    fn get(&self, key: &RoomKey) -> Memory {
        let memories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memories.get(key).cloned().unwrap_or_default()
    }

    fn set(&self, key: &RoomKey, memory: Memory) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), memory);
    }

    fn forget(&self, key: &RoomKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// Brings one room to what is declared, and tells how it is. Returns after how long to look again, if nothing happens.
///
/// # Errors
///
/// What could not be done; everything is tried again from the beginning.
pub async fn reconcile(
    context: &Context,
    key: &RoomKey,
) -> Result<Option<Duration>, ReconcileError> {
    // What other operators have published in the same bucket is theirs.
    if !context.cluster.watches(&key.namespace) {
        return Ok(None);
    }
    let operator = context.cluster.operator(key);
    if context.claims.are_others_now(context, operator.as_deref()).await {
        let operator = operator.unwrap_or_default();
        context.events.left_to_other(key, &operator, &context.claims);
        context.rooms.forget(key);
        take_back(context, key, &operator).await?;
        return Ok(Some(AGAIN));
    }
    let observed = Observed::of(context, key);
    let validated = validate::validate(observed);
    let plan = plan::plan(validated);
    let applied = apply::apply(context, plan).await?;
    let Some(status) = status::status(applied) else {
        context.rooms.forget(key);
        return Ok(None);
    };
    status.write(context).await
}

/// Takes out what this operator has published of a room that is another's by now, so that no gateway goes on serving it. Not from
/// a bucket in which the other publishes too: there it is the other's.
async fn take_back(context: &Context, key: &RoomKey, operator: &str) -> Result<(), ReconcileError> {
    let bucket = &context.bucket;
    let policy_key = key.policy_key();
    let entry = bucket.entry(&policy_key);
    if !entry.present || !bucket.is_read() || bucket.is_shared_with(operator) {
        return Ok(());
    }
    bucket.remove(&policy_key, entry.revision).await.map_err(ReconcileError::Bucket)?;
    context.events.wrote("policy");
    Ok(())
}
