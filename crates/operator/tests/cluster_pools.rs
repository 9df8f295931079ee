//! Pools on a real API server: there while a room names them, as declared whatever somebody does to them, and quiet when
//! nothing happens.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use hubbub_api::names::BUCKET;
use hubbub_operator::{operator::Config, settings::Settings};
use hubbub_testkit::{Controllers, Member, http};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use support::{Place, World, run, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_there_while_a_room_names_it_and_default_always() {
    let world = Place::open(Controllers::Off).await;
    let operator = world.operator().await;
    until("default is there without a room", async || world.objects("default").await.len() == 5)
        .await;
    world.room("loud", "loud").await;
    until("its pool is there", async || world.objects("loud").await.len() == 5).await;

    // A room that moves stays in its old pool until somebody serves it in the new one.
    let _loud = world.gateway("loud-1", "loud").await;
    world.ready("loud").await;
    let patch = json!({"spec": {"gateways": {"pool": "calm"}}});
    world.patch_room("loud", patch).await;
    until("the new pool is there", async || world.objects("calm").await.len() == 5).await;
    world
        .status_until("loud", "it waits for its new pool", |s| {
            support::because(s, "Programmed", "PoolStarting")
        })
        .await;
    assert_eq!(world.policy("loud").await.unwrap().pool, "loud");
    let _calm = world.gateway("calm-1", "calm").await;
    world.ready("loud").await;
    assert_eq!(world.policy("loud").await.unwrap().pool, "calm");
    until("the old pool is gone", async || world.objects("loud").await.is_empty()).await;

    world.delete_room("loud").await;
    until("its pool is gone", async || world.objects("calm").await.is_empty()).await;
    assert_eq!(world.objects("default").await.len(), 5);

    // What nobody was there to sweep is swept at the next start.
    world.room("late", "late").await;
    until("its pool is there", async || world.objects("late").await.len() == 5).await;
    operator.kill().await;
    world.patch_room("late", json!({"metadata": {"finalizers": null}})).await;
    world.delete_room("late").await;
    let operator = world.operator().await;
    until("the orphans are swept", async || world.objects("late").await.is_empty()).await;
    until("the policy is swept", async || world.policy("late").await.is_none()).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_changes_or_deletes_comes_back() {
    let world = Place::open(Controllers::Off).await;
    let operator = world.operator().await;
    let _gateway = world.gateway("first", "default").await;
    world.room("lobby", "default").await;
    world.ready("lobby").await;
    let objects = world.objects("default").await;
    assert_eq!(objects.len(), 5, "{objects:?}");
    for object in &objects {
        world.kubectl().run(&["delete", object, "-n", &world.home]).await;
        until("it comes back", async || world.objects("default").await.contains(object)).await;
    }
    let name = "hubbub-default";
    for (object, patch, path, wanted) in [
        ("deployment", r#"{"spec": {"replicas": 7}}"#, "{.spec.replicas}", "1"),
        (
            "deployment",
            r#"{"spec": {"template": {"spec": {"automountServiceAccountToken": true}}}}"#,
            "{.spec.template.spec.automountServiceAccountToken}",
            "false",
        ),
        (
            "service",
            r#"{"spec": {"selector": {"hubbub.dev/pool": "other"}}}"#,
            "{.spec.selector.hubbub\\.dev/pool}",
            "default",
        ),
        (
            "poddisruptionbudget",
            r#"{"spec": {"maxUnavailable": 5}}"#,
            "{.spec.maxUnavailable}",
            "1",
        ),
        (
            "serviceaccount",
            r#"{"automountServiceAccountToken": true}"#,
            "{.automountServiceAccountToken}",
            "false",
        ),
        ("networkpolicy", r#"{"spec": {"egress": []}}"#, "{.spec.egress[0].ports[0].port}", "53"),
        (
            "networkpolicy",
            r#"{"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}}"#,
            "{.metadata.labels.app\\.kubernetes\\.io/managed-by}",
            "hubbub-operator",
        ),
    ] {
        world.kubectl().run(&["patch", object, name, "-n", &world.home, "--patch", patch]).await;
        let output = format!("--output=jsonpath={path}");
        until(&format!("{object} {path} is {wanted} again"), async || {
            world.kubectl().run(&["get", object, name, "-n", &world.home, &output]).await == wanted
        })
        .await;
    }
    // And in NATS.
    let demo = &world.demo;
    let store =
        nats::jetstream::new(world.nats.client().await).get_key_value(BUCKET).await.unwrap();
    store.delete(format!("{demo}.lobby")).await.unwrap();
    until("the policy comes back", async || world.policy("lobby").await.is_some()).await;
    store.put(format!("{demo}.lobby"), "garbage".into()).await.unwrap();
    until("the policy is good again", async || {
        let value = store.get(format!("{demo}.lobby")).await.unwrap().unwrap();
        hubbub_api::RoomPolicy::from_json(&value).is_ok()
    })
    .await;
    store.put(format!("{demo}.stranger"), "garbage".into()).await.unwrap();
    until("a policy without a room is removed", async || {
        store.get(format!("{demo}.stranger")).await.unwrap().is_none()
    })
    .await;
    world.ready("lobby").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_gateways_that_do_not_come_up_are_told_of() {
    // Without controllers, so that the Deployment says what the test has it say.
    let world = Place::open(Controllers::Off).await;
    let operator = world.operator().await;
    until("default is there", async || world.objects("default").await.len() == 5).await;
    let stuck = "hubbub_operator_rollout_stuck{pool=\"default\"}";
    until("nothing is stuck", async || metric(operator.admin, stuck).await == 0.0).await;
    let deployments: Api<Deployment> = Api::namespaced(world.client.clone(), &world.home);
    for (status, expected) in [("False", 1.0), ("True", 0.0)] {
        let progress = json!({
            "type": "Progressing", "status": status, "reason": "ProgressDeadlineExceeded",
            "message": "ReplicaSet \"hubbub-default-1\" has timed out progressing.",
        });
        let patch = Patch::Merge(json!({"status": {"conditions": [progress]}}));
        let parameters = PatchParams::default();
        deployments.patch_status("hubbub-default", &parameters, &patch).await.unwrap();
        until("it is told", async || metric(operator.admin, stuck).await == expected).await;
    }
    operator.stop().await;
}

/// The Service of a pool that is there becomes that of one that speaks TLS.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_given_its_certificates() {
    let world = Place::open(Controllers::Off).await;
    let operator = world.operator().await;
    until("default is there", async || world.objects("default").await.len() == 5).await;
    let is = async |object: &str, path: &str| {
        let output = format!("--output=jsonpath={path}");
        world.kubectl().run(&["get", object, "hubbub-default", "-n", &world.home, &output]).await
    };
    let ports = "{range .spec.ports[*]}{.name} {.port} {.appProtocol};{end}";
    assert_eq!(is("service", ports).await, "http 80 kubernetes.io/ws;");
    operator.stop().await;

    let settings = format!(
        "nats: {{url: '{}', clientCertificateSecret: {{name: gateway-nats}}}}\n\
         pools: {{default: {{min: 1, image: 'hubbub-gateway:test', tls: {{secretName: chat-tls}}}}}}",
        world.nats.url()
    );
    let settings = Settings::parse(&settings).unwrap();
    let operator = run(Config { settings, ..world.config(world.client.clone()) }).await;
    until("its Service speaks TLS", async || {
        is("service", ports).await == "https 80 kubernetes.io/wss;"
    })
    .await;
    let volumes = "{.spec.template.spec.volumes[*].secret.secretName}";
    until("its pods have the secrets", async || {
        is("deployment", volumes).await == "gateway-nats chat-tls"
    })
    .await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_grows_with_its_members_as_far_as_its_rooms_let_it() {
    let world = Place::open(Controllers::Off).await;
    let operator = world.operator().await;
    let gateway = world.gateway("first", "default").await;
    world.room("lobby", "default").await;
    world.ready("lobby").await;
    let patch = json!({"spec": {"gateways": {"connectionsPerGateway": 2, "max": 3}}});
    world.patch_room("lobby", patch).await;
    let replicas = async || {
        let path = "--output=jsonpath={.spec.replicas}";
        world.kubectl().run(&["get", "deployment", "hubbub-default", "-n", &world.home, path]).await
    };
    assert_eq!(replicas().await, "1");
    let mut members = Vec::new();
    for (joined, wanted) in [(3, "2"), (9, "3")] {
        while members.len() < joined {
            let member = Member::join(gateway.listen(), &world.path("lobby"), None).await;
            members.push(member.unwrap());
        }
        until(&format!("{joined} members have {wanted} gateways"), async || {
            replicas().await == wanted
        })
        .await;
    }
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_while_nothing_happens() {
    let world = World::start().await;
    let operator = world.operator().await;
    let _gateway = world.gateway("first", "default").await;
    for n in 0..10 {
        world.room(&format!("room-{n}"), "default").await;
    }
    for n in 0..10 {
        world.ready(&format!("room-{n}")).await;
    }
    let heard = async || metric(operator.admin, "hubbub_operator_reports_total").await;
    let writes = || world.plane.audit_log().iter().filter(|event| event.is_write()).count();
    // What was still on its way at first has arrived after some reports more; from then on it must stay as it is.
    let first = heard().await;
    until("some reports more have been heard", async || heard().await >= first + 5.0).await;
    let (before, first) = (writes(), heard().await);
    until("ten reports more have been heard", async || heard().await >= first + 10.0).await;
    let log = world.plane.audit_log();
    let written: Vec<_> = log.iter().filter(|event| event.is_write()).skip(before).collect();
    assert!(written.is_empty(), "{written:#?}");
    operator.stop().await;
}

async fn metric(admin: std::net::SocketAddr, name: &str) -> f64 {
    let answer = http::get(admin, "/metrics").await;
    let value = answer.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name} in {}", answer.body)).parse().unwrap()
}
