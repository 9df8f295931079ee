//! Gateways tell each other, and the operator, how they are: a report each 2 s, and sooner when something changes, but not for each of
//! many changes: every gateway of a pool reads all its reports.
//!
//! From the others' reports comes how many members a room has elsewhere, at most one period behind. A gateway that has
//! missed three periods is forgotten; but while NATS is away nobody is, because then it is this gateway that hears
//! nothing. Once its connection stands, a gateway asks for the others' reports.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::StreamExt as _;
use hubbub_api::{
    DrainReport, GatewayReport, REPORT_SCHEMA, RoomName,
    names::{report_subject, report_wildcard, token},
};
use nats::{Client, Subject, connection::State};
use tokio::{
    sync::Notify,
    time::{Instant as Deadline, MissedTickBehavior, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{bus::nats::RollCall, events::bus::BusEvents, room::Applied};

/// How often a gateway reports.
const PERIOD: Duration = Duration::from_secs(2);

/// The time between two reports at least. Whoever declares rooms one after the other changes something many times a second.
const GAP: Duration = Duration::from_millis(250);

/// A gateway that was not heard for three periods is forgotten.
const EXPIRY: Duration = Duration::from_secs(6);

/// Who is asked for a report answers after this: gateways come back from an outage together, and one answer does for all.
const ANSWER_AFTER: Duration = Duration::from_millis(20);

/// How long the round trips that an answer needs may take.
const PROOF_LIMIT: Duration = Duration::from_millis(500);

/// How long a report may wait for the client's queue; the next one replaces it.
const PUBLISH_LIMIT: Duration = Duration::from_secs(1);

/// So many of the own reports are remembered, to tell them from those of another gateway with the same id.
const REMEMBERED: usize = 16;

/// What a report says about this gateway.
pub trait ReportSource: Send + Sync + 'static {
    /// Which policies are in force.
    fn applied(&self) -> Applied;
    /// Whether the gateway is on its way out.
    fn draining(&self) -> bool;
    /// Connections by room, `namespace/name`; rooms without any may be left out.
    fn connections(&self) -> BTreeMap<String, u64>;
    /// How the drain went, once it is done.
    fn drained(&self) -> Option<DrainReport>;
}

/// Another gateway of the pool, as it last reported.
#[derive(Debug, Clone)]
pub struct OtherGateway {
    /// What it said.
    pub report: GatewayReport,
    /// How long ago.
    pub age: Duration,
}

#[derive(Debug)]
struct Heard {
    report: GatewayReport,
    at: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct Reports {
    pool: String,
    gateway: String,
    roll_call: Arc<RollCall>,
    events: Arc<BusEvents>,
    /// By the gateway's token.
    others: Mutex<HashMap<String, Heard>>,
    /// Members elsewhere, by room: kept as a sum, because every handshake asks.
    elsewhere: RwLock<HashMap<String, u64>>,
}

impl Reports {
    /// The reports of one gateway of a pool. Nothing is sent or heard before [`run`](Self::run). The roll call is told
    /// who is heard.
    #[must_use]
    pub fn new(
        pool: &str,
        gateway: &str,
        roll_call: Arc<RollCall>,
        events: Arc<BusEvents>,
    ) -> Self {
        Self {
            pool: pool.to_owned(),
            gateway: gateway.to_owned(),
            roll_call,
            events,
            others: Mutex::default(),
            elsewhere: RwLock::default(),
        }
    }

    /// How many members the room has on the other gateways of this pool.
    #[must_use]
    pub fn elsewhere(&self, room: &RoomName) -> u64 {
        let elsewhere = self.elsewhere.read().unwrap_or_else(PoisonError::into_inner);
        elsewhere.get(room.as_str()).copied().unwrap_or(0)
    }

    /// The other gateways of this pool, by name.
    #[must_use]
    pub fn gateways(&self) -> Vec<OtherGateway> {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gateways: Vec<_> = others
            .values()
            .map(|heard| OtherGateway { report: heard.report.clone(), age: heard.at.elapsed() })
            .collect();
        gateways.sort_by(|a, b| a.report.gateway.cmp(&b.report.gateway));
        gateways
    }

    /// Reports and listens until `stop`; `changed` asks for a report soon. The last report says that nobody is
    /// connected here any more.
    pub async fn run(
        &self,
        client: Client,
        source: Arc<dyn ReportSource>,
        changed: Arc<Notify>,
        stop: CancellationToken,
    ) {
        let subject = Subject::from(report_subject(&self.pool, &self.gateway));
        let subscribed = tokio::select! {
            () = stop.cancelled() => return,
            subscribed = client.subscribe(report_wildcard(&self.pool)) => subscribed,
        };
        // It fails only when the client has ended.
        let Ok(mut heard) = subscribed else { return };
        let mut sent = VecDeque::with_capacity(REMEMBERED);
        let mut period = tokio::time::interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut own_question = None;
        let mut answers = Vec::new();
        // When there is something to tell before the period is over.
        let mut report_at: Option<Deadline> = None;
        let mut last_sent: Option<Deadline> = None;
        loop {
            let mut asks = None;
            tokio::select! {
                () = stop.cancelled() => break,
                message = heard.next() => {
                    let Some(message) = message else { return };
                    if message.subject == subject {
                        self.check_own(&message.payload, &sent);
                    } else if let Some(question) = self.hear(&message.payload, own_question) {
                        answers.push(question);
                        report_at = sooner(report_at, Deadline::now() + ANSWER_AFTER);
                    }
                    continue;
                }
                () = self.roll_call.begun() => {
                    asks = Some(fastrand::u32(..));
                    own_question = asks;
                }
                () = sleep_until(report_at.unwrap_or_else(Deadline::now)), if report_at.is_some() => {}
                () = changed.notified() => {
                    let due = last_sent.map_or_else(Deadline::now, |sent| sent + GAP);
                    report_at = sooner(report_at, due);
                    continue;
                }
                _ = period.tick() => {
                    self.forget(client.connection_state() == State::Connected);
                }
            }
            report_at = None;
            // A report that waited for NATS would be an old one.
            if client.connection_state() != State::Connected && asks.is_none() {
                continue;
            }
            last_sent = Some(Deadline::now());
            // Who cannot answer yet does so with a later report.
            let can_answer = !answers.is_empty()
                && timeout(PROOF_LIMIT, self.roll_call.proven()).await.unwrap_or(false);
            let answers = if can_answer { std::mem::take(&mut answers) } else { Vec::new() };
            let report = GatewayReport { asks, answers, ..self.report(source.as_ref()) };
            self.send(&client, &subject, &report, &mut sent).await;
        }
        let last = GatewayReport {
            draining: true,
            connections: BTreeMap::new(),
            drain: source.drained(),
            ..self.report(source.as_ref())
        };
        if client.connection_state() != State::Connected {
            return;
        }
        self.send(&client, &subject, &last, &mut sent).await;
        // The process may end right after this; who misses the last report forgets this gateway a little later.
        let _ = tokio::time::timeout(PUBLISH_LIMIT, client.flush()).await;
    }

    fn report(&self, source: &dyn ReportSource) -> GatewayReport {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let applied = source.applied();
        GatewayReport {
            schema: REPORT_SCHEMA,
            gateway: self.gateway.clone(),
            pool: self.pool.clone(),
            applied_revision: applied.revision,
            bucket: applied.bucket,
            draining: source.draining(),
            connections: source.connections(),
            asks: None,
            answers: Vec::new(),
            drain: None,
            time_unix_ms: u64::try_from(now.as_millis()).ok(),
        }
    }

    async fn send(
        &self,
        client: &Client,
        subject: &Subject,
        report: &GatewayReport,
        sent: &mut VecDeque<Vec<u8>>,
    ) {
        let json = match report.to_json() {
            Ok(json) => json,
            Err(error) => return self.events.error(&error.to_string()),
        };
        if sent.len() == REMEMBERED {
            sent.pop_front();
        }
        sent.push_back(json.clone());
        let publish = client.publish(subject.clone(), json.into());
        match tokio::time::timeout(PUBLISH_LIMIT, publish).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(error)) => self.events.error(&format!("a report was not sent: {error}")),
        }
    }

    /// On this gateway's own subject comes only what it sent itself, unless another one has its id.
    fn check_own(&self, payload: &[u8], sent: &VecDeque<Vec<u8>>) {
        if !sent.iter().any(|own| own == payload) {
            self.events.same_id(&self.gateway);
        }
    }

    /// Takes another gateway's report; gives its question, if it asks one.
    fn hear(&self, payload: &[u8], own_question: Option<u32>) -> Option<u32> {
        let report = match GatewayReport::from_json(payload) {
            Ok(report) => report,
            Err(error) => {
                self.events.error(&format!("a report was refused: {error}"));
                return None;
            }
        };
        let (gateway, asks) = (token(&report.gateway), report.asks);
        let answered = own_question.is_some_and(|question| report.answers.contains(&question));
        if report.draining {
            self.roll_call.gone(&gateway);
        } else {
            self.roll_call.heard(&gateway, answered || asks.is_some());
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let before = others.remove(&gateway);
        self.count(before.as_ref().map(|heard| &heard.report), Some(&report));
        others.insert(gateway, Heard { report, at: Instant::now() });
        asks
    }

    fn forget(&self, connected: bool) {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if !connected {
            for heard in others.values_mut() {
                heard.at = Instant::now();
            }
            return;
        }
        others.retain(|_, heard| {
            let stays = heard.at.elapsed() < EXPIRY;
            if !stays {
                self.count(Some(&heard.report), None);
            }
            stays
        });
    }

    /// Brings the sums from what a gateway said before to what it says now. What it says again costs a look and no more, however many
    /// gateways there are.
    fn count(&self, before: Option<&GatewayReport>, now: Option<&GatewayReport>) {
        let (was, is) = (before.map(|said| &said.connections), now.map(|said| &said.connections));
        if was == is {
            return;
        }
        let mut elsewhere = self.elsewhere.write().unwrap_or_else(PoisonError::into_inner);
        for (room, members) in is.into_iter().flatten() {
            match elsewhere.get_mut(room) {
                Some(sum) => *sum += members,
                None => _ = elsewhere.insert(room.clone(), *members),
            }
        }
        for (room, members) in was.into_iter().flatten() {
            let Some(sum) = elsewhere.get_mut(room) else { continue };
            *sum = sum.saturating_sub(*members);
            if *sum == 0 {
                elsewhere.remove(room);
            }
        }
    }
}

fn sooner(one: Option<Deadline>, other: Deadline) -> Option<Deadline> {
    Some(one.map_or(other, |one| one.min(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_elsewhere_are_the_sum_of_what_each_gateway_said_last() {
        let mut registry = hubbub_telemetry::registry("test", "0");
        let events = Arc::new(BusEvents::register(&mut registry));
        let reports = Reports::new("default", "here", Arc::default(), events);
        let hear = |gateway: &str, rooms: &[(&str, u64)]| {
            let connections = rooms.iter().map(|(room, n)| ((*room).to_owned(), *n)).collect();
            let report = GatewayReport {
                schema: REPORT_SCHEMA,
                gateway: gateway.to_owned(),
                pool: "default".to_owned(),
                applied_revision: 0,
                bucket: None,
                draining: false,
                connections,
                asks: None,
                answers: Vec::new(),
                drain: None,
                time_unix_ms: None,
            };
            reports.hear(&report.to_json().unwrap(), None);
        };
        let there = |room: &str| reports.elsewhere(&RoomName::new("demo", room).unwrap());
        hear("a", &[("demo/one", 3), ("demo/two", 1)]);
        hear("b", &[("demo/one", 4)]);
        assert_eq!((there("one"), there("two")), (7, 1));
        hear("a", &[("demo/one", 2), ("demo/three", 5)]);
        assert_eq!((there("one"), there("two"), there("three")), (6, 0, 5));
        for _ in 0..3 {
            hear("a", &[("demo/one", 2), ("demo/three", 5)]);
        }
        assert_eq!((there("one"), there("three")), (6, 5), "said again is not counted again");
        for heard in reports.others.lock().unwrap().values_mut() {
            heard.at = Instant::now().checked_sub(EXPIRY).unwrap();
        }
        reports.forget(true);
        assert!(reports.elsewhere.read().unwrap().is_empty(), "who is forgotten has no members");
    }
}
