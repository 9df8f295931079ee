//! What NATS itself may have stored in the place of a policy.

use serde::Deserialize;

/// What stands before the types of all answers of NATS' own services.
const NATS_TYPES: &str = "io.nats.";

/// Whether the value is an answer of NATS' own API. It writes one under whatever key a request names for the answer, so
/// whoever may ask anything can put one into the bucket, and nothing else.
#[must_use]
pub fn is_nats_answer(json: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Typed {
        r#type: String,
    }
    serde_json::from_slice::<Typed>(json).is_ok_and(|typed| typed.r#type.starts_with(NATS_TYPES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nats_answers_is_told_from_what_others_write() {
        let answer = br#"{"type":"io.nats.jetstream.api.v1.stream_info_response","total":0}"#;
        assert!(is_nats_answer(answer));
        for other in
            [&br#"{"schema":1,"type":"x"}"#[..], b"{}", b"hello", b"[]", b"", b"{\"type\":1}"]
        {
            assert!(!is_nats_answer(other), "{other:?}");
        }
    }
}
