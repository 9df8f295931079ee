//! The admin port of the real program, and what the public port tells those who only look.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use hubbub_testkit::{GatewayProcess, Member, OPEN, RoomsFile, chat_room, eventually, http};
use serde_json::Value;

const GATEWAY: &str = env!("CARGO_BIN_EXE_hubbub-gateway");
const LOBBY: &str = "/rooms/demo/lobby";
const PAGE: &str = "https://a.example.com";

async fn start(text: &str, more: &[&str]) -> (RoomsFile, GatewayProcess) {
    let file = RoomsFile::of_text(text);
    let gateway = GatewayProcess::start(GATEWAY, &file.flags(more)).await;
    (file, gateway)
}

fn closed_room() -> String {
    chat_room("lobby", &format!("allowedOrigins: ['{PAGE}']"))
}

fn json(answer: &http::Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

async fn asked_by_a_browser(gateway: &GatewayProcess, path: &str) -> http::Answer {
    let listen = gateway.listen();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {listen}\r\nAccept: text/html,*/*\r\n\r\n");
    http::request(listen, request.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_name_their_checks() {
    let (_file, gateway) = start(&closed_room(), &[]).await;
    let live = http::get(gateway.admin(), "/livez").await;
    assert_eq!((live.status, live.body.as_str()), (200, "ok\n"));
    let ready = http::get(gateway.admin(), "/readyz").await;
    assert_eq!(ready.status, 200);
    let lines: Vec<_> = ready.body.lines().collect();
    let want = ["[+] policies: 1 rooms declared", "[+] bus: connected", "[+] draining: no"];
    assert_eq!(lines[..3], want);
    // Whether there is a limit depends on where the test runs.
    assert!(lines.len() == 4 && lines[3].starts_with("[+] memory: "), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admin_paths_are_not_on_the_public_port_nor_rooms_on_the_admin_port() {
    let (_file, gateway) = start(&closed_room(), &[]).await;
    for path in ["/livez", "/readyz", "/metrics", "/rooms", "/drain", "/"] {
        assert_eq!(http::get(gateway.listen(), path).await.status, 404, "GET {path}");
        assert_eq!(http::post(gateway.listen(), path).await.status, 404, "POST {path}");
    }
    assert_eq!(http::get(gateway.admin(), LOBBY).await.status, 404);
    assert_eq!(http::get(gateway.admin(), "/drain").await.status, 405, "only a POST drains");
    assert_eq!(http::get(gateway.admin(), "/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_open_metrics_and_count_what_happens() {
    let (_file, gateway) = start(&chat_room("lobby", OPEN), &[]).await;
    let one = Member::join(gateway.listen(), LOBBY, None).await.expect("served");
    let two = Member::join(gateway.listen(), LOBBY, None).await.expect("served");
    one.send("12345").await;
    one.hears("12345").await;
    two.hears("12345").await;
    let answer = http::get(gateway.admin(), "/metrics").await;
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    assert!(answer.body.ends_with("# EOF\n"));
    assert!(!answer.body.contains("hubbub_gateway_bus_"), "without NATS nothing is told of it");
    let mut described = std::collections::BTreeSet::new();
    for line in answer.body.lines().filter(|line| *line != "# EOF") {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (keyword, name) = (words.next().unwrap(), words.next().unwrap());
            assert!(["HELP", "TYPE", "UNIT"].contains(&keyword), "{line}");
            assert!(name.starts_with("hubbub_gateway_"), "{line}");
            if keyword == "TYPE" {
                assert!(described.insert(name.to_owned()), "described twice: {line}");
            }
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a name and a value");
            value.parse::<f64>().unwrap_or_else(|error| panic!("{error}: {line}"));
            let name = series.split('{').next().unwrap();
            let suffixes = ["_total", "_bucket", "_sum", "_count", "_info"];
            let family = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
            let family = family.unwrap_or(name);
            assert!(described.contains(family), "not described: {line}");
        }
    }
    for (name, wanted) in [
        ("hubbub_gateway_connections", 2.0),
        ("hubbub_gateway_connections_opened_total", 2.0),
        ("hubbub_gateway_messages_received_total", 1.0),
        ("hubbub_gateway_messages_received_bytes_total", 5.0),
        ("hubbub_gateway_room_members{namespace=\"demo\",room=\"lobby\"}", 2.0),
        ("hubbub_gateway_handshakes_total{outcome=\"accepted\"}", 2.0),
        ("hubbub_gateway_handshake_seconds_count", 2.0),
        ("hubbub_gateway_panics_total", 0.0),
        // Not yet, and told all the same.
        ("hubbub_gateway_drain_seconds_count", 0.0),
        ("hubbub_gateway_eviction_queue_bytes_count{reason=\"queue_full\"}", 0.0),
    ] {
        let line = format!("\n{name} ");
        assert!(answer.body.contains(&line), "{name} is not in\n{}", answer.body);
        assert_eq!(gateway.metric(name).await, wanted, "{name} in\n{}", answer.body);
    }
    // Queued, for a member whose socket was on its way to its shard just then.
    let mut delivered = 0.0;
    for path in ["direct", "queued"] {
        let name = format!("hubbub_gateway_deliveries_total{{path=\"{path}\"}}");
        delivered += gateway.metric(&name).await;
    }
    assert_eq!(delivered, 2.0, "{}", answer.body);
}

/// Its members are on all shards, and each of them writes the message to its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_of_a_message_is_measured_once_however_many_shards_it_goes_to() {
    let (_file, gateway) = start(&chat_room("lobby", OPEN), &["--shards", "2"]).await;
    let mut members = Vec::new();
    for _ in 0..140 {
        members.push(Member::join(gateway.listen(), LOBBY, None).await.expect("served"));
    }
    for n in 1..=5 {
        members[0].send(&n.to_string()).await;
        for member in &members {
            member.hears(&n.to_string()).await;
        }
        let count = "hubbub_gateway_fanout_seconds_count";
        let counted = gateway.metric_until(count, |counted| counted >= f64::from(n)).await;
        assert_eq!(counted, f64::from(n));
    }
    let sum = gateway.metric("hubbub_gateway_fanout_seconds_sum").await;
    assert!(sum > 0.0, "{sum}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_are_told_as_json() {
    let text = chat_room("lobby", OPEN) + &chat_room("empty", OPEN);
    let (_file, gateway) = start(&text, &["--gateway-id", "gate-1"]).await;
    let member = Member::join(gateway.listen(), LOBBY, None).await.expect("served");
    member.send("hello").await;
    member.hears("hello").await;
    let told = json(&http::get(gateway.admin(), "/rooms").await);
    assert_eq!((&told["gateway"], &told["pool"]), (&"gate-1".into(), &"default".into()));
    assert_eq!((&told["phase"], &told["connections"]), (&"serving".into(), &1.into()));
    let rooms = told["rooms"].as_array().expect("a list");
    let names: Vec<_> = rooms.iter().map(|room| room["room"].as_str().unwrap()).collect();
    assert_eq!(names, ["demo/empty", "demo/lobby"]);
    let lobby = &rooms[1];
    assert_eq!((&lobby["path"], &lobby["pool"]), (&LOBBY.into(), &"default".into()));
    assert_eq!((&lobby["members"], &lobby["membersElsewhere"]), (&1.into(), &0.into()));
    assert_eq!((&lobby["messages"], &rooms[0]["members"]), (&1.into(), &0.into()));
    drop(member);
    let mut left = Value::Null;
    while left != 0 {
        left = json(&http::get(gateway.admin(), "/rooms").await)["connections"].clone();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_room_is_at_ws_and_without_one_nothing_is() {
    let text = chat_room("lobby", OPEN);
    let (_file, gateway) = start(&text, &["--default-room", "demo/lobby"]).await;
    let by_name = Member::join(gateway.listen(), LOBBY, None).await.expect("served");
    let by_default = Member::join(gateway.listen(), "/ws", None).await.expect("served");
    by_default.send("hello").await;
    by_name.hears("hello").await;
    let (_file, without) = start(&text, &[]).await;
    let refused = Member::join(without.listen(), "/ws", None).await.expect_err("nothing there");
    assert_eq!(refused.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_get_says_whether_a_handshake_would_be_accepted_and_why_not() {
    let (_file, gateway) = start(&closed_room(), &[]).await;
    let member = Member::join(gateway.listen(), LOBBY, Some(PAGE)).await.expect("allowed");
    let good = http::get(gateway.listen(), &format!("{LOBBY}?origin={PAGE}")).await;
    assert_eq!(good.status, 200);
    assert_eq!(good.header("cache-control"), Some("no-store"));
    assert_eq!(good.header("access-control-allow-origin"), Some("*"));
    let told = json(&good);
    assert_eq!((&told["room"], &told["accepted"]), (&"demo/lobby".into(), &true.into()));
    assert_eq!((&told["members"], &told["maxMessageBytes"]), (&1.into(), &512.into()));
    for (query, reason) in
        [("?origin=https://evil.example.com", "origin_not_allowed"), ("", "origin_missing")]
    {
        let told = json(&http::get(gateway.listen(), &format!("{LOBBY}{query}")).await);
        assert_eq!((&told["accepted"], &told["status"]), (&false.into(), &403.into()));
        assert_eq!(told["reason"], reason);
        assert!(told["members"].is_null(), "those kept out are not told how many are in");
        assert!(told["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    }
    let unknown = http::get(gateway.listen(), "/rooms/demo/none").await;
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.header("content-type"), Some("application/problem+json"));
    assert_eq!(json(&unknown)["reason"], "no_such_room");
    assert!(!member.has_ended());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_gets_a_page_that_runs_nothing_but_itself() {
    let (_file, gateway) = start(&closed_room(), &[]).await;
    for (path, status) in [(LOBBY, 200), ("/rooms/demo/none", 404), ("/nothing", 404)] {
        let page = asked_by_a_browser(&gateway, path).await;
        assert_eq!(page.status, status, "{path}");
        let kind = page.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("text/html"), "{path}: {kind}");
        let policy = page.header("content-security-policy").unwrap_or_default();
        assert!(policy.contains("default-src 'none'"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_of_another_pool_is_refused_with_421() {
    let text = chat_room("lobby", &format!("{OPEN}, gateways: {{pool: other}}"));
    let (_file, gateway) = start(&text, &[]).await;
    let refused = Member::join(gateway.listen(), LOBBY, None).await.expect_err("not here");
    assert_eq!(refused.status, 421);
    assert_eq!(json(&refused)["reason"], "other_pool");
    let (_file, right) = start(&text, &["--pool", "other"]).await;
    let member = Member::join(right.listen(), LOBBY, None).await.expect("here");
    eventually("it is in", || !member.has_ended()).await;
}
