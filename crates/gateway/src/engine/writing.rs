//! From the bus to the members' sockets.

use std::{
    io,
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Ending, Trip,
    member::{Member, State},
    outbox::{Chunk, Flushed, Outbox},
    shard::{Pending, Shard},
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
    /// Writes what waits for the rooms whose time has come.
    pub(super) fn write_pending(&mut self) {
        let mut held = 0;
        while let Some(room) = self.dirty.get(held).copied() {
            match self.rooms.get(room as usize) {
                Some(local) if local.write_at > self.now => held += 1,
                _ => {
                    self.dirty.swap_remove(held);
                    self.write_frames(room);
                }
            }
        }
    }

    /// Writes what waits for one room, whatever its pace.
    pub(super) fn write_now(&mut self, room: u32) {
        let waits = self.rooms.get(room as usize).is_some_and(|local| !local.pending.is_empty());
        if waits {
            self.dirty.retain(|dirty| *dirty != room);
            self.write_frames(room);
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

    fn write_frames(&mut self, room: u32) {
        let Some(local) = self.rooms.get_mut(room as usize) else { return };
        let messages = std::mem::take(&mut local.pending);
        let begun = Instant::now();
        self.write_to_room(room, &messages);
        // What is shared ends here, unless another shard still has it.
        drop(messages);
        let hold = pace(begun.elapsed());
        let now = self.clock();
        if let Some(local) = self.rooms.get_mut(room as usize) {
            local.write_at = now + hold;
        }
    }

    fn write_to_room(&mut self, room: u32, messages: &[Pending]) {
        let Some(local) = self.rooms.get_mut(room as usize) else { return };
        let policy = Arc::clone(&local.policy);
        let limits = &policy.declared().limits;
        let write_by = self.now + millis(*policy.declared().heartbeat.write_wait);
        let queue = limits.send_queue as usize;
        let waiting_bytes = WAITING_BYTES.max(4 * limits.max_message_bytes as usize);
        let keys = std::mem::take(&mut local.members);
        let mut fallen = Vec::new();
        for messages in batches(messages, queue) {
            let chunk = Chunk::join(messages.iter().map(|message| &message.frame));
            let count = messages.len();
            let (mut written, mut queued, mut lost) = (0, 0, 0);
            for key in &keys {
                let Some(member) = self.members.get_mut(*key as usize) else { continue };
                match offer(member, &chunk, count, write_by, queue, waiting_bytes) {
                    Offered::Written => written += count,
                    Offered::Queued => {
                        queued += count;
                        if member.wake_at > write_by || !member.watches_writes {
                            fallen.push((*key, None));
                        }
                    }
                    Offered::TooSlow => {
                        lost += 1;
                        fallen.push((*key, Some(Ending::QueueFull)));
                    }
                    Offered::Failed(kind) => {
                        lost += 1;
                        fallen.push((*key, Some(Ending::of_socket(kind))));
                    }
                }
            }
            if written + queued + lost > 0 {
                let now = Instant::now();
                for message in messages {
                    self.tell_handed_on(message, now, written / count, queued / count, lost);
                }
            }
            self.shared.events.delivered(written, queued);
            for message in messages {
                self.inbox.delivered(&message.frame);
            }
        }
        if let Some(local) = self.rooms.get_mut(room as usize) {
            debug_assert!(local.members.is_empty(), "nobody comes or goes while a room is written");
            local.members = keys;
        }
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

    /// This shard has handed a message to its members.
    fn tell_handed_on(
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

/// Cuts messages into runs that are written together: at most `queue` messages, so that a member's bound keeps its
/// meaning, and at most [`JOIN_BYTES`].
fn batches(messages: &[Pending], queue: usize) -> impl Iterator<Item = &[Pending]> {
    let mut rest = messages;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let mut count = 0;
        for message in rest.iter().take(queue.max(1)) {
            if count > 0 && bytes + message.frame.len() > JOIN_BYTES {
                break;
            }
            bytes += message.frame.len();
            count += 1;
        }
        let (batch, later) = rest.split_at(count);
        rest = later;
        (!batch.is_empty()).then_some(batch)
    })
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
        return Ok(true);
    }
    member.outbox = Some(Box::new(Outbox::resume(chunk.clone(), written, write_by)));
    Ok(false)
}

/// A duration as the shard's clock counts it.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
