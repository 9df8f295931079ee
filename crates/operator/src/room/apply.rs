//! Writes what was planned, and nothing else.

use std::time::Instant;

use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::{
    Observed, RoomKey, Seen,
    plan::{Finalizer, Plan, Policy},
    validate::Verdict,
};
use crate::{
    bucket::BucketError,
    context::{Context, FIELD_MANAGER},
    error::ReconcileError,
    guard::GuardedRoom,
};

/// What is in force now.
#[derive(Debug)]
pub(super) struct Applied {
    pub(super) observed: Observed,
    pub(super) verdict: Verdict,
    pub(super) published: Published,
}

/// Where the room's policy is.
#[derive(Debug)]
pub(super) enum Published {
    /// The wanted policy is in the bucket, since that revision.
    At(u64),
    /// The one before stays in force until the room can move to its new pool.
    Moving,
    /// None of this generation is.
    Not,
    /// It is not known, or could not be written.
    Failed(BucketError),
}

pub(super) async fn apply(context: &Context, plan: Plan) -> Result<Applied, ReconcileError> {
    let Plan { mut observed, verdict, finalizer, policy } = plan;
    let key = observed.key.clone();
    if let Finalizer::Add(finalizers) = &finalizer {
        set_finalizers(context, &mut observed, finalizers).await?;
    }
    if !observed.seen.is_leaving() && !matches!(observed.seen, Seen::Gone) {
        claim(context, &mut observed).await?;
    }
    let over = observed.entry.revision;
    let published = match policy {
        Policy::Keep if matches!(verdict, Verdict::Serve(_)) => Published::At(over),
        Policy::Keep => Published::Not,
        Policy::Hold => Published::Moving,
        Policy::Unknown => Published::Failed(context.bucket.unavailable()),
        Policy::Put(policy) => match context.bucket.put(&policy, over).await {
            Ok(revision) => {
                context.events.wrote("policy");
                observed.memory.published_at = Some(Instant::now());
                Published::At(revision)
            }
            Err(error) => Published::Failed(error),
        },
        Policy::Remove => match context.bucket.remove(&key.policy_key(), over).await {
            Ok(()) => {
                context.events.wrote("policy");
                Published::Not
            }
            Err(error) => Published::Failed(error),
        },
    };
    let published = match published {
        // Nobody is there to be told, or what comes of it will be seen in a moment.
        Published::Failed(error) if is_not_for_people(&observed.seen, &error) => {
            return Err(ReconcileError::Bucket(error));
        }
        published => published,
    };
    // A room goes after its policy.
    if let Finalizer::Remove(finalizers) = &finalizer
        && !matches!(published, Published::Failed(_))
    {
        set_finalizers(context, &mut observed, finalizers).await?;
    }
    context.rooms.set(&key, observed.memory.clone());
    Ok(Applied { observed, verdict, published })
}

/// Whether a failure is not to be told in the status.
fn is_not_for_people(seen: &Seen, error: &BucketError) -> bool {
    let passing = matches!(error, BucketError::Raced | BucketError::Fenced(_));
    matches!(seen, Seen::Gone) || (passing && seen.is_leaving())
}

/// Writes into the status whose room it is, over the very version that was looked at: of two operators that find a room without
/// one, one fails, and publishes nothing.
async fn claim(context: &Context, observed: &mut Observed) -> Result<(), ReconcileError> {
    let version = observed.seen.version();
    if observed.seen.operator() == Some(&*observed.operator) {
        return Ok(());
    }
    if observed.memory.claimed.is_some() && observed.memory.claimed == version {
        return Ok(());
    }
    let RoomKey { namespace, name } = &observed.key;
    let rooms: Api<GuardedRoom> = Api::namespaced(context.client(), namespace);
    let patch = json!({
        "metadata": {"resourceVersion": version},
        "status": {"operator": observed.operator},
    });
    let parameters =
        PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(&patch);
    match context.in_time(rooms.patch_status(name, &parameters, &patch)).await {
        Ok(room) => observed.seen = Seen::from(&room),
        // Gone already, which will be seen.
        Err(ReconcileError::Api(kube::Error::Api(status))) if status.is_not_found() => {}
        Err(error) => return Err(error),
    }
    observed.memory.claimed = version;
    context.rooms.set(&observed.key, observed.memory.clone());
    context.events.wrote("claim");
    Ok(())
}

/// Sets the finalizers of the very version that was looked at. What a status is compared with is then the answer.
async fn set_finalizers(
    context: &Context,
    observed: &mut Observed,
    finalizers: &[String],
) -> Result<(), ReconcileError> {
    let RoomKey { namespace, name } = &observed.key;
    let rooms: Api<GuardedRoom> = Api::namespaced(context.client(), namespace);
    let version = observed.seen.version();
    let patch = json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}});
    let parameters =
        PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(&patch);
    match context.in_time(rooms.patch(name, &parameters, &patch)).await {
        Ok(room) => observed.seen = Seen::from(&room),
        // Gone already, which is what was wanted, or will be seen.
        Err(ReconcileError::Api(kube::Error::Api(status))) if status.is_not_found() => {}
        Err(error) => return Err(error),
    }
    context.events.wrote("finalizer");
    Ok(())
}
