//! When a server closed its members: for drains, which should be spread evenly.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::tally::Closed;

/// Slices that the time from the first to the last close is cut into.
const SLICES: usize = 20;

/// The closes of one code over time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// How many.
    pub count: u64,

    /// The first and the last, in seconds since the run began.
    pub first_s: f64,

    /// See `first_s`.
    pub last_s: f64,

    /// How many in each twentieth of the time between them.
    pub slices: Vec<u64>,

    /// The largest distance between the share of members closed and the share of time gone by:
    /// 0 is perfectly even, 1 is all at once.
    pub unevenness: f64,
}

/// The closes by code.
pub(crate) fn spreads(closes: &[Closed]) -> BTreeMap<u16, Spread> {
    let mut times: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    for closed in closes {
        times.entry(closed.code).or_default().push(closed.at_ns);
    }
    times.into_iter().filter_map(|(code, times)| Some((code, spread(times)?))).collect()
}

fn spread(mut times: Vec<u64>) -> Option<Spread> {
    times.sort_unstable();
    let (first, last) = (*times.first()?, *times.last()?);
    let count = times.len();
    let mut slices = vec![0; SLICES];
    let mut unevenness = 0.0_f64;
    for (index, time) in times.iter().enumerate() {
        let gone_by = (time - first) as f64 / (last - first).max(1) as f64;
        slices[((gone_by * SLICES as f64) as usize).min(SLICES - 1)] += 1;
        for closed in [index, index + 1] {
            unevenness = unevenness.max((closed as f64 / count as f64 - gone_by).abs());
        }
    }
    Some(Spread {
        count: count as u64,
        first_s: first as f64 / 1e9,
        last_s: last as f64 / 1e9,
        slices,
        unevenness,
    })
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, first_s, last_s, unevenness, .. } = self;
        write!(f, "{count} within {:.2} s", last_s - first_s)?;
        write!(f, " (from {first_s:.2} s on, {:.1} % off an even spread)", unevenness * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(code: u16, at_ns: u64) -> Closed {
        Closed { at_ns, code, slow: false }
    }

    #[test]
    fn an_even_drain_and_a_sudden_end() {
        let mut closes: Vec<_> = (0..=1_000).map(|i| closed(1012, i * 1_000_000)).collect();
        closes.extend((0..3).map(|_| closed(1006, 5)));
        let spreads = spreads(&closes);
        let even = &spreads[&1012];
        assert_eq!((even.count, even.last_s), (1_001, 1.0));
        assert!(even.unevenness < 0.002, "{}", even.unevenness);
        assert!(even.slices.iter().all(|&count| (50..=51).contains(&count)), "{:?}", even.slices);
        assert_eq!(spreads[&1006].unevenness, 1.0);
        assert_eq!(spreads[&1006].slices[0], 3);
    }

    #[test]
    fn half_at_the_start_is_half_off() {
        let closes: Vec<_> =
            (0..100).map(|i| closed(1012, if i < 50 { 0 } else { (i - 50) * 1_000 })).collect();
        let unevenness = spreads(&closes)[&1012].unevenness;
        assert!((0.49..0.52).contains(&unevenness), "{unevenness}");
        assert!(spreads(&[]).is_empty());
    }
}
