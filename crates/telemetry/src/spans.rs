//! Spans as the programs make them: explicit in name, kind, parent and links. Which of them are made is the caller's
//! decision; one that is not costs nothing.

use opentelemetry::{
    Context, Value,
    trace::{Status, TraceContextExt as _},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::{
    context::{Remote, SpanRef},
    names,
};

/// On which side of what a span stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It asks another program.
    Client,
    /// It answers another program.
    Server,
    /// It hands a message out.
    Producer,
    /// It takes a message in.
    Consumer,
    /// Neither.
    Internal,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
            Self::Internal => "internal",
        }
    }
}

/// A span under way, or none: then nothing is done. It ends when it is dropped.
#[derive(Debug, Default)]
#[must_use = "a span ends when it is dropped"]
pub struct OpenSpan(Option<Span>);

impl OpenSpan {
    /// No span.
    pub fn none() -> Self {
        Self(None)
    }

    /// A span that begins now, the first of a trace unless a parent is set.
    pub fn begin(name: &'static str, kind: Kind) -> Self {
        let kind = kind.name();
        Self(Some(tracing::info_span!(
            target: names::TARGET,
            parent: None,
            "span",
            otel.name = name,
            otel.kind = kind,
        )))
    }

    /// Whether there is a span.
    #[must_use]
    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Makes this span a child of one that is kept. To be called first.
    pub fn set_parent(&self, parent: SpanRef) {
        self.continue_remote(Remote { span: parent, sampled: true });
    }

    /// Makes this span a child of one of another program that is trusted, also in whether it is kept. To be called first.
    pub fn continue_remote(&self, parent: Remote) {
        if let Some(span) = &self.0 {
            let context = parent.span.context(parent.sampled, true);
            // It fails only where no spans are collected, or after the span was asked for its own context.
            let _ = span.set_parent(Context::new().with_remote_span_context(context));
        }
    }

    /// Points to a span that has to do with this one.
    pub fn link(&self, to: SpanRef) {
        if let Some(span) = &self.0 {
            span.add_link(to.context(true, true));
        }
    }

    /// Points to a span of a program that is not trusted.
    pub fn link_remote(&self, to: Remote) {
        if let Some(span) = &self.0 {
            span.add_link(to.span.context(to.sampled, true));
        }
    }

    /// Adds an attribute.
    pub fn set(&self, name: &'static str, value: impl Into<Value>) {
        if let Some(span) = &self.0 {
            span.set_attribute(name, value);
        }
    }

    /// Adds a count.
    pub fn count(&self, name: &'static str, count: u64) {
        self.set(name, i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Says that what the span stands for has failed: a word of a closed set.
    pub fn fail(&self, error: &'static str) {
        if let Some(span) = &self.0 {
            span.set_attribute(names::ERROR_TYPE, error);
            span.set_status(Status::error(error));
        }
    }

    /// Gives the span up, because there are too many of its kind: it is counted, and not sent. To be called last.
    pub fn limit(&self) {
        self.set(names::LIMITED, true);
    }

    /// Which span this is; none if it is not kept.
    #[must_use]
    pub fn context(&self) -> Option<SpanRef> {
        let context = self.0.as_ref()?.context();
        SpanRef::of(context.span().span_context())
    }
}
