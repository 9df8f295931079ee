//! The write path of a shard: from the bus, framed once, to the sockets of a room's members.
//!
//! One shard and real sockets over loopback, driven as the bus drives it. Measured is the CPU time of the process until
//! the last member has the last byte, and not the time on the clock, of which a busy room rests a part. Reading is in it:
//! the same on both sides of a comparison.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark is no interface, and may fail where it stands"
)]

use std::{
    io::Read as _,
    net::{Ipv4Addr, TcpListener, TcpStream},
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{
    Criterion, Throughput, criterion_group, criterion_main,
    measurement::{Measurement, ValueFormatter, WallTime},
};
use hubbub_api::{Access, AuthPolicy, Heartbeat, POLICY_SCHEMA, RoomLimits, RoomPolicy};
use hubbub_gateway::{
    bus::{Sink as _, local::LocalBus},
    engine::{Arrival, Engine, Pass},
    events::engine::EngineEvents,
    limits::{LimitOptions, Limits},
    room::{Policy, Room},
};
use hubbub_telemetry::Traces;
use hubbub_websocket::Kind;
use prometheus_client::registry::Registry;
use rustix::time::{ClockId, clock_gettime};

/// Bytes of a message; of its frame, two more for the length beside the two of the header.
const MESSAGE: [u8; 128] = [b'x'; 128];
const FRAME: usize = MESSAGE.len() + 4;

/// User and system time of this process.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap()
    }

    fn end(&self, start: Duration) -> Duration {
        self.start() - start
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        // It counts in nanoseconds as well.
        WallTime.formatter()
    }
}

/// A room on one shard, and its members' ends of their connections.
struct World {
    engine: Arc<Engine>,
    room: Arc<Room>,
    members: Vec<TcpStream>,
}

impl World {
    fn new(members: usize) -> Self {
        let events = EngineEvents::register(&mut Registry::default(), Traces::off());
        let limits = Arc::new(Limits::new(LimitOptions::default(), usize::MAX));
        let engine = Engine::start(NonZeroUsize::MIN, "default", events, limits).unwrap();
        engine.connect(Arc::new(LocalBus::new(Arc::clone(&engine) as _)));
        let declared = RoomPolicy {
            schema: POLICY_SCHEMA,
            room: "bench/room".parse().unwrap(),
            generation: 1,
            pool: "default".to_owned(),
            allowed_origins: vec!["*".to_owned()],
            require_origin: false,
            auth: AuthPolicy::default(),
            limits: RoomLimits::default(),
            heartbeat: Heartbeat::default(),
        };
        let policy = Policy::compile(declared).unwrap();
        let room = Arc::new(Room::new("bench/room".parse().unwrap(), policy, engine.shards()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let enter = |_| {
            assert!(room.reserve(u64::MAX));
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (socket, peer) = listener.accept().unwrap();
            socket.set_nonblocking(true).unwrap();
            socket.set_nodelay(true).unwrap();
            let arrival = Arrival { peer, connection: None, handshake: None };
            engine
                .reserve(&room, Pass { access: Access::ReadWrite, ..Pass::default() }, arrival)
                .enter(socket, Bytes::new());
            client
        };
        let members = (0..members).map(enter).collect();
        let mut world = Self { engine, room, members };
        // Whoever has heard this is in.
        world.say(1);
        world
    }

    /// Has so many messages delivered, and waits until every member has them all.
    fn say(&mut self, messages: usize) {
        for _ in 0..messages {
            self.engine.deliver(&self.room, Kind::Text, &MESSAGE, None, Instant::now());
        }
        let mut buffer = vec![0; messages * FRAME];
        for member in &mut self.members {
            member.read_exact(&mut buffer).unwrap();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.members.clear();
        self.engine.cut();
        self.engine.stop();
    }
}

fn write_path(criterion: &mut Criterion<CpuTime>) {
    for (members, messages) in [(1, 1), (100, 1), (100, 32)] {
        let mut world = World::new(members);
        let mut group = criterion.benchmark_group("shard");
        group.throughput(Throughput::Elements((members * messages) as u64));
        group.bench_function(format!("{messages} to {members} members"), |bencher| {
            bencher.iter(|| world.say(messages));
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = write_path
}
criterion_main!(benches);
