//! What happens in a drain.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use crate::drain::{DrainTimes, Receipt};

/// See the module.
#[derive(Debug, Clone)]
pub struct DrainEvents {
    draining: Gauge,
    moved: Counter,
    cut: Counter,
}

impl DrainEvents {
    /// Registers the metrics.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let events =
            Self { draining: Gauge::default(), moved: Counter::default(), cut: Counter::default() };
        registry.register("draining", "1 while this gateway drains", events.draining.clone());
        registry.register("drain_moved", "Members sent away in good order", events.moved.clone());
        registry.register("drain_cut", "Members dropped in a drain", events.cut.clone());
        events
    }

    pub(crate) fn begun(&self, by: &'static str, connections: usize, times: &DrainTimes) {
        self.draining.set(1);
        tracing::info!(
            by,
            connections,
            settle_s = times.settle.as_secs_f64(),
            window_s = times.window.as_secs_f64(),
            deadline_s = times.deadline.as_secs_f64(),
            "drain begun: not ready any more, handshakes still served",
        );
    }

    pub(crate) fn closing(&self, connections: usize) {
        tracing::info!(connections, "drain: handshakes refused, members are being sent away");
    }

    pub(crate) fn done(&self, receipt: &Receipt) {
        self.moved.inc_by(receipt.moved as u64);
        self.cut.inc_by(receipt.cut as u64);
        tracing::info!(
            moved = receipt.moved,
            cut = receipt.cut,
            bus_flushed = receipt.bus_flushed,
            seconds = (receipt.seconds * 1000.0).round() / 1000.0,
            "drained",
        );
    }
}
