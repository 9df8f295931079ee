//! Two replicas as processes, each with the rights of the manifest and nothing else: one writes, the other takes over, and no
//! right is missing or unused.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;

use hubbub_testkit::{AuditEvent, ControlPlane, Controllers, eventually, http};
use serde_json::{Value, json};
use support::{DEMO, HOME, World, because, process::OperatorProcess, until};

const RIGHTS: &str = include_str!("../../../manifests/operator/rbac.yaml");

/// The writes of a service account so far, but for those of the lease.
fn writes(plane: &ControlPlane, account: &str) -> Vec<AuditEvent> {
    let user = format!("system:serviceaccount:{HOME}:{account}");
    let mut log = plane.audit_log();
    log.retain(|event| event.user == user && event.is_write() && event.resource != "leases");
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_takes_over_and_never_do_both_write() {
    let world = World::start().await;
    world.kubectl().apply(RIGHTS).await;
    // The same rights under a second name, to tell in the audit log who wrote.
    let second = RIGHTS.replace("name: hubbub-operator", "name: hubbub-second");
    world.kubectl().apply(&second).await;
    let first = OperatorProcess::start(&world, "hubbub-operator", "first").await;
    first.says("leading").await;
    let second = OperatorProcess::start(&world, "hubbub-second", "second").await;
    second.says("waiting for the lease").await;
    // Both are told by the first look at the lease and at NATS, which may come after the lines in the log.
    until("the second is ready to take over", async || {
        let ready = http::get(second.admin(), "/readyz").await;
        let shows = |line| ready.body.contains(line);
        ready.status == 200
            && shows("[+] lease: held by first; waiting")
            && shows("[+] nats: connected")
    })
    .await;
    let _gateway = world.gateway("gateway", "default").await;
    world.room("lobby", "default").await;
    world.ready("lobby").await;
    assert!(writes(&world.plane, "hubbub-second").is_empty());

    // Frozen past its lease, the leader wakes to find that it must not write.
    first.pause();
    let frozen = takeover(&world, "first").await;
    second.says("leading").await;
    let before = writes(&world.plane, "hubbub-operator").len();
    world.patch_room("lobby", json!({"spec": {"limits": {"burst": 7}}})).await;
    world
        .status_until("lobby", "the second tells of it", |s| s.observed_generation == Some(2))
        .await;
    first.resume();
    let mut first = first;
    assert!(!first.ended().await.success(), "who lost the lease ends, to be started again");
    for line in first.log().lines() {
        let told: Result<Value, _> = serde_json::from_str(line);
        assert!(told.is_ok(), "to its last line the log is JSON: {line}");
    }
    // Every request is in the log by the time that this one is.
    world.kubectl().run(&["label", "namespace", DEMO, "seen=yes"]).await;
    let seen = |event: &AuditEvent| event.resource == "namespaces" && event.verb == "patch";
    eventually("the log is whole", || world.plane.audit_log().iter().any(seen)).await;
    let after = writes(&world.plane, "hubbub-operator");
    let late: Vec<_> = after[before..].iter().filter(|event| event.status < 300).collect();
    assert!(late.is_empty(), "written without the lease: {late:#?}");

    let first = OperatorProcess::start(&world, "hubbub-operator", "first-again").await;
    first.says("waiting for the lease").await;
    second.kill();
    let killed = takeover(&world, "second").await;
    first.says("leading").await;
    println!(
        "taken over {frozen:.1} s after the last renewal of a frozen leader, {killed:.1} s of a killed one"
    );
    world.patch_room("lobby", json!({"spec": {"limits": {"burst": 8}}})).await;
    world
        .status_until("lobby", "the first tells of it", |s| s.observed_generation == Some(3))
        .await;

    // In good order, nobody has to wait for the lease to expire.
    let mut first = first;
    first.terminate();
    assert!(first.ended().await.success());
    let lease = world.kubectl().json(&["get", "lease", "hubbub-operator", "-n", HOME]).await;
    assert!(lease["spec"]["holderIdentity"].is_null(), "{lease:#}");
}

/// Waits until another holds the lease of `before`, who renews no more, and gives the seconds from the last renewal to the
/// taking, both as the lease tells them. They must be within its duration.
async fn takeover(world: &World, before: &str) -> f64 {
    let time = |lease: &Value, field: &str| -> k8s_openapi::jiff::Timestamp {
        lease["spec"][field].as_str().unwrap().parse().unwrap()
    };
    let mut renewed = None;
    let mut taken = None;
    until("another holds the lease", async || {
        let lease = world.kubectl().json(&["get", "lease", "hubbub-operator", "-n", HOME]).await;
        if lease["spec"]["holderIdentity"] == before {
            renewed = Some(time(&lease, "renewTime"));
            return false;
        }
        let duration = lease["spec"]["leaseDurationSeconds"].as_f64().unwrap();
        taken = Some((time(&lease, "acquireTime"), duration));
        true
    })
    .await;
    let (taken, duration) = taken.unwrap();
    let took = taken.duration_since(renewed.unwrap()).as_secs_f64();
    assert!(took <= duration, "{took} s, and the lease is for {duration} s");
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_all_away_says_for_whom_it_waits() {
    let world = World::start().await;
    world.kubectl().apply(RIGHTS).await;
    let mut operator = OperatorProcess::start(&world, "hubbub-operator", "only").await;
    operator.says("leading").await;
    until("the pool is there", async || world.objects("default").await.len() == 5).await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut uninstall = std::process::Command::new(env!("CARGO_BIN_EXE_hubbub-operator"))
        .args(["uninstall", "--namespace", HOME, "--log-format", "json"])
        .env("KUBECONFIG", world.plane.kubeconfig())
        .stderr(log.reopen().unwrap())
        .spawn()
        .unwrap();
    let said = || std::fs::read_to_string(log.path()).unwrap();
    eventually("it says for whom it waits", || {
        said().contains("an operator holds the lease") && said().contains(r#""holder":"only""#)
    })
    .await;
    operator.terminate();
    assert!(operator.ended().await.success());
    let mut status = None;
    eventually("it ends", || {
        status = uninstall.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert!(status.unwrap().success(), "{}", said());
    assert!(world.objects("default").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_of_the_manifest_are_enough_and_none_is_idle() {
    let world = World::start_with(Controllers::On).await;
    world.kubectl().apply(RIGHTS).await;
    let mut operator = OperatorProcess::start(&world, "hubbub-operator", "only").await;
    operator.says("leading").await;
    world.room("vip", "vip").await;
    until("its pool is there", async || world.objects("vip").await.len() == 5).await;
    // Twice the same trouble, so that the Event about it is counted up.
    for n in 0..2 {
        let gateway = world.gateway(&format!("gateway-{n}"), "vip").await;
        world.ready("vip").await;
        drop(gateway);
        world.status_until("vip", "nobody serves it", |s| because(s, "Ready", "NoGateways")).await;
    }
    // A room of an operator that is no more is taken over, which only its lease can tell.
    let elsewhere = r#"{"status": {"operator": "elsewhere/hubbub"}}"#;
    let patch = ["patch", "room", "vip", "-n", DEMO, "--subresource=status", "--type=merge"];
    world.kubectl().run(&[&patch[..], &["--patch", elsewhere]].concat()).await;
    world
        .status_until("vip", "it is taken over", |s| s.operator.as_deref() == Some("hubbub/hubbub"))
        .await;
    // A mark that was called off is taken from the gateway.
    let mut pod = String::new();
    until("the pool's gateway is made", async || {
        let selector = "--selector=hubbub.dev/pool=vip";
        pod = world.kubectl().run(&["get", "pods", "-n", HOME, selector, "--output=name"]).await;
        !pod.trim().is_empty()
    })
    .await;
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    world.kubectl().run(&["annotate", pod.trim(), "-n", HOME, &format!("{cost}=-1000")]).await;
    until("the mark is taken away", async || {
        let pod = world.kubectl().json(&["get", pod.trim(), "-n", HOME]).await;
        pod["metadata"]["annotations"][cost].is_null()
    })
    .await;
    // Keys in a ConfigMap are looked for.
    let jwks = json!({"configMap": {"name": "keys"}});
    let jwt = json!({"issuer": "https://id.example.com/", "audiences": ["chat"], "jwks": jwks});
    world.patch_room("vip", json!({"spec": {"auth": {"anonymous": "None", "jwt": jwt}}})).await;
    world
        .status_until("vip", "it has no keys", |s| because(s, "KeysResolved", "KeysUnavailable"))
        .await;
    world.delete_room("vip").await;
    until("its pool is gone", async || world.objects("vip").await.is_empty()).await;
    operator.terminate();
    assert!(operator.ended().await.success());

    let user = format!("system:serviceaccount:{HOME}:hubbub-operator");
    let mut log = world.plane.audit_log();
    log.retain(|event| event.user == user);
    let refused: Vec<_> = log.iter().filter(|event| event.status == 403).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    // An apply that makes an object is a patch that needs the right to create it.
    let verbs = |event: &AuditEvent| match event.status {
        201 => vec![event.verb.clone(), "create".to_owned()],
        _ => vec![event.verb.clone()],
    };
    let rights = |event: &AuditEvent| {
        let resource = format!("{}/{}", event.group, event.resource);
        verbs(event).into_iter().map(move |verb| (resource.clone(), verb))
    };
    let used: BTreeSet<(String, String)> = log.iter().flat_map(rights).collect();
    let idle: Vec<_> = granted().into_iter().filter(|right| !used.contains(right)).collect();
    assert!(idle.is_empty(), "never used: {idle:?}\nused: {used:?}");
    let kubectl = world.kubectl();
    let account = format!("--as={user}");
    for (verb, resource) in [
        ("get", "secrets"),
        ("create", "customresourcedefinitions"),
        ("delete", "chatrooms"),
        ("create", "pods"),
        ("create", "clusterrolebindings"),
    ] {
        let answer =
            kubectl.try_run(&["auth", "can-i", verb, resource, "-n", HOME, &account]).await;
        assert!(answer.is_err(), "it may {verb} {resource}");
    }
    let elsewhere =
        kubectl.try_run(&["auth", "can-i", "create", "deployments", "-n", DEMO, &account]).await;
    assert!(elsewhere.is_err(), "its pools are in its own namespace");
}

/// Every right of the manifest as group/resource and verb.
fn granted() -> BTreeSet<(String, String)> {
    let mut granted = BTreeSet::new();
    for document in RIGHTS.split("\n---\n") {
        let document: Value = serde_yaml::from_str(document).unwrap();
        for rule in document["rules"].as_array().into_iter().flatten() {
            let list = |field: &str| -> Vec<String> {
                let texts = rule[field].as_array().unwrap().iter();
                texts.map(|text| text.as_str().unwrap().to_owned()).collect()
            };
            for (group, resource) in list("apiGroups").iter().flat_map(|group| {
                list("resources").into_iter().map(move |resource| (group.clone(), resource))
            }) {
                for verb in list("verbs") {
                    assert!(![group.as_str(), &resource, &verb].contains(&"*"), "no wildcards");
                    granted.insert((format!("{group}/{resource}"), verb));
                }
            }
        }
    }
    granted
}
