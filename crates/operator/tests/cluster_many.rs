//! A thousand rooms at once: all of them arrive and all of them go, with a bounded number of writes each.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use hubbub_api::kubernetes::ChatRoomResource;
use kube::api::ListParams;
use support::{World, is, process::OperatorProcess};

/// Unless the environment asks for another number, to measure with.
const ROOMS: usize = 1000;

/// Far more than a busy machine needs.
const GIVE_UP: Duration = Duration::from_secs(600);

/// Requests that whoever declares rooms has under way at once.
const AT_ONCE: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_rooms_come_and_go() {
    let asked = std::env::var("HUBBUB_MANY_ROOMS").ok().map(|number| number.parse().unwrap());
    let rooms: usize = asked.unwrap_or(ROOMS);
    let world = World::start().await;
    world.kubectl().apply(include_str!("../../../manifests/operator/rbac.yaml")).await;
    // An API server so busy that it renews no lease for 10 s would have the operator started again; nobody does that here.
    let alone = ["--leader-election", "false"];
    let operator = OperatorProcess::start_with(&world, "hubbub-operator", "only", &alone).await;
    operator.says("leading").await;
    let _gateway = world.gateway("first", "default").await;
    // The gateway has found the bucket by then.
    world.room("before", "default").await;
    world.ready("before").await;
    let begun = Instant::now();
    world.room("alone", "default").await;
    world.ready("alone").await;
    println!("one room ready after {:?}", begun.elapsed());
    let empty = operator.resident_bytes();

    let user = format!("system:serviceaccount:{}:hubbub-operator", support::HOME);
    let writes = || {
        let of_rooms = |resource: &str| resource.starts_with("chatrooms") || resource == "events";
        let log = world.plane.audit_log();
        log.iter().filter(|e| e.user == user && e.is_write() && of_rooms(&e.resource)).count()
    };
    let before = writes();
    let begun = Instant::now();
    let each = stream::iter(0..rooms).for_each_concurrent(AT_ONCE, async |n| {
        world.room(&format!("room-{n}"), "default").await;
    });
    each.await;
    println!("{rooms} rooms declared after {:?}", begun.elapsed());
    count_until(&world, rooms + 2).await;
    let written = writes() - before;
    println!(
        "all ready after {:?}, {written} writes of rooms, {} a room",
        begun.elapsed(),
        written as f64 / rooms as f64
    );
    println!(
        "memory {} MiB, {} KiB a room",
        operator.resident_bytes() >> 20,
        (operator.resident_bytes() - empty) / rooms as u64 / 1024
    );
    assert!(written <= 4 * rooms, "finalizer, status, Event, and one to spare: {written}");

    let begun = Instant::now();
    let each = stream::iter(0..rooms).for_each_concurrent(AT_ONCE, async |n| {
        world.delete_room(&format!("room-{n}")).await;
    });
    each.await;
    count_until(&world, 2).await;
    println!("all gone after {:?}", begun.elapsed());
    assert!(world.policy("alone").await.is_some() && world.policy("room-7").await.is_none());
}

/// Waits until there are so many rooms, all of them ready.
async fn count_until(world: &World, wanted: usize) {
    let begun = Instant::now();
    loop {
        let rooms = world.rooms().list(&ListParams::default()).await.unwrap().items;
        let ready = |room: &&ChatRoomResource| {
            is(&room.status.clone().unwrap_or_default(), "Ready", "True")
        };
        let count = rooms.iter().filter(ready).count();
        if rooms.len() == wanted && count == wanted {
            return;
        }
        let there = rooms.len();
        assert!(begun.elapsed() < GIVE_UP, "gave up: {there} rooms, {count} ready, not {wanted}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
