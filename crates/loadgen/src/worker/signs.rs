//! What a member does about what its server said beside messages, where the frames carry a protocol of their own.

use hubbub_websocket::Opcode;

use crate::{link::Phase, protocol::Sign, reconnect::Cause};

use super::Worker;

impl Worker<'_> {
    /// Says what a client says first.
    pub(super) fn greet(&mut self, local: usize) {
        let mut said = Vec::new();
        self.plan.protocol.greeting(&mut said, self.plan.token.as_deref());
        if !said.is_empty() {
            self.say(local, &said);
        }
    }

    /// Acts on all that the last frame said.
    pub(super) fn follow_signs(&mut self, local: usize) {
        if self.signs.is_empty() {
            return;
        }
        let mut signs = std::mem::take(&mut self.signs);
        for sign in signs.drain(..) {
            self.follow(local, sign);
        }
        self.signs = signs;
    }

    fn follow(&mut self, local: usize, sign: Sign) {
        let member = &mut self.members[local];
        let Some(link) = &mut member.link else { return };
        match (sign, &mut link.phase) {
            (Sign::Welcome, Phase::Joining { asked }) if !*asked => {
                *asked = true;
                let mut said = Vec::new();
                let channel = self.plan.channel(member.room);
                self.plan.protocol.enter(&mut said, &channel, self.plan.token.as_deref());
                self.say(local, &said);
            }
            (Sign::Joined, Phase::Joining { .. }) => self.opened(local),
            (Sign::Welcome | Sign::Joined, _) => {}
            (Sign::Ping, _) => {
                self.count_ping();
                self.say(local, self.plan.protocol.pong());
            }
            (Sign::Refused { reason, temporary }, Phase::Joining { .. }) => {
                let cause = if temporary { Cause::Unreachable } else { Cause::Denied };
                self.connect_failed(local, &reason, cause);
            }
            (Sign::Refused { reason, .. }, _) => self.tally.failure(reason),
            (Sign::PutOut(code), Phase::Open) => {
                self.closed(local, code);
                self.members[local].link = None;
            }
            (Sign::PutOut(_), _) => {}
            (Sign::Garbled(what), _) => {
                *self.tally.violations.entry(what).or_default() += 1;
                self.ended(local);
            }
        }
    }

    pub(super) fn count_ping(&mut self) {
        self.tally.pings += 1;
        let window = self.hearing.window;
        if (window.from..window.to).contains(&self.now) {
            self.tally.pings_in_window += 1;
        }
    }

    fn say(&mut self, local: usize, said: &[u8]) {
        self.send_frame(local, self.plan.protocol.opcode().unwrap_or(Opcode::Text), said);
    }

    pub(super) fn send_frame(&mut self, local: usize, opcode: Opcode, payload: &[u8]) {
        let Some(link) = &mut self.members[local].link else { return };
        let mask = self.random.key();
        if link.send_frame(opcode, mask, payload, &mut self.scratch).is_err() {
            self.ended(local);
        }
    }
}
