//! Keeps what may happen thousands of times a second from filling the log: the first is told, then one in a while,
//! with the number of those that were not.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// One line of this kind is enough in this time.
const PERIOD: Duration = Duration::from_secs(10);

/// Lets one happening in a period through.
#[derive(Debug, Default)]
pub struct LogLimit {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    told: Option<Instant>,
    untold: u64,
}

impl LogLimit {
    /// Counts `happenings` of one kind. If they may be told now: how many there were since the last time.
    pub fn allow(&self, happenings: u64) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.untold += happenings;
        if state.told.is_some_and(|told| now.duration_since(told) < PERIOD) {
            return None;
        }
        state.told = Some(now);
        Some(std::mem::take(&mut state.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_the_rest_is_counted() {
        let limit = LogLimit::default();
        assert_eq!(limit.allow(1), Some(1));
        assert_eq!(limit.allow(2), None);
        assert_eq!(limit.allow(3), None);
        limit.state.lock().unwrap().told = Instant::now().checked_sub(PERIOD);
        assert_eq!(limit.allow(4), Some(9), "those not told are counted with the next that is");
    }
}
