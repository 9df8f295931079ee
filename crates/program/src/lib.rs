//! What the two programs have in common as programs: values of flags, flags of logs, variables, signals.
//!
//! So that the same thing is said in the same way to both, and answered in the same words.

mod command_line;
mod log_flags;
mod signals;

pub use command_line::{address, dns_label, network, own_name, parse};
pub use log_flags::LogFlags;
pub use signals::Signals;
