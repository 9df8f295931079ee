//! Memory: how much of what this gateway may have is in use, and what follows from that, so that the kernel never ends it.
//!
//! From 85 % on newcomers are refused and the gateway says that it is not ready, until 80 % are reached again. From 92 % on
//! members are sent away while more and more is used: those first for whom most waits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{engine::Engine, events::MemoryEvents};

mod meter;

use meter::Meter;

/// Percent of the limit in use, from which newcomers are refused.
const REFUSE: u64 = 85;

/// Below so many percent they are let in again.
const RELIEVED: u64 = 80;

/// From so many percent on members are sent away...
const SHED: u64 = 92;

/// ...and as many of them as free what is above this.
const SHED_TO: u64 = 88;

/// Up to so many percent members' messages are taken in between two looks; whose message is begun then waits.
const KEEP: u64 = 94;

/// After members were sent away, no others are until so great a part of the limit more is in use: a hundredth.
const GROWTH: u64 = 100;

/// How often memory is looked at while there is enough.
const LOOK: Duration = Duration::from_millis(250);

/// From so many percent on it is looked at more often...
const WATCH: u64 = 60;

/// ...that is so often. A gateway that is told to take in a gigabit a second takes in 3 MB in this time; a look takes a tenth of a millisecond.
const CLOSE_LOOK: Duration = Duration::from_millis(25);

/// How full the memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// Bytes in use, when last looked at.
    pub used: u64,
    /// Bytes that may be used.
    pub limit: u64,
}

impl Fill {
    fn is_at_least(self, percent: u64) -> bool {
        u128::from(self.used) * 100 >= u128::from(self.limit) * u128::from(percent)
    }

    /// Bytes that are left up to so many percent.
    fn below(self, percent: u64) -> u64 {
        let bound = u128::from(self.limit) * u128::from(percent) / 100;
        u64::try_from(bound).unwrap_or(u64::MAX).saturating_sub(self.used)
    }

    /// Bytes above so many percent.
    fn above(self, percent: u64) -> u64 {
        let bound = u128::from(self.limit) * u128::from(percent) / 100;
        self.used.saturating_sub(u64::try_from(bound).unwrap_or(u64::MAX))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Memory {
    /// None where there is no limit.
    meter: Option<Meter>,
    used: AtomicU64,
    short: AtomicBool,
}

impl Memory {
    /// The memory of this process: so many bytes, or what its control group may use.
    #[must_use]
    pub fn new(limit: Option<u64>) -> Self {
        let meter = match limit {
            Some(limit) => Some(Meter::of_process(limit)),
            None => Meter::of_control_group(),
        };
        Self { meter, used: AtomicU64::new(0), short: AtomicBool::new(false) }
    }

    /// How full it is; none where there is no limit.
    #[must_use]
    pub fn fill(&self) -> Option<Fill> {
        let meter = self.meter.as_ref()?;
        Some(Fill { used: self.used.load(Ordering::Relaxed), limit: meter.limit() })
    }

    /// Whether so much is in use that nobody may come in.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.short.load(Ordering::Acquire)
    }

    /// Looks until `stop`, and sends members away when it has to.
    pub async fn watch(
        self: Arc<Self>,
        engine: Arc<Engine>,
        events: MemoryEvents,
        stop: CancellationToken,
    ) {
        let Some(meter) = &self.meter else { return };
        events.limited(meter.limit());
        // Nobody else is sent away before so much is in use.
        let mut again_from = 0;
        let mut next = Duration::ZERO;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(next) => {}
            }
            let used = match meter.used() {
                Ok(used) => used,
                // What cannot be read keeps nobody out.
                Err(error) => {
                    events.unreadable(&error);
                    self.short.store(false, Ordering::Release);
                    engine.allow(u64::MAX);
                    return;
                }
            };
            self.used.store(used, Ordering::Relaxed);
            let fill = Fill { used, limit: meter.limit() };
            events.looked(fill);
            engine.allow(fill.below(KEEP));
            let held_back = engine.has_held_back();
            next = if fill.is_at_least(WATCH) { CLOSE_LOOK } else { LOOK };
            let short = fill.is_at_least(if self.is_short() { RELIEVED } else { REFUSE });
            if short != self.short.swap(short, Ordering::AcqRel) {
                events.turned(short, fill);
            }
            // The allocator keeps what is freed for what comes, so that less is used shows late or never: only growth counts, and
            // that somebody cannot go on.
            if !fill.is_at_least(SHED) {
                again_from = 0;
            } else if used >= again_from || held_back {
                again_from = used + meter.limit() / GROWTH;
                events.shedding(fill);
                engine.shed(fill.above(SHED_TO)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_are_of_the_limit() {
        let fill = Fill { used: 85, limit: 100 };
        assert!(fill.is_at_least(REFUSE));
        assert!(!fill.is_at_least(SHED));
        assert_eq!(fill.above(80), 5);
        assert_eq!(fill.above(90), 0);
        assert_eq!((fill.below(97), fill.below(85), fill.below(80)), (12, 0, 0));
        let huge = Fill { used: u64::MAX, limit: u64::MAX };
        assert!(huge.is_at_least(100));
    }
}
