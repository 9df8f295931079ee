//! How fast a room may talk: one pace for all of its members, over all gateways.
//!
//! One number says until when the messages so far last at the room's rate (the generic cell rate algorithm). A member's
//! message takes its part of that time before it goes to the bus; a message of another gateway takes it when it is
//! heard here. So every gateway counts all messages, and none has to be asked.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// A room that was quiet may say at once what it may say in this time.
const BURST: u64 = 1_000_000_000;

/// So far ahead are turns given: what a member waits for at most, and what is lost of the room's time when members who have
/// a turn leave before it.
const AHEAD: u64 = 5_000_000_000;

/// For so long a room rests at most after other gateways, all at once, have said more than it may.
const LONGEST_REST: u64 = 10_000_000_000;

/// When a message may be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Now.
    Now,
    /// After so long; that turn is its own.
    After(Duration),
    /// So much waits for its turn that it has to ask again, after about so long.
    AskAgain(Duration),
}

/// See the module. Times are nanoseconds since it was made.
#[derive(Debug)]
pub struct Pace {
    begun: Instant,
    /// The time that one message takes; 0 if there is no limit.
    interval: AtomicU64,
    /// Until when the messages so far last.
    until: AtomicU64,
    /// Messages that were given a turn here and have not come back from the bus.
    unheard: AtomicU32,
}

impl Pace {
    /// The pace of a room that may say so many messages a second; none for no limit.
    #[must_use]
    pub fn new(per_second: Option<u32>) -> Self {
        let pace = Self {
            begun: Instant::now(),
            interval: AtomicU64::new(0),
            until: AtomicU64::new(0),
            unheard: AtomicU32::new(0),
        };
        pace.set(per_second);
        pace
    }

    /// Changes the limit for what comes from now on.
    pub fn set(&self, per_second: Option<u32>) {
        let interval = per_second.map_or(0, |rate| BURST / u64::from(rate.max(1)));
        self.interval.store(interval, Ordering::Relaxed);
    }

    /// Whether there is a limit.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.interval.load(Ordering::Relaxed) > 0
    }

    /// The turn of a message that a member wants to say.
    #[must_use]
    pub fn turn(&self, now: Instant) -> Turn {
        let interval = self.interval.load(Ordering::Relaxed);
        if interval == 0 {
            return Turn::Now;
        }
        let now = self.nanoseconds(now);
        // The room's time is behind by a burst while it is quiet.
        let at_once = BURST - interval;
        let taken = self.until.fetch_update(Ordering::AcqRel, Ordering::Acquire, |until| {
            let begins = until.max(now);
            (begins - now <= at_once + AHEAD).then_some(begins + interval)
        });
        let Ok(until) = taken else { return Turn::AskAgain(Duration::from_nanos(AHEAD)) };
        if until <= now {
            // Nobody has said anything for a while, so what has not come back will not.
            self.unheard.store(1, Ordering::Release);
        } else {
            self.unheard.fetch_add(1, Ordering::AcqRel);
        }
        match until.saturating_sub(now).saturating_sub(at_once) {
            0 => Turn::Now,
            wait => Turn::After(Duration::from_nanos(wait)),
        }
    }

    /// A message of the room came from the bus: from another gateway, if it is none that had its turn here.
    pub fn heard(&self, now: Instant) {
        let interval = self.interval.load(Ordering::Relaxed);
        if interval == 0 {
            return;
        }
        let own = self
            .unheard
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |unheard| unheard.checked_sub(1));
        if own.is_err() {
            let now = self.nanoseconds(now);
            let _ = self.until.fetch_update(Ordering::AcqRel, Ordering::Acquire, |until| {
                Some((until.max(now) + interval).min(now + LONGEST_REST))
            });
        }
    }

    fn nanoseconds(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.begun);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pace: &Pace, milliseconds: u64) -> Instant {
        pace.begun + Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let pace = Pace::new(Some(10));
        let now = after(&pace, 5_000);
        for _ in 0..10 {
            assert_eq!(pace.turn(now), Turn::Now);
        }
        for turn in 1..=50 {
            assert_eq!(pace.turn(now), Turn::After(Duration::from_millis(100 * turn)));
        }
        assert!(matches!(pace.turn(now), Turn::AskAgain(_)), "nobody waits for ever longer");
        // Asking for a turn that is not given takes nothing.
        assert_eq!(pace.turn(after(&pace, 5_100)), Turn::After(Duration::from_secs(5)));
        assert_eq!(pace.turn(after(&pace, 60_000)), Turn::Now);
    }

    #[test]
    fn one_a_second_is_one_at_once() {
        let pace = Pace::new(Some(1));
        let now = after(&pace, 2_000);
        assert_eq!(pace.turn(now), Turn::Now);
        assert_eq!(pace.turn(now), Turn::After(Duration::from_secs(1)));
    }

    #[test]
    fn messages_of_other_gateways_count_and_own_ones_count_once() {
        let pace = Pace::new(Some(10));
        let now = after(&pace, 5_000);
        for _ in 0..5 {
            assert_eq!(pace.turn(now), Turn::Now);
        }
        for _ in 0..10 {
            pace.heard(now); // five own ones, five of others
        }
        assert_eq!(pace.turn(now), Turn::After(Duration::from_millis(100)));
    }

    #[test]
    fn what_was_lost_is_not_waited_for() {
        let pace = Pace::new(Some(10));
        for _ in 0..10 {
            assert_eq!(pace.turn(after(&pace, 5_000)), Turn::Now);
        }
        let now = after(&pace, 60_000);
        assert_eq!(pace.turn(now), Turn::Now);
        for _ in 0..10 {
            pace.heard(now); // its own, and nine of others
        }
        assert_eq!(pace.turn(now), Turn::After(Duration::from_millis(100)));
    }

    #[test]
    fn others_that_say_too_much_do_not_silence_a_room_for_good() {
        let pace = Pace::new(Some(10));
        let now = after(&pace, 5_000);
        for _ in 0..100_000 {
            pace.heard(now);
        }
        assert!(matches!(pace.turn(now), Turn::AskAgain(_)));
        assert!(matches!(pace.turn(after(&pace, 15_000)), Turn::Now));
    }

    #[test]
    fn a_limit_can_come_and_go() {
        let pace = Pace::new(None);
        let now = after(&pace, 5_000);
        for _ in 0..1000 {
            assert_eq!(pace.turn(now), Turn::Now);
            pace.heard(now);
        }
        pace.set(Some(1));
        assert_eq!(pace.turn(now), Turn::Now);
        assert!(matches!(pace.turn(now), Turn::After(_)));
        pace.set(None);
        assert_eq!(pace.turn(now), Turn::Now);
    }
}
