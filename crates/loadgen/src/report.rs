//! The report of a run: everything that was counted, as JSON for programs and as text for people.

use std::{collections::BTreeMap, fmt};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    closes::{Spread, spreads},
    comebacks::Comebacks,
    process::{Cpu, Memory},
    protocol::Protocol,
    tally::Tally,
    timeline::Slice,
    verify::Faults,
};

/// Times in milliseconds, from a histogram.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "the names are the statistics")]
pub struct Times {
    pub count: u64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Times {
    /// The statistics of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            count: histogram.len(),
            mean: histogram.mean() / 1e6,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1e6,
        }
    }
}

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "each field is the option of its name")]
pub struct Asked {
    pub addresses: Vec<String>,
    pub protocol: Protocol,
    pub rooms: u32,
    pub members_per_room: u32,
    pub publishers_per_room: u32,
    pub slow_per_room: u32,
    pub messages_per_second_and_room: f64,
    pub message_bytes: usize,
    pub churn_per_second: f64,
}

/// How the members came in.
#[derive(Clone, Debug, Serialize)]
pub struct Connecting {
    /// Members that got in.
    pub connected: u64,

    /// Failed handshakes and connections, and messages that a protocol with answers refused, by reason.
    pub failures: BTreeMap<String, u64>,

    /// From the first connect call to the last answer.
    pub seconds: f64,

    /// Members that got in a second.
    pub per_second: f64,

    /// From the connect call to the 101, or to the answer that the room's channel is subscribed.
    pub handshake_ms: Times,

    /// The server's CPU time meanwhile.
    pub server_cpu: Option<Cpu>,

    /// The same for one member, in microseconds.
    pub server_cpu_us_per_connect: Option<f64>,
}

/// The measured window.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// Its length.
    pub seconds: f64,

    /// Messages due and sent in it.
    pub sent: u64,

    /// Messages due in the whole run but not sent: their publisher was away, or not read from.
    pub unsent: u64,

    /// Deliveries in it.
    pub deliveries: u64,

    /// The same a second.
    pub deliveries_per_second: f64,

    /// From a message's due time to its arrival at each member.
    pub latency_ms: Times,

    /// How both went over the window: by seconds, or finer or coarser where it is very short or long.
    pub over_time: Vec<Slice>,

    /// From a message's due time to its sending: how late the generator itself was.
    pub send_lateness_ms: Times,

    /// Pings answered in it.
    pub pings: u64,

    /// Members that left, and that joined in their place, in the whole run.
    pub leaves: u64,

    /// See `leaves`.
    pub joins: u64,

    /// Members that came back after a close.
    pub reconnects: u64,

    /// How they came back.
    pub comebacks: Option<Comebacks>,

    /// The server's CPU time in it.
    pub server_cpu: Option<Cpu>,

    /// CPU seconds a million deliveries, which are microseconds a delivery.
    pub server_cpu_s_per_million: Option<f64>,

    /// CPU time of this program in it.
    pub generator_cpu: Option<Cpu>,
}

/// The server's memory between the phases.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MemoryUse {
    /// Before the first member.
    pub before: Memory,

    /// With all members in, before the first message.
    pub connected: Option<Memory>,

    /// With all members in, after the last message.
    pub after: Option<Memory>,

    /// Resident bytes a member, idle.
    pub rss_per_member: Option<f64>,

    /// Resident bytes a member, after load.
    pub rss_per_member_after: Option<f64>,
}

/// Whether all was well.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// No fault, no failed handshake, nobody thrown out.
    pub passed: bool,

    /// Deliveries verified, in and out of the window.
    pub deliveries: u64,

    /// Deviations.
    pub faults: Faults,

    /// Members that the server closed with no option expecting it.
    pub thrown_out: u64,

    /// The server closed all publishers with no option expecting it, so the run ended before its time.
    pub lost_publishers: bool,

    /// Pairs of member and publisher that no probe had crossed when the load began.
    pub unheard: u64,

    /// Violations of RFC 6455, or of the protocol inside its frames, by the server.
    pub violations: BTreeMap<&'static str, u64>,

    /// Messages in the rooms that were not of this run.
    pub foreign: u64,
}

/// The whole report.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "documented at their types")]
pub struct Report {
    pub version: &'static str,
    pub asked: Asked,
    pub connecting: Connecting,
    pub load: Load,
    pub memory: Option<MemoryUse>,
    pub verification: Verification,
    /// Connections that the server ended, by close code; 1005: no code; 1006: no close frame.
    pub closes: BTreeMap<u16, Spread>,
    /// Those among them that did not read on purpose, by close code.
    pub slow_closes: BTreeMap<u16, u64>,
    /// All latencies, in nanoseconds; what is told of them stands in `load`.
    #[serde(skip)]
    pub histogram: Histogram<u64>,
}

/// What the coordinator measured beside the workers' tally.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Samples {
    pub(crate) connect_s: f64,
    pub(crate) connected: u64,
    pub(crate) window_s: f64,
    pub(crate) unheard: u64,
    pub(crate) lost_publishers: bool,
    pub(crate) connect_cpu: Option<Cpu>,
    pub(crate) window_cpu: Option<Cpu>,
    pub(crate) generator_cpu: Option<Cpu>,
    pub(crate) memory_before: Option<Memory>,
    pub(crate) memory_connected: Option<Memory>,
    pub(crate) memory_after: Option<Memory>,
}

impl Report {
    pub(crate) fn new(asked: Asked, samples: &Samples, tally: &Tally) -> Self {
        let connected = samples.connected;
        let per_member = |memory: Option<Memory>| {
            let grown = memory?.rss as f64 - samples.memory_before?.rss as f64;
            (connected > 0).then(|| grown / connected as f64)
        };
        let passed = tally.faults.total() == 0
            && tally.thrown_out == 0
            && tally.failures.is_empty()
            && tally.violations.is_empty()
            && samples.unheard == 0
            && !samples.lost_publishers
            && tally.unsent_held_back == 0;
        let mut slow_closes = BTreeMap::new();
        for closed in tally.closes.iter().filter(|closed| closed.slow) {
            *slow_closes.entry(closed.code).or_default() += 1;
        }
        let deliveries = tally.delivered_in_window;
        Self {
            version: env!("CARGO_PKG_VERSION"),
            asked,
            connecting: Connecting {
                connected,
                failures: tally.failures.clone(),
                seconds: samples.connect_s,
                per_second: connected as f64 / samples.connect_s.max(1e-9),
                handshake_ms: Times::of(&tally.handshakes),
                server_cpu: samples.connect_cpu,
                server_cpu_us_per_connect: samples
                    .connect_cpu
                    .filter(|_| connected > 0)
                    .map(|cpu| cpu.total_s() * 1e6 / connected as f64),
            },
            load: Load {
                seconds: samples.window_s,
                sent: tally.sent_in_window,
                unsent: tally.unsent_away + tally.unsent_held_back,
                deliveries,
                deliveries_per_second: deliveries as f64 / samples.window_s.max(1e-9),
                latency_ms: Times::of(&tally.latency),
                over_time: tally.timeline.slices(),
                send_lateness_ms: Times::of(&tally.lateness),
                pings: tally.pings_in_window,
                leaves: tally.leaves,
                joins: tally.joins,
                reconnects: tally.reconnects,
                comebacks: Comebacks::of(&tally.absences),
                server_cpu: samples.window_cpu,
                server_cpu_s_per_million: samples
                    .window_cpu
                    .filter(|_| deliveries > 0)
                    .map(|cpu| cpu.total_s() * 1e6 / deliveries as f64),
                generator_cpu: samples.generator_cpu,
            },
            memory: samples.memory_before.map(|before| MemoryUse {
                before,
                connected: samples.memory_connected,
                after: samples.memory_after,
                rss_per_member: per_member(samples.memory_connected),
                rss_per_member_after: per_member(samples.memory_after),
            }),
            verification: Verification {
                passed,
                deliveries: tally.delivered,
                faults: tally.faults,
                thrown_out: tally.thrown_out,
                lost_publishers: samples.lost_publishers,
                unheard: samples.unheard,
                violations: tally.violations.clone(),
                foreign: tally.foreign,
            },
            closes: spreads(&tally.closes),
            slow_closes,
            histogram: tally.latency.clone(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, connecting, load, verification, .. } = self;
        writeln!(
            f,
            "members    {} of {} in {} room(s), {:.2} s, {:.0}/s; handshake p50 {:.2} p99 {:.2} max {:.2} ms",
            connecting.connected,
            u64::from(asked.rooms) * u64::from(asked.members_per_room),
            asked.rooms,
            connecting.seconds,
            connecting.per_second,
            connecting.handshake_ms.p50,
            connecting.handshake_ms.p99,
            connecting.handshake_ms.max,
        )?;
        for (reason, count) in &connecting.failures {
            writeln!(f, "           {count} × {reason}")?;
        }
        writeln!(
            f,
            "load       {} messages of {} bytes sent, {} deliveries in {:.1} s, {:.0}/s",
            load.sent,
            asked.message_bytes,
            load.deliveries,
            load.seconds,
            load.deliveries_per_second,
        )?;
        if load.unsent > 0 {
            writeln!(f, "           {} messages could not be sent", load.unsent)?;
        }
        if load.latency_ms.count > 0 {
            let times = &load.latency_ms;
            writeln!(
                f,
                "latency    p50 {:.3}  p90 {:.3}  p99 {:.3}  p99.9 {:.3}  max {:.3} ms (sent late by p99 {:.3} ms)",
                times.p50, times.p90, times.p99, times.p999, times.max, load.send_lateness_ms.p99,
            )?;
        }
        if load.leaves + load.joins + load.reconnects + load.pings > 0 {
            writeln!(
                f,
                "members    {} left, {} joined, {} came back, {} pings answered",
                load.leaves, load.joins, load.reconnects, load.pings,
            )?;
        }
        if let Some(comebacks) = &load.comebacks {
            writeln!(f, "came back  {comebacks}")?;
        }
        if let Some(cpu) = load.server_cpu {
            write!(f, "server     {:.2} CPU s (user {:.2})", cpu.total_s(), cpu.user_s)?;
            if let Some(cost) = load.server_cpu_s_per_million {
                write!(f, ", {cost:.3} per million deliveries")?;
            }
            if let Some(cost) = connecting.server_cpu_us_per_connect {
                write!(f, "; {cost:.1} µs per connect")?;
            }
            writeln!(f)?;
        }
        if let Some(memory) = &self.memory
            && let (Some(idle), Some(after)) = (memory.rss_per_member, memory.rss_per_member_after)
        {
            writeln!(
                f,
                "memory     {idle:.0} resident bytes per idle member, {after:.0} after load"
            )?;
        }
        for (code, spread) in &self.closes {
            writeln!(f, "closed     {code}: {spread}")?;
        }
        let Faults { missing, doubled, reordered, misrouted, corrupt } = verification.faults;
        writeln!(
            f,
            "verified   {} deliveries: {missing} missing, {doubled} doubled, {reordered} reordered, \
             {misrouted} misrouted, {corrupt} corrupt; {} thrown out",
            verification.deliveries, verification.thrown_out,
        )?;
        if verification.lost_publishers {
            writeln!(
                f,
                "           every publisher was closed or kept out, so there was nothing left to measure: the run ended early"
            )?;
        }
        if verification.unheard > 0 {
            let unheard = verification.unheard;
            writeln!(f, "           {unheard} members never heard a publisher's probe")?;
        }
        for (violation, count) in &verification.violations {
            writeln!(f, "           {count} × violation of the protocol: {violation}")?;
        }
        write!(f, "{}", if verification.passed { "PASSED" } else { "FAILED" })
    }
}
