//! What a token says its bearer may do, and in which rooms: `{"read": ["demo/*"], "write": ["demo/lobby"]}`.

use hubbub_api::{Access, RoomName};
use serde_json::Value;

/// The most patterns of one list.
const MAX_PATTERNS: usize = 256;

/// The most bytes of a pattern: two DNS labels and the slash between them.
const MAX_PATTERN_BYTES: usize = 127;

/// The rooms that may be read and written. A pattern is `namespace/name`, in which `*` stands for any part of either, or `*` alone for every
/// room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants {
    read: Vec<String>,
    write: Vec<String>,
}

/// The claim is not of that shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the claim about rooms must look like {{\"read\": [\"demo/*\"], \"write\": [\"demo/lobby\"]}}, with at most 256 patterns of 127 characters in each list"
)]
pub struct GrantsFault;

impl Grants {
    /// Reads the claim's value. Fields that are not known are passed over.
    ///
    /// # Errors
    ///
    /// When it is not of that shape.
    pub fn parse(claim: &Value) -> Result<Self, GrantsFault> {
        let fields = claim.as_object().ok_or(GrantsFault)?;
        let list = |name| fields.get(name).map_or(Ok(Vec::new()), patterns);
        Ok(Self { read: list("read")?, write: list("write")? })
    }

    /// What may be done in that room.
    #[must_use]
    pub fn access(&self, room: &RoomName) -> Access {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| names(pattern, room));
        Access::of(any(&self.read), any(&self.write))
    }
}

fn patterns(value: &Value) -> Result<Vec<String>, GrantsFault> {
    let texts = match value {
        Value::String(_) => std::slice::from_ref(value),
        Value::Array(texts) if texts.len() <= MAX_PATTERNS => texts,
        _ => return Err(GrantsFault),
    };
    let pattern = |text: &Value| {
        let text = text.as_str().filter(|text| text.len() <= MAX_PATTERN_BYTES);
        text.map(str::to_owned).ok_or(GrantsFault)
    };
    texts.iter().map(pattern).collect()
}

/// Whether the pattern names the room.
fn names(pattern: &str, room: &RoomName) -> bool {
    if pattern == "*" {
        return true;
    }
    pattern.split_once('/').is_some_and(|(namespace, name)| {
        matches(namespace.as_bytes(), room.namespace().as_bytes())
            && matches(name.as_bytes(), room.name().as_bytes())
    })
}

/// Whether the text is of the pattern, in which `*` stands for any bytes. Goes back to the last star alone, so it takes at most the
/// product of both lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn access(claim: &Value, room: &str) -> Access {
        let (namespace, name) = room.split_once('/').unwrap();
        Grants::parse(claim).unwrap().access(&RoomName::new(namespace, name).unwrap())
    }

    #[test]
    fn patterns_name_rooms() {
        for (pattern, room, named) in [
            ("demo/lobby", "demo/lobby", true),
            ("demo/lobby", "demo/lobby2", false),
            ("demo/lobby", "demo2/lobby", false),
            ("demo/*", "demo/lobby", true),
            ("demo/*", "demo2/lobby", false),
            ("demo/team-*", "demo/team-a", true),
            ("demo/team-*", "demo/team", false),
            ("*/lobby", "demo/lobby", true),
            ("*/*", "demo/lobby", true),
            ("*", "demo/lobby", true),
            ("d*o/l*b*y", "demo/lobby", true),
            ("d*o/l*x*y", "demo/lobby", false),
            ("demo*", "demo/lobby", false),
            ("demo/lobby/", "demo/lobby", false),
            ("DEMO/lobby", "demo/lobby", false),
            ("", "demo/lobby", false),
            ("/", "demo/lobby", false),
        ] {
            assert_eq!(access(&json!({"read": pattern}), room).reads(), named, "{pattern} {room}");
        }
    }

    #[test]
    fn reading_and_writing_are_granted_apart() {
        let claim = json!({"read": ["demo/*", "team/a"], "write": "demo/lobby", "since": 2026});
        assert_eq!(access(&claim, "demo/lobby"), Access::ReadWrite);
        assert_eq!(access(&claim, "demo/other"), Access::Read);
        assert_eq!(access(&claim, "team/b"), Access::None);
        assert_eq!(access(&json!({"write": ["*"]}), "team/b"), Access::Write);
        assert_eq!(access(&json!({}), "team/b"), Access::None);
    }

    #[test]
    fn a_claim_of_another_shape_is_refused() {
        let many = vec!["demo/lobby"; MAX_PATTERNS + 1];
        for claim in [
            json!(null),
            json!("demo/*"),
            json!(["demo/*"]),
            json!({"read": 1}),
            json!({"read": [1]}),
            json!({"read": null}),
            json!({"write": {"demo": true}}),
            json!({"read": many}),
            json!({"read": ["x".repeat(MAX_PATTERN_BYTES + 1)]}),
        ] {
            assert_eq!(Grants::parse(&claim), Err(GrantsFault), "{claim}");
        }
    }

    proptest! {
        /// Against the plainest definition there is.
        #[test]
        fn stars_stand_for_any_part(pattern in "[ab*]{0,8}", text in "[ab]{0,8}") {
            fn plain(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|at| plain(rest, &text[at..])),
                    Some((byte, rest)) => text.split_first().is_some_and(|(first, text)| first == byte && plain(rest, text)),
                }
            }
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(pattern, text), plain(pattern, text));
        }
    }
}
