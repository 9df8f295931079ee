//! What the tests of buses and policy sources share.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Instant,
};

use futures_util::future::{BoxFuture, FutureExt as _};
use hubbub_api::{AuthPolicy, Heartbeat, POLICY_SCHEMA, RoomLimits, RoomName, RoomPolicy};
use hubbub_gateway::{
    bus::{
        Sink,
        nats::{NatsBus, NatsOptions},
    },
    events::{bus::BusEvents, policy::PolicyEvents},
    room::{Policy, Room},
};
use hubbub_telemetry::SpanRef;
use hubbub_websocket::Kind;
use prometheus_client::registry::Registry;
use tokio::{runtime::Handle, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A valid declaration of `namespace/name`.
pub(crate) fn policy(room: &str) -> RoomPolicy {
    RoomPolicy {
        schema: POLICY_SCHEMA,
        room: room.parse::<RoomName>().unwrap(),
        generation: 1,
        pool: "default".to_owned(),
        allowed_origins: vec!["https://chat.example.com".to_owned()],
        require_origin: true,
        auth: AuthPolicy::default(),
        limits: RoomLimits { max_message_bytes: 64 * 1024, ..RoomLimits::default() },
        heartbeat: Heartbeat::default(),
    }
}

/// A room that somebody is in, so that a bus stays in it.
pub(crate) fn room(name: &str) -> Arc<Room> {
    let room =
        Arc::new(Room::new(name.parse().unwrap(), Policy::compile(policy(name)).unwrap(), 2));
    assert!(room.reserve(u64::MAX));
    room
}

/// The happenings, without anybody who reads the metrics.
pub(crate) fn bus_events() -> Arc<BusEvents> {
    Arc::new(BusEvents::register(&mut Registry::default()))
}

/// The same for policies.
pub(crate) fn policy_events() -> Arc<PolicyEvents> {
    Arc::new(PolicyEvents::register(&mut Registry::default()))
}

/// What a room got.
pub(crate) type Got = Vec<(Kind, Vec<u8>)>;

/// A sink that keeps what it gets, and can be made to have no room.
#[derive(Debug)]
pub(crate) struct Recorder {
    got: Mutex<HashMap<u64, Got>>,
    /// Rooms that it has no room for.
    closed: watch::Sender<HashSet<u64>>,
}

impl Recorder {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { got: Mutex::default(), closed: watch::Sender::default() })
    }

    /// Makes the sink take no message of that room.
    pub(crate) fn close(&self, room: &Room) {
        self.closed.send_modify(|closed| _ = closed.insert(room.id()));
    }

    /// Makes it take them again.
    pub(crate) fn open(&self, room: &Room) {
        self.closed.send_modify(|closed| _ = closed.remove(&room.id()));
    }

    pub(crate) fn got(&self, room: &Room) -> Got {
        self.got.lock().unwrap().get(&room.id()).cloned().unwrap_or_default()
    }

    /// Only the payloads, as text.
    pub(crate) fn texts(&self, room: &Room) -> Vec<String> {
        self.got(room).into_iter().map(|(_, p)| String::from_utf8_lossy(&p).into_owned()).collect()
    }

    pub(crate) fn count(&self, room: &Room) -> usize {
        self.got.lock().unwrap().get(&room.id()).map_or(0, Vec::len)
    }
}

impl Sink for Recorder {
    fn deliver(
        &self,
        room: &Arc<Room>,
        kind: Kind,
        payload: &[u8],
        _: Option<SpanRef>,
        _: Instant,
    ) {
        let mut got = self.got.lock().unwrap();
        got.entry(room.id()).or_default().push((kind, payload.to_vec()));
    }

    fn has_room_for(&self, room: &Arc<Room>) -> bool {
        !self.closed.borrow().contains(&room.id())
    }

    fn ready<'a>(&'a self, room: &'a Arc<Room>) -> BoxFuture<'a, ()> {
        let mut closed = self.closed.subscribe();
        async move {
            closed.wait_for(|closed| !closed.contains(&room.id())).await.unwrap();
        }
        .boxed()
    }
}

/// A gateway's bus over NATS, with what a test looks at.
pub(crate) struct NatsGateway {
    pub(crate) bus: Arc<NatsBus>,
    pub(crate) sink: Arc<Recorder>,
    pub(crate) events: Arc<BusEvents>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl NatsGateway {
    /// With two connections, as a gateway with two shards has them.
    pub(crate) async fn connect(options: &NatsOptions) -> Self {
        Self::connect_times(2, options).await
    }

    pub(crate) async fn connect_times(connections: usize, options: &NatsOptions) -> Self {
        let (sink, events) = (Recorder::new(), bus_events());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let here = vec![Handle::current(); connections];
        let bus = NatsBus::connect(
            options,
            &here,
            sink.clone(),
            Arc::clone(&events),
            &tasks,
            stop.clone(),
        );
        Self { bus: Arc::new(bus.await.unwrap()), sink, events, tasks, stop }
    }
}

impl Drop for NatsGateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
