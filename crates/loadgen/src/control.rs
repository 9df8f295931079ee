//! What the coordinator and the workers share: the stage of the run, its clock, and live counters.
//!
//! Workers never wait for each other. They look at the stage in every turn of their loops, and
//! publish counters that the coordinator adds up; exact sums are taken when the workers have ended.

use std::{
    sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    time::Instant,
};

use crate::{payload::Stamp, plan::Plan};

/// The stages of a run, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Stage {
    /// Members connect.
    Connect,
    /// They are held quietly.
    Idle,
    /// Every publisher sends probes until every member has heard each.
    Probe,
    /// Messages are sent on schedule: warm-up, then the measured window.
    Run,
    /// Nothing is sent; what is under way arrives.
    Tail,
    /// Members leave.
    Stop,
}

const STAGES: [Stage; 6] =
    [Stage::Connect, Stage::Idle, Stage::Probe, Stage::Run, Stage::Tail, Stage::Stop];

/// The times of [`Stage::Run`], in nanoseconds of the run's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// The schedule's zero.
    pub(crate) start: u64,
    /// The warm-up is over, measuring begins.
    pub(crate) from: u64,
    /// Measuring and sending end.
    pub(crate) to: u64,
}

/// Live counters of one worker.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Members whose first connection succeeded or failed for good.
    pub(crate) settled: AtomicU64,
    /// Members in their rooms now.
    pub(crate) open: AtomicU64,
    /// Members that have heard every publisher's probe, or need not.
    pub(crate) ready: AtomicU64,
    /// Messages sent.
    pub(crate) sent: AtomicU64,
    /// Deliveries, each once.
    pub(crate) delivered: AtomicU64,
    /// Connections that the server ended.
    pub(crate) closed: AtomicU64,
    /// Publishers that are away for good although nobody expected it.
    pub(crate) lost_publishers: AtomicU64,
    /// In the tail: deliveries that members still wait for.
    pub(crate) outstanding: AtomicU64,
    /// The stage that the other counters belong to.
    pub(crate) stage: AtomicU8,
}

/// The sums of all workers' counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "documented at Counters")]
pub struct Snapshot {
    pub settled: u64,
    pub open: u64,
    pub ready: u64,
    pub sent: u64,
    pub delivered: u64,
    pub closed: u64,
    pub lost_publishers: u64,
    pub outstanding: u64,
}

/// The shared state of one run.
#[derive(Debug)]
pub(crate) struct Control {
    /// Tells this run's messages from all others.
    pub(crate) run: u32,
    /// One for each worker.
    pub(crate) counters: Box<[Counters]>,
    clock: Instant,
    stage: AtomicU8,
    start: AtomicU64,
    from: AtomicU64,
    to: AtomicU64,
    publishers: u32,
    /// Messages sent so far by each publisher of each room.
    published: Box<[AtomicU32]>,
}

impl Control {
    pub(crate) fn new(plan: &Plan, run: u32) -> Self {
        let publishers = u64::from(plan.rooms) * u64::from(plan.publishers);
        Self {
            run,
            counters: (0..plan.threads).map(|_| Counters::default()).collect(),
            clock: Instant::now(),
            stage: AtomicU8::new(Stage::Connect as u8),
            start: AtomicU64::new(u64::MAX),
            from: AtomicU64::new(u64::MAX),
            to: AtomicU64::new(u64::MAX),
            publishers: plan.publishers,
            published: (0..publishers).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Nanoseconds since the run began.
    pub(crate) fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    pub(crate) fn stage(&self) -> Stage {
        STAGES[usize::from(self.stage.load(Ordering::Acquire))]
    }

    pub(crate) fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    pub(crate) fn window(&self) -> Window {
        let load = |time: &AtomicU64| time.load(Ordering::Acquire);
        Window { start: load(&self.start), from: load(&self.from), to: load(&self.to) }
    }

    pub(crate) fn set_window(&self, window: Window) {
        self.start.store(window.start, Ordering::Release);
        self.from.store(window.from, Ordering::Release);
        self.to.store(window.to, Ordering::Release);
    }

    /// The count of messages that the publisher of `room` has sent.
    pub(crate) fn published(&self, room: u32, publisher: u32) -> &AtomicU32 {
        &self.published[(room * self.publishers + publisher) as usize]
    }

    /// Whether a message of this stamp has been sent at all.
    pub(crate) fn was_sent(&self, stamp: &Stamp) -> bool {
        stamp.publisher < self.publishers
            && stamp.sequence < self.published(stamp.room, stamp.publisher).load(Ordering::Acquire)
    }

    /// All workers' counters added up; `None` until every worker has come to `stage`.
    pub(crate) fn snapshot(&self, stage: Stage) -> Option<Snapshot> {
        let mut sum = Snapshot::default();
        for counters in &self.counters {
            if counters.stage.load(Ordering::Acquire) < stage as u8 {
                return None;
            }
            let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            sum.settled += load(&counters.settled);
            sum.open += load(&counters.open);
            sum.ready += load(&counters.ready);
            sum.sent += load(&counters.sent);
            sum.delivered += load(&counters.delivered);
            sum.closed += load(&counters.closed);
            sum.lost_publishers += load(&counters.lost_publishers);
            sum.outstanding += load(&counters.outstanding);
        }
        Some(sum)
    }
}
