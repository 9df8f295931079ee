//! What can go wrong when a room or a pool is brought to what is declared. Everything is tried again.

use std::error::Error;

use kube::runtime::watcher;

use crate::{bucket::BucketError, fence::is_fenced};

/// An error with its causes, each said once. Of what the API server refuses, its own sentence: kube adds the whole answer
/// as a dump, and repeats in each error what its cause says.
#[must_use]
pub fn in_words(error: &(dyn Error + 'static)) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        next = error.source();
        let said = match (error.downcast_ref(), error.downcast_ref()) {
            (Some(kube::Error::Api(status)), _) => {
                words.push(refusal(status));
                break;
            }
            // Its cause says it all.
            (Some(kube::Error::Service(_) | kube::Error::HyperError(_)), _) => continue,
            (_, Some(watcher::Error::InitialListFailed(_))) => "it cannot be listed".to_owned(),
            (_, Some(watcher::Error::WatchStartFailed(_))) => "it cannot be watched".to_owned(),
            (_, Some(watcher::Error::WatchFailed(_))) => "the connection broke".to_owned(),
            (_, Some(watcher::Error::WatchError(status))) => {
                words.push(refusal(status));
                break;
            }
            _ => error.to_string(),
        };
        // What repeats its cause is cut to what it adds.
        let cause = next.map(ToString::to_string).unwrap_or_default();
        let cut = said.strip_suffix(cause.as_str()).filter(|_| !cause.is_empty());
        let said = cut.unwrap_or(&said).trim_end_matches([' ', ':']);
        if !said.is_empty() && words.last().is_none_or(|last| !last.contains(said)) {
            words.push(said.to_owned());
        }
    }
    words.join(": ")
}

fn refusal(status: &kube::core::Status) -> String {
    let said = if status.message.is_empty() { &status.reason } else { &status.message };
    let refusal = match (said.is_empty(), status.code) {
        (true, code) => format!("it answered with status {code}"),
        (false, 0) => said.clone(),
        (false, code) => format!("{} ({code})", said.trim_end()),
    };
    let missing =
        status.details.as_ref().filter(|of| of.kind == "namespaces" && status.code == 404);
    match missing {
        Some(namespace) => {
            format!("{refusal}; make it: kubectl create namespace {}", namespace.name)
        }
        None => refusal,
    }
}

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server refused, or could not be reached.
    #[error("the API server: {}", in_words(.0))]
    Api(kube::Error),
    /// The API server did not answer.
    #[error("the API server did not answer in time")]
    NoAnswer,
    /// The policy is not where it should be.
    #[error(transparent)]
    Bucket(BucketError),
    /// An object cannot be written as JSON.
    #[error("an object cannot be written as JSON")]
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

    /// Whether it is not about one room or pool: whatever is tried now comes to the same.
    #[must_use]
    pub fn is_general(&self) -> bool {
        match self {
            Self::NoAnswer => true,
            Self::Api(error) => !matches!(error, kube::Error::Api(_)),
            Self::Bucket(error) => matches!(
                error,
                BucketError::Away | BucketError::Unusable(_) | BucketError::Fenced(_)
            ),
            Self::Json(_) => false,
        }
    }

    /// Whether this is nothing to worry about: somebody was faster, and the next try will see it.
    #[must_use]
    pub fn is_race(&self) -> bool {
        self.reason() == "conflict"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer: {0}")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("inner")]
    struct Inner;

    fn forbidden() -> kube::Error {
        let status = serde_json::json!({
            "status": "Failure", "message": "pods is forbidden", "reason": "Forbidden", "code": 403,
            "details": {"kind": "pods"}
        });
        kube::Error::Api(Box::new(serde_json::from_value(status).unwrap()))
    }

    #[test]
    fn causes_are_said_once_and_nothing_is_dumped() {
        assert_eq!(in_words(&Outer(Inner)), "outer: inner");
        assert_eq!(in_words(&forbidden()), "pods is forbidden (403)");
        let missing = serde_json::json!({
            "status": "Failure", "message": "namespaces \"chat\" not found", "reason": "NotFound", "code": 404,
            "details": {"kind": "namespaces", "name": "chat"}
        });
        let missing = kube::Error::Api(Box::new(serde_json::from_value(missing).unwrap()));
        let remedy = "namespaces \"chat\" not found (404); make it: kubectl create namespace chat";
        assert_eq!(in_words(&missing), remedy);
        let watch = watcher::Error::InitialListFailed(forbidden());
        assert_eq!(in_words(&watch), "it cannot be listed: pods is forbidden (403)");
        let service = kube::Error::Service(Box::new(Outer(Inner)));
        assert_eq!(in_words(&service), "outer: inner");
        let told = ReconcileError::Api(forbidden());
        assert!(!told.is_general() && ReconcileError::Bucket(BucketError::Away).is_general());
        assert_eq!(told.to_string(), "the API server: pods is forbidden (403)");
        assert_eq!(in_words(&told), told.to_string());
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_told_in_one_breath() {
        // A port that was free a moment ago, and nobody listens on.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let uri = format!("http://127.0.0.1:{port}").parse().unwrap();
        let client = kube::Client::try_from(kube::Config::new(uri)).unwrap();
        let error = client.apiserver_version().await.unwrap_err();
        let words = in_words(&error);
        assert_eq!(words.matches("Connection refused").count(), 1, "{words}");
        assert!(!words.contains("ServiceError") && !words.contains("Some("), "{words}");
    }
}
