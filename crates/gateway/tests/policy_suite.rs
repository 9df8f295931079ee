//! What every policy source promises: one suite that both pass, the files and the bucket of a real NATS server.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod support;

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex},
};

use hubbub_api::{RoomName, RoomPolicy, names::BUCKET};
use hubbub_gateway::{
    policy::{PolicyHealth, PolicySource, files::FilesSource, nats::BucketSource},
    room::{Room, RoomObserver, Rooms},
};
use hubbub_testkit::{NatsServer, eventually, within};
use support::{policy, policy_events};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A source that a test can write to, and take away.
trait Harness: Sized {
    fn start() -> impl Future<Output = Self>;
    fn source(&self, health: Arc<PolicyHealth>) -> impl Future<Output = Box<dyn PolicySource>>;
    /// Makes these all that is declared.
    fn declare(&mut self, policies: &[RoomPolicy]) -> impl Future<Output = ()>;
    /// Declares the room in a way that does not validate, beside all that was declared.
    fn declare_badly(&mut self, room: &str) -> impl Future<Output = ()>;
    fn take_away(&mut self) -> impl Future<Output = ()>;
    fn bring_back(&mut self) -> impl Future<Output = ()>;
}

struct Files {
    directory: tempfile::TempDir,
    declared: String,
}

impl Files {
    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("rooms.yaml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }
}

fn document(policy: &RoomPolicy) -> String {
    format!(
        "---\napiVersion: hubbub.dev/v1alpha1\nkind: ChatRoom\nmetadata: {{name: {}, namespace: {}}}\n\
         spec:\n  allowedOrigins: {:?}\n  limits: {{maxMessageBytes: {}}}\n",
        policy.room.name(),
        policy.room.namespace(),
        policy.allowed_origins,
        policy.limits.max_message_bytes,
    )
}

impl Harness for Files {
    async fn start() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), declared: String::new() }
    }

    async fn source(&self, health: Arc<PolicyHealth>) -> Box<dyn PolicySource> {
        Box::new(FilesSource::new(vec![self.path()], policy_events(), health))
    }

    async fn declare(&mut self, policies: &[RoomPolicy]) {
        self.declared = policies.iter().map(document).collect();
        self.write(&self.declared);
    }

    async fn declare_badly(&mut self, room: &str) {
        let bad = RoomPolicy { allowed_origins: vec!["no origin".to_owned()], ..policy(room) };
        let room = format!("{{name: {}, namespace: {}}}", bad.room.name(), bad.room.namespace());
        let others = self.declared.split_inclusive("---\n").filter(|text| !text.contains(&room));
        self.write(&(others.collect::<String>() + &document(&bad)));
    }

    async fn take_away(&mut self) {
        std::fs::remove_file(self.path()).unwrap();
    }

    async fn bring_back(&mut self) {
        self.write(&self.declared);
    }
}

struct Bucket {
    server: NatsServer,
    store: nats::jetstream::kv::Store,
    declared: BTreeMap<String, RoomPolicy>,
}

impl Harness for Bucket {
    async fn start() -> Self {
        let server = NatsServer::start().await;
        let context = nats::jetstream::new(server.client().await);
        let config =
            nats::jetstream::kv::Config { bucket: BUCKET.to_owned(), ..Default::default() };
        let store = context.create_key_value(config).await.unwrap();
        Self { server, store, declared: BTreeMap::new() }
    }

    async fn source(&self, health: Arc<PolicyHealth>) -> Box<dyn PolicySource> {
        let client = self.server.client().await;
        Box::new(BucketSource::new(client, policy_events(), health))
    }

    async fn declare(&mut self, policies: &[RoomPolicy]) {
        let wanted: BTreeMap<_, _> =
            policies.iter().map(|policy| (policy.room.policy_key(), policy.clone())).collect();
        for (key, policy) in &wanted {
            self.store.put(key, policy.to_json().unwrap().into()).await.unwrap();
        }
        for key in self.declared.keys().filter(|key| !wanted.contains_key(*key)) {
            self.store.delete(key).await.unwrap();
        }
        self.declared = wanted;
    }

    async fn declare_badly(&mut self, room: &str) {
        let bad = RoomPolicy { allowed_origins: vec!["no origin".to_owned()], ..policy(room) };
        let json = serde_json::to_vec(&bad).unwrap();
        self.store.put(bad.room.policy_key(), json.into()).await.unwrap();
    }

    async fn take_away(&mut self) {
        self.server.kill9();
    }

    async fn bring_back(&mut self) {
        self.server.start_again().await;
    }
}

/// Keeps what it was told.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<String>>);

impl RoomObserver for Told {
    fn policy_changed(&self, room: &Arc<Room>) {
        self.0.lock().unwrap().push(format!("{} changed", room.name()));
    }

    fn room_gone(&self, room: &Arc<Room>) {
        self.0.lock().unwrap().push(format!("{} gone", room.name()));
    }
}

impl Told {
    fn has(&self, what: &str) -> bool {
        self.0.lock().unwrap().iter().any(|told| told == what)
    }
}

/// A table that a source keeps true.
struct Running {
    rooms: Arc<Rooms>,
    told: Arc<Told>,
    health: Arc<PolicyHealth>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Running {
    async fn start<H: Harness>(harness: &H) -> Self {
        let (rooms, told) = (Arc::new(Rooms::new(2)), Arc::new(Told::default()));
        rooms.observe(told.clone());
        let health = Arc::new(PolicyHealth::default());
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(harness.source(health.clone()).await.run(rooms.clone(), stop.clone()));
        Self { rooms, told, health, stop, tasks }
    }

    fn names(&self) -> Vec<String> {
        self.rooms.all().iter().map(|room| room.name().to_string()).collect()
    }

    async fn serves(&self, names: &[&str]) {
        eventually(&format!("the rooms are {names:?}"), || self.names() == names).await;
    }

    async fn end(mut self) {
        self.stop.cancel();
        within("the source ends", self.tasks.join_next()).await.unwrap().unwrap();
    }
}

fn limited(room: &str, max_message_bytes: u32) -> RoomPolicy {
    let mut policy = policy(room);
    policy.limits.max_message_bytes = max_message_bytes;
    policy
}

fn limit_of(rooms: &Rooms, room: &str) -> Option<u32> {
    rooms.get(room).map(|room| room.policy().declared().limits.max_message_bytes)
}

async fn what_is_there_at_start_is_loaded<H: Harness>() {
    let mut harness = H::start().await;
    harness.declare(&[policy("demo/lobby"), policy("demo/side"), policy("other/lobby")]).await;
    let running = Running::start(&harness).await;
    eventually("the table is loaded", || running.rooms.is_loaded()).await;
    assert_eq!(running.names(), ["demo/lobby", "demo/side", "other/lobby"]);
    assert_eq!(limit_of(&running.rooms, "demo/lobby"), Some(64 * 1024));
    assert_eq!(running.health.faults(), [""; 0]);
    running.end().await;
}

async fn changes_take_effect_on_the_rooms_that_are_there<H: Harness>() {
    let mut harness = H::start().await;
    harness.declare(&[policy("demo/lobby"), policy("demo/side")]).await;
    let running = Running::start(&harness).await;
    running.serves(&["demo/lobby", "demo/side"]).await;
    let lobby = running.rooms.get("demo/lobby").unwrap();
    let side = running.rooms.get("demo/side").unwrap();

    harness.declare(&[limited("demo/lobby", 1000), policy("demo/side"), policy("demo/new")]).await;
    running.serves(&["demo/lobby", "demo/new", "demo/side"]).await;
    eventually("the policy is changed", || running.told.has("demo/lobby changed")).await;
    assert_eq!(lobby.policy().declared().limits.max_message_bytes, 1000, "the same room, changed");
    assert!(!running.told.has("demo/side changed"), "an equal policy is no change");

    harness.declare(&[limited("demo/lobby", 1000), policy("demo/new")]).await;
    running.serves(&["demo/lobby", "demo/new"]).await;
    eventually("the room is gone", || running.told.has("demo/side gone")).await;
    assert!(side.is_gone());

    harness.declare(&[limited("demo/lobby", 1000), policy("demo/new"), policy("demo/side")]).await;
    running.serves(&["demo/lobby", "demo/new", "demo/side"]).await;
    assert_ne!(
        running.rooms.get("demo/side").unwrap().id(),
        side.id(),
        "another room of that name"
    );
    running.end().await;
}

async fn what_does_not_validate_is_refused_and_told<H: Harness>() {
    let mut harness = H::start().await;
    harness.declare(&[limited("demo/lobby", 1000), policy("demo/side")]).await;
    let running = Running::start(&harness).await;
    running.serves(&["demo/lobby", "demo/side"]).await;

    harness.declare_badly("demo/lobby").await;
    eventually("the fault is told", || !running.health.faults().is_empty()).await;
    let faults = running.health.faults().join("\n");
    assert!(faults.contains("allowedOrigins"), "{faults}");
    assert_eq!(limit_of(&running.rooms, "demo/lobby"), Some(1000), "the last good one stays");
    assert_eq!(running.names(), ["demo/lobby", "demo/side"]);

    harness.declare(&[limited("demo/lobby", 2000), policy("demo/side")]).await;
    eventually("it is mended", || limit_of(&running.rooms, "demo/lobby") == Some(2000)).await;
    eventually("no fault is told", || running.health.faults().is_empty()).await;
    running.end().await;
}

async fn a_source_that_is_away_removes_no_room<H: Harness>() {
    let mut harness = H::start().await;
    harness.declare(&[policy("demo/lobby"), policy("demo/side")]).await;
    let running = Running::start(&harness).await;
    running.serves(&["demo/lobby", "demo/side"]).await;

    harness.take_away().await;
    harness.bring_back().await;
    harness.declare(&[limited("demo/lobby", 1000), policy("demo/new")]).await;
    running.serves(&["demo/lobby", "demo/new"]).await;
    eventually("the change arrives", || limit_of(&running.rooms, "demo/lobby") == Some(1000)).await;
    assert!(!running.told.has("demo/lobby gone"), "nobody in it had to leave, at any time");
    running.end().await;
}

async fn what_is_bad_at_start_is_waited_out<H: Harness>() {
    let mut harness = H::start().await;
    harness.declare_badly("demo/lobby").await;
    let running = Running::start(&harness).await;
    eventually("the fault is told", || !running.health.faults().is_empty()).await;
    assert!(running.rooms.is_empty());
    harness.declare(&[policy("demo/lobby")]).await;
    running.serves(&["demo/lobby"]).await;
    eventually("the table is loaded", || running.rooms.is_loaded()).await;
    assert!(
        running.rooms.get("demo/lobby").unwrap().name()
            == &"demo/lobby".parse::<RoomName>().unwrap()
    );
    running.end().await;
}

macro_rules! suite {
    ($($case:ident),* $(,)?) => {
        mod files {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case::<super::Files>().await })*
        }
        mod bucket {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case::<super::Bucket>().await })*
        }
    };
}

suite!(
    what_is_there_at_start_is_loaded,
    changes_take_effect_on_the_rooms_that_are_there,
    what_does_not_validate_is_refused_and_told,
    a_source_that_is_away_removes_no_room,
    what_is_bad_at_start_is_waited_out,
);
