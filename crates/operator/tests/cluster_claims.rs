//! Two operators of different releases over the same rooms, on a real API server: one manages them, the other leaves them
//! alone until the first is gone.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use hubbub_nats::NatsOptions;
use hubbub_operator::operator::Config;
use hubbub_testkit::{Controllers, NatsServer, http};
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

/// Rooms that two operators find at the same moment.
const ROOMS: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_two_operators_find_is_published_by_the_one_that_it_names() {
    let mut world = Place::open(Controllers::Off).await;
    let elsewhere = world.namespace("elsewhere").await;
    let other_nats = NatsServer::start().await;
    let elected = |config| Config { leader_election: true, ..config };
    let first = run(elected(world.config(world.client.clone()))).await;
    let second = run(elected(Config {
        namespace: elsewhere.clone(),
        identity: "two".to_owned(),
        nats: NatsOptions::new(other_nats.url(), "operator"),
        ..world.config(world.client.clone())
    }))
    .await;
    for operator in [&first, &second] {
        until("it has read its bucket", async || operator.events.writes("statement") > 0).await;
    }
    let names: Vec<String> = (0..ROOMS).map(|n| format!("race-{n}")).collect();
    let made = names.iter().map(|name| world.room(name, "default"));
    futures_util::future::join_all(made).await;
    let first_name = format!("{}/hubbub", world.home);
    let owned = async || {
        for name in &names {
            let status = world.status_until(name, "it is told", |s| !s.conditions.is_empty()).await;
            let is_first = status.operator.as_deref() == Some(&*first_name);
            let at = [&world.nats, &other_nats];
            let published = [
                world.policy_at(at[0], name).await.is_some(),
                world.policy_at(at[1], name).await.is_some(),
            ];
            assert_eq!(published, [is_first, !is_first], "{name}: {status:#?}");
        }
    };
    owned().await;
    // Somebody gives them all to the second, as it would have taken them had the first been gone.
    let second_name = format!("{elsewhere}/hubbub");
    for name in &names {
        let patch = serde_json::json!({"status": {"operator": second_name}});
        let (parameters, patch) = (Default::default(), kube::api::Patch::Merge(patch));
        world.rooms().patch_status(name, &parameters, &patch).await.unwrap();
    }
    for name in &names {
        until("the second has published it, and the first not any more", async || {
            world.policy_at(&other_nats, name).await.is_some() && world.policy(name).await.is_none()
        })
        .await;
    }
    first.stop().await;
    second.stop().await;
}
