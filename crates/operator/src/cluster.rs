//! What the API server shows: rooms, the objects of pools, and pods, each watched and kept.
//!
//! Watches outlive everything: they begin anew after an expired version, a restart of the API server or a dead connection.
//! A room that cannot be read is kept as such, and keeps no other from being read.

use std::{fmt::Debug, hash::Hash, sync::Arc};

use futures_util::{StreamExt as _, pin_mut};
use hubbub_api::kubernetes::POOL_LABEL;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        reflector::{self, ObjectRef, Store, store::Writer},
        watcher::{self, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    context::Key,
    events::OperatorEvents,
    guard::GuardedRoom,
    pool::owned_by,
    queue::Queue,
    room::{RoomKey, Seen},
};

/// Seconds after which a watch is begun anew, and so at most the time in which a dead connection is noticed.
const WATCH_SECONDS: u32 = 60;

/// See the module.
pub struct Cluster {
    /// Of each namespace that is watched, or of all.
    rooms: Vec<(Option<String>, Store<GuardedRoom>)>,
    /// Of the pools of this release.
    pub deployments: Store<Deployment>,
    /// As above.
    pub services: Store<Service>,
    /// As above.
    pub pod_disruption_budgets: Store<PodDisruptionBudget>,
    /// As above.
    pub service_accounts: Store<ServiceAccount>,
    /// As above.
    pub network_policies: Store<NetworkPolicy>,
    /// The gateways.
    pub pods: Store<Pod>,
}

impl Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("rooms", &self.rooms.len()).finish_non_exhaustive()
    }
}

/// What is watched, and who is told.
pub struct Watches<'a> {
    /// For reading.
    pub client: &'a Client,
    /// The namespace of the release.
    pub namespace: &'a str,
    /// The release.
    pub instance: &'a str,
    /// The namespaces of rooms; all if empty.
    pub room_namespaces: &'a [String],
    /// Who is asked to look at what changed.
    pub queue: &'a Arc<Queue<Key>>,
    /// What is counted and logged.
    pub events: &'a Arc<OperatorEvents>,
    /// Runs the watches.
    pub tasks: &'a TaskTracker,
    /// Ends them.
    pub stop: &'a CancellationToken,
}

impl Debug for Watches<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watches").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Watches<'_> {
    /// Begins to watch. `relisted` is called when the rooms were listed anew: what is gone since is not told otherwise.
    pub fn start(&self, relisted: impl Fn() + Clone + Send + 'static) -> Cluster {
        let namespaces: Vec<Option<String>> = if self.room_namespaces.is_empty() {
            vec![None]
        } else {
            self.room_namespaces.iter().cloned().map(Some).collect()
        };
        let rooms = namespaces
            .into_iter()
            .map(|namespace| {
                let api: Api<GuardedRoom> = match &namespace {
                    Some(namespace) => Api::namespaced(self.client.clone(), namespace),
                    None => Api::all(self.client.clone()),
                };
                let queue = Arc::clone(self.queue);
                let changed = move |room: &GuardedRoom| {
                    let (namespace, name) = (room.namespace().unwrap_or_default(), room.name_any());
                    queue.add(Key::Room(RoomKey { namespace, name }));
                    if let Ok(room) = &room.0 {
                        queue.add(Key::Pool(room.spec.gateways.pool.clone()));
                    }
                };
                let config = watcher::Config::default();
                (namespace, self.watch(api, config, slim, changed, relisted.clone()))
            })
            .collect();
        Cluster {
            rooms,
            deployments: self.watch_owned(whole),
            services: self.watch_owned(whole),
            pod_disruption_budgets: self.watch_owned(whole),
            service_accounts: self.watch_owned(whole),
            network_policies: self.watch_owned(whole),
            pods: self.watch_owned(slim),
        }
    }

    /// Watches what carries the labels of this release's pools.
    fn watch_owned<K>(&self, kept: impl FnMut(&mut K) + Send + 'static) -> Store<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let config = watcher::Config::default().labels(&owned_by(self.instance));
        let queue = Arc::clone(self.queue);
        let changed = move |object: &K| {
            if let Some(pool) = object.labels().get(POOL_LABEL) {
                queue.add(Key::Pool(pool.clone()));
            }
        };
        let api = Api::namespaced(self.client.clone(), self.namespace);
        self.watch(api, config, kept, changed, || {})
    }

    fn watch<K>(
        &self,
        api: Api<K>,
        config: watcher::Config,
        kept: impl FnMut(&mut K) + Send + 'static,
        changed: impl Fn(&K) + Send + 'static,
        relisted: impl Fn() + Send + 'static,
    ) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        K::DynamicType: Eq + Hash + Clone,
    {
        let writer = Writer::<K>::new(());
        let store = writer.as_reader();
        let stream = watcher(api, config.timeout(WATCH_SECONDS)).default_backoff();
        let stream = reflector::reflector(writer, stream.modify(kept));
        let (events, stop) = (Arc::clone(self.events), self.stop.clone());
        self.tasks.spawn(async move {
            pin_mut!(stream);
            loop {
                let event = tokio::select! {
                    () = stop.cancelled() => return,
                    event = stream.next() => event,
                };
                match event {
                    Some(Ok(
                        watcher::Event::Apply(object)
                        | watcher::Event::InitApply(object)
                        | watcher::Event::Delete(object),
                    )) => changed(&object),
                    Some(Ok(watcher::Event::InitDone)) => {
                        events.listed(&K::kind(&()));
                        relisted();
                    }
                    Some(Ok(watcher::Event::Init)) => {}
                    Some(Err(error)) => events.watch_failed(&K::kind(&()), &error),
                    None => return,
                }
            }
        });
        store
    }
}

/// Leaves out who owns which field, for what is kept by the thousand.
fn slim<K: Resource>(object: &mut K) {
    object.managed_fields_mut().clear();
}

/// Leaves out nothing: that somebody added to an object of a pool is seen by who owns its fields.
fn whole<K>(_: &mut K) {}

impl Cluster {
    /// Waits until everything has been listed once.
    pub async fn listed(&self) {
        for (_, rooms) in &self.rooms {
            // It fails only when the watch has ended, and with it everything.
            let _ = rooms.wait_until_ready().await;
        }
        let _ = self.deployments.wait_until_ready().await;
        let _ = self.services.wait_until_ready().await;
        let _ = self.pod_disruption_budgets.wait_until_ready().await;
        let _ = self.service_accounts.wait_until_ready().await;
        let _ = self.network_policies.wait_until_ready().await;
        let _ = self.pods.wait_until_ready().await;
    }

    /// The operator that a room's status names.
    #[must_use]
    pub fn operator(&self, key: &RoomKey) -> Option<String> {
        let reference = ObjectRef::new(&key.name).within(&key.namespace);
        let room = self.rooms.iter().find_map(|(_, store)| store.get(&reference))?;
        room.operator().map(str::to_owned)
    }

    /// One room as it is seen.
    #[must_use]
    pub fn room(&self, key: &RoomKey) -> Seen {
        let reference = ObjectRef::new(&key.name).within(&key.namespace);
        let mut stores = self.rooms.iter().map(|(_, store)| store);
        match stores.find_map(|store| store.get(&reference)) {
            None => Seen::Gone,
            Some(room) => Seen::from(&*room),
        }
    }

    /// All rooms.
    #[must_use]
    pub fn rooms(&self) -> Vec<Arc<GuardedRoom>> {
        self.rooms.iter().flat_map(|(_, store)| store.state()).collect()
    }

    /// How many rooms are ready, and how many are not.
    #[must_use]
    pub fn readiness(&self) -> (usize, usize) {
        let rooms = self.rooms();
        let ready = rooms.iter().filter(|room| room.is_ready()).count();
        (ready, rooms.len() - ready)
    }

    /// Whether rooms of that namespace are this operator's business.
    #[must_use]
    pub fn watches(&self, namespace: &str) -> bool {
        self.rooms.iter().any(|(watched, _)| watched.as_deref().is_none_or(|w| w == namespace))
    }

    /// The names of pools that have objects.
    #[must_use]
    pub fn pools(&self) -> Vec<String> {
        fn pools_of<K: Resource<DynamicType = ()> + Clone + 'static>(
            store: &Store<K>,
        ) -> Vec<String> {
            let objects = store.state();
            objects.iter().filter_map(|object| object.labels().get(POOL_LABEL).cloned()).collect()
        }
        let mut pools = pools_of(&self.deployments);
        pools.extend(pools_of(&self.services));
        pools.extend(pools_of(&self.pod_disruption_budgets));
        pools.extend(pools_of(&self.service_accounts));
        pools.extend(pools_of(&self.network_policies));
        pools.sort();
        pools.dedup();
        pools
    }

    /// Whether there is a pod of that name.
    #[must_use]
    pub fn has_pod(&self, name: &str) -> bool {
        self.pods.find(|pod| pod.metadata.name.as_deref() == Some(name)).is_some()
    }
}
