//! What the chart tells after an installation.

use std::process::Command;

use hubbub_e2e::chart;
use hubbub_testkit::{ControlPlane, Controllers};
use serde_json::{Value, json};

use crate::{paste, root, values_file, variable};

/// The notes. Helm 4 renders them without a cluster.
fn notes(values: &Value) -> String {
    let file = values_file(values);
    let mut command = Command::new(variable("HUBBUB_HELM4"));
    command.args(["install", "hubbub"]).arg(chart()).args(["--namespace", "chat", "--values"]);
    let output = command.arg(file.path()).arg("--dry-run=client").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (_, notes) = text.split_once("NOTES:\n").unwrap_or_else(|| panic!("no notes: {text}"));
    notes.to_owned()
}

/// The last lines that are indented, as they stand: what a reader copies.
fn last_command(notes: &str) -> String {
    let lines: Vec<_> = notes.trim_end().lines().collect();
    let above = lines.iter().rposition(|line| !line.starts_with("    ")).unwrap();
    lines[above + 1..].join("\n")
}

#[tokio::test]
async fn what_the_notes_end_with_can_be_pasted() {
    let plane = ControlPlane::start_with(Controllers::Off).await;
    let kubectl = plane.kubectl();
    let definition = root().join("manifests/crds/chatrooms.yaml").display().to_string();
    kubectl.run(&["apply", "--server-side", "--filename", &definition]).await;
    kubectl.run(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]).await;
    kubectl.run(&["create", "namespace", "demo"]).await;
    for (values, namespace) in [
        (json!({}), "default"),
        (json!({"operator": {"roomNamespaces": ["demo", "team"]}}), "demo"),
    ] {
        let command = last_command(&notes(&values));
        assert!(command.contains("kubectl apply"), "{command}");
        paste(kubectl, &command);
        let room = kubectl.json(&["get", "chatroom", "lobby", "--namespace", namespace]).await;
        assert_eq!(room["spec"]["allowedOrigins"], json!(["http://localhost:8080"]));
    }
}

#[test]
fn notes_say_what_keeps_prometheus_out() {
    let peer = json!([{"namespaceSelector": {}}]);
    let closed = |values: Value| {
        let mut all = json!({"monitoring": {"podMonitor": {"enabled": true}}});
        for (key, value) in values.as_object().unwrap() {
            all[key] = value.clone();
        }
        let notes = notes(&all);
        let (_, rest) = notes.split_once("nobody is named in ")?;
        Some(rest.split_once(". Name").unwrap().0.to_owned())
    };
    assert_eq!(
        closed(json!({})).as_deref(),
        Some("operator.networkPolicy.metricsFrom, pools.default.networkPolicy.adminFrom")
    );
    let operator = json!({"networkPolicy": {"metricsFrom": peer}});
    let gateways = json!({"networkPolicy": {"adminFrom": peer}});
    assert_eq!(
        closed(json!({
            "operator": operator,
            "pools": {"default": gateways, "walled": {"networkPolicy": {"enabled": true}}},
        }))
        .as_deref(),
        Some("pools.walled.networkPolicy.adminFrom")
    );
    assert_eq!(
        closed(json!({"operator": operator, "pools": {"default": gateways, "vip": {"min": 1}}})),
        None
    );
    let open = json!({"networkPolicy": {"enabled": false}});
    assert_eq!(closed(json!({"operator": open, "pools": {"default": open}})), None);
    let off = json!({"monitoring": {"podMonitor": {"enabled": false}}});
    assert_eq!(closed(off), None);
}
