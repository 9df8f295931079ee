//! Messages through the real program: byte for byte, to all, in order, and nothing missed by who has joined.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use hubbub_testkit::{Client, GatewayProcess, Member, OPEN, Received, RoomsFile, eventually};
use hubbub_websocket::Opcode;
use tokio::task::JoinSet;

const GATEWAY: &str = env!("CARGO_BIN_EXE_hubbub-gateway");
const LOBBY: &str = "/rooms/demo/lobby";

async fn open_room() -> (RoomsFile, GatewayProcess) {
    let file = RoomsFile::lobby(OPEN);
    let gateway = GatewayProcess::start(GATEWAY, &file.flags(&[])).await;
    (file, gateway)
}

async fn join(gateway: &GatewayProcess) -> Client {
    Client::join(gateway.listen(), LOBBY, None).await.expect("the room is served")
}

/// What a sender sends: its number in front, so that its messages can be told from the others'.
fn messages_of(sender: u8) -> Vec<Received> {
    let text = |text: String| Received::Text(text);
    let mut messages = vec![text(format!("{sender}"))];
    // The lengths at which the frame header changes, and the largest that the room takes.
    for length in [2, 124, 125, 126, 127, 4_096, 65_535, 65_536] {
        let bytes = (0..length).map(|n| (n * 31 + usize::from(sender)) as u8);
        let mut bytes: Vec<u8> = bytes.collect();
        bytes[0] = sender + b'0';
        messages.push(Received::Binary(bytes));
        messages.push(text(format!("{sender}{}", "x".repeat(length - 1))));
    }
    messages.push(text(format!("{sender} \0 \u{7f} é € 𝄞 \u{10ffff} \r\n")));
    for n in 0..20 {
        messages.push(text(format!("{sender} {n}")));
    }
    messages
}

fn sender_of(message: &Received) -> u8 {
    let first = match message {
        Received::Text(text) => text.as_bytes()[0],
        Received::Binary(bytes) => bytes[0],
        other => panic!("{other:?}"),
    };
    first - b'0'
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_gets_every_message_byte_for_byte_and_in_its_senders_order() {
    let (_file, gateway) = open_room().await;
    let mut members = Vec::new();
    for _ in 0..4 {
        members.push(Arc::new(Member::of(join(&gateway).await)));
    }
    let mut sending = JoinSet::new();
    for (sender, member) in members.iter().take(3).enumerate() {
        let member = Arc::clone(member);
        sending.spawn(async move {
            for message in messages_of(sender as u8) {
                match message {
                    Received::Text(text) => member.send(&text).await,
                    Received::Binary(bytes) => member.send_frame(Opcode::Binary, &bytes).await,
                    other => panic!("{other:?}"),
                }
            }
        });
    }
    sending.join_all().await;
    let total: usize = (0..3).map(|sender| messages_of(sender).len()).sum();
    for member in &members {
        eventually("all messages have come", || member.count() >= total || member.has_ended())
            .await;
        let got = member.messages();
        assert_eq!(got.len(), total, "each message once");
        for sender in 0..3 {
            let from_it: Vec<_> = got.iter().filter(|m| sender_of(m) == sender).cloned().collect();
            assert!(
                from_it == messages_of(sender),
                "the messages of {sender}, unchanged, in order"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_message_is_a_message() {
    let (_file, gateway) = open_room().await;
    let mut one = join(&gateway).await;
    one.send("").await.unwrap();
    one.send_frame(true, Opcode::Binary, b"").await.unwrap();
    assert_eq!(one.next_message().await, Received::Text(String::new()));
    assert_eq!(one.next_message().await, Received::Binary(Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_in_fragments_arrives_whole_and_a_ping_between_them_is_answered_first() {
    let (_file, gateway) = open_room().await;
    let (mut one, mut two) = (join(&gateway).await, join(&gateway).await);
    let text = "naïve €";
    // Cut inside a character.
    let (head, tail) = text.as_bytes().split_at(3);
    one.send_frame(false, Opcode::Text, head).await.unwrap();
    one.send_frame(true, Opcode::Ping, b"there?").await.unwrap();
    assert_eq!(one.next().await, Received::Pong(b"there?".to_vec()));
    // Others are not held up by a message that is under way.
    two.send("between").await.unwrap();
    assert_eq!(two.next_message().await, Received::Text("between".to_owned()));
    assert_eq!(one.next_message().await, Received::Text("between".to_owned()));
    one.send_frame(false, Opcode::Continuation, b"").await.unwrap();
    one.send_frame(true, Opcode::Continuation, tail).await.unwrap();
    for client in [&mut one, &mut two] {
        assert_eq!(client.next_message().await, Received::Text(text.to_owned()));
    }
}

/// Joins while somebody sends numbers without a break; returns the numbers that came, and the highest that may have
/// been sent before the handshake was answered.
async fn joins_while_numbers_are_sent(
    gateway: std::net::SocketAddr,
    begun: Arc<AtomicUsize>,
) -> (Member, usize) {
    let client = Client::join(gateway, LOBBY, None).await.expect("the room is served");
    let before = begun.load(Ordering::SeqCst);
    (Member::of(client), before)
}

fn assert_nothing_missed(member: &Member, before: usize, last: usize) {
    let got: Vec<usize> = member.texts().iter().map(|text| text.parse().unwrap()).collect();
    let first = *got.first().expect("something came");
    assert!(first <= before + 1, "{} was sent after the 101, and {first} came first", before + 1);
    assert!(got.iter().copied().eq(first..=last), "no gap and nothing twice: {got:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_joined_misses_nothing_that_is_sent_after() {
    // More than one shard keeps together.
    const JOINS: usize = 200;
    let (_file, gateway) = open_room().await;
    let listen = gateway.listen();
    let (begun, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut publisher = join(&gateway).await;
    let mut publishing = JoinSet::new();
    {
        let (begun, enough) = (Arc::clone(&begun), Arc::clone(&enough));
        publishing.spawn(async move {
            loop {
                let last = enough.load(Ordering::SeqCst);
                let number = begun.fetch_add(1, Ordering::SeqCst) + 1;
                publisher.send(&number.to_string()).await.expect("it stays");
                // Its own copy sets the pace, so that nobody falls behind.
                assert_eq!(publisher.next_message().await, Received::Text(number.to_string()));
                if last {
                    return number;
                }
            }
        });
    }
    let mut joining = JoinSet::new();
    let mut joined = Vec::new();
    for _ in 0..JOINS {
        if joining.len() == 8 {
            joined.push(joining.join_next().await.expect("one is under way").expect("it joins"));
        }
        joining.spawn(joins_while_numbers_are_sent(listen, Arc::clone(&begun)));
    }
    joined.extend(joining.join_all().await);
    enough.store(true, Ordering::SeqCst);
    let last = publishing.join_next().await.expect("it runs").expect("it ends");
    for (member, before) in &joined {
        member.hears(&last.to_string()).await;
        assert_nothing_missed(member, *before, last);
    }
}
