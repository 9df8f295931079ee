//! What somebody adds to the objects of a pool, on a real API server: taken away again where it is the operator's to say,
//! and left where it is not.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use hubbub_testkit::Controllers;
use serde_json::{Value, json};
use support::{HOME, Place, World, until};

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
    let world = Place::open(Controllers::On).await;
    let operator = world.operator().await;
    until("the pool is there", async || world.objects("default").await.len() == 5).await;
    let get =
        async |kind: &str| world.kubectl().json(&["get", kind, NAME, "-n", &world.home]).await;
    let patch = async |kind: &str, patch: &str| {
        world.kubectl().run(&["patch", kind, NAME, "-n", &world.home, "--patch", patch]).await
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
    world.kubectl().run(&["annotate", "deployment", NAME, "-n", &world.home, "note=kept"]).await;
    world.kubectl().run(&["rollout", "restart", "deployment", NAME, "-n", &world.home]).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn what_is_added_to_an_object_that_is_taken_out_of_sight_goes_too() {
    let world = Place::open(Controllers::On).await;
    let operator = world.operator().await;
    until("the pool is there", async || world.objects("default").await.len() == 5).await;
    let get = async || world.kubectl().json(&["get", "deployment", NAME, "-n", &world.home]).await;
    let patch = async |patch: &Value| {
        let patch = patch.to_string();
        world
            .kubectl()
            .run(&["patch", "deployment", NAME, "-n", &world.home, "--patch", &patch])
            .await
    };
    let (spec, labels) = (get().await["spec"].clone(), get().await["metadata"]["labels"].clone());
    // Repairs of other things say nothing about what comes next.
    for replicas in 7..11 {
        let before = operator.events.writes("pool");
        patch(&json!({"spec": {"replicas": replicas}})).await;
        until("it is repaired", async || operator.events.writes("pool") > before).await;
        assert_eq!(get().await["spec"], spec);
    }
    for addition in [
        json!({"containers": [{"name": "sidecar", "image": "evil"}]}),
        json!({"containers": [{"name": "gateway", "env": [{"name": "HUBBUB_LOG", "value": "off"}]}]}),
    ] {
        // Without its labels the object is in no watch any more.
        let unlabelled: Value = labels
            .as_object()
            .unwrap()
            .keys()
            .map(|label| (label.clone(), Value::Null))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let added =
            json!({"metadata": {"labels": unlabelled}, "spec": {"template": {"spec": addition}}});
        patch(&added).await;
        until("nothing of it is left", async || {
            let deployment = get().await;
            deployment["spec"] == spec && deployment["metadata"]["labels"] == labels
        })
        .await;
    }
    operator.stop().await;
}

/// An admission policy that gives every Deployment's pods a label, on every write.
const POLICY: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: inject}
spec:
  matchConstraints:
    resourceRules:
      - {apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}
  failurePolicy: Fail
  reinvocationPolicy: Never
  mutations:
    - patchType: ApplyConfiguration
      applyConfiguration:
        expression: >-
          Object{spec: Object.spec{template: Object.spec.template{metadata: Object.spec.template.metadata{
          labels: {"injected": "yes"}}}}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: inject}
spec: {policyName: inject}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_added_to_every_write_is_left_and_nothing_else() {
    let world = World::start().await;
    let operator = world.operator().await;
    until("the pool is there", async || world.objects("default").await.len() == 5).await;
    let get = async || world.kubectl().json(&["get", "deployment", NAME, "-n", HOME]).await;
    let patch = async |patch: &str| {
        world.kubectl().run(&["patch", "deployment", NAME, "-n", HOME, "--patch", patch]).await
    };
    world.kubectl().apply(POLICY).await;
    let injected =
        async || get().await["spec"]["template"]["metadata"]["labels"]["injected"] == "yes";
    until("the policy is in force", async || {
        patch(r#"{"spec": {"paused": true}}"#).await;
        injected().await
    })
    .await;
    let heard = || operator.events.reconciles("pool");
    // Quiet: as many looks as make half a minute, and no write.
    until("it is left as it is", async || {
        let (writes, looks) = (operator.events.writes("pool"), heard());
        until("there were some looks more", async || heard() >= looks + 15).await;
        operator.events.writes("pool") == writes
    })
    .await;
    assert!(injected().await && get().await["spec"]["paused"].is_null());
    patch(r#"{"spec": {"template": {"spec": {"hostNetwork": true}}}}"#).await;
    until("what somebody adds beside is taken away", async || {
        get().await["spec"]["template"]["spec"]["hostNetwork"].is_null()
    })
    .await;
    assert!(injected().await);
    operator.stop().await;
}
