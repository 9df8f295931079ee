//! The names by which operator and gateways meet on NATS: subjects, bucket and headers.
//!
//! A room's own subject and key come from [`RoomName`](crate::RoomName), which cannot hold a character that NATS reads
//! as a wildcard or separator. What comes from elsewhere (a host name) passes through [`token`] first.

/// The key-value bucket of the policies; a key is [`RoomName::policy_key`](crate::RoomName::policy_key), a value
/// [`RoomPolicy`](crate::RoomPolicy) as JSON.
pub const BUCKET: &str = "hubbub-policies";

/// The stream of JetStream that NATS keeps the bucket in.
pub const BUCKET_STREAM: &str = "KV_hubbub-policies";

/// What stands before a key of the bucket that is no room's. A gateway that does not know such a key leaves it aside.
pub const RESERVED_KEY_PREFIX: &str = "_";

/// What stands before `<namespace>.<release>` in the key of an operator's [`Statement`](crate::Statement).
pub const STATEMENT_KEY_PREFIX: &str = "_operator.";

/// What stands before every subject of ours.
pub const SUBJECT_PREFIX: &str = "hubbub.";

/// What stands before `<namespace>.<name>` in the subject of a room's messages.
pub const SUBJECT_ROOM_PREFIX: &str = "hubbub.room.";

/// What stands before `<pool>.<gateway>` in the subject of a gateway's reports.
pub const SUBJECT_REPORT_PREFIX: &str = "hubbub.report.";

/// What stands before a gateway's own token in the subject that only it hears.
pub const SUBJECT_ECHO_PREFIX: &str = "hubbub.echo.";

/// The reports of all gateways of all pools.
pub const REPORT_WILDCARD: &str = "hubbub.report.*.*";

/// The pool of a room that names none.
pub const DEFAULT_POOL: &str = "default";

/// The header that says whether a room's message is text or binary: [`OPCODE_TEXT`] or [`OPCODE_BINARY`].
///
/// A gateway sets it for binary messages only, so that text costs no header. A message without it is text if it is
/// UTF-8, else binary: other programs may publish without knowing of it.
pub const HEADER_OPCODE: &str = "Hubbub-Opcode";

/// The value of [`HEADER_OPCODE`] for a text message.
pub const OPCODE_TEXT: &str = "text";

/// The value of [`HEADER_OPCODE`] for a binary message.
pub const OPCODE_BINARY: &str = "binary";

/// The header of the trace that a sampled message belongs to (W3C Trace Context).
pub const HEADER_TRACEPARENT: &str = "traceparent";

/// The most bytes of a subject token made from a name that is not ours.
const MAX_TOKEN_BYTES: usize = 63;

/// Makes one harmless subject token of any text, such as a host name: ASCII letters in lower case, digits, `-` and `_`;
/// every other character becomes `-`; at most 63 bytes, and `-` for the empty text. What is such a token stays as it is.
#[must_use]
pub fn token(text: &str) -> String {
    let token: String = text
        .chars()
        .take(MAX_TOKEN_BYTES)
        .map(|c| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9' | '-' | '_') => c,
            _ => '-',
        })
        .collect();
    if token.is_empty() { "-".to_owned() } else { token }
}

/// The key of the statements of one operator, which statuses of rooms name `namespace/release`.
#[must_use]
pub fn statement_key(operator: &str) -> String {
    format!("{STATEMENT_KEY_PREFIX}{}", operator.replacen('/', ".", 1))
}

/// The subject of one gateway's reports: `hubbub.report.<pool>.<gateway>`, both as [`token`] makes them.
#[must_use]
pub fn report_subject(pool: &str, gateway: &str) -> String {
    format!("{SUBJECT_REPORT_PREFIX}{}.{}", token(pool), token(gateway))
}

/// The reports of all gateways of one pool: `hubbub.report.<pool>.*`.
#[must_use]
pub fn report_wildcard(pool: &str) -> String {
    format!("{SUBJECT_REPORT_PREFIX}{}.*", token(pool))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_holds_nothing_that_nats_reads() {
        for (text, want) in [
            ("gateway-7f9c", "gateway-7f9c"),
            ("Oles-MacBook.local", "oles-macbook-local"),
            ("*", "-"),
            (">", "-"),
            ("a b\r\nPUB x", "a-b--pub-x"),
            ("", "-"),
            ("tür", "t-r"),
        ] {
            assert_eq!(token(text), want);
            assert_eq!(token(&token(text)), want, "a token stays as it is");
        }
        assert_eq!(token(&"x".repeat(300)).len(), 63);
    }

    #[test]
    fn the_stream_is_that_of_the_bucket() {
        assert_eq!(BUCKET_STREAM, format!("KV_{BUCKET}"));
    }

    #[test]
    fn a_statement_is_under_no_key_of_a_room() {
        let key = statement_key("hubbub/chat");
        assert_eq!(key, "_operator.hubbub.chat");
        assert!(key.starts_with(RESERVED_KEY_PREFIX));
        assert!(crate::RoomName::from_policy_key(&key).is_err());
    }

    #[test]
    fn report_subjects_fall_under_their_wildcards() {
        assert_eq!(report_subject("default", "gw-1"), "hubbub.report.default.gw-1");
        assert_eq!(report_subject("default", "gw.1.>"), "hubbub.report.default.gw-1--");
        assert_eq!(report_wildcard("default"), "hubbub.report.default.*");
        assert!(REPORT_WILDCARD.starts_with(SUBJECT_REPORT_PREFIX));
        for prefix in [SUBJECT_ROOM_PREFIX, SUBJECT_REPORT_PREFIX, SUBJECT_ECHO_PREFIX] {
            assert!(prefix.starts_with(SUBJECT_PREFIX));
        }
    }
}
