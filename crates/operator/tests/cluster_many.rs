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
use hubbub_api::{kubernetes::ChatRoomResource, names::BUCKET};
use kube::api::ListParams;
use support::{World, is, process::OperatorProcess};

/// Unless the environment asks for another number, to measure with.
const ROOMS: usize = 1000;

/// Far more than a busy machine needs.
const GIVE_UP: Duration = Duration::from_secs(600);

/// Gets and lists that a thousand rooms may cost: a watch that breaks is begun by a list, of which there are seven.
const READS: usize = 50;

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

    let before = Spent::by_now(&world).await;
    let begun = Instant::now();
    let each = stream::iter(0..rooms).for_each_concurrent(AT_ONCE, async |n| {
        world.room(&format!("room-{n}"), "default").await;
    });
    each.await;
    println!("{rooms} rooms declared after {:?}", begun.elapsed());
    count_until(&world, rooms + 2).await;
    println!("all ready after {:?}", begun.elapsed());
    let made = Spent::by_now(&world).await;
    let spent = made.since(&before);
    println!("for {rooms} rooms: {spent:?}");
    println!(
        "memory {} MiB, {} KiB a room",
        operator.resident_bytes() >> 20,
        (operator.resident_bytes() - empty) / rooms as u64 / 1024
    );
    assert!(
        spent.writes <= 5 * rooms,
        "finalizer, claim, status, Event, and one to spare: {spent:?}"
    );
    assert!(spent.bucket <= rooms + rooms / 4, "a policy: {spent:?}");
    assert!(spent.reads <= READS, "watches tell everything: {spent:?}");

    let begun = Instant::now();
    let each = stream::iter(0..rooms).for_each_concurrent(AT_ONCE, async |n| {
        world.delete_room(&format!("room-{n}")).await;
    });
    each.await;
    count_until(&world, 2).await;
    println!("all gone after {:?}", begun.elapsed());
    let spent = Spent::by_now(&world).await.since(&made);
    println!("for the end of {rooms} rooms: {spent:?}");
    assert!(spent.writes <= 2 * rooms, "a finalizer, and one to spare: {spent:?}");
    assert!(spent.bucket <= rooms + rooms / 4, "a policy taken out: {spent:?}");
    assert!(spent.reads <= READS, "watches tell everything: {spent:?}");
    assert!(world.policy("alone").await.is_some() && world.policy("room-7").await.is_none());
}

/// What the operator has asked for, but for the lease.
#[derive(Debug)]
struct Spent {
    /// Writes to the API server of rooms and Events about them.
    writes: usize,
    /// Gets and lists of the API server, of whatever.
    reads: usize,
    /// Writes to the bucket of policies.
    bucket: usize,
}

impl Spent {
    async fn by_now(world: &World) -> Self {
        let user = format!("system:serviceaccount:{}:hubbub-operator", support::HOME);
        let of_rooms = |resource: &str| resource.starts_with("chatrooms") || resource == "events";
        let mut log = world.plane.audit_log();
        log.retain(|event| event.user == user && event.resource != "leases");
        let context = nats::jetstream::new(world.nats.client().await);
        let mut stream = context.get_stream(format!("KV_{BUCKET}")).await.unwrap();
        let last = stream.info().await.unwrap().state.last_sequence;
        Self {
            writes: log.iter().filter(|e| e.is_write() && of_rooms(&e.resource)).count(),
            reads: log.iter().filter(|e| matches!(&*e.verb, "get" | "list")).count(),
            bucket: usize::try_from(last).unwrap(),
        }
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            writes: self.writes - before.writes,
            reads: self.reads - before.reads,
            bucket: self.bucket - before.bucket,
        }
    }
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
