//! The one subscriber of the process: log lines to standard error, and spans to the collector if there is one.

use std::io::IsTerminal as _;

use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt as _, FilterFn, LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::{
    names,
    traces::{Program, Traces, TracesError},
};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Libraries that log the same trouble again and again, which the programs log once and with its cause; unless the filter
/// speaks of them.
const QUIET: [(&str, &str); 2] = [
    // Each dropped message at level info; each try to connect that fails, at level error.
    ("async_nats", "async_nats=warn,async_nats::connector=off"),
    // Each request that fails, at level error.
    ("kube_client", "kube_client::client::builder=off"),
];

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be parsed.
    #[error(
        "the log filter {filter:?} is not understood; try info, debug or info,hubbub_gateway=debug"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A bare word that is no level would silence everything: it is taken for the name of a part.
    #[error(
        "the log filter has {0:?}, which is no level: take error, warn, info, debug or trace, or PART=LEVEL"
    )]
    Word(String),
    /// Another part of the program has set up logging.
    #[error("logging is set up already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Why logs and traces could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// Because of logs.
    #[error(transparent)]
    Logs(#[from] LogError),
    /// Because of traces.
    #[error(transparent)]
    Traces(#[from] TracesError),
}

/// Sends log lines to standard error from now on, and spans to the collector that the environment names, if it names
/// one. To be called in the tokio runtime that is to carry the spans.
///
/// # Errors
///
/// [`InitError`], for a filter that cannot be parsed, a variable `OTEL_…` that makes no sense, or a second call.
pub fn init(filter: &str, format: LogFormat, program: &Program) -> Result<Traces, InitError> {
    let filter = log_filter(filter)?;
    let traces = Traces::from_environment(program)?;
    subscribe(filter, format, &traces)?;
    Ok(traces)
}

/// The same with spans collected by these traces, whatever the environment says.
///
/// # Errors
///
/// [`LogError`], for a filter that cannot be parsed, or a second call.
pub fn init_with(filter: &str, format: LogFormat, traces: &Traces) -> Result<(), LogError> {
    subscribe(log_filter(filter)?, format, traces)
}

fn subscribe(filter: EnvFilter, format: LogFormat, traces: &Traces) -> Result<(), LogError> {
    let terminal = std::io::stderr().is_terminal();
    let text = match format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if text {
        lines.with_target(false).with_ansi(terminal).boxed()
    } else {
        lines.json().flatten_event(true).with_current_span(false).boxed()
    };
    // Each layer has a filter of its own: what is traced is not logged, whatever the log's filter says, and the other
    // way round. The spans of libraries, those of the exporter among them, go nowhere.
    let no_spans = FilterFn::new(|metadata| metadata.target() != names::TARGET);
    let mut layers = vec![lines.with_filter(filter.and(no_spans)).boxed()];
    if let Some(layer) = traces.layer::<Registry>() {
        let spans_alone = Targets::new().with_target(names::TARGET, LevelFilter::INFO);
        layers.push(layer.with_filter(spans_alone).boxed());
    }
    tracing_subscriber::registry().with(layers).try_init()?;
    traces.tell();
    Ok(())
}

fn log_filter(filter: &str) -> Result<EnvFilter, LogError> {
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let mut words = filter.split(',').map(str::trim).filter(|word| !word.contains(['=', '[']));
    if let Some(word) = words.find(|word| !word.is_empty() && !is_level(word)) {
        return Err(LogError::Word(word.to_owned()));
    }
    let quieted = QUIET.iter().filter(|(part, _)| !filter.contains(part));
    let quieted: String = quieted.map(|(_, levels)| format!(",{levels}")).collect();
    EnvFilter::try_new(format!("{filter}{quieted}"))
        .map_err(|source| LogError::Filter { filter: filter.to_owned(), source })
}
