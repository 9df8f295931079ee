//! What gateways report, as the operator last heard it.
//!
//! A gateway serves while it is heard, has its policies loaded and does not drain. One that falls silent serves no longer,
//! but counts with its last figures until its pod is gone: its members may still be there. While NATS is away nobody falls
//! silent, because then it is the operator that hears nothing.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hubbub_api::{GatewayReport, names::token};

/// How often a gateway reports.
pub const PERIOD: Duration = Duration::from_secs(2);

/// Whoever has listened for so long has heard every gateway that is there: a period, and some time on the way.
pub const ROUND: Duration = Duration::from_millis(2500);

/// A gateway that was not heard for three periods is silent.
pub const EXPIRY: Duration = Duration::from_secs(6);

/// See the module.
#[derive(Debug, Default)]
pub struct Reports(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    gateways: HashMap<Id, Heard>,
    /// Since when the operator hears; none while NATS is away.
    hearing_since: Option<Instant>,
    away_since: Option<Instant>,
}

/// Pool and gateway, both as tokens.
type Id = (String, String);

#[derive(Debug)]
struct Heard {
    report: GatewayReport,
    at: Instant,
}

/// A gateway as others should see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Its id: the name of its pod.
    pub name: String,
    /// Heard lately, with its policies loaded, not draining.
    pub serves: bool,
    /// Not heard lately.
    pub silent: bool,
    /// Connections by room, `namespace/name`.
    pub connections: HashMap<String, u64>,
}

/// Whether the operator can tell how gateways are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hearing {
    /// Every gateway that is there has been heard, or had the time to be.
    Clear,
    /// NATS is there, but not for long enough to tell who has fallen silent: for so long.
    Listening(Duration),
    /// NATS has been away for so long.
    Away(Duration),
}

/// What a report, or a silence, changes for others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Pools in which a gateway began or ceased to serve.
    pub pools: BTreeSet<String>,
    /// A gateway has applied revisions above the first, up to the second.
    pub applied: Option<(u64, u64)>,
    /// Rooms whose connections changed, `namespace/name`.
    pub rooms: BTreeSet<String>,
}

impl Reports {
    /// Takes a report.
    pub fn hear(&self, report: GatewayReport, now: Instant) -> Change {
        let mut change = Change::default();
        let id = (token(&report.pool), token(&report.gateway));
        let mut table = self.table();
        let before = table.gateways.get(&id);
        if before.is_some_and(|before| before.serves(now)) != serves(&report) {
            change.pools.insert(report.pool.clone());
        }
        // A bucket that was made anew counts from 1 again.
        let same = before.filter(|before| before.report.bucket == report.bucket);
        let applied = same.map_or(0, |before| before.report.applied_revision);
        if report.applied_revision != applied {
            let from = if report.applied_revision > applied { applied } else { 0 };
            change.applied = Some((from, report.applied_revision));
        }
        let none = Default::default();
        let old = before.map_or(&none, |before| &before.report.connections);
        for room in old.keys().chain(report.connections.keys()) {
            if old.get(room) != report.connections.get(room) {
                change.rooms.insert(room.clone());
            }
        }
        table.gateways.insert(id, Heard { report, at: now });
        change
    }

    /// Lets time pass: called every half second or so. `has_pod` says whether a gateway's pod, by its name, is still there.
    pub fn tick(&self, now: Instant, connected: bool, has_pod: impl Fn(&str) -> bool) -> Change {
        let mut change = Change::default();
        let mut table = self.table();
        if !connected {
            table.hearing_since = None;
            table.away_since.get_or_insert(now);
            for heard in table.gateways.values_mut().filter(|heard| !heard.is_silent(now)) {
                heard.at = now;
            }
            return change;
        }
        table.away_since = None;
        table.hearing_since.get_or_insert(now);
        table.gateways.retain(|_, heard| {
            if !heard.is_silent(now) {
                return true;
            }
            // Told once a tick, which is cheap, rather than remembered.
            change.pools.insert(heard.report.pool.clone());
            let stays = has_pod(&heard.report.gateway);
            if !stays {
                change.rooms.extend(heard.report.connections.keys().cloned());
            }
            stays
        });
        change
    }

    /// Whether what is told of gateways can be relied on.
    #[must_use]
    pub fn hearing(&self, now: Instant) -> Hearing {
        let table = self.table();
        match (table.hearing_since, table.away_since) {
            (Some(since), _) if now.duration_since(since) >= EXPIRY => Hearing::Clear,
            (Some(since), _) => Hearing::Listening(now.duration_since(since)),
            (None, Some(since)) => Hearing::Away(now.duration_since(since)),
            (None, None) => Hearing::Listening(Duration::ZERO),
        }
    }

    /// The gateways of a pool, by name.
    #[must_use]
    pub fn gateways(&self, pool: &str, now: Instant) -> Vec<Gateway> {
        let table = self.table();
        let mut gateways: Vec<Gateway> = table
            .gateways
            .values()
            .filter(|heard| heard.report.pool == pool)
            .map(|heard| Gateway {
                name: heard.report.gateway.clone(),
                serves: heard.serves(now),
                silent: heard.is_silent(now),
                connections: heard.report.connections.clone().into_iter().collect(),
            })
            .collect();
        gateways.sort_by(|a, b| a.name.cmp(&b.name));
        gateways
    }

    /// The revisions that the serving gateways of a pool have applied, one each, as they count in the bucket that was made
    /// then. Of a gateway that still knows another bucket it is 0: it has applied nothing of this one.
    #[must_use]
    pub fn serving(&self, pool: &str, bucket: Option<i64>, now: Instant) -> Vec<u64> {
        let table = self.table();
        let gateways = table.gateways.values();
        let serving = gateways.filter(|heard| heard.report.pool == pool && heard.serves(now));
        let of_bucket = |report: &GatewayReport| {
            if report.bucket == bucket { report.applied_revision } else { 0 }
        };
        serving.map(|heard| of_bucket(&heard.report)).collect()
    }

    /// The gateways of a pool that are there, and have not loaded any policy yet.
    #[must_use]
    pub fn loading(&self, pool: &str, now: Instant) -> usize {
        let table = self.table();
        let loads = |heard: &&Heard| {
            let report = &heard.report;
            report.pool == pool
                && report.applied_revision == 0
                && !(report.draining || heard.is_silent(now))
        };
        table.gateways.values().filter(loads).count()
    }

    /// The connections of a room, `namespace/name`, over all gateways of all pools.
    #[must_use]
    pub fn connections(&self, room: &str) -> u64 {
        let table = self.table();
        let reports = table.gateways.values().map(|heard| &heard.report.connections);
        reports.filter_map(|connections| connections.get(room)).sum()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    fn is_silent(&self, now: Instant) -> bool {
        now.duration_since(self.at) >= EXPIRY
    }

    fn serves(&self, now: Instant) -> bool {
        !self.is_silent(now) && serves(&self.report)
    }
}

/// A gateway has applied nothing until its policies are loaded.
fn serves(report: &GatewayReport) -> bool {
    !report.draining && report.applied_revision > 0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hubbub_api::REPORT_SCHEMA;

    use super::*;

    const BUCKET: Option<i64> = Some(1);

    fn report(gateway: &str, applied_revision: u64, lobby: u64) -> GatewayReport {
        GatewayReport {
            schema: REPORT_SCHEMA,
            gateway: gateway.to_owned(),
            pool: "default".to_owned(),
            applied_revision,
            bucket: BUCKET,
            draining: false,
            connections: BTreeMap::from([("demo/lobby".to_owned(), lobby)]),
            asks: None,
            answers: Vec::new(),
            drain: None,
            time_unix_ms: None,
        }
    }

    #[test]
    fn a_gateway_serves_once_its_policies_are_loaded_and_until_it_drains() {
        let (reports, now) = (Reports::default(), Instant::now());
        assert!(reports.hear(report("a", 0, 0), now).pools.is_empty());
        assert!(reports.serving("default", BUCKET, now).is_empty());
        assert_eq!((reports.loading("default", now), reports.loading("other", now)), (1, 0));
        let change = reports.hear(report("a", 7, 0), now);
        assert_eq!(reports.loading("default", now), 0);
        assert_eq!(change.applied, Some((0, 7)));
        assert!(change.pools.contains("default"));
        assert_eq!(reports.serving("default", BUCKET, now), [7]);
        assert!(reports.serving("other", BUCKET, now).is_empty());
        let draining = GatewayReport { draining: true, ..report("a", 7, 0) };
        assert!(reports.hear(draining, now).pools.contains("default"));
        assert!(reports.serving("default", BUCKET, now).is_empty());
    }

    #[test]
    fn only_what_changed_is_told() {
        let (reports, now) = (Reports::default(), Instant::now());
        reports.hear(report("a", 7, 5), now);
        assert_eq!(reports.hear(report("a", 7, 5), now), Change::default());
        let change = reports.hear(report("a", 7, 6), now);
        assert_eq!(change.rooms, BTreeSet::from(["demo/lobby".to_owned()]));
        let anew = reports.hear(report("a", 2, 6), now);
        assert_eq!(anew.applied, Some((0, 2)), "a bucket made anew");
        let ahead = reports.hear(GatewayReport { bucket: Some(2), ..report("a", 9, 6) }, now);
        assert_eq!(ahead.applied, Some((0, 9)), "also when it has already more revisions");
    }

    #[test]
    fn a_revision_of_another_bucket_says_nothing() {
        let (reports, now) = (Reports::default(), Instant::now());
        reports.hear(report("a", 7, 0), now);
        reports.hear(GatewayReport { bucket: Some(2), ..report("b", 3, 0) }, now);
        let mut revisions = reports.serving("default", Some(2), now);
        revisions.sort_unstable();
        assert_eq!(revisions, [0, 3], "the first has applied nothing of this bucket yet");
    }

    #[test]
    fn a_silent_gateway_counts_until_its_pod_is_gone() {
        let (reports, mut now) = (Reports::default(), Instant::now());
        reports.tick(now, true, |_| true);
        reports.hear(report("a", 7, 5), now);
        now += EXPIRY;
        assert!(reports.tick(now, true, |_| true).pools.contains("default"));
        assert!(reports.serving("default", BUCKET, now).is_empty());
        assert_eq!(reports.connections("demo/lobby"), 5);
        assert!(reports.gateways("default", now)[0].silent);
        let change = reports.tick(now, true, |_| false);
        assert!(change.rooms.contains("demo/lobby"));
        assert_eq!(reports.connections("demo/lobby"), 0);
    }

    #[test]
    fn nobody_falls_silent_while_nats_is_away() {
        let (reports, mut now) = (Reports::default(), Instant::now());
        reports.tick(now, true, |_| false);
        reports.hear(report("a", 7, 5), now);
        for _ in 0..60 {
            now += Duration::from_secs(1);
            assert_eq!(reports.tick(now, false, |_| false), Change::default());
        }
        assert_eq!(reports.hearing(now), Hearing::Away(Duration::from_secs(59)));
        assert_eq!(reports.serving("default", BUCKET, now), [7]);
        reports.tick(now, true, |_| false);
        assert_eq!(reports.hearing(now), Hearing::Listening(Duration::ZERO));
        now += EXPIRY;
        assert_eq!(reports.hearing(now), Hearing::Clear);
        reports.tick(now, true, |_| false);
        assert!(reports.serving("default", BUCKET, now).is_empty());
    }
}
