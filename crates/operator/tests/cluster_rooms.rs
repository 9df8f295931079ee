//! Rooms on a real API server, with real NATS and gateways started by hand: what is declared is served, and what is told is
//! true.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use hubbub_testkit::{Controllers, Member, eventually};
use serde_json::json;
use support::{DEMO, Place, World, because, condition, is, pausing, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_room_is_served_and_its_status_tells_the_truth() {
    let world = Place::open(Controllers::Off).await;
    let operator = world.operator().await;
    world.room("lobby", "default").await;
    until("the pool has all its objects", async || world.objects("default").await.len() == 5).await;
    let status = world
        .status_until("lobby", "nobody serves it", |s| because(s, "Programmed", "NoGateways"))
        .await;
    assert!(is(&status, "Accepted", "True"), "gateway trouble never turns Accepted: {status:#?}");
    assert!(is(&status, "Ready", "False"));
    assert_eq!(status.path, world.path("lobby"));

    let first = world.gateway("first", "default").await;
    let mut second = world.gateway("second", "default").await;
    let both =
        |s: &hubbub_api::kubernetes::ChatRoomStatus| s.gateways.is_some_and(|g| g.programmed == 2);
    let status = world.status_until("lobby", "both run it", both).await;
    assert!(is(&status, "Ready", "True"), "{status:#?}");
    assert_eq!(status.gateways.unwrap().ready, 2);
    assert_eq!(status.observed_generation, Some(1));

    let alice = Member::join(first.listen(), &world.path("lobby"), None).await.unwrap();
    let bob = Member::join(second.listen(), &world.path("lobby"), None).await.unwrap();
    alice.send("hello").await;
    eventually("bob hears alice through the other gateway", || {
        bob.texts().contains(&"hello".to_owned())
    })
    .await;
    world.status_until("lobby", "two members are told", |s| s.connections == Some(2)).await;

    let table = world.kubectl().run(&["get", "room", "-n", &world.demo]).await;
    let head: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["NAME", "READY", "POOL", "GATEWAYS", "CONNECTIONS", "AGE"], "{table}");
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..5], ["lobby", "True", "default", "2", "2"], "{table}");
    let events = world.kubectl().run(&["get", "events", "-n", &world.demo]).await;
    assert!(events.contains("Ready") && events.contains("NoGateways"), "{events}");

    // A change of the spec is programmed again, under its own generation.
    world.patch_room("lobby", json!({"spec": {"limits": {"maxMessageBytes": 64}}})).await;
    let told = |s: &hubbub_api::kubernetes::ChatRoomStatus| {
        s.observed_generation == Some(2) && is(s, "Programmed", "True")
    };
    let status = world.status_until("lobby", "generation 2 is programmed", told).await;
    assert_eq!(condition(&status, "Programmed").unwrap().observed_generation, Some(2));
    assert_eq!(world.policy("lobby").await.unwrap().limits.max_message_bytes, 64);

    drop(first);
    second.terminate();
    second.ended().await;
    world.status_until("lobby", "nobody serves it", |s| because(s, "Ready", "NoGateways")).await;

    world.delete_room("lobby").await;
    until("the room is gone", async || world.rooms().get_opt("lobby").await.unwrap().is_none())
        .await;
    assert!(world.policy("lobby").await.is_none(), "its policy has left NATS before");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_are_counted_as_they_are_from_the_first_status_to_the_last() {
    let world = Place::open(Controllers::Off).await;
    let operator = world.operator().await;
    let first = world.gateway("first", "default").await;
    let _second = world.gateway("second", "default").await;
    until("both have been heard for some time", async || operator.events.reports() >= 10).await;

    // The bucket is empty, so they report that they have applied nothing.
    world.room("lobby", "default").await;
    let counted = |s: &hubbub_api::kubernetes::ChatRoomStatus| s.gateways.is_some();
    let status = world.status_until("lobby", "something is told", counted).await;
    assert!(is(&status, "Ready", "True"), "{status:#?}");
    assert_eq!(status.gateways.unwrap().ready, 2, "{status:#?}");
    let events = world.kubectl().run(&["get", "events", "-n", &world.demo]).await;
    assert!(events.contains("Ready") && !events.contains("Warning"), "{events}");

    // A new leader that finds no status.
    operator.kill().await;
    let none =
        ["patch", "room", "lobby", "-n", &world.demo, "--subresource=status", "--type=merge"];
    world.kubectl().run(&[&none[..], &["--patch", r#"{"status": null}"#]].concat()).await;
    let operator = world.operator().await;
    let status = world.status_until("lobby", "something is told", counted).await;
    assert_eq!(status.gateways.unwrap().ready, 2, "{status:#?}");

    drop(first);
    let begun = std::time::Instant::now();
    world
        .status_until("lobby", "one is told to be gone", |s| {
            s.gateways.as_ref().is_some_and(|counts| counts.ready == 1) && is(s, "Ready", "True")
        })
        .await;
    println!("told {:.1?} after a gateway was killed", begun.elapsed());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_room_stays_as_it_is_and_says_so() {
    let world = Place::open(Controllers::Off).await;
    let operator = world.operator().await;
    let _gateway = world.gateway("first", "default").await;
    world.room("lobby", "default").await;
    world.ready("lobby").await;
    world.patch_room("lobby", pausing(Some("true"))).await;
    world.status_until("lobby", "it is paused", |s| is(s, "Paused", "True")).await;

    world.patch_room("lobby", json!({"spec": {"limits": {"burst": 7}}})).await;
    // A room that is declared later is served before, so the paused one has been passed over.
    world.room("later", "default").await;
    let status = world.ready("later").await;
    assert!(condition(&status, "Paused").is_none());
    assert_eq!(world.policy("lobby").await.unwrap().limits.burst, 40);
    let status = world.status("lobby").await;
    assert!(is(&status, "Ready", "True") && status.observed_generation == Some(1), "{status:#?}");

    world.patch_room("lobby", pausing(None)).await;
    let status = world
        .status_until("lobby", "the change is programmed", |s| {
            s.observed_generation == Some(2) && is(s, "Ready", "True")
        })
        .await;
    assert!(condition(&status, "Paused").is_none());
    assert_eq!(world.policy("lobby").await.unwrap().limits.burst, 7);

    world.patch_room("lobby", pausing(Some("true"))).await;
    world.status_until("lobby", "it is paused", |s| is(s, "Paused", "True")).await;
    world.delete_room("lobby").await;
    until("a paused room can go", async || world.rooms().get_opt("lobby").await.unwrap().is_none())
        .await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_room_is_told_so_and_holds_up_nothing() {
    let world = World::start().await;
    // As if an operator were older than the definition: what it cannot read stands in the store.
    let loose = r#"[{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec", "value":
        {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}]"#;
    let crd = ["patch", "crd", "chatrooms.hubbub.dev", "--type=json", "--patch", loose];
    world.kubectl().run(&crd).await;
    let bad = r#"{"apiVersion": "hubbub.dev/v1alpha1", "kind": "ChatRoom",
        "metadata": {"name": "unreadable", "namespace": "demo"}, "spec": {"allowedOrigins": {"not": "a list"}}}"#;
    until("the looser definition is in force", async || {
        world.kubectl().try_feed(&["create", "--filename=-"], bad).await.is_ok()
    })
    .await;
    let operator = world.operator().await;
    let _gateway = world.gateway("first", "default").await;
    world.room("good", "default").await;
    // The API server cannot tell that there is no such port.
    world.room("invalid", "default").await;
    world.patch_room("invalid", json!({"spec": {"allowedOrigins": ["https://a:65536"]}})).await;

    world.ready("good").await;
    let invalid =
        world.status_until("invalid", "it is refused", |s| because(s, "Accepted", "Invalid")).await;
    let message = &condition(&invalid, "Accepted").unwrap().message;
    assert!(message.contains("spec.allowedOrigins[0]: must be scheme://host"), "{message}");
    assert!(because(&invalid, "Ready", "Invalid"));
    until("the unreadable room is told so, and which field it is", async || {
        let room = world.kubectl().json(&["get", "room", "unreadable", "-n", DEMO]).await;
        let accepted = &room["status"]["conditions"][0];
        let told = accepted["message"].as_str().unwrap_or_default();
        accepted["reason"] == "Unreadable" && told.contains("spec.allowedOrigins: invalid type")
    })
    .await;
    // It may have been published before somebody broke it, so it may have our finalizer.
    let finalizer = r#"{"metadata": {"finalizers": ["hubbub.dev/policy"]}}"#;
    let patch = ["patch", "room", "unreadable", "-n", DEMO, "--type=merge", "--patch", finalizer];
    world.kubectl().run(&patch).await;
    world.kubectl().run(&["delete", "room", "unreadable", "-n", DEMO, "--timeout=60s"]).await;
    world.delete_room("invalid").await;
    until("it can go", async || world.rooms().get_opt("invalid").await.unwrap_or(None).is_none())
        .await;
    operator.stop().await;
}
