//! What `docs/operations.md` says to do by hand when something is left after a removal.

use hubbub_operator::pool;
use hubbub_testkit::{ControlPlane, Controllers};
use serde_json::{Value, json};

use crate::{paste, root};

/// The commands of the page that are for a shell as they stand: the only ones that are marked so.
fn commands() -> String {
    let page = std::fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let mut blocks = page.split("```bash\n").skip(1);
    let commands = blocks.next().unwrap().split_once("```").unwrap().0.to_owned();
    assert!(blocks.next().is_none(), "one block is for bash");
    commands
}

fn labels(release: &str) -> Value {
    let selector = pool::owned_by(release);
    let pairs = selector.split(',').map(|pair| pair.split_once('=').unwrap());
    pairs
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// What an operator leaves in the namespace `hubbub`.
fn left_by(release: &str) -> Vec<Value> {
    let metadata = json!({"name": format!("{release}-default"), "namespace": "hubbub", "labels": labels(release)});
    let pods = json!({"matchLabels": labels(release)});
    let template = json!({
        "metadata": {"labels": labels(release)},
        "spec": {"containers": [{"name": "gateway", "image": "example.com/none"}]},
    });
    let of = |api: &str, kind: &str, spec: Value| json!({"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec});
    vec![
        of("apps/v1", "Deployment", json!({"replicas": 0, "selector": pods, "template": template})),
        of("v1", "Service", json!({"selector": labels(release), "ports": [{"port": 80}]})),
        of("policy/v1", "PodDisruptionBudget", json!({"maxUnavailable": 1, "selector": pods})),
        of("networking.k8s.io/v1", "NetworkPolicy", json!({"podSelector": pods})),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": format!("{release}-operator"), "namespace": "hubbub"},
        }),
    ]
}

#[tokio::test]
async fn what_is_left_goes_by_the_commands_of_the_page() {
    let plane = ControlPlane::start_with(Controllers::On).await;
    let kubectl = plane.kubectl();
    let definition = root().join("manifests/crds/chatrooms.yaml").display().to_string();
    kubectl.run(&["apply", "--server-side", "--filename", &definition]).await;
    kubectl.run(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]).await;
    for namespace in ["hubbub", "team"] {
        kubectl.run(&["create", "namespace", namespace]).await;
    }
    for object in [left_by("hubbub"), left_by("other")].concat() {
        kubectl.apply(&object.to_string()).await;
    }
    for (room, release) in [("lobby", "hubbub"), ("leaving", "hubbub"), ("theirs", "other")] {
        let metadata =
            json!({"name": room, "namespace": "team", "finalizers": ["hubbub.dev/policy"]});
        let room_of = json!({
            "apiVersion": "hubbub.dev/v1alpha1", "kind": "ChatRoom", "metadata": metadata,
            "spec": {"allowedOrigins": ["https://chat.example.com"]},
        });
        kubectl.apply(&room_of.to_string()).await;
        let status = json!({"status": {"operator": format!("hubbub/{release}")}}).to_string();
        let patch = format!("--patch={status}");
        let arguments = ["patch", "chatroom", room, "--namespace=team", "--subresource=status"];
        kubectl.run(&[&arguments[..], &["--type=merge", &patch]].concat()).await;
    }
    kubectl.run(&["delete", "chatroom", "leaving", "--namespace=team", "--wait=false"]).await;

    paste(kubectl, &commands());

    let kinds = "deployments,services,serviceaccounts,poddisruptionbudgets,networkpolicies,leases";
    let left = kubectl.run(&["get", kinds, "--namespace=hubbub", "--output=name"]).await;
    let left: Vec<_> = left.lines().filter(|name| !name.ends_with("/default")).collect();
    assert!(left.iter().all(|name| name.contains("/other-")), "{left:?}");
    assert_eq!(left.len(), left_by("other").len(), "{left:?}");
    let rooms = kubectl.json(&["get", "chatrooms", "--namespace=team"]).await;
    let rooms = rooms["items"].as_array().unwrap();
    let names: Vec<_> =
        rooms.iter().map(|room| room["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["lobby", "theirs"], "the one that was being deleted is gone");
    assert!(rooms[0]["metadata"]["finalizers"].is_null() && rooms[0]["status"].is_null());
    assert_eq!(rooms[1]["metadata"]["finalizers"], json!(["hubbub.dev/policy"]));
    assert_eq!(rooms[1]["status"]["operator"], "hubbub/other");
}
