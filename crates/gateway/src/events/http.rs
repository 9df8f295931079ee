//! What happens at the public door.

use std::{io, net::SocketAddr, sync::Arc};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::refusal::Refusal;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    /// `accepted`, or one of the reasons of [`Refusal`].
    outcome: &'static str,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct HttpEvents {
    handshakes: Family<OutcomeLabels, Counter>,
    accepted: Counter,
    sockets: Gauge,
    accept_failed: Counter,
    requests_cut: Counter,
}

/// An HTTP connection; dropping it says that it ended or became a member's.
#[derive(Debug)]
pub(crate) struct OpenSocket(Arc<HttpEvents>);

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.sockets.dec();
    }
}

impl HttpEvents {
    /// Registers the metrics.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let handshakes = Family::<OutcomeLabels, Counter>::default();
        let accepted = handshakes.get_or_create_owned(&OutcomeLabels { outcome: "accepted" });
        let events = Self {
            handshakes,
            accepted,
            sockets: Gauge::default(),
            accept_failed: Counter::default(),
            requests_cut: Counter::default(),
        };
        registry.register(
            "handshakes",
            "WebSocket handshakes answered, by outcome",
            events.handshakes.clone(),
        );
        registry.register(
            "http_sockets",
            "Sockets that speak HTTP, on their way to a handshake or otherwise",
            events.sockets.clone(),
        );
        registry.register(
            "accept_failures",
            "Connections that the system did not hand over, for want of file descriptors or otherwise",
            events.accept_failed.clone(),
        );
        registry.register(
            "http_failures",
            "HTTP connections ended for a malformed, oversized or unfinished request",
            events.requests_cut.clone(),
        );
        events
    }

    pub(crate) fn socket_opened(self: &Arc<Self>) -> OpenSocket {
        self.sockets.inc();
        OpenSocket(Arc::clone(self))
    }

    pub(crate) fn handshake_accepted(&self) {
        self.accepted.inc();
    }

    /// The path and the origin are the client's: they are told to nobody but the debug log, and quoted there.
    pub(crate) fn handshake_refused(&self, refusal: &Refusal, path: &str, peer: SocketAddr) {
        let outcome = refusal.reason();
        self.handshakes.get_or_create(&OutcomeLabels { outcome }).inc();
        tracing::debug!(outcome, ?path, %peer, detail = %refusal, "handshake refused");
    }

    pub(crate) fn accept_failed(&self, error: &io::Error) {
        self.accept_failed.inc();
        tracing::warn!(%error, "could not accept a connection; trying again shortly");
    }

    pub(crate) fn request_cut(&self, error: &hyper::Error, peer: SocketAddr) {
        self.requests_cut.inc();
        tracing::debug!(%error, %peer, "HTTP connection ended");
    }
}
