//! How to reach NATS, the same for gateway and operator: [`NatsFlags`] on the command line, [`NatsOptions`] as plain data, and
//! the checks that end a start with a sentence instead of an endless row of failed tries.

mod contents;
mod flags;
mod options;

use nats::Server;

pub use contents::Contents;
pub use flags::NatsFlags;
pub use options::{NatsOptions, NatsOptionsError};

/// Why the last tries to reach these servers failed, by server; none if there was no such try. Without users and passwords.
#[must_use]
pub fn causes(servers: &[Server]) -> Option<String> {
    let failed = servers.iter().filter_map(|server| {
        let fault = server.last_error.as_ref()?;
        Some(format!("{}:{}: {fault}", server.addr.host(), server.addr.port()))
    });
    Some(failed.collect::<Vec<_>>().join("; ")).filter(|causes| !causes.is_empty())
}
