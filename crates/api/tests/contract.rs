//! What travels between operator and gateway: its JSON to the letter, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use hubbub_api::{
    ChatRoom, ChatRoomSpec, DrainReport, GatewayReport, POLICY_SCHEMA, PolicyError, REPORT_SCHEMA,
    ReportError, RoomName, RoomPolicy,
};
use serde_json::{Value, json};

fn room() -> RoomName {
    RoomName::new("demo", "lobby").unwrap()
}

fn policy() -> RoomPolicy {
    let spec = ChatRoomSpec::new(vec!["https://chat.example.com".to_owned()]);
    let mut chat_room = ChatRoom::new(&room(), spec);
    chat_room.metadata.generation = 3;
    RoomPolicy::from_chat_room(&chat_room).unwrap()
}

/// The policy's JSON with one field changed.
fn changed(pointer: &str, value: Value) -> Vec<u8> {
    let mut json: Value = serde_json::from_slice(&policy().to_json().unwrap()).unwrap();
    *json.pointer_mut(pointer).unwrap() = value;
    serde_json::to_vec(&json).unwrap()
}

#[test]
fn a_policy_has_this_json() {
    let json: Value = serde_json::from_slice(&policy().to_json().unwrap()).unwrap();
    assert_eq!(
        json,
        json!({
            "schema": 1,
            "namespace": "demo",
            "name": "lobby",
            "generation": 3,
            "pool": "default",
            "allowedOrigins": ["https://chat.example.com"],
            "requireOrigin": true,
            "limits": {
                "maxConnections": 50_000,
                "maxMessageBytes": 512,
                "sendQueue": 256,
                "messagesPerSecond": 20,
                "burst": 40
            },
            "heartbeat": {"pongWait": "1m", "pingPeriod": "54s", "writeWait": "10s"}
        })
    );
    assert_eq!(RoomPolicy::from_json(&policy().to_json().unwrap()).unwrap(), policy());
}

#[test]
fn a_newer_policy_is_read_unless_its_schema_is_newer() {
    let mut json: Value = serde_json::from_slice(&policy().to_json().unwrap()).unwrap();
    json["moderation"] = json!({"words": []});
    json["limits"]["history"] = json!(100);
    let read = RoomPolicy::from_json(&serde_json::to_vec(&json).unwrap()).unwrap();
    assert_eq!(read, policy(), "unknown fields are tolerated");

    // Even when nothing else can be understood, the reason is the schema.
    let error = RoomPolicy::from_json(br#"{"schema": 2, "rooms": []}"#).unwrap_err();
    assert!(matches!(error, PolicyError::NewerSchema { found: 2, known: POLICY_SCHEMA }));
    assert_eq!(
        error.to_string(),
        "policy schema 2 is newer than 1, the newest this program reads: upgrade the gateway first"
    );
}

#[test]
fn a_bad_policy_never_comes_in() {
    for (json, needle) in [
        (changed("/limits/burst", json!(0)), "spec.limits.burst: must be 1 to"),
        (changed("/allowedOrigins", json!([])), "spec.allowedOrigins: must have 1 to 64 entries"),
        (
            changed("/allowedOrigins/0", json!("https://a/")),
            "spec.allowedOrigins[0]: must end after",
        ),
        (
            changed("/heartbeat/pingPeriod", json!("1m")),
            "spec.heartbeat.pingPeriod: must be shorter",
        ),
        (changed("/pool", json!("a.>")), "spec.gateways.pool: must be a DNS label"),
        (changed("/name", json!("*")), "the room's name must be a DNS label"),
        (changed("/namespace", json!(">")), "the namespace must be a DNS label"),
        (changed("/heartbeat/pongWait", json!("soon")), "must be a duration"),
        (changed("/limits/burst", json!(-1)), "not a room policy: invalid value"),
        (changed("/schema", json!(null)), "not a room policy: invalid type"),
        (b"".to_vec(), "not a room policy: EOF"),
        (b"{}".to_vec(), "not a room policy: missing field `schema`"),
        (b"\xff".to_vec(), "not a room policy"),
    ] {
        let error = RoomPolicy::from_json(&json).unwrap_err().to_string();
        assert!(error.contains(needle), "{error}, not {needle}");
    }
    let mut two = policy();
    two.limits.burst = 0;
    two.limits.send_queue = 0;
    let PolicyError::Invalid(violations) = two.validate().unwrap_err() else { panic!("invalid") };
    assert_eq!(violations.len(), 2, "all of them");
}

#[test]
fn a_room_that_breaks_a_rule_makes_no_policy() {
    let mut chat_room = ChatRoom::new(&room(), ChatRoomSpec::new(vec!["*".to_owned()]));
    chat_room.metadata.name = "a.b".to_owned();
    chat_room.spec.gateways.min = 11;
    let PolicyError::Invalid(violations) = RoomPolicy::from_chat_room(&chat_room).unwrap_err()
    else {
        panic!("invalid");
    };
    let ids: Vec<&str> = violations.iter().map(|violation| violation.rule.id).collect();
    assert_eq!(ids, ["name-dns-label", "gateways-min-max"]);
}

#[test]
fn a_report_has_this_json() {
    let report = GatewayReport {
        schema: REPORT_SCHEMA,
        gateway: "hubbub-default-7f9c".to_owned(),
        pool: "default".to_owned(),
        applied_revision: 41,
        bucket: Some(1_764_000_000_123_456_789),
        draining: false,
        connections: BTreeMap::from([("demo/lobby".to_owned(), 12)]),
        asks: None,
        answers: Vec::new(),
        drain: None,
        time_unix_ms: None,
    };
    let bytes = report.to_json().unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&bytes).unwrap(),
        json!({
            "schema": 1,
            "gateway": "hubbub-default-7f9c",
            "pool": "default",
            "appliedRevision": 41,
            "bucket": 1_764_000_000_123_456_789_i64,
            "draining": false,
            "connections": {"demo/lobby": 12}
        })
    );
    assert_eq!(GatewayReport::from_json(&bytes).unwrap(), report);
    assert_eq!(report.connections_of(&room()), 12);
    assert_eq!(report.connections_of(&RoomName::new("demo", "team").unwrap()), 0);
    let drain = Some(DrainReport { milliseconds: 2500, moved: 11, cut: 1 });
    let last = GatewayReport { draining: true, drain, ..report }.to_json().unwrap();
    let told: Value = serde_json::from_slice(&last).unwrap();
    assert_eq!(told["drain"], json!({"milliseconds": 2500, "moved": 11, "cut": 1}));
    assert_eq!(GatewayReport::from_json(&last).unwrap().drain, drain);
}

#[test]
fn a_strange_report_is_refused_and_a_newer_one_named() {
    let least = br#"{"schema":1,"gateway":"a","pool":"b","appliedRevision":0,"more":1}"#;
    assert!(GatewayReport::from_json(least).unwrap().connections.is_empty());
    assert!(matches!(
        GatewayReport::from_json(br#"{"schema":2}"#),
        Err(ReportError::NewerSchema { found: 2, known: REPORT_SCHEMA })
    ));
    let wildcard =
        br#"{"schema":1,"gateway":"a","pool":"b","appliedRevision":0,"connections":{"demo/*":1}}"#;
    assert!(matches!(GatewayReport::from_json(wildcard), Err(ReportError::Room(_))));
    assert!(matches!(GatewayReport::from_json(b"hello"), Err(ReportError::Json(_))));
}
