//! How many gateways a pool should have: a pure function of what was seen, over a clock that is passed in.
//!
//! Up at once. Down one gateway at a time, only after the load would have fitted into fewer gateways for a whole window, and
//! only while everything can be seen: who is blind holds. The window is over the load alone, so a lower `min` of a room
//! takes effect at once where the load has been low for long.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use hubbub_api::rules::MAX_GATEWAYS;

/// How long the load must have been lower before a gateway goes, unless the command line says otherwise.
pub const WINDOW: Duration = Duration::from_secs(300);

/// A load this little above a whole number of gateways is taken for rounding of floating point.
const ROUNDING: f64 = 1e-9;

/// What a pool looks like now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sight {
    /// Σ over the pool's rooms of connections ÷ connectionsPerGateway; none while reports are missing.
    pub load: Option<f64>,
    /// The fewest gateways that the pool may have.
    pub min: u32,
    /// The most; at least `min`.
    pub max: u32,
    /// Gateways asked for now; none if the pool is not there yet.
    pub current: Option<u32>,
    /// No gateway is leaving or surplus, so another may go.
    pub settled: bool,
    /// How long the load must have been lower before a gateway goes.
    pub window: Duration,
}

/// Remembers the load of a window.
#[derive(Debug, Clone, Default)]
pub struct Scaler {
    /// Since when the load has been seen without a gap.
    since: Option<Instant>,
    /// Gateways that the load needed, each higher than all after it: the first is the highest of the window.
    peaks: VecDeque<(Instant, u32)>,
}

impl Scaler {
    /// How many gateways to ask for. Called at least every few seconds, with a clock that never goes back.
    pub fn step(&mut self, now: Instant, sight: &Sight) -> u32 {
        let (min, max) = (sight.min, sight.max.max(sight.min));
        let Some(load) = sight.load else {
            self.since = None;
            self.peaks.clear();
            return sight.current.unwrap_or(min).max(min);
        };
        let needed = gateways_for(load);
        let peak = self.record(now, needed, sight.window);
        let wanted = needed.clamp(min, max);
        let Some(current) = sight.current else { return wanted };
        if wanted > current {
            return wanted;
        }
        let whole = self.since.is_some_and(|since| now.duration_since(since) >= sight.window);
        if whole && sight.settled && peak.clamp(min, max) < current { current - 1 } else { current }
    }

    fn record(&mut self, now: Instant, needed: u32, window: Duration) -> u32 {
        self.since.get_or_insert(now);
        while self.peaks.back().is_some_and(|(_, peak)| *peak <= needed) {
            self.peaks.pop_back();
        }
        self.peaks.push_back((now, needed));
        while self.peaks.front().is_some_and(|(at, _)| now.duration_since(*at) > window) {
            self.peaks.pop_front();
        }
        self.peaks.front().map_or(needed, |(_, peak)| *peak)
    }
}

/// The gateways that so much load needs, at most [`MAX_GATEWAYS`].
fn gateways_for(load: f64) -> u32 {
    let whole = (load - ROUNDING).ceil().clamp(0.0, f64::from(MAX_GATEWAYS));
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number between 0 and 500"
    )]
    let whole = whole as u32;
    whole
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICK: Duration = Duration::from_secs(2);

    /// A pool over simulated time, in which gateways leave a few ticks after they were asked to.
    struct Pool {
        scaler: Scaler,
        now: Instant,
        asked: u32,
        leaving: u32,
        min: u32,
        max: u32,
    }

    impl Pool {
        fn new(min: u32, max: u32) -> Self {
            let now = Instant::now();
            Self { scaler: Scaler::default(), now, asked: min, leaving: 0, min, max }
        }

        fn tick(&mut self, load: Option<f64>) -> u32 {
            self.now += TICK;
            self.leaving = self.leaving.saturating_sub(1);
            let sight = Sight {
                load,
                min: self.min,
                max: self.max,
                current: Some(self.asked),
                settled: self.leaving == 0,
                window: WINDOW,
            };
            let asked = self.scaler.step(self.now, &sight);
            if asked < self.asked {
                assert_eq!(asked, self.asked - 1, "one at a time");
                assert_eq!(self.leaving, 0, "not before the last one is gone");
                self.leaving = 15;
            }
            self.asked = asked;
            asked
        }

        fn ticks(&mut self, load: Option<f64>, time: Duration) -> u32 {
            for _ in 0..time.as_secs() / TICK.as_secs() {
                self.tick(load);
            }
            self.asked
        }
    }

    #[test]
    fn a_pool_that_is_not_there_begins_with_what_it_needs() {
        let mut scaler = Scaler::default();
        let sight = Sight {
            load: Some(3.2),
            min: 2,
            max: 10,
            current: None,
            settled: true,
            window: WINDOW,
        };
        assert_eq!(scaler.step(Instant::now(), &sight), 4);
        let blind = Sight { load: None, ..sight };
        assert_eq!(Scaler::default().step(Instant::now(), &blind), 2);
    }

    #[test]
    fn up_at_once_and_down_one_by_one_after_the_window() {
        let mut pool = Pool::new(2, 10);
        assert_eq!(pool.tick(Some(6.5)), 7);
        assert_eq!(pool.ticks(Some(2.5), WINDOW - TICK), 7, "the window is not over");
        pool.ticks(Some(2.5), TICK * 2);
        assert_eq!(pool.asked, 6);
        assert_eq!(pool.ticks(Some(2.5), TICK * 13), 6, "the first is still leaving");
        assert_eq!(pool.ticks(Some(2.5), Duration::from_secs(600)), 3);
    }

    #[test]
    fn whole_gateways_are_not_rounded_up() {
        for (load, gateways) in
            [(0.0, 0), (1.0, 1), (0.1 + 0.2 + 0.7, 1), (1.01, 2), (1e12, MAX_GATEWAYS)]
        {
            assert_eq!(gateways_for(load), gateways, "{load}");
        }
    }

    #[test]
    fn a_lower_min_takes_effect_where_the_load_has_been_low_for_long() {
        let mut pool = Pool::new(5, 10);
        pool.ticks(Some(0.5), WINDOW * 2);
        assert_eq!(pool.asked, 5);
        pool.min = 1;
        assert_eq!(pool.tick(Some(0.5)), 4);
        assert_eq!(pool.ticks(Some(0.5), Duration::from_secs(200)), 1);
    }

    #[test]
    fn who_was_blind_looks_for_a_whole_window_again() {
        let mut pool = Pool::new(2, 10);
        pool.tick(Some(5.0));
        pool.ticks(Some(1.0), WINDOW - TICK * 2);
        pool.tick(None);
        assert_eq!(pool.ticks(Some(1.0), WINDOW), 5);
        pool.ticks(Some(1.0), TICK * 2);
        assert_eq!(pool.asked, 4);
    }

    #[test]
    fn a_blind_pool_still_gets_its_min() {
        let mut pool = Pool::new(2, 10);
        pool.min = 4;
        assert_eq!(pool.tick(None), 4);
    }

    proptest! {
        #[test]
        fn never_outside_the_bounds_and_never_down_while_blind(
            (min, max) in (1_u32..10).prop_flat_map(|min| (Just(min), min..30)),
            loads in prop::collection::vec((prop::option::weighted(0.9, 0.0_f64..40.0), 1_u64..200), 1..40),
        ) {
            let mut pool = Pool::new(min, max);
            for (load, ticks) in loads {
                for _ in 0..ticks {
                    let before = pool.asked;
                    let asked = pool.tick(load);
                    prop_assert!((min..=max).contains(&asked));
                    prop_assert!(load.is_some() || asked >= before, "blind: hold");
                    prop_assert!(load.is_none_or(|load| asked >= gateways_for(load).clamp(min, max)), "up at once");
                }
            }
        }

        #[test]
        fn noise_around_a_level_never_flaps(level in 1.5_f64..20.0, noise in prop::collection::vec(-0.7_f64..0.7, 600)) {
            let mut pool = Pool::new(1, 50);
            // The noise comes back to its highest within each window, so the pool may grow but never shrinks.
            let mut last = pool.ticks(Some(level + 0.7), TICK);
            for (n, noise) in noise.into_iter().enumerate() {
                let asked = pool.tick(Some(if n % 100 == 0 { level + 0.7 } else { level + noise }));
                prop_assert!(asked >= last);
                last = asked;
            }
        }

        #[test]
        fn converges_to_what_a_steady_load_needs(start in 0.0_f64..30.0, level in 0.0_f64..30.0) {
            let mut pool = Pool::new(1, 20);
            pool.ticks(Some(start), Duration::from_secs(10));
            let asked = pool.ticks(Some(level), WINDOW + Duration::from_secs(40 * 20));
            prop_assert_eq!(asked, gateways_for(level).clamp(1, 20));
            prop_assert_eq!(pool.ticks(Some(level), WINDOW * 3), asked, "and stays there");
        }

        #[test]
        fn remembers_little(loads in prop::collection::vec(0.0_f64..1e6, 2000)) {
            let mut pool = Pool::new(1, 500);
            for load in loads {
                pool.tick(Some(load));
                prop_assert!(pool.scaler.peaks.len() <= 151);
            }
        }
    }
}
