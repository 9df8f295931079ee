//! The parts put together: a gateway from its configuration to its end.

use std::{
    collections::BTreeMap, io, net::SocketAddr, num::NonZeroUsize, path::PathBuf, sync::Arc,
};

use hubbub_api::{DrainReport, RoomName};
use hubbub_telemetry::Traces;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin::{self, Admin},
    bus::{
        Bus, Sink,
        local::LocalBus,
        nats::{NatsBus, NatsBusError, NatsOptions},
    },
    descriptors,
    drain::{Drain, DrainTimes, Phase, Receipt},
    engine::Engine,
    entrance::{Alone, Elsewhere, Entrance},
    events::{
        DrainEvents, EngineEvents, HttpEvents, MemoryEvents, RoomMetrics, TaskMetrics, TlsEvents,
        Traced, bus::BusEvents, policy::PolicyEvents,
    },
    limits::{LimitOptions, Limits},
    listener::{self, Listener, Site},
    memory::Memory,
    policy::{
        PolicyHealth, PolicySource,
        files::{FilesError, FilesSource},
        nats::BucketSource,
    },
    public::{self, Public},
    rates::Rates,
    reports::{ReportSource, Reports},
    room::{Applied, Room, Rooms},
    tls::{self, TlsError, TlsFiles},
};

/// Where rooms come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policies {
    /// Files of `ChatRoom` documents, watched.
    Files(Vec<PathBuf>),
    /// The key-value bucket that the operator fills.
    Bucket,
}

/// What a gateway needs to know.
#[derive(Debug)]
pub struct Config {
    /// Where members come in.
    pub listen: SocketAddr,
    /// Where probes, metrics and the drain hook come in.
    pub admin_listen: SocketAddr,
    /// The certificate with which members come in by TLS, or none for plain sockets.
    pub tls: Option<TlsFiles>,
    /// Where rooms come from.
    pub policies: Policies,
    /// NATS, or none for the in-process bus.
    pub nats: Option<NatsOptions>,
    /// The pool that this gateway belongs to.
    pub pool: String,
    /// This gateway's name, unique in its pool.
    pub gateway: String,
    /// The room at `/ws`.
    pub default_room: Option<RoomName>,
    /// The times of the drain.
    pub drain: DrainTimes,
    /// Threads that write to sockets.
    pub shards: NonZeroUsize,
    /// Connections that this gateway may have.
    pub max_connections: usize,
    /// What else is limited at the door.
    pub limits: LimitOptions,
    /// Bytes of memory that this process may use; none for what its control group may.
    pub memory_limit: Option<u64>,
    /// The limit of open files, of which each connection needs one; none for no limit.
    pub open_files: Option<u64>,
    /// Whether metrics by room are exported.
    pub room_metrics: bool,
    /// Whether and which spans are collected.
    pub traces: Traces,
    /// Whether the trace of a client's `traceparent` goes on here; otherwise it is linked to.
    pub trust_traceparent: bool,
}

/// Why a gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address}; free the port or choose another with {flag} (port 0 takes any free one)"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The flag that names it.
        flag: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The rooms files are not in order.
    #[error("the rooms files are not in order:\n{0}")]
    Files(#[from] FilesError),
    /// The bus cannot work as it is configured.
    #[error(transparent)]
    Nats(#[from] NatsBusError),
    /// Policies from the bucket without NATS.
    #[error("policies from NATS need NATS: give --nats URL, or --rooms FILE for rooms from files")]
    BucketWithoutNats,
    /// Certificate and key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system refuses threads or epoll.
    #[error("cannot start the shards: {0}")]
    Shards(#[source] io::Error),
}

/// A gateway that serves.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    admin_address: SocketAddr,
    entrance: Arc<Entrance>,
    drain_events: DrainEvents,
    tracker: TaskTracker,
    /// Ends the public listener and everything that works for it.
    stop: CancellationToken,
    /// Ends the admin listener, last.
    stop_admin: CancellationToken,
    admin_tracker: TaskTracker,
}

struct Reported {
    rooms: Arc<Rooms>,
    drain: Arc<Drain>,
}

impl ReportSource for Reported {
    fn applied(&self) -> Applied {
        self.rooms.applied()
    }

    fn draining(&self) -> bool {
        self.drain.phase() != Phase::Serving
    }

    fn connections(&self) -> BTreeMap<String, u64> {
        let rooms = self.rooms.all().into_iter().filter(|room| room.members() > 0);
        rooms.map(|room| (room.name().to_string(), u64::from(room.members()))).collect()
    }

    fn drained(&self) -> Option<DrainReport> {
        self.drain.receipt().map(|receipt| DrainReport {
            // Rounded on purpose; what is negative or too large does not happen.
            milliseconds: (receipt.seconds * 1000.0).round() as u64,
            moved: receipt.moved as u64,
            cut: receipt.cut as u64,
        })
    }
}

impl Elsewhere for Reports {
    fn members(&self, room: &Room) -> u64 {
        self.elsewhere(room.name())
    }
}

impl Gateway {
    /// Starts everything and returns once both listeners are open.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing runs then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        if let Some(options) = &config.nats {
            // What can never work is told before what may be otherwise the next time, such as a port in use.
            options.prepare().map_err(NatsBusError::from)?;
        }
        let mut registry = hubbub_telemetry::registry("hubbub_gateway", env!("CARGO_PKG_VERSION"));
        let (handshakes, certificate) = match config.tls {
            Some(files) => {
                let events = Arc::new(TlsEvents::register(&mut registry));
                let (handshakes, follower) = tls::load(files, events)?;
                (Some(handshakes), Some(follower))
            }
            None => (None, None),
        };
        let public_socket = open(config.listen, "--listen")?;
        let admin_socket = open(config.admin_listen, "--admin-listen")?;
        let address = public_socket.local_addr().unwrap_or(config.listen);
        let admin_address = admin_socket.local_addr().unwrap_or(config.admin_listen);

        config.traces.register(&mut registry);
        let traced = Traced {
            traces: config.traces.clone(),
            trust: config.trust_traceparent,
            tls: handshakes.is_some(),
        };
        let http_events = Arc::new(HttpEvents::register(&mut registry, traced));
        let drain_events = DrainEvents::register(&mut registry, config.traces.clone());
        let engine_events = EngineEvents::register(&mut registry, config.traces.clone());
        engine_events.limited(config.max_connections);
        let memory_events = MemoryEvents::register(&mut registry);
        let policy_events = Arc::new(PolicyEvents::register(&mut registry));
        let health = Arc::new(PolicyHealth::default());

        let rooms = Arc::new(Rooms::new(config.shards.get()));
        RoomMetrics::register(&mut registry, Arc::clone(&rooms), config.room_metrics);
        let source = match &config.policies {
            Policies::Files(paths) => {
                let mut files = FilesSource::new(
                    paths.clone(),
                    Arc::clone(&policy_events),
                    Arc::clone(&health),
                );
                files.load_once(&rooms)?;
                Some(files)
            }
            Policies::Bucket if config.nats.is_none() => return Err(StartError::BucketWithoutNats),
            Policies::Bucket => None,
        };

        let limits = Arc::new(Limits::new(config.limits, descriptors::sockets(config.open_files)));
        let engine = Engine::start(config.shards, &config.pool, engine_events, Arc::clone(&limits))
            .map_err(StartError::Shards)?;
        let runtimes = engine.runtimes().iter().cloned().chain([Handle::current()]);
        TaskMetrics::register(&mut registry, runtimes);
        rooms.observe(Arc::clone(&engine) as _);
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let drain = Drain::new(config.drain);
        let sink: Arc<dyn Sink> = Arc::clone(&engine) as _;
        let (bus, elsewhere): (Arc<dyn Bus>, Arc<dyn Elsewhere>) = match &config.nats {
            None => (Arc::new(LocalBus::new(sink)), Arc::new(Alone)),
            Some(options) => {
                // Without NATS there is nothing that they could tell, and a 0 would look like an outage.
                let bus_events = Arc::new(BusEvents::register(&mut registry));
                let bus = NatsBus::connect(
                    options,
                    engine.runtimes(),
                    sink,
                    Arc::clone(&bus_events),
                    &tracker,
                    stop.clone(),
                );
                let bus = Arc::new(bus.await.inspect_err(|_| engine.stop())?);
                let reports = Arc::new(Reports::new(
                    &config.pool,
                    &config.gateway,
                    bus.roll_call(),
                    bus_events,
                ));
                let reported =
                    Arc::new(Reported { rooms: Arc::clone(&rooms), drain: Arc::clone(&drain) });
                let changed = Arc::new(Notify::new());
                tracker.spawn(tell_at_once(
                    drain.phases(),
                    rooms.applications(),
                    Arc::clone(&changed),
                    stop.clone(),
                ));
                let (client, token) = (bus.client().clone(), stop.clone());
                let running = Arc::clone(&reports);
                tracker.spawn(async move { running.run(client, reported, changed, token).await });
                if source.is_none() {
                    let bucket = BucketSource::new(
                        bus.client().clone(),
                        Arc::clone(&policy_events),
                        Arc::clone(&health),
                    );
                    tracker.spawn(Box::new(bucket).run(Arc::clone(&rooms), stop.clone()));
                }
                (bus, reports)
            }
        };
        engine.connect(Arc::clone(&bus));
        if let Some(files) = source {
            tracker.spawn(Box::new(files).run(Arc::clone(&rooms), stop.clone()));
        }

        if let Some(room) = config.default_room.clone() {
            let (rooms, events) = (Arc::clone(&rooms), Arc::clone(&policy_events));
            tracker.spawn(stop.clone().run_until_cancelled_owned(async move {
                rooms.loaded().await;
                if rooms.get(room.as_str()).is_none() {
                    events.default_room_missing(&room);
                }
            }));
        }

        let memory = Arc::new(Memory::new(config.memory_limit));
        let watch = Arc::clone(&memory).watch(Arc::clone(&engine), memory_events, stop.clone());
        tracker.spawn(watch);
        let entrance = Arc::new(Entrance {
            rooms: Arc::clone(&rooms),
            engine,
            bus,
            elsewhere,
            drain,
            pool: config.pool,
            max_connections: config.max_connections,
            limits: Arc::clone(&limits),
            memory,
        });
        let rates = Arc::new(Rates::default());
        let (counting, token) = (Arc::clone(&rates), stop.clone());
        tracker.spawn(async move { counting.run(&rooms, token).await });

        let public = Arc::new(Public {
            entrance: Arc::clone(&entrance),
            events: Arc::clone(&http_events),
            default_room: config.default_room.map(|room| room.to_string()),
        });
        let rooms = Site {
            router: public::router(Arc::clone(&public)),
            doorkeeper: Some(public),
            tls: handshakes,
            events: Arc::clone(&http_events),
            limits: Some(limits),
            tracker: tracker.clone(),
            stop: stop.clone(),
        };
        tracker.spawn(listener::serve(public_socket, rooms));
        if let Some(certificate) = certificate {
            tracker.spawn(certificate.run(stop.clone()));
        }
        let (admin_tracker, stop_admin) = (TaskTracker::new(), CancellationToken::new());
        let admin = Admin::new(Arc::clone(&entrance), registry, health, config.gateway, rates);
        let admin = Site {
            router: admin::router(admin),
            doorkeeper: None,
            tls: None,
            events: http_events,
            limits: None,
            tracker: admin_tracker.clone(),
            stop: stop_admin.clone(),
        };
        admin_tracker.spawn(listener::serve(admin_socket, admin));
        Ok(Self {
            address,
            admin_address,
            entrance,
            drain_events,
            tracker,
            stop,
            stop_admin,
            admin_tracker,
        })
    }

    /// Where members come in; the real port, also when 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where probes, metrics and the drain hook come in.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// The drain, to begin it.
    #[must_use]
    pub fn drain(&self) -> Arc<Drain> {
        Arc::clone(&self.entrance.drain)
    }

    /// The rooms that are declared now.
    #[must_use]
    pub fn rooms(&self) -> &Arc<Rooms> {
        &self.entrance.rooms
    }

    /// Serves until a drain has begun and is done, then ends everything.
    pub async fn run(self) -> Receipt {
        let entrance = &self.entrance;
        let receipt =
            entrance.drain.run(&entrance.engine, entrance.bus.as_ref(), &self.drain_events).await;
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        let engine = Arc::clone(&entrance.engine);
        // Joining threads blocks, if only for a moment.
        let _ = tokio::task::spawn_blocking(move || engine.stop()).await;
        // Last, so that whoever waits for the drain gets its answer.
        self.stop_admin.cancel();
        self.admin_tracker.close();
        self.admin_tracker.wait().await;
        receipt
    }
}

fn open(address: SocketAddr, flag: &'static str) -> Result<Listener, StartError> {
    Listener::bind(address).map_err(|source| StartError::Listen { address, flag, source })
}

/// The other gateways, and the operator, learn at once that this one drains or runs newer policies.
async fn tell_at_once(
    mut phases: watch::Receiver<Phase>,
    mut applied: watch::Receiver<Applied>,
    changed: Arc<Notify>,
    stop: CancellationToken,
) {
    loop {
        let more = tokio::select! {
            () = stop.cancelled() => return,
            more = phases.changed() => more,
            more = applied.changed() => more,
        };
        if more.is_err() {
            return;
        }
        changed.notify_one();
    }
}
