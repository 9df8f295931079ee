//! What happens on the bus.

use std::time::Duration;

use hubbub_telemetry::LogLimit;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use tracing::{debug, error, info, warn};

/// From a NATS on the same machine to one that does not keep up.
const ROUND_TRIP_SECONDS: [f64; 12] =
    [0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5];

/// Why a message that members sent did not get out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LostBecause {
    /// NATS was away and the buffer for that was full.
    Away,
    /// It was handed to a connection that broke before NATS confirmed it; it may have arrived.
    Unconfirmed,
    /// It is larger than NATS takes.
    TooLarge,
}

/// Why a message that arrived was not handed to members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DroppedBecause {
    /// This gateway's shards did not keep up, and the room's backlog was full.
    Overload,
    /// The NATS client's own buffer for the room was full; each count is one message.
    SlowConsumer,
    /// Another program sent what is no message: text that is not UTF-8, or an unknown opcode.
    Malformed,
    /// Another program sent more than the room's `maxMessageBytes`.
    TooLarge,
}

impl LostBecause {
    /// A stable name, for metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Unconfirmed => "unconfirmed",
            Self::TooLarge => "too_large",
        }
    }
}

impl DroppedBecause {
    /// A stable name, for metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Overload => "overload",
            Self::SlowConsumer => "slow_consumer",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
        }
    }
}

/// A label of [`LostBecause`] or [`DroppedBecause`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// One method a happening: its log line and its metrics.
#[derive(Debug)]
pub struct BusEvents {
    published: Counter,
    lost: Family<Reason, Counter>,
    received: Counter,
    dropped: Family<Reason, Counter>,
    connected: Gauge,
    connects: Counter,
    disconnects: Counter,
    errors: Counter,
    subscriptions: Gauge,
    late_joins: Counter,
    connect_failures: Counter,
    lame_ducks: Counter,
    unheard: Counter,
    round_trips: Histogram,
    unreachable_log: LogLimit,
    error_log: LogLimit,
    away_log: LogLimit,
    dropped_log: LogLimit,
    same_id_log: LogLimit,
}

impl BusEvents {
    /// Registers the metrics; `registry` gives them their prefix.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let new = Self {
            published: Counter::default(),
            lost: Family::default(),
            received: Counter::default(),
            dropped: Family::default(),
            connected: Gauge::default(),
            connects: Counter::default(),
            disconnects: Counter::default(),
            errors: Counter::default(),
            subscriptions: Gauge::default(),
            late_joins: Counter::default(),
            connect_failures: Counter::default(),
            lame_ducks: Counter::default(),
            unheard: Counter::default(),
            round_trips: Histogram::new(ROUND_TRIP_SECONDS),
            unreachable_log: LogLimit::default(),
            error_log: LogLimit::default(),
            away_log: LogLimit::default(),
            dropped_log: LogLimit::default(),
            same_id_log: LogLimit::default(),
        };
        registry.register(
            "bus_published_messages",
            "Messages handed to NATS",
            new.published.clone(),
        );
        registry.register(
            "bus_lost_messages",
            "Messages of members that did not get out, or for reason unconfirmed may not have",
            new.lost.clone(),
        );
        registry.register(
            "bus_received_messages",
            "Messages that arrived from NATS",
            new.received.clone(),
        );
        registry.register(
            "bus_dropped_messages",
            "Messages that arrived from NATS and were not handed to members",
            new.dropped.clone(),
        );
        registry.register(
            "bus_connected",
            "Whether NATS is connected, by all connections of this gateway: 1 or 0",
            new.connected.clone(),
        );
        registry.register("bus_connects", "Connections made to NATS", new.connects.clone());
        registry.register(
            "bus_disconnects",
            "Connections to NATS that ended",
            new.disconnects.clone(),
        );
        registry.register("bus_errors", "Errors told by NATS or its client", new.errors.clone());
        registry.register(
            "bus_subscriptions",
            "Rooms subscribed to, because they have members on this gateway",
            new.subscriptions.clone(),
        );
        registry.register(
            "bus_late_joins",
            "Members who entered before NATS confirmed the room's subscription",
            new.late_joins.clone(),
        );
        registry.register(
            "bus_connect_failures",
            "Tries to connect to NATS that failed",
            new.connect_failures.clone(),
        );
        registry.register(
            "bus_lame_ducks",
            "Times that a NATS server told that it is shutting down in order",
            new.lame_ducks.clone(),
        );
        registry.register(
            "bus_unheard_gateways",
            "Gateways not heard again after an outage, when the messages held meanwhile were sent",
            new.unheard.clone(),
        );
        registry.register_with_unit(
            "bus_round_trip",
            "Time from handing something to the NATS client until NATS has sent it back to this gateway",
            Unit::Seconds,
            new.round_trips.clone(),
        );
        // A reason that has not happened yet reads 0, so that a rate over it works from the first time on.
        for reason in [LostBecause::Away, LostBecause::Unconfirmed, LostBecause::TooLarge] {
            drop(new.lost.get_or_create(&Reason { reason: reason.label() }));
        }
        for reason in [
            DroppedBecause::Overload,
            DroppedBecause::SlowConsumer,
            DroppedBecause::Malformed,
            DroppedBecause::TooLarge,
        ] {
            drop(new.dropped.get_or_create(&Reason { reason: reason.label() }));
        }
        new
    }

    /// A message was handed to NATS.
    pub fn published(&self) {
        self.published.inc();
    }

    /// Messages of members did not get out, or may not have.
    pub fn lost(&self, reason: LostBecause, messages: u64) {
        if messages == 0 {
            return;
        }
        self.lost.get_or_create(&Reason { reason: reason.label() }).inc_by(messages);
        match reason {
            LostBecause::Away => {
                if let Some(messages) = self.away_log.allow(messages) {
                    warn!(messages, "messages lost: NATS is away and the buffer is full");
                }
            }
            LostBecause::Unconfirmed => {
                warn!(
                    messages,
                    "messages may be lost: the connection broke before NATS confirmed them"
                );
            }
            LostBecause::TooLarge => debug!(messages, "message refused: larger than NATS takes"),
        }
    }

    /// A message arrived.
    pub fn received(&self) {
        self.received.inc();
    }

    /// Messages that arrived are not handed to members.
    pub fn dropped(&self, reason: DroppedBecause, room: Option<&str>, messages: u64) {
        self.dropped.get_or_create(&Reason { reason: reason.label() }).inc_by(messages);
        if let Some(messages) = self.dropped_log.allow(messages) {
            warn!(?reason, room, messages, "messages from NATS dropped");
        }
    }

    /// One of the connections stands.
    pub fn connection_made(&self) {
        self.connects.inc();
    }

    /// One of the connections is gone.
    pub fn connection_ended(&self) {
        self.disconnects.inc();
    }

    /// All connections stand.
    pub fn connected(&self) {
        self.connected.set(1);
        info!("connected to NATS");
    }

    /// Not all connections stand any more; members stay, and the client reconnects by itself.
    pub fn disconnected(&self) {
        self.connected.set(0);
        warn!("connection to NATS lost; members stay, and reconnecting goes on");
    }

    /// NATS cannot be reached, or refuses this gateway.
    pub fn unreachable(&self, away: Duration, cause: &str) {
        self.connect_failures.inc();
        if let Some(tries) = self.unreachable_log.allow(1) {
            let away_secs = away.as_secs();
            error!(cause, tries, away_secs, "cannot connect to NATS; trying on");
        }
    }

    /// What was held during an outage goes out, though gateways that served before it were not heard again.
    pub fn unheard(&self, gateways: usize) {
        self.unheard.inc_by(gateways as u64);
        warn!(
            gateways,
            "messages held while NATS was away are sent, and these gateways may miss them: not heard again"
        );
    }

    /// The server is about to go, in order; the client moves on.
    pub fn lame_duck(&self) {
        self.lame_ducks.inc();
        info!("the NATS server is shutting down in order; the client moves to another");
    }

    /// The server or the client told an error.
    pub fn error(&self, cause: &str) {
        self.errors.inc();
        if let Some(errors) = self.error_log.allow(1) {
            error!(cause, errors, "NATS told an error");
        }
    }

    /// Another gateway of the pool reports under this gateway's id.
    pub fn same_id(&self, gateway: &str) {
        self.errors.inc();
        if let Some(reports) = self.same_id_log.allow(1) {
            error!(
                gateway,
                reports,
                "another gateway has this gateway's id; its members are not counted: give each its own --gateway-id"
            );
        }
    }

    /// What this gateway sent to itself by NATS came back after so long.
    pub fn came_back(&self, took: Duration) {
        self.round_trips.observe(took.as_secs_f64());
    }

    /// A room is subscribed to.
    pub fn subscribed(&self) {
        self.subscriptions.inc();
    }

    /// So many rooms are subscribed to no more.
    pub fn unsubscribed(&self, rooms: usize) {
        self.subscriptions.dec_by(i64::try_from(rooms).unwrap_or(i64::MAX));
    }

    /// A member enters before its room's subscription was confirmed.
    pub fn late_join(&self) {
        self.late_joins.inc();
    }

    /// How many messages were handed to NATS.
    #[must_use]
    pub fn published_count(&self) -> u64 {
        self.published.get()
    }

    /// How many messages arrived.
    #[must_use]
    pub fn received_count(&self) -> u64 {
        self.received.get()
    }

    /// How many messages were lost for that reason.
    #[must_use]
    pub fn lost_count(&self, reason: LostBecause) -> u64 {
        self.lost.get_or_create(&Reason { reason: reason.label() }).get()
    }

    /// How many messages were dropped for that reason.
    #[must_use]
    pub fn dropped_count(&self, reason: DroppedBecause) -> u64 {
        self.dropped.get_or_create(&Reason { reason: reason.label() }).get()
    }

    /// How many rooms are subscribed to.
    #[must_use]
    pub fn subscription_count(&self) -> i64 {
        self.subscriptions.get()
    }

    /// How many errors were told.
    #[must_use]
    pub fn error_count(&self) -> u64 {
        self.errors.get()
    }

    /// How many connections were made.
    #[must_use]
    pub fn connect_count(&self) -> u64 {
        self.connects.get()
    }
}
