//! Room names come from strangers' paths and become NATS subjects: everything but two DNS labels is refused.

use std::collections::BTreeSet;

use hubbub_api::{NameError, RoomName};

/// What an attacker would put in the place of a room's name.
fn attacks() -> Vec<String> {
    let mut names: Vec<String> = [
        "*",
        ">",
        "a.*",
        "a.>",
        "*.a",
        ".",
        "..",
        "a.",
        ".a",
        "a.b",
        "a..b",
        "$JS.API.>",
        "$KV.>",
        "_INBOX.>",
        "$SYS.>",
        "a\r\nPUB x 1\r\n1",
        "a\r",
        "a\n",
        "\n",
        "\r\n",
        " ",
        "a b",
        " a",
        "a ",
        "a\tb",
        "\0",
        "a\0b",
        "%2e",
        "%2E%2E",
        "..%2f",
        "%00",
        "a%20b",
        "a/b",
        "/",
        "a/../b",
        "\\",
        "a\\b",
        "LOBBY",
        "Lobby",
        "lоbby",
        "ⅼobby",
        "lobby\u{200b}",
        "\u{202e}ybbol",
        "ünï",
        "a_b",
        "-a",
        "a-",
        "--",
        "a:b",
        "a?b",
        "a#b",
        "a;b",
        "a@b",
        "",
        "\u{feff}a",
        "１",
    ]
    .map(str::to_owned)
    .into();
    names.push("a".repeat(64));
    names.push("a".repeat(10_000));
    names.push("a.".repeat(5_000));
    names
}

#[test]
fn every_attack_through_the_name_is_refused() {
    let attacks = attacks();
    assert!(attacks.len() >= 40);
    for attack in attacks {
        assert_eq!(RoomName::new("demo", &attack), Err(NameError::Name), "{attack:?} as a name");
        assert_eq!(
            RoomName::new(&attack, "lobby"),
            Err(NameError::Namespace),
            "{attack:?} as a namespace"
        );
        // Joined, the text may only be read when the join itself makes two sound labels of it, which none does.
        for text in [format!("demo/{attack}"), format!("{attack}/lobby"), attack.clone()] {
            if text != "a/b" {
                assert!(text.parse::<RoomName>().is_err(), "{text:?}");
            }
        }
        for key in [format!("demo.{attack}"), format!("{attack}.lobby")] {
            assert!(RoomName::from_policy_key(&key).is_err(), "{key:?}");
        }
    }
}

#[test]
fn an_error_does_not_repeat_what_a_stranger_sent() {
    for attack in attacks().iter().filter(|attack| attack.len() > 3) {
        let message = RoomName::new("demo", attack).unwrap_err().to_string();
        assert!(!message.contains(attack.as_str()), "{message}");
    }
}

#[test]
fn a_name_has_one_spelling_in_each_place() {
    let room = RoomName::new("demo", "lobby-2").unwrap();
    assert_eq!((room.namespace(), room.name()), ("demo", "lobby-2"));
    assert_eq!(room.to_string(), "demo/lobby-2");
    assert_eq!(format!("{room:>14}|"), "  demo/lobby-2|");
    assert_eq!(room.path(), "/rooms/demo/lobby-2");
    assert_eq!(room.subject(), "hubbub.room.demo.lobby-2");
    assert_eq!(room.policy_key(), "demo.lobby-2");
    assert_eq!("demo/lobby-2".parse(), Ok(room.clone()));
    assert_eq!(RoomName::from_policy_key("demo.lobby-2"), Ok(room.clone()));
    assert_eq!(serde_json::to_string(&room).unwrap(), r#""demo/lobby-2""#);
    assert_eq!(serde_json::from_str::<RoomName>(r#""demo/lobby-2""#).unwrap(), room);
    assert_eq!("demo".parse::<RoomName>(), Err(NameError::Shape('/')));
    assert_eq!(RoomName::from_policy_key("demo/lobby"), Err(NameError::Shape('.')));
}

#[test]
fn names_are_ordered_by_namespace_first() {
    let ordered = ["a/x", "a-b/a", "ab/a"].map(|text| text.parse::<RoomName>().unwrap());
    let sorted: BTreeSet<RoomName> = ordered.iter().rev().cloned().collect();
    assert!(sorted.iter().eq(ordered.iter()), "{sorted:?}");
}

#[test]
fn the_longest_name_is_still_a_name() {
    let label = "a".repeat(63);
    let room = RoomName::new(&label, &label).unwrap();
    assert_eq!((room.namespace(), room.name()), (label.as_str(), label.as_str()));
}
