//! The one way down: readiness off, still serving for the settle time, then everybody sent away evenly over the
//! window, then what is left is cut at the deadline.
//!
//! Signals and the preStop hook all begin the same drain; whoever comes later joins it. All times count from the
//! beginning of the drain, on the monotonic clock.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::watch;

use crate::{bus::Bus, engine::Engine, events::DrainEvents};

/// How long the bus may take to hand over what it still holds.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// The times of a drain.
#[derive(Debug, Clone, Copy)]
pub struct DrainTimes {
    /// How long handshakes are still served, because load balancers learn late.
    pub settle: Duration,
    /// Over how long the members are sent away, after the settle time.
    pub window: Duration,
    /// When whoever is still there is cut, counted from the beginning.
    pub deadline: Duration,
}

/// How far the drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// No drain.
    Serving,
    /// Not ready any more, but handshakes are served.
    Settling,
    /// Handshakes are refused, members are sent away.
    Closing,
    /// Nobody is left.
    Done,
}

/// What a drain did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// Members who were told to come back elsewhere.
    pub moved: usize,
    /// Members who were dropped without that.
    pub cut: usize,
    /// Whether everything published was handed to the bus's network.
    pub bus_flushed: bool,
    /// From the first call to the last member gone.
    pub seconds: f64,
}

/// See the module.
#[derive(Debug)]
pub struct Drain {
    times: DrainTimes,
    begun: watch::Sender<Option<&'static str>>,
    phase: watch::Sender<Phase>,
    receipt: watch::Sender<Option<Receipt>>,
}

impl Drain {
    /// A drain that has not begun.
    #[must_use]
    pub fn new(times: DrainTimes) -> Arc<Self> {
        Arc::new(Self {
            times,
            begun: watch::Sender::new(None),
            phase: watch::Sender::new(Phase::Serving),
            receipt: watch::Sender::new(None),
        })
    }

    /// Begins the drain; `by` says who asked. Does nothing if it has begun.
    pub fn begin(&self, by: &'static str) {
        self.begun.send_if_modified(|begun| {
            let first = begun.is_none();
            if first {
                *begun = Some(by);
            }
            first
        });
    }

    /// How far it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// What it did, once it is done.
    #[must_use]
    pub fn receipt(&self) -> Option<Receipt> {
        *self.receipt.borrow()
    }

    /// Changes of the phase.
    #[must_use]
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Resolves when the drain is done.
    pub async fn done(&self) -> Option<Receipt> {
        let mut receipt = self.receipt.subscribe();
        receipt.wait_for(Option::is_some).await.ok().and_then(|receipt| *receipt)
    }

    /// Waits for the drain to begin and carries it out. To be called once.
    pub async fn run(&self, engine: &Engine, bus: &dyn Bus, events: &DrainEvents) -> Receipt {
        let mut begun = self.begun.subscribe();
        let by = begun.wait_for(Option::is_some).await.ok().and_then(|by| *by).unwrap_or("end");
        let start = Instant::now();
        let span = events.begun(by, engine.connections(), &self.times);
        self.phase.send_replace(Phase::Settling);
        // An empty gateway settles all the same: a client may be on its way here.
        tokio::time::sleep(self.times.settle).await;

        self.phase.send_replace(Phase::Closing);
        events.closing(engine.connections());
        engine.drain(self.times.window);
        let left = self.times.deadline.saturating_sub(start.elapsed());
        if tokio::time::timeout(left, engine.empty()).await.is_err() {
            engine.cut();
            engine.empty().await;
        }
        let seconds = start.elapsed().as_secs_f64();
        let bus_flushed = bus.flush(FLUSH_LIMIT).await;
        let departed = engine.departed();
        let receipt = Receipt { moved: departed.moved, cut: departed.cut, bus_flushed, seconds };
        events.done(&receipt, span);
        self.receipt.send_replace(Some(receipt));
        self.phase.send_replace(Phase::Done);
        receipt
    }
}
