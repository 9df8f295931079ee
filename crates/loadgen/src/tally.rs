//! What one worker counts. Workers count alone and are added up at the end.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

use crate::{comebacks::Absences, timeline::Timeline, verify::Faults};

/// Longest time a histogram tells apart, in nanoseconds: two minutes.
pub(crate) const LONGEST_NS: u64 = 120_000_000_000;

/// A connection that the server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    /// When, in nanoseconds of the run's clock.
    pub at_ns: u64,

    /// The close code; 1005 for a close without one, 1006 for an end without a close.
    pub code: u16,

    /// Whether it was a member that did not read on purpose.
    pub slow: bool,
}

/// The counts of a worker, or of all.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names say it; what needs a word has one")]
pub(crate) struct Tally {
    pub faults: Faults,
    /// Messages of another run or of somebody else: not ours to judge.
    pub foreign: u64,
    /// Members that sent what RFC 6455 forbids, by the codec's name of the fault.
    pub violations: BTreeMap<&'static str, u64>,
    pub connects: u64,
    /// Handshakes and connections that failed, by reason.
    pub failures: BTreeMap<String, u64>,
    /// From the connect call to the 101, in nanoseconds.
    pub handshakes: Histogram<u64>,
    pub joins: u64,
    pub leaves: u64,
    pub reconnects: u64,
    pub absences: Absences,
    pub closes: Vec<Closed>,
    /// Members thrown out against expectation.
    pub thrown_out: u64,
    pub sent: u64,
    pub sent_in_window: u64,
    /// Messages due but not sent, because their publisher was away.
    pub unsent_away: u64,
    /// Messages due but not sent, because the server did not read its publisher's connection.
    pub unsent_held_back: u64,
    pub delivered: u64,
    pub delivered_in_window: u64,
    pub pings: u64,
    pub pings_in_window: u64,
    /// From due time to arrival, of messages due in the window, in nanoseconds.
    pub latency: Histogram<u64>,
    /// How both went over the window.
    pub timeline: Timeline,
    /// From due time to the write, of the same messages: the generator's own share of it.
    pub lateness: Histogram<u64>,
}

impl Tally {
    /// Nothing yet, of a window of such a length.
    pub(crate) fn new(window: Duration) -> Self {
        Self {
            faults: Faults::default(),
            foreign: 0,
            violations: BTreeMap::new(),
            connects: 0,
            failures: BTreeMap::new(),
            handshakes: histogram(),
            joins: 0,
            leaves: 0,
            reconnects: 0,
            absences: Absences::default(),
            closes: Vec::new(),
            thrown_out: 0,
            sent: 0,
            sent_in_window: 0,
            unsent_away: 0,
            unsent_held_back: 0,
            delivered: 0,
            delivered_in_window: 0,
            pings: 0,
            pings_in_window: 0,
            latency: histogram(),
            timeline: Timeline::new(window),
            lateness: histogram(),
        }
    }
}

/// A histogram of nanoseconds from a microsecond to two minutes, exact to a tenth of a percent.
#[expect(clippy::expect_used, reason = "the bounds are constants that the library accepts")]
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, LONGEST_NS, 3).expect("valid bounds")
}

impl Tally {
    /// Adds what another worker counted.
    pub(crate) fn add(&mut self, other: Self) {
        self.faults += other.faults;
        self.foreign += other.foreign;
        for (fault, count) in other.violations {
            *self.violations.entry(fault).or_default() += count;
        }
        self.connects += other.connects;
        for (reason, count) in other.failures {
            *self.failures.entry(reason).or_default() += count;
        }
        self.joins += other.joins;
        self.leaves += other.leaves;
        self.reconnects += other.reconnects;
        self.absences.add(other.absences);
        self.closes.extend(other.closes);
        self.thrown_out += other.thrown_out;
        self.sent += other.sent;
        self.sent_in_window += other.sent_in_window;
        self.unsent_away += other.unsent_away;
        self.unsent_held_back += other.unsent_held_back;
        self.delivered += other.delivered;
        self.delivered_in_window += other.delivered_in_window;
        self.pings += other.pings;
        self.pings_in_window += other.pings_in_window;
        self.timeline.add(other.timeline);
        // All have the same bounds, so adding cannot fail.
        let _ = self.handshakes.add(&other.handshakes);
        let _ = self.latency.add(&other.latency);
        let _ = self.lateness.add(&other.lateness);
    }

    /// Notes one failed attempt to connect.
    pub(crate) fn failure(&mut self, reason: String) {
        *self.failures.entry(reason).or_default() += 1;
    }
}
