//! The API server is away for a while, as two replicas see it: what they use of a processor, how often they have to be started
//! again, and how soon everything is as declared afterwards. `HUBBUB_OUTAGE_SECONDS` makes the outage longer, to measure.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::{Duration, Instant};

use hubbub_testkit::Member;
use serde_json::json;
use support::{World, is, process::OperatorProcess};

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
    drop((first, second));
}
