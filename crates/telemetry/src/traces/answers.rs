//! What the collector answers and the library does not pass on: why a request over HTTP failed, which spans of a batch
//! that was taken were rejected, and what a person can try.
//!
//! Over gRPC the library tells the causes itself, and rejected spans nobody.

use std::{
    error::Error,
    sync::{Arc, Mutex, PoisonError},
};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;

use super::Protocol;

/// Characters of a collector's words that are logged at most.
const MOST_WORDS: usize = 512;

/// What the last request met. A clone is the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers(Arc<Mutex<Answer>>);

/// See [`Answers`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Why the request failed, if the library does not say it.
    pub(super) cause: Option<String>,
    /// Spans of the batch that the collector does not keep.
    pub(super) rejected: i64,
    /// What it says of them.
    pub(super) words: String,
}

impl Answers {
    /// The request has failed.
    pub(super) fn failed(&self, error: &(dyn Error + 'static)) {
        self.set(Answer { cause: Some(causes(error)), ..Answer::default() });
    }

    /// The collector has taken the batch, and says this.
    pub(super) fn taken(&self, body: &[u8]) {
        // What cannot be read says nothing: the batch is taken all the same.
        let answer = ExportTraceServiceResponse::decode(body).unwrap_or_default();
        let partial = answer.partial_success.unwrap_or_default();
        let words = partial.error_message.chars().take(MOST_WORDS).collect();
        self.set(Answer { cause: None, rejected: partial.rejected_spans, words });
    }

    /// What the last request met, once.
    pub(super) fn take(&self) -> Answer {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, answer: Answer) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }
}

/// An error with its causes, each told once.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// What to look at, where an error has a cause that people often make. For a collector that has never taken anything:
/// connections break where the port is right, too.
pub(super) fn advice(protocol: Protocol, error: &str) -> Option<String> {
    let error = error.to_lowercase();
    let has = |marks: &[&str]| marks.iter().any(|mark| error.contains(mark));
    // The other end does not speak TLS.
    if has(&["invalidcontenttype"]) {
        return Some("does the collector speak TLS at this port? If not, give http://".to_owned());
    }
    // Who does not understand the other answers in its own way and goes; which of that is seen first is a matter of luck.
    let gone = has(&["broken pipe", "connection reset", "connection closed", "not ready"]);
    let (marks, other, port): (&[_], _, _) = match protocol {
        // HTTP/1 or TLS, read as a frame of HTTP/2; or an answer of HTTP/2 that is none of gRPC.
        Protocol::Grpc => (
            &["frame with invalid size", "invalid compression flag", "grpc-status header missing"],
            "http/protobuf",
            4317,
        ),
        // A frame of HTTP/2, read as HTTP/1: as the answer, or before there is a question.
        Protocol::Http => (&["invalid http version", "unexpected message"], "grpc", 4318),
    };
    (gone || has(marks)).then(|| {
        format!(
            "is this the port for OTEL_EXPORTER_OTLP_PROTOCOL={other}? The usual one for this protocol is {port}; \
             a collector behind TLS wants https://"
        )
    })
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    #[test]
    fn what_is_rejected_is_read_once() {
        let answers = Answers::default();
        let partial =
            ExportTracePartialSuccess { rejected_spans: 3, error_message: "too old".to_owned() };
        let body = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
        answers.taken(&body);
        let told = Answer { cause: None, rejected: 3, words: "too old".to_owned() };
        assert_eq!(answers.take(), told);
        assert_eq!(answers.take(), Answer::default());
        for nothing in [&b""[..], b"{}", b"\xff\xff"] {
            answers.taken(nothing);
            assert_eq!(answers.take(), Answer::default());
        }
    }

    #[test]
    fn each_cause_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Outer(&'static str, #[source] std::io::Error);
        let io = || std::io::Error::other("connection refused");
        assert_eq!(causes(&Outer("no way", io())), "no way: connection refused");
        assert_eq!(
            causes(&Outer("no way: connection refused", io())),
            "no way: connection refused"
        );
    }

    #[test]
    fn the_other_protocol_is_asked_for() {
        let ask = |protocol, error| advice(protocol, error).unwrap_or_default();
        assert!(ask(Protocol::Grpc, "frame with invalid size").contains("=http/protobuf?"));
        assert!(ask(Protocol::Http, "invalid HTTP version parsed").contains("=grpc?"));
        assert!(
            ask(Protocol::Http, "corrupt message of type InvalidContentType").contains("http://")
        );
        assert_eq!(advice(Protocol::Grpc, "connection refused"), None);
        assert_eq!(advice(Protocol::Http, "connection refused"), None);
    }
}
