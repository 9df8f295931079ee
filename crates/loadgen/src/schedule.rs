//! When each message is due: an open loop, which never waits for the server.
//!
//! A slow server thus cannot slow down the load that shows how slow it is: latency is counted from
//! the due time, and a message sent late, for whatever reason, is late in the figures as well
//! (the correction for "coordinated omission").

/// The due times of one room's messages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    interval_ns: f64,
    offset_ns: f64,
}

impl Schedule {
    /// `rate` messages a second (above 0) in room `room` of `rooms`.
    ///
    /// The rooms' beats are shifted evenly against each other, so that many rooms are a steady load
    /// instead of one burst an interval.
    pub fn new(rate: f64, room: usize, rooms: usize) -> Self {
        let interval_ns = 1e9 / rate;
        Self { interval_ns, offset_ns: interval_ns * room as f64 / rooms.max(1) as f64 }
    }

    /// Nanoseconds from the start until message `index` (from 0) is due.
    ///
    /// Computed from the index each time, never by adding intervals: rounding does not add up.
    pub fn due_ns(&self, index: u64) -> u64 {
        (self.offset_ns + self.interval_ns * index as f64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_without_drift() {
        let schedule = Schedule::new(3.0, 0, 1);
        assert_eq!(schedule.due_ns(0), 0);
        assert_eq!(schedule.due_ns(1), 333_333_333);
        assert_eq!(schedule.due_ns(3 * 86_400), 86_400_000_000_000, "exact after a day");
        assert_eq!(Schedule::new(0.5, 0, 1).due_ns(1), 2_000_000_000);
    }

    #[test]
    fn rooms_share_an_interval() {
        let due: Vec<_> = (0..4).map(|room| Schedule::new(10.0, room, 4).due_ns(1)).collect();
        assert_eq!(due, [100_000_000, 125_000_000, 150_000_000, 175_000_000]);
    }
}
