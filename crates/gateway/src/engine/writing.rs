//! From the bus to the members' sockets.

use std::{
    io,
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Ending, Transport, Trip,
    member::{Member, State},
    outbox::{Chunk, Flushed, Outbox},
    shard::{LocalRoom, Pending, Shard},
    turn::{HandedOn, RoomTurn, SLICE},
};

/// Frames joined into one write at most, in bytes: as one socket's buffer would take them at once.
const JOIN_BYTES: usize = 64 * 1024;

/// Bytes that may wait for one member, whatever its room allows in messages; at least four of the largest messages.
const WAITING_BYTES: usize = 1024 * 1024;

/// The longest rest between two turns of a room, in milliseconds: measured, collecting over 5 ms brings a room of 1,000
/// at 400 messages a second to half the cost, and longer rests gain little more.
const MAX_REST: u64 = 5;

/// What became of a chunk that was offered to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offered {
    Written,
    Queued,
    TooSlow,
    Failed(io::ErrorKind),
}

impl Shard {
    /// Writes to the rooms whose time has come: to each a slice of its members, so that none waits until a big one is through.
    pub(super) fn write_pending(&mut self) {
        let mut at = 0;
        while let Some(room) = self.dirty.get(at).copied() {
            let local = self.rooms.get(room as usize);
            let rests = local.is_some_and(|local| local.write_at > self.now);
            if rests || self.write_slice(room) {
                at += 1;
            } else if self.dirty.get(at) == Some(&room) {
                // Unless it is gone, and from here too.
                self.dirty.swap_remove(at);
            }
        }
    }

    /// Writes what waits for one room, whatever its pace.
    pub(super) fn write_now(&mut self, room: u32) {
        if self.rooms.get(room as usize).is_some_and(LocalRoom::has_to_write) {
            self.dirty.retain(|dirty| *dirty != room);
            while self.write_slice(room) {}
        }
    }

    /// When the next room that is held back may be written to.
    pub(super) fn next_write(&self) -> Option<u64> {
        self.dirty
            .iter()
            .filter_map(|room| self.rooms.get(*room as usize))
            .map(|local| local.write_at)
            .min()
    }

    /// Whether a room is in the middle of its turn, or may begin it.
    pub(super) fn has_to_write(&self) -> bool {
        self.next_write().is_some_and(|at| at <= self.now)
    }

    /// Writes to the next members of a room in its turn, which begins if it has not. Says whether something is left to be written
    /// to the room, in this turn or the next.
    fn write_slice(&mut self, room: u32) -> bool {
        let begun = Instant::now();
        let Some(local) = self.rooms.get_mut(room as usize) else { return false };
        let policy = Arc::clone(&local.policy);
        let limits = &policy.declared().limits;
        let write_by = self.now + millis(*policy.declared().heartbeat.write_wait);
        let queue = limits.send_queue as usize;
        let waiting_bytes = WAITING_BYTES.max(4 * limits.max_message_bytes as usize);
        let messages = std::mem::take(&mut local.pending);
        let mut turn = match local.turn.take() {
            Some(turn) => {
                local.pending = messages;
                turn
            }
            None => match RoomTurn::begin(messages, queue) {
                Some(turn) => turn,
                None => return false,
            },
        };
        let keys = std::mem::take(&mut local.members);
        let until = keys.len().min(turn.served + SLICE);
        let (mut fallen, before) = (Vec::new(), turn.handed_on);
        let mut handed_on = before;
        let (chunk, count) = turn.chunk();
        for key in keys.get(turn.served..until).unwrap_or_default() {
            let Some(member) = self.members.get_mut(*key as usize) else { continue };
            match offer(member, chunk, count, write_by, queue, waiting_bytes) {
                Offered::Written => handed_on.written += count,
                Offered::Queued => {
                    handed_on.queued += count;
                    if member.wake_at > write_by || !member.watches_writes {
                        fallen.push((*key, None));
                    }
                }
                Offered::TooSlow => {
                    handed_on.lost += 1;
                    fallen.push((*key, Some(Ending::QueueFull)));
                }
                Offered::Failed(kind) => {
                    handed_on.lost += 1;
                    fallen.push((*key, Some(Ending::of_socket(kind))));
                }
            }
        }
        turn.served = until;
        turn.handed_on = handed_on;
        self.shared
            .events
            .delivered(handed_on.written - before.written, handed_on.queued - before.queued);
        let all_have_it = until == keys.len();
        if let Some(local) = self.rooms.get_mut(room as usize) {
            debug_assert!(
                local.members.is_empty(),
                "nobody comes or goes while a slice is written"
            );
            local.members = keys;
        }
        if all_have_it {
            self.tell_handed_on(&turn);
        }
        // What is shared ends here, unless another shard still has it.
        let ended = all_have_it && !turn.next(queue);
        turn.took += begun.elapsed();
        let rest = pace(turn.took);
        let turn = (!ended).then_some(turn);
        let now = self.clock();
        if let Some(local) = self.rooms.get_mut(room as usize) {
            if turn.is_none() {
                local.write_at = now + rest;
            }
            // Before anybody is taken off the room's list.
            local.turn = turn;
        }
        self.settle_fallen(fallen);
        self.rooms.get(room as usize).is_some_and(LocalRoom::has_to_write)
    }

    /// Deals with members that did not take what was written to them.
    fn settle_fallen(&mut self, fallen: Vec<(u32, Option<Ending>)>) {
        for (key, ending) in fallen {
            match ending {
                None => self.arm(key),
                Some(ending @ (Ending::PeerGone | Ending::SocketFailed(_))) => {
                    if self.members.contains(key as usize) {
                        self.remove(key, ending);
                    }
                }
                Some(ending) => self.close(key, ending),
            }
        }
    }

    /// The members of this shard have the messages that the turn is at.
    fn tell_handed_on(&self, turn: &RoomTurn) {
        let ((_, count), HandedOn { written, queued, lost }) = (turn.chunk(), turn.handed_on);
        let now = Instant::now();
        for message in turn.under_way() {
            if written + queued + lost > 0 {
                self.tell_message(message, now, written / count, queued / count, lost);
            }
            self.inbox.delivered(&message.frame);
        }
    }

    /// This shard has handed a message to its members.
    fn tell_message(
        &self,
        message: &Pending,
        now: Instant,
        written: usize,
        queued: usize,
        lost: usize,
    ) {
        match &message.trip {
            Trip::Short(arrived) => {
                let took = now.saturating_duration_since(*arrived);
                self.shared.events.fan_out().done(took, None);
            }
            Trip::Shared(delivery) => delivery.handed_on(now, written, queued, lost),
        }
    }

    /// The socket takes bytes again.
    pub(super) fn on_writable(&mut self, key: u32) {
        let Some(member) = self.members.get_mut(key as usize) else { return };
        let (Some(socket), Some(outbox)) = (member.socket.as_mut(), member.outbox.as_mut()) else {
            return;
        };
        match outbox.flush(socket, &mut self.scratch) {
            Ok(Flushed::Empty) => {
                member.outbox = None;
                self.all_written(key);
            }
            Ok(Flushed::Blocked { progress }) => {
                if progress {
                    let policy = &self.rooms[member.room as usize].policy;
                    outbox.write_by = self.now + millis(*policy.declared().heartbeat.write_wait);
                }
                self.arm(key);
            }
            Err(error) => self.socket_failed(key, &error),
        }
    }

    /// Sends a pong, or lets it take the place of one that still waits.
    pub(super) fn answer_ping(&mut self, key: u32, pong: Bytes) {
        let Some(member) = self.members.get_mut(key as usize) else { return };
        if let Some(outbox) = &mut member.outbox {
            outbox.set_pong(pong);
        } else {
            self.send_control(key, pong);
        }
    }

    /// Writes a control frame, behind what waits.
    pub(super) fn send_control(&mut self, key: u32, frame: Bytes) {
        let Some(member) = self.members.get_mut(key as usize) else { return };
        let policy = &self.rooms[member.room as usize].policy;
        let write_by = self.now + millis(*policy.declared().heartbeat.write_wait);
        match put(member, &Chunk::control(frame), write_by) {
            Ok(true) => {}
            Ok(false) => self.arm(key),
            Err(error) => self.socket_failed(key, &error),
        }
    }

    pub(super) fn socket_failed(&mut self, key: u32, error: &io::Error) {
        let Some(member) = self.members.get(key as usize) else { return };
        let ending = match member.state {
            State::Closing { ending, .. } | State::Lingering { ending } => ending,
            State::Open => Ending::of_socket(error.kind()),
        };
        self.remove(key, ending);
    }
}

/// For how many milliseconds a room rests after writing to it took so long.
///
/// The price of a write is per call, so frames that arrive close together should share one. A room whose turn is short
/// never rests, and a busy big one rests long enough that its writing takes no more than about a fifth of the shard's
/// time while frames gather; never so long that a person would notice.
pub(super) fn pace(took: Duration) -> u64 {
    millis(took * 4).min(MAX_REST)
}

/// How many of the messages are written together: at most `queue`, so that a member's bound keeps its meaning, and at most
/// [`JOIN_BYTES`], but one at least.
pub(super) fn batch(messages: &[Pending], queue: usize) -> usize {
    let mut bytes = 0;
    let fitting = messages.iter().take(queue.max(1)).enumerate().take_while(|(at, message)| {
        bytes += message.frame.len();
        *at == 0 || bytes <= JOIN_BYTES
    });
    fitting.count()
}

/// Offers messages to a member: straight to its socket if nothing waits.
fn offer(
    member: &mut Member,
    chunk: &Chunk,
    messages: usize,
    write_by: u64,
    queue: usize,
    waiting_bytes: usize,
) -> Offered {
    member.traffic.messages_out += messages as u64;
    member.traffic.bytes_out += chunk.bytes().len() as u64;
    match put(member, chunk, write_by) {
        Ok(true) => Offered::Written,
        Ok(false) => {
            let too_slow = member.outbox.as_ref().is_some_and(|outbox| {
                outbox.messages() > queue
                    || (outbox.messages() > 1 && outbox.bytes() > waiting_bytes)
            });
            if too_slow { Offered::TooSlow } else { Offered::Queued }
        }
        Err(error) => Offered::Failed(error.kind()),
    }
}

/// Writes a chunk, or queues what the socket does not take; says whether all of it is out.
fn put(member: &mut Member, chunk: &Chunk, write_by: u64) -> io::Result<bool> {
    if let Some(outbox) = &mut member.outbox {
        outbox.push(chunk.clone());
        return Ok(false);
    }
    let written = match &mut member.socket {
        None => 0,
        Some(socket) => loop {
            match socket.write(chunk.bytes()) {
                Ok(written) => break written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        },
    };
    if written == chunk.bytes().len() {
        if !member.socket.as_ref().is_some_and(Transport::holds_back) {
            return Ok(true);
        }
        // Nothing more of it has to be kept, but somebody has to come back for what the socket did not take.
        member.outbox = Some(Box::new(Outbox::new(write_by)));
        return Ok(false);
    }
    member.outbox = Some(Box::new(Outbox::resume(chunk.clone(), written, write_by)));
    Ok(false)
}

/// A duration as the shard's clock counts it.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
