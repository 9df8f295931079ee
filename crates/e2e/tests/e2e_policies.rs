//! NetworkPolicies, as an agent on the nodes enforces them: what the product needs works, and nothing else gets through.

#![allow(clippy::unwrap_used, reason = "tests")]

use hubbub_e2e::{PAGE, Pod, Release, World};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_let_through_what_is_needed_and_nothing_else() {
    let world = World::enter().await;
    let outside = world.restricted_namespace("outside").await;
    let friend = json!({"watches": "gateways"});
    let from_friends = json!([{
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": outside.name()}},
        "podSelector": {"matchLabels": friend},
    }]);
    let values = json!({"pools": {"default": {
        "networkPolicy": {"adminFrom": from_friends},
        "drain": {"settle": "1s", "window": "1s", "deadline": "5s"},
    }}});
    let release = Release::install(&world, "walls", values).await;

    // The operator reaches the API server and NATS, gateways reach NATS, and members come in from anywhere.
    release.room("lobby", json!({})).await;
    let (one, two) = (release.join("lobby", PAGE).await, release.join("lobby", PAGE).await);
    one.send("through the walls").await;
    two.hears("through the walls").await;

    let gateway = release.json(&["get", "pods", "--selector=hubbub.dev/pool=default"]).await;
    let gateway = &gateway["items"][0];
    let address = gateway["status"]["podIP"].as_str().unwrap();

    // The admin port: a stranger is kept out of it, whom the values name gets in (and drains the gateway).
    let drain = ["hubbub-gateway", "drain", "--admin", &format!("{address}:9090")];
    let stranger = Pod::run(&world, outside.name(), "stranger", json!({}), &drain).await;
    let said = stranger.ends(false).await;
    assert!(said.contains("no gateway listens"), "{said}");

    // NATS: open to gateways of the release, and to nobody else.
    let nats = format!("nats://hubbub-nats.{}.svc:4222", release.namespace());
    let listener = ["hubbub-gateway", "--nats", &nats, "--policies", "nats", "--pool", "others"];
    let spy = Pod::run(&world, outside.name(), "spy", json!({}), &listener).await;
    spy.says("cannot connect to NATS").await;
    let neighbour = Pod::run(&world, release.namespace(), "neighbour", json!({}), &listener).await;
    neighbour.says("cannot connect to NATS").await;

    // A gateway's way out: NATS and names, and not the API server, say.
    let mut labels = gateway["metadata"]["labels"].clone();
    labels.as_object_mut().unwrap().remove("pod-template-hash");
    let kubernetes = world.kubectl().json(&["get", "service", "kubernetes"]).await;
    let kubernetes = format!("{}:443", kubernetes["spec"]["clusterIP"].as_str().unwrap());
    let look = ["hubbub-gateway", "drain", "--admin", &kubernetes];
    let captive = Pod::run(&world, release.namespace(), "captive", labels.clone(), &look).await;
    captive.says("no gateway listens").await;
    let free = Pod::run(&world, outside.name(), "free", json!({}), &look).await;
    free.says("the gateway answered 400").await;

    // Whoever may not do any of this may join a room.
    let room = format!("ws://{address}:8080{}", release.path("lobby"));
    let join = ["hubbub-load", &room, "--origin", PAGE, "--members=2", "--duration=1s"];
    Pod::run(&world, outside.name(), "visitor", json!({}), &join).await.ends(true).await;

    // The same, with the way open: it was the policy that kept them out.
    let gateway_like =
        Pod::run(&world, release.namespace(), "gateway-like", labels, &listener).await;
    gateway_like.says("connected to NATS").await;
    release.run(&["delete", "networkpolicy", "hubbub-nats"]).await;
    spy.says("connected to NATS").await;
    neighbour.says("connected to NATS").await;
    let friend = Pod::run(&world, outside.name(), "friend", friend, &drain).await;
    let said = friend.ends(true).await;
    assert!(said.contains("\"cut\":0"), "{said}");
}
