//! The API server is away for a while, as two replicas see it: what they use of a processor, how often they have to be started
//! again, and how soon everything is as declared afterwards. And NATS is. `HUBBUB_OUTAGE_SECONDS` makes the outages longer, to
//! measure.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::{Duration, Instant};

use hubbub_testkit::{ControlPlane, Member};
use serde_json::{Value, json};
use support::{World, condition, is, process::OperatorProcess};

/// Longer than a lease.
const OUTAGE: u64 = 20;

/// Rooms, and pools, that have to be looked after.
const ROOMS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_costs_one_start_and_little_else() {
    let asked = std::env::var("HUBBUB_OUTAGE_SECONDS").ok().map(|number| number.parse().unwrap());
    let outage = Duration::from_secs(asked.unwrap_or(OUTAGE));
    let mut world = World::start().await;
    world.kubectl().apply(include_str!("../../../manifests/operator/rbac.yaml")).await;
    let first = OperatorProcess::start(&world, "hubbub-operator", "first").await;
    first.says("leading").await;
    let second = OperatorProcess::start(&world, "hubbub-operator", "second").await;
    second.says("waiting for the lease").await;
    let gateway = world.gateway("gateway", "default").await;
    for n in 0..ROOMS {
        world.room(&format!("room-{n}"), "default").await;
    }
    for n in 0..ROOMS {
        world.ready(&format!("room-{n}")).await;
    }
    let member = Member::join(gateway.listen(), "/rooms/demo/room-0", None).await.unwrap();

    let (begun, used_by_second) = (Instant::now(), second.cpu_seconds());
    world.plane.kill9();
    // Whoever leads and cannot renew ends, and whoever runs it starts it again: once, because who waits does not end.
    let mut first = first;
    assert!(!first.ended().await.success());
    first.start_again();
    let (again, used_by_first) = (Instant::now(), first.cpu_seconds());
    let rest = outage.saturating_sub(begun.elapsed());
    member.send("still here").await;
    member.hears("still here").await;
    // The outage itself is what is measured, so it has to pass.
    tokio::time::sleep(rest).await;
    let share = |used: f64, since: Instant| used / since.elapsed().as_secs_f64();
    let of_first = share(first.cpu_seconds() - used_by_first, again);
    let of_second = share(second.cpu_seconds() - used_by_second, begun);
    println!(
        "API server away for {:.0?}: of a processor {:.1} % by who had led and waits again, {:.1} % by who waits; one start",
        begun.elapsed(),
        of_first * 100.0,
        of_second * 100.0,
    );
    assert!(of_first.max(of_second) < 0.25, "no replica is to try without a pause");
    world.plane.start_again().await;
    let back = Instant::now();
    world.patch_room("room-0", json!({"spec": {"limits": {"burst": 7}}})).await;
    world
        .status_until("room-0", "the change is programmed", |s| {
            s.observed_generation == Some(2) && is(s, "Ready", "True")
        })
        .await;
    println!("a change was programmed {:.1?} after the API server was back", back.elapsed());
    member.send("and now").await;
    member.hears("and now").await;
    assert_quiet(&first.log());
    assert_quiet(&second.log());
}

/// Every line is JSON, and there are few: not one for each try.
fn assert_quiet(log: &str) {
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let troubles = lines.iter().filter(|line| line["level"] != "INFO").count();
    assert!(troubles <= 30, "{troubles} lines of trouble:\n{log}");
    for word in ["failed with error", "async_nats"] {
        assert!(!log.contains(word), "the library's own words: {word}\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nats_is_away_little_is_written_and_afterwards_changes_arrive() {
    let asked = std::env::var("HUBBUB_OUTAGE_SECONDS").ok().map(|number| number.parse().unwrap());
    let outage = Duration::from_secs(asked.unwrap_or(OUTAGE));
    let mut world = World::start().await;
    world.kubectl().apply(include_str!("../../../manifests/operator/rbac.yaml")).await;
    let operator = OperatorProcess::start(&world, "hubbub-operator", "only").await;
    operator.says("leading").await;
    let _gateway = world.gateway("gateway", "default").await;
    let names: Vec<String> = (0..ROOMS).map(|n| format!("room-{n}")).collect();
    for name in &names {
        world.room(name, "default").await;
    }
    for name in &names {
        world.ready(name).await;
    }
    let user = format!("system:serviceaccount:{}:hubbub-operator", support::HOME);
    let requests = |plane: &ControlPlane| {
        let mut log = plane.audit_log();
        log.retain(|event| event.user == user && event.resource != "leases");
        let writes = log.iter().filter(|event| event.is_write()).count();
        (writes, log.iter().filter(|event| matches!(&*event.verb, "get" | "list")).count())
    };
    let (before, begun, used) = (requests(&world.plane), Instant::now(), operator.cpu_seconds());
    world.nats.kill9();
    for name in &names {
        world
            .status_until(name, "it is unknown, and why", |s| {
                let told = condition(s, "Programmed");
                told.is_some_and(|c| {
                    c.reason == "NatsUnavailable" && c.message.contains("127.0.0.1")
                })
            })
            .await;
    }
    // Each of them waits for NATS.
    for name in &names {
        world.patch_room(name, json!({"spec": {"limits": {"burst": 7}}})).await;
    }
    // The outage itself is what is measured, so it has to pass.
    tokio::time::sleep(outage.saturating_sub(begun.elapsed())).await;
    let after = requests(&world.plane);
    let (writes, reads) = (after.0 - before.0, after.1 - before.1);
    let share = (operator.cpu_seconds() - used) / begun.elapsed().as_secs_f64();
    println!(
        "NATS away for {:.0?}, {ROOMS} rooms, each changed once: {writes} writes and {reads} reads of the API server, {:.1} % of a processor",
        begun.elapsed(),
        share * 100.0
    );
    assert!(writes <= 4 * ROOMS, "a status and an Event for each turn: {writes}");
    assert!(reads <= 20, "watches tell everything: {reads}");
    world.nats.start_again().await;
    let back = Instant::now();
    for name in &names {
        world
            .status_until(name, "the change is programmed", |s| {
                s.observed_generation == Some(2) && is(s, "Ready", "True")
            })
            .await;
    }
    println!("all {ROOMS} changes were programmed {:.1?} after NATS was back", back.elapsed());
    assert_quiet(&operator.log());
}
