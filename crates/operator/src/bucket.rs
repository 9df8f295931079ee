//! The policies in NATS: a mirror of the key-value bucket, and the writes to it.
//!
//! The mirror holds the newest revision of every key, with the policy that it carries. A write names the revision that it
//! replaces, so an operator that is no longer the leader cannot overwrite what the new one wrote. The bucket is made if
//! it is missing; if it is made anew, or has lost what it held, the mirror is read again and whoever listens is told of
//! every key.
//!
//! Beside the policies stands what the operator says of the bucket as a whole ([`Statement`]). Its key is there before the
//! first policy, so who meets policies in a bucket knows from which operators they can be.
//!
//! Whoever has stolen a gateway's login can have NATS write its answers under any key. What is neither a room's nor an operator's
//! is taken out, and this operator's statement is written again. Consumers of the bucket that do not follow it are deleted.

mod consumers;
mod strays;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    convert::Infallible,
    ops::Bound,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use hubbub_api::{
    PolicyError, RoomName, RoomPolicy, Statement,
    names::{BUCKET, BUCKET_STREAM, statement_key},
};
use hubbub_nats::Contents;
use nats::{
    Client,
    connection::State,
    jetstream::{
        self,
        context::PublishErrorKind,
        kv::{self, Operation, Store, UpdateError, UpdateErrorKind},
        message::PublishMessage,
    },
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    error::in_words,
    fence::{Fence, Fenced},
};

pub use strays::Tidied;

/// How long one write may take.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// The wait before the bucket is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long the bucket must have been in trouble before people are told.
const TROUBLE_GRACE: Duration = Duration::from_secs(10);

/// That the bucket is read again because it is not what it was, which is told in another way.
const LOST: &str = "the bucket has lost what it held; it is read again";

/// How often the bucket is compared with the mirror, for what no watch tells.
const AUDIT: Duration = Duration::from_secs(3);

/// Why a policy is not in the bucket.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// NATS cannot be reached, or the bucket has not been read yet.
    #[error("the policies in NATS cannot be reached")]
    Away,
    /// NATS is there, but the bucket cannot be used.
    #[error(
        "the policies in NATS cannot be used ({0}): JetStream must be on, and the operator's login be allowed to use it"
    )]
    Unusable(String),
    /// The key was written by somebody else meanwhile; the mirror will show it.
    #[error("the policy was changed by somebody else; it is compared again")]
    Raced,
    /// NATS refused the write.
    #[error("NATS does not take the policy: {0}")]
    Refused(String),
    /// The policy cannot be written as JSON.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// This replica may not write.
    #[error(transparent)]
    Fenced(#[from] Fenced),
}

/// What the bucket holds for a key.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// The revision of the last write, of a deletion too; 0 if there never was one.
    pub revision: u64,
    /// The policy, if there is one that can be read.
    pub policy: Option<Arc<RoomPolicy>>,
    /// Whether there is a value, readable or not.
    pub present: bool,
    /// Whether it is neither a room's nor an operator's, and is to be taken out.
    pub stray: bool,
}

impl Entry {
    /// A value that this operator has just written.
    fn written(revision: u64, policy: Option<Arc<RoomPolicy>>) -> Self {
        Self { revision, policy, present: true, stray: false }
    }

    /// Whether there is a value that may stay.
    fn stands(&self) -> bool {
        self.present && !self.stray
    }
}

/// See the module.
pub struct Bucket {
    client: Client,
    fence: Fence,
    replicas: usize,
    /// The key of this operator's statements.
    own_key: String,
    mirror: Mutex<Mirror>,
    /// The mirror shows a bucket that is no more.
    stale: Notify,
    /// There is something to be tidied.
    untidy: Notify,
    /// There are other consumers than before.
    crowd: Notify,
}

#[derive(Default)]
struct Mirror {
    entries: HashMap<String, Entry>,
    /// The keys that are to be tidied: strays, and that of this operator's statement while none stands there.
    untidy: BTreeSet<String>,
    /// The keys by the revision of their last write.
    revisions: BTreeMap<u64, String>,
    /// The last revision of all.
    last: u64,
    /// What the bucket held when it was looked at last.
    contents: Option<Contents>,
    /// There while the bucket is followed and has been read whole.
    store: Option<Store>,
    /// Whether it was said since then that everything is published.
    stated: bool,
    /// When the bucket was made that the mirror shows, in nanoseconds since 1970.
    made: Option<i64>,
    /// Why it could not be followed the last time, and since when there was trouble without a break.
    trouble: Option<(String, Instant)>,
}

impl Mirror {
    fn fail(&mut self, trouble: &str, connected: bool) {
        self.store = None;
        let since = self.trouble.take().filter(|_| connected).map(|(_, since)| since);
        self.trouble = Some((trouble.to_owned(), since.unwrap_or_else(Instant::now)));
    }
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket").field("keys", &self.mirror().entries.len()).finish_non_exhaustive()
    }
}

impl Bucket {
    /// The bucket on that connection, for the operator `namespace/release`; made with so many replicas if it is missing.
    /// Nothing happens before [`run`](Self::run).
    #[must_use]
    pub fn new(client: Client, fence: Fence, replicas: usize, operator: &str) -> Self {
        let own_key = statement_key(operator);
        Self {
            client,
            fence,
            replicas,
            own_key,
            mirror: Mutex::default(),
            stale: Notify::new(),
            untidy: Notify::new(),
            crowd: Notify::new(),
        }
    }

    /// Whether the connection stands.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Whether the mirror is whole.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.mirror().store.is_some()
    }

    /// Why nothing can be compared or written now. Only what lasts is told as trouble of the bucket: after a restart,
    /// NATS is there some seconds before its JetStream is.
    #[must_use]
    pub fn unavailable(&self) -> BucketError {
        match &self.mirror().trouble {
            Some((trouble, since)) if self.is_connected() && since.elapsed() >= TROUBLE_GRACE => {
                BucketError::Unusable(trouble.clone())
            }
            _ => BucketError::Away,
        }
    }

    /// When the bucket was made that revisions count in, in nanoseconds since 1970; none before it has been read.
    #[must_use]
    pub fn made(&self) -> Option<i64> {
        self.mirror().made
    }

    /// What the bucket holds for a key.
    #[must_use]
    pub fn entry(&self, key: &str) -> Entry {
        self.mirror().entries.get(key).cloned().unwrap_or_default()
    }

    /// The keys that have a value.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let mirror = self.mirror();
        let present = mirror.entries.iter().filter(|(_, entry)| entry.present);
        present.map(|(key, _)| key.clone()).collect()
    }

    /// The keys whose last write is above the first revision, and not above the second.
    #[must_use]
    pub fn written_between(&self, above: u64, upto: u64) -> Vec<String> {
        if above >= upto {
            return Vec::new();
        }
        let range = (Bound::Excluded(above), Bound::Included(upto));
        self.mirror().revisions.range(range).map(|(_, key)| key.clone()).collect()
    }

    /// Writes a policy over the given revision of its key, and returns the new one.
    ///
    /// # Errors
    ///
    /// [`BucketError`]; the policy may be written all the same when NATS did not answer.
    pub async fn put(&self, policy: &RoomPolicy, over: u64) -> Result<u64, BucketError> {
        let store = self.store()?;
        let (key, json) = (policy.room.policy_key(), policy.to_json()?);
        let newest = self.last();
        let written = tokio::time::timeout(WRITE_LIMIT, store.update(&key, json.into(), over));
        let revision = match written.await {
            Ok(Ok(revision)) => revision,
            Ok(Err(error)) => return Err(failure(&error)),
            Err(_) => return Err(BucketError::Away),
        };
        if revision <= newest {
            // Revisions only grow, so this is another bucket than the one that was read, and the mirror says nothing of it.
            self.stale.notify_one();
            return Err(BucketError::Raced);
        }
        let policy = Some(Arc::new(policy.clone()));
        self.show(key, Entry::written(revision, policy));
        Ok(revision)
    }

    /// Takes a key's policy out.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub async fn remove(&self, key: &str, over: u64) -> Result<(), BucketError> {
        let store = self.store()?;
        let removed = store.delete_expect_revision(key, Some(over));
        match tokio::time::timeout(WRITE_LIMIT, removed).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(failure(&error)),
            Err(_) => return Err(BucketError::Away),
        }
        // Its revision comes with the watch; whoever writes before is told to compare again.
        let mut mirror = self.mirror();
        if let Some(entry) = mirror.entries.get_mut(key).filter(|entry| entry.revision <= over) {
            *entry = Entry { revision: entry.revision, ..Entry::default() };
        }
        Ok(())
    }

    /// Whether it is to be said that everything is published.
    #[must_use]
    pub fn owes_statement(&self) -> bool {
        let mirror = self.mirror();
        mirror.store.is_some() && !mirror.stated
    }

    /// Whether that operator, as statuses name it, publishes in this bucket too.
    #[must_use]
    pub fn is_shared_with(&self, operator: &str) -> bool {
        self.entry(&statement_key(operator)).stands()
    }

    /// The last revision of all that the mirror shows.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.mirror().last
    }

    /// Writes what is true of the bucket as it was at its last revision `at`.
    ///
    /// # Errors
    ///
    /// [`BucketError`], also when anything has been written since, or lost.
    pub async fn state(&self, statement: &Statement, at: u64) -> Result<(), BucketError> {
        let json = said(statement)?;
        // Not that of the key alone: sent again to a server that has lost everything, it would deny every room.
        let message = PublishMessage::build().payload(json.into()).expected_last_sequence(at);
        let revision = self.send(&self.own_key, message).await?;
        self.show(self.own_key.clone(), Entry::written(revision, None));
        self.mirror().stated = true;
        Ok(())
    }

    /// Writes to any key, also to one that the client's library takes for none, and returns the revision.
    async fn send(&self, key: &str, message: PublishMessage) -> Result<u64, BucketError> {
        self.store()?;
        let subject = format!("$KV.{BUCKET}.{key}");
        let written = async {
            jetstream::new(self.client.clone()).send_publish(subject, message).await?.await
        };
        match tokio::time::timeout(WRITE_LIMIT, written).await {
            Ok(Ok(ack)) => Ok(ack.sequence),
            Ok(Err(error)) if error.kind() == PublishErrorKind::WrongLastSequence => {
                Err(BucketError::Raced)
            }
            Ok(Err(error)) => Err(BucketError::Refused(in_words(&error))),
            Err(_) => Err(BucketError::Away),
        }
    }

    /// Follows the bucket until `stop`, and tells the name of each key that changed. `lost` is called when the bucket has
    /// lost what it held, `tidied` when something in it was none of its business.
    pub async fn run(
        &self,
        changed: impl Fn(&str),
        mut told: impl FnMut(&str),
        lost: impl Fn(),
        tidied: impl Fn(Tidied<'_>),
        stop: CancellationToken,
    ) {
        let mut last = String::new();
        loop {
            let trouble = tokio::select! {
                () = stop.cancelled() => return,
                trouble = self.follow(&changed, &lost, &tidied) => match trouble {
                    Ok(never) => match never {},
                    Err(trouble) => trouble,
                },
                never = self.tidy(&tidied) => match never {},
                never = self.sweep_when_due(&tidied) => match never {},
            };
            self.mirror().fail(&trouble, self.is_connected());
            if trouble != last && trouble != LOST {
                told(&trouble);
                last = trouble;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    async fn follow(
        &self,
        changed: &impl Fn(&str),
        lost: &impl Fn(),
        tidied: &impl Fn(Tidied<'_>),
    ) -> Result<Infallible, String> {
        let context = jetstream::new(self.client.clone());
        let store = self.open(&context).await?;
        let info = store.stream.cached_info().clone();
        // Before one is needed here: there may be as many as NATS allows.
        self.sweep(&context, tidied).await;
        let mut consumers = info.state.consumer_count;
        let contents = Contents::of(&info);
        let known = self.mirror().contents.replace(contents.clone());
        if known.is_some_and(|known| !known.is_continued_by(&contents)) {
            lost();
        }
        let mut watch = pin!(store.watch_with_history(">").await.map_err(|e| in_words(&e))?);
        let mut read = HashMap::new();
        // An empty bucket shows nothing at all, not even that it is empty.
        let mut listed = info.state.messages == 0;
        if listed {
            self.listed(std::mem::take(&mut read), store.clone(), changed).await?;
        }
        let mut audit = tokio::time::interval(AUDIT);
        audit.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                entry = watch.next() => {
                    let entry = entry.ok_or("the watch ended")?.map_err(|error| in_words(&error))?;
                    let (key, last) = (entry.key.clone(), entry.seen_current);
                    let shown = shown(&entry);
                    if listed {
                        self.show(key.clone(), shown);
                        changed(&key);
                        continue;
                    }
                    read.insert(key, shown);
                    if last {
                        listed = true;
                        self.listed(std::mem::take(&mut read), store.clone(), changed).await?;
                    }
                }
                () = self.stale.notified() => {
                    return Err(LOST.to_owned());
                }
                _ = audit.tick() => {
                    let keys = if listed { self.mirror().entries.len() as u64 } else { 0 };
                    // That NATS cannot answer now says nothing about the bucket.
                    match context.get_stream(BUCKET_STREAM).await {
                        Ok(stream) => {
                            let now = stream.cached_info();
                            let contents = Contents::of(now);
                            let known = self.mirror().contents.clone();
                            if known.is_some_and(|known| !known.is_continued_by(&contents)) {
                                return Err(LOST.to_owned());
                            }
                            // A deleted key still counts, so that one is missing was nobody's wish.
                            if now.state.subjects_count < keys {
                                lost();
                                return Err(LOST.to_owned());
                            }
                            self.mirror().contents = Some(contents);
                            if std::mem::replace(&mut consumers, now.state.consumer_count) != consumers {
                                self.crowd.notify_one();
                            }
                        }
                        Err(error) if is_missing(&error) => {
                            return Err("the bucket is gone; it is made anew".to_owned());
                        }
                        Err(_) => {}
                    }
                }
            }
        }
    }

    async fn open(&self, context: &jetstream::Context) -> Result<Store, String> {
        let missing = match context.get_stream(BUCKET_STREAM).await {
            Ok(_) => false,
            Err(error) if is_missing(&error) => true,
            Err(error) => return Err(format!("the bucket {BUCKET} cannot be read: {error}")),
        };
        if missing {
            self.fence.check().map_err(|fenced| fenced.to_string())?;
            let config = kv::Config {
                bucket: BUCKET.to_owned(),
                description: "Policies of Hubbub's rooms, written by the operator".to_owned(),
                history: 1,
                num_replicas: self.replicas,
                ..kv::Config::default()
            };
            let made = context.create_key_value(config).await;
            return made.map_err(|error| format!("the bucket {BUCKET} cannot be made: {error}"));
        }
        let store = context.get_key_value(BUCKET).await;
        store.map_err(|error| format!("the bucket {BUCKET} cannot be read: {error}"))
    }

    /// Everything that was in the bucket has been read. Nothing is published before that is done.
    async fn listed(
        &self,
        mut read: HashMap<String, Entry>,
        store: Store,
        changed: &impl Fn(&str),
    ) -> Result<(), String> {
        let own = read.get(&self.own_key).cloned().unwrap_or_default();
        if !own.stands() {
            self.fence.check().map_err(|fenced| fenced.to_string())?;
            let begun = Statement::default().to_json().map_err(|error| error.to_string())?;
            let written = store.update(&self.own_key, begun.into(), own.revision);
            let written = tokio::time::timeout(WRITE_LIMIT, written).await;
            let revision = written
                .map_err(|_| "NATS does not answer a write to the bucket".to_owned())?
                .map_err(|error| in_words(&error))?;
            read.insert(self.own_key.clone(), Entry::written(revision, None));
        }
        let mut keys: Vec<String> = read.keys().cloned().collect();
        let mut mirror = self.mirror();
        keys.extend(mirror.entries.keys().filter(|key| !read.contains_key(*key)).cloned());
        let revisions: BTreeMap<_, _> =
            read.iter().map(|(key, entry)| (entry.revision, key.clone())).collect();
        let info = store.stream.cached_info();
        let newest = revisions.keys().next_back().copied().unwrap_or(0);
        let (created, last) = (info.created, newest.max(info.state.last_sequence));
        // The type of a time has room for more than i64 has; NATS has not.
        let made = i64::try_from(created.unix_timestamp_nanos()).ok();
        let strays = read.iter().filter(|(_, entry)| entry.stray);
        *mirror = Mirror {
            untidy: strays.map(|(key, _)| key.clone()).collect(),
            entries: read,
            revisions,
            last,
            contents: mirror.contents.take(),
            store: Some(store),
            stated: false,
            made,
            trouble: None,
        };
        drop(mirror);
        self.untidy.notify_one();
        keys.iter().for_each(|key| changed(key));
        // Also for those that are in no bucket yet.
        changed("");
        Ok(())
    }

    fn show(&self, key: String, entry: Entry) {
        let mut mirror = self.mirror();
        mirror.last = mirror.last.max(entry.revision);
        let known = mirror.entries.get(&key).map_or(0, |known| known.revision);
        if entry.revision >= known {
            let is_ours = key == self.own_key;
            if entry.stray || (is_ours && !entry.stands()) {
                // What stands there denies nothing, so it has to be said again.
                mirror.stated &= !is_ours;
                mirror.untidy.insert(key.clone());
                self.untidy.notify_one();
            } else {
                mirror.untidy.remove(&key);
            }
            mirror.revisions.remove(&known);
            mirror.revisions.insert(entry.revision, key.clone());
            mirror.entries.insert(key, entry);
        }
    }

    fn store(&self) -> Result<Store, BucketError> {
        self.fence.check()?;
        if !self.is_connected() {
            return Err(BucketError::Away);
        }
        self.mirror().store.clone().ok_or(BucketError::Away)
    }

    fn mirror(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A statement as it is written.
fn said(statement: &Statement) -> Result<Vec<u8>, BucketError> {
    statement.to_json().map_err(|error| BucketError::Refused(error.to_string()))
}

fn failure(error: &UpdateError) -> BucketError {
    match error.kind() {
        UpdateErrorKind::WrongLastRevision => BucketError::Raced,
        UpdateErrorKind::TimedOut => BucketError::Away,
        _ => BucketError::Refused(in_words(error)),
    }
}

/// An entry of the watch as the mirror shows it. A policy under another room's key is as good as unreadable.
fn shown(entry: &kv::Entry) -> Entry {
    let present = entry.operation == Operation::Put;
    let room = RoomName::from_policy_key(&entry.key).ok();
    let policy = if present { RoomPolicy::from_json(&entry.value).ok() } else { None };
    let policy = policy.filter(|policy| Some(&policy.room) == room.as_ref()).map(Arc::new);
    let stray = present && strays::is_stray(&entry.key, &entry.value);
    Entry { revision: entry.revision, policy, present, stray }
}

fn is_missing(error: &jetstream::context::GetStreamError) -> bool {
    use jetstream::{ErrorCode, context::GetStreamErrorKind};
    match error.kind() {
        GetStreamErrorKind::JetStream(error) => error.error_code() == ErrorCode::STREAM_NOT_FOUND,
        _ => false,
    }
}
