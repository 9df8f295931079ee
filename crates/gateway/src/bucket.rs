//! A token bucket of 16 bytes, fed with its owner's clock.

/// Tokens are counted in thousandths, so that a rate of one a second still adds one each millisecond.
const UNIT: u64 = 1000;

/// See the module. A fresh bucket is full.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    /// Thousandths of a token.
    tokens: u64,
    /// When it was last filled up, in milliseconds.
    filled: u64,
}

impl Bucket {
    pub(crate) fn full(burst: u32, now: u64) -> Self {
        Self { tokens: u64::from(burst) * UNIT, filled: now }
    }

    /// Takes one token. Never refuses: a bucket may be empty, not below; look at [`Bucket::wait`] afterwards.
    pub(crate) fn take(&mut self, per_second: u32, burst: u32, now: u64) {
        self.fill(per_second, burst, now);
        self.tokens = self.tokens.saturating_sub(UNIT);
    }

    /// Takes one token if there is one; says whether there was.
    pub(crate) fn try_take(&mut self, per_second: u32, burst: u32, now: u64) -> bool {
        self.fill(per_second, burst, now);
        let there = self.tokens >= UNIT;
        if there {
            self.tokens -= UNIT;
        }
        there
    }

    /// Milliseconds until a whole token is there.
    pub(crate) fn wait(&self, per_second: u32) -> u64 {
        UNIT.saturating_sub(self.tokens).div_ceil(u64::from(per_second.max(1)))
    }

    /// Whether nothing has been taken that time has not given back.
    pub(crate) fn is_full(&mut self, per_second: u32, burst: u32, now: u64) -> bool {
        self.fill(per_second, burst, now);
        self.tokens == u64::from(burst) * UNIT
    }

    fn fill(&mut self, per_second: u32, burst: u32, now: u64) {
        let added = (now - self.filled.min(now)).saturating_mul(u64::from(per_second));
        self.tokens = self.tokens.saturating_add(added).min(u64::from(burst) * UNIT);
        self.filled = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let mut bucket = Bucket::full(40, 0);
        for taken in 1..=40 {
            assert_eq!(bucket.wait(20), 0, "token {taken} is there");
            bucket.take(20, 40, 0);
        }
        assert_eq!(bucket.wait(20), 50, "one token each 50 ms at 20 a second");
        bucket.take(20, 40, 50);
        assert_eq!(bucket.wait(20), 50);
    }

    #[test]
    fn it_is_full_again_after_a_while() {
        let mut bucket = Bucket::full(10, 0);
        assert!(bucket.is_full(5, 10, 0));
        for _ in 0..10 {
            assert!(bucket.try_take(5, 10, 0));
        }
        assert!(!bucket.try_take(5, 10, 0));
        assert!(!bucket.is_full(5, 10, 1_999));
        assert!(bucket.is_full(5, 10, 2_000));
    }

    #[test]
    fn over_a_long_time_exactly_the_rate_passes() {
        let (mut bucket, mut now, mut passed) = (Bucket::full(1, 0), 0, 0);
        while now < 10_000 {
            bucket.take(7, 1, now);
            passed += 1;
            now += bucket.wait(7).max(1);
        }
        assert!((69..=71).contains(&passed), "{passed} in ten seconds at 7 a second");
    }
}
