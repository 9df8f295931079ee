//! The life of a release, from `helm install` to `helm uninstall`, in a namespace that allows only what is restricted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use hubbub_e2e::{PAGE, Release, World, slowly};
use hubbub_testkit::Member;
use serde_json::{Value, json};

const OTHER_PAGE: &str = "https://admin.example.com";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_from_install_to_uninstall() {
    let world = World::enter().await;
    let release = Release::install(&world, "life", json!({})).await;
    assert!(!release.notes.contains("would violate"), "Pod Security warns: {}", release.notes);
    let last = release.notes.trim_end().lines().last().unwrap();
    assert!(last.contains("kubectl apply"), "the notes end with what to type next: {last}");

    helm_test_joins_sends_and_receives(&world, &release).await;
    members_on_two_gateways_chat(&release).await;
    a_stranger_is_refused_and_told_why(&release).await;
    an_origin_that_is_removed_goes_alone(&release).await;
    gateways_have_neither_token_nor_shell(&world, &release).await;
    members_of_a_deleted_room_are_told(&release).await;
    what_is_kept_is_all_that_is_left(&world, release).await;
}

async fn helm_test_joins_sends_and_receives(world: &World, release: &Release<'_>) {
    let told = world
        .helm
        .run(&["test", Release::NAME, "--namespace", release.namespace(), "--timeout=5m"])
        .await;
    assert!(told.contains("Succeeded"), "{told}");
}

async fn members_on_two_gateways_chat(release: &Release<'_>) {
    release.room("lobby", json!({"allowedOrigins": [PAGE, OTHER_PAGE]})).await;
    let members = release.join_on("lobby", 2).await;
    for (number, member) in members.iter().enumerate() {
        let text = format!("from {number}");
        member.send(&text).await;
        for hearer in &members {
            hearer.hears(&text).await;
        }
    }
}

async fn a_stranger_is_refused_and_told_why(release: &Release<'_>) {
    let stranger = "https://chat.example.com.evil.com";
    let refused = Member::join(release.address(), &release.path("lobby"), Some(stranger)).await;
    let answer = refused.unwrap_err();
    assert_eq!(answer.status, 403, "{answer:?}");
    let problem: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(problem["reason"], "origin_not_allowed", "{problem}");
}

async fn an_origin_that_is_removed_goes_alone(release: &Release<'_>) {
    let stays = release.join("lobby", PAGE).await;
    let goes = release.join("lobby", OTHER_PAGE).await;
    let pods = release.gateways().await;
    release.room("lobby", json!({})).await;
    assert_eq!(goes.ended().await, Some(4403));
    stays.send("still here").await;
    stays.hears("still here").await;
    assert_eq!(stays.close_code(), None);
    assert_eq!(release.gateways().await, pods, "a change of a room restarts nothing");
    // One more is as quiet.
    release
        .room("lobby", json!({"allowedOrigins": [PAGE, OTHER_PAGE, "https://new.example.com"]}))
        .await;
    let _joins = release.join("lobby", "https://new.example.com").await;
    assert_eq!(stays.close_code(), None);
    assert_eq!(release.gateways().await, pods, "a change of a room restarts nothing");
}

async fn gateways_have_neither_token_nor_shell(world: &World, release: &Release<'_>) {
    let pods = release.json(&["get", "pods", "--selector=hubbub.dev/pool=default"]).await;
    for pod in pods["items"].as_array().unwrap() {
        assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
        let volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        assert!(volumes.iter().all(|volume| volume["projected"].is_null()), "{volumes:?}");
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 40, "30 s of drain and 10");
        let name = pod["metadata"]["name"].as_str().unwrap();
        let namespace = format!("--namespace={}", release.namespace());
        for shell in ["sh", "/bin/sh", "bash", "/busybox/sh"] {
            let arguments = ["exec", name, &namespace, "--", shell, "-c", "true"];
            let said = world.kubectl().try_run(&arguments).await.unwrap_err();
            assert!(said.contains("not found") || said.contains("no such file"), "{said}");
        }
        // What can be run there is the program itself.
        let version = ["exec", name, &namespace, "--", "hubbub-gateway", "--version"];
        assert!(world.kubectl().run(&version).await.starts_with("hubbub-gateway"));
    }
}

async fn members_of_a_deleted_room_are_told(release: &Release<'_>) {
    let member = release.join("lobby", PAGE).await;
    release.run(&["delete", "chatroom", "lobby", "--timeout=60s"]).await;
    assert_eq!(member.ended().await, Some(4404));
    let refused = Member::join(release.address(), &release.path("lobby"), Some(PAGE)).await;
    assert_eq!(refused.unwrap_err().status, 404);
}

async fn what_is_kept_is_all_that_is_left(world: &World, release: Release<'_>) {
    // A room that outlives the release, as the definition does.
    release.room("kept", json!({})).await;
    let told = release.uninstall().await;
    assert!(told.contains("chatrooms.hubbub.dev"), "Helm says what it keeps: {told}");
    let namespace = release.namespace().to_owned();
    let kubectl = world.kubectl();
    // Pods drain, and what they need goes after them.
    slowly("the namespace is as it was", || async {
        let kinds = "all,configmaps,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets,leases,secrets,persistentvolumeclaims";
        let left = kubectl.json(&["get", kinds, "--namespace", &namespace]).await;
        let left = left["items"].as_array().cloned().unwrap_or_default();
        let name = |object: &Value| {
            let metadata = &object["metadata"];
            format!("{}/{}", object["kind"].as_str().unwrap_or_default(), metadata["name"].as_str().unwrap_or_default())
        };
        let ours: Vec<_> = left.iter().map(name).filter(|name| !matches!(name.as_str(), "ConfigMap/kube-root-ca.crt" | "ServiceAccount/default")).collect();
        if ours.is_empty() { Ok(()) } else { Err(format!("{ours:?}")) }
    })
    .await;
    let roles = kubectl
        .run(&[
            "get",
            "clusterroles,clusterrolebindings",
            "--selector=app.kubernetes.io/part-of=hubbub",
            "--output=name",
        ])
        .await;
    assert!(!roles.contains(&namespace), "rights in the whole cluster are gone: {roles}");
    let room = kubectl.json(&["get", "chatroom", "kept", "--namespace", &namespace]).await;
    assert!(room["metadata"]["finalizers"].is_null(), "nobody would remove it any more: {room}");
    assert!(room["status"].is_null(), "nor say that nobody serves it: {room}");
    // And so it can be deleted, with its namespace.
    kubectl.run(&["delete", "chatroom", "kept", "--namespace", &namespace, "--timeout=30s"]).await;
}
