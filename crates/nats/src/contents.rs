//! Whether a stream still holds what it held.

use nats::{
    datetime::DateTime,
    jetstream::stream::{Info, State},
};

/// The beginning of what a stream held when it was looked at.
///
/// A replicated stream whose servers are started one after the other without what they stored comes back under its name, with
/// the time at which it was made, and empty. What is written then counts from 1 again, so neither name nor time nor the
/// last revision tells that everything before is lost. The oldest message does: it only ever gives way to a later one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    created: DateTime,
    first: u64,
    first_at: DateTime,
    last: u64,
}

impl Contents {
    /// What the stream holds by that answer.
    #[must_use]
    pub fn of(info: &Info) -> Self {
        let State { first_sequence: first, first_timestamp: first_at, last_sequence: last, .. } =
            info.state;
        Self { created: info.created, first, first_at, last }
    }

    /// Whether a later answer tells of the same stream with everything that was not deleted or replaced since.
    #[must_use]
    pub fn is_continued_by(&self, later: &Self) -> bool {
        if self.created != later.created {
            return false;
        }
        // What was empty had nothing to lose.
        let same_first = self.first == later.first && self.first_at == later.first_at;
        self.last == 0 || (self.last <= later.last && (same_first || self.first < later.first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(created: i64, first: u64, first_at: i64, last: u64) -> Contents {
        let at = |seconds| DateTime::from_unix_timestamp(seconds).expect("a time");
        Contents { created: at(created), first, first_at: at(first_at), last }
    }

    #[test]
    fn a_stream_that_begins_again_is_not_the_same() {
        let known = contents(1, 1, 10, 3);
        assert!(known.is_continued_by(&known));
        assert!(known.is_continued_by(&contents(1, 1, 10, 9)), "more was written");
        assert!(known.is_continued_by(&contents(1, 2, 11, 4)), "the oldest was replaced");
        assert!(known.is_continued_by(&contents(1, 4, 0, 3)), "purged: the count goes on");
        assert!(!known.is_continued_by(&contents(2, 1, 10, 3)), "made anew");
        assert!(!known.is_continued_by(&contents(1, 0, 0, 0)), "emptied");
        assert!(!known.is_continued_by(&contents(1, 1, 20, 1)), "and something written");
        assert!(!known.is_continued_by(&contents(1, 1, 20, 3)), "and as much as before");
        assert!(!known.is_continued_by(&contents(1, 1, 20, 7)), "and more than before");
        assert!(!contents(1, 3, 12, 5).is_continued_by(&contents(1, 2, 30, 9)));
        assert!(contents(1, 0, 0, 0).is_continued_by(&contents(1, 1, 10, 2)), "the first fill");
    }
}
