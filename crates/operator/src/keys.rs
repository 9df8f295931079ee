//! The key sets that stand elsewhere: fetched from ConfigMaps and https addresses, again and again, and brought to the rooms that
//! name them.
//!
//! Gateways need no way out for that, and never see more than public keys. A set that was good once stays in use while its source
//! cannot be reached: an identity provider that is away locks nobody out. What takes a key away is a set without it, and what takes all
//! away is one with none.

mod hosts;
mod source;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hubbub_api::{JwksError, KeySource, VerificationKey, parse_jwks};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Context, Key},
    room::RoomKey,
};

pub use hosts::{AllowedHosts, HostPattern, HostPatternError, Refused};
use source::Source;
pub use source::{Fetcher, FetcherError};

/// How often a ConfigMap is read: a key that was put into it counts within that time.
const CONFIG_MAP_PERIOD: Duration = Duration::from_secs(30);

/// The wait after the first failure; it doubles up to the period of the source.
const FIRST_RETRY: Duration = Duration::from_secs(2);

/// Sources that are asked at the same time.
const AT_ONCE: usize = 8;

/// The keys of one room, as far as they are known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// The newest set that was good.
    pub keys: Option<Arc<Vec<VerificationKey>>>,
    /// Why the last look at the source brought no keys.
    pub fault: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub struct KeySets {
    sets: Mutex<HashMap<Source, Set>>,
    /// How often an address is asked.
    period: Duration,
    changed: Notify,
}

#[derive(Debug)]
struct Set {
    rooms: HashSet<RoomKey>,
    known: Known,
    due: Instant,
    failures: u32,
    running: bool,
}

impl KeySets {
    /// Sets whose addresses are asked that often.
    #[must_use]
    pub fn new(period: Duration) -> Self {
        Self { sets: Mutex::default(), period, changed: Notify::new() }
    }

    /// What is known of the keys that the room names. The first to ask for a source has it looked at, and is looked at again when
    /// something is known.
    pub fn of(&self, room: &RoomKey, keys: &KeySource) -> Known {
        let mut sets = self.sets();
        let Some(source) = Source::of(room, keys) else {
            leave(&mut sets, room, None);
            return Known::default();
        };
        let mut is_new = false;
        leave(&mut sets, room, Some(&source));
        let set = sets.entry(source).or_insert_with(|| {
            is_new = true;
            Set {
                rooms: HashSet::new(),
                known: Known::default(),
                due: Instant::now(),
                failures: 0,
                running: false,
            }
        });
        set.rooms.insert(room.clone());
        let known = set.known.clone();
        drop(sets);
        if is_new {
            self.changed.notify_one();
        }
        known
    }

    /// The room names no keys any more.
    pub fn forget(&self, room: &RoomKey) {
        leave(&mut self.sets(), room, None);
    }

    /// Fetches what is due until `stop`.
    pub async fn run(&self, context: &Context, fetcher: &Fetcher, stop: CancellationToken) {
        let mut under_way = FuturesUnordered::new();
        loop {
            let changed = self.changed.notified();
            let next = loop {
                if under_way.len() >= AT_ONCE {
                    break None;
                }
                match self.take_due() {
                    Ok(source) => under_way.push(async {
                        let fetched = fetcher.fetch(context, &source).await;
                        (source, fetched)
                    }),
                    Err(next) => break next,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = changed => {}
                Some((source, fetched)) = under_way.next(), if !under_way.is_empty() => {
                    self.took(context, &source, fetched);
                }
                () = sleep_until(next), if next.is_some() => {}
            }
        }
    }

    /// A source whose time has come, or when the next one's comes.
    fn take_due(&self) -> Result<Source, Option<Instant>> {
        let mut sets = self.sets();
        let idle = sets.iter_mut().filter(|(_, set)| !set.running);
        let Some((source, set)) = idle.min_by_key(|(_, set)| set.due) else { return Err(None) };
        if set.due > Instant::now() {
            return Err(Some(set.due));
        }
        set.running = true;
        Ok(source.clone())
    }

    fn took(&self, context: &Context, source: &Source, fetched: Result<String, String>) {
        let fetched = fetched.and_then(|text| known(source, &text));
        let mut sets = self.sets();
        // Nobody may want it any more.
        let Some(set) = sets.get_mut(source) else { return };
        set.running = false;
        let period = match source {
            Source::ConfigMap { .. } => CONFIG_MAP_PERIOD,
            Source::Url(_) => self.period,
        };
        let before = set.known.clone();
        let wait = match fetched {
            Ok(known) => {
                set.failures = 0;
                set.known = known;
                period
            }
            Err(fault) => {
                let doubled = FIRST_RETRY.saturating_mul(1 << set.failures.min(10)).min(period);
                set.failures += 1;
                set.known.fault = Some(fault);
                doubled
            }
        };
        set.due = Instant::now() + wait;
        let is_new = set.known != before;
        let (rooms, known) = (set.rooms.clone(), set.known.clone());
        drop(sets);
        context.events.keys_fetched(&source.to_string(), known.fault.as_deref(), is_new);
        if is_new {
            rooms.into_iter().for_each(|room| context.queue.add(Key::Room(room)));
        }
    }

    fn sets(&self) -> MutexGuard<'_, HashMap<Source, Set>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a text says of the keys. That there is none is said, too: that is how the last one is taken back.
fn known(source: &Source, text: &str) -> Result<Known, String> {
    let told = |error: JwksError| format!("{source}: the key set {error}");
    match parse_jwks(text) {
        Ok(keys) => Ok(Known { keys: Some(Arc::new(keys)), fault: None }),
        Err(error @ JwksError::Empty) => {
            Ok(Known { keys: Some(Arc::default()), fault: Some(told(error)) })
        }
        Err(error) => Err(told(error)),
    }
}

/// Takes the room off all sources but this one, and forgets those that no room names.
fn leave(sets: &mut HashMap<Source, Set>, room: &RoomKey, but: Option<&Source>) {
    sets.retain(|source, set| {
        if Some(source) == but {
            return true;
        }
        set.rooms.remove(room);
        !set.rooms.is_empty()
    });
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
