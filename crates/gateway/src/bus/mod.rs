//! What carries a room's messages between gateways, or only within this one.
//!
//! A [`Bus`] promises: what is published to a room reaches every gateway that has joined the room, this one
//! included, and messages of one publisher arrive in the order published. It does not promise delivery across an
//! outage; what it knows to be lost it counts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use hubbub_telemetry::SpanRef;
use hubbub_websocket::Kind;

use crate::room::Room;

pub mod local;
pub mod nats;

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The way is full; try again shortly, and read no more from the sender until then.
    #[error("the bus is full")]
    Full,
    /// The bus is away and its buffer is full: the message is lost.
    #[error("the bus is away")]
    Away,
    /// The bus carries at most this many bytes.
    #[error("the bus carries at most {0} bytes")]
    TooLarge(usize),
}

impl PublishError {
    /// A stable name, for traces.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Full => "bus_full",
            Self::Away => "bus_away",
            Self::TooLarge(_) => "too_large_for_bus",
        }
    }
}

/// Whether the bus works, for readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusState {
    /// Messages flow.
    Connected,
    /// Not connected, for this long.
    Away(Duration),
    /// Not connected yet: there was never a connection, so no short absence is to be bridged.
    Connecting,
}

/// Where a bus hands over what arrives.
pub trait Sink: Send + Sync + 'static {
    /// Hands a message to the room's members on this gateway, never waiting. `published` is the span of its
    /// publishing, if the message is traced; `arrived` is when it came here.
    fn deliver(
        &self,
        room: &Arc<Room>,
        kind: Kind,
        payload: &[u8],
        published: Option<SpanRef>,
        arrived: Instant,
    );

    /// Tells that a message came for the room and was not delivered, for a reason of a closed set.
    fn dropped(
        &self,
        _room: &Arc<Room>,
        _bytes: usize,
        _published: Option<SpanRef>,
        _reason: &'static str,
    ) {
    }

    /// Whether the members' shards keep up with this room; when not, the bus should hold back.
    fn has_room_for(&self, room: &Arc<Room>) -> bool;

    /// Waits until [`Sink::has_room_for`] holds.
    fn ready<'a>(&'a self, room: &'a Arc<Room>) -> BoxFuture<'a, ()>;
}

/// Carries messages. Every method may be called from any thread.
pub trait Bus: Send + Sync + 'static {
    /// Takes a message without ever blocking: it is called on the threads that write to sockets. `span` is that of the
    /// publishing, if the message is traced: it arrives with the message.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; after `Full` the caller offers the same message again.
    fn publish(
        &self,
        room: &Arc<Room>,
        kind: Kind,
        payload: &[u8],
        span: Option<SpanRef>,
    ) -> Result<(), PublishError>;

    /// Called when a member is about to enter, after its place was reserved. Resolves when all that is published
    /// from now on arrives here; at once when the room is joined already, and also when the bus is away (then it
    /// catches up by itself).
    fn join<'a>(&'a self, room: &'a Arc<Room>) -> BoxFuture<'a, ()>;

    /// Called when the room's last member here has left. A member may be entering at the same time: the bus looks
    /// at [`Room::members`] under its own lock and stays in a room that is not empty.
    fn leave(&self, room: &Arc<Room>);

    /// Waits until everything published has been handed to the network, at most `limit`.
    /// Says whether that was achieved.
    fn flush(&self, limit: Duration) -> BoxFuture<'_, bool>;

    /// The state right now.
    fn state(&self) -> BusState;

    /// What traces call it.
    fn system(&self) -> &'static str;
}
