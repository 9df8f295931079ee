//! A hashed timer wheel: one a shard, one live entry a member.
//!
//! Times are milliseconds of the shard's clock. An entry fires at or up to one tick after its time, never before.
//! Entries are not removed: whoever is called looks whether the call still concerns him, by the time it was for.

/// Milliseconds a slot covers. Heartbeats and deadlines are whole seconds, a throttled sender waits a few tens of
/// milliseconds: 16 ms is fine enough for both and a wheel of 1,024 slots then spans 16 s.
const TICK: u64 = 16;
const SLOTS: usize = 1024;

/// One timer: whom it wakes, and the time it was set for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: u32,
    pub(super) generation: u32,
    pub(super) at: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Wheel {
    slots: Vec<Vec<Entry>>,
    /// The next tick to be looked at.
    tick: u64,
    entries: usize,
}

impl Wheel {
    pub(super) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), tick: 0, entries: 0 }
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        let tick = entry.at.div_ceil(TICK).max(self.tick);
        self.slot(tick).push(entry);
        self.entries += 1;
    }

    /// Moves what is due at `now` to `due`.
    pub(super) fn advance(&mut self, now: u64, due: &mut Vec<Entry>) {
        let last = now / TICK;
        if last < self.tick {
            return;
        }
        // After a long pause each slot needs one look only.
        let from = self.tick.max((last + 1).saturating_sub(SLOTS as u64));
        for tick in from..=last {
            let before = due.len();
            self.slot(tick).retain(|entry| {
                let later = entry.at > now;
                if !later {
                    due.push(*entry);
                }
                later
            });
            self.entries -= due.len() - before;
        }
        self.tick = last + 1;
    }

    /// Milliseconds from `now` until something may be due; `None` when no timer is set.
    pub(super) fn wait(&self, now: u64) -> Option<u64> {
        if self.entries == 0 {
            return None;
        }
        let ahead = (0..SLOTS as u64)
            .find(|ahead| !self.slots[((self.tick + ahead) % SLOTS as u64) as usize].is_empty())
            .unwrap_or(0);
        Some(((self.tick + ahead) * TICK).saturating_sub(now))
    }

    fn slot(&mut self, tick: u64) -> &mut Vec<Entry> {
        &mut self.slots[(tick % SLOTS as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(key: u32, at: u64) -> Entry {
        Entry { key, generation: 0, at }
    }

    #[test]
    fn an_empty_wheel_never_wakes_anybody() {
        let mut wheel = Wheel::new();
        assert_eq!(wheel.wait(0), None);
        let mut due = Vec::new();
        wheel.advance(100_000, &mut due);
        assert!(due.is_empty());
    }

    #[test]
    fn a_timer_beyond_the_horizon_fires_at_its_time_only() {
        let mut wheel = Wheel::new();
        let at = 3 * TICK * SLOTS as u64 + 5;
        wheel.insert(entry(1, at));
        let mut due = Vec::new();
        for now in (0..at).step_by(1000) {
            wheel.advance(now, &mut due);
            assert!(due.is_empty(), "fired at {now}, set for {at}");
        }
        wheel.advance(at + TICK, &mut due);
        assert_eq!(due, [entry(1, at)]);
        assert_eq!(wheel.wait(at + TICK), None);
    }

    proptest! {
        /// Waiting as long as told, over and over, fires every timer: none early, none more than two ticks late.
        #[test]
        fn every_timer_fires_in_its_time(times in prop::collection::vec(0u64..60_000, 1..50)) {
            let mut wheel = Wheel::new();
            for (key, at) in times.iter().enumerate() {
                wheel.insert(entry(key as u32, *at));
            }
            let (mut now, mut fired) = (0, 0);
            while let Some(wait) = wheel.wait(now) {
                now += wait.max(1);
                let mut due = Vec::new();
                wheel.advance(now, &mut due);
                for entry in due {
                    prop_assert!(entry.at <= now);
                    prop_assert!(now - entry.at <= 2 * TICK, "set for {}, fired at {now}", entry.at);
                    fired += 1;
                }
            }
            prop_assert_eq!(fired, times.len());
        }
    }
}
