//! How a connection ends: what is said to the peer, how long its answer is awaited, and the drain's exodus.

use hubbub_websocket::{Decoder, Role, close_frame};

use super::{
    Ending,
    member::{NEVER, State},
    outbox::{Chunk, Outbox},
    shard::Shard,
    writing::millis,
};

/// Milliseconds in which a close frame must be written and answered.
const CLOSE_TIME: u64 = 5_000;

/// Milliseconds in which a peer whose bytes make no sense any more may still send some before it is dropped.
const LINGER_TIME: u64 = 2_000;

/// Members of one shard that may be on their way out in a drain at the same time: so many reconnects and goodbyes at
/// once do no harm, and a peer that never answers holds up no one behind it for long.
const LEAVING_AT_ONCE: usize = 256;

impl Shard {
    /// Ends a member's stay: it gets nothing more from its room, then what still waits for it, then a close frame.
    /// Does nothing if it is closing already.
    pub(super) fn close(&mut self, key: u32, ending: Ending) {
        let Some(member) = self.members.get(key as usize) else { return };
        if member.state != State::Open {
            return;
        }
        if !ending.discards_queue() {
            // What has reached the room before this moment is for the member too.
            self.write_now(member.room);
            if self.members.get(key as usize).is_none_or(|member| member.state != State::Open) {
                return;
            }
        }
        self.tell_eviction(key, ending);
        self.leave_room(key);
        let code = ending.code().unwrap_or(1000);
        let frame = close_frame(code, &ending.sentence());
        let policy = &self.rooms[self.members[key as usize].room as usize].policy;
        let heartbeat = &policy.declared().heartbeat;
        let write_by = self.now + millis(*heartbeat.write_wait);
        let patience = match ending {
            // It has been silent for so long already: one ping's time more, and it is gone.
            Ending::PongTimeout => CLOSE_TIME.min(millis(*heartbeat.ping_period)),
            _ => CLOSE_TIME,
        };
        let member = &mut self.members[key as usize];
        member.state = State::Closing { ending, answered: false };
        if ending.accepts_messages() {
            // What the peer sent before it learns of the close still counts, and there is no time left to hold back.
            if let Some(stall) = &mut member.stall {
                stall.resume_at = self.now;
            }
        } else {
            member.stall = None;
        }
        if ending.discards_queue() {
            let discarded = member.discard_queue();
            if !ending.can_read_on() {
                // What it has sent of a message is not waited for either.
                member.decoder = Decoder::new(Role::Server);
            }
            self.shared.events.discarded(discarded);
        }
        let outbox = member.outbox.get_or_insert_with(|| Box::new(Outbox::new(write_by)));
        outbox.push(Chunk::control(frame));
        member.close_at = self.now + patience;
        self.on_writable(key);
        self.arm(key);
    }

    /// Tells what waited for a member that is about to be cut.
    pub(super) fn tell_eviction(&self, key: u32, ending: Ending) {
        let Some(member) = self.members.get(key as usize) else { return };
        let waits = member.outbox.as_ref();
        let waits = waits.map_or((0, 0), |outbox| (outbox.messages(), outbox.message_bytes()));
        self.shared.events.evicting(ending, waits.0, waits.1);
    }

    /// The peer's close frame came.
    pub(super) fn peer_closed(&mut self, key: u32, code: Option<u16>) {
        let Some(member) = self.members.get_mut(key as usize) else { return };
        match member.state {
            State::Open => {
                self.close_in_answer(key, code);
            }
            State::Closing { ending, .. } => {
                member.state = State::Closing { ending, answered: true };
                if member.outbox.is_none() {
                    self.remove(key, ending);
                }
            }
            State::Lingering { .. } => {}
        }
    }

    fn close_in_answer(&mut self, key: u32, code: Option<u16>) {
        let ending = Ending::PeerClosed(code);
        self.leave_room(key);
        let member = &mut self.members[key as usize];
        member.state = State::Closing { ending, answered: true };
        member.stall = None;
        let answer = match code {
            Some(code) => close_frame(code, ""),
            None => hubbub_websocket::frame(hubbub_websocket::Opcode::Close, &[]),
        };
        // Whoever says goodbye does not wait for what it has not read: the answer goes behind it, and soon.
        member.discard_queue();
        let outbox = member.outbox.get_or_insert_with(|| Box::new(Outbox::new(NEVER)));
        outbox.push(Chunk::control(answer));
        member.close_at = self.now + CLOSE_TIME;
        self.on_writable(key);
        self.arm(key);
    }

    /// Everything queued is on its way: go on with a close that waited for that.
    pub(super) fn all_written(&mut self, key: u32) {
        let Some(member) = self.members.get_mut(key as usize) else { return };
        let State::Closing { ending, answered } = member.state else { return };
        if answered {
            return self.remove(key, ending);
        }
        if !ending.can_read_on() {
            member.state = State::Lingering { ending };
            member.close_at = self.now + LINGER_TIME;
            if let Some(socket) = &mut member.socket {
                socket.finish();
            }
            self.arm(key);
        }
    }

    /// The peer will send nothing more.
    pub(super) fn peer_finished(&mut self, key: u32) {
        let Some(member) = self.members.get(key as usize) else { return };
        let ending = match member.state {
            State::Open => Ending::PeerGone,
            State::Closing { ending, .. } | State::Lingering { ending } => ending,
        };
        self.remove(key, ending);
    }

    /// A closing member's time is over.
    pub(super) fn give_up(&mut self, key: u32) {
        let Some(member) = self.members.get(key as usize) else { return };
        let ending = match member.state {
            State::Open => return,
            // Its close frame never left: that is no good order.
            State::Closing { ending: Ending::Drained, .. } if member.outbox.is_some() => {
                Ending::Cut
            }
            State::Closing { ending, .. } | State::Lingering { ending } => ending,
        };
        self.remove(key, ending);
    }

    /// Spreads the members' departure evenly over the window: the n-th of them leaves at a random moment of the
    /// n-th part of it, in random order, so that neither this gateway nor the ones they go to see a burst.
    pub(super) fn begin_exodus(&mut self, window: u64) {
        self.exodus.until = Some(self.now + window);
        let mut keys: Vec<u32> = self
            .members
            .iter()
            .filter(|(_, member)| member.state == State::Open)
            .map(|(key, _)| key as u32)
            .collect();
        self.random.shuffle(&mut keys);
        let count = keys.len().max(1) as f64;
        for (position, key) in keys.into_iter().enumerate() {
            let part = (position as f64 + self.random.f64()) / count;
            // Truncated on purpose: the clock counts whole milliseconds.
            self.members[key as usize].close_at = self.now + (window as f64 * part) as u64;
            self.arm(key);
        }
    }

    /// The drain's time for this member has come.
    pub(super) fn send_away(&mut self, key: u32) {
        let Some(member) = self.members.get_mut(key as usize) else { return };
        if self.exodus.in_flight >= LEAVING_AT_ONCE {
            member.close_at = NEVER;
            self.exodus.waiting.push_back((key, member.generation));
            return;
        }
        self.exodus.in_flight += 1;
        self.close(key, Ending::Drained);
    }

    /// Lets waiting members go in place of those who are gone. Called once a round, never by a departure itself: thousands
    /// that vanish at once would each call the next, one inside the other, until the stack is full.
    pub(super) fn send_next_away(&mut self) {
        while self.exodus.in_flight < LEAVING_AT_ONCE {
            let Some((key, generation)) = self.exodus.waiting.pop_front() else { return };
            if self.is_current(key, generation) && self.members[key as usize].state == State::Open {
                self.guarded(key, |shard| shard.send_away(key));
            }
        }
    }

    /// Drops everybody. Who has got its close frame counts as sent away in good order.
    pub(super) fn cut_everybody(&mut self) {
        let keys: Vec<u32> = self.members.iter().map(|(key, _)| key as u32).collect();
        self.exodus.waiting.clear();
        for key in keys {
            let Some(member) = self.members.get(key as usize) else { continue };
            let ending = match member.state {
                State::Closing { ending, .. } if member.outbox.is_none() => ending,
                State::Lingering { ending } => ending,
                State::Open | State::Closing { .. } => Ending::Cut,
            };
            self.remove(key, ending);
        }
    }
}
