//! Traces of the installed product in a Jaeger that runs beside it, through the policies that bound where gateways may go.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use hubbub_e2e::{Jaeger, Release, World};
use hubbub_testkit::JaegerSpan;
use serde_json::json;

const GATEWAY: &str = "hubbub-gateway";

fn pods(spans: &[JaegerSpan]) -> BTreeSet<String> {
    spans.iter().map(|span| span.resource("k8s.pod.name")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_over_two_pods_is_one_trace_that_names_them() {
    let world = World::enter().await;
    let jaeger = Jaeger::install(&world).await;
    let values = json!({
        "traces": {"endpoint": jaeger.endpoint(), "messageRatio": 1},
        "pools": {"default": {"drain": {"settle": "1s", "window": "1s", "deadline": "5s"}}},
    });
    let release = Release::install(&world, "traced", values).await;
    release.room("lobby", json!({})).await;
    let members = release.join_on("lobby", 2).await;
    let room = format!("{}/lobby", release.namespace());
    members[0].send("who saw this?").await;
    for member in &members {
        member.hears("who saw this?").await;
    }

    let of_room = [("hubbub.room", room.as_str())];
    let process = "process hubbub.room.{namespace}.{name}";
    let spans = jaeger
        .api
        .until(GATEWAY, &of_room, |spans| {
            spans.iter().filter(|span| span.name == process).count() == 2
        })
        .await;
    let processed: Vec<_> = spans.iter().filter(|span| span.name == process).cloned().collect();
    let trace = jaeger.api.trace(&processed[0].trace).await;
    assert_eq!(trace.len(), 3, "one publish, and each gateway's way of it: {trace:#?}");
    assert_eq!(pods(&processed), release.gateways().await);
    let heard: usize =
        processed.iter().map(|span| span.tag("hubbub.delivered").parse::<usize>().unwrap()).sum();
    assert_eq!(heard, members.len());
    let nodes = world.kubectl().run(&["get", "nodes", "--output=name"]).await;
    for span in &trace {
        assert_eq!(span.resource("k8s.namespace.name"), release.namespace());
        assert!(nodes.contains(&span.resource("k8s.node.name")), "{span:?}");
        assert_ne!(span.resource("service.version"), "");
        assert_ne!(span.resource("service.instance.id"), "");
    }

    // The operator's look at the room, and the drain of a gateway that is deleted.
    let look = jaeger.api.one("hubbub-operator", "reconcile", &of_room).await;
    assert!(look.resource("k8s.pod.name").starts_with("hubbub-operator-"), "{look:?}");
    let leaving = release.gateways().await.pop_first().unwrap();
    release.run(&["delete", "pod", &leaving]).await;
    let drains = jaeger.api.until(GATEWAY, &[], |spans| {
        spans.iter().any(|span| span.name == "drain" && span.resource("k8s.pod.name") == leaving)
    });
    let drains = drains.await;
    let drain = drains.iter().find(|span| span.name == "drain").unwrap();
    assert_eq!(drain.tag("hubbub.drain.cut"), "0");
    let moved = jaeger.api.until(GATEWAY, &[("hubbub.close.code", "1012")], |ends| {
        ends.len().to_string() == drain.tag("hubbub.drain.moved")
    });
    assert_eq!(pods(&moved.await), BTreeSet::from([leaving]));
}
