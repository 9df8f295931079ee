//! Files of rooms of any text: what is read keeps every rule and is read the same again when it is written, and what is not is told with its line.
//!
//! A few thousand in an ordinary `cargo test`. For longer: `BOLERO_RANDOM_TEST_TIME_MS=60000 BOLERO_RANDOM_ITERATIONS=1000000000 cargo
//! test --release -p hubbub-api --test fuzz_rooms`.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
};

use hubbub_api::{
    ChatRoom, PolicyError, RoomPolicy, parse_rooms,
    rules::{Candidate, check},
};

/// Lines of rooms: mostly good ones where they stand.
const LINES: [&str; 40] = [
    "apiVersion: hubbub.dev/v1alpha1",
    "kind: ChatRoom",
    "metadata: {name: lobby}",
    "metadata: {name: side, namespace: demo, labels: {a: b}}",
    "spec: {allowedOrigins: ['*']}",
    "spec:",
    "  allowedOrigins: [\"https://a.example\", 'https://*.b.example:8443']",
    "  requireOrigin: false",
    "  limits: {maxConnections: 10, burst: 1}",
    "  limits: {maxConnections: 0, brust: 1}",
    "  heartbeat: {pongWait: 3s, pingPeriod: 1s500ms, writeWait: 100ms}",
    "  heartbeat: {pongWait: 3s}",
    "  gateways: {pool: busy, min: 1, max: 2}",
    "  gateways: {pool: 'a b', min: 3, max: 2}",
    "  auth: {anonymous: Read}",
    "  auth: {jwt: {issuer: i, audiences: [a], jwks: {url: 'https://a.example/keys'}}}",
    "  auth: {jwt: {issuer: i, audiences: [a], jwks: {configMap: {name: keys}}}}",
    "  auth: {jwt: {issuer: i, audiences: [a], jwks: {inline: '{\"keys\": []}'}}}",
    "---",
    "--- # another",
    "...",
    "",
    "# nothing",
    "  allowedOrigins:",
    "  - https://a.example",
    "  - *",
    "  - &a https://a.example",
    "  - *a",
    "  - null",
    "\tspec: {}",
    "kind: List",
    "items: [{apiVersion: hubbub.dev/v1alpha1, kind: ChatRoom, metadata: {name: a}, spec: {allowedOrigins: [null]}}]",
    "spec: {allowedOrigins: ['null'], <<: {a: b}}",
    "? {a: b}",
    ": c",
    "metadata: !!binary aGk=",
    "spec: \"\\u0000\"",
    "metadata: {name: |",
    "  x}",
    "metadata: {name: 1e3, generation: 7}",
];

/// What one or the other version of YAML takes for the end of a line.
const LINE_BREAKS: [char; 5] = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];

/// A good document, of which lines are changed.
const GOOD: [usize; 4] = [0, 1, 2, 4];

fn text(script: &[u8]) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut script = script.iter().copied();
    let mut documents = 0;
    while let Some(choice) = script.next() {
        if choice < 235 {
            if documents == 5 {
                continue;
            }
            // A whole document, mostly with another name, in which maybe a line is another.
            let mut document: Vec<String> = GOOD.map(|line| LINES[line].to_owned()).to_vec();
            // Now and then one that may stand there already.
            let number = if choice.is_multiple_of(5) { 0 } else { documents };
            document[2] = format!("metadata: {{name: room-{number}}}");
            if let Some(line) = script.next().filter(|line| *line < LINES.len() as u8) {
                let at = usize::from(script.next().unwrap_or(0)) % document.len();
                document[at] = LINES[usize::from(line) % LINES.len()].to_owned();
            }
            if choice < 100 {
                document[3] = LINES[5].to_owned();
                document.push(LINES[6].to_owned());
                let more = usize::from(script.next().unwrap_or(0));
                document.push(LINES[7 + more % 11].to_owned());
            }
            lines.push("---".to_owned());
            lines.append(&mut document);
            documents += 1;
        } else {
            lines.push(LINES[usize::from(choice) % LINES.len()].to_owned());
        }
    }
    lines.join("\n")
}

/// Reads the file; gives the number of its rooms, or none where it is refused.
fn read(text: &str) -> Option<usize> {
    let rooms = match parse_rooms(text) {
        Ok(rooms) => rooms,
        Err(problems) => {
            assert!((1..=101).contains(&problems.len()));
            let lines = 2 + text.matches(LINE_BREAKS).count(); // the end may be told as the line behind it
            for problem in &problems {
                assert!((1..=lines).contains(&problem.line), "{problem} of {lines} lines");
                assert!(!problem.message.is_empty());
            }
            return None;
        }
    };
    let names: BTreeSet<String> =
        rooms.iter().map(|room| room.room_name().unwrap().to_string()).collect();
    assert_eq!(names.len(), rooms.len(), "no room stands twice");
    for room in &rooms {
        assert!(check(&Candidate::of_chat_room(room)).is_empty());
        match RoomPolicy::from_chat_room(room) {
            Ok(policy) => {
                let written = policy.to_json().unwrap();
                assert_eq!(RoomPolicy::from_json(&written).unwrap(), policy);
            }
            Err(PolicyError::KeysElsewhere) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let write = |room: &ChatRoom| serde_yaml::to_string(room).unwrap();
    let written = rooms.iter().map(write).collect::<Vec<_>>().join("\n---\n");
    assert_eq!(parse_rooms(&written).as_ref(), Ok(&rooms), "{written}");
    Some(rooms.len())
}

#[test]
fn a_file_of_any_lines_is_read_whole_or_refused() {
    static READ: AtomicUsize = AtomicUsize::new(0);
    static SEVERAL: AtomicUsize = AtomicUsize::new(0);
    static REFUSED: AtomicUsize = AtomicUsize::new(0);
    bolero::check!().with_iterations(1000).with_max_len(16).for_each(|input: &[u8]| {
        let counted = match read(&text(input)) {
            None => &REFUSED,
            Some(1) => &READ,
            Some(_) => &SEVERAL,
        };
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let counts = [&READ, &SEVERAL, &REFUSED].map(|count| count.load(Ordering::Relaxed));
    assert!(counts.iter().all(|count| *count > 20), "read, several, refused: {counts:?}");
}

#[test]
fn any_text_is_read_or_refused() {
    let good = GOOD.map(|line| LINES[line]).join("\n");
    assert_eq!(read(&good), Some(1));
    bolero::check!().with_iterations(500).with_max_len(200).for_each(|input: &[u8]| {
        let any = String::from_utf8_lossy(input);
        read(&any);
        // A good file with a few characters changed, and with anything behind it.
        let mut changed: Vec<char> = good.chars().collect();
        for change in input.chunks_exact(3).take(4) {
            let at = usize::from(change[0]) % changed.len();
            let character = char::from(change[2]);
            match change[1] % 3 {
                0 => changed[at] = character,
                1 => changed.insert(at, character),
                _ => drop(changed.remove(at)),
            }
        }
        let changed: String = changed.into_iter().collect();
        read(&changed);
        read(&format!("{good}\n---\n{any}"));
    });
}
