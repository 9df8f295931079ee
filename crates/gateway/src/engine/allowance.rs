//! How much more of members' messages may be kept until memory is looked at again: what is being sent comes faster than anybody looks.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// Bytes that are kept for a member however little memory there is; and while there is little, no more are read at once.
pub(super) const ALWAYS: usize = 4 * 1024;

/// Milliseconds until a member that is held back is read from again: memory is looked at as often then.
pub(super) const RETRY: u64 = 25;

/// See the module.
#[derive(Debug)]
pub(super) struct Allowance {
    left: AtomicI64,
    held_back: AtomicBool,
}

impl Default for Allowance {
    /// Without end, as where memory has no limit.
    fn default() -> Self {
        Self { left: AtomicI64::new(i64::MAX), held_back: AtomicBool::new(false) }
    }
}

impl Allowance {
    pub(super) fn set(&self, bytes: u64) {
        self.left.store(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    pub(super) fn take(&self, bytes: usize) {
        self.left.fetch_sub(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    pub(super) fn is_spent(&self) -> bool {
        self.left.load(Ordering::Relaxed) <= 0
    }

    /// A member is not read from because nothing is left.
    pub(super) fn hold_back(&self) {
        self.held_back.store(true, Ordering::Relaxed);
    }

    /// Whether one was, since this was asked last.
    pub(super) fn has_held_back(&self) -> bool {
        self.held_back.swap(false, Ordering::Relaxed)
    }
}
