//! What gateways and the operator tell a real Prometheus, while some of what they count happens (`docs/metrics.md` says what):
//! the table there is what is scraped, each panel of the dashboard shows something, and exemplars lead to traces.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod exposition;
mod support;

use std::{
    ffi::OsStr,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hubbub_api::names::HEADER_OPCODE;
use hubbub_testkit::{
    Certificates, Client, GIVE_UP, GatewayProcess, Handshake, Jaeger, Member, Opcode, Prometheus,
    Received, Sample, Target, eventually, gateway_program, http,
};
use serde_json::{Value, json};
use support::{World, process::OperatorProcess};

const RIGHTS: &str = include_str!("../../../manifests/operator/rbac.yaml");
const DASHBOARD: &str = include_str!("../../../charts/hubbub/files/dashboard.json");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A gateway that traces every message.
async fn gateway(world: &World, jaeger: &Jaeger, id: &str, more: &[&str]) -> GatewayProcess {
    let (url, endpoint) = (world.nats.url(), jaeger.grpc());
    let mut arguments = vec!["--nats", &url, "--policies", "nats", "--gateway-id", id];
    arguments.extend(["--drain-settle", "0s", "--drain-window", "0s", "--drain-deadline", "2s"]);
    arguments.extend(more);
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_TRACES_SAMPLER_ARG", "1"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    GatewayProcess::start_with(gateway_program(), &arguments, &variables).await
}

/// As a PodMonitor has it scraped.
fn target(job: &'static str, pod: &str, address: SocketAddr) -> Target {
    let labels = vec![("namespace", "hubbub".to_owned()), ("pod", pod.to_owned())];
    Target { job, address, labels }
}

async fn scrape(address: SocketAddr) -> String {
    http::get(address, "/metrics").await.body
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_is_written_down_and_each_panel_shows_it() {
    let (world, jaeger) = (World::start().await, Jaeger::start().await);
    world.kubectl().apply(RIGHTS).await;
    let endpoint = jaeger.grpc();
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", OsStr::new(&endpoint))];
    let mut operator =
        OperatorProcess::start_in(&world, "hubbub-operator", "one", &[], &variables).await;
    operator.says("traces are sent by OTLP").await;
    let one = gateway(&world, &jaeger, "one", &[]).await;
    let mut two = gateway(&world, &jaeger, "two", &[]).await;
    let certificates = Certificates::make();
    let (certificate, key) = (certificates.server(), certificates.server_key());
    let three = gateway(
        &world,
        &jaeger,
        "three",
        &[
            "--room-metrics",
            "false",
            "--tls-certificate",
            certificate.to_str().unwrap(),
            "--tls-key",
            key.to_str().unwrap(),
        ],
    )
    .await;
    let prometheus = Prometheus::start(
        &[
            target("operator", "operator", operator.admin()),
            target("gateway", "one", one.admin()),
            target("gateway", "two", two.admin()),
            target("gateway", "three", three.admin()),
        ],
        &root().join("charts/hubbub/files/alerts.yaml"),
    )
    .await;
    // What happens from now on is an increase of what it has seen.
    prometheus.until("count(up == 1)", |found| value(found) == Some(4.0)).await;

    let happening = Happening { world: &world, one: &one, two: &two };
    happening.messages_refusals_and_evictions().await;
    happening.trouble().await;
    for seen in HAPPENED {
        prometheus.until(seen, |found| value(found).is_some_and(|value| value > 0.0)).await;
    }

    // Before the drain, because a gateway that has drained is gone.
    let (first, third) = (scrape(one.admin()).await, scrape(three.admin()).await);
    let all = with_tls(&first, &third);
    exposition::is_written_down(&root(), &[&all, &scrape(operator.admin()).await]);
    let without = |text: &str| exposition::families(text).into_keys().collect::<Vec<_>>();
    let (first, third) = (without(&first), without(&third));
    let missing: Vec<_> = first.iter().filter(|name| !third.contains(name)).collect();
    assert_eq!(missing, ["hubbub_gateway_room_members", "hubbub_gateway_room_messages_total"]);

    drain(&mut two, &world.path("lobby")).await;
    for seen in DRAINED {
        prometheus.until(seen, |found| value(found).is_some_and(|value| value > 0.0)).await;
    }
    each_panel_shows_something(&prometheus).await;
    each_query_of_the_page_has_an_answer(&prometheus).await;
    rules_are_evaluated(&prometheus).await;
    for histogram in ["hubbub_gateway_fanout_seconds", "hubbub_gateway_handshake_seconds"] {
        exemplars_lead_to_traces(&prometheus, &jaeger, histogram).await;
    }
    operator.terminate();
    assert!(operator.ended().await.success());
}

/// A gateway's scrape with what only another exposes, which speaks TLS.
fn with_tls(scrape: &str, of_other: &str) -> String {
    let is_about_tls = |line: &&str| line.contains("hubbub_gateway_tls_");
    assert!(!scrape.lines().any(|line| is_about_tls(&line)), "it does not speak TLS");
    let (scrape, _) = scrape.split_once("# EOF").unwrap();
    let added: Vec<&str> = of_other.lines().filter(is_about_tls).collect();
    assert!(added.len() > 3, "{added:?}");
    format!("{scrape}{}\n# EOF\n", added.join("\n"))
}

/// What has been seen to happen, each by an increase.
const HAPPENED: [&str; 18] = [
    r#"sum(increase(hubbub_gateway_handshakes_total{outcome="accepted"}[10m]))"#,
    r#"increase(hubbub_gateway_handshakes_total{outcome="no_such_room",pod="one"}[10m])"#,
    r#"increase(hubbub_gateway_handshakes_total{outcome="origin_missing",pod="one"}[10m])"#,
    r#"increase(hubbub_gateway_handshakes_total{outcome="origin_not_allowed",pod="one"}[10m])"#,
    r#"increase(hubbub_gateway_handshakes_total{outcome="bad_method",pod="one"}[10m])"#,
    r#"increase(hubbub_gateway_connections_closed_total{reason="peer_closed",pod="one"}[10m])"#,
    r#"increase(hubbub_gateway_connections_closed_total{reason="unmasked",pod="one"}[10m])"#,
    r#"increase(hubbub_gateway_connections_closed_total{reason="queue_full",pod="one"}[10m])"#,
    r#"increase(hubbub_gateway_eviction_queue_messages_count{reason="queue_full",pod="one"}[10m])"#,
    r#"increase(hubbub_gateway_eviction_queue_bytes_sum{reason="queue_full",pod="one"}[10m])"#,
    r"sum(increase(hubbub_gateway_throttles_total[10m]))",
    r#"increase(hubbub_gateway_fanout_seconds_count{pod="two"}[10m])"#,
    r#"increase(hubbub_gateway_bus_dropped_messages_total{reason="malformed",pod="one"}[10m])"#,
    r#"increase(hubbub_gateway_bus_round_trip_seconds_count{pod="one"}[10m])"#,
    r"increase(hubbub_operator_reports_refused_total[10m])",
    r"increase(hubbub_operator_drifts_total[10m])",
    r#"increase(hubbub_operator_scalings_total{direction="up"}[10m])"#,
    r#"hubbub_operator_rooms{ready="true"}"#,
];

/// The same of a drain.
const DRAINED: [&str; 3] = [
    r#"increase(hubbub_operator_drained_members_total{outcome="moved"}[10m])"#,
    r#"increase(hubbub_operator_drained_members_total{outcome="cut"}[10m])"#,
    r"increase(hubbub_operator_drain_seconds_count[10m])",
];

fn value(found: &[Sample]) -> Option<f64> {
    found.iter().map(|sample| sample.value).reduce(f64::max)
}

/// Makes happen what is counted.
struct Happening<'a> {
    world: &'a World,
    one: &'a GatewayProcess,
    two: &'a GatewayProcess,
}

impl Happening<'_> {
    async fn messages_refusals_and_evictions(&self) {
        let Self { world, one, two } = *self;
        world.room("lobby", "default").await;
        world.room("strict", "default").await;
        let limits = json!({"limits": {"sendQueue": 4, "maxMessageBytes": 65536, "messagesPerSecond": 100_000, "burst": 100_000}});
        world.patch_room("lobby", json!({"spec": limits})).await;
        let strict = json!({"allowedOrigins": ["https://a.example"], "requireOrigin": true, "limits": {"messagesPerSecond": 1, "burst": 1}});
        world.patch_room("strict", json!({"spec": strict})).await;
        for room in ["lobby", "strict"] {
            world.ready(room).await;
        }
        let (lobby, strict) = (world.path("lobby"), world.path("strict"));
        let here = Member::join(one.listen(), &lobby, None).await.unwrap();
        let there = Member::join(two.listen(), &lobby, None).await.unwrap();
        here.send("hello").await;
        here.hears("hello").await;
        there.hears("hello").await;

        let status = async |handshake: Handshake| handshake.answer().await.status;
        let nowhere = Handshake::new(one.listen(), world.path("nowhere"));
        assert_eq!(status(nowhere).await, 404);
        let hello = || Handshake::new(one.listen(), &strict);
        assert_eq!(status(hello()).await, 403);
        assert_eq!(status(hello().with("Origin", "https://b.example")).await, 403);
        assert_eq!(status(hello().method("POST")).await, 405);

        let origin = Some("https://a.example");
        let mut hasty = Client::join(one.listen(), &strict, origin).await.unwrap();
        for text in ["one", "two", "three"] {
            hasty.send(text).await.unwrap();
            assert_eq!(hasty.next_message().await, Received::Text(text.to_owned()));
        }
        hasty.send_close(1000).await.unwrap();
        assert_eq!(hasty.close_code().await, Some(1000));
        let mut unmasked = Client::join(one.listen(), &lobby, None).await.unwrap();
        unmasked.send_bytes(b"\x81\x02hi").await.unwrap();
        assert_eq!(unmasked.close_code().await, Some(1002));

        // It reads nothing, until the kernel takes no more for it and its queue is full.
        let deaf = Client::join(one.listen(), &lobby, None).await.unwrap();
        let evicted = r#"hubbub_gateway_eviction_queue_messages_count{reason="queue_full"}"#;
        let mut sent = here.count();
        while one.metric(evicted).await == 0.0 {
            here.send_frame(Opcode::Binary, &[b'x'; 60_000]).await;
            sent += 1;
            eventually("others hear it", || here.count() == sent && there.count() == sent).await;
        }
        drop(deaf);
    }

    async fn trouble(&self) {
        let Self { world, one, .. } = *self;
        let _member = Member::join(one.listen(), &world.path("lobby"), None).await.unwrap();
        let stranger = world.nats.client().await;
        let junk = "hubbub.room.demo.lobby";
        let mut headers = nats::HeaderMap::new();
        headers.insert(HEADER_OPCODE, "ping");
        stranger.publish_with_headers(junk, headers, "junk".into()).await.unwrap();
        stranger.publish("hubbub.report.default.junk", "junk".into()).await.unwrap();
        stranger.flush().await.unwrap();
        one.metric_until(
            r#"hubbub_gateway_bus_dropped_messages_total{reason="malformed"}"#,
            |dropped| dropped > 0.0,
        )
        .await;
        let service = ["delete", "service", "hubbub-default", "-n", &world.home];
        world.kubectl().run(&service).await;
        world.patch_room("lobby", json!({"spec": {"gateways": {"min": 2}}})).await;
    }
}

/// Two members leave a gateway that drains: one in good order, and one that takes no notice.
async fn drain(gateway: &mut GatewayProcess, lobby: &str) {
    let good = Member::join(gateway.listen(), lobby, None).await.unwrap();
    // It never reads, and so much waits for it that its close frame does not get out.
    let deaf = Client::join(gateway.listen(), lobby, None).await.unwrap();
    let queued = r#"hubbub_gateway_deliveries_total{path="queued"}"#;
    let before = gateway.metric(queued).await;
    let mut sent = good.count();
    while gateway.metric(queued).await == before {
        good.send_frame(Opcode::Binary, &[b'x'; 60_000]).await;
        sent += 1;
        eventually("it is heard", || good.count() == sent).await;
    }
    gateway.terminate();
    assert!(gateway.ended().await.success());
    assert_eq!(good.ended().await, Some(1012));
    drop(deaf);
}

/// Every query of every panel, of the variables and the annotations, comes to something.
async fn each_panel_shows_something(prometheus: &Prometheus) {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let list = |value: &Value| value.as_array().unwrap().clone();
    let mut ids = std::collections::BTreeSet::new();
    for panel in list(&dashboard["panels"]) {
        let title = panel["title"].as_str().unwrap().to_owned();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title} has the id of another");
        if panel["type"] == "row" {
            continue;
        }
        assert!(!panel["description"].as_str().unwrap().is_empty(), "{title} has no description");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string() || panel["type"] == "heatmap");
        for target in list(&panel["targets"]) {
            let text = |name: &str| target[name].as_str().unwrap();
            shows(prometheus, &title, text("expr"), text("legendFormat")).await;
        }
    }
    for annotation in list(&dashboard["annotations"]["list"]) {
        // That it holds now is not asked for, only that there is what it looks at.
        let expression = annotation["expr"].as_str().unwrap().replace(" == 1", "");
        shows(prometheus, "annotation", &expression, annotation["titleFormat"].as_str().unwrap())
            .await;
    }
    for variable in list(&dashboard["templating"]["list"]) {
        let Some(query) = variable["query"]["query"].as_str() else { continue };
        let inner = query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap();
        let (series, label) = inner.rsplit_once(", ").unwrap();
        let series = filled(series);
        let values =
            prometheus.ask(&format!("label/{label}/values"), &[("match[]", &series)]).await;
        assert!(!list(&values).is_empty(), "{query} has no values");
    }
}

/// The queries that `docs/metrics.md` gives for questions.
async fn each_query_of_the_page_has_an_answer(prometheus: &Prometheus) {
    let page = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let (_, section) = page.split_once("## Queries\n").unwrap();
    let rows = section.lines().filter_map(|line| line.strip_suffix("` |")?.split_once(" | `"));
    let queries: Vec<_> = rows.map(|(question, query)| (question.to_owned(), query)).collect();
    assert!(queries.len() > 5, "{queries:?}");
    for (question, query) in queries {
        shows(prometheus, &question, query, "").await;
    }
}

/// The expression comes to a value, and the labels that the legend names are there.
async fn shows(prometheus: &Prometheus, title: &str, expression: &str, legend: &str) {
    let expression = filled(expression);
    let named = legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap());
    let named: Vec<&str> = named.collect();
    let has_all = |sample: &Sample| named.iter().all(|label| sample.labels.contains_key(*label));
    let begun = Instant::now();
    loop {
        let found = prometheus.query(&expression).await;
        if found.iter().any(|sample| !sample.value.is_nan() && has_all(sample)) {
            return;
        }
        assert!(begun.elapsed() < GIVE_UP, "{title} shows nothing: {expression}: {found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A query with the variables as Grafana fills them in for all, over as long as this test lasts.
fn filled(query: &str) -> String {
    let mut query = query.replace("$__rate_interval", "10m");
    for variable in ["$namespace", "$pod", "$room"] {
        query = query.replace(variable, ".*");
    }
    assert!(!query.contains('$'), "an unknown variable: {query}");
    query
}

/// The chart's alerts, in this Prometheus.
async fn rules_are_evaluated(prometheus: &Prometheus) {
    let begun = Instant::now();
    loop {
        let answer = prometheus.ask("rules", &[]).await;
        let rules = answer["groups"][0]["rules"].as_array().unwrap().clone();
        let health = |wanted: &str| rules.iter().filter(|rule| rule["health"] == wanted).count();
        assert_eq!(health("err"), 0, "{answer}");
        if !rules.is_empty() && health("ok") == rules.len() {
            return;
        }
        assert!(begun.elapsed() < GIVE_UP, "not evaluated: {answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Prometheus keeps a trace of this histogram, and Jaeger has it.
async fn exemplars_lead_to_traces(prometheus: &Prometheus, jaeger: &Jaeger, histogram: &str) {
    let query = format!("{histogram}_bucket");
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let (from, to) =
        ((seconds.as_secs() - 3600).to_string(), (seconds.as_secs() + 3600).to_string());
    let parameters = [("query", query.as_str()), ("start", &from), ("end", &to)];
    let answer = prometheus.ask("query_exemplars", &parameters).await;
    let exemplar = answer.pointer("/0/exemplars/0").unwrap_or_else(|| panic!("none: {answer}"));
    let trace = exemplar["labels"]["trace_id"].as_str().unwrap();
    let begun = Instant::now();
    while jaeger.trace(trace).await.is_empty() {
        assert!(begun.elapsed() < GIVE_UP, "Jaeger does not have the trace of {exemplar}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
