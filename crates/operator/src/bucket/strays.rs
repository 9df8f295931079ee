//! Takes out of the bucket what does not belong there, and mends this operator's statement.

use std::convert::Infallible;

use hubbub_api::{RoomName, Statement, is_nats_answer, names::RESERVED_KEY_PREFIX};
use nats::jetstream::message::PublishMessage;

use super::{Bucket, BucketError, Entry, RETRY, said};

/// The header and its value that make a message of the bucket's stream the deletion of a key.
const DELETION: (&str, &str) = ("KV-Operation", "DEL");

/// What was put in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tidied<'a> {
    /// This key was no room's and no operator's, and has no value any more.
    Stray(&'a str),
    /// This operator's statement was overwritten or deleted, and is there again.
    Statement,
    /// This consumer did not follow the bucket, and is deleted.
    Consumer(&'a str),
    /// Consumers could not be looked at or deleted, for this reason.
    Unswept(&'a str),
}

/// Whether a value under that key is neither a room's nor an operator's. Of keys of operators only what NATS wrote is sure to be none's: the
/// rest may be a newer operator's.
pub(super) fn is_stray(key: &str, value: &[u8]) -> bool {
    if key.starts_with(RESERVED_KEY_PREFIX) {
        return is_nats_answer(value);
    }
    // What stands under a room's key is judged by who knows the room.
    RoomName::from_policy_key(key).is_err()
}

impl Bucket {
    /// Tidies whenever there is something to tidy, for ever.
    pub(super) async fn tidy(&self, tidied: &impl Fn(Tidied<'_>)) -> Infallible {
        loop {
            self.untidy.notified().await;
            loop {
                let keys: Vec<String> = self.mirror().untidy.iter().cloned().collect();
                if keys.is_empty() {
                    break;
                }
                let mut failed = false;
                for key in &keys {
                    failed |= self.tidy_key(key, tidied).await.is_err();
                }
                // What failed is still to be done, or is not any more, as the mirror will show.
                if failed {
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn tidy_key(&self, key: &str, tidied: &impl Fn(Tidied<'_>)) -> Result<(), BucketError> {
        self.fence.check()?;
        let Entry { revision: over, .. } = self.entry(key);
        let message = PublishMessage::build().expected_last_subject_sequence(over);
        if key == self.own_key {
            // Until it is known again that everything is published.
            let message = message.payload(said(&Statement::default())?.into());
            let revision = self.send(key, message).await?;
            self.show(key.to_owned(), Entry::written(revision, None));
            tidied(Tidied::Statement);
        } else {
            let (name, value) = DELETION;
            let revision = self.send(key, message.header(name, value)).await?;
            self.show(key.to_owned(), Entry { revision, ..Entry::default() });
            tidied(Tidied::Stray(key));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_nobody_s_is_a_stray() {
        let answer = br#"{"type": "io.nats.jetstream.api.v1.stream_info_response"}"#;
        for (key, value, want) in [
            ("demo.lobby", &b"{}"[..], false),
            ("demo.lobby", answer, false),
            ("junk", answer, true),
            ("junk", b"hello", true),
            ("a.b.c", b"{}", true),
            ("*", answer, true),
            ("_operator.evil.x", answer, true),
            ("_operator.other.hubbub", b"{}", false),
            ("_operator.newer.hubbub", b"said in another way", false),
            ("_newer", b"hello", false),
            ("_newer", answer, true),
        ] {
            assert_eq!(is_stray(key, value), want, "{key}");
        }
    }
}
