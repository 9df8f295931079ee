//! What waits to be written to one connection, held here or handed to the NATS client, bounded in bytes over all
//! connections; and how much of what was written NATS has confirmed, so that a broken connection tells how many messages
//! it may have cost.
//!
//! The client's own queue is bounded in messages only. Here each payload carries its share of the byte budget, and
//! gives it back when the client drops it after writing.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use bytes::Bytes;

/// Bytes that may wait for all connections: what a gateway holds at most for a NATS that is away.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// The bytes that wait for all connections of a gateway.
#[derive(Debug, Default)]
pub(super) struct Budget {
    waiting_bytes: AtomicUsize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    budget: Arc<Budget>,
    waiting_messages: AtomicU64,
    published: AtomicU64,
    confirmed: AtomicU64,
}

/// A payload with its share of the budget.
struct Waiting {
    payload: Box<[u8]>,
    outbox: Arc<Outbox>,
}

impl AsRef<[u8]> for Waiting {
    fn as_ref(&self) -> &[u8] {
        &self.payload
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.outbox.budget.waiting_bytes.fetch_sub(self.payload.len(), Ordering::AcqRel);
        self.outbox.waiting_messages.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Outbox {
    /// The outbox of one connection of a gateway.
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, ..Self::default() }
    }

    /// Copies the payload into the budget, or tells that it is spent. One message always fits while none waits.
    pub(super) fn hold(self: &Arc<Self>, payload: &[u8]) -> Option<Bytes> {
        let size = payload.len();
        self.budget
            .waiting_bytes
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
                (now == 0 || now + size <= MAX_WAITING_BYTES).then_some(now + size)
            })
            .ok()?;
        self.waiting_messages.fetch_add(1, Ordering::AcqRel);
        Some(Bytes::from_owner(Waiting { payload: payload.into(), outbox: Arc::clone(self) }))
    }

    /// The client took a message.
    pub(super) fn published(&self) {
        self.published.fetch_add(1, Ordering::AcqRel);
    }

    /// How many messages the client has taken so far. What is sent to NATS from now on, NATS reads after them.
    pub(super) fn mark(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    /// NATS has read the first `mark` messages.
    pub(super) fn confirm(&self, mark: u64) {
        self.confirmed.fetch_max(mark, Ordering::AcqRel);
    }

    /// Whether messages were taken that NATS has not confirmed.
    pub(super) fn has_unconfirmed(&self) -> bool {
        self.mark() > self.confirmed.load(Ordering::Acquire)
    }

    /// The connection broke: how many messages were written to it that NATS had not confirmed. What still waits, `held`
    /// here or in the client, is not among them; it goes out on the next connection.
    pub(super) fn connection_broke(&self, held: usize) -> u64 {
        let in_client = self.waiting_messages.load(Ordering::Acquire).saturating_sub(held as u64);
        let written = self.mark().saturating_sub(in_client);
        written.saturating_sub(self.confirmed.fetch_max(written, Ordering::AcqRel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_bounded_and_come_back() {
        let outbox = Arc::new(Outbox::default());
        let big = vec![0; MAX_WAITING_BYTES + 1];
        let held = outbox.hold(&big).expect("one message always fits");
        assert!(outbox.hold(b"x").is_none());
        drop(held);
        let held = outbox.hold(b"x").unwrap();
        let copy = held.clone();
        drop(held);
        assert_eq!(
            outbox.budget.waiting_bytes.load(Ordering::Acquire),
            1,
            "the client still has it"
        );
        drop(copy);
        assert_eq!(outbox.budget.waiting_bytes.load(Ordering::Acquire), 0);
    }

    #[test]
    fn a_broken_connection_costs_what_was_written_and_not_confirmed() {
        let outbox = Arc::new(Outbox::default());
        let publish = || {
            let held = outbox.hold(b"x").unwrap();
            outbox.published();
            held
        };
        for _ in 0..3 {
            drop(publish());
        }
        outbox.confirm(outbox.mark());
        assert!(!outbox.has_unconfirmed());
        for _ in 0..2 {
            drop(publish());
        }
        let waiting = publish();
        assert_eq!(outbox.connection_broke(0), 2);
        assert_eq!(outbox.connection_broke(0), 0, "the same messages are not counted twice");
        drop(waiting);
        let held = outbox.hold(b"x").unwrap();
        assert_eq!(outbox.connection_broke(1), 1, "what was held was not written");
        drop(held);
    }
}
