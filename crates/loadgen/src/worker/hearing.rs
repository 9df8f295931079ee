//! What a member makes of a message it receives.

use std::sync::atomic::Ordering;

use hubbub_websocket::Kind;

use crate::{
    control::{Control, Window},
    payload::{self, PROBE, Unreadable},
    plan::{Part, Plan},
    tally::Tally,
    verify::{Track, Verdict},
};

/// What all members of a run judge by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hearing<'a> {
    pub(super) control: &'a Control,
    pub(super) window: Window,
    size: usize,
    kind: Kind,
}

impl<'a> Hearing<'a> {
    pub(super) fn new(plan: &Plan, control: &'a Control) -> Self {
        let kind = if plan.binary { Kind::Binary } else { Kind::Text };
        Self { control, window: control.window(), size: plan.size, kind }
    }

    /// The kind of message that is sent, and must come back.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }
}

/// What one member has received.
#[derive(Debug)]
pub(super) struct Ears {
    room: u32,
    /// One for each publisher of the room.
    tracks: Box<[Track]>,
    /// Publishers whose probe has not come yet.
    unheard: Vec<u32>,
    /// A member that does not read in time: its deliveries are checked, but not counted or timed.
    slow: bool,
}

impl Ears {
    pub(super) fn new(plan: &Plan, room: u32, part: Part) -> Self {
        let slow = part == Part::Slow;
        Self {
            room,
            tracks: (0..plan.publishers).map(|_| Track::from_start()).collect(),
            unheard: if slow { Vec::new() } else { (0..plan.publishers).collect() },
            slow,
        }
    }

    /// Judges and counts one message.
    #[inline]
    pub(super) fn hear(
        &mut self,
        hearing: &Hearing<'_>,
        tally: &mut Tally,
        now: u64,
        kind: Kind,
        payload: &[u8],
    ) {
        let stamp = match payload::read(payload) {
            Ok(stamp) if stamp.run == hearing.control.run => stamp,
            Ok(_) | Err(Unreadable::Foreign) => {
                tally.foreign += 1;
                return;
            }
            Err(Unreadable::Corrupt) => {
                tally.faults.corrupt += 1;
                return;
            }
        };
        if stamp.room != self.room {
            tally.faults.misrouted += 1;
            return;
        }
        if stamp.sequence == PROBE {
            self.unheard.retain(|&publisher| publisher != stamp.publisher);
            return;
        }
        let as_sent = kind == hearing.kind && payload.len() == hearing.size;
        if !as_sent || !hearing.control.was_sent(&stamp) {
            tally.faults.corrupt += 1;
            return;
        }
        match self.tracks[stamp.publisher as usize].record(stamp.sequence) {
            Verdict::Good => {}
            Verdict::Reordered => tally.faults.reordered += 1,
            Verdict::Doubled => {
                tally.faults.doubled += 1;
                return;
            }
        }
        if self.slow {
            return;
        }
        tally.delivered += 1;
        if (hearing.window.from..hearing.window.to).contains(&now) {
            tally.delivered_in_window += 1;
            tally.timeline.arrived(now - hearing.window.from);
        }
        if stamp.due_ns >= hearing.window.from {
            let latency = now.saturating_sub(stamp.due_ns);
            tally.latency.saturating_record(latency);
            tally.timeline.took(stamp.due_ns - hearing.window.from, latency);
        }
    }

    /// How many publishers' probes have not come.
    pub(super) fn unheard(&self) -> u64 {
        self.unheard.len() as u64
    }

    /// How many of the messages sent so far have not come.
    pub(super) fn outstanding(&self, control: &Control) -> u64 {
        if self.slow {
            return 0;
        }
        let tracks = (0..).zip(&self.tracks);
        tracks
            .map(|(publisher, track)| {
                track.outstanding(control.published(self.room, publisher).load(Ordering::Acquire))
            })
            .sum()
    }

    /// Messages that were said while the member was away, if it ever was.
    pub(super) fn missed(&self) -> u64 {
        self.tracks.iter().map(Track::missed).sum()
    }

    /// The member is away from now on; gives how many messages it never received before.
    pub(super) fn away(&mut self) -> u64 {
        self.unheard = Vec::new();
        let missing = self.tracks.iter_mut().map(Track::resume).sum();
        if self.slow { 0 } else { missing }
    }
}
