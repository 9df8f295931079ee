//! Says in the bucket that everything is published, once that is so after the bucket was read whole.
//!
//! Only after that gateways remove rooms whose policies the bucket has lost: nothing else tells those that were deleted
//! meanwhile from those that are still to be published again.

use std::{sync::Arc, time::Duration};

use hubbub_api::{RoomPolicy, Statement};
use k8s_openapi::jiff::Timestamp;
use kube::{Resource as _, ResourceExt as _};
use tokio_util::sync::CancellationToken;

use crate::{
    context::Context,
    guard::GuardedRoom,
    room::{RoomKey, is_paused},
};

/// How often it is looked whether everything is published, while that has not been said.
const PERIOD: Duration = Duration::from_millis(500);

/// Looks until `stop`, over rooms that have been listed.
pub(crate) async fn follow(
    context: Arc<Context>,
    namespaces: Vec<String>,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if !context.bucket.owes_statement() {
            continue;
        }
        // Before anything is looked at, so that whatever changes meanwhile refuses the write.
        let at = context.bucket.last();
        let rooms = context.cluster.rooms();
        let Some(keep) = unpublished(&context, &rooms) else { continue };
        let id = u64::try_from(Timestamp::now().as_nanosecond()).ok();
        let kept = keep.len();
        let statement = Statement { id, namespaces: namespaces.clone(), keep };
        // What fails is tried again at the next tick.
        if context.bucket.state(&statement, at).await.is_ok() {
            context.events.stated(rooms.len(), kept);
        }
    }
}

/// The rooms that exist and cannot be published by this operator; none while others are still to be published.
fn unpublished(context: &Context, rooms: &[Arc<GuardedRoom>]) -> Option<Vec<String>> {
    let mut keep = Vec::new();
    for room in rooms {
        let (namespace, name) = (room.namespace().unwrap_or_default(), room.name_any());
        let key = RoomKey { namespace, name }.policy_key();
        if room.meta().deletion_timestamp.is_some() || context.bucket.entry(&key).present {
            continue;
        }
        let is_ours = !context.claims.are_others(room.operator());
        let is_fit = room.0.as_ref().is_ok_and(|room| {
            !is_paused(room) && RoomPolicy::from_chat_room(&room.declared()).is_ok()
        });
        if is_ours && is_fit {
            return None;
        }
        keep.push(key);
    }
    Some(keep)
}
