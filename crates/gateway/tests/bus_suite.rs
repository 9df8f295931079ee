//! What every bus promises: one suite that all pass, the one in the process and the one over a real NATS server,
//! with one connection and with several.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod support;

use std::{future::Future, sync::Arc};

use hubbub_gateway::{
    bus::{Bus, BusState, PublishError, local::LocalBus, nats::NatsOptions},
    room::Room,
};
use hubbub_testkit::{GIVE_UP, NatsServer, eventually, within};
use hubbub_websocket::Kind;
use support::{NatsGateway, Recorder, room};

/// A gateway with a bus that works.
trait Harness: Sized + Send + Sync {
    fn start() -> impl Future<Output = Self>;
    fn bus(&self) -> Arc<dyn Bus>;
    fn sink(&self) -> Arc<Recorder>;
}

struct Local {
    bus: Arc<LocalBus>,
    sink: Arc<Recorder>,
}

impl Harness for Local {
    async fn start() -> Self {
        let sink = Recorder::new();
        Self { bus: Arc::new(LocalBus::new(sink.clone())), sink }
    }

    fn bus(&self) -> Arc<dyn Bus> {
        self.bus.clone()
    }

    fn sink(&self) -> Arc<Recorder> {
        self.sink.clone()
    }
}

struct Nats<const CONNECTIONS: usize> {
    gateway: NatsGateway,
    _server: NatsServer,
}

impl<const CONNECTIONS: usize> Harness for Nats<CONNECTIONS> {
    async fn start() -> Self {
        let server = NatsServer::start().await;
        let options = NatsOptions::new(server.url(), "gw");
        let gateway = NatsGateway::connect_times(CONNECTIONS, &options).await;
        let bus = gateway.bus.clone();
        eventually("the bus is connected", || bus.state() == BusState::Connected).await;
        Self { gateway, _server: server }
    }

    fn bus(&self) -> Arc<dyn Bus> {
        self.gateway.bus.clone()
    }

    fn sink(&self) -> Arc<Recorder> {
        self.gateway.sink.clone()
    }
}

/// Publishes from a thread of its own, as the threads that write to sockets do, and again when the way is full.
async fn publish_all(bus: &Arc<dyn Bus>, room: &Arc<Room>, messages: Vec<(Kind, Vec<u8>)>) {
    let (bus, room) = (Arc::clone(bus), Arc::clone(room));
    let publishing = tokio::task::spawn_blocking(move || {
        for (kind, payload) in messages {
            loop {
                match bus.publish(&room, kind, &payload, None) {
                    Ok(()) => break,
                    Err(PublishError::Full) => std::thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    within("everything is published", publishing).await.unwrap();
}

async fn messages_arrive_as_they_were_sent<H: Harness>() {
    let harness = H::start().await;
    let (bus, sink) = (harness.bus(), harness.sink());
    let (lobby, other) = (room("demo/lobby"), room("demo/other"));
    within("joining", bus.join(&lobby)).await;
    within("joining", bus.join(&other)).await;
    let sent = vec![
        (Kind::Text, "hello".into()),
        (Kind::Text, Vec::new()),
        (Kind::Binary, Vec::new()),
        (Kind::Text, "grüße, 世界 🦀".into()),
        (Kind::Binary, b"plain bytes that are text as well".to_vec()),
        (Kind::Binary, (0..=255).collect()),
        (Kind::Binary, vec![0xff; 64 * 1024]),
        (Kind::Text, vec![b'x'; 64 * 1024]),
    ];
    publish_all(&bus, &lobby, sent.clone()).await;
    publish_all(&bus, &other, vec![(Kind::Text, b"elsewhere".to_vec())]).await;
    eventually("all arrive", || sink.count(&lobby) == sent.len() && sink.count(&other) == 1).await;
    assert_eq!(sink.got(&lobby), sent);
    assert_eq!(sink.texts(&other), ["elsewhere"]);
}

async fn one_publishers_order_is_kept<H: Harness>() {
    let harness = H::start().await;
    let (bus, sink) = (harness.bus(), harness.sink());
    let lobby = room("demo/lobby");
    within("joining", bus.join(&lobby)).await;
    let number = |publisher: usize, n: usize| format!("{publisher}:{n:05}").into_bytes();
    let publishers = (0..4).map(|publisher| {
        let messages = (0..2_000).map(|n| (Kind::Text, number(publisher, n))).collect();
        publish_all(&bus, &lobby, messages)
    });
    futures_util::future::join_all(publishers).await;
    eventually("all arrive", || sink.count(&lobby) == 8_000).await;
    let texts = sink.texts(&lobby);
    for publisher in 0..4 {
        let prefix = format!("{publisher}:");
        let own: Vec<_> = texts.iter().filter(|text| text.starts_with(&prefix)).collect();
        assert_eq!(own.len(), 2_000);
        assert!(own.is_sorted(), "messages of one publisher changed places");
    }
}

async fn a_sink_without_room_holds_back_and_loses_nothing<H: Harness>() {
    let harness = H::start().await;
    let (bus, sink) = (harness.bus(), harness.sink());
    let (lobby, other) = (room("demo/lobby"), room("demo/other"));
    within("joining", bus.join(&lobby)).await;
    within("joining", bus.join(&other)).await;
    sink.close(&lobby);
    let messages = (0..3_000).map(|n| (Kind::Text, format!("{n:05}").into_bytes())).collect();
    let publishing = publish_all(&bus, &lobby, messages);
    let relieved = async {
        for n in 0..100 {
            publish_all(&bus, &other, vec![(Kind::Text, b"meanwhile".to_vec())]).await;
            eventually("the other room goes on", || sink.count(&other) == n + 1).await;
            assert_eq!(sink.count(&lobby), 0, "nothing is delivered where there is no room");
        }
        sink.open(&lobby);
    };
    tokio::join!(publishing, relieved);
    eventually("all arrive", || sink.count(&lobby) == 3_000).await;
    assert!(sink.texts(&lobby).is_sorted());
}

async fn many_join_at_once_and_nobody_misses_what_comes_after<H: Harness>() {
    let harness = H::start().await;
    let (bus, sink) = (harness.bus(), harness.sink());
    let lobby = room("demo/lobby");
    let joins = (0..200).map(|n| {
        let (bus, lobby) = (bus.clone(), lobby.clone());
        async move {
            assert!(lobby.reserve(u64::MAX));
            bus.join(&lobby).await;
            publish_all(&bus, &lobby, vec![(Kind::Text, format!("{n:03}").into_bytes())]).await;
        }
    });
    within("joining", futures_util::future::join_all(joins)).await;
    eventually("all arrive", || sink.count(&lobby) == 200).await;
    let mut texts = sink.texts(&lobby);
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), 200, "each arrives once");
}

async fn members_come_and_go<H: Harness>() {
    let harness = H::start().await;
    let (bus, sink) = (harness.bus(), harness.sink());
    let lobby = room("demo/lobby");
    for n in 0..50 {
        within("joining", bus.join(&lobby)).await;
        publish_all(&bus, &lobby, vec![(Kind::Text, format!("{n:02}").into_bytes())]).await;
        eventually("it arrives", || sink.count(&lobby) == n + 1).await;
        assert!(lobby.release(), "the only member leaves");
        bus.leave(&lobby);
        assert!(lobby.reserve(u64::MAX), "and the next one enters");
    }
    let want: Vec<_> = (0..50).map(|n| format!("{n:02}")).collect();
    assert_eq!(sink.texts(&lobby), want, "each arrived once");
}

async fn flushing_tells_that_all_is_out<H: Harness>() {
    let harness = H::start().await;
    let bus = harness.bus();
    let lobby = room("demo/lobby");
    publish_all(&bus, &lobby, vec![(Kind::Text, b"last words".to_vec()); 100]).await;
    assert!(bus.flush(GIVE_UP).await);
    assert_eq!(bus.state(), BusState::Connected);
}

macro_rules! suite {
    ($($case:ident),* $(,)?) => {
        mod local_bus {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case::<super::Local>().await })*
        }
        mod nats_bus {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case::<super::Nats<1>>().await })*
        }
        mod nats_bus_of_three_connections {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case::<super::Nats<3>>().await })*
        }
    };
}

suite!(
    messages_arrive_as_they_were_sent,
    one_publishers_order_is_kept,
    a_sink_without_room_holds_back_and_loses_nothing,
    many_join_at_once_and_nobody_misses_what_comes_after,
    members_come_and_go,
    flushing_tells_that_all_is_out,
);
