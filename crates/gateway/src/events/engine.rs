//! What happens to connections and messages.

use std::{io, net::SocketAddr, time::Duration};

use hubbub_api::RoomName;
use hubbub_telemetry::{OpenSpan, SpanRef, Traces};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter, exemplar::HistogramWithExemplars, family::Family, gauge::Gauge,
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};

use super::{
    throttles::{Throttle, Throttles},
    traces::{EngineSpans, Message, TraceLabel},
};
use crate::{
    engine::{ConnectionId, End, Ending},
    room::Room,
};

/// From a few members whose sockets take all, to what waited in the backlog of a gateway that is too busy.
const FAN_OUT_SECONDS: [f64; 15] = [
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5,
];

/// Up to the longest queue that a room may ask for, 65,536.
const QUEUED_MESSAGES: [f64; 10] =
    [0.0, 1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0];

/// Up to what may wait for one member: 1 MiB, or four of the largest messages.
const QUEUED_BYTES: [f64; 8] =
    [0.0, 1024.0, 8192.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EvictionLabel {
    /// The label of an [`Ending`] that cuts a member for being slow or silent.
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    /// One of the labels of [`Ending`].
    reason: &'static str,
    by: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PathLabels {
    path: &'static str,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct EngineEvents {
    connections: Gauge,
    opened: Counter,
    closed: Family<EndLabels, Counter>,
    received: Counter,
    received_bytes: Counter,
    written: Counter,
    queued: Counter,
    discarded: Counter,
    given_up: Counter,
    throttles: Throttles,
    pings: Counter,
    panics: Counter,
    poll_failures: Counter,
    limit: Gauge,
    moved: Counter,
    cut: Counter,
    fan_out: FanOut,
    evicted_messages: Family<EvictionLabel, Histogram>,
    evicted_bytes: Family<EvictionLabel, Histogram>,
    spans: EngineSpans,
}

/// How long messages take from their arrival to the last member. A clone is the same.
#[derive(Debug, Clone)]
pub(crate) struct FanOut(HistogramWithExemplars<TraceLabel>);

impl FanOut {
    /// A message was handed to its last member here, so long after it arrived. `span` is that of its way, if it is traced.
    pub(crate) fn done(&self, took: Duration, span: Option<SpanRef>) {
        self.0.observe(took.as_secs_f64(), TraceLabel::of(span), None);
    }
}

impl EngineEvents {
    /// Registers the metrics.
    #[must_use]
    pub fn register(registry: &mut Registry, traces: Traces) -> Self {
        let deliveries = Family::<PathLabels, Counter>::default();
        let written = deliveries.get_or_create_owned(&PathLabels { path: "direct" });
        let queued = deliveries.get_or_create_owned(&PathLabels { path: "queued" });
        let events = Self {
            connections: Gauge::default(),
            opened: Counter::default(),
            closed: Family::default(),
            received: Counter::default(),
            received_bytes: Counter::default(),
            written,
            queued,
            discarded: Counter::default(),
            given_up: Counter::default(),
            throttles: Throttles::register(registry),
            pings: Counter::default(),
            panics: Counter::default(),
            poll_failures: Counter::default(),
            limit: Gauge::default(),
            moved: Counter::default(),
            cut: Counter::default(),
            fan_out: FanOut(HistogramWithExemplars::new(FAN_OUT_SECONDS.into_iter())),
            evicted_messages: Family::new_with_constructor(|| Histogram::new(QUEUED_MESSAGES)),
            evicted_bytes: Family::new_with_constructor(|| Histogram::new(QUEUED_BYTES)),
            spans: EngineSpans(traces),
        };
        registry.register("connections", "Open connections", events.connections.clone());
        registry.register("connections_opened", "Connections opened", events.opened.clone());
        registry.register(
            "connections_closed",
            "Connections ended, by reason and by who closed",
            events.closed.clone(),
        );
        registry.register(
            "messages_received",
            "Messages read from members and offered to the bus",
            events.received.clone(),
        );
        registry.register_with_unit(
            "messages_received",
            "Payload bytes read from members",
            Unit::Bytes,
            events.received_bytes.clone(),
        );
        registry.register(
            "deliveries",
            "Messages handed to members: straight to the socket, or queued behind a full one",
            deliveries,
        );
        registry.register(
            "deliveries_discarded",
            "Queued messages thrown away because their member was too slow",
            events.discarded.clone(),
        );
        registry.register(
            "messages_given_up",
            "Messages lost because the bus stayed full for a second",
            events.given_up.clone(),
        );
        registry.register("pings", "Pings sent", events.pings.clone());
        registry.register(
            "panics",
            "Faults in this program that ended a connection",
            events.panics.clone(),
        );
        registry.register(
            "poll_failures",
            "Times that waiting for the sockets of a shard failed",
            events.poll_failures.clone(),
        );
        registry.register(
            "connections_limit",
            "Connections that this gateway may have",
            events.limit.clone(),
        );
        registry.register("drain_moved", "Members sent away in good order", events.moved.clone());
        registry.register("drain_cut", "Members dropped in a drain", events.cut.clone());
        registry.register_with_unit(
            "fanout",
            "Time from a message's arrival at this gateway to its last write to a member here; where spans are collected, buckets name traces",
            Unit::Seconds,
            events.fan_out.0.clone(),
        );
        registry.register_with_unit(
            "eviction_queue",
            "Messages that waited for a member when it was cut for being slow or silent",
            Unit::Other("messages".to_owned()),
            events.evicted_messages.clone(),
        );
        registry.register_with_unit(
            "eviction_queue",
            "Bytes that waited for a member when it was cut for being slow or silent",
            Unit::Bytes,
            events.evicted_bytes.clone(),
        );
        // What has not happened yet reads 0, so that a rate over it works from the first time on.
        for ending in Ending::all() {
            let (reason, by) = (ending.label(), closed_by(ending));
            drop(events.closed.get_or_create(&EndLabels { reason, by }));
        }
        for reason in EVICTIONS.map(Ending::label) {
            drop(events.evicted_messages.get_or_create(&EvictionLabel { reason }));
            drop(events.evicted_bytes.get_or_create(&EvictionLabel { reason }));
        }
        events
    }

    /// So many connections there may be.
    pub(crate) fn limited(&self, connections: usize) {
        self.limit.set(i64::try_from(connections).unwrap_or(i64::MAX));
    }

    /// Takes the time that messages take.
    pub(crate) fn fan_out(&self) -> &FanOut {
        &self.fan_out
    }

    /// A member is about to be cut, if this ending is such a cut, with so much in its queue.
    pub(crate) fn evicting(&self, ending: Ending, messages: usize, bytes: usize) {
        if EVICTIONS.contains(&ending) {
            let label = EvictionLabel { reason: ending.label() };
            self.evicted_messages.get_or_create(&label).observe(messages as f64);
            self.evicted_bytes.get_or_create(&label).observe(bytes as f64);
        }
    }

    pub(crate) fn connection_opened(
        &self,
        connection: ConnectionId,
        room: &RoomName,
        peer: SocketAddr,
    ) {
        self.connections.inc();
        self.opened.inc();
        tracing::debug!(%connection, %room, %peer, "connection opened");
    }

    pub(crate) fn connection_ended(&self, end: &End<'_>) {
        let by = closed_by(end.ending);
        let reason = end.ending.label();
        if end.entered {
            self.connections.dec();
        }
        self.closed.get_or_create(&EndLabels { reason, by }).inc();
        match end.ending {
            Ending::Drained => _ = self.moved.inc(),
            Ending::Cut => _ = self.cut.inc(),
            _ => {}
        }
        self.spans.ended(end, by);
        let code = end.ending.code();
        let (connection, room, peer, traffic) = (end.connection, end.room, end.peer, &end.traffic);
        if end.ending.is_unexpected() {
            tracing::info!(
                %connection, %room, %peer, reason, code, by,
                cause = cause(end.ending),
                duration_ms = end.milliseconds,
                messages_in = traffic.messages_in,
                messages_out = traffic.messages_out,
                "connection ended unexpectedly",
            );
        } else {
            tracing::debug!(
                %connection, %room, %peer, reason, code, by,
                duration_ms = end.milliseconds,
                messages_in = traffic.messages_in,
                bytes_in = traffic.bytes_in,
                messages_out = traffic.messages_out,
                bytes_out = traffic.bytes_out,
                "connection ended",
            );
        }
    }

    /// Whether the next message is traced; to be asked once for each.
    pub(crate) fn samples_message(&self) -> bool {
        self.spans.0.samples_message()
    }

    /// A member publishes a message that is traced.
    pub(crate) fn publishing(
        &self,
        room: &Room,
        system: &'static str,
        bytes: usize,
        connection: ConnectionId,
        handshake: Option<SpanRef>,
    ) -> OpenSpan {
        let message = Message { room: room.name(), system, bytes };
        self.spans.publishing(&message, connection, handshake)
    }

    /// A traced message has come, and goes to the members here: the span of its way.
    pub(crate) fn message_arrived(
        &self,
        room: &Room,
        system: &'static str,
        bytes: usize,
        published: SpanRef,
    ) -> Option<OpenSpan> {
        self.spans.arrived(&Message { room: room.name(), system, bytes }, published)
    }

    /// A traced message has come, and the bus has thrown it away.
    pub(crate) fn message_dropped(
        &self,
        room: &Room,
        system: &'static str,
        bytes: usize,
        published: SpanRef,
        reason: &'static str,
    ) {
        let message = Message { room: room.name(), system, bytes };
        if let Some(span) = self.spans.arrived(&message, published) {
            span.fail(reason);
        }
    }

    pub(crate) fn message_received(&self, bytes: usize) {
        self.received.inc();
        self.received_bytes.inc_by(bytes as u64);
    }

    pub(crate) fn delivered(&self, written: usize, queued: usize) {
        if written > 0 {
            self.written.inc_by(written as u64);
        }
        if queued > 0 {
            self.queued.inc_by(queued as u64);
        }
    }

    pub(crate) fn discarded(&self, messages: usize) {
        self.discarded.inc_by(messages as u64);
    }

    pub(crate) fn message_given_up(&self) {
        self.given_up.inc();
    }

    pub(crate) fn throttled(&self, by: Throttle) {
        self.throttles.count(by);
    }

    pub(crate) fn pinged(&self) {
        self.pings.inc();
    }

    pub(crate) fn panicked(&self) {
        self.panics.inc();
        tracing::error!("a fault in this program ended a connection; please report it");
    }

    pub(crate) fn poll_failed(&self, error: &io::Error) {
        self.poll_failures.inc();
        tracing::error!(%error, "waiting for socket events failed");
    }
}

fn closed_by(ending: Ending) -> &'static str {
    if ending.by_peer() { "peer" } else { "gateway" }
}

/// The endings that cut a member for being slow or silent.
const EVICTIONS: [Ending; 3] = [Ending::QueueFull, Ending::WriteTimeout, Ending::PongTimeout];

/// Why a connection ended, for whoever reads the log. A peer that closes is told nothing, but the log is.
fn cause(ending: Ending) -> String {
    match ending {
        Ending::PeerClosed(Some(code)) => format!("the peer closed with the unusual code {code}"),
        ending => ending.sentence(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unusual_close_code_is_a_cause() {
        let ending = Ending::PeerClosed(Some(4000));
        assert!(ending.is_unexpected());
        assert_eq!(cause(ending), "the peer closed with the unusual code 4000");
        assert_eq!(cause(Ending::Cut), Ending::Cut.sentence());
    }
}
