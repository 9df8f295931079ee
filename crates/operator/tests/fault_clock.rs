//! The wall clock jumps by an hour, forward and back, while an operator leads and another waits: the lease stays where it is
//! and changes are carried out. Needs libfaketime.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::path::{Path, PathBuf};

use hubbub_testkit::eventually;
use serde_json::{Value, json};
use support::{HOME, World, is, process::OperatorProcess};

fn faketime() -> PathBuf {
    let directories = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut places = directories.map(|d| d.path().join("faketime/libfaketimeMT.so.1"));
    places.find(|place| place.is_file()).expect(
        "this test needs libfaketime, and there is none in /usr/lib (apt-get install faketime)",
    )
}

/// An operator whose wall clock is off by what stands in that file.
async fn start(world: &World, account: &str, identity: &str, offset: &Path) -> OperatorProcess {
    let library = faketime();
    let variables = [
        ("LD_PRELOAD", library.as_os_str()),
        ("FAKETIME_TIMESTAMP_FILE", offset.as_os_str()),
        ("FAKETIME_NO_CACHE", "1".as_ref()),
        ("DONT_FAKE_MONOTONIC", "1".as_ref()),
    ];
    OperatorProcess::start_in(world, account, identity, &[], &variables).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_stays_when_a_wall_clock_jumps_by_an_hour_and_back() {
    let world = World::start().await;
    world.kubectl().apply(include_str!("../../../manifests/operator/rbac.yaml")).await;
    let files = tempfile::tempdir().unwrap();
    let offsets = ["leader", "waiting"].map(|name| files.path().join(name));
    for offset in &offsets {
        std::fs::write(offset, "+0\n").unwrap();
    }
    let leader = start(&world, "hubbub-operator", "leader", &offsets[0]).await;
    leader.says("leading").await;
    let waiting = start(&world, "hubbub-operator", "waiting", &offsets[1]).await;
    waiting.says("waiting for the lease").await;
    let _gateway = world.gateway("first", "default").await;
    world.room("lobby", "default").await;
    world.ready("lobby").await;

    let lease =
        async || world.kubectl().json(&["get", "lease", "hubbub-operator", "-n", HOME]).await;
    let hour = |lease: &Value| -> i64 {
        let renewed = lease["spec"]["renewTime"].as_str().unwrap();
        let at: k8s_openapi::jiff::Timestamp = renewed.parse().unwrap();
        (at.as_second() - k8s_openapi::jiff::Timestamp::now().as_second() + 1800).div_euclid(3600)
    };
    let mut generation = 1;
    for (of_leader, of_waiting, off) in
        [("+3600", "+0", 1), ("-3600", "+0", -1), ("+0", "+3600", 0), ("+0", "-3600", 0)]
    {
        std::fs::write(&offsets[0], format!("{of_leader}\n")).unwrap();
        std::fs::write(&offsets[1], format!("{of_waiting}\n")).unwrap();
        // Twice the lease's duration in renewals, so that whoever compares clocks has had every chance.
        let mut seen = std::collections::BTreeSet::new();
        support::until("the lease has been renewed a dozen times by that clock", async || {
            let lease = lease().await;
            assert_eq!(lease["spec"]["holderIdentity"], "leader");
            if hour(&lease) == off {
                seen.insert(lease["spec"]["renewTime"].to_string());
            }
            seen.len() >= 12
        })
        .await;
        generation += 1;
        world.patch_room("lobby", json!({"spec": {"limits": {"burst": generation}}})).await;
        world
            .status_until("lobby", "the change is programmed", |s| {
                s.observed_generation == Some(generation) && is(s, "Ready", "True")
            })
            .await;
    }
    assert_eq!(lease().await["spec"]["leaseTransitions"], 1, "{:#}", lease().await);
    assert!(!waiting.log().contains("\"message\":\"leading\""));
    // It still takes over when it should.
    leader.kill();
    eventually("the other leads", || waiting.log().contains("\"message\":\"leading\"")).await;
}
