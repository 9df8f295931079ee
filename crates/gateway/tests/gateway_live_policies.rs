//! The rooms file changed under open connections of the real program.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::os::unix::fs::symlink;

use hubbub_api::{RoomPolicy, names::BUCKET, parse_rooms};
use hubbub_testkit::{
    Client, GatewayProcess, Member, NatsServer, Received, RoomsFile, chat_room, eventually, http,
    within,
};
use nats::jetstream::{self, kv};

const GATEWAY: &str = env!("CARGO_BIN_EXE_hubbub-gateway");
const LOBBY: &str = "/rooms/demo/lobby";
const OTHER: &str = "/rooms/demo/other";
const A: Option<&str> = Some("https://a.example.com");
const B: Option<&str> = Some("https://b.example.com");
const BOTH: &str = "allowedOrigins: ['https://a.example.com', 'https://b.example.com']";

async fn start(text: &str) -> (RoomsFile, GatewayProcess) {
    let file = RoomsFile::of_text(text);
    let gateway = GatewayProcess::start(GATEWAY, &file.flags(&[])).await;
    (file, gateway)
}

async fn member(gateway: &GatewayProcess, path: &str, origin: Option<&str>) -> Member {
    Member::join(gateway.listen(), path, origin).await.expect("the room admits this origin")
}

/// Waits until the gateway has taken in this many changes of the file.
async fn changes(gateway: &GatewayProcess, wanted: usize) {
    // The first line tells of the start.
    eventually("the change is in force", || gateway.find_all("rooms declared").len() > wanted)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_is_added_is_served_and_one_that_is_removed_closes_with_4404() {
    let (file, gateway) = start(&chat_room("lobby", BOTH)).await;
    let stays = member(&gateway, LOBBY, A).await;
    assert_eq!(Client::join(gateway.listen(), OTHER, A).await.expect_err("unknown").status, 404);

    file.replace(&(chat_room("lobby", BOTH) + &chat_room("other", BOTH)));
    changes(&gateway, 1).await;
    let leaves = member(&gateway, OTHER, A).await;
    leaves.send("hello").await;
    leaves.hears("hello").await;

    file.replace(&chat_room("lobby", BOTH));
    assert_eq!(leaves.ended().await, Some(4404));
    assert_eq!(Client::join(gateway.listen(), OTHER, A).await.expect_err("gone").status, 404);
    stays.send("still here").await;
    stays.hears("still here").await;
    assert!(!stays.has_ended());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_is_taken_out_closes_its_members_alone_with_4403() {
    let (file, gateway) = start(&chat_room("lobby", BOTH)).await;
    let (stays, listens) = (member(&gateway, LOBBY, A).await, member(&gateway, LOBBY, A).await);
    let (out, too) = (member(&gateway, LOBBY, B).await, member(&gateway, LOBBY, B).await);
    stays.send("1").await;
    out.hears("1").await;

    file.replace(&chat_room("lobby", "allowedOrigins: ['https://a.example.com']"));
    assert_eq!(out.ended().await, Some(4403));
    assert_eq!(too.ended().await, Some(4403));
    let refused = Client::join(gateway.listen(), LOBBY, B).await.expect_err("out");
    assert_eq!(refused.status, 403);
    stays.send("2").await;
    listens.hears("2").await;
    assert_eq!(listens.texts(), ["1", "2"], "nothing missed and nothing twice");
    assert_eq!(gateway.find("connection ended unexpectedly"), None, "an operator asked for it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_without_an_origin_leave_when_one_is_required() {
    let free = "allowedOrigins: ['https://a.example.com'], requireOrigin: false";
    let (file, gateway) = start(&chat_room("lobby", free)).await;
    let (program, page) = (member(&gateway, LOBBY, None).await, member(&gateway, LOBBY, A).await);
    file.replace(&chat_room("lobby", "allowedOrigins: ['https://a.example.com']"));
    assert_eq!(program.ended().await, Some(4403));
    page.send("here").await;
    page.hears("here").await;
}

/// What a client meets whose room is given to another pool; another room's member notices nothing.
async fn is_told_to_go(gateway: &GatewayProcess, mut moved: Client, stays: &Member) {
    let Received::Close(Some((code, reason))) = moved.next_message().await else {
        panic!("a close frame is owed");
    };
    assert_eq!(code, 1012, "{reason}");
    assert!(reason.contains("another gateway"), "{reason}");
    let refused = Client::join(gateway.listen(), LOBBY, A).await.expect_err("served elsewhere");
    assert_eq!(refused.status, 421);
    assert!(refused.body.contains("elsewhere"), "the pool is named: {}", refused.body);
    stays.send("still here").await;
    stays.hears("still here").await;
    assert_eq!(gateway.find("connection ended unexpectedly"), None, "an operator asked for it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_given_to_another_pool_sends_its_members_there_with_1012() {
    let other = chat_room("other", BOTH);
    let (file, gateway) = start(&(chat_room("lobby", BOTH) + &other)).await;
    let moved = Client::join(gateway.listen(), LOBBY, A).await.expect("served");
    let stays = member(&gateway, OTHER, A).await;
    let elsewhere = chat_room("lobby", &format!("{BOTH}, gateways: {{pool: elsewhere}}"));
    file.replace(&(elsewhere + &other));
    is_told_to_go(&gateway, moved, &stays).await;
    // And back.
    file.replace(&(chat_room("lobby", BOTH) + &other));
    changes(&gateway, 2).await;
    member(&gateway, LOBBY, A).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_given_to_another_pool_in_the_bucket_sends_its_members_there_too() {
    let server = NatsServer::start().await;
    let config = kv::Config { bucket: BUCKET.to_owned(), ..Default::default() };
    let context = jetstream::new(server.client().await);
    let store = context.create_key_value(config).await.unwrap();
    let declared = parse_rooms(&(chat_room("lobby", BOTH) + &chat_room("other", BOTH))).unwrap();
    let policies = declared.iter().map(|room| RoomPolicy::from_chat_room(room).unwrap());
    let policies: Vec<RoomPolicy> = policies.collect();
    let put = async |policy: &RoomPolicy| {
        store.put(policy.room.policy_key(), policy.to_json().unwrap().into()).await.unwrap()
    };
    for policy in &policies {
        put(policy).await;
    }
    let gateway = GatewayProcess::start(GATEWAY, &["--nats", &server.url()]).await;
    assert_eq!(gateway.find("serving").expect("it serves")["bus"], server.url());
    eventually("the bucket is followed", || gateway.find("following the policies").is_some()).await;
    let moved = Client::join(gateway.listen(), LOBBY, A).await.expect("served");
    let stays = member(&gateway, OTHER, A).await;
    put(&RoomPolicy { pool: "elsewhere".to_owned(), ..policies[0].clone() }).await;
    is_told_to_go(&gateway, moved, &stays).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_smaller_message_limit_holds_for_open_connections() {
    let (file, gateway) = start(&chat_room("lobby", BOTH)).await;
    let mut large = Client::join(gateway.listen(), LOBBY, A).await.expect("served");
    let stays = member(&gateway, LOBBY, A).await;
    let text = "x".repeat(300);
    large.send(&text).await.unwrap();
    assert_eq!(large.next_message().await, Received::Text(text.clone()));
    file.replace(&chat_room("lobby", &format!("{BOTH}, limits: {{maxMessageBytes: 200}}")));
    changes(&gateway, 1).await;
    large.send(&text).await.unwrap();
    let told = "the message is larger than the 200 bytes that the room takes".to_owned();
    assert_eq!(large.next_message().await, Received::Close(Some((1009, told))));
    stays.send("short").await;
    stays.hears("short").await;
    assert_eq!(stays.count(), 2, "the message over the limit reached nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_faster_heartbeat_and_a_shorter_pong_wait_hold_for_open_connections() {
    let slow = format!("{BOTH}, heartbeat: {{pongWait: 1h, pingPeriod: 59m}}");
    let (file, gateway) = start(&chat_room("lobby", &slow)).await;
    let pinged = member(&gateway, LOBBY, A).await;
    let mut silent = Client::join(gateway.listen(), LOBBY, A).await.expect("served");
    file.replace(&chat_room(
        "lobby",
        &format!("{BOTH}, heartbeat: {{pongWait: 3s, pingPeriod: 200ms}}"),
    ));
    // By what was declared first nothing comes for half an hour.
    eventually("pings come", || pinged.pings() >= 3).await;
    let code = within("the silent one is out", async {
        loop {
            match silent.receive().await {
                Received::Close(close) => return close.map(|(code, _)| code),
                Received::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
    assert_eq!(code, Some(1013));
    assert!(!pinged.has_ended());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shorter_queue_holds_for_a_member_that_is_slow_already() {
    let spec = |queue: usize| {
        format!(
            "{BOTH}, limits: {{sendQueue: {queue}, maxMessageBytes: 20000, messagesPerSecond: 100000, burst: 100000}}"
        )
    };
    let (file, gateway) = start(&chat_room("lobby", &spec(1000))).await;
    let mut slow = Client::join(gateway.listen(), LOBBY, A).await.expect("served");
    let quick = member(&gateway, LOBBY, A).await;
    let queued = "hubbub_gateway_deliveries_total{path=\"queued\"}";
    let mut sent = 0;
    while gateway.metric(queued).await < 5.0 {
        sent += 1;
        quick.send(&"x".repeat(10_000)).await;
        eventually("it is heard", || quick.count() == sent).await;
    }
    file.replace(&chat_room("lobby", &spec(2)));
    changes(&gateway, 1).await;
    quick.send("one more").await;
    // Not before: a member that reads is slow no longer.
    quick.hears("one more").await;
    let code = within("the slow one is out", slow.close_code()).await;
    assert_eq!(code, Some(1013));
    assert!(!quick.has_ended());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_is_refused_as_a_whole_and_the_last_good_one_stays_in_force() {
    let (file, gateway) = start(&chat_room("lobby", BOTH)).await;
    let (a, b) = (member(&gateway, LOBBY, A).await, member(&gateway, LOBBY, B).await);
    // The first document is good and would send b away; the second is not.
    file.replace(
        &(chat_room("lobby", "allowedOrigins: ['https://a.example.com']")
            + &chat_room("other", "allowedOrigins: ['*'], limits: {burst: 0}")),
    );
    let refused = "the files of rooms are refused; the rooms stay as they were";
    eventually("the refusal is told", || gateway.find(refused).is_some()).await;
    // The second document's spec is the ninth line.
    let place = format!("{}:9: spec.limits.burst:", file.path().display());
    let told = gateway.log();
    let line = told.iter().find(|line| line.contains(&place));
    let line = line.unwrap_or_else(|| panic!("{place} in {}", told.join("\n")));
    assert!(line.contains("1 to 1000000"), "what is right is said: {line}");
    let ready = http::get(gateway.admin(), "/readyz").await;
    assert_eq!(ready.status, 200, "the last good file is in force: {}", ready.body);
    assert!(ready.body.contains(&place), "{}", ready.body);
    assert_eq!(gateway.metric("hubbub_gateway_policy_faults").await, 1.0);
    assert_eq!(Client::join(gateway.listen(), OTHER, A).await.expect_err("refused").status, 404);
    b.send("still here").await;
    a.hears("still here").await;
    assert!(!b.has_ended());
    assert_eq!(gateway.find_all(refused).len(), 1, "told once, not each time it is read");

    file.replace(&chat_room("lobby", "allowedOrigins: ['https://a.example.com']"));
    assert_eq!(b.ended().await, Some(4403), "the next good file is taken");
    let ready = http::get(gateway.admin(), "/readyz").await;
    assert!(!ready.body.contains("[!]"), "{}", ready.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_missing_for_a_while_changes_nothing() {
    let text = chat_room("lobby", BOTH);
    let (file, gateway) = start(&text).await;
    let a = member(&gateway, LOBBY, A).await;
    std::fs::remove_file(file.path()).unwrap();
    within("the fault is shown", async {
        while !http::get(gateway.admin(), "/readyz").await.body.contains("rooms.yaml") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    file.overwrite(&text);
    within("the fault is gone", async {
        while http::get(gateway.admin(), "/readyz").await.body.contains("rooms.yaml") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    a.send("still here").await;
    a.hears("still here").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swapped_symlink_is_a_change_as_a_config_map_makes_it() {
    let directory = tempfile::tempdir().unwrap();
    let inside = |name: &str| directory.path().join(name);
    for (version, origin) in [("v1", "https://b.example.com"), ("v2", "https://a.example.com")] {
        std::fs::create_dir(inside(version)).unwrap();
        let text = chat_room("lobby", &format!("allowedOrigins: ['{origin}']"));
        std::fs::write(inside(version).join("rooms.yaml"), text).unwrap();
    }
    symlink("v1", inside("..data")).unwrap();
    symlink("..data/rooms.yaml", inside("rooms.yaml")).unwrap();
    let path = inside("rooms.yaml");
    let gateway = GatewayProcess::start(GATEWAY, &["--rooms".as_ref(), path.as_os_str()]).await;
    let b = member(&gateway, LOBBY, B).await;
    symlink("v2", inside("..data_tmp")).unwrap();
    std::fs::rename(inside("..data_tmp"), inside("..data")).unwrap();
    assert_eq!(b.ended().await, Some(4403));
    member(&gateway, LOBBY, A).await;
}
