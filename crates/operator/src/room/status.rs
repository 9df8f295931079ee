//! What is told of a room. Computed from what was applied, and written only when it says something new.
//!
//! Conditions are written at once. Counters alone are written at most every 30 s, or 5 s when gateways have ceased to serve: they
//! change all the time and are for people. A room whose policy was published a moment ago waits for its gateways before it is
//! told to be half done.

use std::time::Duration;

use hubbub_api::{
    RoomPolicy,
    kubernetes::{ChatRoomStatus, ConditionType, GatewayCounts, Reason},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::{
    Observed, RoomKey, Seen,
    apply::{Applied, Published},
    conditions::{Finding, Truth, find, ready},
    validate::Verdict,
};
use crate::{
    bucket::BucketError,
    context::{Context, FIELD_MANAGER},
    error::ReconcileError,
    guard::GuardedRoom,
    notices::Notice,
    reports::{EXPIRY, Hearing, ROUND},
};

/// How often counters alone are written.
const COUNTERS: Duration = Duration::from_secs(30);

/// The same when fewer gateways serve than were told: whoever looks is to see that soon.
const FALL: Duration = Duration::from_secs(5);

/// How long gateways get to run a new policy before the room is told to be half done.
const SETTLE: Duration = Duration::from_secs(1);

/// How long NATS may be away before rooms are told to be unknown: a restart is over by then.
const AWAY_GRACE: Duration = Duration::from_secs(15);

/// The same for a room of which nothing has been told yet: it takes nothing back. A start is over by then.
const FIRST_AWAY_GRACE: Duration = Duration::from_secs(3);

/// What is to be told of a room.
#[derive(Debug)]
pub(super) struct Telling {
    key: RoomKey,
    observed: Observed,
    before: ChatRoomStatus,
    pub(super) status: ChatRoomStatus,
    pub(super) when: When,
    /// Why the room must be tried again although everything was told.
    failed: Option<BucketError>,
}

/// When a status is written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum When {
    Now,
    /// Not before so long, if it still says something new then.
    In(Duration),
    /// It says nothing new.
    Never,
}

/// What to tell, if there is still an object to tell it of.
pub(super) fn status(applied: Applied) -> Option<Telling> {
    let Applied { observed, verdict, published } = applied;
    let before = before(&observed)?;
    let generation = observed.seen.metadata()?.generation;
    let revision = match &published {
        Published::At(revision) => Some(*revision),
        _ => None,
    };
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let runs = |applied: &&u64| revision.is_some_and(|revision| **applied >= revision);
    let counts = GatewayCounts {
        ready: count(observed.serving.len()),
        programmed: count(observed.serving.iter().filter(runs).count()),
    };
    let mut status = match &verdict {
        Verdict::Withdraw => match &published {
            Published::Failed(error) => held_up(&before, &observed, error),
            _ => return None,
        },
        Verdict::Pause => paused(&before, &observed),
        Verdict::Serve(_) | Verdict::Refuse(..) | Verdict::Await => {
            let accepted = accepted(&verdict);
            let told = counters(&observed, &before, counts);
            let programmed = programmed(&observed, &before, &verdict, &published, counts);
            let ready = ready(&accepted, &programmed);
            let keys = keys(&observed, &verdict);
            let findings = [Some(accepted), Some(programmed), Some(ready), keys];
            let date = |f: Finding| f.dated(&before.conditions, generation, observed.wall);
            ChatRoomStatus {
                observed_generation: generation,
                path: format!("/rooms/{}", observed.key.path()),
                operator: None,
                gateways: told.0,
                connections: told.1,
                conditions: findings.into_iter().flatten().map(date).collect(),
            }
        }
    };
    status.operator = Some(observed.operator.clone());
    let when = when(&before, &status, &observed);
    let failed = match published {
        Published::Failed(error) => Some(error),
        _ => None,
    };
    Some(Telling { key: observed.key.clone(), observed, before, status, when, failed })
}

/// The status that the object has, as far as is known: what was written last, until the object that came of it is seen.
fn before(observed: &Observed) -> Option<ChatRoomStatus> {
    let written = observed.memory.written.as_ref();
    match &observed.seen {
        Seen::Gone => None,
        // Its status is not read either.
        Seen::Unreadable(_) => {
            Some(written.map_or_else(ChatRoomStatus::default, |(status, _)| status.clone()))
        }
        Seen::Room(room) => match written {
            Some((status, over)) if *over == room.metadata.resource_version => Some(status.clone()),
            _ => Some(room.status.clone().unwrap_or_default()),
        },
    }
}

/// The counters that can be answered for. Who has just begun to listen has not heard everybody, so less than was told
/// before is not told; and who has heard nothing for long does not know.
fn counters(
    observed: &Observed,
    before: &ChatRoomStatus,
    counts: GatewayCounts,
) -> (Option<GatewayCounts>, Option<u64>) {
    match observed.hearing {
        Hearing::Clear => (Some(counts), Some(observed.connections)),
        Hearing::Listening(since) if has_heard_all(before, counts, since) => {
            (Some(counts), before.connections)
        }
        Hearing::Away(away) if away >= AWAY_GRACE => (None, None),
        Hearing::Listening(_) | Hearing::Away(_) => (before.gateways, before.connections),
    }
}

/// Whether, after so long, as many gateways have been heard as were told before; where none were told, each has had its turn.
fn has_heard_all(before: &ChatRoomStatus, counts: GatewayCounts, since: Duration) -> bool {
    match before.gateways {
        Some(before) => counts.ready >= before.ready.max(1),
        None => counts.ready >= 1 && since >= ROUND,
    }
}

fn accepted(verdict: &Verdict) -> Finding {
    let kind = ConditionType::Accepted;
    match verdict {
        Verdict::Refuse(reason, message) => Finding::new(kind, Truth::False, *reason, message),
        _ => Finding::new(kind, Truth::True, Reason::Accepted, "the spec keeps every rule"),
    }
}

/// What is told while keys are looked for the first time.
const FETCHING: &str = "the keys are being fetched";

/// What is told of a room whose tokens nobody can verify.
const NO_KEYS: &str = "nobody enters by a token until there are keys";

/// Whether the policy asks for tokens and has no keys to verify any.
fn lacks_keys(policy: &RoomPolicy) -> bool {
    policy.auth.jwt.as_ref().is_some_and(|jwt| jwt.keys.is_empty())
}

/// Whether the keys that stand elsewhere are as they are there; none for a room without such keys. Ready does not depend on it as long as
/// those that were fetched before are in use.
fn keys(observed: &Observed, verdict: &Verdict) -> Option<Finding> {
    let Seen::Room(room) = &observed.seen else { return None };
    let jwks = &room.spec.auth.jwt.as_ref()?.jwks;
    if jwks.url.is_none() && jwks.config_map.is_none() {
        return None;
    }
    let kind = ConditionType::KeysResolved;
    Some(match (&observed.keys.fault, &observed.keys.keys) {
        (None, Some(keys)) => {
            let count = keys.len();
            let noun = if count == 1 { "key verifies" } else { "keys verify" };
            let message = format!("{count} {noun} tokens");
            Finding::new(kind, Truth::True, Reason::KeysResolved, message)
        }
        (None, None) => Finding::new(kind, Truth::Unknown, Reason::Pending, FETCHING),
        (Some(fault), _) => {
            let has_keys = matches!(verdict, Verdict::Serve(policy) if !lacks_keys(policy));
            let rest =
                if has_keys { "those that were fetched before stay in use" } else { NO_KEYS };
            let message = format!("{fault}; {rest}");
            Finding::new(kind, Truth::False, Reason::KeysUnavailable, message)
        }
    })
}

fn programmed(
    observed: &Observed,
    before: &ChatRoomStatus,
    verdict: &Verdict,
    published: &Published,
    counts: GatewayCounts,
) -> Finding {
    let finding = |truth, reason, message: String| {
        Finding::new(ConditionType::Programmed, truth, reason, message)
    };
    if matches!(verdict, Verdict::Await) {
        return finding(Truth::Unknown, Reason::Pending, FETCHING.to_owned());
    }
    let Verdict::Serve(policy) = verdict else {
        let message = if observed.entry.present {
            "the last good generation stays in force until the spec is mended"
        } else {
            "no gateway serves the room until the spec is mended"
        };
        return finding(Truth::False, Reason::NotAccepted, message.to_owned());
    };
    let (pool, generation) = (&policy.pool, policy.generation);
    // Whatever cannot be told yet stays as it was told last.
    let as_before = || {
        let old = find(&before.conditions, ConditionType::Programmed);
        let old = old.filter(|old| old.observed_generation == Some(generation));
        old.and_then(kept).unwrap_or_else(|| {
            finding(
                Truth::Unknown,
                Reason::Pending,
                "the gateways have not been heard yet".to_owned(),
            )
        })
    };
    match published {
        Published::Failed(BucketError::Away) => {}
        Published::Failed(error @ BucketError::Unusable(_)) => {
            return finding(Truth::Unknown, Reason::NatsUnavailable, error.to_string());
        }
        Published::Failed(BucketError::Raced) => return as_before(),
        Published::Failed(error) => {
            return finding(Truth::False, Reason::NotPublished, error.to_string());
        }
        Published::Moving => {
            let message = format!(
                "no gateway of pool {pool} serves yet; the room stays in its old pool until one does"
            );
            return finding(Truth::False, Reason::PoolStarting, message);
        }
        Published::At(_) | Published::Not => {}
    }
    match observed.hearing {
        Hearing::Away(away) if away >= grace(as_before().reason) => {
            let message = format!(
                "the operator does not reach NATS{}, so it can neither publish the policy nor hear the gateways",
                because(observed)
            );
            return finding(Truth::Unknown, Reason::NatsUnavailable, message);
        }
        Hearing::Away(_) => return as_before(),
        Hearing::Listening(since) if !has_heard_all(before, counts, since) => return as_before(),
        Hearing::Clear | Hearing::Listening(_) => {}
    }
    if matches!(published, Published::Failed(_)) {
        return as_before();
    }
    let GatewayCounts { ready, programmed } = counts;
    if ready > 0 && programmed == ready && lacks_keys(policy) {
        return match &observed.keys.fault {
            Some(fault) => {
                let message = format!("{fault}; {NO_KEYS}");
                finding(Truth::False, Reason::KeysUnavailable, message)
            }
            None => finding(Truth::Unknown, Reason::Pending, FETCHING.to_owned()),
        };
    }
    if ready > 0 && programmed == ready {
        let message = format!("every serving gateway of pool {pool} runs generation {generation}");
        return finding(Truth::True, Reason::Programmed, message);
    }
    if matches!(observed.hearing, Hearing::Listening(_)) {
        return as_before();
    }
    if ready > 0 {
        let message =
            format!("not every serving gateway of pool {pool} runs generation {generation} yet");
        return finding(Truth::False, Reason::Propagating, message);
    }
    if observed.loading > 0 {
        let message = format!("the gateways of pool {pool} have not loaded any policy yet");
        return finding(Truth::False, Reason::Propagating, message);
    }
    match &observed.pool_fault {
        Some(fault) => {
            let message = format!("no gateway of pool {pool} serves, because {fault}");
            finding(Truth::False, Reason::PoolFailed, message)
        }
        None => {
            let message = format!(
                "no gateway of pool {pool} serves; see the pods with the label hubbub.dev/pool={pool}"
            );
            finding(Truth::False, Reason::NoGateways, message)
        }
    }
}

/// How long NATS may be away before that is told of a room of which this was told last.
fn grace(told: Reason) -> Duration {
    if told == Reason::Pending { FIRST_AWAY_GRACE } else { AWAY_GRACE }
}

/// A condition that was told before, as a finding. Only what this program knows can be kept.
fn kept(old: &Condition) -> Option<Finding> {
    let truth = [Truth::True, Truth::False, Truth::Unknown];
    let truth = truth.into_iter().find(|truth| truth.as_str() == old.status)?;
    let reasons = [
        Reason::Programmed,
        Reason::Propagating,
        Reason::NoGateways,
        Reason::PoolFailed,
        Reason::PoolStarting,
        Reason::NatsUnavailable,
        Reason::NotPublished,
        Reason::KeysUnavailable,
        Reason::Pending,
    ];
    let reason = reasons.into_iter().find(|reason| reason.as_str() == old.reason)?;
    Some(Finding::new(ConditionType::Programmed, truth, reason, old.message.clone()))
}

/// Why NATS cannot be reached, in parentheses, where it is known.
fn because(observed: &Observed) -> String {
    let cause = observed.nats_trouble.as_ref();
    cause.map(|cause| format!(" ({cause})")).unwrap_or_default()
}

/// Everything as it was told last, but that the room goes, and what it waits for.
fn held_up(before: &ChatRoomStatus, observed: &Observed, error: &BucketError) -> ChatRoomStatus {
    let reason = match error {
        BucketError::Away | BucketError::Unusable(_) => Reason::NatsUnavailable,
        _ => Reason::NotPublished,
    };
    let message = format!(
        "the room is being deleted, and waits until its policy can be taken out of NATS, so that no gateway goes on serving it: {error}{}",
        because(observed)
    );
    let ready = Finding::new(ConditionType::Ready, Truth::Unknown, reason, message);
    let ready = ready.dated(&before.conditions, before.observed_generation, observed.wall);
    let mut conditions = before.conditions.clone();
    conditions.retain(|condition| condition.type_ != ready.type_);
    conditions.push(ready);
    ChatRoomStatus { conditions, ..before.clone() }
}

/// Everything as it was told last, and that it is paused.
fn paused(before: &ChatRoomStatus, observed: &Observed) -> ChatRoomStatus {
    let pending = |kind| {
        Finding::new(
            kind,
            Truth::Unknown,
            Reason::Paused,
            "the room was paused before it was looked at",
        )
        .dated(&[], None, observed.wall)
    };
    let mut conditions: Vec<Condition> =
        [ConditionType::Accepted, ConditionType::Programmed, ConditionType::Ready]
            .into_iter()
            .map(|kind| find(&before.conditions, kind).cloned().unwrap_or_else(|| pending(kind)))
            .collect();
    let message = "the annotation hubbub.dev/paused is set: changes wait until it is removed";
    let paused = Finding::new(ConditionType::Paused, Truth::True, Reason::Paused, message);
    conditions.push(paused.dated(&before.conditions, before.observed_generation, observed.wall));
    let path = format!("/rooms/{}", observed.key.path());
    ChatRoomStatus { conditions, path, ..before.clone() }
}

fn when(before: &ChatRoomStatus, status: &ChatRoomStatus, observed: &Observed) -> When {
    let since = |at: std::time::Instant| observed.now.saturating_duration_since(at);
    let counters = (before.gateways, before.connections) != (status.gateways, status.connections);
    let told = ChatRoomStatus {
        gateways: before.gateways,
        connections: before.connections,
        ..status.clone()
    };
    if told != *before {
        // Accepted and the rest are told together, a moment later, rather than twice.
        let programmed = find(&status.conditions, ConditionType::Programmed);
        let under_way = programmed.is_some_and(|condition| {
            [Reason::Propagating, Reason::Pending].iter().any(|r| r.as_str() == condition.reason)
        });
        let published = observed.memory.published_at.map(since).filter(|since| *since < SETTLE);
        return match published {
            // A gateway that loads its first policy will serve, and be counted.
            Some(since) if under_way || observed.loading > 0 => When::In(SETTLE - since),
            _ => When::Now,
        };
    }
    if !counters {
        return When::Never;
    }
    let ready = |status: &ChatRoomStatus| status.gateways.map(|counts| counts.ready);
    let least = if ready(status) < ready(before) { FALL } else { COUNTERS };
    match observed.memory.written_at.map(since).filter(|since| *since < least) {
        Some(since) => When::In(least - since),
        None => When::Now,
    }
}

impl Telling {
    /// Writes the status if it is to be written now, and says when to look again.
    pub(super) async fn write(self, context: &Context) -> Result<Option<Duration>, ReconcileError> {
        let Self { key, observed, before, status, when, failed } = self;
        let again = match when {
            When::Never => None,
            When::In(wait) => Some(wait),
            When::Now => {
                put(context, &key, &status).await?;
                let mut memory = observed.memory.clone();
                memory.written = Some((status.clone(), observed.seen.version()));
                memory.written_at = Some(observed.now);
                context.rooms.set(&key, memory);
                let uid = observed.seen.metadata().and_then(|metadata| metadata.uid.clone());
                for notice in notices(&observed.seen, &before, &status) {
                    context.notices.publish(&key, uid.clone(), notice).await;
                }
                None
            }
        };
        if let Some(error) = failed {
            return Err(ReconcileError::Bucket(error));
        }
        // What is only known after a while is looked at after that while.
        let listening = match observed.hearing {
            Hearing::Clear => None,
            Hearing::Listening(since) if since < ROUND => Some(ROUND - since),
            Hearing::Listening(_) | Hearing::Away(_) => Some(EXPIRY / 2),
        };
        Ok([again, listening].into_iter().flatten().min())
    }
}

/// What is told beside the status: transitions, and what a deletion waits for.
fn notices(seen: &Seen, before: &ChatRoomStatus, status: &ChatRoomStatus) -> Vec<Notice> {
    match find(&status.conditions, ConditionType::Ready) {
        Some(ready) if seen.is_leaving() => vec![Notice {
            normal: false,
            reason: "DeletionWaits".to_owned(),
            note: ready.message.clone(),
        }],
        _ => Notice::between(&before.conditions, &status.conditions),
    }
}

async fn put(
    context: &Context,
    key: &RoomKey,
    status: &ChatRoomStatus,
) -> Result<(), ReconcileError> {
    let rooms: Api<GuardedRoom> = Api::namespaced(context.client(), &key.namespace);
    let patch = json!({
        "apiVersion": hubbub_api::API_VERSION,
        "kind": hubbub_api::KIND,
        "metadata": {"name": key.name},
        "status": status,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(&patch);
    let patched = rooms.patch_status(&key.name, &parameters, &patch);
    match context.in_time(patched).await {
        Ok(_) => {}
        Err(ReconcileError::Api(kube::Error::Api(status))) if status.is_not_found() => {}
        Err(error) => return Err(error),
    }
    context.events.wrote("status");
    Ok(())
}
