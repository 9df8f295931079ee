//! What a real Jaeger shows of the real program: handshakes, messages over two gateways, ends of connections, drains.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::ffi::OsString;

use hubbub_testkit::{
    Certificates, Client, GatewayProcess, Handshake, Jaeger, JaegerSpan, NatsServer, OPEN, Opcode,
    Received, RoomsFile, Trust, eventually, http,
};

const GATEWAY: &str = env!("CARGO_BIN_EXE_hubbub-gateway");
const SERVICE: &str = "hubbub-gateway";
const LOBBY: &str = "/rooms/demo/lobby";
const HANDSHAKE: &str = "GET /rooms/{namespace}/{name}";
const PUBLISH: &str = "publish hubbub.room.{namespace}.{name}";
const PROCESS: &str = "process hubbub.room.{namespace}.{name}";

const STRANGER: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn traceparent(flags: &str) -> String {
    format!("00-{STRANGER}-00f067aa0ba902b7-{flags}")
}

/// A gateway that traces everything, to this collector.
async fn traced(flags: &[OsString], endpoint: &str, more: &[(&str, &str)]) -> GatewayProcess {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_TRACES_SAMPLER_ARG", "1"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    GatewayProcess::start_with(GATEWAY, flags, &[&variables, more].concat()).await
}

/// The one span of this name in a list.
fn only<'a>(spans: &'a [JaegerSpan], name: &str) -> &'a JaegerSpan {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name} in {spans:#?}");
    found[0]
}

/// Waits until so many members have entered.
async fn entered(gateway: &GatewayProcess, members: f64) {
    gateway.metric_until("hubbub_gateway_connections", |now| now >= members).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_two_gateways_is_one_trace() {
    let (jaeger, nats) = (Jaeger::start().await, NatsServer::start().await);
    let (url, file) = (nats.url(), RoomsFile::lobby(OPEN));
    let flags = |id| file.flags(&["--nats", &url, "--gateway-id", id]);
    // One speaks gRPC with Jaeger, the other HTTP.
    let one = traced(&flags("gw-one"), &jaeger.grpc(), &[("HUBBUB_POD_NAME", "pod-one")]).await;
    let protocol = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    let two = traced(&flags("gw-two"), &jaeger.http(), &[protocol]).await;

    for gateway in [&one, &two] {
        // A member who enters before NATS is there may miss what is said at that moment.
        gateway.metric_until("hubbub_gateway_bus_connected", |connected| connected > 0.0).await;
    }
    let sender_id = "00c0ffee12345678";
    let path = format!("{LOBBY}?connection={sender_id}&token=secret");
    let mut sender = Client::join(one.listen(), &path, None).await.unwrap();
    let mut beside = Client::join(one.listen(), LOBBY, None).await.unwrap();
    let mut elsewhere = Client::join(two.listen(), LOBBY, None).await.unwrap();
    entered(&one, 2.0).await;
    entered(&two, 1.0).await;
    let payload = b"\xf0binary";
    sender.send_frame(true, Opcode::Binary, payload).await.unwrap();
    for member in [&mut sender, &mut beside, &mut elsewhere] {
        assert_eq!(member.next_message().await, Received::Binary(payload.to_vec()));
    }

    let handshake = jaeger.one(SERVICE, HANDSHAKE, &[("hubbub.connection.id", sender_id)]).await;
    assert_eq!(handshake.tag("span.kind"), "server");
    assert_eq!(handshake.tag("http.response.status_code"), "101");
    assert_eq!(handshake.tag("http.route"), "/rooms/{namespace}/{name}");
    assert_eq!(handshake.tag("url.path"), LOBBY, "without its query");
    assert_eq!(handshake.tag("url.scheme"), "http");
    assert_eq!(handshake.tag("hubbub.room"), "demo/lobby");
    assert_eq!(handshake.tag("hubbub.origin.verdict"), "not_required");
    assert_eq!(handshake.resource("service.instance.id"), "gw-one");
    assert_eq!(handshake.resource("k8s.pod.name"), "pod-one");
    assert!(!handshake.resource("service.version").is_empty());
    assert!(!format!("{handshake:?}").contains("secret"), "query strings are told to nobody");

    let publish = jaeger.one(SERVICE, PUBLISH, &[("hubbub.connection.id", sender_id)]).await;
    assert_eq!(publish.tag("span.kind"), "producer");
    assert_eq!(publish.tag("messaging.system"), "nats");
    assert_eq!(publish.tag("messaging.destination.name"), "hubbub.room.demo.lobby");
    assert_eq!(publish.tag("messaging.message.body.size"), payload.len().to_string());
    assert_eq!((&publish.parent, publish.links.len()), (&None, 1));
    assert_eq!(publish.links[0], (handshake.trace.clone(), handshake.id.clone()));
    let wanted = [("hubbub.room", "demo/lobby")];
    jaeger
        .until(SERVICE, &wanted, |spans| {
            spans.iter().filter(|span| span.name == PROCESS).count() == 2
        })
        .await;
    let trace = jaeger.trace(&publish.trace).await;
    assert_eq!(trace.len(), 3, "one publish and two process: {trace:#?}");
    for (gateway, delivered) in [("gw-one", "2"), ("gw-two", "1")] {
        let is_there = |span: &&JaegerSpan| {
            span.name == PROCESS && span.resource("service.instance.id") == gateway
        };
        let process = trace.iter().find(is_there).expect(gateway);
        assert_eq!(process.tag("span.kind"), "consumer");
        assert_eq!(process.parent.as_ref(), Some(&publish.id));
        assert_eq!(jaeger.parent(process).await, publish.id, "a parent, and a link as well");
        assert!(process.links.contains(&(publish.trace.clone(), publish.id.clone())));
        assert_eq!(process.tag("hubbub.delivered"), delivered, "{gateway}");
        assert_eq!((process.tag("hubbub.queued"), process.tag("hubbub.dropped")), both("0"));
    }

    sender.send_close(1000).await.unwrap();
    assert_eq!(sender.close_code().await, Some(1000));
    let closed = [("hubbub.close.code", "1000"), ("hubbub.room", "demo/lobby")];
    let end = jaeger.one(SERVICE, "connection end", &closed).await;
    assert_eq!(end.tag("hubbub.connection.id"), sender_id);
    assert_eq!(end.links, [(handshake.trace, handshake.id)]);
    assert_eq!(end.tag("hubbub.close.by"), "peer");
    assert_eq!(end.tag("hubbub.close.reason"), "peer_closed");
    assert_eq!((end.tag("hubbub.messages.in"), end.tag("hubbub.messages.out")), both("1"));
    assert_eq!(end.tag("hubbub.bytes.in"), payload.len().to_string());
    assert_eq!(one.metric("hubbub_gateway_spans_dropped_total{reason=\"queue_full\"}").await, 0.0);
    one.metric_until("hubbub_gateway_spans_exported_total", |spans| spans >= 4.0).await;
}

fn both(text: &str) -> (String, String) {
    (text.to_owned(), text.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_within_one_gateway_is_one_trace() {
    let (jaeger, file) = (Jaeger::start().await, RoomsFile::lobby(OPEN));
    let gateway = traced(&file.flags(&[]), &jaeger.grpc(), &[]).await;
    let mut member = Client::join(gateway.listen(), LOBBY, None).await.unwrap();
    member.send("hello").await.unwrap();
    assert_eq!(member.next_message().await, Received::Text("hello".to_owned()));
    let process = jaeger.one(SERVICE, PROCESS, &[("hubbub.delivered", "1")]).await;
    let trace = jaeger.trace(&process.trace).await;
    assert_eq!(process.parent.as_ref(), Some(&only(&trace, PUBLISH).id));
    assert_eq!(process.tag("messaging.system"), "hubbub");
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_reach_a_collector_over_tls() {
    let certificates = Certificates::make();
    let (jaeger, file) = (Jaeger::start_with_tls(&certificates).await, RoomsFile::lobby(OPEN));
    let authority = certificates.authority().display().to_string();
    for (id, protocol, endpoint) in [
        ("0000000000000001", "grpc", jaeger.grpc()),
        ("0000000000000002", "http/protobuf", jaeger.http()),
    ] {
        let protocol = ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
        let trusted = ("OTEL_EXPORTER_OTLP_CERTIFICATE", authority.as_str());
        let gateway = traced(&file.flags(&[]), &endpoint, &[protocol, trusted]).await;
        let path = format!("{LOBBY}?connection={id}");
        assert_eq!(Handshake::new(gateway.listen(), path).answer().await.status, 101);
        jaeger.one(SERVICE, HANDSHAKE, &[("hubbub.connection.id", id)]).await;

        // An authority that is not trusted is a collector that does not take anything.
        let gateway = traced(&file.flags(&[]), &endpoint, &[protocol]).await;
        assert_eq!(Handshake::new(gateway.listen(), LOBBY).answer().await.status, 101);
        let failed = "hubbub_gateway_spans_dropped_total{reason=\"export_failed\"}";
        gateway.metric_until(failed, |spans| spans > 0.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_too_slow_for_a_message_shows_in_its_trace() {
    let spec = "allowedOrigins: ['*'], requireOrigin: false, \
                limits: {messagesPerSecond: 1000000, burst: 1000000, maxMessageBytes: 65536, sendQueue: 4}";
    let (jaeger, file) = (Jaeger::start().await, RoomsFile::lobby(spec));
    let gateway = traced(&file.flags(&[]), &jaeger.grpc(), &[]).await;
    let _never_reads = Client::join(gateway.listen(), LOBBY, None).await.unwrap();
    let mut member = Client::join(gateway.listen(), LOBBY, None).await.unwrap();
    entered(&gateway, 2.0).await;
    let message = "x".repeat(65_536);
    let cut = "hubbub_gateway_connections_closed_total{reason=\"queue_full\",by=\"gateway\"}";
    while gateway.metric(cut).await == 0.0 {
        member.send(&message).await.unwrap();
        assert_eq!(member.next_message().await, Received::Text(message.clone()));
    }
    let of = [("hubbub.dropped", "1"), ("hubbub.delivered", "1"), ("hubbub.queued", "0")];
    jaeger.one(SERVICE, PROCESS, &of).await;
    let of = [("hubbub.dropped", "0"), ("hubbub.delivered", "1"), ("hubbub.queued", "1")];
    jaeger.one(SERVICE, PROCESS, &of).await;
    let end = jaeger.one(SERVICE, "connection end", &[("hubbub.close.code", "1013")]).await;
    assert_eq!(end.tag("hubbub.close.reason"), "queue_full");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_traced_and_only_our_own_faults_are_errors() {
    let jaeger = Jaeger::start().await;
    let rooms = [
        ("lobby", "{allowedOrigins: ['https://chat.example.com']}"),
        ("one", "{allowedOrigins: ['*'], requireOrigin: false, limits: {maxConnections: 1}}"),
    ];
    let file = RoomsFile::new(&rooms);
    let gateway = traced(&file.flags(&[]), &jaeger.grpc(), &[]).await;
    let ask = |path: &str| Handshake::new(gateway.listen(), path);
    assert_eq!(ask(LOBBY).with("Origin", "https://evil.example").answer().await.status, 403);
    assert_eq!(ask("/rooms/demo/nowhere?token=secret").answer().await.status, 404);
    assert_eq!(ask("/elsewhere").answer().await.status, 404);
    let _member = Client::join(gateway.listen(), "/rooms/demo/one", None).await.unwrap();
    assert_eq!(ask("/rooms/demo/one").answer().await.status, 503);
    for (name, reason, status, verdict) in [
        (HANDSHAKE, "origin_not_allowed", "403", "not_allowed"),
        (HANDSHAKE, "no_such_room", "404", ""),
        ("GET", "no_such_path", "404", ""),
        (HANDSHAKE, "room_full", "503", ""),
    ] {
        let span = jaeger.one(SERVICE, name, &[("hubbub.refusal.reason", reason)]).await;
        assert_eq!(span.tag("http.response.status_code"), status);
        assert_eq!(span.tag("hubbub.origin.verdict"), verdict);
        let error = if status == "503" { "true" } else { "" };
        assert_eq!(span.tag("error"), error, "{reason}");
        assert!(!format!("{span:?}").contains("secret"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_trace_is_linked_and_a_trusted_one_goes_on() {
    let (jaeger, file) = (Jaeger::start().await, RoomsFile::lobby(OPEN));
    let gateway = traced(&file.flags(&[]), &jaeger.grpc(), &[]).await;
    let path = |id: &str| format!("{LOBBY}?connection={id}");
    let (linked, unread) = ("0000000000000001", "0000000000000002");
    let ask = Handshake::new(gateway.listen(), path(linked));
    assert_eq!(ask.with("traceparent", traceparent("01")).answer().await.status, 101);
    let ask = Handshake::new(gateway.listen(), path(unread));
    assert_eq!(ask.with("traceparent", "00-zz").answer().await.status, 101);
    let span = jaeger.one(SERVICE, HANDSHAKE, &[("hubbub.connection.id", linked)]).await;
    assert_ne!(span.trace, STRANGER);
    assert_eq!(span.links, [(STRANGER.to_owned(), "00f067aa0ba902b7".to_owned())]);
    let span = jaeger.one(SERVICE, HANDSHAKE, &[("hubbub.connection.id", unread)]).await;
    assert_eq!((span.parent, span.links.len()), (None, 0));

    let trusting = traced(&file.flags(&["--trust-traceparent"]), &jaeger.grpc(), &[]).await;
    let (kept, not_kept) = ("0000000000000003", "0000000000000004");
    for (id, flags) in [(not_kept, "00"), (kept, "01")] {
        let ask = Handshake::new(trusting.listen(), path(id));
        assert_eq!(ask.with("traceparent", traceparent(flags)).answer().await.status, 101);
    }
    let span = jaeger.one(SERVICE, HANDSHAKE, &[("hubbub.connection.id", kept)]).await;
    assert_eq!(span.trace, STRANGER);
    assert_eq!(span.parent.as_deref(), Some("00f067aa0ba902b7"));
    // They end in the order in which they came.
    let tag = [("hubbub.connection.id", not_kept)];
    assert!(jaeger.find(SERVICE, &tag).await.iter().all(|span| span.name != HANDSHAKE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_leaves_its_receipt_and_the_ends_of_its_members() {
    let (jaeger, file) = (Jaeger::start().await, RoomsFile::lobby(OPEN));
    let quick = ["--drain-settle", "0s", "--drain-window", "100ms"];
    // Long enough that only the flush at the end can have sent them.
    let delay = [("OTEL_BSP_SCHEDULE_DELAY", "3600000")];
    let mut gateway = traced(&file.flags(&quick), &jaeger.grpc(), &delay).await;
    let mut member = Client::join(gateway.listen(), LOBBY, None).await.unwrap();
    gateway.terminate();
    assert_eq!(member.close_code().await, Some(1012));
    drop(member);
    assert!(gateway.ended().await.success());
    let drain = jaeger.one(SERVICE, "drain", &[]).await;
    assert_eq!((drain.tag("hubbub.drain.moved"), drain.tag("hubbub.drain.cut")), {
        ("1".to_owned(), "0".to_owned())
    });
    assert_eq!(drain.tag("hubbub.drain.by"), "SIGTERM");
    assert_eq!(drain.tag("hubbub.drain.bus_flushed"), "true");
    let end = jaeger.one(SERVICE, "connection end", &[("hubbub.close.code", "1012")]).await;
    assert_eq!(end.tag("hubbub.close.by"), "gateway");
    assert_eq!(end.tag("error"), "", "a member sent away in good order is no error");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_has_a_name_to_complain_by() {
    let (jaeger, file) = (Jaeger::start().await, RoomsFile::lobby("allowedOrigins: ['*']"));
    let gateway = traced(&file.flags(&[]), &jaeger.grpc(), &[]).await;
    let ask = |target: &str| Handshake::new(gateway.listen(), target);
    let mine = "00c0ffee12345678";
    let named = format!("?connection={mine}");
    for (request, status, its_own) in [
        (ask(&format!("{LOBBY}{named}")), 403, true),
        (ask(LOBBY), 403, false),
        (ask(&format!("/rooms/demo/nowhere{named}")), 404, true),
        (ask(&format!("/elsewhere{named}")), 404, true),
        (ask(&format!("{LOBBY}{named}")).set("Sec-WebSocket-Version", "12"), 426, true),
        (ask(&format!("{LOBBY}{named}")).with("Cookie", "x".repeat(20_000)), 431, true),
        (ask(&format!("{LOBBY}?connection=mine")), 400, false),
    ] {
        let answer = request.answer().await;
        assert_eq!(answer.status, status, "{}", answer.body);
        let name = answer.header("hubbub-connection").expect("it is told").to_owned();
        assert_eq!(name == mine, its_own, "{status}: {name}");
        assert!(name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
        let code = status.to_string();
        let tags = [("hubbub.connection.id", &*name), ("http.response.status_code", &*code)];
        jaeger.until(SERVICE, &tags, |spans| !spans.is_empty()).await;
        let told = gateway.find_all("handshake refused");
        assert!(told.iter().any(|line| line["connection"] == *name), "{name} in {told:#?}");
    }
    // A question by a plain GET is no connection.
    let asked = http::get(gateway.listen(), "/rooms/demo/nowhere").await;
    assert_eq!((asked.status, asked.header("hubbub-connection")), (404, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connections_name_leads_to_its_room_and_its_traffic() {
    let file = RoomsFile::lobby(OPEN);
    let gateway = GatewayProcess::start(GATEWAY, &file.flags(&[])).await;
    let ask = |target: &str| Handshake::new(gateway.listen(), target);
    let answer = ask(LOBBY).answer().await;
    let given = answer.header("hubbub-connection").expect("it is told").to_owned();
    assert!(given.len() == 16 && given.bytes().all(|byte| byte.is_ascii_hexdigit()), "{given}");
    let mine = "00c0ffee12345678";
    let mut member =
        Client::join(gateway.listen(), &format!("{LOBBY}?a=b&connection={mine}"), None)
            .await
            .unwrap();
    member.send("hello").await.unwrap();
    assert_eq!(member.next_message().await, Received::Text("hello".to_owned()));
    // In use: another takes a name of its own, and is told.
    let again = ask(&format!("{LOBBY}?connection={mine}")).answer().await;
    assert_eq!(again.status, 101);
    assert_ne!(again.header("hubbub-connection"), Some(mine));

    let answer = http::get(gateway.admin(), &format!("/rooms?connection={mine}")).await;
    assert_eq!(answer.status, 200);
    let told: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((&told["connection"], &told["room"]), (&mine.into(), &"demo/lobby".into()));
    assert_eq!((&told["messagesIn"], &told["messagesOut"]), (&1.into(), &1.into()));
    assert!(told["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{told}");
    let nobody = http::get(gateway.admin(), "/rooms?connection=ffffffffffffffff").await;
    assert_eq!(nobody.status, 404);
    assert!(nobody.body.contains("no connection ffffffffffffffff"), "{}", nobody.body);
    let wrong = http::get(gateway.admin(), "/rooms?connection=XYZ").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.body.contains("16 lower-case hexadecimal digits"), "{}", wrong.body);

    for query in ["connection=", "connection", "connection=XYZ", "connection=00C0FFEE12345678"] {
        let refused = ask(&format!("{LOBBY}?{query}")).answer().await;
        assert_eq!(refused.status, 400, "{query}");
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        assert!(refused.body.contains("16 lower-case hexadecimal digits"), "{}", refused.body);
    }
    let twice = ask(&format!("{LOBBY}?connection={mine}&connection={mine}")).answer().await;
    assert_eq!(twice.status, 400);

    member.send_close(1000).await.unwrap();
    assert_eq!(member.close_code().await, Some(1000));
    drop(member);
    eventually("its end is logged under its name", || {
        gateway.find_all("connection ended").iter().any(|line| line["connection"] == mine)
    })
    .await;
    let gone = http::get(gateway.admin(), &format!("/rooms?connection={mine}")).await;
    assert_eq!(gone.status, 404);
    let told = gateway.log().join("\n");
    assert!(!told.contains("a=b"), "query strings are not logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_by_tls_says_so() {
    let (jaeger, file, made) =
        (Jaeger::start().await, RoomsFile::lobby(OPEN), Certificates::make());
    let mut flags = file.flags(&[]);
    flags.extend(["--tls-certificate".into(), made.server().into_os_string()]);
    flags.extend(["--tls-key".into(), made.server_key().into_os_string()]);
    let gateway = traced(&flags, &jaeger.grpc(), &[]).await;
    let (name, trust) = ("00c0ffee00000443", Trust::in_authority(&made.authority()));
    let path = format!("{LOBBY}?connection={name}");
    let _member = Client::join_by_tls(gateway.listen(), &path, None, &trust).await.unwrap();
    let handshake = jaeger.one(SERVICE, HANDSHAKE, &[("hubbub.connection.id", name)]).await;
    assert_eq!(handshake.tag("url.scheme"), "https");
}
