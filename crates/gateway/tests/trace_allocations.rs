//! A message that is not traced costs nothing for it: as many allocations with tracing on as with it off, on its whole
//! way through this process, over both buses.
//!
//! All threads are counted, the client's among them, so the test has a program of its own.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

use std::{alloc::System, num::NonZeroUsize, time::Duration};

use hubbub_gateway::{
    bus::nats::NatsOptions,
    drain::DrainTimes,
    gateway::{Config, Gateway, Policies},
    limits::LimitOptions,
};
use hubbub_telemetry::{LogFormat, Program, Traces, init_with};
use hubbub_testkit::{Client, NatsServer, OPEN, Opcode, Received, RoomsFile, http};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MESSAGES: usize = 1000;
const ROUNDS: usize = 5;

/// More than one thread serves alone: the room is spread over both.
const CROWD: usize = 160;
const MESSAGES_TO_CROWD: usize = 50;

/// So small a share that none of the messages here is in it, and not nothing: each message is decided upon.
const NONE_OF_THEM: &str = "1e-15";

/// Traces at this ratio, to a collector that is never there.
fn traces(ratio: &'static str) -> Traces {
    let program = Program { service: "test", version: "0", instance: "test".to_owned() };
    let set = move |name: &str| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://127.0.0.1:1".to_owned()),
        "OTEL_TRACES_SAMPLER_ARG" => Some(ratio.to_owned()),
        // Only what is on the way of the messages counts here.
        "OTEL_BSP_SCHEDULE_DELAY" => Some("3600000".to_owned()),
        _ => None,
    };
    Traces::start(&program, &set).unwrap()
}

/// A gateway with a member in it who hears itself.
struct Talker {
    gateway: Gateway,
    member: Client,
}

impl Talker {
    async fn start(
        file: &RoomsFile,
        nats: Option<&NatsServer>,
        traces: Traces,
        shards: NonZeroUsize,
    ) -> Self {
        let gateway = Gateway::start(Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            admin_listen: "127.0.0.1:0".parse().unwrap(),
            tls: None,
            policies: Policies::Files(vec![file.path()]),
            nats: nats.map(|nats| NatsOptions::new(nats.url(), "gw")),
            pool: "default".to_owned(),
            gateway: format!("gw-{:x}", fastrand::u64(..)),
            default_room: None,
            drain: DrainTimes {
                settle: Duration::ZERO,
                window: Duration::ZERO,
                deadline: Duration::from_secs(1),
            },
            shards,
            max_connections: 1000,
            limits: LimitOptions::default(),
            memory_limit: None,
            open_files: None,
            room_metrics: true,
            traces,
            trust_traceparent: false,
        })
        .await
        .unwrap();
        while http::get(gateway.admin_address(), "/readyz").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let member = Client::join(gateway.address(), "/rooms/demo/lobby", None).await.unwrap();
        Self { gateway, member }
    }

    /// Allocations of one message after the other, each sent when the one before is back.
    async fn allocations(&mut self) -> usize {
        let region = Region::new(ALLOCATOR);
        for _ in 0..MESSAGES {
            self.member.send_frame(true, Opcode::Binary, b"\xffhello").await.unwrap();
            assert_eq!(self.member.next_message().await, Received::Binary(b"\xffhello".to_vec()));
        }
        region.change().allocations
    }

    async fn end(self) {
        drop(self.member);
        self.gateway.drain().begin("the test");
        self.gateway.run().await;
    }
}

fn median(mut counts: Vec<usize>) -> usize {
    counts.sort_unstable();
    counts[counts.len() / 2]
}

/// Allocations a message with each of these, taken in turn.
async fn measured<const N: usize>(nats: Option<&NatsServer>, traces: [&Traces; N]) -> [f64; N] {
    let file = RoomsFile::lobby(OPEN);
    let mut counts = [const { Vec::new() }; N];
    for _ in 0..ROUNDS {
        for (traces, counts) in traces.into_iter().zip(&mut counts) {
            let mut talker = Talker::start(&file, nats, traces.clone(), NonZeroUsize::MIN).await;
            talker.allocations().await; // until buffers have their size
            counts.push(talker.allocations().await);
            talker.end().await;
        }
    }
    counts.map(|counts| median(counts) as f64 / MESSAGES as f64)
}

/// Allocations a message in a room that two threads serve, with each of these.
async fn measured_in_a_crowd<const N: usize>(traces: [&Traces; N]) -> [f64; N] {
    let (file, two) = (RoomsFile::lobby(OPEN), NonZeroUsize::new(2).unwrap());
    let mut counts = [const { Vec::new() }; N];
    for _ in 0..ROUNDS {
        for (traces, counts) in traces.into_iter().zip(&mut counts) {
            let mut talker = Talker::start(&file, None, traces.clone(), two).await;
            let mut crowd = Vec::new();
            for _ in 1..CROWD {
                crowd.push(
                    Client::join(talker.gateway.address(), "/rooms/demo/lobby", None)
                        .await
                        .unwrap(),
                );
            }
            let mut allocations = 0;
            for _ in 0..2 {
                // The first time buffers get their size.
                let region = Region::new(ALLOCATOR);
                for _ in 0..MESSAGES_TO_CROWD {
                    talker.member.send_frame(true, Opcode::Binary, b"\xffhello").await.unwrap();
                    for member in crowd.iter_mut().chain([&mut talker.member]) {
                        let heard = member.next_message().await;
                        assert_eq!(heard, Received::Binary(b"\xffhello".to_vec()));
                    }
                }
                allocations = region.change().allocations;
            }
            counts.push(allocations);
            drop(crowd);
            talker.end().await;
        }
    }
    counts.map(|counts| median(counts) as f64 / MESSAGES_TO_CROWD as f64)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_not_traced_allocates_nothing_for_it() {
    let (on, every) = (traces(NONE_OF_THEM), traces("1"));
    init_with("error", LogFormat::Json, &on).unwrap();
    let nats = NatsServer::start().await;
    let buses = [("in-process", None), ("NATS", Some(&nats))];
    let mut without = Vec::new();
    for (bus, nats) in buses {
        let [off, on] = measured(nats, [&Traces::off(), &on]).await;
        println!("{bus}: {off} allocations a message with tracing off, {on} with it on");
        // One more in every message would be 1; what runs beside makes some hundredths.
        assert!((on - off).abs() < 0.5, "{bus}: {off} off, {on} on");
        without.push(off);
    }
    let [off, on] = measured_in_a_crowd([&Traces::off(), &on]).await;
    println!("{CROWD} members: {off} allocations a message with tracing off, {on} with it on");
    // The clients are of this process and allocate by how what they read happens to be cut, some of 500 more or less. One
    // more for every member would be 160, and a span of its own some 50.
    assert!((on - off).abs() < 25.0, "{CROWD} members: {off} off, {on} on");
    // Last, because the exporter has work then: that this test can see what a traced message costs.
    for ((bus, nats), without) in buses.into_iter().zip(without) {
        let [traced] = measured(nats, [&every]).await;
        println!("{bus}: {traced} allocations a message that is traced");
        assert!(traced > without + 5.0, "{bus}: {traced} traced, {without} not");
    }
}
