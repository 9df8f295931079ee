//! What every reconcile works with.

use std::{future::Future, sync::Arc, time::Duration};

use hubbub_api::kubernetes::ChatRoomResource;
use kube::{Client, ResourceExt as _};

use crate::{
    bucket::Bucket,
    claims::Claims,
    cluster::Cluster,
    connection::Trouble,
    error::ReconcileError,
    events::OperatorEvents,
    keys::KeySets,
    notices::Notices,
    pool::Pools,
    queue::Queue,
    reports::Reports,
    room::{Memories, RoomKey},
    settings::Settings,
};

/// The one name under which everything is written.
pub const FIELD_MANAGER: &str = "hubbub-operator";

/// How long one request to the API server may take. What is under way when the lease is lost is over by then.
pub(crate) const REQUEST_LIMIT: Duration = Duration::from_secs(4);

/// What is reconciled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// One room.
    Room(RoomKey),
    /// One pool, by its name.
    Pool(String),
}

/// See the module.
#[derive(Debug)]
pub struct Context {
    /// The release that this operator belongs to.
    pub instance: String,
    /// The namespace of the release, where pools are.
    pub namespace: String,
    /// How pools are built.
    pub settings: Settings,
    /// How long the load of a pool must have been lower before a gateway goes.
    pub scale_down_window: Duration,
    /// Which rooms are another operator's.
    pub claims: Claims,
    /// Writes pass only while the lease is held.
    pub client: DebugClient,
    /// What the API server shows.
    pub cluster: Cluster,
    /// What is published.
    pub bucket: Arc<Bucket>,
    /// Why NATS cannot be reached.
    pub trouble: Trouble,
    /// Keys that stand elsewhere.
    pub keys: KeySets,
    /// What gateways report.
    pub reports: Arc<Reports>,
    /// What is to be done.
    pub queue: Arc<Queue<Key>>,
    /// What is counted and logged.
    pub events: Arc<OperatorEvents>,
    /// What people are told.
    pub notices: Notices,
    /// What is remembered of rooms.
    pub rooms: Memories,
    /// What is remembered of pools.
    pub pools: Pools,
}

/// A client that can be printed: kube's own cannot.
#[derive(Clone)]
pub struct DebugClient(pub Client);

impl std::fmt::Debug for DebugClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Context {
    /// The client, fenced.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.0.clone()
    }

    /// Asks for a look at every room of a pool.
    pub fn look_at_rooms_of(&self, pool: &str) {
        self.look_at_rooms(|room| room.spec.gateways.pool == pool);
    }

    /// Asks for a look at every room that can be read and is so.
    pub fn look_at_rooms(&self, wanted: impl Fn(&ChatRoomResource) -> bool) {
        for room in self.cluster.rooms() {
            if let Ok(room) = &room.0
                && wanted(room)
            {
                let (namespace, name) = (room.namespace().unwrap_or_default(), room.name_any());
                self.queue.add(Key::Room(RoomKey { namespace, name }));
            }
        }
    }

    /// Awaits a request, but not for ever.
    ///
    /// # Errors
    ///
    /// What the request came to, or that it came to nothing in time.
    pub async fn in_time<T>(
        &self,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ReconcileError> {
        match tokio::time::timeout(REQUEST_LIMIT, request).await {
            Ok(answer) => answer.map_err(ReconcileError::Api),
            Err(_) => Err(ReconcileError::NoAnswer),
        }
    }
}
