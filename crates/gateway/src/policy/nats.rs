//! Rooms from the key-value bucket that the operator fills: every key followed, from its newest value on.
//!
//! It outlives everything that can happen to NATS. A bucket that cannot be reached, is missing, or has lost what it held
//! never removes a room. A key that is deleted does, at once. A room whose key is gone without a trace is removed when
//! an operator has said, later than that, that everything there is has been published ([`Statement`]). Where no operator
//! ever spoke, people fill the bucket: then it is removed some time after the bucket was read again, if that holds any
//! policy. Values that do not validate are refused one by one. This source only reads: the operator makes and
//! fills the bucket.
//!
//! The revision told to [`Rooms::set_applied`] is a promise that everything up to it is in force. A refused value
//! holds it back, to the revision before, until its key is mended: the operator must not take for running what is not.
//! Values that no operator has published do not: those of keys that are no room's, and answers of NATS, which whoever has stolen
//! a gateway's login can have written anywhere. They are refused all the same.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{
    StreamExt as _,
    future::{BoxFuture, FutureExt as _},
};
use hubbub_api::{
    RoomName, RoomPolicy, Statement, is_nats_answer,
    names::{BUCKET, BUCKET_STREAM, RESERVED_KEY_PREFIX, STATEMENT_KEY_PREFIX},
};
use hubbub_nats::Contents;
use nats::{
    datetime::DateTime,
    jetstream::{
        self, ErrorCode,
        context::{GetStreamErrorKind, RequestError, RequestErrorKind},
        kv::{Entry, Operation},
        stream::Info,
    },
};
use tokio_util::sync::CancellationToken;

use super::{PolicyHealth, PolicySource};
use crate::{
    events::policy::PolicyEvents,
    room::{Applied, Changes, Policy, Rooms},
};

/// The wait before the bucket is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How often the bucket is compared with what was read, for what no watch tells: that the bucket was made anew, or
/// keys were purged without a trace.
const AUDIT: Duration = Duration::from_secs(3);

/// How long whoever fills a bucket without an operator has after it was read again, before rooms that are not in it are
/// removed.
const REFILL: Duration = Duration::from_secs(30);

/// Why the bucket is not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Trouble {
    #[error(
        "the bucket {BUCKET} is missing: the operator makes it when it starts; without an operator, run `nats kv add {BUCKET}`"
    )]
    Missing,
    #[error(
        "NATS runs without JetStream, which the bucket {BUCKET} needs: switch JetStream on for this account"
    )]
    NoJetStream,
    #[error("the bucket {BUCKET} cannot be read: {0}")]
    Unreadable(String),
    #[error("the bucket {BUCKET} was made anew, emptied or purged; it is read again")]
    Stale,
}

/// See the module.
#[derive(Debug)]
pub struct BucketSource {
    context: jetstream::Context,
    events: Arc<PolicyEvents>,
    health: Arc<PolicyHealth>,
    refill: Duration,
    /// When the bucket that was read was made.
    created: Option<DateTime>,
    /// The ids of the statements that were carried out last, by key. What was said before is not carried out again: it
    /// knows nothing of what was lost since.
    carried_out: HashMap<String, Option<u64>>,
    told: Option<Trouble>,
    view: View,
}

/// What one listing of the bucket, and what came after it, has shown.
#[derive(Debug, Default)]
struct View {
    /// Keys with a value, good or refused.
    declared: HashSet<String>,
    /// Keys seen at all, deleted ones included.
    seen: HashSet<String>,
    /// Keys whose value is refused.
    refused: BTreeMap<String, Refused>,
    /// What operators have said, by key, and is not carried out yet.
    statements: HashMap<String, Statement>,
    /// Since when it holds policies.
    filled: Option<Instant>,
    newest: u64,
    listed: bool,
}

/// A value that is refused.
#[derive(Debug)]
struct Refused {
    revision: u64,
    fault: String,
    /// Whether an operator may have published it.
    published: bool,
}

impl View {
    /// The highest revision up to which everything is in force.
    fn revision(&self) -> u64 {
        let held = self.refused.values().filter(|refused| refused.published);
        let held = held.map(|refused| refused.revision.saturating_sub(1)).min();
        held.map_or(self.newest, |held| held.min(self.newest))
    }
}

impl BucketSource {
    /// Rooms from the bucket on that connection; what is wrong with it is shown in `health`.
    #[must_use]
    pub fn new(client: nats::Client, events: Arc<PolicyEvents>, health: Arc<PolicyHealth>) -> Self {
        Self {
            context: jetstream::new(client),
            events,
            health,
            refill: REFILL,
            created: None,
            carried_out: HashMap::new(),
            told: None,
            view: View::default(),
        }
    }

    /// Gives people this long to fill a bucket without an operator, instead of 30 s.
    #[must_use]
    pub fn with_refill(mut self, refill: Duration) -> Self {
        self.refill = refill;
        self
    }

    /// Follows the bucket until that is no longer possible.
    async fn follow(&mut self, rooms: &Rooms) -> Trouble {
        match self.try_follow(rooms).await {
            Ok(never) => match never {},
            Err(trouble) => trouble,
        }
    }

    async fn try_follow(&mut self, rooms: &Rooms) -> Result<std::convert::Infallible, Trouble> {
        let info = self.info().await?;
        let unreadable = |error: &dyn std::fmt::Display| Trouble::Unreadable(error.to_string());
        let store = self.context.get_key_value(BUCKET).await.map_err(|error| unreadable(&error))?;
        let mut watch =
            pin!(store.watch_with_history(">").await.map_err(|error| unreadable(&error))?);
        // What was refused stays told, so that listing the bucket again does not tell it again.
        let refused = std::mem::take(&mut self.view.refused);
        self.view = View { refused, ..View::default() };
        let mut still_refused = HashSet::new();
        if self.created.is_some_and(|known| known != info.created) {
            self.view.refused.clear();
        }
        self.created = Some(info.created);
        let mut known = Contents::of(&info);
        if info.state.messages == 0 {
            self.listed(&info, &still_refused, rooms);
        }
        let mut audit = tokio::time::interval(AUDIT);
        audit.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        audit.reset();
        let mut behind = false;
        loop {
            tokio::select! {
                entry = watch.next() => {
                    let entry = entry
                        .ok_or_else(|| Trouble::Unreadable("the watch ended".to_owned()))?
                        .map_err(|error| unreadable(&error))?;
                    let (key, last) = (entry.key.clone(), entry.seen_current);
                    self.entry(entry, rooms);
                    if !self.view.listed {
                        still_refused.insert(key);
                        if last {
                            self.listed(&info, &still_refused, rooms);
                        }
                    }
                }
                _ = audit.tick() => {
                    // That NATS cannot answer now says nothing about what was read.
                    let now = match self.info().await {
                        Ok(now) => now,
                        Err(gone @ (Trouble::Missing | Trouble::NoJetStream)) => return Err(gone),
                        Err(_) => continue,
                    };
                    let fewer = now.state.subjects_count < self.view.seen.len() as u64;
                    let ahead = now.state.last_sequence > self.view.newest;
                    let contents = Contents::of(&now);
                    if !known.is_continued_by(&contents) || fewer || (ahead && behind) {
                        return Err(Trouble::Stale);
                    }
                    known = contents;
                    // What was written just now is still on its way; by the next audit it must have come.
                    behind = ahead || !self.view.listed;
                    if self.view.listed {
                        self.sweep_without_operator(rooms);
                    } else if now.state.messages == 0 {
                        return Err(Trouble::Stale);
                    }
                }
            }
        }
    }

    async fn info(&self) -> Result<Info, Trouble> {
        match self.context.get_stream(BUCKET_STREAM).await {
            Ok(stream) => Ok(stream.cached_info().clone()),
            Err(error) => Err(match error.kind() {
                GetStreamErrorKind::JetStream(error) => match error.error_code() {
                    ErrorCode::STREAM_NOT_FOUND => Trouble::Missing,
                    ErrorCode::JETSTREAM_NOT_ENABLED
                    | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => Trouble::NoJetStream,
                    _ => Trouble::Unreadable(error.to_string()),
                },
                // Nobody listens on JetStream's subjects.
                _ if no_responders(&error) => Trouble::NoJetStream,
                _ => Trouble::Unreadable(error.to_string()),
            }),
        }
    }

    /// One key's newest value, or that it has none any more.
    fn entry(&mut self, entry: Entry, rooms: &Rooms) {
        let Entry { key, value, revision, operation, .. } = entry;
        self.view.newest = self.view.newest.max(revision);
        self.view.seen.insert(key.clone());
        if key.starts_with(RESERVED_KEY_PREFIX) {
            let put = operation == Operation::Put && key.starts_with(STATEMENT_KEY_PREFIX);
            // What a newer operator says in another way says nothing here.
            if let Some(statement) = Statement::from_json(&value).ok().filter(|_| put) {
                self.view.statements.insert(key, statement);
            }
            if self.view.listed {
                self.carry_out(rooms);
            }
            self.tell(rooms);
            return;
        }
        let changes = match operation {
            Operation::Delete | Operation::Purge => {
                self.view.declared.remove(&key);
                self.view.refused.remove(&key);
                match RoomName::from_policy_key(&key) {
                    Ok(room) => rooms.remove(room.as_str()),
                    Err(_) => Changes::default(),
                }
            }
            Operation::Put => {
                self.view.declared.insert(key.clone());
                match read(&key, &value) {
                    Ok(policy) => {
                        self.view.refused.remove(&key);
                        rooms.put(policy)
                    }
                    Err(fault) => {
                        let published =
                            RoomName::from_policy_key(&key).is_ok() && !is_nats_answer(&value);
                        let refused = Refused { revision, fault: fault.clone(), published };
                        let told = self.view.refused.insert(key.clone(), refused);
                        if told.is_none_or(|told| told.revision != revision) {
                            self.events.value_refused(&key, revision, &fault);
                        }
                        Changes::default()
                    }
                }
            }
        };
        self.events.applied(rooms.len(), changes);
        self.tell(rooms);
    }

    /// Everything that was in the bucket has been read.
    fn listed(&mut self, info: &Info, keys: &HashSet<String>, rooms: &Rooms) {
        self.view.listed = true;
        // The listing began after that revision, so it shows everything up to it.
        self.view.newest = self.view.newest.max(info.state.last_sequence);
        self.view.refused.retain(|key, _| keys.contains(key));
        self.told = None;
        self.carry_out(rooms);
        self.tell(rooms);
        self.events.source_followed(rooms.len(), self.view.revision());
    }

    /// Removes the rooms that operators have said to be no more since the bucket was read last.
    fn carry_out(&mut self, rooms: &Rooms) {
        for (key, statement) in std::mem::take(&mut self.view.statements) {
            let before = self.carried_out.insert(key, statement.id);
            if before != Some(statement.id) {
                self.remove_missing(rooms, |room| statement.denies(room));
            }
        }
    }

    /// Removes the rooms whose key is gone from a bucket that no operator fills, once it had the time to be filled again.
    fn sweep_without_operator(&mut self, rooms: &Rooms) {
        if !self.carried_out.is_empty() || self.view.declared.is_empty() {
            return;
        }
        let filled = *self.view.filled.get_or_insert_with(Instant::now);
        if filled.elapsed() >= self.refill {
            self.remove_missing(rooms, |_| true);
        }
    }

    fn remove_missing(&self, rooms: &Rooms, goes: impl Fn(&RoomName) -> bool) {
        for room in rooms.all() {
            let declared = self.view.declared.contains(&room.name().policy_key());
            if !declared && goes(room.name()) {
                let changes = rooms.remove(room.name().as_str());
                self.events.applied(rooms.len(), changes);
            }
        }
    }

    fn tell(&self, rooms: &Rooms) {
        if self.view.listed {
            // The type of a time has room for more than i64 has; NATS has not.
            let made = |time: DateTime| i64::try_from(time.unix_timestamp_nanos()).ok();
            let bucket = self.created.and_then(made);
            rooms.set_applied(Applied { revision: self.view.revision(), bucket });
        }
        let fault = |(key, Refused { revision, fault, .. }): (&String, &Refused)| {
            format!("{key} at revision {revision}: {fault}")
        };
        self.health.refused(self.view.refused.iter().map(fault).collect(), &self.events);
    }
}

fn no_responders(error: &(dyn std::error::Error + 'static)) -> bool {
    let request = error.source().and_then(|source| source.downcast_ref::<RequestError>());
    request.is_some_and(|request| request.kind() == RequestErrorKind::NoResponders)
}

/// A value as a policy, if it may be applied to the room of that key.
fn read(key: &str, value: &[u8]) -> Result<Policy, String> {
    let room = RoomName::from_policy_key(key)
        .map_err(|error| format!("the key is not namespace.name: {error}"))?;
    let policy = RoomPolicy::from_json(value).map_err(|error| error.to_string())?;
    if policy.room != room {
        return Err(format!("the policy is for the room {}, not for that of its key", policy.room));
    }
    Policy::compile(policy)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

impl PolicySource for BucketSource {
    fn run(
        mut self: Box<Self>,
        rooms: Arc<Rooms>,
        stop: CancellationToken,
    ) -> BoxFuture<'static, ()> {
        async move {
            loop {
                let trouble = tokio::select! {
                    () = stop.cancelled() => return,
                    trouble = self.follow(&rooms) => trouble,
                };
                if self.told.as_ref() != Some(&trouble) {
                    self.events.source_away(&trouble.to_string());
                }
                // Reading again mends the one; waiting may mend the others.
                let pause = if trouble == Trouble::Stale { Duration::ZERO } else { RETRY };
                if trouble != Trouble::Stale {
                    self.health.set(vec![trouble.to_string()]);
                }
                self.told = Some(trouble);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
        .boxed()
    }
}
