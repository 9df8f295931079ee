//! The bus while its real NATS server is killed, frozen, restarted and overwhelmed.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hubbub_api::names::BUCKET;
use hubbub_gateway::{
    bus::{Bus as _, BusState, PublishError, nats::NatsOptions},
    events::bus::{DroppedBecause, LostBecause},
    policy::{PolicyHealth, PolicySource as _, nats::BucketSource},
    room::{Room, Rooms},
};
use hubbub_testkit::{JetStream, NatsServer, eventually, within};
use hubbub_websocket::Kind;
use nats::jetstream::{self, kv};
use support::{NatsGateway, policy, policy_events, room};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};

async fn gateway(server: &NatsServer) -> NatsGateway {
    let gateway = NatsGateway::connect(&NatsOptions::new(server.url(), "gw")).await;
    connected(&gateway).await;
    gateway
}

async fn connected(gateway: &NatsGateway) {
    eventually("the bus is connected", || gateway.bus.state() == BusState::Connected).await;
}

async fn away(gateway: &NatsGateway) {
    eventually("the bus is away", || matches!(gateway.bus.state(), BusState::Away(_))).await;
}

fn say(gateway: &NatsGateway, room: &Arc<Room>, text: &str) -> Result<(), PublishError> {
    gateway.bus.publish(room, Kind::Text, text.as_bytes(), None)
}

async fn hears(gateway: &NatsGateway, room: &Arc<Room>, text: &str) {
    eventually(&format!("{text:?} arrives"), || {
        gateway.sink.texts(room).iter().any(|got| got == text)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_comes_back_and_rooms_go_on_by_themselves() {
    let mut server = NatsServer::start().await;
    let (one, two) = (gateway(&server).await, gateway(&server).await);
    let (lobby, its_lobby) = (room("demo/lobby"), room("demo/lobby"));
    within("joining", one.bus.join(&lobby)).await;
    within("joining", two.bus.join(&its_lobby)).await;
    say(&one, &lobby, "before").unwrap();
    hears(&two, &its_lobby, "before").await;

    server.kill9();
    away(&one).await;
    away(&two).await;
    eventually("the cause is told", || one.bus.last_error().is_some()).await;
    for n in 0..100 {
        say(&one, &lobby, &format!("meanwhile {n}")).unwrap();
    }
    let late = room("demo/late");
    within("joining while the bus is away does not wait for it", one.bus.join(&late)).await;

    server.start_again().await;
    connected(&one).await;
    assert_eq!(one.bus.last_error(), None);
    // What waited goes out as soon as this gateway is back, and the other may not be: only its own copy is certain.
    hears(&one, &lobby, "meanwhile 99").await;
    let own = one.sink.texts(&lobby);
    let waited: Vec<_> = own.iter().filter(|text| text.starts_with("meanwhile")).collect();
    let want: Vec<_> = (0..100).map(|n| format!("meanwhile {n}")).collect();
    assert_eq!(waited, want.iter().collect::<Vec<_>>(), "in order, each once");
    connected(&two).await;
    assert!(within("a round trip", two.bus.flush(Duration::from_secs(60))).await);
    say(&one, &lobby, "after").unwrap();
    hears(&two, &its_lobby, "after").await;
    say(&two, &late, "late").unwrap();
    hears(&one, &late, "late").await;
    assert_eq!(one.events.lost_count(LostBecause::Away), 0);
    assert_eq!(one.events.connect_count(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_while_the_server_is_away_is_lost_and_counted() {
    let mut server = NatsServer::start().await;
    let one = gateway(&server).await;
    let lobby = room("demo/lobby");
    within("joining", one.bus.join(&lobby)).await;
    server.kill9();
    away(&one).await;
    let (mut taken, mut lost) = (0, 0);
    for n in 0..3_000 {
        match say(&one, &lobby, &format!("{n:05}")) {
            Ok(()) => taken += 1,
            Err(PublishError::Away) => lost += 1,
            Err(error) => panic!("{error}: a bus that is away must not stop senders"),
        }
    }
    assert!((2_000..=2_048).contains(&taken), "{taken} messages were buffered");
    assert_eq!(one.events.lost_count(LostBecause::Away), lost);
    assert!(!within("flushing", one.bus.flush(Duration::from_millis(1))).await);
    server.start_again().await;
    eventually("what was buffered arrives", || one.sink.count(&lobby) == taken).await;
    assert!(one.sink.texts(&lobby).is_sorted());
    assert_eq!(one.events.published_count(), taken as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_wait_for_an_absent_server_are_bounded() {
    let mut server = NatsServer::start().await;
    let one = gateway(&server).await;
    let lobby = room("demo/lobby");
    server.kill9();
    away(&one).await;
    let big = vec![b'x'; 64 * 1024];
    let taken =
        (0..2_000).take_while(|_| one.bus.publish(&lobby, Kind::Text, &big, None).is_ok()).count();
    assert_eq!(taken, 16 * 1024 * 1024 / big.len(), "16 MiB wait, and no more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_noticed_and_what_it_may_have_cost_is_counted() {
    let server = NatsServer::start().await;
    let one = gateway(&server).await;
    let lobby = room("demo/lobby");
    within("joining", one.bus.join(&lobby)).await;
    server.pause();
    for n in 0..50 {
        say(&one, &lobby, &format!("{n}")).unwrap();
    }
    away(&one).await;
    eventually("the loss is counted", || one.events.lost_count(LostBecause::Unconfirmed) == 50)
        .await;
    server.resume();
    connected(&one).await;
    say(&one, &lobby, "after").unwrap();
    hears(&one, &lobby, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_came_back_is_not_counted_as_lost() {
    let mut server = NatsServer::start().await;
    let one = gateway(&server).await;
    let lobby = room("demo/lobby");
    within("joining", one.bus.join(&lobby)).await;
    for n in 0..50 {
        say(&one, &lobby, &format!("{n}")).unwrap();
    }
    assert!(one.bus.flush(Duration::from_secs(60)).await);
    server.kill9();
    away(&one).await;
    assert_eq!(one.events.lost_count(LostBecause::Unconfirmed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_who_keep_up_too_slowly_cost_messages_that_are_counted() {
    let server = NatsServer::start().await;
    let (one, two) = (gateway(&server).await, gateway(&server).await);
    let (lobby, its_lobby, other) = (room("demo/lobby"), room("demo/lobby"), room("demo/other"));
    within("joining", two.bus.join(&its_lobby)).await;
    within("joining", two.bus.join(&other)).await;
    two.sink.close(&its_lobby);
    let big = "x".repeat(64 * 1024);
    let sent = 100;
    for _ in 0..sent {
        while say(&one, &lobby, &big) == Err(PublishError::Full) {
            tokio::task::yield_now().await;
        }
    }
    eventually("all have come", || two.events.received_count() == sent).await;
    let dropped = two.events.dropped_count(DroppedBecause::Overload);
    assert_eq!(dropped, sent - 4 * 1024 * 1024 / (64 * 1024), "a backlog of 4 MiB, and no more");
    say(&one, &other, "hello").unwrap();
    hears(&two, &other, "hello").await;
    two.sink.open(&its_lobby);
    let kept = usize::try_from(sent - dropped).unwrap();
    eventually("the backlog is delivered", || two.sink.count(&its_lobby) == kept).await;
    say(&one, &lobby, "after").unwrap();
    hears(&two, &its_lobby, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chat_goes_on_when_jetstream_is_lost() {
    let mut server = NatsServer::start().await;
    let one = gateway(&server).await;
    let context = jetstream::new(server.client().await);
    let config = kv::Config { bucket: BUCKET.to_owned(), ..Default::default() };
    let store = context.create_key_value(config).await.unwrap();
    let json = policy("demo/lobby").to_json().unwrap();
    store.put("demo.lobby", json.into()).await.unwrap();
    let (rooms, health) = (Arc::new(Rooms::new(1)), Arc::new(PolicyHealth::default()));
    let source = BucketSource::new(one.bus.client().clone(), policy_events(), health.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(Box::new(source).run(rooms.clone(), one.stop.clone()));
    eventually("the policies are loaded", || rooms.is_loaded()).await;
    let lobby = rooms.get("demo/lobby").unwrap();
    assert!(lobby.reserve(u64::MAX));
    within("joining", one.bus.join(&lobby)).await;

    server.configure(|config| config.jetstream = JetStream::Off);
    server.restart().await;
    connected(&one).await;
    eventually("it is told", || health.faults().join("").contains("JetStream")).await;
    assert!(!lobby.is_gone());
    say(&one, &lobby, "still here").unwrap();
    hears(&one, &lobby, "still here").await;

    server.configure(|config| config.jetstream = JetStream::On);
    server.restart().await;
    eventually("the policies are followed again", || health.faults().is_empty()).await;
    assert!(!lobby.is_gone());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_starts_before_the_server_finds_it() {
    let mut server = NatsServer::start().await;
    let url = server.url();
    server.kill9();
    let one = NatsGateway::connect(&NatsOptions::new(url, "gw")).await;
    let lobby = room("demo/lobby");
    within("joining without a server does not wait for it", one.bus.join(&lobby)).await;
    assert_eq!(one.bus.state(), BusState::Connecting);
    eventually("the cause is told", || one.bus.last_error().is_some()).await;
    let cause = one.bus.last_error().unwrap();
    assert!(cause.contains("127.0.0.1") && cause.contains("refused"), "{cause}");
    say(&one, &lobby, "early").unwrap();
    server.start_again().await;
    hears(&one, &lobby, "early").await;
}

/// Stands between a gateway and its server, and can break single connections.
struct Proxy {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
    accepts: Arc<AtomicBool>,
    _task: JoinSet<()>,
}

impl Proxy {
    async fn start(server: &NatsServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let behind = server.url().trim_start_matches("nats://").to_owned();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let accepts = Arc::new(AtomicBool::new(true));
        let mut task = JoinSet::new();
        let (carried, accepting) = (Arc::clone(&connections), Arc::clone(&accepts));
        task.spawn(async move {
            let mut carrying = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                if !accepting.load(Ordering::Acquire) {
                    continue;
                }
                let behind = behind.clone();
                let carry = carrying.spawn(async move {
                    let mut server = TcpStream::connect(behind).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
                carried.lock().unwrap().push(carry);
            }
        });
        Self { address, connections, accepts, _task: task }
    }

    /// Breaks the first connection that was made, and lets none be made.
    fn break_first(&self) {
        self.accepts.store(false, Ordering::Release);
        self.connections.lock().unwrap()[0].abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_one_of_its_connections_is_away_all_messages_wait_and_none_is_lost() {
    let server = NatsServer::start().await;
    let proxy = Proxy::start(&server).await;
    let one = NatsGateway::connect(&NatsOptions::new(proxy.address.to_string(), "gw")).await;
    connected(&one).await;
    let rooms = [0, 1].map(|home| {
        let mut rooms = std::iter::repeat_with(|| room(&format!("demo/r{home}")));
        rooms.find(|room| room.home(2) == home).unwrap()
    });
    for room in &rooms {
        within("joining", one.bus.join(room)).await;
    }
    proxy.break_first();
    away(&one).await;
    let want: Vec<_> = (0..50).map(|n| format!("meanwhile {n}")).collect();
    for text in &want {
        for room in &rooms {
            say(&one, room, text).unwrap();
        }
    }
    assert_eq!(one.events.published_count(), 0, "also what the other connection could carry waits");
    proxy.accepts.store(true, Ordering::Release);
    for room in &rooms {
        hears(&one, room, "meanwhile 49").await;
        assert_eq!(one.sink.texts(room), want, "in order, each once");
    }
    connected(&one).await;
    assert_eq!(one.events.connect_count(), 3, "the other connection stood all the time");
    assert_eq!(one.events.lost_count(LostBecause::Away), 0);
}
