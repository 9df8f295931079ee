//! What happens to memory.

use std::io;

use prometheus_client::{
    metrics::gauge::Gauge,
    registry::{Registry, Unit},
};

use crate::memory::Fill;

/// See the module.
#[derive(Debug, Clone)]
pub struct MemoryEvents {
    used: Gauge,
    limit: Gauge,
}

impl MemoryEvents {
    /// Registers the metrics.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let events = Self { used: Gauge::default(), limit: Gauge::default() };
        registry.register_with_unit(
            "memory_used",
            "Memory in use that the limit counts; 0 without a limit",
            Unit::Bytes,
            events.used.clone(),
        );
        registry.register_with_unit(
            "memory_limit",
            "Memory that this gateway may use: that of its control group, or of --memory-limit; 0 without a limit",
            Unit::Bytes,
            events.limit.clone(),
        );
        events
    }

    pub(crate) fn limited(&self, limit: u64) {
        self.limit.set(signed(limit));
    }

    pub(crate) fn looked(&self, fill: Fill) {
        self.used.set(signed(fill.used));
    }

    /// Newcomers are refused from now on, or let in again.
    pub(crate) fn turned(&self, short: bool, fill: Fill) {
        let Fill { used, limit } = fill;
        if short {
            tracing::warn!(
                used,
                limit,
                "short of memory: newcomers are refused; raise the limit, or spread the members over more gateways"
            );
        } else {
            tracing::info!(used, limit, "enough memory again: newcomers are let in");
        }
    }

    pub(crate) fn shedding(&self, fill: Fill) {
        let Fill { used, limit } = fill;
        tracing::warn!(
            used,
            limit,
            "very short of memory: members are sent away, those first for whom most waits"
        );
    }

    pub(crate) fn unreadable(&self, error: &io::Error) {
        tracing::warn!(%error, "cannot tell how much memory is in use; it is not watched any more");
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
