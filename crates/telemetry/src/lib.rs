//! Start-up of logs and the metrics registry, shared by the binaries.
//!
//! Logs go to standard error: for people when it is a terminal, one JSON object a line otherwise. Metrics are in a
//! registry of the caller's, under one prefix a binary; there are no globals but the subscriber.

use std::io::IsTerminal as _;

use prometheus_client::registry::Registry;
use tracing_subscriber::{
    EnvFilter, filter::LevelFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
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

/// Libraries that log the same trouble again and again, which the programs log once and with its cause; unless the filter
/// speaks of them.
const QUIET: [(&str, &str); 2] = [
    // Each dropped message at level info; each try to connect that fails, at level error.
    ("async_nats", "async_nats=warn,async_nats::connector=off"),
    // Each request that fails, at level error.
    ("kube_client", "kube_client::client::builder=off"),
];

/// Sends log lines to standard error from now on.
///
/// # Errors
///
/// [`LogError`], for a filter that cannot be parsed or a second call.
pub fn init_logs(filter: &str, format: LogFormat) -> Result<(), LogError> {
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let mut words = filter.split(',').map(str::trim).filter(|word| !word.contains(['=', '[']));
    if let Some(word) = words.find(|word| !word.is_empty() && !is_level(word)) {
        return Err(LogError::Word(word.to_owned()));
    }
    let quieted = QUIET.iter().filter(|(part, _)| !filter.contains(part));
    let quieted: String = quieted.map(|(_, levels)| format!(",{levels}")).collect();
    let filter = EnvFilter::try_new(format!("{filter}{quieted}"))
        .map_err(|source| LogError::Filter { filter: filter.to_owned(), source })?;
    let terminal = std::io::stderr().is_terminal();
    let text = match format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if text {
        registry.with(layer.with_target(false).with_ansi(terminal)).try_init()?;
    } else {
        registry.with(layer.json().flatten_event(true).with_current_span(false)).try_init()?;
    }
    Ok(())
}

/// A registry whose metrics all begin with `prefix` and an underscore.
#[must_use]
pub fn registry(prefix: &str) -> Registry {
    Registry::with_prefix(prefix)
}
