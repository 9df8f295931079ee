//! NATS as a cluster has it: three servers of the chart, or one of the user's own, with TLS and logins.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;

use hubbub_e2e::{PAGE, Release, World};
use hubbub_testkit::{Certificates, Member};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_work_with_whatever_nats_there_is() {
    let world = World::enter().await;
    // One after the other, because each operator looks after all namespaces.
    three_servers_that_are_restarted_cost_nobody_the_room(&world).await;
    a_nats_of_ones_own_with_tls_and_a_login(&world).await;
}

/// Servers of the chart keep what they hold with the pod, so when each has been restarted, the policies are lost.
async fn three_servers_that_are_restarted_cost_nobody_the_room(world: &World) {
    let values = json!({
        "nats": {"server": {"replicas": 3}},
        "pools": {"default": {"drain": {"settle": "1s", "window": "2s", "deadline": "5s"}}},
    });
    let release = Release::install(world, "three", values).await;
    release.room("lobby", json!({})).await;
    let members = release.join_on("lobby", 2).await;
    all_hear(&members, "before").await;

    release.run(&["rollout", "restart", "statefulset/hubbub-nats"]).await;
    release.run(&["rollout", "status", "statefulset/hubbub-nats", "--timeout=5m"]).await;
    // Published, and served by every gateway: so all have read what the servers hold now.
    release.room("later", json!({})).await;
    release.run(&["wait", "--for=condition=Ready", "chatroom/lobby", "--timeout=5m"]).await;
    assert!(members.iter().all(|member| !member.has_ended()), "nobody had to leave");
    all_hear(&members, "after").await;
    let newcomer = release.join("lobby", PAGE).await;
    newcomer.send("as before").await;
    members[0].hears("as before").await;

    // What is deleted now is gone, so the operator has not lost sight of it.
    release.run(&["delete", "chatroom", "lobby", "--timeout=60s"]).await;
    for member in &members {
        assert_eq!(member.ended().await, Some(4404));
    }
}

async fn a_nats_of_ones_own_with_tls_and_a_login(world: &World) {
    let elsewhere = world.restricted_namespace("messaging").await;
    let host = format!("nats.{}.svc", elsewhere.name());
    let certificates = Certificates::for_server(&[&host]);
    let read = |path| fs::read_to_string(path).unwrap();
    let objects = own_nats(world, &read(certificates.server()), &read(certificates.server_key()));
    for mut object in objects {
        object["metadata"]["namespace"] = json!(elsewhere.name());
        world.kubectl().apply(&object.to_string()).await;
    }
    let authority = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "nats-authority"},
        "stringData": {"ca.crt": read(certificates.authority())},
    });
    let values = json!({"nats": {
        "url": format!("tls://hubbub:s3cret@{host}:4222"),
        "caSecret": {"name": "nats-authority", "key": "ca.crt"},
    }});
    let release = Release::install_with(world, "own", values, &[authority]).await;
    let servers = release.json(&["get", "statefulsets"]).await;
    assert_eq!(servers["items"], json!([]), "the chart brings none of its own then");
    release.room("lobby", json!({})).await;
    let members = release.join_on("lobby", 2).await;
    all_hear(&members, "by way of another namespace").await;
}

async fn all_hear(members: &[Member], text: &str) {
    members[0].send(text).await;
    for member in members {
        member.hears(text).await;
    }
}

/// A server that asks for TLS and a password, and a Service to it.
fn own_nats(world: &World, certificate: &str, key: &str) -> [Value; 3] {
    let labels = json!({"app": "nats"});
    let config = "
        port: 4222
        http: 8222
        jetstream { store_dir: /data }
        tls { cert_file: /etc/nats/tls.crt, key_file: /etc/nats/tls.key }
        authorization { user: hubbub, password: s3cret }
    ";
    let files = json!({"nats.conf": config, "tls.crt": certificate, "tls.key": key});
    let pod = json!({
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": 65532, "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [{
            "name": "nats",
            "image": world.nats_image,
            "imagePullPolicy": "IfNotPresent",
            "args": ["--config", "/etc/nats/nats.conf"],
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8222}},
            "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [
                {"name": "files", "mountPath": "/etc/nats"}, {"name": "data", "mountPath": "/data"},
            ],
        }],
        "volumes": [
            {"name": "files", "secret": {"secretName": "nats"}}, {"name": "data", "emptyDir": {}},
        ],
    });
    [
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "nats"}, "stringData": files,
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "nats"},
            "spec": {"selector": labels, "ports": [{"port": 4222}]},
        }),
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "nats", "labels": labels},
            "spec": pod,
        }),
    ]
}
