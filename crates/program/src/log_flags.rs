//! The flags that say what is logged.

use clap::{Args, ValueEnum};
use hubbub_telemetry::{InitError, LogFormat, Program, Traces};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people on a terminal, JSON otherwise
    Auto,
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Telemetry")]
pub struct LogFlags {
    /// What is logged: error, warn, info, debug, or by part, as warn,hubbub_gateway=debug
    #[arg(long, env = "HUBBUB_LOG", default_value = "info", value_name = "FILTER")]
    log: String,

    /// How log lines look
    #[arg(long, env = "HUBBUB_LOG_FORMAT", value_enum, default_value_t = Format::Auto, value_name = "FORMAT")]
    log_format: Format,
}

impl LogFlags {
    /// Begins to log, and to trace if the environment names a collector.
    ///
    /// # Errors
    /// When the filter, or a variable `OTEL_…`, is not understood.
    pub fn init(&self, program: &Program) -> Result<Traces, InitError> {
        let format = match self.log_format {
            Format::Auto => LogFormat::Auto,
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        };
        hubbub_telemetry::init(&self.log, format, program)
    }
}
