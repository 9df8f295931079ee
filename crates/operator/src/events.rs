//! What happens in the operator, each thing written once: its log line and its metrics stand together.

mod tidying;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hubbub_api::{DrainReport, GatewayReport};
use kube::runtime::watcher;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use tracing::{debug, error, info, warn};

use crate::{
    claims::Claims,
    context::Key,
    error::{ReconcileError, in_words},
    room::RoomKey,
    traces,
};

/// How often the same trouble is logged.
const TOLD_AGAIN: Duration = Duration::from_secs(30);

/// Seconds that a reconcile may take: from nothing to do, to an API server that does not answer.
const DURATIONS: [f64; 8] = [0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    kind: &'static str,
    outcome: &'static str,
}

/// Seconds that the drain of a gateway may take: the same as the gateway's own.
const DRAIN_SECONDS: [f64; 10] = [1.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 60.0, 300.0, 1800.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabel {
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DepartureLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReadyLabel {
    ready: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeysLabel {
    /// `fetched` or `failed`.
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabel {
    pool: String,
}

/// One method a happening: its log line and its metrics.
#[derive(Debug)]
pub struct OperatorEvents {
    reconciles: Family<OutcomeLabels, Counter>,
    durations: Family<KindLabel, Histogram>,
    queue_depth: Gauge,
    leader: Gauge,
    wanted: Family<PoolLabel, Gauge>,
    actual: Family<PoolLabel, Gauge>,
    stuck: Family<PoolLabel, Gauge>,
    writes: Family<KindLabel, Counter>,
    scalings: Family<DirectionLabel, Counter>,
    rooms: Family<ReadyLabel, Gauge>,
    drifts: Counter,
    additions: Counter,
    bucket_failures: Counter,
    lists: Counter,
    drains: Histogram,
    drained: Family<DepartureLabel, Counter>,
    reports: Counter,
    reports_refused: Counter,
    watch_failures: Counter,
    lease_failures: Counter,
    notice_failures: Counter,
    rooms_left: Counter,
    keys: Family<KeysLabel, Counter>,
    nats_connected: Gauge,
    /// What was logged of NATS last: whether it is connected, and why not.
    told_of_nats: Mutex<Option<(bool, Option<String>)>>,
    /// When each trouble was last logged.
    told: Mutex<HashMap<String, Instant>>,
}

impl OperatorEvents {
    /// Registers the metrics; `registry` gives them their prefix.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let new = Self {
            reconciles: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            queue_depth: Gauge::default(),
            leader: Gauge::default(),
            wanted: Family::default(),
            actual: Family::default(),
            stuck: Family::default(),
            writes: Family::default(),
            scalings: Family::default(),
            rooms: Family::default(),
            drifts: Counter::default(),
            additions: Counter::default(),
            bucket_failures: Counter::default(),
            lists: Counter::default(),
            drains: Histogram::new(DRAIN_SECONDS),
            drained: Family::default(),
            reports: Counter::default(),
            reports_refused: Counter::default(),
            watch_failures: Counter::default(),
            lease_failures: Counter::default(),
            notice_failures: Counter::default(),
            rooms_left: Counter::default(),
            keys: Family::default(),
            nats_connected: Gauge::default(),
            told_of_nats: Mutex::default(),
            told: Mutex::default(),
        };
        registry.register(
            "reconciles",
            "Looks at rooms and pools, by outcome",
            new.reconciles.clone(),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "How long a look took, with its writes",
            Unit::Seconds,
            new.durations.clone(),
        );
        registry.register(
            "queue_depth",
            "Rooms and pools that wait for a look",
            new.queue_depth.clone(),
        );
        registry.register("leader", "1 on the replica that holds the lease", new.leader.clone());
        registry.register("gateways_wanted", "Gateways asked for, by pool", new.wanted.clone());
        registry.register("gateways_actual", "Gateways that serve, by pool", new.actual.clone());
        registry.register(
            "rollout_stuck",
            "1 while new gateways of a pool do not come up, and the old ones go on",
            new.stuck.clone(),
        );
        registry.register(
            "writes",
            "Writes that were made, by what was written",
            new.writes.clone(),
        );
        registry.register(
            "drifts",
            "Objects of pools that somebody else changed or removed",
            new.drifts.clone(),
        );
        registry.register(
            "scalings",
            "Times that a pool was asked to have more or fewer gateways than before",
            new.scalings.clone(),
        );
        registry.register(
            "rooms",
            "Rooms by whether their condition Ready is True, as seen every few seconds",
            new.rooms.clone(),
        );
        registry.register(
            "additions",
            "Looks at objects of pools to which something in the way of every write adds",
            new.additions.clone(),
        );
        registry.register(
            "bucket_failures",
            "Times that the policies in NATS could not be followed",
            new.bucket_failures.clone(),
        );
        registry.register(
            "lists",
            "Times that all objects of a kind were listed",
            new.lists.clone(),
        );
        registry.register_with_unit(
            "drain",
            "Time that drains of gateways took, from their beginning to the end of the last connection, as gateways told last",
            Unit::Seconds,
            new.drains.clone(),
        );
        registry.register(
            "drained_members",
            "Members of gateways that have drained, by whether they were sent away in good order",
            new.drained.clone(),
        );
        registry.register("reports", "Reports of gateways heard", new.reports.clone());
        registry.register(
            "reports_refused",
            "Reports that could not be read",
            new.reports_refused.clone(),
        );
        registry.register("watch_failures", "Failures of watches", new.watch_failures.clone());
        registry.register(
            "lease_failures",
            "Failed tries to take or renew the lease",
            new.lease_failures.clone(),
        );
        registry.register(
            "notice_failures",
            "Events that could not be recorded",
            new.notice_failures.clone(),
        );
        registry.register(
            "rooms_left",
            "Looks at rooms that were left to another operator",
            new.rooms_left.clone(),
        );
        registry.register(
            "key_fetches",
            "Looks at ConfigMaps and addresses for the keys of tokens, by outcome",
            new.keys.clone(),
        );
        registry.register(
            "nats_connected",
            "1 while NATS is connected",
            new.nats_connected.clone(),
        );
        // What has not happened yet reads 0, so that a rate over it works from the first time on.
        for kind in ["room", "pool"] {
            for outcome in ["done", "conflict", "api", "timeout", "nats", "fenced", "json"] {
                drop(new.reconciles.get_or_create(&OutcomeLabels { kind, outcome }));
            }
        }
        for outcome in ["fetched", "failed"] {
            drop(new.keys.get_or_create(&KeysLabel { outcome }));
        }
        for direction in ["up", "down"] {
            drop(new.scalings.get_or_create(&DirectionLabel { direction }));
        }
        for outcome in ["moved", "cut"] {
            drop(new.drained.get_or_create(&DepartureLabel { outcome }));
        }
        for ready in ["true", "false"] {
            drop(new.rooms.get_or_create(&ReadyLabel { ready }));
        }
        for kind in ["room", "pool"] {
            drop(new.durations.get_or_create(&KindLabel { kind }));
        }
        for kind in [
            "claim",
            "consumer",
            "event",
            "finalizer",
            "pod",
            "policy",
            "pool",
            "statement",
            "status",
            "stray",
        ] {
            drop(new.writes.get_or_create(&KindLabel { kind }));
        }
        new
    }

    /// A room or a pool was looked at.
    pub fn reconciled(&self, key: &Key, took: Duration, error: Option<&ReconcileError>) {
        let (kind, name) = match key {
            Key::Room(room) => ("room", room.path()),
            Key::Pool(pool) => ("pool", pool.clone()),
        };
        let outcome = error.map_or("done", ReconcileError::reason);
        self.reconciles.get_or_create(&OutcomeLabels { kind, outcome }).inc();
        self.durations.get_or_create(&KindLabel { kind }).observe(took.as_secs_f64());
        match error {
            None => {}
            Some(error) if error.is_race() => {
                debug!(kind, name, error = in_words(error), "to be looked at again");
            }
            // What fails for all alike is told of one.
            Some(error) if error.is_general() && self.is_news(format!("{kind} {outcome}")) => {
                let error = in_words(error);
                warn!(kind, name, outcome, error, "not done, as others may be; it is tried again");
            }
            Some(error)
                if !error.is_general() && self.is_news(format!("{kind} {name} {outcome}")) =>
            {
                warn!(kind, name, outcome, error = in_words(error), "not done; it is tried again");
            }
            Some(_) => {}
        }
    }

    /// So many keys wait.
    pub fn queued(&self, depth: usize) {
        self.queue_depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    /// Something was written; `kind` is what.
    pub fn wrote(&self, kind: &'static str) {
        self.writes.get_or_create(&KindLabel { kind }).inc();
        traces::wrote();
    }

    /// How many writes of that kind were made.
    #[must_use]
    pub fn writes(&self, kind: &'static str) -> u64 {
        self.writes.get_or_create(&KindLabel { kind }).get()
    }

    /// How many looks at things of that kind, `room` or `pool`, came to a good end.
    #[must_use]
    pub fn reconciles(&self, kind: &'static str) -> u64 {
        self.reconciles.get_or_create(&OutcomeLabels { kind, outcome: "done" }).get()
    }

    /// An object is not as it was applied; `by` are the field managers that have added to it, if any.
    pub fn drifted(&self, kind: &str, name: &str, by: &str) {
        self.drifts.inc();
        let by = Some(by).filter(|by| !by.is_empty());
        info!(
            kind,
            name, by, "somebody changed or removed an object of a pool; it is applied again"
        );
    }

    /// An object has fields of others even in the answer to its apply.
    pub fn added_to(&self, kind: &str, name: &str, by: &str) {
        self.additions.inc();
        if self.is_news(format!("added {kind} {name}")) {
            warn!(
                kind,
                name,
                by,
                "something in the way of every write, such as an admission webhook, adds to an object of a pool; it is left, and looked at again"
            );
        }
    }

    /// A pool as it is wanted and as it is.
    pub fn gateways(&self, pool: &str, wanted: u32, actual: u32) {
        let pool = PoolLabel { pool: pool.to_owned() };
        self.wanted.get_or_create(&pool).set(i64::from(wanted));
        self.actual.get_or_create(&pool).set(i64::from(actual));
    }

    /// Whether Kubernetes has given up waiting for a pool's new gateways, and what it says.
    pub fn rollout(&self, pool: &str, stuck: Option<&str>) {
        let label = PoolLabel { pool: pool.to_owned() };
        self.stuck.get_or_create(&label).set(i64::from(stuck.is_some()));
        let Some(cause) = stuck.filter(|_| self.is_news(format!("rollout {pool}"))) else { return };
        warn!(
            pool,
            cause,
            "new gateways of a pool do not come up, and the old ones go on; kubectl describe pods --selector hubbub.dev/pool={pool} tells why"
        );
    }

    /// A pool is no more.
    pub fn pool_gone(&self, pool: &str) {
        let pool = PoolLabel { pool: pool.to_owned() };
        self.stuck.remove(&pool);
        self.wanted.remove(&pool);
        self.actual.remove(&pool);
    }

    /// A pool is asked to have so many gateways.
    pub fn scaled(&self, pool: &str, from: Option<u32>, to: u32) {
        // The first time a leader only learns what there is.
        if let Some(from) = from {
            let direction = if from > to { "down" } else { "up" };
            self.scalings.get_or_create(&DirectionLabel { direction }).inc();
        }
        info!(pool, from, to, "gateways asked for");
    }

    /// A report was heard.
    pub fn heard(&self, report: &GatewayReport) {
        self.reports.inc();
        let Some(DrainReport { milliseconds, moved, cut }) = report.drain else { return };
        // From milliseconds, without loss for centuries.
        let seconds = milliseconds as f64 / 1000.0;
        self.drains.observe(seconds);
        self.drained.get_or_create(&DepartureLabel { outcome: "moved" }).inc_by(moved);
        self.drained.get_or_create(&DepartureLabel { outcome: "cut" }).inc_by(cut);
        let GatewayReport { gateway, pool, .. } = report;
        info!(gateway, pool, moved, cut, seconds, "a gateway has drained");
    }

    /// So many rooms are ready, and so many are not.
    pub fn rooms(&self, ready: usize, others: usize) {
        for (ready, number) in [("true", ready), ("false", others)] {
            let number = i64::try_from(number).unwrap_or(i64::MAX);
            self.rooms.get_or_create(&ReadyLabel { ready }).set(number);
        }
    }

    /// How many reports were heard.
    #[must_use]
    pub fn reports(&self) -> u64 {
        self.reports.get()
    }

    /// A report cannot be read.
    pub fn report_refused(&self, subject: &str, fault: &str) {
        self.reports_refused.inc();
        if self.is_news(format!("report {subject}")) {
            warn!(subject, fault, "a gateway's report is refused");
        }
    }

    /// NATS is there, or not; and why not, once a try to connect has shown it.
    pub fn nats(&self, connected: bool, cause: Option<String>) {
        self.nats_connected.set(i64::from(connected));
        let mut told = self.told_of_nats.lock().unwrap_or_else(PoisonError::into_inner);
        let before = told.as_ref().map(|(connected, _)| *connected);
        let knew = told.as_ref().is_some_and(|(_, knew)| *knew == cause);
        if connected {
            if before != Some(true) {
                info!("NATS is connected");
            }
        } else if before != Some(false) {
            warn!(cause, "NATS is away; rooms go on, changes wait");
        } else if cause.is_some() && !knew && self.is_news("nats".to_owned()) {
            warn!(cause, "NATS cannot be reached; it is tried again");
        } else {
            return;
        }
        *told = Some((connected, cause));
    }

    /// The bucket of policies cannot be followed.
    pub fn bucket_away(&self, cause: &str) {
        self.bucket_failures.inc();
        warn!(cause, "the policies in NATS cannot be followed; they are tried again");
    }

    /// The bucket does not hold any more what it held.
    pub fn bucket_lost(&self) {
        self.bucket_failures.inc();
        warn!("the bucket in NATS has lost the policies that it held; they are published again");
    }

    /// It was said in the bucket that everything is published.
    pub fn stated(&self, rooms: usize, kept: usize) {
        self.wrote("statement");
        info!(rooms, kept, "every policy is published");
    }

    /// All objects of a kind have been listed.
    pub fn listed(&self, kind: &str) {
        self.lists.inc();
        debug!(kind, "listed");
    }

    /// A watch failed; it is begun anew.
    pub fn watch_failed(&self, kind: &str, error: &watcher::Error) {
        self.watch_failures.inc();
        if !self.is_news(format!("watch {kind}")) {
            return;
        }
        let missing = match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status)) => status.is_not_found(),
            _ => false,
        };
        if missing && kind == hubbub_api::KIND {
            error!(
                "the resource ChatRoom is not defined here: kubectl apply -f manifests/crds/chatrooms.yaml"
            );
        } else {
            warn!(kind, error = in_words(error), "a watch failed; it is begun anew");
        }
    }

    /// The lease could not be taken or renewed.
    pub fn lease_failed(&self, error: &str) {
        self.lease_failures.inc();
        if self.is_news("lease".to_owned()) {
            warn!(error, "the lease could not be taken or renewed; it is tried again");
        }
    }

    /// This replica waits for the lease.
    pub fn waiting(&self, identity: &str) {
        info!(identity, "waiting for the lease");
    }

    /// This replica leads.
    pub fn leading(&self, identity: &str) {
        self.leader.set(1);
        info!(identity, "leading");
    }

    /// This replica leads no more.
    pub fn not_leading(&self) {
        self.leader.set(0);
    }

    /// An Event could not be recorded.
    pub fn notice_failed(&self, room: &str, cause: &str) {
        self.notice_failures.inc();
        if self.is_news("notice".to_owned()) {
            warn!(room, cause, "an Event could not be recorded");
        }
    }

    /// Keys were fetched from a source, or could not be; whether that says something new.
    pub fn keys_fetched(&self, source: &str, fault: Option<&str>, is_new: bool) {
        let outcome = if fault.is_some() { "failed" } else { "fetched" };
        self.keys.get_or_create(&KeysLabel { outcome }).inc();
        match fault {
            _ if !is_new => {}
            None => info!(source, "keys of tokens fetched"),
            Some(error) => warn!(
                source,
                error,
                "keys of tokens cannot be fetched; those that were fetched before stay in use"
            ),
        }
    }

    /// A room is managed by an operator of another release, which is there or cannot be told to be gone.
    pub fn left_to_other(&self, room: &RoomKey, operator: &str, claims: &Claims) {
        self.rooms_left.inc();
        if !self.is_news(format!("left to {operator}")) {
            return;
        }
        let room = room.path();
        match claims.trouble(operator) {
            None => warn!(
                room,
                operator,
                "rooms are left to another operator, which manages them; give each its own --room-namespaces, or remove one"
            ),
            Some(error) => warn!(
                room,
                operator,
                error,
                "rooms are left to another operator, whose lease cannot be read; if it is gone, remove status.operator from them"
            ),
        }
    }

    /// Whether this trouble was not logged a moment ago.
    fn is_news(&self, trouble: String) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| at.elapsed() < TOLD_AGAIN);
        let news = !told.contains_key(&trouble);
        told.entry(trouble).or_insert_with(Instant::now);
        news
    }
}
