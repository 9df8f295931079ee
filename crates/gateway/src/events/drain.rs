//! What happens in a drain.

use hubbub_telemetry::{Kind, OpenSpan, Traces, names};
use prometheus_client::{
    metrics::{gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::drain::{DrainTimes, Receipt};

/// From a gateway whose times are set to nothing, to one that lets its members go over many minutes.
const DRAIN_SECONDS: [f64; 10] = [1.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 60.0, 300.0, 1800.0];

/// See the module. How members leave in a drain is counted as they do, in [`EngineEvents`](super::EngineEvents).
#[derive(Debug, Clone)]
pub struct DrainEvents {
    draining: Gauge,
    seconds: Histogram,
    traces: Traces,
}

impl DrainEvents {
    /// Registers the metrics.
    #[must_use]
    pub fn register(registry: &mut Registry, traces: Traces) -> Self {
        let events =
            Self { draining: Gauge::default(), seconds: Histogram::new(DRAIN_SECONDS), traces };
        registry.register("draining", "1 while this gateway drains", events.draining.clone());
        registry.register_with_unit(
            "drain",
            "Time from the beginning of the drain to the end of the last connection",
            Unit::Seconds,
            events.seconds.clone(),
        );
        events
    }

    pub(crate) fn begun(
        &self,
        by: &'static str,
        connections: usize,
        times: &DrainTimes,
    ) -> OpenSpan {
        self.draining.set(1);
        tracing::info!(
            by,
            connections,
            settle_s = times.settle.as_secs_f64(),
            window_s = times.window.as_secs_f64(),
            deadline_s = times.deadline.as_secs_f64(),
            "drain begun: not ready any more, handshakes still served",
        );
        if !self.traces.is_on() {
            return OpenSpan::none();
        }
        let span = OpenSpan::begin(names::span::DRAIN, Kind::Internal);
        span.set(names::DRAIN_BY, by);
        span.count(names::DRAIN_CONNECTIONS, connections as u64);
        span
    }

    pub(crate) fn closing(&self, connections: usize) {
        tracing::info!(connections, "drain: handshakes refused, members are being sent away");
    }

    pub(crate) fn done(&self, receipt: &Receipt, span: OpenSpan) {
        span.count(names::DRAIN_MOVED, receipt.moved as u64);
        span.count(names::DRAIN_CUT, receipt.cut as u64);
        span.set(names::DRAIN_FLUSHED, receipt.bus_flushed);
        span.set(names::DRAIN_SECONDS, receipt.seconds);
        drop(span);
        self.seconds.observe(receipt.seconds);
        tracing::info!(
            moved = receipt.moved,
            cut = receipt.cut,
            bus_flushed = receipt.bus_flushed,
            seconds = (receipt.seconds * 1000.0).round() / 1000.0,
            "drained",
        );
    }
}
