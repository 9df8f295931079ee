//! How members come back after a close: how long each was away, what it missed meanwhile, and how many came at once.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{report::Times, tally::histogram};

/// Most messages that the histogram of missed ones tells apart.
const MOST_MISSED: u64 = 100_000_000;

/// What one worker counts of it.
#[derive(Debug)]
pub(crate) struct Absences {
    /// From the end of a connection to the next 101, in nanoseconds.
    away: Histogram<u64>,
    /// When each came back, in nanoseconds of the run's clock.
    returns: Vec<u64>,
    /// Messages said while a member was away, for each member that was, at the end of the run.
    missed: Histogram<u64>,
}

impl Default for Absences {
    #[expect(clippy::expect_used, reason = "the bounds are constants that the library accepts")]
    fn default() -> Self {
        Self {
            away: histogram(),
            returns: Vec::new(),
            missed: Histogram::new_with_bounds(1, MOST_MISSED, 3).expect("valid bounds"),
        }
    }
}

impl Absences {
    /// A member is back after so long.
    pub(crate) fn came_back(&mut self, away_ns: u64, now: u64) {
        self.away.saturating_record(away_ns);
        self.returns.push(now);
    }

    /// A member that was away at least once has missed so many messages in all.
    pub(crate) fn missed(&mut self, messages: u64) {
        self.missed.saturating_record(messages);
    }

    pub(crate) fn add(&mut self, other: Self) {
        // All have the same bounds, so adding cannot fail.
        let _ = self.away.add(&other.away);
        let _ = self.missed.add(&other.missed);
        self.returns.extend(other.returns);
    }
}

/// Members that came back, in the report.
#[derive(Clone, Debug, Serialize)]
pub struct Comebacks {
    /// How often.
    pub count: u64,

    /// From the end of a connection to the next 101.
    pub away_ms: Times,

    /// Most of them within any one second.
    pub most_in_a_second: u64,

    /// Messages said in a member's room while it was away, over the members that were: most, median, and in all.
    pub missed_most: u64,

    /// See `missed_most`.
    pub missed_median: u64,

    /// See `missed_most`.
    pub missed_total: u64,
}

impl Comebacks {
    /// None when nobody came back.
    pub(crate) fn of(absences: &Absences) -> Option<Self> {
        if absences.returns.is_empty() {
            return None;
        }
        let missed = &absences.missed;
        Some(Self {
            count: absences.returns.len() as u64,
            away_ms: Times::of(&absences.away),
            most_in_a_second: most_in_a_second(absences.returns.clone()),
            missed_most: if missed.is_empty() { 0 } else { missed.max() },
            missed_median: missed.value_at_quantile(0.5),
            missed_total: missed
                .iter_recorded()
                .map(|bin| bin.value_iterated_to() * bin.count_since_last_iteration())
                .sum(),
        })
    }
}

impl fmt::Display for Comebacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, away_ms, most_in_a_second, missed_most, missed_median, missed_total } =
            self;
        write!(
            f,
            "{count} times, away p50 {:.0} p99 {:.0} max {:.0} ms, at most {most_in_a_second} in a second; each missed \
             {missed_median} (median) to {missed_most} messages, {missed_total} in all",
            away_ms.p50, away_ms.p99, away_ms.max
        )
    }
}

/// The fullest second, wherever it begins.
fn most_in_a_second(mut times: Vec<u64>) -> u64 {
    times.sort_unstable();
    let mut from = 0;
    let mut most = 0;
    for (index, time) in times.iter().enumerate() {
        while time - times[from] >= 1_000_000_000 {
            from += 1;
        }
        most = most.max(index + 1 - from);
    }
    most as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_second_may_begin_anywhere() {
        let at = |tenths: &[u64]| tenths.iter().map(|tenth| tenth * 100_000_000).collect();
        assert_eq!(most_in_a_second(at(&[])), 0);
        assert_eq!(most_in_a_second(at(&[5])), 1);
        assert_eq!(most_in_a_second(at(&[0, 7, 9, 16, 17, 40])), 3, "7 to 16");
        assert_eq!(most_in_a_second(at(&[0, 10, 20])), 1, "a second later is another second");
    }

    #[test]
    fn absences_are_added_up() {
        let mut all = Absences::default();
        assert!(Comebacks::of(&all).is_none());
        let mut other = Absences::default();
        other.came_back(2_000_000, 1);
        other.came_back(4_000_000, 2);
        other.missed(0);
        other.missed(6);
        all.add(other);
        let comebacks = Comebacks::of(&all).unwrap();
        assert_eq!((comebacks.count, comebacks.most_in_a_second), (2, 2));
        assert_eq!((comebacks.missed_most, comebacks.missed_total), (6, 6));
        assert!((comebacks.away_ms.max - 4.0).abs() < 0.1);
    }
}
