//! One member: about 350 bytes while it idles, and nothing on the heap but its origin.

use std::{net::SocketAddr, sync::Arc};

use hubbub_api::{Access, Origin};
use hubbub_telemetry::{OpenSpan, SpanRef};
use hubbub_websocket::{Decoder, Kind, Role};

use super::{
    ConnectionId, Ending, Entrant, Pass, Transport, outbox::Outbox, standing::token_until,
};
use crate::{bucket::Bucket, limits::Places, room::Policy, token::Bearer};

/// Never, as a time of the shard's clock.
pub(super) const NEVER: u64 = u64::MAX;

/// A place that is not in the room's list.
pub(super) const NO_PLACE: u32 = u32::MAX;

/// Control frames that a client may send in a second, and at once: an answer to each of our pings and a keep-alive of
/// its own need far less.
pub(super) const CONTROLS_PER_SECOND: u32 = 10;
pub(super) const CONTROLS_AT_ONCE: u32 = 50;

/// A second in microseconds.
const SECOND: u64 = 1_000_000;

/// How far a member's connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// In the room.
    Open,
    /// A close frame was queued for this reason; the peer's is awaited, or has come.
    Closing { ending: Ending, answered: bool },
    /// Our side is shut; what the peer still sends is thrown away until it ends, so that the close frame is not lost to
    /// a reset.
    Lingering { ending: Ending },
}

/// What was read and cannot be dealt with yet: the member or its room may not send more now, or the bus is full.
#[derive(Debug)]
pub(super) struct Stall {
    /// A message that has not gone to the bus.
    pub(super) message: Option<Untaken>,
    /// What follows it, not decoded yet.
    pub(super) rest: Vec<u8>,
    /// When to go on.
    pub(super) resume_at: u64,
}

/// A message that has not gone to the bus yet.
#[derive(Debug)]
pub(super) struct Untaken {
    pub(super) kind: Kind,
    pub(super) payload: Vec<u8>,
    /// The span of its publishing, if it is traced.
    pub(super) span: OpenSpan,
    pub(super) held: Held,
}

/// What a message waits for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Held {
    /// Its turn in the room, which it does not have yet.
    NoTurn,
    /// Its turn in the room.
    Turn,
    /// A bus that is not full, since it was first found so.
    Bus { since: u64 },
}

/// See the module. Times are milliseconds of the shard's clock.
#[derive(Debug)]
pub(super) struct Member {
    /// None until the handshake is answered.
    pub(super) socket: Option<Transport>,
    /// Whether the shard is told when the socket takes bytes again: from the first time on that it did not take all.
    pub(super) watches_writes: bool,
    pub(super) connection: ConnectionId,
    /// The span of its handshake, if that is kept.
    pub(super) handshake: Option<SpanRef>,
    pub(super) peer: SocketAddr,
    pub(super) origin: Option<Arc<Origin>>,
    /// What it may do.
    pub(super) access: Access,
    /// What its token says.
    pub(super) bearer: Option<Arc<Bearer>>,
    /// Whether it may renew that: see [`control_message`](super::shard::Shard::control_message).
    pub(super) renews: bool,
    /// What it takes of the limits at the door, given back when it is dropped.
    pub(super) places: Option<Box<Places>>,
    /// When its token ends.
    pub(super) token_until: u64,
    /// Key of the shard's room.
    pub(super) room: u32,
    /// Place in the room's list of members.
    pub(super) place: u32,
    /// Sets this member apart from an earlier one with the same key.
    pub(super) generation: u32,
    pub(super) state: State,
    pub(super) decoder: Decoder,
    pub(super) outbox: Option<Box<Outbox>>,
    pub(super) stall: Option<Box<Stall>>,
    pub(super) messages: Bucket,
    /// Until when the bytes that it sent last at the room's `bytesPerSecond`, in microseconds.
    pub(super) bytes_until: u64,
    pub(super) controls: Bucket,
    /// When the wheel will call next.
    pub(super) wake_at: u64,
    pub(super) ping_at: u64,
    pub(super) pong_by: u64,
    /// When the message under way must be finished.
    pub(super) message_by: u64,
    /// In the room: when the drain sends it away. Closing: when it is given up.
    pub(super) close_at: u64,
    pub(super) entered: u64,
    pub(super) traffic: Traffic,
}

/// What went over one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Messages from the peer.
    pub messages_in: u64,
    /// Payload bytes from the peer.
    pub bytes_in: u64,
    /// Messages written for the peer; while the connection lasts, those that wait as well.
    pub messages_out: u64,
    /// Bytes of these, frame headers included.
    pub bytes_out: u64,
}

impl Member {
    pub(super) fn new(entrant: &mut Entrant, room: u32, policy: &Policy, now: u64) -> Self {
        let limits = &policy.declared().limits;
        let Pass { origin, access, bearer, renews, places } = std::mem::take(&mut entrant.pass);
        Self {
            socket: None,
            watches_writes: false,
            connection: entrant.connection,
            handshake: entrant.arrival.handshake,
            peer: entrant.arrival.peer,
            origin: origin.map(Arc::new),
            access,
            token_until: token_until(policy, bearer.as_deref(), now),
            bearer,
            renews,
            places,
            room,
            place: NO_PLACE,
            generation: entrant.generation,
            state: State::Open,
            decoder: Decoder::new(Role::Server),
            outbox: None,
            stall: None,
            messages: Bucket::full(limits.burst, now),
            bytes_until: 0,
            controls: Bucket::full(CONTROLS_AT_ONCE, now),
            wake_at: NEVER,
            ping_at: NEVER,
            pong_by: NEVER,
            message_by: NEVER,
            close_at: NEVER,
            entered: now,
            traffic: Traffic::default(),
        }
    }

    /// Counts a message of so many bytes. Milliseconds until the member may send again, if it may send so many bytes a
    /// second, and so many at once.
    pub(super) fn spend_bytes(&mut self, bytes: usize, per_second: u32, now: u64) -> u64 {
        let now = now.saturating_mul(1000);
        let lasts = (bytes as u64).saturating_mul(SECOND) / u64::from(per_second.max(1));
        self.bytes_until = self.bytes_until.max(now).saturating_add(lasts);
        (self.bytes_until - now).saturating_sub(SECOND).div_ceil(1000)
    }

    /// Throws away what waits and has not begun to go out; returns how many messages that were.
    pub(super) fn discard_queue(&mut self) -> usize {
        let Some(outbox) = &mut self.outbox else { return 0 };
        let bytes = outbox.message_bytes();
        let messages = outbox.discard();
        self.traffic.messages_out -= messages as u64;
        self.traffic.bytes_out -= (bytes - outbox.message_bytes()) as u64;
        messages
    }

    /// What went over the connection, now that it ends.
    pub(super) fn final_traffic(&self) -> Traffic {
        let (messages, bytes) = self
            .outbox
            .as_ref()
            .map_or((0, 0), |outbox| (outbox.messages() as u64, outbox.message_bytes() as u64));
        let Traffic { messages_out, bytes_out, .. } = self.traffic;
        Traffic {
            messages_out: messages_out - messages,
            bytes_out: bytes_out - bytes,
            ..self.traffic
        }
    }

    /// Bytes that wait for it, or that it has sent and that cannot be dealt with yet.
    pub(super) fn held_bytes(&self) -> usize {
        let out = self.outbox.as_ref().map_or(0, |outbox| outbox.bytes());
        out + self.stalled_bytes() + self.decoder.heap_bytes()
    }

    /// Bytes that it has sent and that are not dealt with yet.
    pub(super) fn pending_bytes(&self) -> usize {
        self.stalled_bytes() + self.decoder.arrived_bytes()
    }

    fn stalled_bytes(&self) -> usize {
        self.stall.as_ref().map_or(0, |stall| {
            stall.rest.len() + stall.message.as_ref().map_or(0, |message| message.payload.len())
        })
    }

    /// The earliest time at which something has to be done.
    pub(super) fn next_deadline(&self) -> u64 {
        if self.socket.is_none() {
            return self.close_at;
        }
        let write_by = self.outbox.as_ref().map_or(NEVER, |outbox| outbox.write_by);
        let resume_at = self.stall.as_ref().map_or(NEVER, |stall| stall.resume_at);
        // While we do not read from it, a member cannot show that it lives.
        let pong_by = if self.stall.is_some() { NEVER } else { self.pong_by };
        let live = match self.state {
            State::Open => {
                let live = self.ping_at.min(pong_by).min(self.message_by).min(write_by);
                live.min(self.token_until)
            }
            State::Closing { .. } | State::Lingering { .. } => NEVER,
        };
        live.min(resume_at).min(self.close_at)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_idle_member_is_small() {
        let size = size_of::<super::Member>();
        assert!(size <= 368, "{size} bytes");
    }
}
