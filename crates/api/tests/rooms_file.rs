//! What people read when their file of rooms is wrong, to the letter; and that no file is too clever.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use hubbub_api::{MAX_ROOMS_BYTES, RoomName, parse_rooms};

/// A good room, to which a case adds or in which it changes something.
const ROOM: &str = "\
apiVersion: hubbub.dev/v1alpha1
kind: ChatRoom
metadata:
  name: lobby
  namespace: demo
spec:
  allowedOrigins: [\"https://chat.example.com\"]
";

fn problems(text: &str) -> Vec<String> {
    parse_rooms(text).unwrap_err().iter().map(ToString::to_string).collect()
}

/// The problems of the good room with this added to it (its first line is line 8).
fn with(added: &str) -> Vec<String> {
    problems(&format!("{ROOM}{added}"))
}

/// The problems of the good room with one text replaced.
fn instead(old: &str, new: &str) -> Vec<String> {
    assert!(ROOM.contains(old), "{old}");
    problems(&ROOM.replacen(old, new, 1))
}

#[test]
fn unknown_fields_come_with_a_suggestion() {
    assert_eq!(
        with("  limits:\n    maxConections: 5\n"),
        ["9: spec.limits.maxConections: is not a field: did you mean maxConnections?"]
    );
    assert_eq!(
        with("  heartbeats: {}\n"),
        ["8: spec.heartbeats: is not a field: did you mean heartbeat?"]
    );
    assert_eq!(
        with("  gateways:\n    colour: red\n"),
        [
            "9: spec.gateways.colour: is not a field: remove it (the fields here are pool, min, max, connectionsPerGateway)"
        ]
    );
    assert_eq!(with("specs: {}\n"), ["8: specs: is not a field: did you mean spec?"]);
}

#[test]
fn what_kubernetes_owns_is_tolerated() {
    let text = format!("{ROOM}status:\n  connections: many\n  unknown: true\n").replace(
        "  namespace: demo\n",
        "  namespace: demo\n  generation: 7\n  labels: {team: a}\n  annotations:\n    note: x\n  uid: 1-2\n",
    );
    let rooms = parse_rooms(&text).unwrap();
    assert_eq!(rooms[0].metadata.generation, 7);
}

#[test]
fn wrong_types_say_what_is_right() {
    assert_eq!(
        with(
            "  requireOrigin: 'yes'\n  limits: {burst: \"5\", sendQueue: 1.5, maxConnections: [1]}\n  gateways: 3\n"
        ),
        [
            "8: spec.requireOrigin: must be true or false, without quotes, not \"yes\"",
            "9: spec.limits.burst: must be a whole number without quotes or unit, not \"5\"",
            "9: spec.limits.sendQueue: must be a whole number, not a decimal number",
            "9: spec.limits.maxConnections: must be a whole number, not a list",
            "10: spec.gateways: must be a group of fields, not a number",
        ]
    );
    assert_eq!(
        instead("lobby", "7"),
        ["4: metadata.name: must be text, not a number: put it in quotes"]
    );
    assert_eq!(
        instead("[\"https://chat.example.com\"]", "https://chat.example.com"),
        [
            "7: spec.allowedOrigins: must be a list, such as [\"https://chat.example.com\"], not \"https://chat.example.com\""
        ]
    );
    assert_eq!(
        instead("[\"https://chat.example.com\"]", "[null, 5]"),
        [
            "7: spec.allowedOrigins[0]: must be text: put null in quotes, \"null\", or remove the entry",
            "7: spec.allowedOrigins[1]: must be text, not a number: put it in quotes",
        ]
    );
    assert_eq!(problems("- a\n- b\n"), ["1: must be a ChatRoom document, not a list"]);
}

#[test]
fn numbers_beyond_every_type_meet_the_bound_of_their_field() {
    assert_eq!(
        with(
            "  limits:\n    burst: -99999999999999999999999\n    sendQueue: 99999999999999999999999\n    maxConnections: 4294967296\n"
        ),
        [
            "9: spec.limits.burst: must be 1 to 1000000 messages",
            "10: spec.limits.sendQueue: must be 1 to 65536 messages",
            "11: spec.limits.maxConnections: must be 1 to 10000000 connections",
        ]
    );
}

#[test]
fn what_is_missing_is_asked_for() {
    let origins = "spec.allowedOrigins: is missing: list the origins whose pages may join, such as [\"https://chat.example.com\"], or [\"*\"] for all";
    assert_eq!(
        instead("  allowedOrigins: [\"https://chat.example.com\"]\n", "  requireOrigin: false\n"),
        [format!("6: {origins}")]
    );
    assert_eq!(instead("[\"https://chat.example.com\"]", ""), [format!("7: {origins}")]);
    assert_eq!(
        instead("  name: lobby\n", ""),
        ["3: metadata.name: is missing: give the room a name, such as lobby"]
    );
    assert_eq!(
        problems("# a comment\nkind: ChatRoom\n"),
        [
            "2: apiVersion: is missing: write apiVersion: hubbub.dev/v1alpha1",
            "2: metadata: is missing: give the room a metadata.name",
            "2: spec: is missing: a room needs at least spec.allowedOrigins",
        ]
    );
}

#[test]
fn durations_need_a_unit() {
    assert_eq!(
        with("  heartbeat:\n    pongWait: 60\n    pingPeriod: 1d\n    writeWait: true\n"),
        [
            "9: spec.heartbeat.pongWait: must be a duration with a unit, such as 60s or 60ms",
            "10: spec.heartbeat.pingPeriod: must be a duration: whole numbers with the units h, m, s or ms, such as 60s, 1m30s or 500ms, not \"1d\"",
            "11: spec.heartbeat.writeWait: must be a duration, such as 60s, not true or false",
        ]
    );
}

#[test]
fn mistakes_of_yaml_are_put_in_words() {
    assert_eq!(
        with("  limits:\n\tburst: 5\n"),
        ["9: a tab stands in the indentation: YAML takes only spaces"]
    );
    assert_eq!(
        instead("\"https://chat.example.com\"", "*"),
        ["7: a word that begins with * must stand in quotes: write \"*\""]
    );
    assert_eq!(
        instead("[\"https://chat.example.com\"]", "\n  - *.example.com"),
        ["8: a word that begins with * must stand in quotes: write \"*.example.com\""]
    );
    assert_eq!(
        with("  requireOrigin: true\n  requireOrigin: false\n"),
        ["9: spec.requireOrigin: is given twice, first on line 8: keep one"]
    );
    let [problem] = &with("   requireOrigin: true\n")[..] else { panic!("one problem") };
    assert!(
        problem.starts_with("8: this is not YAML: ") && !problem.contains(" at line "),
        "{problem}"
    );
}

#[test]
fn everything_that_is_wrong_is_told_at_once_in_order() {
    let text = format!(
        "{ROOM}  limits:\n    burst: 0\n    colour: red\n  heartbeat:\n    pingPeriod: 2m\n---\n{}---\n{}",
        ROOM.replace("https://chat.example.com", "chat.example.com"),
        "kind: Deployment\n"
    );
    assert_eq!(
        problems(&text),
        [
            "9: spec.limits.burst: must be 1 to 1000000 messages",
            "10: spec.limits.colour: is not a field: remove it (the fields here are maxConnections, maxMessageBytes, sendQueue, messagesPerSecond, burst, bytesPerSecond, roomMessagesPerSecond)",
            "12: spec.heartbeat.pingPeriod: must be shorter than spec.heartbeat.pongWait, or members are closed before they are asked: lower pingPeriod (54s if not given) or raise pongWait (60s if not given)",
            "17: metadata.name: declares the room demo/lobby a second time, first on line 4: rename or remove one",
            "20: spec.allowedOrigins[0]: must begin with the scheme of the page that connects, such as https:// or http:// (not ws:// or wss://, which is the socket's own; pages of file: and data: count as \"null\")",
            "22: kind: is \"Deployment\", and only ChatRoom documents belong in this file: move this one to another",
        ]
    );
    let problems = parse_rooms(&text).unwrap_err();
    assert_eq!(problems[0].room.as_deref(), Some("demo/lobby"));
    assert_eq!((problems[0].column, problems[0].field.as_str()), (Some(5), "spec.limits.burst"));
}

#[test]
fn no_document_hides_what_is_wrong_with_the_others() {
    let faulty = ROOM.replace("lobby", "L");
    let name = |line: usize| {
        format!(
            "{line}: metadata.name: must be a DNS label, because it becomes part of a NATS subject: 1 to 63 lower-case letters, digits or hyphens, with a letter or digit at both ends"
        )
    };
    for (other, problem) in [
        (
            "kind: Deployment\nspec: {a: 1}",
            "1: kind: is \"Deployment\", and only ChatRoom documents",
        ),
        ("kind: Deployment\n? {a: b}\n: c", "2: this is not YAML"),
        ("- a\n- b", "1: must be a ChatRoom document"),
        ("hello", "1: must be a ChatRoom document"),
    ] {
        let problems = problems(&format!("{other}\n---\n{faulty}"));
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with(problem), "{problems:?}");
        assert_eq!(problems[1], name(other.lines().count() + 5));
    }
    // A word away from the right kind, the document is meant for us.
    assert_eq!(
        problems(&faulty.replace("kind: ChatRoom", "kind: Chatroom")),
        ["2: kind: is \"Chatroom\": did you mean ChatRoom?".to_owned(), name(4)]
    );
}

#[test]
fn what_is_wrong_on_one_line_is_told_from_left_to_right() {
    assert_eq!(
        with("  limits: {burst: 0, colour: red, sendQueue: 1.5}\n"),
        [
            "8: spec.limits.burst: must be 1 to 1000000 messages",
            "8: spec.limits.colour: is not a field: remove it (the fields here are maxConnections, maxMessageBytes, sendQueue, messagesPerSecond, burst, bytesPerSecond, roomMessagesPerSecond)",
            "8: spec.limits.sendQueue: must be a whole number, not a decimal number",
        ]
    );
}

#[test]
fn a_rule_that_reads_what_is_broken_is_silent() {
    // min is above the default of max, but max is what nobody can know.
    assert_eq!(
        with("  gateways:\n    min: 20\n    max: many\n"),
        ["10: spec.gateways.max: must be a whole number without quotes or unit, not \"many\""]
    );
    // A bound that only a default breaks is shown where the file can be mended.
    assert_eq!(
        with("  gateways:\n    max: 1\n"),
        [
            "9: spec.gateways.min: must not exceed spec.gateways.max: lower min (2 if not given) or raise max (10 if not given)"
        ]
    );
}

#[test]
fn other_kinds_and_versions_are_refused() {
    assert_eq!(
        instead("kind: ChatRoom", "kind: Chatroom"),
        ["2: kind: is \"Chatroom\": did you mean ChatRoom?"]
    );
    assert_eq!(
        instead("v1alpha1", "v1"),
        ["1: apiVersion: is \"hubbub.dev/v1\": write hubbub.dev/v1alpha1"]
    );
    // Text from the file cannot break the line it is shown on, nor fill the screen.
    let [problem] = &instead("kind: ChatRoom", &format!("kind: \"a\\nb{}\"", "x".repeat(999)))[..]
    else {
        panic!("one problem");
    };
    assert!(!problem.contains('\n') && problem.len() < 250, "{problem}");
}

#[test]
fn an_empty_field_is_as_good_as_none() {
    let rooms =
        parse_rooms(&format!("{ROOM}  limits:\n  heartbeat: {{pongWait: }}\nstatus:\n")).unwrap();
    assert_eq!(rooms, parse_rooms(ROOM).unwrap());
}

#[test]
fn the_namespace_defaults_and_lists_count_as_their_items() {
    let item = "{apiVersion: hubbub.dev/v1alpha1, kind: ChatRoom, metadata: {name: NAME}, spec: {allowedOrigins: [null]}}"
        .replace("[null]", "[\"null\"]");
    let text = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {}\n- {}\n---\n{ROOM}",
        item.replace("NAME", "a"),
        item.replace("NAME", "b")
    );
    let names: Vec<RoomName> =
        parse_rooms(&text).unwrap().iter().map(|room| room.room_name().unwrap()).collect();
    let names: Vec<&str> = names.iter().map(RoomName::as_str).collect();
    assert_eq!(names, ["default/a", "default/b", "demo/lobby"]);
    assert_eq!(parse_rooms("kind: List\nitems: []\n"), Ok(vec![]));
    assert_eq!(problems("kind: List\n"), ["1: items: must be a list of ChatRoom objects"]);
    assert_eq!(
        problems(&text.replace("name: b", "name: a")),
        [
            "5: metadata.name: declares the room default/a a second time, first on line 4: rename or remove one"
        ]
    );
}

#[test]
fn a_file_without_rooms_is_refused() {
    for text in ["", "# only a comment\n", "---\n", "---\n---\n", "\n\n"] {
        assert_eq!(
            problems(text),
            ["1: the file holds no ChatRoom document: declare at least one room"]
        );
    }
}

#[test]
fn anchors_line_ends_and_byte_order_marks_make_no_difference() {
    let plain = parse_rooms(ROOM).unwrap();
    assert_eq!(parse_rooms(&ROOM.replace('\n', "\r\n")).unwrap(), plain);
    assert_eq!(parse_rooms(&format!("\u{feff}{ROOM}")).unwrap(), plain);
    let json = serde_json::to_string_pretty(&plain[0]).unwrap();
    assert_eq!(parse_rooms(&json).unwrap(), plain, "JSON is YAML");
    let anchored = ROOM.replace("name: lobby", "name: &n lobby\n  labels: {app: *n}");
    assert_eq!(parse_rooms(&anchored).unwrap(), plain);
}

#[test]
fn files_that_unfold_or_nest_without_end_are_refused() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(",");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let mut chain = "a0: &a0 [x]\n".to_owned();
    for level in 1..500 {
        chain.push_str(&format!("a{level}: &a{level} [[[*a{}]]]\n", level - 1));
    }
    let deep = ["[", "{a: ", "- "].map(|opening| opening.repeat(100_000));
    for text in deep.into_iter().chain([bomb, chain, "- ".repeat(100)]) {
        let [problem] = &problems(&text)[..] else { panic!("one problem") };
        let limit = "the document nests deeper, or unfolds to more, than rooms need";
        assert!(problem.contains(limit), "{problem}");
    }
    let filler = "#".repeat(MAX_ROOMS_BYTES - ROOM.len() - 1);
    assert!(parse_rooms(&format!("{ROOM}{filler}\n")).is_ok(), "as large as may be");
    assert_eq!(
        problems(&format!("{ROOM}{filler}\n\n")),
        ["1: the file is larger than 4 MiB: split it into several files"]
    );
}

#[test]
fn thousands_of_rooms_fit_in_a_file() {
    let text: Vec<String> =
        (0..2_000).map(|n| ROOM.replace("name: lobby", &format!("name: room-{n}"))).collect();
    assert_eq!(parse_rooms(&text.join("---\n")).unwrap().len(), 2_000);
}

#[test]
fn a_file_of_another_kind_does_not_flood_the_screen() {
    let keys: String = (0..5_000).map(|n| format!("key{n}: value\n")).collect();
    let documents = "a: b\n---\n".repeat(5_000);
    for text in [keys, documents] {
        let problems = parse_rooms(&text).unwrap_err();
        assert_eq!(problems.len(), 101);
        assert_eq!(problems[100].message, "there is more: mend these first");
    }
}
