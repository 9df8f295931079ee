//! How to reach NATS, the same for gateway and operator: [`NatsFlags`] on the command line, [`NatsOptions`] as plain data, and
//! the checks that end a start with a sentence instead of an endless row of failed tries.

mod flags;
mod options;

pub use flags::NatsFlags;
pub use options::{NatsOptions, NatsOptionsError};
