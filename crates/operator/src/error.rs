//! What can go wrong when a room or a pool is brought to what is declared. Everything is tried again.

use crate::{bucket::BucketError, fence::is_fenced};

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server refused, or could not be reached.
    #[error("the API server: {0}")]
    Api(#[source] kube::Error),
    /// The API server did not answer.
    #[error("the API server did not answer in time")]
    NoAnswer,
    /// The policy is not where it should be.
    #[error(transparent)]
    Bucket(BucketError),
    /// An object cannot be written as JSON.
    #[error("an object cannot be written: {0}")]
    Json(#[from] serde_json::Error),
}

impl ReconcileError {
    /// A stable name, as metrics carry it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Api(kube::Error::Api(status)) if status.is_conflict() => "conflict",
            Self::Api(error) if is_fenced(error) => "fenced",
            Self::Api(_) => "api",
            Self::NoAnswer => "timeout",
            Self::Bucket(BucketError::Raced) => "conflict",
            Self::Bucket(BucketError::Fenced(_)) => "fenced",
            Self::Bucket(_) => "nats",
            Self::Json(_) => "json",
        }
    }

    /// Whether this is nothing to worry about: somebody was faster, and the next try will see it.
    #[must_use]
    pub fn is_race(&self) -> bool {
        self.reason() == "conflict"
    }
}
