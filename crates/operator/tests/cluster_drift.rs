//! What somebody adds to the objects of a pool, on a real API server: taken away again where it is the operator's to say,
//! and left where it is not.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use hubbub_testkit::Controllers;
use serde_json::{Value, json};
use support::{HOME, World, until};

const NAME: &str = "hubbub-default";

/// What is added, as a strategic merge patch, and where it must not be for long.
const ADDED: [(&str, &str, &str); 7] = [
    (
        "deployment",
        r#"{"spec": {"template": {"spec": {"containers": [{"name": "sidecar", "image": "evil"}]}}}}"#,
        "/spec/template/spec/containers/1",
    ),
    (
        "deployment",
        r#"{"spec": {"template": {"spec": {"containers": [{"name": "gateway", "args": ["--log", "debug"],
            "env": [{"name": "HUBBUB_MAX_CONNECTIONS", "value": "1"}]}]}}}}"#,
        "/spec/template/spec/containers/0/args",
    ),
    (
        "deployment",
        r#"{"spec": {"progressDeadlineSeconds": 7777, "template": {"metadata": {"labels": {"extra": "yes"}}}}}"#,
        "/spec/template/metadata/labels/extra",
    ),
    ("deployment", r#"{"spec": {"paused": true}}"#, "/spec/paused"),
    (
        "service",
        r#"{"spec": {"ports": [{"name": "admin", "port": 9090, "targetPort": "admin"}]}}"#,
        "/spec/ports/1",
    ),
    ("service", r#"{"spec": {"selector": {"extra": "yes"}}}"#, "/spec/selector/extra"),
    ("networkpolicy", r#"{"spec": {"ingress": [{}]}}"#, "/spec/ingress"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_adds_is_taken_away_again() {
    // With the controllers, which write into these objects too and must not be fought.
    let world = World::start_with(Controllers::On).await;
    let operator = world.operator().await;
    until("the pool is there", async || world.objects("default").await.len() == 5).await;
    let get = async |kind: &str| world.kubectl().json(&["get", kind, NAME, "-n", HOME]).await;
    let patch = async |kind: &str, patch: &str| {
        world.kubectl().run(&["patch", kind, NAME, "-n", HOME, "--patch", patch]).await
    };
    let mut clean = Vec::new();
    for kind in ["deployment", "service", "networkpolicy"] {
        clean.push((kind, get(kind).await["spec"].clone()));
    }
    let is_clean = async |kind: &str| {
        let wanted = &clean.iter().find(|(of, _)| *of == kind).unwrap().1;
        get(kind).await["spec"] == *wanted
    };
    for (kind, added, path) in ADDED {
        patch(kind, added).await;
        until(&format!("{kind} {path} is gone, and all else is as before"), async || {
            is_clean(kind).await
        })
        .await;
    }

    // What is others' to say stays: notes, and the wish for new pods.
    let before = operator.events.writes("pool");
    world.kubectl().run(&["annotate", "deployment", NAME, "-n", HOME, "note=kept"]).await;
    world.kubectl().run(&["rollout", "restart", "deployment", NAME, "-n", HOME]).await;
    until("the controller has taken it up", async || {
        let deployment = get("deployment").await;
        deployment["status"]["observedGeneration"] == deployment["metadata"]["generation"]
    })
    .await;
    patch("deployment", r#"{"spec": {"template": {"spec": {"hostNetwork": true}}}}"#).await;
    until("the last addition is gone", async || {
        get("deployment").await["spec"]["template"]["spec"]["hostNetwork"].is_null()
    })
    .await;
    let written = operator.events.writes("pool") - before;
    assert_eq!(
        written, 2,
        "the last addition was made the operator's and taken away, and nothing else"
    );
    let deployment = get("deployment").await;
    let template = &deployment["spec"]["template"]["metadata"]["annotations"];
    assert!(template["kubectl.kubernetes.io/restartedAt"].is_string(), "{deployment:#}");
    assert_eq!(deployment["metadata"]["annotations"]["note"], "kept");

    // And what was added while nobody watched.
    operator.stop().await;
    patch("service", r#"{"spec": {"externalIPs": ["192.0.2.1"]}}"#).await;
    let scaled =
        json!({"spec": {"template": {"spec": {"initContainers": [{"name": "i", "image": "i"}]}}}});
    patch("deployment", &scaled.to_string()).await;
    let operator = world.operator().await;
    until("nothing of it is left", async || {
        let (service, deployment) = (get("service").await, get("deployment").await);
        service["spec"]["externalIPs"].is_null()
            && deployment["spec"]["template"]["spec"]["initContainers"] == Value::Null
    })
    .await;
    operator.stop().await;
}
