//! Takes away what the operator has made, once the operator itself is gone: the last step of removing a release.
//!
//! Pools have no owner, because no object that stands for "the release" is safe to own them: whoever deletes the operator's
//! Deployment to make it anew must not end every chat. So they are removed on purpose, and rooms are let go of, which would
//! otherwise wait for a finalizer that nobody removes any more. Whoever does this holds the operator's lease: an operator that
//! still runs is waited for, and none can put back what is taken away.

use std::{fmt::Debug, time::Duration};

use hubbub_api::kubernetes::{ChatRoomResource, FINALIZER};
use k8s_openapi::api::{
    apps::v1::Deployment,
    coordination::v1::Lease,
    core::v1::{Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    core::NamespaceResourceScope,
};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::{
    context::FIELD_MANAGER,
    fence::Fence,
    guard::GuardedRoom,
    lease::{self, Election, Sight},
    pool,
};

/// How long an operator that still runs is waited for: two times what others wait for a leader that is silent.
const OPERATOR_LIMIT: Duration = Duration::from_secs(30);

/// Rooms that are read at once.
const PAGE: u32 = 500;

/// What is removed, and for whom.
#[derive(Clone)]
pub struct Uninstall {
    /// How to reach the API server.
    pub client: Client,
    /// The release, by which its pools are known.
    pub instance: String,
    /// The namespace of the release.
    pub namespace: String,
    /// The namespaces whose rooms were served; all if empty.
    pub room_namespaces: Vec<String>,
    /// Who holds the lease meanwhile.
    pub identity: String,
}

impl Debug for Uninstall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uninstall").field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// Why something is left.
#[derive(Debug, thiserror::Error)]
pub enum UninstallError {
    /// An operator holds the lease.
    #[error(
        "the operator {holder} of {instance} still runs, and would make again what is removed: delete its Deployment first"
    )]
    StillRuns {
        /// The release.
        instance: String,
        /// Who holds its lease.
        holder: String,
    },
    /// It cannot be told whether an operator holds the lease.
    #[error("the lease of {instance} cannot be taken: {cause}")]
    NoLease {
        /// The release.
        instance: String,
        /// What came of the last try.
        cause: String,
    },
    /// The API server has refused something, or cannot be reached.
    #[error("{doing}: {source}")]
    Api {
        /// What was being done.
        doing: String,
        /// What it says.
        source: kube::Error,
    },
}

/// What was taken away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Objects of pools.
    pub objects: usize,
    /// Rooms that were let go of. They stay, unless they were being deleted.
    pub rooms: usize,
}

/// What the lease is waited for, each logged once.
#[derive(Debug, Default)]
struct Waits {
    holder: Option<String>,
    trouble: Option<String>,
}

impl Waits {
    fn told(&mut self, sight: &Sight<'_>) {
        let limit = OPERATOR_LIMIT.as_secs();
        let trouble = sight.trouble();
        if let Some(error) = trouble.as_ref().filter(|_| trouble != self.trouble) {
            tracing::warn!(error, "the lease cannot be taken; trying for up to {limit} s");
        }
        self.trouble = trouble;
        if let Sight::HeldBy(holder) = sight
            && self.holder.as_deref() != Some(holder)
        {
            tracing::info!(
                holder,
                "an operator holds the lease; waiting up to {limit} s for its end"
            );
            self.holder = Some((*holder).to_owned());
        }
    }

    fn in_vain(self, instance: &str) -> UninstallError {
        let instance = instance.to_owned();
        match (self.trouble, self.holder) {
            (None, Some(holder)) => UninstallError::StillRuns { instance, holder },
            (cause, _) => UninstallError::NoLease { instance, cause: cause.unwrap_or_default() },
        }
    }
}

impl Uninstall {
    /// Removes the pools of the release, lets go of its rooms, and removes the lease. What is gone already is none of its
    /// concern, so it can be done again.
    ///
    /// # Errors
    ///
    /// [`UninstallError`]; what was removed by then stays so.
    pub async fn run(&self) -> Result<Removed, UninstallError> {
        let Self { client, namespace, instance, identity, .. } = self;
        let lease = lease::name(instance);
        let mut election = Election::new(client, namespace, &lease, identity, Fence::default());
        let mut waits = Waits::default();
        let acquired = election.acquire(|sight| waits.told(&sight));
        if tokio::time::timeout(OPERATOR_LIMIT, acquired).await.is_err() {
            return Err(waits.in_vain(instance));
        }
        let mut removed = Removed::default();
        removed.objects += self.remove_all::<Deployment>().await?;
        removed.objects += self.remove_all::<Service>().await?;
        removed.objects += self.remove_all::<PodDisruptionBudget>().await?;
        removed.objects += self.remove_all::<NetworkPolicy>().await?;
        removed.objects += self.remove_all::<ServiceAccount>().await?;
        if self.room_namespaces.is_empty() {
            removed.rooms += self.let_go(Api::all(client.clone())).await?;
        }
        for namespace in &self.room_namespaces {
            removed.rooms += self.let_go(Api::namespaced(client.clone(), namespace)).await?;
        }
        let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
        gone(leases.delete(&lease, &DeleteParams::default()).await, "deleting the lease")?;
        Ok(removed)
    }

    async fn remove_all<K>(&self) -> Result<usize, UninstallError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let doing = |verb: &str| format!("{verb} {}", K::plural(&()));
        let owned = ListParams::default().labels(&pool::owned_by(&self.instance));
        let list = api.list(&owned).await.map_err(|source| api_error(doing("listing"), source))?;
        for object in &list {
            let deleted = api.delete(&object.name_any(), &DeleteParams::background()).await;
            gone(deleted, &doing("deleting"))?;
        }
        Ok(list.items.len())
    }

    async fn let_go(&self, all: Api<GuardedRoom>) -> Result<usize, UninstallError> {
        let mut parameters = ListParams::default().limit(PAGE);
        let mut count = 0;
        loop {
            let page = match all.list(&parameters).await {
                Ok(page) => page,
                // There is no such resource (any more), so there are no rooms.
                Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(count),
                Err(source) => return Err(api_error("listing rooms".to_owned(), source)),
            };
            for room in &page {
                count += usize::from(self.let_go_of(room).await?);
            }
            match page.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => parameters = parameters.continue_token(&next),
                None => return Ok(count),
            }
        }
    }

    /// Whether the room was held.
    async fn let_go_of(&self, room: &GuardedRoom) -> Result<bool, UninstallError> {
        let release = format!("{}/{}", self.namespace, self.instance);
        let status = room.0.as_ref().ok().and_then(|room| room.status.as_ref());
        let operator = status.and_then(|status| status.operator.as_deref());
        if operator.is_some_and(|operator| operator != release) {
            return Ok(false);
        }
        let (namespace, name) = (room.namespace().unwrap_or_default(), room.name_any());
        let rooms: Api<ChatRoomResource> = Api::namespaced(self.client.clone(), &namespace);
        let by =
            PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        if operator.is_some() {
            // Nobody serves it any more, and nobody else would say so.
            let patch = json!({"status": null});
            let patched = rooms.patch_status(&name, &by, &Patch::Merge(&patch)).await;
            gone(patched, &format!("clearing the status of {namespace}/{name}"))?;
        }
        let finalizers = room.finalizers();
        let others: Vec<_> = finalizers.iter().filter(|name| *name != FINALIZER).collect();
        if others.len() < finalizers.len() {
            let patch = json!({"metadata": {"finalizers": others}});
            let patched = rooms.patch_metadata(&name, &by, &Patch::Merge(&patch)).await;
            gone(patched, &format!("letting go of {namespace}/{name}"))?;
        }
        Ok(true)
    }
}

fn api_error(doing: String, source: kube::Error) -> UninstallError {
    UninstallError::Api { doing, source }
}

/// It is done, also when there is nothing any more that it could be done to.
fn gone<T>(done: Result<T, kube::Error>, doing: &str) -> Result<(), UninstallError> {
    match done {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(source) => Err(api_error(doing.to_owned(), source)),
    }
}
