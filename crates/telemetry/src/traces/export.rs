//! Spans on their way out: a bounded queue, batches, and every span that does not arrive counted.
//!
//! The library's batches are made and sent on a thread of their own, but it only says in its own log how many spans it
//! dropped. So they are counted before they come to it, and it never has to drop one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry::Context;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use crate::LogLimit;

/// What became of spans that were kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    exported: Counter,
    dropped: Family<Reason, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

const QUEUE_FULL: Reason = Reason { reason: "queue_full" };
const EXPORT_FAILED: Reason = Reason { reason: "export_failed" };

impl Counts {
    pub(super) fn register(&self, registry: &mut Registry) {
        for reason in [QUEUE_FULL, EXPORT_FAILED] {
            drop(self.dropped.get_or_create(&reason));
        }
        registry.register(
            "spans_exported",
            "Spans that the collector has taken",
            self.exported.clone(),
        );
        registry.register(
            "spans_dropped",
            "Spans that were lost: too many waited, or the collector did not take them",
            self.dropped.clone(),
        );
    }

    fn lost(&self, reason: &Reason, spans: usize) {
        self.dropped.get_or_create(reason).inc_by(spans as u64);
    }
}

/// The queue, with the library's batches behind it.
#[derive(Debug)]
pub(super) struct Queue {
    batches: BatchSpanProcessor,
    /// Spans that wait for their batch.
    waiting: Arc<AtomicUsize>,
    most: usize,
    counts: Counts,
    full_log: LogLimit,
}

impl Queue {
    pub(super) fn new(
        batches: BatchSpanProcessor,
        waiting: Arc<AtomicUsize>,
        most: usize,
        counts: Counts,
    ) -> Self {
        Self { batches, waiting, most, counts, full_log: LogLimit::default() }
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        let taken = self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, |waiting| {
            (waiting < self.most).then_some(waiting + 1)
        });
        if taken.is_ok() {
            return self.batches.on_end(span);
        }
        self.counts.lost(&QUEUE_FULL, 1);
        if let Some(spans) = self.full_log.allow(1) {
            tracing::warn!(
                spans,
                queue = self.most,
                "spans are dropped, because the collector takes them too slowly or not at all",
            );
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// The way to the collector, behind the batches.
#[derive(Debug)]
pub(super) struct Counted<E> {
    exporter: E,
    endpoint: String,
    waiting: Arc<AtomicUsize>,
    counts: Counts,
    failed_log: LogLimit,
}

impl<E> Counted<E> {
    pub(super) fn new(
        exporter: E,
        endpoint: String,
        waiting: Arc<AtomicUsize>,
        counts: Counts,
    ) -> Self {
        Self { exporter, endpoint, waiting, counts, failed_log: LogLimit::default() }
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.waiting.fetch_sub(spans, Ordering::AcqRel);
        let sent = self.exporter.export(batch).await;
        match &sent {
            Ok(()) => _ = self.counts.exported.inc_by(spans as u64),
            Err(error) => {
                self.counts.lost(&EXPORT_FAILED, spans);
                if let Some(spans) = self.failed_log.allow(spans as u64) {
                    tracing::warn!(
                        spans,
                        endpoint = self.endpoint,
                        %error,
                        "spans were lost, because the collector did not take them",
                    );
                }
            }
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
