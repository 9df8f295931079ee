//! The verifier: what each member should have received, and how what it did receive differs.
//!
//! Each member keeps, for each publisher of its room, the sequence number that must come next and
//! the numbers skipped so far. Order is promised for each sender and receiver, so nothing else is
//! demanded. It is not concerned with time: a message may come as late as it likes, but not twice.

use std::collections::BTreeSet;

use serde::Serialize;

/// Counted deviations from "each message once, in order, unchanged, and only in its room".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Messages that a member, there all the time, never received.
    pub missing: u64,

    /// Messages that a member received again.
    pub doubled: u64,

    /// Messages that a member received after a later one of the same publisher.
    pub reordered: u64,

    /// Messages of another room.
    pub misrouted: u64,

    /// Messages whose checksum, size, kind or sequence number is none that was sent.
    pub corrupt: u64,
}

impl Faults {
    /// How many there are in all.
    pub fn total(&self) -> u64 {
        self.missing + self.doubled + self.reordered + self.misrouted + self.corrupt
    }
}

impl std::ops::AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        let Self { missing, doubled, reordered, misrouted, corrupt } = other;
        self.missing += missing;
        self.doubled += doubled;
        self.reordered += reordered;
        self.misrouted += misrouted;
        self.corrupt += corrupt;
    }
}

/// What one delivery was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next one, or the first after a gap, which is remembered.
    Good,

    /// One that was skipped and came after all.
    Reordered,

    /// One that was there before.
    Doubled,
}

/// What one member has received of one publisher.
#[derive(Debug, Default)]
pub struct Track {
    /// The sequence number to come, once one is known: who joins in mid-stream knows none.
    next: Option<u32>,

    /// The number that was to come when an absence began, while nothing has come since.
    away_at: Option<u32>,

    /// Messages said in absences.
    missed: u64,

    /// Numbers below `next` that have not come; almost always none, hence no memory.
    holes: BTreeSet<u32>,
}

impl Track {
    /// A track that begins with the publisher's first message.
    pub fn from_start() -> Self {
        Self { next: Some(0), ..Self::default() }
    }

    /// Forgets what should come next, for a member that comes back after an absence; gives how many
    /// messages were still missing from its time before.
    pub fn resume(&mut self) -> u64 {
        // Who goes again before anything came has been away all the time.
        self.away_at = self.next.take().or(self.away_at);
        std::mem::take(&mut self.holes).len() as u64
    }

    /// Messages that were said while the member was away, as far as what came since tells.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Takes note of a received sequence number.
    pub fn record(&mut self, sequence: u32) -> Verdict {
        if let Some(away_at) = self.away_at.take() {
            self.missed += u64::from(sequence.saturating_sub(away_at));
        }
        let next = self.next.unwrap_or(sequence);
        if sequence >= next {
            if sequence > next {
                self.holes.extend(next..sequence);
            }
            self.next = Some(sequence + 1);
            return Verdict::Good;
        }
        if self.holes.remove(&sequence) { Verdict::Reordered } else { Verdict::Doubled }
    }

    /// How many of the `published` messages have not come, from the first that was expected.
    pub fn outstanding(&self, published: u32) -> u64 {
        self.holes.len() as u64
            + u64::from(published.saturating_sub(self.next.unwrap_or(published)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(track: &mut Track, sequences: &[u32]) -> Vec<Verdict> {
        sequences.iter().map(|&sequence| track.record(sequence)).collect()
    }

    #[test]
    fn in_order_is_good() {
        let mut track = Track::from_start();
        assert_eq!(verdicts(&mut track, &[0, 1, 2]), [Verdict::Good; 3]);
        assert_eq!(track.outstanding(3), 0);
        assert_eq!(track.outstanding(5), 2, "two are still under way");
    }

    #[test]
    fn what_was_skipped_is_missing_until_it_comes() {
        let mut track = Track::from_start();
        assert_eq!(verdicts(&mut track, &[0, 3]), [Verdict::Good; 2]);
        assert_eq!(track.outstanding(4), 2);
        assert_eq!(track.record(1), Verdict::Reordered);
        assert_eq!(track.outstanding(4), 1);
        assert_eq!(track.record(1), Verdict::Doubled);
        assert_eq!(track.record(2), Verdict::Reordered);
        assert_eq!(track.outstanding(4), 0);
    }

    #[test]
    fn again_is_doubled() {
        let mut track = Track::from_start();
        assert_eq!(verdicts(&mut track, &[0, 0]), [Verdict::Good, Verdict::Doubled]);
        assert_eq!(verdicts(&mut track, &[1, 0]), [Verdict::Good, Verdict::Doubled]);
    }

    #[test]
    fn the_first_messages_can_be_missing_too() {
        let mut track = Track::from_start();
        assert_eq!(track.outstanding(7), 7);
        track.record(2);
        assert_eq!(track.outstanding(7), 6);
    }

    #[test]
    fn who_joins_late_owes_nothing_before_its_first() {
        let mut track = Track::default();
        assert_eq!(track.outstanding(100), 0);
        assert_eq!(track.record(50), Verdict::Good);
        assert_eq!(
            track.record(49),
            Verdict::Doubled,
            "older than its first: not in order at least"
        );
        assert_eq!(track.outstanding(52), 1);
    }

    #[test]
    fn an_absence_closes_the_account() {
        let mut track = Track::from_start();
        verdicts(&mut track, &[0, 2]);
        assert_eq!(track.resume(), 1, "number 1 never came");
        assert_eq!(track.record(9), Verdict::Good);
        assert_eq!(track.outstanding(10), 0, "3 to 8 were said in its absence");
        assert_eq!(track.missed(), 6);
        track.resume();
        track.resume();
        track.record(12);
        assert_eq!(track.missed(), 8, "and 10 and 11");
    }
}
