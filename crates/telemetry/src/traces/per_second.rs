//! So many in a second, and no more.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// See the module.
#[derive(Debug)]
pub(super) struct PerSecond {
    most: u32,
    /// When the second began, and how many there were in it.
    second: Mutex<Option<(Instant, u32)>>,
}

impl PerSecond {
    pub(super) fn new(most: u32) -> Self {
        Self { most, second: Mutex::default() }
    }

    /// Whether one more at this time is within the limit; if so, it counts.
    pub(super) fn allows(&self, now: Instant) -> bool {
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        let (begun, count) = match *second {
            Some((begun, count)) if now.duration_since(begun) < Duration::from_secs(1) => {
                (begun, count)
            }
            _ => (now, 0),
        };
        if count >= self.most {
            return false;
        }
        *second = Some((begun, count + 1));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_and_the_next_has_as_many_again() {
        let (limit, now) = (PerSecond::new(3), Instant::now());
        let allowed = |at: Instant| (0..10).filter(|_| limit.allows(at)).count();
        assert_eq!(allowed(now), 3);
        assert_eq!(allowed(now + Duration::from_millis(999)), 0);
        assert_eq!(allowed(now + Duration::from_secs(1)), 3);
        assert_eq!(allowed(now + Duration::from_secs(60)), 3);
        // Threads take the time before they come here, in any order.
        assert!(!limit.allows(now));
    }
}
