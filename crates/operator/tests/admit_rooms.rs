//! A real API server keeps the rules of rooms: it refuses what a file of rooms is refused for, with the same sentence at the
//! same field, and fills in the same defaults.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod admission;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use admission::{Admission, room};
use hubbub_api::rules::{MAX_ORIGIN_ENTRY_BYTES, MAX_ORIGINS, RULES};
use hubbub_api::{ChatRoomSpec, Problem, parse_rooms};
use serde_json::{Value, json};

fn manifests(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests").join(folder);
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The documents of a file, in the test's namespace instead of `demo`.
fn documents(path: &Path, admission: &Admission) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut documents: Vec<Value> = serde_yaml::from_multiple(&text).unwrap();
    for document in &mut documents {
        let namespace = &mut document["metadata"]["namespace"];
        if namespace == "demo" {
            *namespace = json!(admission.namespace());
        }
    }
    documents
}

#[tokio::test]
async fn every_invalid_example_is_refused_with_its_rules_sentence_at_its_field() {
    let admission = Admission::open("invalid").await;
    let mut shown = BTreeSet::new();
    for path in manifests("invalid") {
        let id = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let rule = RULES.iter().find(|rule| rule.id == id);
        let rule = rule.unwrap_or_else(|| panic!("{id}: no such rule"));
        let [document] = &documents(&path, &admission)[..] else { panic!("{id}: one document") };
        let refusals = admission.judge(document).await.unwrap_err();
        let here = parse_rooms(&std::fs::read_to_string(&path).unwrap()).unwrap_err();
        let says = |problem: &Problem| problem.to_string().contains(rule.message);
        assert!(here.iter().all(says), "{id}: {here:?}");
        let [refusal] = &refusals[..] else { panic!("{id}: one refusal, not {refusals:#?}") };
        if rule.cel.is_empty() {
            // No rule of a room's definition can see its namespace. The API server knows none of such a name, since it refuses to
            // make one, and says just that.
            assert_eq!(refusal.message, "namespaces \"Demo\" not found", "{id}");
        } else {
            assert!(refusal.message.ends_with(rule.message), "{id}: {refusal:?}");
            assert_eq!(refusal.field, rule.fields[0], "{id}");
        }
        shown.insert(id);
    }
    assert_eq!(shown, RULES.iter().map(|rule| rule.id.to_owned()).collect(), "one file a rule");
}

#[tokio::test]
async fn examples_are_accepted_and_read_as_the_gateway_reads_them() {
    let admission = Admission::open("examples").await;
    let mut count = 0;
    for path in manifests("examples") {
        let declared = parse_rooms(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for (document, room) in documents(&path, &admission).iter().zip(declared) {
            let kept = admission.judge(document).await.unwrap();
            let spec: ChatRoomSpec = serde_json::from_value(kept["spec"].clone()).unwrap();
            assert_eq!(spec, room.spec, "{}: {}", path.display(), room.metadata.name);
            count += 1;
        }
    }
    assert!(count > 0);
}

#[tokio::test]
async fn what_is_left_out_is_filled_in() {
    let admission = Admission::open("defaults").await;
    let origins = json!(["https://chat.example.com"]);
    let full = ChatRoomSpec::new(vec!["https://chat.example.com".to_owned()]);
    let full = serde_json::to_value(full).unwrap();
    for spec in [
        json!({"allowedOrigins": origins}),
        json!({"allowedOrigins": origins, "gateways": {}, "limits": {}, "heartbeat": {}}),
        json!({"allowedOrigins": origins, "gateways": {"pool": "default"}, "limits": {"burst": 40}}),
    ] {
        let kept = admission.judge(&room(&spec)).await.unwrap();
        assert_eq!(kept["spec"], full, "{spec}");
    }
}

#[tokio::test]
async fn the_dearest_rooms_are_judged_within_the_budget() {
    let admission = Admission::open("dearest").await;
    let origin = |number: usize, bytes: usize| {
        let head = format!("https://h{number:03}");
        let tail = ".example.com";
        let mut labels = ".a".repeat((bytes - head.len() - tail.len()) / 2);
        labels.push_str(tail);
        let padding = "a".repeat(bytes - head.len() - labels.len());
        format!("{head}{padding}{labels}")
    };
    let many = |count: usize, bytes: usize| -> Vec<String> {
        (0..count).map(|number| origin(number, bytes)).collect()
    };
    let (there, here) = admission.judge_origins(&many(MAX_ORIGINS, MAX_ORIGIN_ENTRY_BYTES)).await;
    assert!(there.is_empty() && here.is_empty(), "{there:?} {here:?}");

    // As much as the definition's bounds let through to the rules.
    let (there, here) = admission.judge_origins(&many(96, 512)).await;
    assert_eq!(there, here, "the rules speak, and nothing about their cost");
}

#[tokio::test]
async fn shapes_that_are_wrong_are_refused_here_and_there() {
    let admission = Admission::open("shapes").await;
    let origins = json!(["https://chat.example.com"]);
    let mut specs = vec![
        json!({}),
        json!({"allowedOrigins": "https://chat.example.com"}),
        json!({"allowedOrigins": [1]}),
        json!({"allowedOrigins": null}),
        json!({"allowedOrigins": origins, "requireOrigin": "yes"}),
        json!({"allowedOrigins": origins, "gateways": {"min": "2"}}),
        json!({"allowedOrigins": origins, "gateways": {"min": 2.5}}),
        json!({"allowedOrigins": origins, "gateways": []}),
        // What is misspelled.
        json!({"allowedOrigins": origins, "limit": {"burst": 4}}),
        json!({"allowedOrigins": origins, "limits": {"maxMessageByte": 4}}),
        json!({"alowedOrigins": origins}),
    ];
    for bad in ["", "5", "1.5s", "-1s", "1us", "1 s", " 1s", "1S", "3600000ms", "1h1h1h1h1h", "s"] {
        specs.push(json!({"allowedOrigins": origins, "heartbeat": {"writeWait": bad}}));
    }
    for spec in specs {
        let document = room(&spec);
        assert!(admission.judge(&document).await.is_err(), "the API server takes {spec}");
        assert!(parse_rooms(&document.to_string()).is_err(), "the gateway takes {spec}");
    }
}

#[tokio::test]
async fn durations_mean_the_same_here_and_there() {
    let admission = Admission::open("durations").await;
    let origins = json!(["https://chat.example.com"]);
    for (duration, good) in [
        ("10s", true),
        ("1m30s", true),
        ("30s1m", true),
        ("1s1s", true),
        ("00010s", true),
        ("10000ms", true),
        ("100ms", true),
        ("99ms", false),
        ("0s", false),
        ("0h0m0s100ms", true),
        ("5m", true),
        ("4m60s", true),
        ("5m1ms", false),
        ("99999h", false),
    ] {
        let spec = json!({"allowedOrigins": origins, "heartbeat": {"writeWait": duration}});
        let document = room(&spec);
        let there = admission.judge(&document).await;
        assert_eq!(there.is_ok(), good, "the API server on {duration}: {there:?}");
        assert_eq!(parse_rooms(&document.to_string()).is_ok(), good, "the gateway on {duration}");
    }
}

#[tokio::test]
async fn unknown_fields_are_named() {
    let admission = Admission::open("unknown").await;
    let spec = json!({"allowedOrigins": ["*"], "limits": {"maxMessageByte": 4}});
    let refusals = admission.judge(&room(&spec)).await.unwrap_err();
    let said = format!("{refusals:?}");
    assert!(
        said.contains("unknown field") && said.contains("spec.limits.maxMessageByte"),
        "{said}"
    );
}

#[tokio::test]
async fn kubectl_shows_a_room_in_columns() {
    let admission = Admission::open("columns").await;
    let kubectl = admission.kubectl();
    let in_namespace = format!("--namespace={}", admission.namespace());
    let mut lobby = room(&json!({"allowedOrigins": ["*"], "gateways": {"pool": "big"}}));
    lobby["metadata"] = json!({"name": "lobby", "namespace": admission.namespace()});
    kubectl.apply(&lobby.to_string()).await;
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
        })
    };
    let status = json!({"status": {
        "path": "/rooms/demo/lobby",
        "observedGeneration": 1,
        "gateways": {"ready": 3, "programmed": 2},
        "connections": 12044,
        "conditions": [
            condition("Accepted", "True", "Accepted"), condition("Ready", "False", "Propagating"),
        ],
    }});
    let status = status.to_string();
    let patch = ["patch", "room", "lobby", "--subresource=status", "--type=merge", "--patch"];
    kubectl.run(&[&patch[..], &[&status, &in_namespace]].concat()).await;

    let columns = |table: &str| -> Vec<Vec<String>> {
        table.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    for name in ["chatrooms", "chatroom", "room", "hubbub"] {
        let table = columns(&kubectl.run(&["get", name, &in_namespace]).await);
        let [head, row] = &table[..] else { panic!("{name}: a head and a row, not {table:?}") };
        assert_eq!(head[..], ["NAME", "READY", "POOL", "GATEWAYS", "CONNECTIONS", "AGE"]);
        assert_eq!(row[1..5], ["False", "big", "3", "12044"], "{name}");
    }
    let table = columns(&kubectl.run(&["get", "room", "--output=wide", &in_namespace]).await);
    assert_eq!(table[0][..], ["NAME", "READY", "REASON", "POOL", "GATEWAYS", "CONNECTIONS", "AGE"]);
    assert_eq!(table[1][1..6], ["False", "Propagating", "big", "3", "12044"]);
    let explained = kubectl.run(&["explain", "chatroom.spec.limits.sendQueue"]).await;
    assert!(explained.contains("closed with 1013"), "{explained}");
}
