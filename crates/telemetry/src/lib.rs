//! Start-up and shutdown of logs, traces and metrics, shared by the binaries.
//!
//! Logs go to standard error: for people when it is a terminal, one JSON object a line otherwise. Traces go by OTLP to
//! the collector that `OTEL_*` names, or nowhere. Metrics are in a registry of the caller's, under one prefix a binary;
//! there are no globals but the subscriber.

mod context;
mod log_limit;
mod logs;
pub mod names;
mod spans;
pub mod traces;

pub use context::{Remote, SpanRef};
pub use log_limit::LogLimit;
pub use logs::{InitError, LogError, LogFormat, init, init_with};
pub use spans::{Kind, OpenSpan};
pub use traces::{Program, Traces};

use prometheus_client::{metrics::info::Info, registry::Registry};

/// A registry whose metrics all begin with `prefix` and an underscore. The first of them tells which version runs.
#[must_use]
pub fn registry(prefix: &str, version: &'static str) -> Registry {
    let mut registry = Registry::with_prefix(prefix);
    registry.register("build", "The program that runs", Info::new([("version", version)]));
    registry
}
