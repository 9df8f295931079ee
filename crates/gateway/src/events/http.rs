//! What happens at the public door.

use std::{
    error::Error as _,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, header, request::Parts};
use hubbub_telemetry::{
    Kind, OpenSpan, Remote, SpanRef, Traces,
    names::{self, http as attribute, span},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, exemplar::HistogramWithExemplars, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::traces::TraceLabel;
use crate::{
    engine::{ConnectionId, Ticket},
    limits::{SocketRefusal, WaitingPlace},
    refusal::Refusal,
    room::Room,
};

/// From half a millisecond to the second that a handshake may wait for its room's subscription, and beyond.
const HANDSHAKE_SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// Characters of what a client says of itself that are traced at most.
const TRACED_CHARS: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    /// `accepted`, or one of the reasons of [`Refusal`].
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// Why an HTTP connection was ended, as far as its end shows.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// A head was not complete in time.
    HeadTimeout,
    /// A head so long that it was not read to its end.
    HeadTooLarge,
    /// What came is no HTTP.
    Malformed,
    /// The client ended the connection within a request.
    Unfinished,
    /// The client took nothing of an answer for too long.
    NotTaken,
    /// The socket failed, or TLS on it.
    SocketFailed,
}

impl Cut {
    const ALL: [Self; 6] = [
        Self::HeadTimeout,
        Self::HeadTooLarge,
        Self::Malformed,
        Self::Unfinished,
        Self::NotTaken,
        Self::SocketFailed,
    ];

    fn of(error: &hyper::Error) -> Self {
        let socket = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        if error.is_timeout() {
            Self::HeadTimeout
        } else if error.is_parse_too_large() {
            Self::HeadTooLarge
        } else if error.is_parse() {
            Self::Malformed
        } else if error.is_incomplete_message() {
            Self::Unfinished
        } else if socket.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            Self::NotTaken
        } else {
            Self::SocketFailed
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::HeadTimeout => "head_timeout",
            Self::HeadTooLarge => "head_too_large",
            Self::Malformed => "malformed",
            Self::Unfinished => "unfinished",
            Self::NotTaken => "not_taken",
            Self::SocketFailed => "socket_failed",
        }
    }
}

/// Whether handshakes are traced, and whose traces go on here.
#[derive(Debug, Clone)]
pub struct Traced {
    /// Whether spans are collected.
    pub traces: Traces,
    /// Whether the trace of a client's `traceparent` goes on here; otherwise it is linked to.
    pub trust: bool,
    /// Whether handshakes come by TLS.
    pub tls: bool,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct HttpEvents {
    handshakes: Family<OutcomeLabels, Counter>,
    accepted: Counter,
    seconds: HistogramWithExemplars<TraceLabel>,
    sockets: Gauge,
    accept_failed: Counter,
    sockets_refused: Family<ReasonLabels, Counter>,
    requests_refused: Family<ReasonLabels, Counter>,
    requests_cut: Family<ReasonLabels, Counter>,
    traced: Traced,
}

/// An HTTP connection; dropping it says that it ended or became a member's, and gives its place at the door back.
#[derive(Debug)]
pub(crate) struct OpenSocket {
    events: Arc<HttpEvents>,
    _waiting: WaitingPlace,
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.events.sockets.dec();
    }
}

/// A handshake that is being answered.
#[derive(Debug)]
pub(crate) struct Handshake {
    events: Arc<HttpEvents>,
    begun: Instant,
    span: OpenSpan,
    context: Option<SpanRef>,
}

impl HttpEvents {
    /// Registers the metrics.
    #[must_use]
    pub fn register(registry: &mut Registry, traced: Traced) -> Self {
        let handshakes = Family::<OutcomeLabels, Counter>::default();
        let accepted = handshakes.get_or_create_owned(&OutcomeLabels { outcome: "accepted" });
        let events = Self {
            handshakes,
            accepted,
            seconds: HistogramWithExemplars::new(HANDSHAKE_SECONDS.into_iter()),
            sockets: Gauge::default(),
            accept_failed: Counter::default(),
            sockets_refused: Family::default(),
            requests_refused: Family::default(),
            requests_cut: Family::default(),
            traced,
        };
        // What has not happened yet reads 0, so that a rate over it works from the first time on.
        for outcome in Refusal::reasons() {
            drop(events.handshakes.get_or_create(&OutcomeLabels { outcome }));
            drop(events.requests_refused.get_or_create(&ReasonLabels { reason: outcome }));
        }
        for reason in SocketRefusal::ALL.map(SocketRefusal::reason) {
            drop(events.sockets_refused.get_or_create(&ReasonLabels { reason }));
        }
        for reason in Cut::ALL.map(Cut::label) {
            drop(events.requests_cut.get_or_create(&ReasonLabels { reason }));
        }
        registry.register(
            "handshakes",
            "WebSocket handshakes answered, by outcome",
            events.handshakes.clone(),
        );
        registry.register_with_unit(
            "handshake",
            "Time from the head of a handshake to its answer; where spans are collected, each bucket names a trace",
            Unit::Seconds,
            events.seconds.clone(),
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
            "http_sockets_refused",
            "Connections ended at once: their address had too many without a handshake, or the limit of open files carries no more",
            events.sockets_refused.clone(),
        );
        registry.register(
            "requests_refused",
            "Requests that are no handshakes, refused at the public listener, by reason",
            events.requests_refused.clone(),
        );
        registry.register(
            "http_failures",
            "HTTP connections ended for a malformed, oversized or unfinished request or an answer that was not taken, by reason",
            events.requests_cut.clone(),
        );
        events
    }

    pub(crate) fn socket_opened(self: &Arc<Self>, waiting: WaitingPlace) -> OpenSocket {
        self.sockets.inc();
        OpenSocket { events: Arc::clone(self), _waiting: waiting }
    }

    /// A handshake has come, at this route if it is one. A query string is told to nobody.
    pub(crate) fn handshake_begun(
        self: &Arc<Self>,
        route: Option<&str>,
        parts: &Parts,
        peer: SocketAddr,
    ) -> Handshake {
        let span = if self.traced.traces.is_on() {
            handshake_span(&self.traced, route, parts, peer)
        } else {
            OpenSpan::none()
        };
        let context = span.context();
        Handshake { events: Arc::clone(self), begun: Instant::now(), span, context }
    }

    pub(crate) fn accept_failed(&self, error: &io::Error) {
        self.accept_failed.inc();
        tracing::warn!(%error, "could not accept a connection; trying again shortly");
    }

    pub(crate) fn socket_refused(&self, refusal: SocketRefusal, peer: SocketAddr) {
        let reason = refusal.reason();
        self.sockets_refused.get_or_create(&ReasonLabels { reason }).inc();
        tracing::debug!(reason, %peer, "a connection was ended as soon as it came");
    }

    /// A request that is no handshake is refused.
    pub(crate) fn request_refused(&self, refusal: &Refusal) {
        let reason = refusal.reason();
        self.requests_refused.get_or_create(&ReasonLabels { reason }).inc();
        tracing::debug!(reason, detail = %refusal, "request refused");
    }

    pub(crate) fn request_cut(&self, error: &hyper::Error, peer: SocketAddr) {
        let reason = Cut::of(error).label();
        self.requests_cut.get_or_create(&ReasonLabels { reason }).inc();
        tracing::debug!(reason, %error, %peer, "HTTP connection ended");
    }

    fn answered_after(&self, took: Duration, trace: Option<SpanRef>) {
        self.seconds.observe(took.as_secs_f64(), TraceLabel::of(trace), None);
    }
}

impl Handshake {
    /// The span of it, if that is kept.
    pub(crate) fn context(&self) -> Option<SpanRef> {
        self.context
    }

    /// It is for this room, which is served here.
    pub(crate) fn found(&self, room: &Room) {
        self.span.set(names::ROOM, room.name().to_string());
    }

    pub(crate) fn accepted(&self, ticket: &Ticket, with_origin: bool) {
        self.events.accepted.inc();
        let verdict = if with_origin { "allowed" } else { "not_required" };
        self.span.set(names::ORIGIN_VERDICT, verdict);
        self.span.set(names::CONNECTION, ticket.connection().to_string());
        self.span.set(attribute::STATUS, 101);
        self.events.answered_after(self.begun.elapsed(), self.context);
    }

    /// The path and the origin are the client's: they are told to nobody but the debug log, and quoted there.
    pub(crate) fn refused(
        &self,
        refusal: &Refusal,
        connection: ConnectionId,
        path: &str,
        peer: SocketAddr,
    ) {
        let outcome = refusal.reason();
        self.events.handshakes.get_or_create(&OutcomeLabels { outcome }).inc();
        tracing::debug!(outcome, %connection, ?path, %peer, detail = %refusal, "handshake refused");
        let status = refusal.status();
        if self.span.is_some() && !self.events.traced.traces.keeps_refusal() {
            self.span.limit();
            // No example either: its trace is nowhere to be found.
            return self.events.answered_after(self.begun.elapsed(), None);
        }
        if self.span.is_some() {
            self.span.set(names::CONNECTION, connection.to_string());
        }
        self.span.set(names::REFUSAL, outcome);
        self.span.set(attribute::STATUS, i64::from(status.as_u16()));
        if let Refusal::Origin(_) = refusal {
            self.span.set(names::ORIGIN_VERDICT, outcome.trim_start_matches("origin_"));
        }
        if status.is_server_error() {
            self.span.fail(outcome);
        }
        self.events.answered_after(self.begun.elapsed(), self.context);
    }
}

fn handshake_span(
    traced_as: &Traced,
    route: Option<&str>,
    parts: &Parts,
    peer: SocketAddr,
) -> OpenSpan {
    let name = match route {
        Some("/ws") => span::HANDSHAKE_DEFAULT,
        Some(_) => span::HANDSHAKE,
        None => span::HANDSHAKE_NOWHERE,
    };
    let span = OpenSpan::begin(name, Kind::Server);
    match stranger(&parts.headers) {
        Some(remote) if traced_as.trust => span.continue_remote(remote),
        // The trace is a stranger's, and so is the decision to keep it.
        Some(remote) => span.link_remote(remote),
        None => {}
    }
    span.set(attribute::METHOD, traced(parts.method.as_str()));
    if let Some(route) = route {
        span.set(attribute::ROUTE, route.to_owned());
    }
    span.set(attribute::PATH, traced(parts.uri.path()));
    span.set(attribute::SCHEME, if traced_as.tls { "https" } else { "http" });
    span.set(attribute::PROTOCOL, "http");
    span.set(attribute::PEER, peer.ip().to_string());
    span.set(attribute::PEER_PORT, i64::from(peer.port()));
    if let Some(Ok(agent)) = parts.headers.get(header::USER_AGENT).map(|agent| agent.to_str()) {
        span.set(attribute::USER_AGENT, traced(agent));
    }
    span
}

/// The span that the client names, if it names one as it should be named.
fn stranger(headers: &HeaderMap) -> Option<Remote> {
    let mut named = headers.get_all(names::TRACEPARENT).iter();
    let (Some(only), None) = (named.next(), named.next()) else { return None };
    only.to_str().ok().and_then(Remote::parse)
}

fn traced(text: &str) -> String {
    text.chars().take(TRACED_CHARS).collect()
}
