//! Rooms from the bucket of a real NATS server, and what can happen to a bucket.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod support;

use std::{sync::Arc, time::Duration};

use hubbub_api::{
    RoomPolicy, Statement,
    names::{BUCKET, statement_key},
};
use hubbub_gateway::{
    events::policy::PolicyEvents,
    policy::{PolicyHealth, PolicySource as _, nats::BucketSource},
    room::Rooms,
};
use hubbub_testkit::{JetStream, NatsConfig, NatsServer, eventually};
use nats::jetstream::{self, kv};
use support::{policy, policy_events};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

async fn make_bucket(server: &NatsServer) -> kv::Store {
    let context = jetstream::new(server.client().await);
    let config = kv::Config { bucket: BUCKET.to_owned(), ..Default::default() };
    context.create_key_value(config).await.unwrap()
}

async fn put(store: &kv::Store, policy: &RoomPolicy) -> u64 {
    store.put(policy.room.policy_key(), policy.to_json().unwrap().into()).await.unwrap()
}

/// Says as the operator `hubbub/hubbub` that everything is published.
async fn state(store: &kv::Store, id: u64, keep: &[&str]) -> u64 {
    let keep = keep.iter().map(|&key| key.to_owned()).collect();
    let statement = Statement { id: Some(id), namespaces: Vec::new(), keep };
    let json = statement.to_json().unwrap();
    store.put(statement_key("hubbub/hubbub"), json.into()).await.unwrap()
}

struct Followed {
    rooms: Arc<Rooms>,
    events: Arc<PolicyEvents>,
    health: Arc<PolicyHealth>,
    // Ends the source with the test.
    _tasks: JoinSet<()>,
}

/// Follows the bucket; one made anew may take as long as `refill` to be filled.
async fn follow(server: &NatsServer, refill: Duration) -> Followed {
    let (rooms, events) = (Arc::new(Rooms::new(1)), policy_events());
    let health = Arc::new(PolicyHealth::default());
    let source = BucketSource::new(server.client().await, events.clone(), health.clone())
        .with_refill(refill);
    let mut tasks = JoinSet::new();
    tasks.spawn(Box::new(source).run(rooms.clone(), CancellationToken::new()));
    Followed { rooms, events, health, _tasks: tasks }
}

impl Followed {
    async fn serves(&self, names: &[&str]) {
        let now = || self.rooms.all().iter().map(|r| r.name().to_string()).collect::<Vec<_>>();
        eventually(&format!("the rooms are {names:?}"), || now() == names).await;
    }

    async fn applied(&self, revision: u64) {
        let now = || self.rooms.is_loaded() && self.rooms.applied().revision == revision;
        eventually(&format!("revision {revision} is in force"), now).await;
    }

    /// How often the bucket was read whole.
    fn follows(&self) -> u64 {
        self.events.follow_count()
    }

    async fn tells(&self, fault: &str) {
        eventually(&format!("{fault:?} is told"), || {
            self.health.faults().join("\n").contains(fault)
        })
        .await;
    }
}

#[tokio::test]
async fn an_empty_bucket_is_loaded_and_a_missing_one_is_not() {
    let server = NatsServer::start().await;
    let followed = follow(&server, Duration::ZERO).await;
    followed.tells("the bucket hubbub-policies is missing: the operator makes it").await;
    assert!(!followed.rooms.is_loaded());
    let store = make_bucket(&server).await;
    followed.applied(0).await;
    eventually("no fault is told", || followed.health.faults().is_empty()).await;
    let revision = put(&store, &policy("demo/lobby")).await;
    followed.serves(&["demo/lobby"]).await;
    followed.applied(revision).await;
}

#[tokio::test]
async fn a_server_without_jetstream_is_told_as_such() {
    let config = NatsConfig { jetstream: JetStream::Off, ..NatsConfig::default() };
    let mut server = NatsServer::start_with(config).await;
    let followed = follow(&server, Duration::ZERO).await;
    followed.tells("NATS runs without JetStream").await;
    assert!(!followed.rooms.is_loaded());
    server.configure(|config| config.jetstream = JetStream::On);
    server.restart().await;
    make_bucket(&server).await;
    followed.applied(0).await;
}

#[tokio::test]
async fn the_revision_is_a_promise_that_a_refused_value_holds_back() {
    let server = NatsServer::start().await;
    let store = make_bucket(&server).await;
    let followed = follow(&server, Duration::ZERO).await;
    followed.applied(0).await;
    let good = put(&store, &policy("demo/lobby")).await;
    followed.applied(good).await;
    let newer = RoomPolicy { schema: u32::MAX, ..policy("demo/side") };
    let bad = put(&store, &newer).await;
    followed.tells("demo.side at revision 2: policy schema").await;
    let after = put(&store, &policy("demo/other")).await;
    followed.serves(&["demo/lobby", "demo/other"]).await;
    followed.applied(bad - 1).await;
    assert_eq!((good, bad, after), (1, 2, 3));
    let mended = put(&store, &policy("demo/side")).await;
    followed.serves(&["demo/lobby", "demo/other", "demo/side"]).await;
    followed.applied(mended).await;
    assert_eq!(followed.health.faults(), [""; 0]);
    assert_eq!(followed.events.refusal_count(), 1);
}

#[tokio::test]
async fn bad_values_are_refused_one_by_one() {
    let server = NatsServer::start().await;
    let store = make_bucket(&server).await;
    store.put("demo.lobby", "hello".into()).await.unwrap();
    store.put("lobby", policy("demo/lobby").to_json().unwrap().into()).await.unwrap();
    store.put("demo.side", policy("demo/other").to_json().unwrap().into()).await.unwrap();
    store.put("Demo.side", policy("demo/other").to_json().unwrap().into()).await.unwrap();
    let no_origin = RoomPolicy { allowed_origins: Vec::new(), ..policy("demo/empty") };
    store.put("demo.empty", serde_json::to_vec(&no_origin).unwrap().into()).await.unwrap();
    put(&store, &policy("demo/good")).await;
    let followed = follow(&server, Duration::ZERO).await;
    followed.serves(&["demo/good"]).await;
    followed.applied(0).await;
    let faults = followed.health.faults();
    assert_eq!(faults.len(), 5, "{faults:#?}");
    assert_eq!(followed.events.refusal_count(), 5);
    followed.tells("the policy is for the room demo/other").await;
    // A refused value goes with its key.
    for key in ["demo.lobby", "lobby", "demo.side", "Demo.side", "demo.empty"] {
        store.delete(key).await.unwrap();
    }
    followed.applied(11).await;
    eventually("no fault is told", || followed.health.faults().is_empty()).await;
}

#[tokio::test]
async fn deleting_and_purging_a_key_removes_its_room() {
    let server = NatsServer::start().await;
    let store = make_bucket(&server).await;
    for room in ["demo/a", "demo/b", "demo/c"] {
        put(&store, &policy(room)).await;
    }
    let followed = follow(&server, Duration::ZERO).await;
    followed.serves(&["demo/a", "demo/b", "demo/c"]).await;
    store.delete("demo.a").await.unwrap();
    followed.serves(&["demo/b", "demo/c"]).await;
    store.purge("demo.b").await.unwrap();
    followed.serves(&["demo/c"]).await;
    followed.applied(5).await;
    // The stream purged behind the bucket's back leaves no trace that a watch tells of.
    let context = jetstream::new(server.client().await);
    let stream = context.get_stream(format!("KV_{BUCKET}")).await.unwrap();
    stream.purge().await.unwrap();
    followed.applied(5).await;
    // Nobody says that the room is no more; once people have filled the bucket again, it is not.
    put(&store, &policy("demo/d")).await;
    followed.serves(&["demo/d"]).await;
    assert!(followed.rooms.is_loaded());
}

#[tokio::test]
async fn a_bucket_made_anew_has_time_to_be_filled() {
    let server = NatsServer::start().await;
    let store = make_bucket(&server).await;
    put(&store, &policy("demo/gone")).await;
    put(&store, &policy("demo/lobby")).await;
    let followed = follow(&server, Duration::from_secs(5)).await;
    followed.serves(&["demo/gone", "demo/lobby"]).await;
    followed.applied(2).await;
    let lobby = followed.rooms.get("demo/lobby").unwrap();
    let context = jetstream::new(server.client().await);
    context.delete_key_value(BUCKET).await.unwrap();
    let store = make_bucket(&server).await;
    let revision = put(&store, &policy("demo/lobby")).await;
    assert_eq!(revision, 1, "it counts from the beginning");
    followed.applied(1).await;
    followed.serves(&["demo/lobby"]).await;
    assert_eq!(followed.rooms.get("demo/lobby").unwrap().id(), lobby.id(), "nobody had to leave");
}

#[tokio::test]
async fn what_an_operator_has_not_denied_outlives_a_bucket_that_was_emptied() {
    let mut server = NatsServer::start().await;
    let store = make_bucket(&server).await;
    let rooms = ["demo/gone", "demo/lobby", "demo/paused"];
    for room in rooms {
        put(&store, &policy(room)).await;
    }
    let said = state(&store, 1, &[]).await;
    let followed = follow(&server, Duration::ZERO).await;
    followed.serves(&rooms).await;
    followed.applied(said).await;
    let kept: Vec<_> = rooms[1..].iter().map(|name| followed.rooms.get(name).unwrap()).collect();

    for (id, purge) in [(2, true), (3, false)] {
        let told = followed.follows();
        if purge {
            let context = jetstream::new(server.client().await);
            let stream = context.get_stream(format!("KV_{BUCKET}")).await.unwrap();
            stream.purge().await.unwrap();
        } else {
            server.kill9_and_wipe();
            server.start_again().await;
            make_bucket(&server).await;
        }
        eventually("the empty bucket is read", || followed.follows() > told).await;
        let names = if purge { &rooms[..] } else { &rooms[1..] };
        followed.serves(names).await;
        let context = jetstream::new(server.client().await);
        let store = context.get_key_value(BUCKET).await.unwrap();
        let revision = put(&store, &policy("demo/lobby")).await;
        followed.applied(revision).await;
        followed.serves(names).await;
        let revision = state(&store, id, &["demo.paused"]).await;
        followed.applied(revision).await;
        followed.serves(&rooms[1..]).await;
    }
    assert!(kept.iter().all(|room| !room.is_gone()), "nobody had to leave");
}

#[tokio::test]
async fn a_bucket_that_was_emptied_and_filled_as_far_as_before_is_read_again() {
    let mut server = NatsServer::start().await;
    let store = make_bucket(&server).await;
    for room in ["demo/a", "demo/b"] {
        put(&store, &policy(room)).await;
    }
    let said = state(&store, 1, &[]).await;
    let followed = follow(&server, Duration::ZERO).await;
    followed.applied(said).await;
    server.kill9_and_wipe();
    server.start_again().await;
    let store = make_bucket(&server).await;
    for room in ["demo/a", "demo/c"] {
        put(&store, &policy(room)).await;
    }
    assert_eq!(state(&store, 2, &[]).await, said);
    followed.serves(&["demo/a", "demo/c"]).await;
}

#[tokio::test]
async fn what_newer_operators_may_write_beside_policies_is_no_fault() {
    let server = NatsServer::start().await;
    let store = make_bucket(&server).await;
    let followed = follow(&server, Duration::ZERO).await;
    put(&store, &policy("demo/lobby")).await;
    store.put("_newer", "hello".into()).await.unwrap();
    let last = store.put(statement_key("a/b"), "hello".into()).await.unwrap();
    followed.applied(last).await;
    followed.serves(&["demo/lobby"]).await;
    assert_eq!(followed.events.refusal_count(), 0);
}

#[tokio::test]
async fn a_missing_bucket_removes_nothing() {
    let server = NatsServer::start().await;
    let store = make_bucket(&server).await;
    put(&store, &policy("demo/lobby")).await;
    let followed = follow(&server, Duration::ZERO).await;
    followed.serves(&["demo/lobby"]).await;
    let lobby = followed.rooms.get("demo/lobby").unwrap();
    jetstream::new(server.client().await).delete_key_value(BUCKET).await.unwrap();
    followed.tells("is missing").await;
    assert!(!lobby.is_gone());
    assert!(followed.rooms.is_loaded(), "what was loaded stays loaded");
}

#[tokio::test]
async fn a_restarted_server_goes_on_where_it_was() {
    let mut server = NatsServer::start().await;
    put(&make_bucket(&server).await, &policy("demo/lobby")).await;
    let followed = follow(&server, Duration::ZERO).await;
    followed.serves(&["demo/lobby"]).await;
    let lobby = followed.rooms.get("demo/lobby").unwrap();
    server.restart().await;
    let context = jetstream::new(server.client().await);
    let store = context.get_key_value(BUCKET).await.unwrap();
    let revision = put(&store, &policy("demo/new")).await;
    followed.serves(&["demo/lobby", "demo/new"]).await;
    followed.applied(revision).await;
    assert!(!lobby.is_gone());
}
