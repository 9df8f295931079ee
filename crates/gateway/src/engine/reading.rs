//! From a member's socket to the bus.
//!
//! Bytes are read into a buffer that all members of the shard share, decoded in place, and handed on. Only what cannot
//! be dealt with yet is kept for the member: the start of an unfinished message (in its decoder), and a [`Stall`].

use std::{io, time::Instant};

use hubbub_api::RoomLimits;
use hubbub_telemetry::OpenSpan;
use hubbub_websocket::{Decoder, Event, Kind, Limits, Opcode, Role, frame};

use super::{
    Ending, allowance,
    member::{CONTROLS_AT_ONCE, CONTROLS_PER_SECOND, Held, NEVER, Stall, State, Untaken},
    shard::Shard,
    standing::{Control, RENEWALS},
    transport::Taken,
    writing::millis,
};
use crate::{bus::PublishError, events::Throttle, room::Turn};

/// Reads of one member before the others have their turn.
const READS_A_TURN: usize = 4;

/// Bytes to read at once where that is not more than the room's limits call for: some eight messages of the default size.
const READ_AT_LEAST: usize = 4 * 1024;

/// Bytes of a masked frame without payload (RFC 6455, 5.2).
const SMALLEST_FRAME: usize = 6;

/// Milliseconds in which a message must be finished once begun. Browsers and libraries send a frame at once, so only a
/// broken or hostile peer needs longer.
const MESSAGE_TIME: u64 = 10_000;

/// Milliseconds until a full bus is offered the message again, and after which the message is given up.
const BUS_RETRY: u64 = 5;
const BUS_PATIENCE: u64 = 1_000;

/// What to do after an event was dealt with.
enum Next {
    Continue,
    /// Stop decoding and come back to the rest at this time.
    Wait {
        until: u64,
    },
    /// The message was not taken: keep it, and come back at this time.
    Keep {
        kind: Kind,
        span: OpenSpan,
        held: Held,
        until: u64,
    },
    /// The member needs nothing more from its bytes.
    Stop,
}

/// What became of a message that was to go to the bus.
enum Passed {
    /// It is dealt with.
    On,
    /// It waits for this, until then.
    Held(Held, u64),
    /// It ended the member.
    Ended,
}

impl Shard {
    /// Reads until the socket is empty, the member's turn is over, or it may not send more.
    /// `certain` says that a short read does not prove the socket empty.
    pub(super) fn on_readable(&mut self, key: u32, certain: bool) {
        for _ in 0..READS_A_TURN {
            let Some(member) = self.members.get_mut(key as usize) else { return };
            if member.stall.is_some() {
                return; // the timer comes back to the socket
            }
            let is_spent = self.shared.allowance.is_spent();
            if is_spent && member.pending_bytes() >= allowance::ALWAYS {
                self.shared.allowance.hold_back();
                self.stall(key, None, self.now + allowance::RETRY);
                return self.arm(key);
            }
            let Some(socket) = member.socket.as_mut() else { return };
            let limits = &self.rooms[member.room as usize].policy.declared().limits;
            let mut at_once = read_at_once(limits).min(self.read_buffer.len());
            if is_spent {
                at_once = at_once.min(allowance::ALWAYS);
            }
            match socket.read(&mut self.read_buffer[..at_once]) {
                Ok(Taken { bytes: 0, .. }) => return self.peer_finished(key),
                Ok(Taken { bytes: read, drained }) => {
                    let mut buffer = std::mem::take(&mut self.read_buffer);
                    if let Some(bytes) = buffer.get_mut(..read) {
                        self.feed(key, bytes);
                    }
                    self.read_buffer = buffer;
                    if drained && !certain {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.socket_failed(key, &error),
            }
        }
        if let Some(member) = self.members.get(key as usize) {
            self.unread.push_back((key, member.generation));
        }
    }

    /// Like [`Shard::feed`], with bytes that are the member's own.
    pub(super) fn feed_owned(&mut self, key: u32, mut bytes: Vec<u8>) {
        self.feed(key, &mut bytes);
    }

    /// Decodes bytes of the member and deals with what they say.
    fn feed(&mut self, key: u32, bytes: &mut [u8]) {
        let Some(member) = self.members.get_mut(key as usize) else { return };
        match member.state {
            State::Lingering { .. } => return,
            State::Closing { ending, .. } if !ending.can_read_on() => return,
            State::Open | State::Closing { .. } => {}
        }
        let policy = &self.rooms[member.room as usize].policy;
        let limit = policy.declared().limits.max_message_bytes;
        let mut limits = Limits::for_message_bytes(limit as usize);
        if member.renews && policy.tokens().is_some() {
            limits.long_texts = Some(RENEWALS);
        }
        let before = (member.pending_bytes(), member.decoder.heap_bytes());
        // Out of the member, so that an event may borrow from it while the member is changed.
        let mut decoder = std::mem::replace(&mut member.decoder, Decoder::new(Role::Server));
        let mut used = 0;
        let mut finished_message = false;
        let next = loop {
            let (count, result) = decoder.decode(&mut bytes[used..], limits);
            used += count;
            let event = match result {
                Ok(Some(event)) => event,
                Ok(None) => break Next::Continue,
                Err(error) => {
                    self.close(key, Ending::of_bytes(error, limit));
                    break Next::Stop;
                }
            };
            finished_message |= matches!(event, Event::Message { .. });
            match self.deal_with(key, event) {
                Next::Continue => {}
                Next::Keep { kind, span, held, until } => {
                    let Event::Message { payload, .. } = event else { break Next::Continue };
                    let untaken = Untaken { kind, payload: payload.to_vec(), span, held };
                    self.stall(key, Some(untaken), until);
                    break Next::Continue;
                }
                other => break other,
            }
        };
        let in_message = decoder.in_message();
        let Some(member) = self.members.get_mut(key as usize) else { return };
        member.decoder = decoder;
        match next {
            Next::Stop => return,
            Next::Wait { until } => self.stall(key, None, until),
            Next::Keep { .. } | Next::Continue => {}
        }
        let Some(member) = self.members.get_mut(key as usize) else { return };
        if let Some(stall) = &mut member.stall {
            stall.rest.extend_from_slice(&bytes[used..]);
        }
        let kept = member.pending_bytes().saturating_sub(before.0);
        // A buffer that has grown may have been copied, and the old one is in memory yet.
        let copied = if member.decoder.heap_bytes() > before.1 { before.1 } else { 0 };
        if kept + copied > 0 {
            self.shared.allowance.take(kept + copied);
        }
        if !in_message || member.stall.is_some() {
            member.message_by = NEVER;
        }
        if in_message && (finished_message || member.message_by == NEVER) {
            member.message_by = self.now + MESSAGE_TIME;
        }
        self.arm(key);
    }

    fn deal_with(&mut self, key: u32, event: Event<'_>) -> Next {
        match event {
            Event::Message { kind, payload } => self.message(key, kind, payload),
            Event::Ping(payload) => {
                if !self.control_allowed(key) {
                    return Next::Stop;
                }
                if matches!(self.members[key as usize].state, State::Open) {
                    self.answer_ping(key, frame(Opcode::Pong, payload));
                }
                self.still_there(key)
            }
            Event::Pong(_) => {
                if !self.control_allowed(key) {
                    return Next::Stop;
                }
                self.pong_came(key);
                Next::Continue
            }
            Event::Close(close) => {
                self.peer_closed(key, close.map(|close| close.code));
                Next::Stop
            }
        }
    }

    fn message(&mut self, key: u32, kind: Kind, payload: &[u8]) -> Next {
        let member = &mut self.members[key as usize];
        let accepted = match member.state {
            State::Open => true,
            State::Closing { ending, .. } => ending.accepts_messages(),
            State::Lingering { .. } => false,
        };
        if !accepted {
            return Next::Continue;
        }
        if member.renews && kind == Kind::Text {
            match self.control_message(key, payload) {
                Control::No => {}
                Control::Taken => return self.spend(key, payload.len()),
                Control::Closed => return Next::Stop,
            }
        }
        if !self.members[key as usize].may_write() {
            self.close(key, Ending::MayNotWrite);
            return Next::Stop;
        }
        let span = self.begin_publishing(key, payload.len());
        match self.pass_on(key, kind, payload, &span, Held::NoTurn) {
            Passed::On => self.spend(key, payload.len()),
            Passed::Held(held, until) => Next::Keep { kind, span, held, until },
            Passed::Ended => Next::Stop,
        }
    }

    /// Passes a message on to the bus, if its turn in the room has come.
    fn pass_on(
        &mut self,
        key: u32,
        kind: Kind,
        payload: &[u8],
        span: &OpenSpan,
        held: Held,
    ) -> Passed {
        if matches!(held, Held::NoTurn)
            && let Some((held, until)) = self.await_turn(key)
        {
            return Passed::Held(held, until);
        }
        match self.publish(key, kind, payload, span) {
            Ok(()) | Err(PublishError::Away) => Passed::On, // counted by the bus
            Err(PublishError::TooLarge(limit)) => {
                self.close(key, Ending::TooLargeForBus(limit));
                Passed::Ended
            }
            Err(error @ PublishError::Full) => {
                let since = match held {
                    Held::Bus { since } => since,
                    Held::NoTurn | Held::Turn => self.now,
                };
                if self.now < since + BUS_PATIENCE {
                    return Passed::Held(Held::Bus { since }, self.now + BUS_RETRY);
                }
                span.fail(error.label());
                self.shared.events.message_given_up();
                Passed::On
            }
        }
    }

    /// Takes a turn in the room for a message of this member. If it is not its turn yet: what it waits for, and until when.
    fn await_turn(&mut self, key: u32) -> Option<(Held, u64)> {
        let member = &self.members[key as usize];
        let pace = self.rooms[member.room as usize].room.pace();
        // Of who is on its way out nothing can be held back any more.
        if member.state != State::Open || !pace.is_limited() {
            return None;
        }
        let (held, wait) = match pace.turn(Instant::now()) {
            Turn::Now => return None,
            Turn::After(wait) => (Held::Turn, millis(wait).max(1)),
            // Not all at the same time.
            Turn::AskAgain(wait) => {
                let wait = millis(wait);
                (Held::NoTurn, self.random.u64(wait / 2..=wait))
            }
        };
        self.shared.events.throttled(Throttle::Room);
        Some((held, self.now + wait))
    }

    /// Decides whether the message is traced, before anything is made for it.
    fn begin_publishing(&self, key: u32, bytes: usize) -> OpenSpan {
        let events = &self.shared.events;
        if !events.samples_message() {
            return OpenSpan::none();
        }
        let member = &self.members[key as usize];
        let room = &self.rooms[member.room as usize].room;
        let (connection, handshake) = (member.connection, member.handshake);
        events.publishing(room, self.shared.bus_system(), bytes, connection, handshake)
    }

    fn publish(
        &mut self,
        key: u32,
        kind: Kind,
        payload: &[u8],
        span: &OpenSpan,
    ) -> Result<(), PublishError> {
        let member = &mut self.members[key as usize];
        let room = &self.rooms[member.room as usize].room;
        let Some(bus) = self.shared.bus.get() else { return Err(PublishError::Away) };
        let taken = bus.publish(room, kind, payload, span.context());
        if let Err(error @ (PublishError::Away | PublishError::TooLarge(_))) = taken {
            span.fail(error.label());
        }
        if taken != Err(PublishError::Full) {
            member.traffic.messages_in += 1;
            member.traffic.bytes_in += payload.len() as u64;
            self.shared.events.message_received(payload.len());
        }
        taken
    }

    /// Counts a message of so many bytes; says whether the member may go on.
    fn spend(&mut self, key: u32, bytes: usize) -> Next {
        let member = &mut self.members[key as usize];
        if member.state != State::Open {
            return Next::Continue;
        }
        let limits = &self.rooms[member.room as usize].policy.declared().limits;
        member.messages.take(limits.messages_per_second, limits.burst, self.now);
        let for_messages = member.messages.wait(limits.messages_per_second);
        let for_bytes =
            limits.bytes_per_second.map_or(0, |rate| member.spend_bytes(bytes, rate, self.now));
        if for_messages == 0 && for_bytes == 0 {
            return self.still_there(key);
        }
        let longer = if for_bytes > for_messages { Throttle::Bytes } else { Throttle::Messages };
        self.shared.events.throttled(longer);
        Next::Wait { until: self.now + for_messages.max(for_bytes) }
    }

    fn still_there(&self, key: u32) -> Next {
        if self.members.contains(key as usize) { Next::Continue } else { Next::Stop }
    }

    fn control_allowed(&mut self, key: u32) -> bool {
        let member = &mut self.members[key as usize];
        let allowed = member.controls.try_take(CONTROLS_PER_SECOND, CONTROLS_AT_ONCE, self.now);
        if !allowed {
            self.close(key, Ending::ControlFlood);
        }
        allowed
    }

    fn stall(&mut self, key: u32, message: Option<Untaken>, resume_at: u64) {
        let Some(member) = self.members.get_mut(key as usize) else { return };
        member.stall = Some(Box::new(Stall { message, rest: Vec::new(), resume_at }));
    }

    /// Goes on where a stall stopped.
    pub(super) fn resume(&mut self, key: u32) {
        let Some(member) = self.members.get_mut(key as usize) else { return };
        let Some(mut stall) = member.stall.take() else { return };
        if let Some(mut untaken) = stall.message.take() {
            let Untaken { kind, payload, span, held } = &untaken;
            match self.pass_on(key, *kind, payload, span, *held) {
                Passed::On => {}
                Passed::Held(held, until) => {
                    untaken.held = held;
                    stall.message = Some(untaken);
                    stall.resume_at = until;
                    self.members[key as usize].stall = Some(stall);
                    return self.arm(key);
                }
                Passed::Ended => return,
            }
            if let Next::Wait { until } = self.spend(key, untaken.payload.len()) {
                self.stall(key, None, until);
                if let Some(stalled) = &mut self.members[key as usize].stall {
                    stalled.rest = stall.rest;
                }
                return self.arm(key);
            }
        }
        // We did not look at the socket for a while: a pong may wait in it.
        self.was_held_back(key);
        if !stall.rest.is_empty() {
            self.feed_owned(key, stall.rest);
        }
        self.on_readable(key, true);
        if self.members.contains(key as usize) {
            self.arm(key);
        }
    }
}

/// Bytes to read from one member at once. What it may not send yet is held in memory for as long as it is held back,
/// so no more is read than one message, or a burst of the smallest ones, can fill.
fn read_at_once(limits: &RoomLimits) -> usize {
    let burst = (limits.burst as usize).saturating_mul(SMALLEST_FRAME);
    READ_AT_LEAST.max(limits.max_message_bytes as usize).max(burst)
}
