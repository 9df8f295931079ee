//! Where rooms come from: files when the gateway runs alone, a NATS key-value bucket in a cluster.
//!
//! A source fills the table of rooms, tells when it is complete, and keeps it true until it is cancelled. It never
//! applies a policy that does not validate: the last good one stays in force, and the fault is told.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::{events::policy::PolicyEvents, room::Rooms};

pub mod files;
pub mod nats;

/// Keeps a table of rooms true.
pub trait PolicySource: Send + 'static {
    /// Runs until `stop` is cancelled. Calls [`Rooms::set_applied`] once everything there at start is applied, and
    /// after each later change.
    fn run(self: Box<Self>, rooms: Arc<Rooms>, stop: CancellationToken) -> BoxFuture<'static, ()>;
}

/// What is wrong with the source's declarations right now, for readiness and admin. Faults end when they are mended.
#[derive(Debug, Default)]
pub struct PolicyHealth {
    faults: Mutex<Vec<String>>,
}

impl PolicyHealth {
    /// One line for each fault; none when everything that is declared is in force.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// These declarations are refused right now, each by a line, and no others: told here and counted by the metric.
    fn refused(&self, faults: Vec<String>, events: &PolicyEvents) {
        events.faults(faults.len());
        self.set(faults);
    }

    fn set(&self, faults: Vec<String>) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }
}
