//! Every rule has a room that just keeps it and one that just breaks it, and an invalid example that people can read.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod auth;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hubbub_api::rules::{Candidate, RULES, check};
use hubbub_api::{ChatRoom, ChatRoomSpec, RoomName, WireDuration, parse_rooms};

fn manifests(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml" || e == "yml"))
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn every_rule_has_an_invalid_example_that_is_refused_for_it_alone() {
    let mut shown = BTreeSet::new();
    for (path, text) in manifests("invalid") {
        let id = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let rule =
            RULES.iter().find(|r| r.id == id).unwrap_or_else(|| panic!("{id}: no such rule"));
        let sentence = text.lines().next().unwrap().strip_prefix("# ").unwrap();
        assert_eq!(sentence, rule.message, "{id}: the first line is the rule's sentence");
        let line = 1 + text.lines().position(|line| line.ends_with("# <- here")).unwrap();

        let problems = parse_rooms(&text).unwrap_err();
        let [problem] = &problems[..] else { panic!("{id}: one problem, not {problems:#?}") };
        assert_eq!(problem.message, sentence, "{id}");
        assert_eq!(problem.line, line, "{id}: {problem}");
        assert!(problem.field.starts_with(rule.fields[0]), "{id}: {problem}");
        assert!(shown.insert(id));
    }
    let all: BTreeSet<String> = RULES.iter().map(|rule| rule.id.to_owned()).collect();
    assert_eq!(shown, all, "one file a rule");
}

#[test]
fn every_example_is_good() {
    let files = manifests("examples");
    assert!(!files.is_empty());
    for (path, text) in files {
        let rooms = parse_rooms(&text).unwrap_or_else(|p| panic!("{}: {p:#?}", path.display()));
        assert!(!rooms.is_empty(), "{}", path.display());
    }
}

#[test]
fn the_rooms_to_begin_with_are_what_they_say() {
    let text = include_str!("../../../../manifests/examples/rooms.yaml");
    let rooms = parse_rooms(text).unwrap();
    let names: Vec<String> = rooms.iter().map(|r| r.room_name().unwrap().to_string()).collect();
    assert_eq!(names, ["demo/lobby", "demo/team", "demo/firehose"]);
    let [lobby, team, firehose] = &rooms[..] else { panic!("three rooms") };
    // The lobby shows the defaults, except for its origins.
    assert_eq!(lobby.spec, ChatRoomSpec::new(lobby.spec.allowed_origins.clone()));
    assert_eq!(lobby.spec.allowed_origins.len(), 4);
    assert_eq!(team.spec.limits.max_connections, 500);
    assert!(!firehose.spec.require_origin);
    assert_eq!(firehose.spec.allowed_origins, ["*"]);
}

#[test]
fn rules_are_well_formed() {
    let mut ids = BTreeSet::new();
    for rule in RULES {
        assert!(ids.insert(rule.id), "{} stands twice", rule.id);
        assert!(!rule.fields.is_empty(), "{} reads something", rule.id);
        assert!(!rule.message.ends_with('.') && !rule.message.contains('\n'), "{}", rule.id);
        assert!(
            rule.fields.iter().all(|field| field.starts_with(rule.scope)),
            "{}: what the rule reads is under its scope",
            rule.id
        );
    }
}

fn sound() -> ChatRoom {
    let name = RoomName::new("demo", "lobby").unwrap();
    ChatRoom::new(&name, ChatRoomSpec::new(vec!["https://chat.example.com".to_owned()]))
}

fn origins(room: &mut ChatRoom, entries: &[&str]) {
    room.spec.allowed_origins = entries.iter().map(|&entry| entry.to_owned()).collect();
}

fn many(room: &mut ChatRoom, count: usize) {
    room.spec.allowed_origins = (0..count).map(|n| format!("https://h{n}.example.com")).collect();
}

/// An entry of exactly so many bytes.
fn long(room: &mut ChatRoom, bytes: usize) {
    let labels = "a.".repeat(200);
    let entry = format!("https://{}", &labels[..(bytes - "https://".len()) / 2 * 2 - 1]);
    let padding = "a".repeat(bytes - entry.len());
    origins(room, &[&format!("{entry}{padding}")]);
    assert_eq!(room.spec.allowed_origins[0].len(), bytes);
}

fn ms(milliseconds: u64) -> WireDuration {
    WireDuration::from_millis(milliseconds)
}

type Edit = fn(&mut ChatRoom);

/// For each rule, rooms that just keep it and rooms that just break it.
fn table() -> Vec<(&'static str, Vec<Edit>, Vec<Edit>)> {
    vec![
        (
            "name-dns-label",
            vec![
                |r| r.metadata.name = "a".repeat(63),
                |r| r.metadata.name = "0-9".to_owned(),
                |r| r.metadata.name = "a--b".to_owned(),
            ],
            vec![
                |r| r.metadata.name = "a".repeat(64),
                |r| r.metadata.name = "-a".to_owned(),
                |r| r.metadata.name = "a-".to_owned(),
                |r| r.metadata.name = "a.b".to_owned(),
                |r| r.metadata.name = "A".to_owned(),
                |r| r.metadata.name = String::new(),
            ],
        ),
        (
            "namespace-dns-label",
            vec![|r| r.metadata.namespace = "a".repeat(63)],
            vec![
                |r| r.metadata.namespace = "a".repeat(64),
                |r| r.metadata.namespace = "*".to_owned(),
                |r| r.metadata.namespace = String::new(),
            ],
        ),
        (
            "origins-count",
            vec![|r| many(r, 1), |r| many(r, 64)],
            vec![|r| many(r, 0), |r| many(r, 65)],
        ),
        (
            "origins-star-alone",
            vec![|r| origins(r, &["*"])],
            vec![|r| origins(r, &["https://chat.example.com", "*"])],
        ),
        ("origin-length", vec![|r| long(r, 253)], vec![|r| long(r, 254), |r| origins(r, &[""])]),
        (
            "origin-scheme",
            vec![|r| origins(r, &["https://a", "HTTP://b", "chrome-extension://abcdef", "null"])],
            vec![
                |r| origins(r, &["chat.example.com"]),
                |r| origins(r, &["wss://chat.example.com"]),
                |r| origins(r, &["file:///page.html"]),
                |r| origins(r, &["data:text/html"]),
                |r| origins(r, &["1https://a"]),
                |r| origins(r, &["Null"]),
            ],
        ),
        (
            "origin-wildcard",
            vec![|r| origins(r, &["https://*.example.com", "http://*.localhost:8080"])],
            vec![
                |r| origins(r, &["*.example.com"]),
                |r| origins(r, &["*://example.com"]),
                |r| origins(r, &["https://*"]),
                |r| origins(r, &["https://*example.com"]),
                |r| origins(r, &["https://a.*.example.com"]),
                |r| origins(r, &["https://*.*.example.com"]),
                |r| origins(r, &["https://*.example.com:*"]),
                |r| origins(r, &["https://*.10.0.0.1"]),
                |r| origins(r, &["https://*.[::1]"]),
            ],
        ),
        (
            "origin-path",
            vec![|r| origins(r, &["https://chat.example.com:8443"])],
            vec![
                |r| origins(r, &["https://chat.example.com/"]),
                |r| origins(r, &["https://*.example.com/chat"]),
                |r| origins(r, &["https://chat.example.com?x"]),
                |r| origins(r, &["https://chat.example.com#x"]),
            ],
        ),
        (
            "origin-form",
            vec![|r| {
                origins(r, &["http://127.0.0.1:1", "http://[::1]:65535", "https://xn--e1afmkfd"])
            }],
            vec![
                |r| origins(r, &["https://user@chat.example.com"]),
                |r| origins(r, &["https://chat.example.com."]),
                |r| origins(r, &["https://пример"]),
                |r| origins(r, &[" https://chat.example.com"]),
                |r| origins(r, &["https://a,https://b"]),
                |r| origins(r, &["https://chat.example.com:0"]),
                |r| origins(r, &["https://chat.example.com:65536"]),
                |r| origins(r, &["https://"]),
                |r| origins(r, &["https://*."]),
            ],
        ),
        (
            "origins-unique",
            vec![|r| origins(r, &["https://a", "http://a", "https://a:444", "https://*.a"])],
            vec![
                |r| origins(r, &["https://a", "https://a"]),
                |r| origins(r, &["https://a", "https://A:443"]),
                |r| origins(r, &["https://*.a", "HTTPS://*.a:443"]),
                |r| origins(r, &["null", "null"]),
            ],
        ),
        (
            "pool-dns-label",
            vec![|r| r.spec.gateways.pool = "big-rooms".to_owned()],
            vec![|r| r.spec.gateways.pool = "big_rooms".to_owned(), |r| {
                r.spec.gateways.pool = String::new()
            }],
        ),
        (
            "gateways-min-range",
            vec![|r| r.spec.gateways.min = 1],
            vec![|r| r.spec.gateways.min = 0],
        ),
        (
            "gateways-max-range",
            vec![|r| r.spec.gateways.max = 500],
            vec![|r| r.spec.gateways.max = 501],
        ),
        (
            "gateways-min-max",
            vec![|r| r.spec.gateways.min = 10],
            vec![|r| r.spec.gateways.min = 11, |r| r.spec.gateways.max = 1],
        ),
        (
            "connections-per-gateway-range",
            vec![|r| r.spec.gateways.connections_per_gateway = 1, |r| {
                r.spec.gateways.connections_per_gateway = 1_000_000
            }],
            vec![|r| r.spec.gateways.connections_per_gateway = 0, |r| {
                r.spec.gateways.connections_per_gateway = 1_000_001
            }],
        ),
        (
            "max-connections-range",
            vec![|r| r.spec.limits.max_connections = 1, |r| {
                r.spec.limits.max_connections = 10_000_000
            }],
            vec![|r| r.spec.limits.max_connections = 0, |r| {
                r.spec.limits.max_connections = 10_000_001
            }],
        ),
        (
            "max-message-bytes-range",
            vec![|r| r.spec.limits.max_message_bytes = 1, |r| {
                r.spec.limits.max_message_bytes = 16 << 20
            }],
            vec![|r| r.spec.limits.max_message_bytes = 0, |r| {
                r.spec.limits.max_message_bytes = (16 << 20) + 1
            }],
        ),
        (
            "send-queue-range",
            vec![|r| r.spec.limits.send_queue = 1, |r| r.spec.limits.send_queue = 65_536],
            vec![|r| r.spec.limits.send_queue = 0, |r| r.spec.limits.send_queue = 65_537],
        ),
        (
            "messages-per-second-range",
            vec![|r| r.spec.limits.messages_per_second = 1, |r| {
                r.spec.limits.messages_per_second = 1_000_000
            }],
            vec![|r| r.spec.limits.messages_per_second = 0, |r| {
                r.spec.limits.messages_per_second = 1_000_001
            }],
        ),
        (
            "burst-range",
            vec![|r| r.spec.limits.burst = 1, |r| r.spec.limits.burst = 1_000_000],
            vec![|r| r.spec.limits.burst = 0, |r| r.spec.limits.burst = 1_000_001],
        ),
        (
            "bytes-per-second-range",
            vec![
                |r| r.spec.limits.bytes_per_second = None,
                |r| r.spec.limits.bytes_per_second = Some(1),
                |r| r.spec.limits.bytes_per_second = Some(1_000_000_000),
            ],
            vec![|r| r.spec.limits.bytes_per_second = Some(0), |r| {
                r.spec.limits.bytes_per_second = Some(1_000_000_001)
            }],
        ),
        (
            "room-messages-per-second-range",
            vec![
                |r| r.spec.limits.room_messages_per_second = None,
                |r| r.spec.limits.room_messages_per_second = Some(1),
                |r| r.spec.limits.room_messages_per_second = Some(1_000_000),
            ],
            vec![|r| r.spec.limits.room_messages_per_second = Some(0), |r| {
                r.spec.limits.room_messages_per_second = Some(1_000_001)
            }],
        ),
        (
            "pong-wait-range",
            vec![|r| r.spec.heartbeat.pong_wait = ms(3_600_000)],
            vec![|r| r.spec.heartbeat.pong_wait = ms(3_600_001)],
        ),
        (
            "ping-period-range",
            vec![|r| r.spec.heartbeat.ping_period = ms(100)],
            vec![|r| r.spec.heartbeat.ping_period = ms(99)],
        ),
        (
            "write-wait-range",
            vec![|r| r.spec.heartbeat.write_wait = ms(100), |r| {
                r.spec.heartbeat.write_wait = ms(300_000)
            }],
            vec![|r| r.spec.heartbeat.write_wait = ms(99), |r| {
                r.spec.heartbeat.write_wait = ms(300_001)
            }],
        ),
        (
            "ping-before-pong",
            vec![|r| r.spec.heartbeat.ping_period = ms(59_999)],
            vec![|r| r.spec.heartbeat.ping_period = ms(60_000), |r| {
                r.spec.heartbeat.pong_wait = ms(54_000)
            }],
        ),
    ]
}

#[test]
fn rooms_at_the_bounds_are_good_and_rooms_beyond_break_that_rule_alone() {
    let mut table = table();
    table.extend(auth::table());
    let covered: BTreeSet<&str> = table.iter().map(|(id, _, _)| *id).collect();
    assert_eq!(covered, RULES.iter().map(|rule| rule.id).collect(), "one row a rule");
    for (id, keep, breach) in table {
        for (position, edit) in keep.into_iter().enumerate() {
            let mut room = sound();
            edit(&mut room);
            let broken = check(&Candidate::of_chat_room(&room));
            assert!(broken.is_empty(), "{id}, good room {position}: {broken:?}");
        }
        for (position, edit) in breach.into_iter().enumerate() {
            let mut room = sound();
            edit(&mut room);
            let broken = check(&Candidate::of_chat_room(&room));
            let ids: Vec<&str> = broken.iter().map(|violation| violation.rule.id).collect();
            assert_eq!(ids, [id], "{id}, bad room {position}");
        }
    }
}
