//! What comes back in the very answer to the write that takes it away. Pure.
//!
//! Something in the way of every write, such as an admission webhook, cannot be argued with: an addition that has come back so
//! several times in a row is left, and only that one. It is looked at again now and then, because who adds it may have gone.

use std::time::{Duration, Instant};

use super::ownership::Additions;

/// An addition that came back so many times in a row was not put there by hand.
const STUBBORN: u32 = 3;

/// How long an addition is left before it is taken away once more, to see whether it still comes back.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// An addition that came back.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Insistence {
    additions: Additions,
    /// Times in a row.
    count: u32,
    last: Instant,
}

impl Insistence {
    /// After a write that took away whatever others had added, and left these additions all the same.
    pub(super) fn after(before: Option<Self>, left: Additions, now: Instant) -> Option<Self> {
        if left.is_empty() {
            return None;
        }
        let same = before.filter(|before| before.additions == left);
        let count = same.map_or(0, |before| before.count).saturating_add(1);
        Some(Self { additions: left, count, last: now })
    }

    /// Whether it is no use to take it away.
    pub(super) fn is_stubborn(&self) -> bool {
        self.count >= STUBBORN
    }

    /// Whether these additions, as they are seen, are left for now.
    pub(super) fn excuses(&self, seen: &Additions, now: Instant) -> bool {
        self.is_left(seen) && !self.is_due(now)
    }

    /// Whether these additions were left, and it is time to take them away once more.
    pub(super) fn is_to_be_tried(&self, seen: &Additions, now: Instant) -> bool {
        self.is_left(seen) && self.is_due(now)
    }

    fn is_left(&self, seen: &Additions) -> bool {
        self.is_stubborn() && self.additions == *seen
    }

    fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= LOOK_AGAIN
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
    use serde_json::json;

    use super::*;

    fn added(field: &str) -> Additions {
        Additions::of(&[ManagedFieldsEntry {
            manager: Some("webhook".to_owned()),
            operation: Some("Update".to_owned()),
            fields_v1: Some(FieldsV1(json!({"f:spec": {field: {}}}))),
            ..ManagedFieldsEntry::default()
        }])
    }

    fn after(times: &[&Additions], now: Instant) -> Option<Insistence> {
        times.iter().fold(None, |before, left| Insistence::after(before, (*left).clone(), now))
    }

    #[test]
    fn what_came_back_three_times_in_a_row_is_left_and_nothing_else() {
        let (now, sidecar, variable) = (Instant::now(), added("f:sidecar"), added("f:variable"));
        for few in [&[][..], &[&sidecar], &[&sidecar, &sidecar]] {
            assert!(!after(few, now).is_some_and(|i| i.excuses(&sidecar, now)), "{few:?}");
        }
        let thrice = after(&[&sidecar; 3], now).unwrap();
        assert!(thrice.is_stubborn() && thrice.excuses(&sidecar, now));
        assert!(!thrice.excuses(&variable, now), "another addition is taken away");
        assert!(!thrice.excuses(&Additions::default(), now));
    }

    #[test]
    fn only_the_same_addition_counts_and_only_in_a_row() {
        let (now, sidecar, variable) = (Instant::now(), added("f:sidecar"), added("f:variable"));
        let mixed = after(&[&sidecar, &variable, &sidecar, &variable, &sidecar], now).unwrap();
        assert!(!mixed.is_stubborn(), "{mixed:?}");
        let gone = Additions::default();
        assert!(after(&[&sidecar, &sidecar, &gone, &sidecar], now).is_some_and(|i| i.count == 1));
        assert_eq!(after(&[&sidecar, &sidecar, &sidecar, &gone], now), None, "it went, after all");
    }

    #[test]
    fn what_is_left_is_looked_at_again() {
        let (now, sidecar) = (Instant::now(), added("f:sidecar"));
        let left = after(&[&sidecar; 3], now).unwrap();
        let later = now + LOOK_AGAIN;
        assert!(!left.is_to_be_tried(&sidecar, now) && left.is_to_be_tried(&sidecar, later));
        assert!(!left.excuses(&sidecar, later));
        let again = Insistence::after(Some(left.clone()), sidecar.clone(), later).unwrap();
        assert!(again.excuses(&sidecar, later), "it came back, and is left again at once");
        assert_eq!(Insistence::after(Some(left), Additions::default(), later), None);
    }
}
