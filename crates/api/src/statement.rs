//! What an operator says of the policy bucket as a whole, as JSON under a key of its own beside the policies.
//!
//! NATS may lose a bucket, and then nothing in it tells a room that was deleted from one that is about to be published again. The
//! operator knows, and says so once it has published everything.

use serde::{Deserialize, Serialize};

use crate::{answer::is_nats_answer, room_name::RoomName};

/// Why a statement cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// The text is not JSON of this shape.
    #[error("not an operator's statement: {0}")]
    Json(#[from] serde_json::Error),
    /// No operator wrote it.
    #[error("not an operator's statement: an answer of NATS was written over it")]
    Answer,
}

/// All rooms of these namespaces that exist are in the bucket, or kept.
///
/// An operator writes it before its first policy, without an id, which says that policies come from an operator and that
/// more may follow; and with a new id whenever it has read the bucket whole and published what was missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    /// Another one for each statement. None as long as not everything is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// The namespaces that the operator watches; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// The policy keys of rooms that exist and are not in the bucket: paused ones, those whose spec is refused, those of
    /// another operator. Whoever serves them goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
}

impl Statement {
    /// Whether a room that is not in the bucket does not exist any more.
    #[must_use]
    pub fn denies(&self, room: &RoomName) -> bool {
        let watched = |namespace: &String| namespace == room.namespace();
        self.id.is_some()
            && (self.namespaces.is_empty() || self.namespaces.iter().any(watched))
            && !self.keep.contains(&room.policy_key())
    }

    /// Reads a statement. Fields that are not known are left aside.
    ///
    /// # Errors
    ///
    /// [`StatementError`] for what is not JSON of this shape, and for an answer of NATS, which would read as a statement that
    /// says nothing.
    pub fn from_json(json: &[u8]) -> Result<Self, StatementError> {
        if is_nats_answer(json) {
            return Err(StatementError::Answer);
        }
        Ok(serde_json::from_slice(json)?)
    }

    /// Writes the statement.
    ///
    /// # Errors
    ///
    /// [`StatementError`]; there is no statement that gives one.
    pub fn to_json(&self) -> Result<Vec<u8>, StatementError> {
        Ok(serde_json::to_vec(self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_complete_denies_and_only_where_it_looks() {
        let room = |name: &str| {
            let (namespace, name) = name.split_once('/').unwrap();
            RoomName::new(namespace, name).unwrap()
        };
        let begun = Statement::default();
        assert_eq!(begun.to_json().unwrap(), b"{}");
        assert!(!begun.denies(&room("demo/lobby")));
        let json = br#"{"id": 7, "namespaces": ["demo"], "keep": ["demo.paused"], "newer": 1}"#;
        let said = Statement::from_json(json).unwrap();
        assert!(said.denies(&room("demo/lobby")));
        assert!(!said.denies(&room("demo/paused")) && !said.denies(&room("other/lobby")));
        let all = Statement { id: Some(8), ..Statement::default() };
        assert!(all.denies(&room("other/lobby")));
        assert_eq!(Statement::from_json(&all.to_json().unwrap()).unwrap(), all);
        assert!(Statement::from_json(b"[").is_err());
        let answer = br#"{"type": "io.nats.jetstream.api.v1.stream_info_response"}"#;
        assert!(matches!(Statement::from_json(answer), Err(StatementError::Answer)));
    }
}
