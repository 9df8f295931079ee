//! The chart as Helm renders it: what a real API server says of it, what is refused with a sentence, and that it agrees with the
//! operator where both must say the same.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod notes;
mod refusals;
mod removal;
mod tls;
mod upgrades;

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::Command,
};

use hubbub_api::permissions::{GATEWAY_INBOX, OPERATOR_INBOX};
use hubbub_operator::{lease, pool, settings::Settings};
use hubbub_testkit::{ControlPlane, Controllers, Kubectl};
use serde_json::{Value, json};

/// What the variable that `scripts/chart-tests` sets says.
fn variable(name: &str) -> PathBuf {
    env::var_os(name)
        .unwrap_or_else(|| panic!("{name} is not set: run these tests by `make chart`"))
        .into()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn values_file(values: &Value) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(file.path(), values.to_string()).unwrap();
    file
}

/// The rendered manifests, or what Helm says.
fn render_with(helm: &str, release: &str, values: &Value) -> Result<String, String> {
    render_chart(helm, &root().join("charts/hubbub"), release, values)
}

/// The same of a chart in another place.
fn render_chart(helm: &str, chart: &Path, release: &str, values: &Value) -> Result<String, String> {
    let file = values_file(values);
    let mut command = Command::new(variable(helm));
    command.args(["template", release]).arg(chart).args(["--namespace", "chat", "--values"]);
    let output = command.arg(file.path()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn render(values: &Value) -> String {
    render_with("HUBBUB_HELM", "hubbub", values).unwrap_or_else(|error| panic!("{values}: {error}"))
}

/// Gives commands to a shell as they stand, which must take them without a word of complaint. Its `kubectl` is the real one.
fn paste(kubectl: &Kubectl, commands: &str) {
    let real = kubectl.command(&[]);
    let words = std::iter::once(real.get_program()).chain(real.get_args());
    let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let define = format!("kubectl() {{ {} \"$@\"; }}", words.join(" "));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{define}\n{commands}\n")).unwrap();
    // Read line by line from its standard input, as from a terminal.
    let mut shell = Command::new("bash");
    shell.args(["--noprofile", "--norc", "-eu", "-o", "pipefail", "-s"]);
    let output = shell.stdin(std::fs::File::open(file.path()).unwrap()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{commands}\n{said}");
}

/// The objects in a text of manifests.
fn objects(manifests: &str) -> Vec<Value> {
    let documents = manifests.split("\n---").map(str::trim).filter(|text| {
        text.lines().any(|line| {
            !line.trim_start().starts_with('#') && !line.trim().is_empty() && line != "---"
        })
    });
    documents
        .map(|text| {
            serde_yaml::from_str(text.trim_start_matches("---"))
                .unwrap_or_else(|error| panic!("{error}: {text}"))
        })
        .collect()
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found =
        objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// Values that turn on, between them, everything that the chart can make.
fn cases() -> BTreeMap<&'static str, Value> {
    BTreeMap::from([
        ("defaults", json!({})),
        (
            "everything beside",
            json!({
                "commonLabels": {"team": "chat"},
                "image": {"digest": format!("sha256:{}", "0".repeat(64))},
                "imagePullSecrets": ["registry"],
                "operator": {
                    "podLabels": {"a": "b"}, "podAnnotations": {"c": "d"}, "nodeSelector": {"disk": "fast"},
                    "tolerations": [{"key": "chat", "operator": "Exists"}], "priorityClassName": "high",
                    "extraEnv": [{"name": "RUST_BACKTRACE", "value": "1"}], "serviceAccount": {"annotations": {"e": "f"}},
                    "networkPolicy": {"metricsFrom": [{"namespaceSelector": {}}]},
                },
                "ingress": {"enabled": true, "className": "nginx", "hosts": ["chat.example.com"],
                    "tls": [{"secretName": "chat", "hosts": ["chat.example.com"]}]},
                "httpRoute": {"enabled": true, "parentRefs": [{"name": "public"}], "hostnames": ["chat.example.com"]},
                "monitoring": {"podMonitor": {"enabled": true}, "prometheusRule": {"enabled": true}, "dashboard": {"enabled": true}},
            }),
        ),
        ("rooms of two namespaces", json!({"operator": {"roomNamespaces": ["demo", "team"]}})),
        (
            "NATS of three servers with volumes",
            json!({"nats": {"server": {
                "replicas": 3, "persistence": {"enabled": true, "storageClassName": "fast"},
            }}}),
        ),
        (
            "a NATS of one's own",
            json!({"nats": {
                "url": "tls://nats-0.example.com:4223,tls://nats-1.example.com",
                "gatewayCredentialsSecret": {"name": "nats", "key": "gateway.creds"},
                "operatorCredentialsSecret": {"name": "nats", "key": "operator.creds"},
                "caSecret": {"name": "nats-ca", "key": "ca.crt"},
                "separateInboxes": true,
                "gatewayClientCertificateSecret": {"name": "gateway-nats"},
                "operatorClientCertificateSecret": {"name": "operator-nats"},
            }}),
        ),
        (
            "traces",
            json!({
                "traces": {"endpoint": "http://jaeger.observability:4317"},
                "operator": {"extraEnv": [{"name": "OTEL_SERVICE_NAME", "value": "ours"}]},
                "pools": {
                    "busy": {"extraEnv": [{"name": "OTEL_TRACES_SAMPLER_ARG", "value": "0.0001"}]},
                    "plain": {"min": 1},
                    "walled": {"networkPolicy": {"adminFrom": [{"namespaceSelector": {}}]}},
                },
            }),
        ),
        (
            "TLS",
            json!({
                "pools": {"default": {"tls": {"secretName": "chat-tls"}}, "inner": {"tls": {"secretName": ""}}, "vip": {"min": 1}},
                "ingress": {"enabled": true, "hosts": ["chat.example.com"]},
                "httpRoute": {"enabled": true, "parentRefs": [{"name": "public"}], "pool": "inner"},
            }),
        ),
        (
            "the least",
            json!({
                "crds": {"enabled": false}, "rbac": {"aggregate": false},
                "operator": {"replicas": 1, "podDisruptionBudget": {"enabled": false}, "networkPolicy": {"enabled": false}},
                "nats": {"server": {"networkPolicy": {"enabled": false}}},
            }),
        ),
        (
            "pools",
            json!({"pools": {
                "default": {
                    "drain": {"settle": "1s", "window": "2s", "deadline": "4s"},
                    "limits": {"trustedProxies": ["10.0.0.0/8", "fd00::/8"], "requestsPerSecond": 500, "connectionsPerAddress": 50},
                    "affinity": {"podAffinity": {}},
                },
                "vip": {"min": 1, "resources": {"limits": {"cpu": 2, "memory": "1Gi"}}, "service": {"type": "LoadBalancer", "port": 8080, "annotations": {"g": "h"}}},
            }}),
        ),
    ])
}

#[tokio::test]
async fn a_real_api_server_takes_all_that_is_rendered() {
    let plane = ControlPlane::start_with(Controllers::On).await;
    let kubectl = plane.kubectl();
    for namespace in ["chat", "demo", "team"] {
        kubectl.run(&["create", "namespace", namespace]).await;
    }
    let restricted = [
        "pod-security.kubernetes.io/enforce=restricted",
        "pod-security.kubernetes.io/warn=restricted",
    ];
    kubectl.run(&["label", "namespace", "chat", restricted[0], restricted[1]]).await;
    let foreign = variable("HUBBUB_FOREIGN_DEFINITIONS").display().to_string();
    let definition = root().join("manifests/crds/chatrooms.yaml").display().to_string();
    for folder in [&foreign, &definition] {
        kubectl.run(&["apply", "--server-side", "--filename", folder]).await;
    }
    kubectl.run(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]).await;

    for (case, values) in cases() {
        let rendered = render(&values);
        // Strictly: a field that the server does not know is an error, and so is one that stands twice.
        let arguments =
            ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-"];
        let applied = kubectl.try_feed(&arguments, &rendered).await;
        applied.unwrap_or_else(|error| panic!("{case}: {error}"));
        // A pod's template is judged by the pods that it makes; a warning says what they would violate.
        for object in objects(&rendered) {
            let Some(template) = object["spec"].get("template") else { continue };
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe", "namespace": "chat"}, "spec": template["spec"]});
            let judged = kubectl
                .try_feed(&["create", "--dry-run=server", "--filename=-"], &pod.to_string())
                .await;
            let refused = judged.err().filter(|error| error.contains("violates PodSecurity"));
            assert_eq!(refused, None, "{case}: {}", object["metadata"]["name"]);
        }
    }
    let jaeger = std::fs::read_to_string(root().join("manifests/jaeger.yaml")).unwrap();
    kubectl
        .try_feed(
            &[
                "apply",
                "--namespace=chat",
                "--server-side",
                "--dry-run=server",
                "--validate=strict",
                "--filename=-",
            ],
            &jaeger,
        )
        .await
        .unwrap_or_else(|error| panic!("jaeger.yaml: {error}"));
    let install = std::fs::read_to_string(root().join("manifests/install.yaml")).unwrap();
    kubectl
        .try_feed(
            &["apply", "--filename=-"],
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: hubbub}",
        )
        .await
        .unwrap();
    let arguments =
        ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-"];
    kubectl
        .try_feed(&arguments, &install)
        .await
        .unwrap_or_else(|error| panic!("install.yaml: {error}"));
}

/// Their text has braces of its own, which are Prometheus' and Grafana's.
#[test]
fn alerts_and_dashboard_are_rendered_as_they_stand() {
    let on = json!({"enabled": true});
    let rendered =
        objects(&render(&json!({"monitoring": {"prometheusRule": on, "dashboard": on}})));
    let file = |name: &str| {
        std::fs::read_to_string(root().join("charts/hubbub/files").join(name)).unwrap()
    };
    let alerts: Value = serde_yaml::from_str(&file("alerts.yaml")).unwrap();
    assert_eq!(find(&rendered, "PrometheusRule", "hubbub")["spec"], alerts);
    let dashboard = &find(&rendered, "ConfigMap", "hubbub-dashboard")["data"]["hubbub.json"];
    assert_eq!(dashboard.as_str().unwrap().trim(), file("dashboard.json").trim());
}

#[test]
fn helm_3_and_helm_4_render_the_same() {
    for (case, values) in cases() {
        let by_four = render_with("HUBBUB_HELM4", "hubbub", &values).unwrap();
        let sorted = |text: &str| {
            let mut all: Vec<_> = objects(text).iter().map(Value::to_string).collect();
            all.sort();
            all
        };
        assert_eq!(sorted(&render(&values)), sorted(&by_four), "{case}");
    }
}

#[test]
fn the_operator_takes_the_settings_of_every_case() {
    for (case, values) in cases() {
        let objects = objects(&render(&values));
        let settings = &find(&objects, "ConfigMap", "hubbub-operator")["data"]["settings.yaml"];
        let settings = Settings::parse(settings.as_str().unwrap())
            .unwrap_or_else(|error| panic!("{case}: {error}"));
        assert!(!settings.pool("default").image.is_empty());
    }
}

#[test]
fn traces_reach_the_collector_from_the_operator_and_from_every_pool() {
    let values = &cases()["traces"];
    let objects = objects(&render(values));
    let of = |variables: &Value| {
        let variables = variables.as_array().unwrap().iter();
        let pairs = variables.filter(|variable| variable["value"].is_string()).map(|variable| {
            (
                variable["name"].as_str().unwrap().to_owned(),
                variable["value"].as_str().unwrap().to_owned(),
            )
        });
        pairs.collect::<BTreeMap<_, _>>()
    };
    let operator = find(&objects, "Deployment", "hubbub-operator");
    let variables = of(&operator["spec"]["template"]["spec"]["containers"][0]["env"]);
    assert_eq!(variables["OTEL_EXPORTER_OTLP_ENDPOINT"], "http://jaeger.observability:4317");
    assert_eq!(variables["OTEL_SERVICE_NAME"], "ours");
    let policy = find(&objects, "NetworkPolicy", "hubbub-operator").to_string();
    assert!(policy.contains("4317"), "{policy}");
    let settings = &find(&objects, "ConfigMap", "hubbub-operator")["data"]["settings.yaml"];
    let settings = Settings::parse(settings.as_str().unwrap()).unwrap();
    for (pool, ratio) in
        [("default", "0.01"), ("busy", "0.0001"), ("plain", "0.01"), ("walled", "0.01")]
    {
        let pool = settings.pool(pool);
        let variables = of(&serde_json::to_value(&pool.extra_env).unwrap());
        assert_eq!(variables["OTEL_EXPORTER_OTLP_ENDPOINT"], "http://jaeger.observability:4317");
        assert_eq!(variables["OTEL_EXPORTER_OTLP_PROTOCOL"], "grpc");
        assert_eq!(variables["OTEL_TRACES_SAMPLER_ARG"], ratio);
        assert_eq!(pool.extra_env.len(), 3, "each name once");
        let egress = serde_json::to_value(&pool.network_policy.extra_egress).unwrap();
        assert_eq!(egress, json!([{"ports": [{"port": 4317, "protocol": "TCP"}]}]));
    }
    assert_eq!(settings.pool("walled").network_policy.admin_from.len(), 1);
    // Nothing of it where nothing is traced.
    let nothing = render(&json!({}));
    assert!(!nothing.contains("OTEL_"), "{nothing}");
}

#[test]
fn inboxes_are_those_that_the_printed_permissions_allow() {
    let objects = objects(&render(&cases()["a NATS of one's own"]));
    let operator = find(&objects, "Deployment", "hubbub-operator").to_string();
    let variable = json!({"name": "HUBBUB_NATS_INBOX", "value": OPERATOR_INBOX}).to_string();
    assert!(operator.contains(&variable), "{operator}");
    let settings = &find(&objects, "ConfigMap", "hubbub-operator")["data"]["settings.yaml"];
    let settings = Settings::parse(settings.as_str().unwrap()).unwrap();
    assert_eq!(settings.nats.inbox.as_deref(), Some(GATEWAY_INBOX));
    assert!(!render(&json!({})).contains("_INBOX"), "only where it is asked for");
}

#[test]
fn the_rights_are_those_that_the_operator_is_tested_with() {
    let objects_of_chart = objects(&render(&json!({})));
    let tested =
        objects(&std::fs::read_to_string(root().join("manifests/operator/rbac.yaml")).unwrap());
    let of_chart = |kind, name| find(&objects_of_chart, kind, name)["rules"].clone();
    let of_test = |kind| find(&tested, kind, "hubbub-operator")["rules"].clone();
    assert_eq!(of_chart("ClusterRole", "chat-hubbub-operator-rooms"), of_test("ClusterRole"));
    assert_eq!(of_chart("Role", "hubbub-operator"), of_test("Role"));
    let named = objects(&render(&json!({"operator": {"roomNamespaces": ["demo"]}})));
    assert_eq!(find(&named, "Role", "chat-hubbub-operator-rooms")["rules"], of_test("ClusterRole"));
    assert_eq!(lease::name("hubbub"), "hubbub-operator", "the lease that the Role names");
}

#[test]
fn names_of_services_are_those_that_the_operator_gives() {
    for (release, pool) in [
        ("hubbub", "default"),
        ("a-release-with-a-rather-long-name-hubbub", "a-pool-with-a-long-name-too"),
    ] {
        let values = json!({
            "pools": {pool: {}}, "ingress": {"enabled": true, "hosts": ["a.example"], "pool": pool},
        });
        let objects = objects(&render_with("HUBBUB_HELM", release, &values).unwrap());
        let ingress = objects.iter().find(|object| object["kind"] == "Ingress").unwrap();
        let service =
            &ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"];
        assert_eq!(*service, pool::name(release, pool));
    }
}
