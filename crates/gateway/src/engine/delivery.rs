//! A message on its way to the members of this gateway.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hubbub_telemetry::{OpenSpan, names};

use crate::events::FanOut;

/// What a shard needs to know of a message to tell how long it took.
///
/// Most messages go to one shard and are not traced: for them nothing is made.
#[derive(Debug, Clone)]
pub(super) enum Trip {
    /// To one shard alone, and not traced; when it arrived.
    Short(Instant),
    /// To several shards, or traced.
    Shared(Arc<Delivery>),
}

/// A message shared by all shards that it goes to: it ends when the last of them has let go, with what became of the message.
#[derive(Debug)]
pub(crate) struct Delivery {
    arrived: Instant,
    /// None, if the message is not traced.
    span: OpenSpan,
    fan_out: FanOut,
    /// Nanoseconds from the arrival to the last write, of all shards; none before the first shard is done.
    took: AtomicU64,
    delivered: AtomicU64,
    queued: AtomicU64,
    dropped: AtomicU64,
}

impl Delivery {
    pub(crate) fn new(arrived: Instant, span: OpenSpan, fan_out: FanOut) -> Self {
        let none = AtomicU64::default;
        let (took, delivered, queued, dropped) = (none(), none(), none(), none());
        Self { arrived, span, fan_out, took, delivered, queued, dropped }
    }

    /// A shard has handed the message to so many of its members, has queued it for so many, and has lost so many of
    /// them over it; at that time it was done.
    pub(super) fn handed_on(&self, at: Instant, delivered: usize, queued: usize, dropped: usize) {
        let took = at.saturating_duration_since(self.arrived).as_nanos();
        // 0 is for nobody.
        let took = u64::try_from(took).unwrap_or(u64::MAX).max(1);
        self.took.fetch_max(took, Ordering::Relaxed);
        self.delivered.fetch_add(delivered as u64, Ordering::Relaxed);
        self.queued.fetch_add(queued as u64, Ordering::Relaxed);
        self.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        // Exclusive: whatever the shards have added is seen.
        let took = *self.took.get_mut();
        if took > 0 {
            self.fan_out.done(Duration::from_nanos(took), self.span.context());
        }
        self.span.count(names::DELIVERED, *self.delivered.get_mut());
        self.span.count(names::QUEUED, *self.queued.get_mut());
        self.span.count(names::DROPPED, *self.dropped.get_mut());
    }
}
