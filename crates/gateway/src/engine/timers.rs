//! Heartbeats and deadlines. Each member has one entry in the wheel, for the earliest of its times.

use hubbub_websocket::{Opcode, frame};
use mio::{Interest, Token};

use super::{
    Ending,
    member::{NEVER, State},
    shard::Shard,
    wheel::Entry,
    writing::millis,
};

/// Pings of a room come together in so many moments of their period, so that the shard is awake already when their pongs come:
/// being woken costs as much as a ping.
const PING_MOMENTS: u64 = 32;

/// The most milliseconds between two such moments: what is written in one of them must not keep messages waiting.
const PING_STEP: u64 = 512;

impl Shard {
    /// Sees to it that the wheel calls at the member's earliest time, and that the shard is told when its socket takes what
    /// waits.
    pub(super) fn arm(&mut self, key: u32) {
        let Some(member) = self.members.get_mut(key as usize) else { return };
        if let Some(socket) = &mut member.socket
            && member.outbox.is_some()
            && !member.watches_writes
        {
            let registry = self.poll.get_ref().registry();
            let both = Interest::READABLE | Interest::WRITABLE;
            match registry.reregister(socket.socket(), Token(key as usize), both) {
                Ok(()) => member.watches_writes = true,
                // Then its time to write runs out.
                Err(error) => self.shared.events.poll_failed(&error),
            }
        }
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
        let first = self.now + self.random.u64(period / 2..=period);
        member.ping_at = member.ping_at.min(ping_moment(first, period));
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
                self.tell_eviction(key, Ending::WriteTimeout);
                self.remove(key, Ending::WriteTimeout);
            }
            State::Open if due(member.token_until) => self.close(key, Ending::TokenExpired),
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
        member.ping_at = ping_moment(self.now + period, period);
        self.shared.events.pinged();
        self.send_control(key, frame(Opcode::Ping, &[]));
    }
}

/// The moment for a ping that is due at this time: never later.
fn ping_moment(at: u64, period: u64) -> u64 {
    let step = (period / PING_MOMENTS).clamp(1, PING_STEP);
    at - at % step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_come_together_and_never_late() {
        for period in [1, 20, 500, 4_000, 54_000, 3_600_000] {
            let (mut at, moments) = (12_345, period.min(PING_MOMENTS));
            for _ in 0..100 {
                let next = ping_moment(at + period, period);
                let waited = next - at;
                // Called up to a tick late, as the wheel does.
                assert!(
                    waited <= period && waited >= period - period / moments,
                    "{period}: {waited}"
                );
                at = next + 7 % period;
            }
        }
        let spread = |period: u64| {
            let due = (0..period).map(|at| ping_moment(at, period));
            due.collect::<std::collections::BTreeSet<_>>().len() as u64
        };
        assert_eq!(spread(4_000), PING_MOMENTS);
        assert_eq!(spread(54_000), 54_000_u64.div_ceil(PING_STEP));
    }
}
