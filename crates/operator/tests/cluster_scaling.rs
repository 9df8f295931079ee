//! A pool that shrinks, with the ReplicaSet controller that decides which pod goes: the emptiest gateway, by the mark that the
//! operator has put on it, and nobody when the shrinking is called off.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use hubbub_operator::operator::Config;
use hubbub_testkit::{Controllers, GatewayProcess, Member};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{HOME, World, run, until};

const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Instead of five minutes.
const WINDOW: Duration = Duration::from_secs(8);

/// The pods of the pool that are not on their way out, by name.
async fn pods(world: &World) -> Vec<Value> {
    let selector = "--selector=hubbub.dev/pool=default";
    let listed = world.kubectl().json(&["get", "pods", "-n", HOME, selector]).await;
    let mut pods = listed["items"].as_array().unwrap().clone();
    pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    pods.sort_by_key(name);
    pods
}

fn name(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap().to_owned()
}

/// The pods that are marked, with their marks.
async fn marked(world: &World) -> Vec<(String, String)> {
    let pods = pods(world).await;
    let mark =
        |pod: &Value| Some((name(pod), pod["metadata"]["annotations"][COST].as_str()?.to_owned()));
    pods.iter().filter_map(mark).collect()
}

async fn replicas(world: &World) -> i64 {
    let deployment =
        world.kubectl().json(&["get", "deployment", "hubbub-default", "-n", HOME]).await;
    deployment["spec"]["replicas"].as_i64().unwrap()
}

/// There is no kubelet to say so.
async fn make_ready(world: &World, pod: &str, since: &str) {
    let ready = json!({"status": {"phase": "Running", "conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": since}
    ]}});
    let patch =
        ["patch", "pod", pod, "-n", HOME, "--subresource=status", "--patch", &ready.to_string()];
    world.kubectl().run(&patch).await;
}

async fn join(gateway: &GatewayProcess, count: usize) -> Vec<Member> {
    let mut members = Vec::new();
    for _ in 0..count {
        let member = Member::join(gateway.listen(), "/rooms/demo/lobby", None).await;
        members.push(member.unwrap());
    }
    members
}

#[tokio::test(flavor = "multi_thread")]
async fn the_emptiest_gateway_goes_first_and_none_when_called_off() {
    let mut world = World::start_with(Controllers::On).await;
    let config = world.config(world.client.clone());
    let operator = run(Config { scale_down_window: WINDOW, ..config }).await;
    world.room("lobby", "default").await;
    let three = json!({"spec": {"gateways": {"min": 3, "max": 3, "connectionsPerGateway": 2}}});
    world.patch_room("lobby", three).await;
    until("three pods are made", async || pods(&world).await.len() == 3).await;
    let names: Vec<String> = pods(&world).await.iter().map(name).collect();
    // Left to itself, the controller would keep the one that has been ready for longest: the first, which will be the emptiest.
    let mut gateways = Vec::new();
    for (pod, since) in
        names.iter().zip(["2026-01-01T00:00:00Z", "2026-01-01T06:00:00Z", "2026-01-02T00:00:00Z"])
    {
        gateways.push(world.gateway(pod, "default").await);
        make_ready(&world, pod, since).await;
    }
    world.ready("lobby").await;
    let mut members = Vec::new();
    for (gateway, count) in gateways.iter().zip([1, 3, 2]) {
        members.push(join(gateway, count).await);
    }
    world.status_until("lobby", "its members are counted", |s| s.connections == Some(6)).await;
    let free = json!({"spec": {"gateways": {"min": 1}}});
    world.patch_room("lobby", free).await;

    // While there are no controllers, the pool is to shrink and then is not.
    world.plane.kill_controllers();
    members[0].clear();
    members[1].pop();
    until("two gateways are asked for", async || replicas(&world).await == 2).await;
    assert_eq!(marked(&world).await, [(names[0].clone(), "-1000".to_owned())]);
    let more = join(&gateways[2], 1).await;
    until("three are asked for again", async || replicas(&world).await == 3).await;
    until("the mark is taken away", async || marked(&world).await.is_empty()).await;
    world.plane.start_controllers();
    until("the controller has seen it", async || {
        let deployment =
            world.kubectl().json(&["get", "deployment", "hubbub-default", "-n", HOME]).await;
        deployment["status"]["observedGeneration"] == deployment["metadata"]["generation"]
    })
    .await;
    assert_eq!(pods(&world).await.iter().map(name).collect::<Vec<_>>(), names);

    // And then it does.
    drop(more);
    until("one pod is gone", async || pods(&world).await.len() == 2).await;
    assert_eq!(pods(&world).await.iter().map(name).collect::<Vec<_>>(), names[1..]);
    assert!(marked(&world).await.is_empty());
    assert_eq!(replicas(&world).await, 2);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_blind_takes_no_gateway_away() {
    let mut world = World::start_with(Controllers::On).await;
    let config = world.config(world.client.clone());
    let operator = run(Config { scale_down_window: WINDOW, ..config }).await;
    world.room("lobby", "default").await;
    let two = json!({"spec": {"gateways": {"min": 2, "max": 2}}});
    world.patch_room("lobby", two).await;
    until("two pods are made", async || pods(&world).await.len() == 2).await;
    let names: Vec<String> = pods(&world).await.iter().map(name).collect();
    let mut gateways = Vec::new();
    for pod in &names {
        gateways.push(world.gateway(pod, "default").await);
        make_ready(&world, pod, "2026-01-01T00:00:00Z").await;
    }
    world.ready("lobby").await;
    // Looks are 2 s apart, so these are more than the window and the time in which a gateway falls silent.
    let looks = async || {
        let before = operator.events.reconciles("pool");
        until("many looks more", async || operator.events.reconciles("pool") >= before + 12).await;
    };
    gateways[0].signal(Signal::STOP);
    world
        .status_until("lobby", "one gateway is silent", |s| {
            s.gateways.as_ref().is_some_and(|counts| counts.ready == 1)
        })
        .await;
    world.patch_room("lobby", json!({"spec": {"gateways": {"min": 1}}})).await;
    looks().await;
    assert_eq!(replicas(&world).await, 2, "the members of the silent one are not counted");
    world.nats.kill9();
    gateways[0].signal(Signal::CONT);
    looks().await;
    assert_eq!(replicas(&world).await, 2, "nobody is heard");
    world.nats.start_again().await;
    until("one is enough, now that both are heard", async || replicas(&world).await == 1).await;
    operator.stop().await;
}
