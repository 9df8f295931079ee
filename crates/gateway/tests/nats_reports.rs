//! Gateways hear each other's reports over a real NATS server.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use futures_util::StreamExt as _;
use hubbub_api::{DrainReport, GatewayReport, RoomName, names::REPORT_WILDCARD};
use hubbub_gateway::{
    reports::{ReportSource, Reports},
    room::Applied,
};
use hubbub_testkit::{NatsServer, eventually, within};
use support::bus_events;
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

const DRAINED: DrainReport = DrainReport { milliseconds: 2500, moved: 11, cut: 1 };

#[derive(Debug, Default)]
struct State {
    revision: AtomicU64,
    draining: AtomicBool,
    connections: Mutex<BTreeMap<String, u64>>,
}

impl ReportSource for State {
    fn applied(&self) -> Applied {
        Applied { revision: self.revision.load(Ordering::Acquire), bucket: Some(3) }
    }

    fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    fn connections(&self) -> BTreeMap<String, u64> {
        self.connections.lock().unwrap().clone()
    }

    fn drained(&self) -> Option<DrainReport> {
        self.draining().then_some(DRAINED)
    }
}

struct Gateway {
    reports: Arc<Reports>,
    state: Arc<State>,
    changed: Arc<Notify>,
    stop: CancellationToken,
    errors: Arc<hubbub_gateway::events::bus::BusEvents>,
    tasks: JoinSet<()>,
}

impl Gateway {
    async fn start(server: &NatsServer, pool: &str, name: &str) -> Self {
        let errors = bus_events();
        let reports = Arc::new(Reports::new(pool, name, Arc::default(), errors.clone()));
        let state = Arc::new(State::default());
        let (changed, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let mut tasks = JoinSet::new();
        let (client, running) = (server.client().await, reports.clone());
        let (source, notify, end) = (state.clone(), changed.clone(), stop.clone());
        tasks.spawn(async move { running.run(client, source, notify, end).await });
        Self { reports, state, changed, stop, errors, tasks }
    }

    fn holds(&self, room: &str, members: u64) {
        self.state.connections.lock().unwrap().insert(room.to_owned(), members);
        self.changed.notify_one();
    }

    fn elsewhere(&self, room: &str) -> u64 {
        self.reports.elsewhere(&room.parse::<RoomName>().unwrap())
    }

    fn knows(&self) -> Vec<String> {
        self.reports.gateways().into_iter().map(|other| other.report.gateway).collect()
    }

    async fn end(mut self) {
        self.stop.cancel();
        within("the reports end", self.tasks.join_next()).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rooms_members_are_summed_over_the_other_gateways_of_its_pool() {
    let server = NatsServer::start().await;
    let one = Gateway::start(&server, "default", "one").await;
    let two = Gateway::start(&server, "default", "two").await;
    let three = Gateway::start(&server, "default", "three").await;
    let apart = Gateway::start(&server, "apart", "four").await;
    eventually("they know each other", || one.knows() == ["three", "two"]).await;
    one.holds("demo/lobby", 1);
    two.holds("demo/lobby", 20);
    two.holds("demo/side", 5);
    three.holds("demo/lobby", 300);
    apart.holds("demo/lobby", 4000);
    eventually("one knows the others'", || one.elsewhere("demo/lobby") == 320).await;
    eventually("two knows the others'", || two.elsewhere("demo/lobby") == 301).await;
    assert_eq!(one.elsewhere("demo/side"), 5);
    assert_eq!(one.elsewhere("demo/none"), 0);
    assert_eq!(apart.knows(), [""; 0]);
    two.holds("demo/lobby", 0);
    eventually("it follows", || one.elsewhere("demo/lobby") == 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_ends_says_so_and_is_forgotten() {
    let server = NatsServer::start().await;
    let one = Gateway::start(&server, "default", "one").await;
    let two = Gateway::start(&server, "default", "two").await;
    two.holds("demo/lobby", 20);
    eventually("one knows it", || one.elsewhere("demo/lobby") == 20).await;
    two.end().await;
    eventually("its members are gone at once", || one.elsewhere("demo/lobby") == 0).await;
    eventually("it is forgotten", || one.knows().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_forgotten_while_nats_is_away() {
    let mut server = NatsServer::start().await;
    let one = Gateway::start(&server, "default", "one").await;
    let two = Gateway::start(&server, "default", "two").await;
    two.holds("demo/lobby", 20);
    eventually("one knows it", || one.elsewhere("demo/lobby") == 20).await;
    server.kill9();
    // Its age is set back at each period: it would be forgotten after three.
    for _ in 0..4 {
        let age = || one.reports.gateways()[0].age;
        let mut oldest = age();
        eventually("a period passes", || {
            let passed = age() < oldest;
            oldest = age();
            passed
        })
        .await;
    }
    assert_eq!(one.elsewhere("demo/lobby"), 20);
    server.start_again().await;
    two.holds("demo/lobby", 21);
    eventually("it is heard again", || one.elsewhere("demo/lobby") == 21).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_hears_the_whole_state() {
    let server = NatsServer::start().await;
    let client = server.client().await;
    let mut heard = client.subscribe(REPORT_WILDCARD).await.unwrap();
    client.flush().await.unwrap();
    let one = Gateway::start(&server, "default", "Host.local").await;
    one.state.revision.store(7, Ordering::Release);
    one.state.draining.store(true, Ordering::Release);
    one.holds("demo/lobby", 3);
    let report = loop {
        let message = within("a report", heard.next()).await.unwrap();
        assert_eq!(message.subject.as_str(), "hubbub.report.default.host-local");
        let report = GatewayReport::from_json(&message.payload).unwrap();
        if report.draining {
            break report;
        }
    };
    assert_eq!(
        (report.gateway.as_str(), report.applied_revision, report.bucket),
        ("Host.local", 7, Some(3))
    );
    assert_eq!(report.connections, BTreeMap::from([("demo/lobby".to_owned(), 3)]));
    assert_eq!(report.drain, None, "how the drain went is told once, in the end");
    one.stop.cancel();
    let last = loop {
        let message = within("the last report", heard.next()).await.unwrap();
        let report = GatewayReport::from_json(&message.payload).unwrap();
        if report.drain.is_some() {
            break report;
        }
    };
    assert_eq!((last.drain, last.connections), (Some(DRAINED), BTreeMap::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_with_one_id_are_told() {
    let server = NatsServer::start().await;
    let one = Gateway::start(&server, "default", "host").await;
    let _two = Gateway::start(&server, "default", "host").await;
    eventually("the clash is told", || one.errors.error_count() > 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_cannot_be_read_changes_nothing() {
    let server = NatsServer::start().await;
    let one = Gateway::start(&server, "default", "one").await;
    let two = Gateway::start(&server, "default", "two").await;
    two.holds("demo/lobby", 20);
    eventually("one knows it", || one.elsewhere("demo/lobby") == 20).await;
    let client = server.client().await;
    for junk in ["hello", "{}", r#"{"schema": 99}"#] {
        client.publish("hubbub.report.default.two", junk.into()).await.unwrap();
    }
    eventually("they are told", || one.errors.error_count() == 3).await;
    assert_eq!(one.elsewhere("demo/lobby"), 20);
}
