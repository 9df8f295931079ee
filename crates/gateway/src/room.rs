//! A room as this gateway knows it, and the table of all rooms.
//!
//! A [`Room`] lives as long as its policy is declared or a member is in it. Its policy is swapped whole, so a
//! reader sees either the old or the new one. Its member count includes the handshakes that are under way, which
//! makes the count a reservation: two handshakes never share the last place.
//!
//! The table is filled by a policy source alone. It knows nothing of sockets; whoever holds members is told of
//! changes through [`RoomObserver`].

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use hubbub_api::{AllowedOrigins, PatternError, RoomName, RoomPolicy};
use nats::Subject;
use tokio::sync::watch;

use crate::token::Verifier;

mod pace;

pub use pace::{Pace, Turn};

/// A room's policy, ready for use: the declaration, its compiled allowlist, and its keys.
#[derive(Debug)]
pub struct Policy {
    declared: RoomPolicy,
    origins: AllowedOrigins,
    tokens: Option<Verifier>,
}

impl Policy {
    /// Compiles a declaration.
    ///
    /// # Errors
    ///
    /// The entries of `allowedOrigins` that are not well formed.
    pub fn compile(declared: RoomPolicy) -> Result<Self, Vec<PatternError>> {
        let origins = AllowedOrigins::compile(&declared.allowed_origins)?;
        let tokens = declared.auth.jwt.as_ref().map(Verifier::new);
        Ok(Self { declared, origins, tokens })
    }

    /// The declaration as it came from the policy source.
    #[must_use]
    pub fn declared(&self) -> &RoomPolicy {
        &self.declared
    }

    /// The compiled allowlist.
    #[must_use]
    pub fn origins(&self) -> &AllowedOrigins {
        &self.origins
    }

    /// What tokens are verified with, if the room knows tokens.
    #[must_use]
    pub fn tokens(&self) -> Option<&Verifier> {
        self.tokens.as_ref()
    }
}

/// One room on this gateway.
#[derive(Debug)]
pub struct Room {
    id: u64,
    name: RoomName,
    subject: Subject,
    policy: ArcSwap<Policy>,
    gone: AtomicBool,
    /// Members and handshakes under way, all shards together.
    members: AtomicU32,
    /// Members by shard: says which shards a message must reach.
    by_shard: Box<[AtomicU32]>,
    /// Messages that reached the room here.
    messages: AtomicU64,
    pace: Pace,
}

impl Room {
    /// A room without members, spread over at most `shards` shards.
    #[must_use]
    pub fn new(name: RoomName, policy: Policy, shards: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            subject: Subject::from(name.subject()),
            name,
            pace: Pace::new(policy.declared().limits.room_messages_per_second),
            policy: ArcSwap::from_pointee(policy),
            gone: AtomicBool::new(false),
            members: AtomicU32::new(0),
            by_shard: (0..shards).map(|_| AtomicU32::new(0)).collect(),
            messages: AtomicU64::new(0),
        }
    }

    /// Unique in this process, also among rooms that had the same name one after another.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Which of so many the room belongs to: the shard of its first members, and the bus's connection in that thread.
    #[must_use]
    pub fn home(&self, of: usize) -> usize {
        // A remainder of `of` fits.
        usize::try_from(self.id % of.max(1) as u64).unwrap_or(0)
    }

    /// `namespace/name`.
    #[must_use]
    pub fn name(&self) -> &RoomName {
        &self.name
    }

    /// The bus subject of the room's messages; a clone shares its text.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Whether the room was removed; nobody may join it any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Members on this gateway, handshakes under way included.
    #[must_use]
    pub fn members(&self) -> u32 {
        self.members.load(Ordering::Acquire)
    }

    /// Members by shard; the length is the number of shards.
    #[must_use]
    pub fn by_shard(&self) -> &[AtomicU32] {
        &self.by_shard
    }

    /// Messages that reached the room here since it was declared.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// Counts a message that reached the room at that time.
    pub fn count_message(&self, arrived: Instant) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.pace.heard(arrived);
    }

    /// The pace at which its members may talk.
    #[must_use]
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Takes a place if the room holds fewer than `limit` members here; says whether it did.
    #[must_use]
    pub fn reserve(&self, limit: u64) -> bool {
        self.members
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
                (u64::from(now) < limit).then(|| now + 1)
            })
            .is_ok()
    }

    /// Gives a place back; says whether it was the last one taken.
    #[must_use]
    pub fn release(&self) -> bool {
        self.members.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

/// Told of changes that concern members who are already in a room. Called in the order of the changes, on the
/// policy source's task; must not block.
pub trait RoomObserver: Send + Sync + 'static {
    /// The room runs another policy now.
    fn policy_changed(&self, room: &Arc<Room>);
    /// The room was removed; its members must leave.
    fn room_gone(&self, room: &Arc<Room>);
}

/// What a policy source brings about, for its log line.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Changes {
    /// Rooms that were not there before.
    pub added: usize,
    /// Rooms whose policy is another one now.
    pub changed: usize,
    /// Rooms that are gone.
    pub removed: usize,
}

impl Changes {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    fn add(&mut self, other: Self) {
        self.added += other.added;
        self.changed += other.changed;
        self.removed += other.removed;
    }
}

/// How far a table of rooms has followed its source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// The highest revision that is in force; 0 for sources that count none.
    pub revision: u64,
    /// When the bucket was made that the revision counts in, in nanoseconds since 1970.
    pub bucket: Option<i64>,
}

/// All declared rooms, of every pool (a room of another pool is known, so that it can be refused as such).
pub struct Rooms {
    shards: usize,
    by_name: RwLock<HashMap<Box<str>, Arc<Room>>>,
    observer: OnceLock<Arc<dyn RoomObserver>>,
    loaded: AtomicBool,
    applied: watch::Sender<Applied>,
}

impl std::fmt::Debug for Rooms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rooms").field("rooms", &self.len()).finish_non_exhaustive()
    }
}

impl Rooms {
    /// An empty table whose rooms spread over at most `shards` shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self {
            shards,
            by_name: RwLock::default(),
            observer: OnceLock::new(),
            loaded: AtomicBool::new(false),
            applied: watch::Sender::new(Applied::default()),
        }
    }

    /// Names who is told of changes. Only the first call counts.
    pub fn observe(&self, observer: Arc<dyn RoomObserver>) {
        let _ = self.observer.set(observer);
    }

    /// The room of that `namespace/name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Room>> {
        self.read().get(name).cloned()
    }

    /// How many rooms are declared.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// Whether no room is declared.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All rooms, ordered by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Room>> {
        let mut rooms: Vec<_> = self.read().values().cloned().collect();
        rooms.sort_by(|a, b| a.name().cmp(b.name()));
        rooms
    }

    /// Declares one room, or changes its policy. A policy equal to the one in force changes nothing.
    pub fn put(&self, policy: Policy) -> Changes {
        let name = policy.declared().room.clone();
        let mut table = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = table.get(name.to_string().as_str()).cloned() {
            if room.policy.load().declared == policy.declared {
                return Changes::default();
            }
            room.pace.set(policy.declared().limits.room_messages_per_second);
            room.policy.store(Arc::new(policy));
            drop(table);
            if let Some(observer) = self.observer.get() {
                observer.policy_changed(&room);
            }
            return Changes { changed: 1, ..Changes::default() };
        }
        let room = Arc::new(Room::new(name.clone(), policy, self.shards));
        table.insert(name.to_string().into_boxed_str(), room);
        Changes { added: 1, ..Changes::default() }
    }

    /// Removes one room.
    pub fn remove(&self, name: &str) -> Changes {
        let removed = self.by_name.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        let Some(room) = removed else { return Changes::default() };
        room.gone.store(true, Ordering::Release);
        if let Some(observer) = self.observer.get() {
            observer.room_gone(&room);
        }
        Changes { removed: 1, ..Changes::default() }
    }

    /// Makes these the only rooms.
    pub fn replace(&self, policies: Vec<Policy>) -> Changes {
        let wanted: HashSet<String> =
            policies.iter().map(|policy| policy.declared().room.to_string()).collect();
        let stale: Vec<Box<str>> =
            self.read().keys().filter(|name| !wanted.contains(name.as_ref())).cloned().collect();
        let mut changes = Changes::default();
        for name in stale {
            changes.add(self.remove(&name));
        }
        for policy in policies {
            changes.add(self.put(policy));
        }
        changes
    }

    /// Whether the policy source has delivered everything it had at start.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// Waits until [`Rooms::is_loaded`].
    pub async fn loaded(&self) {
        // The sender lives as long as this table.
        let _ = self.applications().wait_for(|_| self.is_loaded()).await;
    }

    /// Says that the table is complete up to a revision of its source. It may go back: a bucket that was made anew
    /// counts from the beginning.
    pub fn set_applied(&self, applied: Applied) {
        self.loaded.store(true, Ordering::Release);
        self.applied.send_replace(applied);
    }

    /// What of the source is in force here.
    #[must_use]
    pub fn applied(&self) -> Applied {
        *self.applied.borrow()
    }

    /// Changes of what is in force.
    #[must_use]
    pub fn applications(&self) -> watch::Receiver<Applied> {
        self.applied.subscribe()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<Box<str>, Arc<Room>>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner)
    }
}
