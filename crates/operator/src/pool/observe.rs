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
    /// What is said of new gateways that have not come up in the time they have.
    pub(super) stuck: Option<String>,
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
        let sees = Sees { hearing: context.reports.hearing(now), bucket: context.bucket.is_read() };
        let reference = ObjectRef::new(&name(&context.instance, pool)).within(&context.namespace);
        let deployment = context.cluster.deployments.get(&reference);
        let spec = deployment.as_ref().and_then(|deployment| deployment.spec.as_ref());
        let replicas = spec.map(|spec| u32::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0));
        let status = deployment.as_ref().and_then(|deployment| deployment.status.as_ref());
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let said = |kind: &str, status: &str| {
            let mut all = conditions.into_iter().flatten();
            let condition = all.find(|one| one.type_ == kind && one.status == status)?;
            Some(condition.message.clone().unwrap_or_default())
        };
        let serving = gateways.iter().filter(|gateway| gateway.serves).count();
        let min = demand.min.max(settings.min);
        Self {
            instance: context.instance.clone(),
            namespace: context.namespace.clone(),
            pool: pool.to_owned(),
            wanted: pool == DEFAULT_POOL || demand.named,
            min,
            max: demand.max.max(min),
            load: load(sees, &demand, &pods, &gateways),
            current: remembered.or(replicas),
            gateways: u32::try_from(serving).unwrap_or(u32::MAX),
            pods,
            fault: said("ReplicaFailure", "True"),
            stuck: said("Progressing", "False"),
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

/// What the operator has its eyes and ears on.
#[derive(Debug, Clone, Copy)]
struct Sees {
    hearing: Hearing,
    /// The bucket has been read.
    bucket: bool,
}

/// The load, if everything that it is made of is known: whoever cannot see all of it must not shrink the pool.
fn load(sees: Sees, demand: &Demand, pods: &[PodSeen], gateways: &[Gateway]) -> Option<f64> {
    // A gateway that is ready but was never heard, or fell silent, has members that nobody counts.
    let unheard = pods.iter().any(|pod| pod.ready && !pod.leaving && pod.connections.is_none());
    let silent = gateways.iter().any(|gateway| gateway.silent);
    let clear = sees.hearing == Hearing::Clear && sees.bucket;
    (clear && !(demand.unclear || unheard || silent)).then_some(demand.load)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reports::EXPIRY;

    const CLEAR: Sees = Sees { hearing: Hearing::Clear, bucket: true };

    fn demand() -> Demand {
        Demand { named: true, min: 1, max: 9, load: 1.5, unclear: false }
    }

    fn pod(ready: bool, leaving: bool, connections: Option<u64>) -> PodSeen {
        PodSeen { name: "a".to_owned(), ready, leaving, marked: false, connections }
    }

    fn gateway(silent: bool) -> Gateway {
        let name = "a".to_owned();
        Gateway { name, serves: !silent, silent, connections: HashMap::new() }
    }

    #[test]
    fn the_load_is_known_while_everybody_is_heard() {
        let (pods, gateways) = ([pod(true, false, Some(5))], [gateway(false)]);
        assert_eq!(load(CLEAR, &demand(), &pods, &gateways), Some(1.5));
        assert_eq!(
            load(CLEAR, &demand(), &[], &[]),
            Some(1.5),
            "gateways started by hand, or none"
        );
        for none_to_count in [pod(false, false, None), pod(true, true, None)] {
            assert_eq!(load(CLEAR, &demand(), &[none_to_count], &[]), Some(1.5));
        }
    }

    #[test]
    fn whoever_is_blind_does_not_know_the_load() {
        let (pods, gateways) = ([pod(true, false, Some(5))], [gateway(false)]);
        for hearing in [Hearing::Listening(EXPIRY / 2), Hearing::Away(EXPIRY)] {
            let sees = Sees { hearing, ..CLEAR };
            assert_eq!(load(sees, &demand(), &pods, &gateways), None, "{hearing:?}");
        }
        let unread = Sees { bucket: false, ..CLEAR };
        assert_eq!(load(unread, &demand(), &pods, &gateways), None, "the bucket is not read");
        let unheard = [pods[0].clone(), pod(true, false, None)];
        assert_eq!(load(CLEAR, &demand(), &unheard, &gateways), None, "a report is missing");
        let silent = [gateway(false), gateway(true)];
        assert_eq!(load(CLEAR, &demand(), &pods, &silent), None, "a gateway is silent");
        let unclear = Demand { unclear: true, ..demand() };
        assert_eq!(load(CLEAR, &unclear, &pods, &gateways), None, "a room cannot be read");
    }
}
