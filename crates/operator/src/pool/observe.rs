//! Everything that is known of a pool at one moment, as plain values.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use hubbub_api::{kubernetes::POOL_LABEL, names::DEFAULT_POOL};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};

use super::children::{Blueprint, name};
use crate::{
    context::Context,
    reports::{Gateway, Hearing},
    settings::{GatewayNats, PoolSettings},
};

/// Says which pod goes first when a ReplicaSet shrinks: the lowest.
pub(super) const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A pool as it is seen.
#[derive(Debug, Clone)]
pub(super) struct Observed {
    pub(super) instance: String,
    pub(super) namespace: String,
    pub(super) pool: String,
    pub(super) settings: PoolSettings,
    pub(super) nats: GatewayNats,
    /// Whether it has to be there.
    pub(super) wanted: bool,
    /// What the rooms, and the settings, ask for.
    pub(super) min: u32,
    pub(super) max: u32,
    /// Σ over rooms of connections ÷ connectionsPerGateway; none if it cannot be told.
    pub(super) load: Option<f64>,
    /// Gateways asked for now, if the pool is there.
    pub(super) current: Option<u32>,
    /// Gateways that serve.
    pub(super) gateways: u32,
    pub(super) pods: Vec<PodSeen>,
    /// What keeps pods from being made.
    pub(super) fault: Option<String>,
    /// How long the load must have been lower before a gateway goes.
    pub(super) window: Duration,
    pub(super) now: Instant,
}

/// A pod of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodSeen {
    pub(super) name: String,
    pub(super) ready: bool,
    pub(super) leaving: bool,
    /// Marked to go first.
    pub(super) marked: bool,
    /// Members on it, as it last reported; none if it never did.
    pub(super) connections: Option<u64>,
}

/// What rooms ask of a pool.
#[derive(Debug, Default)]
struct Demand {
    named: bool,
    min: u32,
    max: u32,
    load: f64,
    /// A room's numbers are not known.
    unclear: bool,
}

impl Observed {
    /// Looks at everything. `remembered` is what was asked for last.
    pub(super) fn of(context: &Context, pool: &str, remembered: Option<u32>) -> Self {
        let now = Instant::now();
        let settings = context.settings.pool(pool);
        let gateways = context.reports.gateways(pool, now);
        let demand = demand(context, pool, &gateways);
        let pods = pods(context, pool, &gateways);
        // A gateway that is ready but was never heard, or fell silent, has members that nobody counts.
        let unheard = pods.iter().any(|pod| pod.ready && !pod.leaving && pod.connections.is_none());
        let silent = gateways.iter().any(|gateway| gateway.silent);
        let clear = context.reports.hearing(now) == Hearing::Clear
            && context.bucket.is_read()
            && !(demand.unclear || unheard || silent);
        let reference = ObjectRef::new(&name(&context.instance, pool)).within(&context.namespace);
        let deployment = context.cluster.deployments.get(&reference);
        let spec = deployment.as_ref().and_then(|deployment| deployment.spec.as_ref());
        let replicas = spec.map(|spec| u32::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0));
        let status = deployment.as_ref().and_then(|deployment| deployment.status.as_ref());
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let failure = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True");
        let serving = gateways.iter().filter(|gateway| gateway.serves).count();
        let min = demand.min.max(settings.min);
        Self {
            instance: context.instance.clone(),
            namespace: context.namespace.clone(),
            pool: pool.to_owned(),
            wanted: pool == DEFAULT_POOL || demand.named,
            min,
            max: demand.max.max(min),
            load: clear.then_some(demand.load),
            current: remembered.or(replicas),
            gateways: u32::try_from(serving).unwrap_or(u32::MAX),
            pods,
            fault: failure.and_then(|failure| failure.message.clone()),
            nats: context.settings.nats.clone(),
            settings,
            window: context.scale_down_window,
            now,
        }
    }

    pub(super) fn blueprint(&self, replicas: u32) -> Blueprint<'_> {
        Blueprint {
            instance: &self.instance,
            namespace: &self.namespace,
            pool: &self.pool,
            settings: &self.settings,
            nats: &self.nats,
            replicas,
        }
    }
}

fn demand(context: &Context, pool: &str, gateways: &[Gateway]) -> Demand {
    let mut members: HashMap<&str, u64> = HashMap::new();
    for gateway in gateways {
        for (room, connections) in &gateway.connections {
            *members.entry(room).or_default() += connections;
        }
    }
    let mut demand = Demand::default();
    for room in context.cluster.rooms() {
        if context.claims.are_others(room.operator()) {
            continue;
        }
        let path = format!("{}/{}", room.namespace().unwrap_or_default(), room.name_any());
        let published = context.bucket.entry(&path.replacen('/', ".", 1)).policy;
        let published = published.as_ref().map(|policy| policy.pool.as_str());
        let Ok(room) = &room.0 else {
            // Its numbers are not known; that its pool has to stay is, if it was ever published.
            demand.unclear |= published.is_none_or(|published| published == pool);
            demand.named |= published == Some(pool);
            continue;
        };
        let spec = &room.spec.gateways;
        let paused = crate::room::is_paused(room);
        // Until it has moved, a room needs both pools; a paused one stays where it is.
        let named =
            published == Some(pool) || (spec.pool == pool && !(paused && published.is_some()));
        if !named {
            continue;
        }
        demand.named = true;
        demand.min = demand.min.max(spec.min);
        demand.max = demand.max.max(spec.max);
        let connections = members.get(path.as_str()).copied().unwrap_or_default();
        #[allow(clippy::cast_precision_loss, reason = "far fewer connections than 2^52")]
        let connections = connections as f64;
        demand.load += connections / f64::from(spec.connections_per_gateway.max(1));
    }
    demand
}

fn pods(context: &Context, pool: &str, gateways: &[Gateway]) -> Vec<PodSeen> {
    let pods = context.cluster.pods.state_filter(|pod| {
        pod.labels().get(POOL_LABEL).is_some_and(|label| label == pool) && !has_ended(pod)
    });
    let mut pods: Vec<PodSeen> = pods
        .iter()
        .map(|pod| {
            let name = pod.name_any();
            let gateway = gateways.iter().find(|gateway| gateway.name == name);
            PodSeen {
                ready: is_ready(pod),
                leaving: pod.metadata.deletion_timestamp.is_some(),
                marked: pod.annotations().contains_key(DELETION_COST),
                connections: gateway.map(|gateway| gateway.connections.values().sum()),
                name,
            }
        })
        .collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    pods
}

fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let mut conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether its containers are over for good, as of an evicted pod that nobody has removed yet.
fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}
