//! A worker: one thread, one epoll, and its share of the members.
//!
//! No task, timer or buffer belongs to a member. Sockets are read into one shared buffer and parsed
//! there; a timer descriptor wakes the loop when something is due, to the microsecond, which
//! epoll's own timeout of whole milliseconds would not. That keeps the generator cheap
//! beside the server it shares a machine with, and its own delay out of the latencies.

mod hearing;
mod members;
mod publishing;
mod signs;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hubbub_websocket::write_close;
use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::{
    control::{Control, Stage},
    link::Phase,
    plan::{Part, Plan},
    protocol::Sign,
    random::Random,
    reconnect::Cause,
    schedule::Schedule,
    tally::Tally,
};
use hearing::{Ears, Hearing};
use members::Member;
use publishing::Publishing;

const WAKER: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);

/// The shared read buffer: room for what a busy room sends a member between two turns.
const BUFFER_BYTES: usize = 128 * 1024;

/// How often deadlines and waits are looked at.
const TICK_NS: u64 = 20_000_000;

/// A server that does not answer a close for so long is not waited for.
const LEAVE_WAIT_NS: u64 = 5_000_000_000;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Worker<'a> {
    plan: &'a Plan,
    control: &'a Control,
    id: usize,
    poll: Poll,
    timer: Timer,
    /// The time of the turn or of the last read: nanoseconds of the run's clock.
    now: u64,
    stage: Stage,
    hearing: Hearing<'a>,
    members: Vec<Member>,
    publishing: Publishing,
    random: Random,
    tally: Tally,

    /// Members to be connected when it is their turn.
    waiting: VecDeque<usize>,
    /// Members to come back, by time.
    returns: BinaryHeap<Reverse<(u64, usize)>>,
    in_flight: u32,
    next_connect: u64,
    churned: u64,
    churn_cursor: usize,
    next_tick: u64,
    settled: u64,
    open: u64,
    lost_publishers: u64,
    outstanding: u64,

    buffer: Box<[u8]>,
    scratch: Vec<u8>,
    message: Vec<u8>,
    /// A message as the protocol has it.
    wrapped: Vec<u8>,
    /// What a frame said beside messages.
    signs: Vec<Sign>,
}

impl<'a> Worker<'a> {
    /// Worker `id` of the plan's, with its share of the members, and the means to wake it.
    pub(crate) fn new(
        plan: &'a Plan,
        control: &'a Control,
        id: usize,
    ) -> io::Result<(Self, Arc<Waker>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let timer = Timer::new(&poll)?;
        let mut members = Vec::new();
        let mut publishing = Publishing::default();
        for index in (id as u64..plan.connections()).step_by(plan.threads as usize) {
            let (room, part) = plan.seat(index);
            if let Some(place) = publishing::place(part) {
                let schedule = Schedule::new(plan.rate, room as usize, plan.rooms as usize);
                publishing.add(members.len(), room, place, schedule);
            }
            members.push(Member::new(index, room, part, Ears::new(plan, room, part)));
        }
        let worker = Self {
            plan,
            control,
            id,
            poll,
            timer,
            now: 0,
            stage: Stage::Connect,
            hearing: Hearing::new(plan, control),
            waiting: (0..members.len()).collect(),
            members,
            publishing,
            random: Random::from_system(),
            tally: Tally::new(plan.duration),
            returns: BinaryHeap::new(),
            in_flight: 0,
            next_connect: 0,
            churned: 0,
            churn_cursor: 0,
            next_tick: 0,
            settled: 0,
            open: 0,
            lost_publishers: 0,
            outstanding: 0,
            buffer: vec![0; BUFFER_BYTES].into(),
            scratch: Vec::new(),
            message: Vec::new(),
            wrapped: Vec::new(),
            signs: Vec::new(),
        };
        Ok((worker, waker))
    }

    /// Works until the coordinator ends the run.
    ///
    /// # Errors
    /// When epoll or the timer fail, which they do not in a sound system.
    pub(crate) fn run(mut self) -> io::Result<Tally> {
        let mut events = Events::with_capacity(1024);
        loop {
            self.now = self.control.now();
            self.follow_stage();
            if self.stage == Stage::Stop {
                return Ok(self.finish());
            }
            self.turn();
            self.report();
            self.wait(&mut events)?;
            for event in &events {
                if event.token().0 >= TIMER.0 {
                    continue;
                }
                let ending = event.is_read_closed() || event.is_write_closed() || event.is_error();
                self.ready(event.token().0, event.is_writable(), event.is_readable(), ending);
                // A batch of a thousand sockets must not make a message late.
                if self.publishing.next().is_some_and(|due| due <= self.now) {
                    self.publish();
                }
            }
        }
    }

    fn follow_stage(&mut self) {
        let stage = self.control.stage();
        if stage == self.stage {
            return;
        }
        self.stage = stage;
        self.hearing = Hearing::new(self.plan, self.control);
        match stage {
            Stage::Connect | Stage::Idle | Stage::Stop => {}
            Stage::Probe => self.publishing.begin_probing(self.now),
            Stage::Run => self.publishing.begin(self.hearing.window),
            Stage::Tail => {
                self.publishing.end();
                self.waiting.clear();
                self.returns.clear();
                for local in 0..self.members.len() {
                    if self.members[local].part == Part::Slow {
                        self.read(local, true);
                    }
                }
            }
        }
        self.look_over();
    }

    /// Does what is due.
    fn turn(&mut self) {
        self.publish();
        while let Some(&Reverse((due, local))) = self.returns.peek()
            && due <= self.now
        {
            self.returns.pop();
            self.waiting.push_back(local);
        }
        while self.may_connect() && self.next_connect <= self.now {
            let Some(local) = self.waiting.pop_front() else { break };
            self.connect(local);
            if self.plan.ramp > 0.0 {
                let interval = 1e9 * f64::from(self.plan.threads) / self.plan.ramp;
                self.next_connect = self.next_connect.max(self.now) + interval as u64;
            }
        }
        if self.next_churn().is_some_and(|due| due <= self.now) {
            self.churned += 1;
            self.churn();
        }
        if self.next_tick <= self.now {
            self.next_tick = self.now + TICK_NS;
            self.look_over();
        }
    }

    fn may_connect(&self) -> bool {
        self.in_flight < self.plan.concurrency.div_ceil(self.plan.threads)
    }

    /// When the next member should leave.
    fn next_churn(&self) -> Option<u64> {
        if self.stage != Stage::Run || self.plan.churn == 0.0 {
            return None;
        }
        let threads = self.plan.threads as usize;
        let due = Schedule::new(self.plan.churn / threads as f64, self.id, threads)
            .due_ns(self.churned)
            .saturating_add(self.hearing.window.start);
        (due < self.hearing.window.to).then_some(due)
    }

    /// Lets the next passing member that is in its room leave; nobody, if all are on their way.
    fn churn(&mut self) {
        for _ in 0..self.members.len() {
            let local = self.churn_cursor;
            self.churn_cursor = (local + 1) % self.members.len();
            if self.members[local].part == Part::Passing && self.members[local].is_open() {
                self.leave(local);
                return;
            }
        }
    }

    /// Ends what has taken too long, and counts what is still awaited.
    fn look_over(&mut self) {
        let timeout_ns = self.plan.connect_timeout.as_nanos() as u64;
        if self.in_flight > 0 || self.plan.churn > 0.0 {
            for local in 0..self.members.len() {
                let Some(link) = &self.members[local].link else { continue };
                let age = self.now.saturating_sub(link.since_ns);
                match link.phase {
                    Phase::Connecting | Phase::Handshake(_) | Phase::Joining { .. }
                        if age > timeout_ns =>
                    {
                        self.connect_failed(local, "no answer in time", Cause::Unreachable);
                    }
                    Phase::Leaving if age > LEAVE_WAIT_NS => {
                        self.tally.failure("a leaving member's close was not answered".to_owned());
                        self.left(local);
                    }
                    _ => {}
                }
            }
        }
        let present = self.members.iter().filter(|member| member.is_open());
        self.outstanding = match self.stage {
            Stage::Probe => present.map(|member| member.ears.unheard()).sum(),
            Stage::Tail => present.map(|member| member.ears.outstanding(self.control)).sum(),
            Stage::Connect | Stage::Idle | Stage::Run | Stage::Stop => 0,
        };
    }

    fn report(&self) {
        let counters = &self.control.counters[self.id];
        let store = |counter: &AtomicU64, value| counter.store(value, Ordering::Relaxed);
        store(&counters.settled, self.settled);
        store(&counters.open, self.open);
        store(&counters.lost_publishers, self.lost_publishers);
        store(&counters.sent, self.tally.sent);
        store(&counters.delivered, self.tally.delivered);
        store(&counters.closed, self.tally.closes.len() as u64);
        store(&counters.outstanding, self.outstanding);
        counters.stage.store(self.stage as u8, Ordering::Release);
    }

    /// Sleeps until a socket, the coordinator or the clock wants something.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let connect = (!self.waiting.is_empty() && self.may_connect()).then_some(self.next_connect);
        let back = self.returns.peek().map(|Reverse((due, _))| *due);
        let others = [connect, back, self.next_churn(), self.publishing.next()];
        let due = others.into_iter().flatten().fold(self.next_tick, u64::min);
        let now = self.control.now();
        let timeout = if due <= now {
            Some(Duration::ZERO)
        } else {
            self.timer.set(due, now)?;
            None
        };
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result,
        }
    }

    /// Draws the balance and says goodbye.
    fn finish(mut self) -> Tally {
        for member in &mut self.members {
            if member.came_back {
                self.tally.absences.missed(member.ears.missed());
            }
            if !member.is_open() {
                continue;
            }
            self.tally.faults.missing += member.ears.outstanding(self.control);
            if let Some(link) = &mut member.link {
                self.scratch.clear();
                write_close(&mut self.scratch, Some(self.random.key()), 1000, "");
                // If it cannot be told, the end of the connection tells it.
                let _ = link.send(&self.scratch);
            }
        }
        self.tally
    }
}

/// A timer that wakes an epoll loop.
#[derive(Debug)]
struct Timer {
    descriptor: OwnedFd,
    /// What it is set to.
    due: u64,
}

impl Timer {
    fn new(poll: &Poll) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let descriptor = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let raw = descriptor.as_raw_fd();
        poll.registry().register(&mut SourceFd(&raw), TIMER, Interest::READABLE)?;
        Ok(Self { descriptor, due: 0 })
    }

    /// Wakes at `due`, which lies after `now`. It need not be read: setting it anew resets it.
    fn set(&mut self, due: u64, now: u64) -> io::Result<()> {
        if due == self.due {
            return Ok(());
        }
        self.due = due;
        let wait = due - now;
        let it_value = Timespec {
            tv_sec: (wait / 1_000_000_000) as i64,
            tv_nsec: (wait % 1_000_000_000) as _,
        };
        let once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = Itimerspec { it_interval: once, it_value };
        timerfd_settime(&self.descriptor, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }
}
