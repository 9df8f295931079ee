//! What travels between operator and gateway: its JSON to the letter, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use hubbub_api::{
    Access, Auth, ChatRoom, ChatRoomSpec, DrainReport, GatewayReport, Jwt, KeySource,
    POLICY_SCHEMA, PolicyError, REPORT_SCHEMA, ReportError, RoomName, RoomPolicy, parse_jwks,
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
            "auth": {"anonymous": "ReadWrite"},
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
    let error = RoomPolicy::from_json(br#"{"schema": 3, "rooms": []}"#).unwrap_err();
    assert!(matches!(error, PolicyError::NewerSchema { found: 3, known: POLICY_SCHEMA }));
    assert_eq!(
        error.to_string(),
        "policy schema 3 is newer than 2, the newest this program reads: upgrade the gateway first"
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

const KEYS: &str = r#"{"keys": [{"kid": "now", "kty": "OKP", "crv": "Ed25519", "use": "sig",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

fn with_tokens(source: KeySource) -> ChatRoom {
    let mut spec = ChatRoomSpec::new(vec!["https://chat.example.com".to_owned()]);
    let jwt = Some(Jwt::new("https://id.example.com/", "chat", source));
    spec.auth = Auth { anonymous: Access::Read, jwt };
    ChatRoom::new(&room(), spec)
}

#[test]
fn a_room_with_tokens_carries_its_keys_and_older_gateways_do_not_misread_it() {
    let policy = RoomPolicy::from_chat_room(&with_tokens(KeySource::inline(KEYS))).unwrap();
    let json: Value = serde_json::from_slice(&policy.to_json().unwrap()).unwrap();
    assert_eq!(json["schema"], 2, "one that knows of no tokens would let everybody in");
    assert_eq!(
        json["auth"],
        json!({
            "anonymous": "Read",
            "jwt": {
                "issuer": "https://id.example.com/",
                "audiences": ["chat"],
                "keys": [{"kid": "now", "alg": "EdDSA", "kty": "OKP", "crv": "Ed25519",
                    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}],
                "claim": "hubbub",
                "accessWithoutClaim": "ReadWrite",
                "leeway": "30s"
            }
        })
    );
    assert_eq!(RoomPolicy::from_json(&policy.to_json().unwrap()).unwrap(), policy);

    for (pointer, value) in [
        ("/auth/jwt/keys", json!([])),
        ("/auth/jwt/audiences", json!([])),
        ("/auth/jwt/issuer", json!("")),
        ("/auth/jwt/keys/0/x", json!("AAAA")),
        ("/auth/jwt/keys/0/alg", json!("ES256")),
    ] {
        let mut unsound = json.clone();
        *unsound.pointer_mut(pointer).unwrap() = value;
        let error = RoomPolicy::from_json(&serde_json::to_vec(&unsound).unwrap()).unwrap_err();
        assert!(matches!(error, PolicyError::Keys), "{pointer}: {error}");
    }
    let mut symmetric = json;
    symmetric["auth"]["jwt"]["keys"][0] = json!({"alg": "HS256", "kty": "oct", "k": "c2VjcmV0"});
    let error = RoomPolicy::from_json(&serde_json::to_vec(&symmetric).unwrap()).unwrap_err();
    assert!(matches!(error, PolicyError::Json(_)), "{error}");
}

#[test]
fn keys_that_stand_elsewhere_are_brought_by_who_can_look_there() {
    let url = Some("https://id.example.com/jwks.json".to_owned());
    let chat_room = with_tokens(KeySource { url, ..KeySource::default() });
    let error = RoomPolicy::from_chat_room(&chat_room).unwrap_err();
    assert!(error.to_string().contains("give the key set by spec.auth.jwt.jwks.inline"), "{error}");
    let keys = parse_jwks(KEYS).unwrap();
    let policy = RoomPolicy::with_keys(&chat_room, keys.clone()).unwrap();
    assert_eq!(RoomPolicy::from_json(&policy.to_json().unwrap()).unwrap(), policy);
    let jwt = policy.auth.jwt.unwrap();
    assert_eq!(jwt.keys, keys);
    assert_eq!(jwt.keys_from.unwrap(), "https://id.example.com/jwks.json");
}

#[test]
fn only_keys_that_stand_elsewhere_may_be_missing() {
    let url = Some("https://id.example.com/jwks.json".to_owned());
    let elsewhere = with_tokens(KeySource { url, ..KeySource::default() });
    let policy = RoomPolicy::with_keys(&elsewhere, Vec::new()).unwrap();
    assert_eq!(RoomPolicy::from_json(&policy.to_json().unwrap()).unwrap(), policy);
    let here = with_tokens(KeySource::inline(KEYS));
    let policy = RoomPolicy::with_keys(&here, Vec::new()).unwrap();
    let error = RoomPolicy::from_json(&policy.to_json().unwrap()).unwrap_err();
    assert!(matches!(error, PolicyError::Keys), "{error}");
}
