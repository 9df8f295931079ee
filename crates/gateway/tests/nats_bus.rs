//! What the bus over NATS promises beside the suite: subscriptions only where members are, and other programs' messages.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod support;

use std::{sync::Arc, time::Duration};

use hubbub_api::names::HEADER_OPCODE;
use hubbub_gateway::{
    bus::{Bus as _, BusState, PublishError, nats::NatsOptions},
    events::bus::{DroppedBecause, LostBecause},
};
use hubbub_testkit::{NatsServer, eventually, within};
use hubbub_websocket::Kind;
use support::{NatsGateway, room};

async fn gateway(server: &NatsServer, name: &str) -> NatsGateway {
    let gateway = NatsGateway::connect(&NatsOptions::new(server.url(), name)).await;
    eventually("the bus is connected", || gateway.bus.state() == BusState::Connected).await;
    gateway
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_serve_one_room() {
    let server = NatsServer::start().await;
    let (one, two) = (gateway(&server, "one").await, gateway(&server, "two").await);
    let (lobby, its_lobby) = (room("demo/lobby"), room("demo/lobby"));
    within("joining", one.bus.join(&lobby)).await;
    within("joining", two.bus.join(&its_lobby)).await;
    one.bus.publish(&lobby, Kind::Text, b"hello", None).unwrap();
    eventually("the other hears it", || two.sink.count(&its_lobby) == 1).await;
    two.bus.publish(&its_lobby, Kind::Binary, b"\x00\xff", None).unwrap();
    let want = [(Kind::Text, b"hello".to_vec()), (Kind::Binary, b"\x00\xff".to_vec())];
    eventually("both hear both", || {
        one.sink.got(&lobby) == want && two.sink.got(&its_lobby) == want
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_is_subscribed_to_only_while_it_has_members() {
    let server = NatsServer::start().await;
    let one = gateway(&server, "one").await;
    let lobby = room("demo/lobby");
    let client = server.client().await;
    // The server answers a request without a subscriber at once: so it is asked who listens.
    let listened = async || {
        let asked = client.request(lobby.subject().to_owned(), "?".into());
        match tokio::time::timeout(Duration::from_millis(200), asked).await {
            Ok(Err(error)) if error.kind() == nats::RequestErrorKind::NoResponders => false,
            Ok(other) => panic!("{other:?}"),
            Err(_) => true,
        }
    };
    assert!(!listened().await);
    within("joining", one.bus.join(&lobby)).await;
    assert!(listened().await, "the subscription stands once joining is done");
    assert_eq!(one.events.subscription_count(), 1);

    assert!(lobby.reserve(u64::MAX), "a second member enters");
    within("joining", one.bus.join(&lobby)).await;
    assert!(!lobby.release());
    one.bus.leave(&lobby);
    assert!(listened().await, "the room is not empty yet");

    assert!(lobby.release());
    one.bus.leave(&lobby);
    assert_eq!(one.events.subscription_count(), 0);
    while listened().await {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_and_leaving_at_once_from_many_threads_ends_right() {
    let server = NatsServer::start().await;
    let one = gateway(&server, "one").await;
    let lobby = room("demo/lobby");
    assert!(lobby.release());
    let runtime = tokio::runtime::Handle::current();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (bus, lobby, runtime) = (one.bus.clone(), lobby.clone(), runtime.clone());
            std::thread::spawn(move || {
                for _ in 0..50 {
                    assert!(lobby.reserve(u64::MAX));
                    runtime.block_on(bus.join(&lobby));
                    if lobby.release() {
                        bus.leave(&lobby);
                    }
                }
            })
        })
        .collect();
    let ended = tokio::task::spawn_blocking(|| {
        for thread in threads {
            thread.join().unwrap();
        }
    });
    within("the threads end", ended).await.unwrap();
    assert_eq!(one.events.subscription_count(), 0, "nobody is left, so nothing is subscribed");
    assert!(lobby.reserve(u64::MAX));
    within("joining", one.bus.join(&lobby)).await;
    for n in 0..10 {
        one.bus.publish(&lobby, Kind::Text, format!("{n}").as_bytes(), None).unwrap();
    }
    assert!(one.bus.flush(Duration::from_secs(60)).await);
    eventually("all arrive", || one.sink.count(&lobby) >= 10).await;
    assert_eq!(one.sink.texts(&lobby), (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_programs_speak_in_a_room_and_cannot_break_it() {
    let server = NatsServer::start().await;
    let one = gateway(&server, "one").await;
    let lobby = room("demo/lobby");
    within("joining", one.bus.join(&lobby)).await;
    let client = server.client().await;
    let subject = lobby.subject().to_owned();
    let with = |opcode: &str| {
        let mut headers = nats::HeaderMap::new();
        headers.insert(HEADER_OPCODE, opcode);
        headers
    };
    client.publish(subject.clone(), "hi".into()).await.unwrap();
    client.publish(subject.clone(), b"\xff\xfe"[..].into()).await.unwrap();
    client.publish(subject.clone(), vec![b'x'; 64 * 1024 + 1].into()).await.unwrap();
    let texts = [("text", &b"\xff"[..]), ("close", b"bye"), ("text", b"typed"), ("binary", b"raw")];
    for (opcode, payload) in texts {
        client.publish_with_headers(subject.clone(), with(opcode), payload.into()).await.unwrap();
    }
    let want = [
        (Kind::Text, b"hi".to_vec()),
        (Kind::Binary, b"\xff\xfe".to_vec()),
        (Kind::Text, b"typed".to_vec()),
        (Kind::Binary, b"raw".to_vec()),
    ];
    eventually("what can be delivered is", || one.sink.got(&lobby) == want).await;
    assert_eq!(one.events.dropped_count(DroppedBecause::Malformed), 2);
    assert_eq!(one.events.dropped_count(DroppedBecause::TooLarge), 1);
    assert_eq!(one.events.received_count(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_larger_than_nats_takes_is_refused() {
    let server = NatsServer::start().await;
    let one = gateway(&server, "one").await;
    let lobby = room("demo/lobby");
    let mib = 1024 * 1024;
    let sent = one.bus.publish(&lobby, Kind::Text, &vec![b'x'; mib + 1], None);
    assert_eq!(sent, Err(PublishError::TooLarge(mib)));
    assert_eq!(one.bus.publish(&lobby, Kind::Text, &vec![b'x'; mib], None), Ok(()));
    // The header of a binary message counts as well: 35 bytes.
    assert_eq!(one.bus.publish(&lobby, Kind::Binary, &vec![b'x'; mib - 35], None), Ok(()));
    let sent = one.bus.publish(&lobby, Kind::Binary, &vec![b'x'; mib - 34], None);
    assert_eq!(sent, Err(PublishError::TooLarge(mib)));
    assert_eq!(one.events.lost_count(LostBecause::TooLarge), 2);
    assert!(one.bus.flush(Duration::from_secs(60)).await, "the connection did not break");
    assert_eq!(one.events.connect_count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_way_is_told_to_the_sender_and_nothing_is_lost() {
    let server = NatsServer::start().await;
    let one = gateway(&server, "one").await;
    let lobby = room("demo/lobby");
    let bus = one.bus.clone();
    within("joining", bus.join(&lobby)).await;
    // A frozen server takes nothing; until that is noticed, the way fills up.
    server.pause();
    let big = vec![b'x'; 64 * 1024];
    let mut taken = 0;
    while bus.publish(&lobby, Kind::Text, &big, None) == Ok(()) {
        taken += 1;
        assert!(taken < 10_000, "the way must fill up");
    }
    assert_eq!(bus.publish(&lobby, Kind::Text, &big, None), Err(PublishError::Full));
    assert_eq!(one.events.lost_count(LostBecause::Away), 0);
    server.resume();
    eventually("all that was taken arrives", || one.sink.count(&lobby) == taken).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_is_stopped_ends_its_tasks() {
    let server = NatsServer::start().await;
    let one = gateway(&server, "one").await;
    let rooms: Vec<Arc<_>> = (0..100).map(|n| room(&format!("demo/r{n}"))).collect();
    for room in &rooms {
        within("joining", one.bus.join(room)).await;
    }
    one.tasks.close();
    one.stop.cancel();
    within("its tasks end", one.tasks.wait()).await;
    assert_eq!(one.events.subscription_count(), 0);
}
