//! Sending: which publisher's message is due next, and the messages themselves.

use std::{cmp::Reverse, collections::BinaryHeap, sync::atomic::Ordering};

use crate::{
    control::Window,
    link::{Link, Phase},
    payload::{self, PROBE, Stamp},
    plan::Part,
    schedule::Schedule,
};

use super::Worker;

/// What may wait for one publisher's socket; beyond it messages count as not sent, so that a server
/// that does not read costs us a bounded amount of memory.
const MAX_BACKLOG: usize = 1 << 20;

/// How often each publisher repeats its probe until all have heard it.
const PROBE_INTERVAL_NS: u64 = 250_000_000;

/// A publisher among this worker's members.
#[derive(Debug)]
pub(super) struct Publisher {
    member: usize,
    room: u32,
    place: u32,
    schedule: Schedule,
    /// Messages of it that were due so far, sent or not.
    turns: u64,
}

/// The publishers of a worker, by due time of their next message.
#[derive(Debug, Default)]
pub(super) struct Publishing {
    publishers: Vec<Publisher>,
    due: BinaryHeap<Reverse<(u64, usize)>>,
    next_probe: Option<u64>,
}

impl Publishing {
    pub(super) fn add(&mut self, member: usize, room: u32, place: u32, schedule: Schedule) {
        self.publishers.push(Publisher { member, room, place, schedule, turns: 0 });
    }

    pub(super) fn begin_probing(&mut self, now: u64) {
        self.next_probe = (!self.publishers.is_empty()).then_some(now);
    }

    /// Probing is over; the schedule begins.
    pub(super) fn begin(&mut self, window: Window) {
        self.next_probe = None;
        for (index, publisher) in self.publishers.iter().enumerate() {
            let due = window.start + publisher.schedule.due_ns(publisher.place.into());
            if due < window.to {
                self.due.push(Reverse((due, index)));
            }
        }
    }

    pub(super) fn end(&mut self) {
        self.next_probe = None;
        self.due.clear();
    }

    /// When there is something to send.
    pub(super) fn next(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((due, _))| *due).into_iter().chain(self.next_probe).min()
    }
}

impl Worker<'_> {
    /// Sends all that is due.
    pub(super) fn publish(&mut self) {
        if self.publishing.next_probe.is_some_and(|due| due <= self.now) {
            self.publishing.next_probe = Some(self.now + PROBE_INTERVAL_NS);
            for index in 0..self.publishing.publishers.len() {
                let Publisher { member, room, place, .. } = self.publishing.publishers[index];
                self.send_message(member, room, place, PROBE, self.now);
            }
        }
        while let Some(&Reverse((due, index))) = self.publishing.due.peek()
            && due <= self.now
        {
            let window = self.hearing.window;
            let publisher = &mut self.publishing.publishers[index];
            let Publisher { member, room, place, .. } = *publisher;
            publisher.turns += 1;
            let message = u64::from(place) + publisher.turns * u64::from(self.plan.publishers);
            let next = window.start + publisher.schedule.due_ns(message);
            self.publishing.due.pop();
            if next < window.to {
                self.publishing.due.push(Reverse((next, index)));
            }

            let published = self.control.published(room, place);
            let sequence = published.load(Ordering::Relaxed);
            // Before it is sent: another worker's member may have it before this call returns.
            published.store(sequence + 1, Ordering::Release);
            if !self.send_message(member, room, place, sequence, due) {
                published.store(sequence, Ordering::Release);
                match self.members[member].is_open() {
                    true => self.tally.unsent_held_back += 1,
                    false => self.tally.unsent_away += 1,
                }
                continue;
            }
            self.tally.sent += 1;
            if due >= window.from {
                self.tally.sent_in_window += 1;
                self.tally.lateness.saturating_record(self.control.now().saturating_sub(due));
            }
        }
    }

    /// Whether the message is on its way.
    fn send_message(
        &mut self,
        member: usize,
        room: u32,
        place: u32,
        sequence: u32,
        due: u64,
    ) -> bool {
        let Some(link) = &mut self.members[member].link else { return false };
        if !matches!(link.phase, Phase::Open) || link.backlog() > MAX_BACKLOG {
            return false;
        }
        let stamp = Stamp { run: self.control.run, room, publisher: place, sequence, due_ns: due };
        self.message.clear();
        payload::write(&mut self.message, &stamp, self.plan.size);
        let mask = self.random.key();
        let said = match self.plan.protocol.opcode() {
            None => &self.message,
            Some(_) => {
                self.wrapped.clear();
                let channel = self.plan.channel(room);
                self.plan.protocol.publish(&mut self.wrapped, &channel, sequence, &self.message);
                &self.wrapped
            }
        };
        let opcode = self.plan.protocol.opcode().unwrap_or_else(|| self.hearing.kind().into());
        let sent = Link::send_frame(link, opcode, mask, said, &mut self.scratch);
        if sent.is_err() {
            self.ended(member);
        }
        sent.is_ok()
    }
}

/// The place of a publisher, if the part is one.
pub(super) fn place(part: Part) -> Option<u32> {
    match part {
        Part::Publisher(place) => Some(place),
        Part::Listener | Part::Passing | Part::Slow => None,
    }
}
