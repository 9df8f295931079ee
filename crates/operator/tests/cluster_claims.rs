//! Two operators of different releases over the same rooms, on a real API server: one manages them, the other leaves them
//! alone until the first is gone.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use hubbub_operator::operator::Config;
use hubbub_testkit::{Controllers, http};
use support::{Place, is, run, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_room_has_one_operator_until_that_one_is_gone() {
    let mut world = Place::open(Controllers::Off).await;
    let elsewhere = world.namespace("elsewhere").await;
    let first_name = format!("{}/hubbub", world.home);
    let elected = |config| Config { leader_election: true, ..config };
    let first = run(elected(world.config(world.client.clone()))).await;
    let gateway = world.gateway("first", "vip").await;
    world.room("lobby", "vip").await;
    let status = world.ready("lobby").await;
    assert_eq!(status.operator.as_deref(), Some(&*first_name));

    let config = world.config(world.client.clone());
    let second =
        run(elected(Config { namespace: elsewhere.clone(), identity: "two".to_owned(), ..config }))
            .await;
    until("the second has looked at the room, and left it", async || {
        let metrics = http::get(second.admin, "/metrics").await.body;
        let left =
            metrics.lines().find_map(|l| l.strip_prefix("hubbub_operator_rooms_left_total "));
        left.is_some_and(|left| left.parse::<f64>().unwrap() >= 3.0)
    })
    .await;
    // A change is the first's to carry out.
    let patch = serde_json::json!({"spec": {"limits": {"burst": 7}}});
    world.patch_room("lobby", patch).await;
    let status = world
        .status_until("lobby", "the change is programmed", |s| {
            s.observed_generation == Some(2) && is(s, "Ready", "True")
        })
        .await;
    assert_eq!(status.operator.as_deref(), Some(&*first_name));
    assert_eq!((second.events.writes("status"), second.events.writes("policy")), (0, 0));
    let pool = async |namespace: &str| {
        let listed = ["get", "deployments", "-n", namespace, "--selector=hubbub.dev/pool=vip"];
        world.kubectl().run(&[&listed[..], &["--output=name"]].concat()).await
    };
    assert!(!pool(&world.home).await.is_empty() && pool(&elsewhere).await.is_empty());

    first.stop().await;
    let second_name = format!("{elsewhere}/hubbub");
    let status = world
        .status_until("lobby", "the second manages it", |s| {
            s.operator.as_deref() == Some(&*second_name)
        })
        .await;
    assert!(is(&status, "Accepted", "True"), "{status:#?}");
    until("its pool is there", async || !pool(&elsewhere).await.is_empty()).await;
    world.ready("lobby").await;
    drop(gateway);
    second.stop().await;
}
