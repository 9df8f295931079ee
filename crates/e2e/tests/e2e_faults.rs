//! What goes wrong in a cluster, one after the other, while members chat: the operator goes, NATS restarts, a gateway dies,
//! a node is drained, and the release is upgraded.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use hubbub_e2e::{PAGE, Release, World, chart_of_version, slowly};
use hubbub_testkit::Member;
use serde_json::{Value, json};

/// The chart of the release before it is upgraded.
const OLD_CHART: &str = "hubbub-0.0.1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_go_on_whatever_goes_away() {
    let world = World::enter().await;
    let old = chart_of_version("0.0.1");
    // Short drains: every gateway has one here, one after the other.
    let drain = json!({"settle": "1s", "window": "2s", "deadline": "10s"});
    let values = json!({"pools": {"default": {"drain": drain}}});
    let mut release = Release::install_chart(&world, old.path(), "faults", values).await;
    release.room("lobby", json!({})).await;
    let members = release.join_on("lobby", 2).await;

    without_an_operator_members_chat_and_changes_wait(&release, &members).await;
    nats_restarts_and_members_stay(&release, &members).await;
    an_upgrade_restarts_only_what_it_changes(&mut release, &members).await;
    a_gateway_that_is_killed_is_replaced(&release, &members).await;
    drop(members);
    an_upgrade_of_a_pool_restarts_its_gateways(&mut release).await;
    the_budget_refuses_a_second_eviction(&world, &release).await;
    a_drained_node_moves_members_one_gateway_at_a_time(&world, &release).await;
}

/// Says something and waits until all that are still there hear it. What is said while NATS is away may be lost, so it is said
/// again.
async fn all_hear(members: &[&Member], text: &str) {
    slowly("everybody hears", || async {
        members[0].send(text).await;
        let deaf = members.iter().filter(|member| !member.has_heard(text)).count();
        if deaf == 0 {
            Ok(())
        } else {
            Err(format!("{deaf} of {} have not heard {text:?}", members.len()))
        }
    })
    .await;
}

async fn without_an_operator_members_chat_and_changes_wait(
    release: &Release<'_>,
    members: &[Member],
) {
    let present: Vec<_> = members.iter().collect();
    let gateways = release.gateways().await;
    release.run(&["scale", "deployment/hubbub-operator", "--replicas=0"]).await;
    release
        .run(&[
            "wait",
            "--for=delete",
            "pod",
            "--selector=app.kubernetes.io/name=hubbub-operator",
            "--timeout=2m",
        ])
        .await;
    all_hear(&present, "without an operator").await;
    // A change waits.
    release
        .run(&[
            "patch",
            "chatroom",
            "lobby",
            "--type=merge",
            "--patch",
            r#"{"spec":{"limits":{"maxMessageBytes":2048}}}"#,
        ])
        .await;
    release.run(&["scale", "deployment/hubbub-operator", "--replicas=2"]).await;
    slowly("the operator is back and has made up for it", || async {
        let room = release.json(&["get", "chatroom", "lobby"]).await;
        let ready = room["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = ready.iter().any(|c| {
            c["type"] == "Ready"
                && c["status"] == "True"
                && c["observedGeneration"] == room["metadata"]["generation"]
        });
        if ready { Ok(()) } else { Err(room["status"].to_string()) }
    })
    .await;
    all_hear(&present, &"x".repeat(2_000)).await;
    assert_eq!(
        release.gateways().await,
        gateways,
        "a new operator takes over what the old one has made"
    );
    assert!(members.iter().all(|member| !member.has_ended()));
}

async fn nats_restarts_and_members_stay(release: &Release<'_>, members: &[Member]) {
    let present: Vec<_> = members.iter().collect();
    release.run(&["delete", "pod", "hubbub-nats-0", "--timeout=2m"]).await;
    release.run(&["rollout", "status", "statefulset/hubbub-nats", "--timeout=3m"]).await;
    all_hear(&present, "NATS is back").await;
    assert!(members.iter().all(|member| !member.has_ended()), "members stay while NATS is away");
    // Without a volume the policies were gone, too: the operator has published them anew.
    release.room("later", json!({})).await;
    let newcomer = release.join("later", PAGE).await;
    newcomer.send("hello").await;
    newcomer.hears("hello").await;
}

/// The pods of each kind that are not on their way out, by their UIDs: another UID is another pod.
#[derive(Debug, PartialEq, Eq)]
struct Pods {
    operator: BTreeSet<String>,
    nats: BTreeSet<String>,
    gateways: BTreeSet<String>,
}

impl Pods {
    async fn of(release: &Release<'_>) -> Self {
        let by = async |selector: &str| -> BTreeSet<String> {
            let pods = release.json(&["get", "pods", &format!("--selector={selector}")]).await;
            let pods = pods["items"].as_array().unwrap();
            let stay = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
            stay.map(|pod| pod["metadata"]["uid"].as_str().unwrap().to_owned()).collect()
        };
        let pods = Self {
            operator: by("app.kubernetes.io/name=hubbub-operator").await,
            nats: by("app.kubernetes.io/name=hubbub-nats").await,
            gateways: by("hubbub.dev/pool=default").await,
        };
        assert_eq!((pods.operator.len(), pods.nats.len()), (2, 1), "{pods:?}");
        assert!(pods.gateways.len() >= 2, "{pods:?}");
        pods
    }
}

/// The pods after an upgrade, when the operator that now leads has had its look at the release.
async fn pods_after_upgrade(release: &mut Release<'_>, room: &str, values: Value) -> Pods {
    release.upgrade(values).await;
    release.run(&["rollout", "status", "deployment/hubbub-operator", "--timeout=3m"]).await;
    // It is ready once the operator has published it and seen it at the gateways.
    release.room(room, json!({})).await;
    release.rolled_out().await;
    Pods::of(release).await
}

async fn an_upgrade_restarts_only_what_it_changes(release: &mut Release<'_>, members: &[Member]) {
    // The release is of an older chart until now: of another version, and the same otherwise.
    let before = Pods::of(release).await;
    let labels = release.json(&["get", "deployment", "hubbub-operator"]).await;
    assert_eq!(labels["metadata"]["labels"]["helm.sh/chart"], OLD_CHART);
    let after = pods_after_upgrade(release, "after-version", json!({})).await;
    let labels = release.json(&["get", "deployment", "hubbub-operator"]).await;
    assert_ne!(labels["metadata"]["labels"]["helm.sh/chart"], OLD_CHART);
    assert_eq!(before, after, "a chart's version is no concern of any pod");

    let before = after;
    let log = json!({"operator": {"log": "debug"}});
    let after = pods_after_upgrade(release, "after-operator", log).await;
    assert!(before.operator.is_disjoint(&after.operator), "what it logs is read at its start");
    assert_eq!(before.nats, after.nats, "what the operator logs is no concern of NATS");
    assert_eq!(before.gateways, after.gateways, "nor of gateways");

    let before = after;
    let nats = json!({"nats": {"server": {"podAnnotations": {"example.com/restarted": "yes"}}}});
    let after = pods_after_upgrade(release, "after-nats", nats).await;
    assert!(before.nats.is_disjoint(&after.nats), "NATS has its annotation");
    assert_eq!(before.operator, after.operator, "what NATS is annotated with is its own concern");
    assert_eq!(before.gateways, after.gateways);
    assert!(members.iter().all(|member| !member.has_ended()));
}

async fn an_upgrade_of_a_pool_restarts_its_gateways(release: &mut Release<'_>) {
    let members = release.join_on("lobby", 2).await;
    let before = Pods::of(release).await;
    let pool = json!({"pools": {"default": {"podAnnotations": {"example.com/restarted": "yes"}}}});
    release.upgrade(pool).await;
    release.run(&["rollout", "status", "deployment/hubbub-operator", "--timeout=3m"]).await;
    slowly("every gateway is another one", || async {
        let gateways = Pods::of(release).await.gateways;
        let old = before.gateways.intersection(&gateways).count();
        if old == 0 { Ok(()) } else { Err(format!("{old} old gateways")) }
    })
    .await;
    release.rolled_out().await;
    let after = Pods::of(release).await;
    assert_eq!(before.nats, after.nats, "gateways are no concern of NATS");
    assert!(before.operator.is_disjoint(&after.operator), "its settings are read at its start");
    slowly("everybody has had to move", || async {
        let there = members.iter().filter(|member| !member.has_ended()).count();
        if there == 0 { Ok(()) } else { Err(format!("{there} are still there")) }
    })
    .await;
    assert!(members.iter().all(|member| member.close_code() == Some(1012)), "and was told");
}

async fn a_gateway_that_is_killed_is_replaced(release: &Release<'_>, members: &[Member]) {
    let counts = release.members("lobby").await;
    let victim = counts.keys().next().unwrap().clone();
    let lost = usize::try_from(counts[&victim]).unwrap();
    let restarts = restarts(release, &victim).await;
    if kill9(&victim) {
        slowly("its container is started again", || async {
            let now = self::restarts(release, &victim).await;
            if now > restarts { Ok(()) } else { Err(format!("{now:?} restarts")) }
        })
        .await;
    } else {
        // A process of another machine cannot be killed from here; this comes nearest to it.
        println!("{victim} does not run on this machine, so its pod is deleted by force");
        release.run(&["delete", "pod", &victim, "--grace-period=0", "--force"]).await;
    }
    slowly("its members have seen the end", || async {
        let ended = members.iter().filter(|member| member.has_ended()).count();
        if ended >= lost { Ok(()) } else { Err(format!("{ended} of {lost}")) }
    })
    .await;
    let present: Vec<_> = members.iter().filter(|member| !member.has_ended()).collect();
    all_hear(&present, "one gateway fewer").await;
    release.rolled_out().await;
    let newcomers = release.join_on("lobby", 2).await;
    all_hear(&newcomers.iter().collect::<Vec<_>>(), "as before").await;
}

/// Kills the gateway of a pod as the kernel would for want of memory, if it runs on this machine.
fn kill9(pod: &str) -> bool {
    let variable = format!("HUBBUB_POD_NAME={pod}");
    let runs_in_it = |process: &Path| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        // As long as the kernel keeps names.
        name.trim_end() == "hubbub-gateway"
            && environment.split(|byte| *byte == 0).any(|one| one == variable.as_bytes())
    };
    let mut processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let Some(process) = processes.find(|process| runs_in_it(process)) else { return false };
    let id = process.file_name().unwrap();
    assert!(Command::new("kill").arg("-KILL").arg(id).status().unwrap().success());
    true
}

async fn restarts(release: &Release<'_>, pod: &str) -> Option<u64> {
    let pod = release.json(&["get", "pod", pod]).await;
    pod["status"]["containerStatuses"][0]["restartCount"].as_u64()
}

/// Who drains nodes asks for evictions, and while one gateway is on its way out no second one may go.
async fn the_budget_refuses_a_second_eviction(world: &World, release: &Release<'_>) {
    let evict = async |pod: &String| {
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": pod, "namespace": release.namespace()},
        });
        let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", release.namespace());
        let arguments = ["create", "--raw", &path, "--filename=-"];
        world.kubectl().try_feed(&arguments, &eviction.to_string()).await
    };
    let gateways: Vec<_> = release.gateways().await.into_iter().collect();
    evict(&gateways[0]).await.unwrap();
    let refused = evict(&gateways[1]).await.unwrap_err();
    assert!(refused.contains("disruption budget"), "{refused}");
    release.rolled_out().await;
}

async fn a_drained_node_moves_members_one_gateway_at_a_time(world: &World, release: &Release<'_>) {
    let nodes = world.kubectl().json(&["get", "nodes"]).await;
    let nodes = nodes["items"].as_array().unwrap();
    if nodes.len() < 2 {
        println!("this cluster has one node, so none is drained");
        return;
    }
    let members = release.join_on("lobby", 2).await;
    let pods = release.json(&["get", "pods", "--selector=hubbub.dev/pool=default"]).await;
    let node = pods["items"][0]["spec"]["nodeName"].as_str().unwrap().to_owned();
    let selector = format!("--pod-selector=app.kubernetes.io/instance={}", Release::NAME);
    let drained = world
        .kubectl()
        .try_run(&[
            "drain",
            &node,
            "--delete-emptydir-data",
            "--ignore-daemonsets",
            "--timeout=4m",
            &selector,
        ])
        .await;
    world.kubectl().run(&["uncordon", &node]).await;
    drained.unwrap_or_else(|error| panic!("the node cannot be drained: {error}"));
    for member in members.iter().filter(|member| member.has_ended()) {
        assert_eq!(member.close_code(), Some(1012), "who has to move is told");
    }
    assert!(members.iter().any(Member::has_ended), "somebody had to move");
    release.rolled_out().await;
}
