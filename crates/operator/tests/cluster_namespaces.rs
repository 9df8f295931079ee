//! An operator that serves the rooms of some namespaces, with rights in these alone.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use hubbub_api::names::BUCKET;
use support::{DEMO, HOME, World, process::OperatorProcess, until};

const RIGHTS: &str = include_str!("../../../manifests/operator/rbac.yaml");
const IN_ONE: &str = include_str!("../../../manifests/operator/rbac-room-namespace.yaml");

#[tokio::test(flavor = "multi_thread")]
async fn only_rooms_of_the_named_namespaces_are_served_and_read() {
    let world = World::start().await;
    let kubectl = world.kubectl();
    let (second, third) = ("second", "third");
    for namespace in [second, third] {
        kubectl.run(&["create", "namespace", namespace]).await;
    }
    let rights: Vec<&str> = RIGHTS
        .split("\n---\n")
        .filter(|rights| !rights.contains("kind: ClusterRoleBinding"))
        .collect();
    assert_eq!(rights.len(), RIGHTS.split("\n---\n").count() - 1);
    kubectl.apply(&rights.join("\n---\n")).await;
    assert!(IN_ONE.contains("\n  namespace: demo\n"));
    kubectl.apply(IN_ONE).await;
    kubectl.apply(&IN_ONE.replace("namespace: demo", "namespace: second")).await;
    for namespace in [DEMO, second, third] {
        kubectl
            .apply(&format!(
                "{{apiVersion: hubbub.dev/v1alpha1, kind: ChatRoom, metadata: {{name: lobby, namespace: {namespace}}}, \
                 spec: {{allowedOrigins: ['*'], gateways: {{min: 1}}}}}}"
            ))
            .await;
    }
    let named = ["--room-namespaces", "demo,second"];
    let mut operator = OperatorProcess::start_with(&world, "hubbub-operator", "only", &named).await;
    operator.says("leading").await;
    let _gateway = world.gateway("first", "default").await;
    let room =
        async |namespace: &str| kubectl.json(&["get", "room", "lobby", "-n", namespace]).await;
    for namespace in [DEMO, second] {
        until(&format!("the room of {namespace} is ready"), async || {
            let room = room(namespace).await;
            let mut conditions = room["status"]["conditions"].as_array().into_iter().flatten();
            conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
        })
        .await;
    }
    assert!(room(third).await["status"].is_null(), "nobody's business");
    let store =
        nats::jetstream::new(world.nats.client().await).get_key_value(BUCKET).await.unwrap();
    assert!(store.get("second.lobby").await.unwrap().is_some());
    assert!(store.get("third.lobby").await.unwrap().is_none());
    // What another operator has published in the same bucket stays.
    store.put("third.lobby", "another's".into()).await.unwrap();
    kubectl.run(&["delete", "room", "lobby", "-n", second, "--timeout=60s"]).await;
    until("its policy is gone", async || store.get("second.lobby").await.unwrap().is_none()).await;
    assert!(store.get("third.lobby").await.unwrap().is_some());
    operator.terminate();
    assert!(operator.ended().await.success());

    let user = format!("system:serviceaccount:{HOME}:hubbub-operator");
    let mut log = world.plane.audit_log();
    log.retain(|event| event.user == user && event.status == 403);
    assert!(log.is_empty(), "{log:#?}");
    let account = format!("--as={user}");
    for (namespace, allowed) in [(DEMO, true), (second, true), (third, false)] {
        let asked = ["auth", "can-i", "list", "chatrooms.hubbub.dev", "-n", namespace, &account];
        assert_eq!(kubectl.try_run(&asked).await.is_ok(), allowed, "{namespace}");
    }
    let all = ["auth", "can-i", "list", "chatrooms.hubbub.dev", "--all-namespaces", &account];
    assert!(kubectl.try_run(&all).await.is_err());
}
