//! Heartbeats and deadlines. Each member has one entry in the wheel, for the earliest of its times.

use hubbub_websocket::{Opcode, frame};

use super::{
    Ending,
    member::{NEVER, State},
    shard::Shard,
    wheel::Entry,
    writing::millis,
};

impl Shard {
    /// Sees to it that the wheel calls at the member's earliest time.
    pub(super) fn arm(&mut self, key: u32) {
        let Some(member) = self.members.get_mut(key as usize) else { return };
        let at = member.next_deadline();
        if at < member.wake_at {
            member.wake_at = at;
            self.wheel.insert(Entry { key, generation: member.generation, at });
        }
    }

    /// Starts the heartbeat, or lets it follow a changed policy. The first ping comes at a random moment of its
    /// period, so that members who came together are not all pinged together.
    pub(super) fn begin_heartbeat(&mut self, key: u32) {
        let Some(member) = self.members.get_mut(key as usize) else { return };
        let heartbeat = &self.rooms[member.room as usize].policy.declared().heartbeat;
        let period = millis(*heartbeat.ping_period).max(1);
        member.ping_at = member.ping_at.min(self.now + self.random.u64(period / 2..=period));
        member.pong_by = self.now + millis(*heartbeat.pong_wait);
    }

    /// A pong came: the member lives.
    pub(super) fn pong_came(&mut self, key: u32) {
        let Some(member) = self.members.get_mut(key as usize) else { return };
        let heartbeat = &self.rooms[member.room as usize].policy.declared().heartbeat;
        member.pong_by = self.now + millis(*heartbeat.pong_wait);
    }

    /// We did not read from the member for a while: its pong may stand behind what we did not read, so its time
    /// starts anew.
    pub(super) fn was_held_back(&mut self, key: u32) {
        self.pong_came(key);
    }

    /// The wheel calls.
    pub(super) fn on_timer(&mut self, key: u32) {
        self.members[key as usize].wake_at = NEVER;
        let member = &self.members[key as usize];
        if member.stall.as_ref().is_some_and(|stall| stall.resume_at <= self.now) {
            self.resume(key);
        }
        let Some(member) = self.members.get(key as usize) else { return };
        let due = |at: u64| at <= self.now;
        match member.state {
            State::Closing { .. } | State::Lingering { .. } => {
                if due(member.close_at) {
                    self.give_up(key);
                }
            }
            State::Open if due(member.close_at) => self.send_away(key),
            State::Open if member.socket.is_none() => {}
            State::Open if member.outbox.as_ref().is_some_and(|outbox| due(outbox.write_by)) => {
                self.remove(key, Ending::WriteTimeout);
            }
            State::Open if due(member.message_by) => self.close(key, Ending::MessageTimeout),
            State::Open if due(member.pong_by) && member.stall.is_none() => {
                self.close(key, Ending::PongTimeout);
            }
            State::Open if due(member.ping_at) => self.ping(key),
            State::Open => {}
        }
        self.arm(key);
    }

    fn ping(&mut self, key: u32) {
        let member = &mut self.members[key as usize];
        let heartbeat = &self.rooms[member.room as usize].policy.declared().heartbeat;
        let period = millis(*heartbeat.ping_period).max(1);
        member.ping_at = self.now + period;
        self.shared.events.pinged();
        self.send_control(key, frame(Opcode::Ping, &[]));
    }
}
