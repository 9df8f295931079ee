//! What happens to connections and messages.

use std::{io, net::SocketAddr};

use hubbub_api::RoomName;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use crate::engine::{ConnectionId, End, Ending};

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
    throttled: Counter,
    pings: Counter,
    panics: Counter,
}

impl EngineEvents {
    /// Registers the metrics.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
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
            throttled: Counter::default(),
            pings: Counter::default(),
            panics: Counter::default(),
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
        registry.register(
            "throttles",
            "Times a member was not read from because it sent too fast",
            events.throttled.clone(),
        );
        registry.register("pings", "Pings sent", events.pings.clone());
        registry.register(
            "panics",
            "Faults in this program that ended a connection",
            events.panics.clone(),
        );
        events
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
        let by = if end.ending.by_peer() { "peer" } else { "gateway" };
        let reason = end.ending.label();
        if end.entered {
            self.connections.dec();
        }
        self.closed.get_or_create(&EndLabels { reason, by }).inc();
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

    pub(crate) fn throttled(&self) {
        self.throttled.inc();
    }

    pub(crate) fn pinged(&self) {
        self.pings.inc();
    }

    pub(crate) fn panicked(&self) {
        self.panics.inc();
        tracing::error!("a fault in this program ended a connection; please report it");
    }

    pub(crate) fn poll_failed(&self, error: &io::Error) {
        tracing::error!(%error, "waiting for socket events failed");
    }
}

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
