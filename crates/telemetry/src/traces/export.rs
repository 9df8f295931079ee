//! Spans on their way out: a bounded queue, batches, and every span that does not arrive counted.
//!
//! The library's batches are made and sent on a thread of their own, but it only says in its own log how many spans it
//! dropped. So they are counted before they come to it, and it never has to drop one.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry::Context;
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::{
    Protocol,
    answers::{Answers, advice},
};
use crate::{LogLimit, names};

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
const REJECTED: Reason = Reason { reason: "rejected" };
const LIMITED: Reason = Reason { reason: "limited" };

impl Counts {
    pub(super) fn register(&self, registry: &mut Registry) {
        for reason in [QUEUE_FULL, EXPORT_FAILED, REJECTED, LIMITED] {
            drop(self.dropped.get_or_create(&reason));
        }
        registry.register(
            "spans_exported",
            "Spans that the collector has taken",
            self.exported.clone(),
        );
        registry.register(
            "spans_dropped",
            "Spans that were lost: too many waited, too many told of refusals, or the collector did not take them",
            self.dropped.clone(),
        );
    }

    fn lost(&self, reason: &Reason, spans: usize) {
        self.dropped.get_or_create(reason).inc_by(spans as u64);
    }
}

/// Spans between their end and the collector.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Those that wait for their batch.
    waiting: AtomicUsize,
    /// Those of the batch that is under way.
    leaving: AtomicUsize,
    /// Those whose batch did not arrive, ever.
    failed: AtomicUsize,
    /// Why the last batch that did not arrive did not.
    why: Mutex<Option<String>>,
}

impl Load {
    /// Spans that have not arrived, and will not if nothing more is sent.
    pub(super) fn not_arrived(&self) -> usize {
        [&self.waiting, &self.leaving, &self.failed]
            .map(|spans| spans.load(Ordering::Acquire))
            .iter()
            .sum()
    }

    /// Spans whose batch did not arrive.
    pub(super) fn failed(&self) -> usize {
        self.failed.load(Ordering::Acquire)
    }

    /// Why the last batch that did not arrive did not.
    pub(super) fn why(&self) -> Option<String> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The queue, with the library's batches behind it.
#[derive(Debug)]
pub(super) struct Queue {
    batches: BatchSpanProcessor,
    load: Arc<Load>,
    most: usize,
    counts: Counts,
    full_log: LogLimit,
}

impl Queue {
    pub(super) fn new(
        batches: BatchSpanProcessor,
        load: Arc<Load>,
        most: usize,
        counts: Counts,
    ) -> Self {
        Self { batches, load, most, counts, full_log: LogLimit::default() }
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        // It is looked for from behind, where it was set last.
        if span.attributes.iter().rev().any(|attribute| attribute.key.as_str() == names::LIMITED) {
            return self.counts.lost(&LIMITED, 1);
        }
        let taken =
            self.load.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, |waiting| {
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
    protocol: Protocol,
    answers: Answers,
    load: Arc<Load>,
    counts: Counts,
    failed_log: LogLimit,
    rejected_log: LogLimit,
}

impl<E> Counted<E> {
    pub(super) fn new(
        exporter: E,
        (endpoint, protocol): (String, Protocol),
        answers: Answers,
        load: Arc<Load>,
        counts: Counts,
    ) -> Self {
        let (failed_log, rejected_log) = Default::default();
        Self { exporter, endpoint, protocol, answers, load, counts, failed_log, rejected_log }
    }

    fn arrived(&self, spans: usize) {
        let answer = self.answers.take();
        let rejected = spans.min(usize::try_from(answer.rejected).unwrap_or(0));
        self.counts.exported.inc_by((spans - rejected) as u64);
        self.counts.lost(&REJECTED, rejected);
        if rejected == 0 && answer.words.is_empty() {
            return;
        }
        if let Some(spans) = self.rejected_log.allow(rejected as u64) {
            let Self { endpoint, .. } = self;
            tracing::warn!(spans, endpoint, words = ?answer.words, "the collector rejects spans, or warns");
        }
    }

    fn failed(&self, spans: usize, error: &OTelSdkError) {
        let mut error = error.to_string();
        if let Some(cause) = self.answers.take().cause {
            error.push_str(": ");
            error.push_str(&cause);
        }
        if self.counts.exported.get() == 0
            && let Some(advice) = advice(self.protocol, &error)
        {
            error.push_str("; ");
            error.push_str(&advice);
        }
        self.counts.lost(&EXPORT_FAILED, spans);
        self.load.failed.fetch_add(spans, Ordering::AcqRel);
        if let Some(spans) = self.failed_log.allow(spans as u64) {
            tracing::warn!(
                spans,
                endpoint = self.endpoint,
                error,
                "spans were lost, because the collector did not take them",
            );
        }
        *self.load.why.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.load.leaving.store(spans, Ordering::Release);
        self.load.waiting.fetch_sub(spans, Ordering::AcqRel);
        let sent = self.exporter.export(batch).await;
        match &sent {
            Ok(()) => self.arrived(spans),
            Err(error) => self.failed(spans, error),
        }
        self.load.leaving.store(0, Ordering::Release);
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
