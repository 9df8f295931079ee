//! A rolling restart under load: two thousand members move, and nobody has to wait longer than a client waits by itself.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::{
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use hubbub_e2e::{Load, PAGE, Release, World, slowly};
use hubbub_testkit::Member;
use serde_json::json;

const MEMBERS: u64 = 2_000;

/// How long a member of `hubbub-load` waits at most before it comes back from a gateway that restarts: 2 s, and if that try
/// fails half a second more, and so on. Beyond this somebody was turned away again and again.
const LONGEST_ABSENCE_MS: f64 = 5_000.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_members_move_in_a_rolling_restart() {
    let world = World::enter().await;
    let values =
        json!({"pools": {"default": {"min": 3, "resources": {"requests": {"cpu": "10m"}}}}});
    let release = Release::install(&world, "restart", values).await;
    // Members speak rarely, and must not be held back for it.
    release
        .room("crowd", json!({"gateways": {"min": 3}, "limits": {"maxMessageBytes": 1024}}))
        .await;
    let before = release.gateways().await;
    assert_eq!(before.len(), 3);

    let url = format!("ws://{}{}", release.address(), release.path("crowd"));
    let members = MEMBERS.to_string();
    let load = Load::start(
        &url,
        &[
            "--members",
            &members,
            "--publishers",
            "1",
            "--rate",
            "5",
            "--origin",
            PAGE,
            "--reconnect",
            "--ramp",
            "500",
            "--warmup",
            "0s",
            "--duration",
            "150s",
            "--tail",
            "20s",
        ],
    );
    slowly("all members are in", || async {
        let counts = release.members("crowd").await;
        let all: u64 = counts.values().sum();
        if all >= MEMBERS { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;

    let door = Door::watch(release.address(), &release.path("crowd"));
    release.run(&["rollout", "restart", "deployment/hubbub-default"]).await;
    release.rolled_out().await;
    slowly("the old gateways are gone", || async {
        let pods = release.json(&["get", "pods", "--selector=hubbub.dev/pool=default"]).await;
        let names: Vec<_> = pods["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        if names.iter().any(|name| before.contains(name)) {
            Err(format!("{names:?}"))
        } else {
            Ok(())
        }
    })
    .await;
    let (tries, shut) = door.close().await;
    let report = load.report().await;

    let comebacks = &report["load"]["comebacks"];
    println!(
        "rolling restart of 3 gateways with {MEMBERS} members: {comebacks}; door: {tries} tries, {shut} times shut"
    );
    println!("closes: {}; failures: {}", report["closes"], report["connecting"]["failures"]);
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    assert_eq!(shut, 0, "some gateway lets a member in at every moment");
    assert!(
        number(&comebacks["count"]) >= MEMBERS as f64 * 0.9,
        "the members of all old gateways were moved"
    );
    assert!(
        number(&comebacks["away_ms"]["max"]) < LONGEST_ABSENCE_MS,
        "nobody waits longer than by itself"
    );
    assert!(
        number(&comebacks["most_in_a_second"]) < 100.0,
        "members come back as evenly as they are sent away"
    );
    assert_eq!(report["verification"]["thrown_out"], 0);
    let closes = report["closes"].as_object().unwrap();
    assert!(closes.keys().all(|code| code == "1012"), "everybody is told: {closes:?}");
    let faults = &report["verification"]["faults"];
    for kind in ["missing", "doubled", "reordered", "misrouted", "corrupt"] {
        assert_eq!(
            faults[kind], 0,
            "while a member is there it gets all, once and in order: {faults}"
        );
    }
}

/// Somebody new who joins again and again, and asks at most three times in a row: the Service may lead to a gateway that
/// drains, but not every time.
struct Door {
    stop: Arc<AtomicBool>,
    tries: Arc<AtomicUsize>,
    shut: Arc<AtomicUsize>,
    task: tokio::task::JoinSet<()>,
}

impl Door {
    fn watch(address: std::net::SocketAddr, path: &str) -> Self {
        let (stop, tries, shut) = (
            Arc::<AtomicBool>::default(),
            Arc::<AtomicUsize>::default(),
            Arc::<AtomicUsize>::default(),
        );
        let path = path.to_owned();
        let (stopped, tried, found_shut) =
            (Arc::clone(&stop), Arc::clone(&tries), Arc::clone(&shut));
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(100));
            while !stopped.load(Ordering::Acquire) {
                ticks.tick().await;
                tried.fetch_add(1, Ordering::AcqRel);
                let mut entered = false;
                for _ in 0..3 {
                    entered = entered || Member::join(address, &path, Some(PAGE)).await.is_ok();
                }
                if !entered {
                    found_shut.fetch_add(1, Ordering::AcqRel);
                }
            }
        });
        Self { stop, tries, shut, task }
    }

    async fn close(mut self) -> (usize, usize) {
        self.stop.store(true, Ordering::Release);
        self.task.join_next().await.unwrap().unwrap();
        (self.tries.load(Ordering::Acquire), self.shut.load(Ordering::Acquire))
    }
}
