//! Everything that is known of a room at one moment, as plain values.

use std::{sync::Arc, time::Instant};

use hubbub_api::kubernetes::ChatRoomResource;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};

use super::{Memory, RoomKey};
use crate::{
    bucket::Entry,
    context::Context,
    guard::{GuardedRoom, Unreadable},
    keys::Known,
    reports::Hearing,
};

/// A room as it is seen.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Which room.
    pub key: RoomKey,
    /// The object.
    pub seen: Seen,
    /// This operator, as statuses name it.
    pub operator: String,
    /// What the bucket holds under its key.
    pub entry: Entry,
    /// Whether the bucket has been read and can be written.
    pub bucket_read: bool,
    /// Why NATS cannot be reached, if it is known.
    pub nats_trouble: Option<String>,
    /// The keys that its tokens are verified with, if they stand elsewhere.
    pub keys: Known,
    /// Whether gateways can be heard.
    pub hearing: Hearing,
    /// Members, over all gateways.
    pub connections: u64,
    /// The revisions that the serving gateways of its pool have applied, one each; 0 for one that knows another bucket.
    pub serving: Vec<u64>,
    /// Gateways of that pool that are there, and have not loaded any policy yet.
    pub loading: usize,
    /// What is wrong with that pool's objects, if anything.
    pub pool_fault: Option<String>,
    /// What is remembered of the room.
    pub memory: Memory,
    /// The time by which spans are measured.
    pub now: Instant,
    /// The time that is written into statuses.
    pub wall: Timestamp,
}

/// The object of a room.
#[derive(Debug, Clone)]
pub enum Seen {
    /// There is none.
    Gone,
    /// It cannot be read.
    Unreadable(Box<Unreadable>),
    /// It can.
    Room(Arc<ChatRoomResource>),
}

impl From<&GuardedRoom> for Seen {
    fn from(room: &GuardedRoom) -> Self {
        match &room.0 {
            Ok(room) => Self::Room(Arc::clone(room)),
            Err(unreadable) => Self::Unreadable(Box::new(unreadable.clone())),
        }
    }
}

impl Seen {
    /// What can be read of any object.
    #[must_use]
    pub fn metadata(&self) -> Option<&ObjectMeta> {
        match self {
            Self::Gone => None,
            Self::Unreadable(unreadable) => Some(&unreadable.metadata),
            Self::Room(room) => Some(&room.metadata),
        }
    }

    /// The version of the object.
    #[must_use]
    pub fn version(&self) -> Option<String> {
        self.metadata().and_then(|metadata| metadata.resource_version.clone())
    }

    /// The operator that its status names.
    #[must_use]
    pub fn operator(&self) -> Option<&str> {
        match self {
            Self::Gone => None,
            Self::Unreadable(unreadable) => unreadable.operator.as_deref(),
            Self::Room(room) => room.status.as_ref()?.operator.as_deref(),
        }
    }

    /// Whether it is there and is to go.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.metadata().is_some_and(|metadata| metadata.deletion_timestamp.is_some())
    }
}

impl Observed {
    /// Looks at everything.
    pub(super) fn of(context: &Context, key: &RoomKey) -> Self {
        let now = Instant::now();
        let seen = context.cluster.room(key);
        let entry = context.bucket.entry(&key.policy_key());
        let pool = match (&seen, &entry.policy) {
            (Seen::Room(room), _) => room.spec.gateways.pool.clone(),
            // What was published last is still served.
            (Seen::Gone | Seen::Unreadable(_), Some(policy)) => policy.pool.clone(),
            (Seen::Gone | Seen::Unreadable(_), None) => String::new(),
        };
        let jwt = match &seen {
            Seen::Room(room) if !seen.is_leaving() => room.spec.auth.jwt.as_ref(),
            _ => None,
        };
        let keys = match jwt {
            Some(jwt) => context.keys.of(key, &jwt.jwks),
            None => {
                context.keys.forget(key);
                Known::default()
            }
        };
        Self {
            keys,
            entry,
            operator: context.claims.own().to_owned(),
            bucket_read: context.bucket.is_read() && context.bucket.is_connected(),
            nats_trouble: context.trouble.settled(),
            hearing: context.reports.hearing(now),
            connections: context.reports.connections(&key.path()),
            serving: context.reports.serving(&pool, context.bucket.made(), now),
            loading: context.reports.loading(&pool, now),
            pool_fault: context.pools.fault(&pool),
            memory: context.rooms.get(key),
            key: key.clone(),
            seen,
            now,
            wall: Timestamp::now(),
        }
    }
}
