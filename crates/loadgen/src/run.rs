//! The coordinator: takes the workers through the stages of a run and measures the server meanwhile.

use std::{
    io,
    sync::Arc,
    thread::{self, ScopedJoinHandle},
    time::Duration,
};

use mio::Waker;
use thiserror::Error;

use crate::{
    control::{Control, Snapshot, Stage, Window},
    limits::{self, TooFewFiles},
    plan::Plan,
    process::{self, Cpu, Memory, ProcessError},
    progress::{Progress, Step},
    random::Random,
    report::{Asked, Report, Samples},
    tally::Tally,
    worker::Worker,
};

/// How often the coordinator looks at the workers' counters.
const LOOK: Duration = Duration::from_millis(5);

/// How long publishers' probes may take to reach every member.
const PROBE_LIMIT: Duration = Duration::from_secs(15);

/// From the decision to begin until the first message is due: time for every worker to see it.
const LEAD: Duration = Duration::from_millis(50);

/// What the server does for a connection after its 101 belongs to the cost of the connect.
const AFTERWORK: Duration = Duration::from_millis(100);

/// Why a run could not be made. What the *server* does wrong is in the report instead.
#[derive(Debug, Error)]
pub enum RunError {
    /// Not enough sockets.
    #[error(transparent)]
    Files(#[from] TooFewFiles),

    /// The server's processes cannot be measured.
    #[error(transparent)]
    Process(#[from] ProcessError),

    /// The system refused epoll, a timer or a thread.
    #[error("a worker failed: {0}")]
    Worker(#[from] io::Error),

    /// A fault of this program.
    #[error("a worker ended before its time; this is a fault of hubbub-load")]
    WorkerEnded,
}

/// Makes a run as planned and reports what was seen. Blocks until it is over.
///
/// # Errors
/// When the load cannot be put on: too few files, an unknown server process, a failing system.
pub fn run(plan: &Plan, progress: &mut Progress) -> Result<Report, RunError> {
    limits::allow_sockets(plan.connections())?;
    let run = (Random::from_system().bits() >> 34) as u32;
    let control = Control::new(plan, run);
    let mut samples = Samples::default();
    let tally = thread::scope(|scope| {
        let mut coordinator = Coordinator {
            plan,
            control: &control,
            progress,
            workers: Vec::new(),
            wakers: Vec::new(),
        };
        // Before the first connect, which a worker makes as soon as it runs.
        let start = coordinator.cpu()?;
        samples.memory_before = coordinator.memory()?;
        let began = (|| {
            for id in 0..plan.threads as usize {
                let (worker, waker) = Worker::new(plan, &control, id)?;
                coordinator.wakers.push(waker);
                let thread = thread::Builder::new().name(format!("load-{id}"));
                coordinator.workers.push(thread.spawn_scoped(scope, move || worker.run())?);
            }
            Ok(())
        })();
        let outcome = began.and_then(|()| coordinator.stages(start, &mut samples));
        // Whatever happened: the scope ends only when the workers do.
        coordinator.enter(Stage::Stop)?;
        let mut tally = Tally::new(plan.duration);
        for worker in coordinator.workers {
            tally.add(worker.join().map_err(|_| RunError::WorkerEnded)??);
        }
        outcome.map(|()| tally)
    })?;
    Ok(Report::new(asked(plan), &samples, &tally))
}

fn asked(plan: &Plan) -> Asked {
    Asked {
        addresses: plan.targets.iter().map(|target| target.address.to_string()).collect(),
        protocol: plan.protocol,
        rooms: plan.rooms,
        members_per_room: plan.members,
        publishers_per_room: plan.publishers,
        slow_per_room: plan.slow,
        messages_per_second_and_room: plan.rate,
        message_bytes: plan.size,
        churn_per_second: plan.churn,
    }
}

struct Coordinator<'scope, 'a> {
    plan: &'a Plan,
    control: &'a Control,
    progress: &'a mut Progress,
    workers: Vec<ScopedJoinHandle<'scope, io::Result<Tally>>>,
    wakers: Vec<Arc<Waker>>,
}

impl Coordinator<'_, '_> {
    fn stages(&mut self, start: Option<Cpu>, samples: &mut Samples) -> Result<(), RunError> {
        self.connect(start, samples)?;

        self.enter(Stage::Idle)?;
        self.hold(Stage::Idle, "idle", self.plan.idle)?;
        samples.memory_connected = self.memory()?;

        if self.plan.publishers > 0 {
            self.enter(Stage::Probe)?;
            let all_heard = |snapshot: &Snapshot| snapshot.outstanding == 0;
            samples.unheard = self.wait(Stage::Probe, "probe", PROBE_LIMIT, all_heard)?.outstanding;
        }

        self.measure(samples)?;

        self.enter(Stage::Tail)?;
        let mut outstanding = u64::MAX;
        while outstanding > 0 {
            let before = outstanding;
            let fewer = |snapshot: &Snapshot| snapshot.outstanding < before;
            outstanding = self.wait(Stage::Tail, "tail", self.plan.tail, fewer)?.outstanding;
            if outstanding >= before {
                break;
            }
        }
        // A server that was told to end meanwhile has no memory to measure.
        samples.memory_after = self.memory().ok().flatten();
        Ok(())
    }

    /// Waits until every member is in, or has failed for good.
    fn connect(&mut self, start: Option<Cpu>, samples: &mut Samples) -> Result<(), RunError> {
        let all = self.plan.connections();
        let patience = (self.plan.connect_timeout * 3).as_nanos() as u64;
        let (mut settled, mut since) = (0, self.control.now());
        loop {
            let snapshot = self
                .look(Stage::Connect, "connect", |snapshot| snapshot.settled as f64 / all as f64)?;
            let now = self.control.now();
            if snapshot.settled > settled {
                (settled, since) = (snapshot.settled, now);
            }
            if settled == all || now - since > patience {
                samples.connect_s = now as f64 / 1e9;
                samples.connected = snapshot.open;
                break;
            }
        }
        thread::sleep(AFTERWORK);
        samples.connect_cpu = spent(start, self.cpu()?);
        Ok(())
    }

    /// Warm-up and window.
    fn measure(&mut self, samples: &mut Samples) -> Result<(), RunError> {
        let ns = |duration: Duration| duration.as_nanos() as u64;
        let start = self.control.now() + ns(LEAD);
        let from = start + ns(self.plan.warmup);
        let window = Window { start, from, to: from + ns(self.plan.duration) };
        self.control.set_window(window);
        self.enter(Stage::Run)?;

        samples.lost_publishers = self.hold(Stage::Run, "warm-up", LEAD + self.plan.warmup)?;
        let own = [std::process::id()];
        let (server, generator) = (self.cpu()?, process::cpu(&own)?);
        let began = self.control.now();
        let left = Duration::from_nanos(window.to.saturating_sub(began));
        samples.lost_publishers |= self.hold(Stage::Run, "measure", left)?;
        // As above: a drained server may be gone.
        samples.window_cpu = spent(server, self.cpu().ok().flatten());
        samples.generator_cpu = Some(process::cpu(&own)?.since(&generator));
        samples.window_s = (self.control.now() - began) as f64 / 1e9;
        Ok(())
    }

    /// Lets time pass; less, when all members are gone for good, or all who were to publish. Whether these are.
    fn hold(&mut self, stage: Stage, name: &'static str, time: Duration) -> Result<bool, RunError> {
        let for_good = !self.plan.reconnect && self.plan.churn == 0.0;
        let publishers = u64::from(self.plan.rooms) * u64::from(self.plan.publishers);
        let lost = |snapshot: &Snapshot| publishers > 0 && snapshot.lost_publishers >= publishers;
        let done = |snapshot: &Snapshot| (for_good && snapshot.open == 0) || lost(snapshot);
        Ok(lost(&self.wait(stage, name, time, done)?))
    }

    /// Waits until `done`, but not for longer than `limit`.
    fn wait(
        &mut self,
        stage: Stage,
        name: &'static str,
        limit: Duration,
        done: impl Fn(&Snapshot) -> bool,
    ) -> Result<Snapshot, RunError> {
        let began = self.control.now();
        let limit_ns = limit.as_nanos() as u64;
        loop {
            let gone = self.control.now() - began;
            let share = gone as f64 / limit_ns.max(1) as f64;
            let snapshot = self.look(stage, name, |_| share)?;
            if done(&snapshot) || self.control.now() - began >= limit_ns {
                return Ok(snapshot);
            }
        }
    }

    /// Waits a moment, or until all workers have come to `stage`, and looks at their counters.
    fn look(
        &mut self,
        stage: Stage,
        name: &'static str,
        done: impl Fn(&Snapshot) -> f64,
    ) -> Result<Snapshot, RunError> {
        loop {
            thread::sleep(LOOK);
            if self.workers.iter().any(ScopedJoinHandle::is_finished) {
                return Err(RunError::WorkerEnded);
            }
            if let Some(snapshot) = self.control.snapshot(stage) {
                self.progress.show(Step { name, done: done(&snapshot) }, &snapshot);
                return Ok(snapshot);
            }
        }
    }

    fn enter(&self, stage: Stage) -> Result<(), RunError> {
        self.control.enter(stage);
        for waker in &self.wakers {
            waker.wake()?;
        }
        Ok(())
    }

    fn cpu(&self) -> Result<Option<Cpu>, ProcessError> {
        measured(&self.plan.server_pids, process::cpu)
    }

    fn memory(&self) -> Result<Option<Memory>, ProcessError> {
        measured(&self.plan.server_pids, process::memory)
    }
}

fn measured<T>(
    pids: &[u32],
    measure: fn(&[u32]) -> Result<T, ProcessError>,
) -> Result<Option<T>, ProcessError> {
    if pids.is_empty() { Ok(None) } else { measure(pids).map(Some) }
}

fn spent(earlier: Option<Cpu>, now: Option<Cpu>) -> Option<Cpu> {
    Some(now?.since(&earlier?))
}
