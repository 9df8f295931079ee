//! `manifests/install.yaml`, as those without Helm apply and remove it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::Path};

use hubbub_e2e::{PAGE, Pod, World, slowly};
use serde_json::json;

/// The namespace that the file makes.
const HOME: &str = "hubbub";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_applied_serves_rooms_and_what_is_deleted_is_gone() {
    let world = World::enter().await;
    let kubectl = world.kubectl();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/install.yaml");
    let manifests = with_images(&fs::read_to_string(file).unwrap(), &world);
    // The definition comes from a release of the chart where another test was here before.
    let arguments = ["apply", "--server-side", "--force-conflicts", "--filename=-"];
    kubectl.try_feed(&arguments, &manifests).await.unwrap();
    slowly("the pool is there", || async {
        kubectl.try_run(&["get", "deployment", "hubbub-default", "--namespace", HOME]).await
    })
    .await;
    let elsewhere = world.restricted_namespace("rooms").await;
    let room = json!({
        "apiVersion": "hubbub.dev/v1alpha1",
        "kind": "ChatRoom",
        "metadata": {"name": "lobby", "namespace": elsewhere.name()},
        "spec": {"allowedOrigins": [PAGE]},
    });
    kubectl.apply(&room.to_string()).await;
    let lobby = ["chatroom/lobby", "--namespace", elsewhere.name(), "--timeout=2m"];
    kubectl.run(&[&["wait", "--for=condition=Ready"][..], &lobby].concat()).await;
    let address = format!("ws://hubbub-default.{HOME}.svc/rooms/{}/lobby", elsewhere.name());
    let join = ["hubbub-load", &address, "--origin", PAGE, "--members=2", "--duration=1s"];
    Pod::run(&world, elsewhere.name(), "visitor", json!({}), &join).await.ends(true).await;

    // As the head of the file says, but for this room alone: others would go with the definition, so there must be none.
    kubectl.run(&[&["delete"][..], &lobby].concat()).await;
    slowly("nobody else has rooms on this cluster", || async {
        let rooms = kubectl.run(&["get", "chatrooms", "--all-namespaces", "--output=name"]).await;
        if rooms.is_empty() { Ok(()) } else { Err(rooms) }
    })
    .await;
    kubectl.try_feed(&["delete", "--filename=-", "--timeout=3m"], &manifests).await.unwrap();
    let kinds = "namespaces,customresourcedefinitions,clusterroles,clusterrolebindings";
    let left = kubectl.run(&["get", kinds, "--output=name"]).await;
    let ours = |line: &&str| line.contains("hubbub");
    assert_eq!(left.lines().filter(ours).collect::<Vec<_>>(), Vec::<&str>::new());
}

/// With the images under test in place of those that are released.
fn with_images(manifests: &str, world: &World) -> String {
    let lines = manifests.lines().map(|line| match line.trim_start().split_once(": ") {
        Some(("image", image)) => {
            let ours = if image.contains("nats") { &world.nats_image } else { &world.image };
            line.replace(image, ours)
        }
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}
