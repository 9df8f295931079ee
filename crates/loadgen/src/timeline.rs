//! The measured window cut into slices: how latency and throughput went, not only what they were on the whole.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::tally::LONGEST_NS;

/// Most slices that a run is cut into; each has a histogram of 20 kB.
const MOST: u64 = 300;

/// Lengths of a slice, of which the first that suits is taken, in nanoseconds: a second, unless the run is very short or long.
const LENGTHS: [u64; 6] = [
    100_000_000,
    1_000_000_000,
    10_000_000_000,
    60_000_000_000,
    600_000_000_000,
    3_600_000_000_000,
];

/// Runs shorter than this are cut finer than by seconds.
const SHORT: Duration = Duration::from_secs(5);

/// One slice of the window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Slice {
    /// Where it begins, in seconds of the window.
    pub at_s: f64,

    /// Its length in seconds.
    pub length_s: f64,

    /// Messages that arrived at members in it, a second.
    pub deliveries_per_second: f64,

    /// Latency of the messages that were *due* in it, in milliseconds; `None` if none was.
    pub p50_ms: Option<f64>,

    /// See `p50_ms`.
    pub p99_ms: Option<f64>,

    /// See `p50_ms`.
    pub max_ms: Option<f64>,
}

/// The slices of a window, while they are counted.
#[derive(Debug)]
pub(crate) struct Timeline {
    length_ns: u64,
    window_ns: u64,
    slices: Vec<(u64, Option<Histogram<u64>>)>,
}

impl Timeline {
    pub(crate) fn new(window: Duration) -> Self {
        let window_ns = window.as_nanos() as u64;
        let short = window < SHORT;
        let suits =
            |length: &u64| window_ns.div_ceil(*length) <= MOST && (short || *length > LENGTHS[0]);
        let length_ns = LENGTHS.into_iter().find(suits).unwrap_or(window_ns.div_ceil(MOST));
        let count = window_ns.div_ceil(length_ns);
        Self { length_ns, window_ns, slices: (0..count).map(|_| (0, None)).collect() }
    }

    /// A message arrived so long after the window began.
    pub(crate) fn arrived(&mut self, since_ns: u64) {
        if let Some((count, _)) = self.slices.get_mut((since_ns / self.length_ns) as usize) {
            *count += 1;
        }
    }

    /// A message that was due so long after the window began took so long.
    #[expect(clippy::expect_used, reason = "the bounds are constants that the library accepts")]
    pub(crate) fn took(&mut self, due_ns: u64, latency_ns: u64) {
        if let Some((_, latency)) = self.slices.get_mut((due_ns / self.length_ns) as usize) {
            latency
                .get_or_insert_with(|| {
                    Histogram::new_with_bounds(1_000, LONGEST_NS, 2).expect("valid bounds")
                })
                .saturating_record(latency_ns);
        }
    }

    /// Adds what another worker counted of the same window.
    pub(crate) fn add(&mut self, other: Self) {
        if self.slices.is_empty() {
            *self = other;
            return;
        }
        for ((count, latency), (more, others)) in self.slices.iter_mut().zip(other.slices) {
            *count += more;
            match (latency, others) {
                // All have the same bounds, so adding cannot fail.
                (Some(latency), Some(others)) => drop(latency.add(others)),
                (latency @ None, others) => *latency = others,
                (Some(_), None) => {}
            }
        }
    }

    pub(crate) fn slices(&self) -> Vec<Slice> {
        let slice = |(index, (count, latency)): (usize, &(u64, Option<Histogram<u64>>))| {
            let at_ns = index as u64 * self.length_ns;
            let length_s = self.length_ns.min(self.window_ns - at_ns) as f64 / 1e9;
            let ms = |quantile| {
                latency.as_ref().map(|latency| latency.value_at_quantile(quantile) as f64 / 1e6)
            };
            Slice {
                at_s: at_ns as f64 / 1e9,
                length_s,
                deliveries_per_second: *count as f64 / length_s,
                p50_ms: ms(0.5),
                p99_ms: ms(0.99),
                max_ms: ms(1.0),
            }
        };
        self.slices.iter().enumerate().map(slice).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_slices_of_a_second_unless_it_is_very_short_or_long() {
        for (window, slices, length_s) in
            [(300, 3, 0.1), (10_000, 10, 1.0), (300_000, 300, 1.0), (3_600_000, 60, 60.0)]
        {
            let cut = Timeline::new(Duration::from_millis(window)).slices();
            assert_eq!((cut.len(), cut[0].length_s), (slices, length_s));
        }
        let cut = Timeline::new(Duration::from_millis(5_500)).slices();
        assert_eq!((cut[5].at_s, cut[5].length_s), (5.0, 0.5), "the last one is what is left");
        let weeks = Timeline::new(Duration::from_secs(86_400 * 30)).slices();
        assert!(weeks.len() <= MOST as usize);
    }

    #[test]
    fn latency_counts_by_due_time_and_throughput_by_arrival() {
        let mut timeline = Timeline::new(Duration::from_secs(5));
        let mut other = Timeline::new(Duration::from_secs(5));
        for (due, latency) in [(0, 1_000_000), (1_999_999_999, 3_000_000)] {
            timeline.took(due, latency);
            timeline.arrived(due + latency);
        }
        other.took(0, 2_000_000);
        other.took(9_000_000_000, 1); // not of the window
        other.arrived(9_000_000_000);
        let mut sum = Timeline::new(Duration::ZERO);
        sum.add(timeline);
        sum.add(other);
        let slices = sum.slices();
        let rates: Vec<_> = slices.iter().map(|slice| slice.deliveries_per_second).collect();
        assert_eq!(rates, [1.0, 0.0, 1.0, 0.0, 0.0], "the second came in the third");
        assert!((slices[0].max_ms.unwrap() - 2.0).abs() < 0.02);
        assert!((slices[1].p50_ms.unwrap() - 3.0).abs() < 0.03);
        assert_eq!(slices[2].p50_ms, None);
    }
}
