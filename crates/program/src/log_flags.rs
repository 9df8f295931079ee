//! The flags that say what is logged.

use clap::{Args, ValueEnum};
use hubbub_telemetry::{LogError, LogFormat};

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
#[derive(Debug, Args)]
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
    /// Begins to log.
    ///
    /// # Errors
    /// When the filter is not understood.
    pub fn init(&self) -> Result<(), LogError> {
        let format = match self.log_format {
            Format::Auto => LogFormat::Auto,
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        };
        hubbub_telemetry::init_logs(&self.log, format)
    }
}
