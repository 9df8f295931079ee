//! The spans of what happens to connections and messages. Their names and attributes are those of
//! [`hubbub_telemetry::names`].

use hubbub_api::RoomName;
use hubbub_telemetry::{
    Kind, OpenSpan, SpanRef, Traces,
    names::{self, messaging},
};

use prometheus_client::encoding::EncodeLabelSet;

use crate::engine::{ConnectionId, End};

/// The trace in which an example of a duration is told.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TraceLabel {
    trace_id: String,
}

impl TraceLabel {
    /// The trace of that span, if it is kept.
    pub(super) fn of(span: Option<SpanRef>) -> Option<Self> {
        span.map(|span| Self { trace_id: span.trace_id() })
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct EngineSpans(pub(super) Traces);

impl EngineSpans {
    /// A member publishes a message that is traced.
    pub(super) fn publishing(
        &self,
        to: &Message<'_>,
        connection: ConnectionId,
        handshake: Option<SpanRef>,
    ) -> OpenSpan {
        let span = OpenSpan::begin(names::span::PUBLISH, Kind::Producer);
        to.describe(&span, "publish", "send");
        span.set(names::CONNECTION, connection.to_string());
        if let Some(handshake) = handshake {
            span.link(handshake);
        }
        span
    }

    /// A traced message has come to this gateway; the span ends when all shards have handed it on.
    pub(super) fn arrived(&self, at: &Message<'_>, published: SpanRef) -> Option<OpenSpan> {
        if !self.0.is_on() {
            return None; // traced by whoever sent it, not here
        }
        let span = OpenSpan::begin(names::span::PROCESS, Kind::Consumer);
        // As parent, so that the way of one message is one trace; as link, because conventions ask for it.
        span.set_parent(published);
        span.link(published);
        at.describe(&span, "process", "process");
        Some(span)
    }

    /// A connection whose handshake was answered has ended.
    pub(super) fn ended(&self, end: &End<'_>, by: &'static str) {
        if !self.0.is_on() || !end.entered {
            return;
        }
        let span = OpenSpan::begin(names::span::CONNECTION_END, Kind::Internal);
        if let Some(handshake) = end.handshake {
            span.link(handshake);
        }
        span.set(names::ROOM, end.room.to_string());
        span.set(names::CONNECTION, end.connection.to_string());
        // From milliseconds, without loss for centuries.
        span.set(names::DURATION, end.milliseconds as f64 / 1000.0);
        if let Some(code) = end.ending.code() {
            span.set(names::CLOSE_CODE, i64::from(code));
        }
        span.set(names::CLOSE_REASON, end.ending.label());
        span.set(names::CLOSED_BY, by);
        span.count(names::MESSAGES_IN, end.traffic.messages_in);
        span.count(names::MESSAGES_OUT, end.traffic.messages_out);
        span.count(names::BYTES_IN, end.traffic.bytes_in);
        span.count(names::BYTES_OUT, end.traffic.bytes_out);
        if end.ending.is_our_fault() {
            span.fail(end.ending.label());
        }
    }
}

/// A message of a room, as spans tell of it.
pub(super) struct Message<'a> {
    pub(super) room: &'a RoomName,
    pub(super) system: &'static str,
    pub(super) bytes: usize,
}

impl Message<'_> {
    fn describe(&self, span: &OpenSpan, operation: &'static str, kind: &'static str) {
        span.set(messaging::SYSTEM, self.system);
        span.set(messaging::OPERATION, operation);
        span.set(messaging::OPERATION_TYPE, kind);
        span.set(messaging::DESTINATION, self.room.subject());
        span.set(messaging::TEMPLATE, messaging::ROOM_TEMPLATE);
        span.count(messaging::BODY_SIZE, self.bytes as u64);
        span.set(names::ROOM, self.room.to_string());
    }
}
