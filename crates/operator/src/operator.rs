//! The parts put together: an operator from its configuration to its end.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use hubbub_api::{
    GatewayReport, RoomName,
    names::{DEFAULT_POOL, REPORT_WILDCARD},
};
use hubbub_nats::{NatsOptions, NatsOptionsError};
use hubbub_telemetry::Traces;
use kube::Client;
use nats::connection::State;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin::{self, Progress},
    bucket::{Bucket, Tidied},
    claims::Claims,
    cluster::Watches,
    connection::{self, Trouble},
    context::{Context, DebugClient, Key},
    events::OperatorEvents,
    fence::Fence,
    keys::{Fetcher, KeySets},
    lease::{self, Election, Lost, Sight, lead},
    notices::Notices,
    pool,
    queue::Queue,
    reports::{Change, Hearing, Reports},
    room::{self, Memories, RoomKey},
    settings::Settings,
    statement, traces,
};

/// Rooms and pools that are looked at side by side.
const WORKERS: usize = 8;

/// How often time passes for reports, and a connection that is back is noticed.
const TICK: Duration = Duration::from_millis(500);

/// After so many of them rooms are counted for the metrics.
const COUNT_ROOMS: u32 = 8;

/// How often the connection to NATS is looked at for probes, metrics and the log.
const NATS_TICK: Duration = Duration::from_millis(250);

/// How long the first connection to NATS may take before NATS is told to be away.
const FIRST_CONNECTION: Duration = Duration::from_secs(2);

/// How long what is under way may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What an operator needs to know.
pub struct Config {
    /// Where probes and metrics come in.
    pub admin_listen: SocketAddr,
    /// How to reach the API server.
    pub client: Client,
    /// How to reach NATS.
    pub nats: NatsOptions,
    /// Copies of the bucket, if this operator makes it.
    pub bucket_replicas: usize,
    /// How pools are built.
    pub settings: Settings,
    /// How long the load of a pool must have been lower before a gateway goes: [`WINDOW`](crate::scaling::WINDOW).
    pub scale_down_window: Duration,
    /// The release, by which its pools are known.
    pub instance: String,
    /// The namespace of the release, where its pools and its lease are.
    pub namespace: String,
    /// The namespaces whose rooms are served; all if empty.
    pub room_namespaces: Vec<String>,
    /// This replica's name; no other has it.
    pub identity: String,
    /// Whether other replicas are to be reckoned with.
    pub leader_election: bool,
    /// Fetches the keys that rooms name.
    pub keys: Arc<Fetcher>,
    /// How often an address of keys is asked.
    pub keys_period: Duration,
    /// Whether looks are traced.
    pub traces: Traces,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { instance, namespace, identity, .. } = self;
        let mut shown = f.debug_struct("Config");
        shown.field("instance", instance).field("namespace", namespace);
        shown.field("identity", identity).finish_non_exhaustive()
    }
}

/// Why an operator could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The admin address cannot be listened on.
    #[error(
        "cannot listen on {address}; free the port or choose another with --admin-listen (port 0 takes any free one)"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// NATS cannot be reached that way.
    #[error(transparent)]
    NatsOptions(#[from] NatsOptionsError),
    /// The client could not be made.
    #[error("the NATS client cannot be started")]
    Nats(#[from] nats::ConnectError),
}

/// An operator that has started. Dropped, it stops at once, as if it were killed.
#[derive(Debug)]
pub struct Operator {
    config: Config,
    nats: nats::Client,
    trouble: Trouble,
    admin: SocketAddr,
    events: Arc<OperatorEvents>,
    progress: Arc<Progress>,
    fence: Fence,
    stop: CancellationToken,
    stop_admin: CancellationToken,
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.fence.close();
        self.stop.cancel();
        self.stop_admin.cancel();
    }
}

impl Operator {
    /// Begins to listen and to connect. Nothing is watched or written before [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing runs then. That NATS or the API server cannot be reached is none: they are tried until
    /// they can.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let address = config.admin_listen;
        let wrong = |source| StartError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(wrong)?;
        let admin = listener.local_addr().map_err(wrong)?;
        let trouble = Trouble::default();
        let nats = connection::connect(&config.nats, &trouble).await?;

        let mut registry = hubbub_telemetry::registry("hubbub_operator", env!("CARGO_PKG_VERSION"));
        let events = Arc::new(OperatorEvents::register(&mut registry));
        config.traces.register(&mut registry);
        let progress = Arc::new(Progress::default());
        let stop_admin = CancellationToken::new();
        let (router, stopped) =
            (admin::router(Arc::clone(&progress), registry), stop_admin.clone());
        TaskTracker::new().spawn(async move {
            // Only the cluster's own reach this port. An error ends the listener, and liveness tells.
            let serving = axum::serve(listener, router);
            let _ = serving.with_graceful_shutdown(stopped.cancelled_owned()).await;
        });
        let fence = Fence::default();
        let stop = CancellationToken::new();
        let watched = watch_nats(
            nats.clone(),
            trouble.clone(),
            Arc::clone(&progress),
            Arc::clone(&events),
            stop_admin.clone(),
        );
        TaskTracker::new().spawn(watched);
        Ok(Self { config, nats, trouble, admin, events, progress, fence, stop, stop_admin })
    }

    /// Where probes and metrics are.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// What is counted.
    #[must_use]
    pub fn events(&self) -> &Arc<OperatorEvents> {
        &self.events
    }

    /// Cancelled, it lets [`run`](Self::run) end in good order.
    #[must_use]
    pub fn stopper(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Waits for the lease and works until it is asked to stop.
    ///
    /// # Errors
    ///
    /// [`Lost`], when another replica may lead by now: the process must end.
    pub async fn run(self) -> Result<(), Lost> {
        let Config { client, namespace, instance, identity, leader_election, .. } = &self.config;
        let ended = if *leader_election {
            self.events.waiting(identity);
            let name = lease::name(instance);
            let election = Election::new(client, namespace, &name, identity, self.fence.clone());
            let told = |sight: Sight<'_>| {
                self.progress.saw(&sight);
                if let Some(trouble) = sight.trouble() {
                    self.events.lease_failed(&trouble);
                }
            };
            lead(election, &self.stop, told, || self.work()).await
        } else {
            self.fence.open_for_ever();
            self.progress.is_alone();
            self.work().await;
            Ok(())
        };
        self.events.not_leading();
        self.progress.leads.store(false, Ordering::Release);
        self.stop_admin.cancel();
        ended
    }

    /// Everything that a leader does, until it is asked to stop and what is under way has ended.
    async fn work(&self) {
        let Config { client, namespace, instance, identity, .. } = &self.config;
        self.events.leading(identity);
        self.progress.leads.store(true, Ordering::Release);
        let queue: Arc<Queue<Key>> = Arc::default();
        let claims = Claims::new(namespace, instance);
        let replicas = self.config.bucket_replicas;
        let bucket = Bucket::new(self.nats.clone(), self.fence.clone(), replicas, claims.own());
        let bucket = Arc::new(bucket);
        let (published, again) = (Arc::clone(&bucket), Arc::clone(&queue));
        // Rooms that are gone since are only known by what they have left behind.
        let relisted = move || published.keys().iter().for_each(|key| add_room(&again, key));
        let tasks = TaskTracker::new();
        let cluster = Watches {
            client,
            namespace,
            instance,
            room_namespaces: &self.config.room_namespaces,
            queue: &queue,
            events: &self.events,
            tasks: &tasks,
            stop: &self.stop,
        }
        .start(relisted);
        let fenced = self.fence.guard(client);
        let context = Arc::new(Context {
            instance: instance.clone(),
            namespace: namespace.clone(),
            settings: self.config.settings.clone(),
            scale_down_window: self.config.scale_down_window,
            claims,
            client: DebugClient(fenced.clone()),
            cluster,
            bucket,
            trouble: self.trouble.clone(),
            keys: KeySets::new(self.config.keys_period),
            reports: Arc::new(Reports::default()),
            queue,
            events: Arc::clone(&self.events),
            notices: Notices::new(fenced, identity, Arc::clone(&self.events)),
            rooms: Memories::default(),
            pools: pool::Pools::default(),
        });
        tasks.spawn(follow_bucket(Arc::clone(&context), self.stop.clone()));
        tasks.spawn(follow_reports(Arc::clone(&context), self.nats.clone(), self.stop.clone()));
        let (fetching, fetcher) = (Arc::clone(&context), Arc::clone(&self.config.keys));
        let stop = self.stop.clone();
        tasks.spawn(async move { fetching.keys.run(&fetching, &fetcher, stop).await });
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = context.cluster.listed() => {
                self.progress.listed.store(true, Ordering::Release);
                // Also pools that no room names: one to keep, the others to sweep.
                context.queue.add(Key::Pool(DEFAULT_POOL.to_owned()));
                context.cluster.pools().into_iter().for_each(|pool| context.queue.add(Key::Pool(pool)));
                for _ in 0..WORKERS {
                    let traces = self.config.traces.clone();
                    tasks.spawn(worker(Arc::clone(&context), traces, self.stop.clone()));
                }
                let namespaces = self.config.room_namespaces.clone();
                let stating = statement::follow(Arc::clone(&context), namespaces, self.stop.clone());
                tasks.spawn(stating);
                self.stop.cancelled().await;
            }
        }
        tasks.close();
        // What does not end in time is cut off by the fence, or is a read.
        let _ = tokio::time::timeout(STOP_LIMIT, tasks.wait()).await;
    }
}

/// Tells whether NATS is connected, on the replica that waits too: it is to take over in a moment.
async fn watch_nats(
    client: nats::Client,
    trouble: Trouble,
    progress: Arc<Progress>,
    events: Arc<OperatorEvents>,
    stop: CancellationToken,
) {
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(NATS_TICK);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let connected = client.connection_state() == State::Connected;
        progress.nats.store(connected, Ordering::Release);
        if connected {
            trouble.is_over();
        }
        // The first connection takes a moment, which is not worth a warning.
        if connected || begun.elapsed() >= FIRST_CONNECTION {
            events.nats(connected, trouble.latest());
        }
    }
}

/// Takes one key after the other.
async fn worker(context: Arc<Context>, traces: Traces, stop: CancellationToken) {
    loop {
        let key = tokio::select! {
            () = stop.cancelled() => return,
            key = context.queue.next() => key,
        };
        context.events.queued(context.queue.depth());
        let begun = Instant::now();
        // Boxed, because what it holds is large.
        let look = Box::pin(async {
            match &key {
                Key::Room(room) => room::reconcile(&context, room).await,
                Key::Pool(pool) => Box::pin(pool::reconcile(&context, pool)).await,
            }
        });
        let generation = || match &key {
            Key::Room(room) => context.cluster.room(room).metadata().and_then(|of| of.generation),
            Key::Pool(_) => None,
        };
        let done = traces::look(&traces, &key, generation, look).await;
        context.events.reconciled(&key, begun.elapsed(), done.as_ref().err());
        match done {
            Ok(again) => context.queue.done(&key, again),
            Err(_) => context.queue.failed(&key),
        }
    }
}

async fn follow_bucket(context: Arc<Context>, stop: CancellationToken) {
    let changed = |key: &str| {
        if key.is_empty() {
            context.queue.retry_now();
            context.look_at_rooms(|_| true);
        } else {
            add_room(&context.queue, key);
        }
    };
    let (away, lost) =
        (|cause: &str| context.events.bucket_away(cause), || context.events.bucket_lost());
    let tidied = |what: Tidied<'_>| context.events.tidied(what);
    context.bucket.run(changed, away, lost, tidied, stop).await;
}

/// Asks for a look at the room of a policy's key.
fn add_room(queue: &Queue<Key>, key: &str) {
    if let Ok(room) = RoomName::from_policy_key(key) {
        let (namespace, name) = (room.namespace().to_owned(), room.name().to_owned());
        queue.add(Key::Room(RoomKey { namespace, name }));
    }
}

/// Hears reports, lets time pass for them, and asks for a look at what they change.
async fn follow_reports(context: Arc<Context>, client: nats::Client, stop: CancellationToken) {
    // It fails only when the client has ended.
    let Ok(mut heard) = client.subscribe(REPORT_WILDCARD).await else { return };
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let kind = |hearing: Hearing| std::mem::discriminant(&hearing);
    let mut hearing = kind(Hearing::Listening(Duration::ZERO));
    let mut connected = false;
    let mut passed = 0;
    loop {
        let change = tokio::select! {
            () = stop.cancelled() => return,
            message = heard.next() => {
                let Some(message) = message else { return };
                match GatewayReport::from_json(&message.payload) {
                    Ok(report) => {
                        context.events.heard(&report);
                        context.reports.hear(report, Instant::now())
                    }
                    Err(error) => {
                        context.events.report_refused(&message.subject, &error.to_string());
                        continue;
                    }
                }
            }
            _ = ticks.tick() => {
                if passed % COUNT_ROOMS == 0 {
                    let (ready, others) = context.cluster.readiness();
                    context.events.rooms(ready, others);
                }
                passed += 1;
                let before = std::mem::replace(&mut connected, context.bucket.is_connected());
                if connected && !before {
                    // What failed while it was away need not wait any longer.
                    context.queue.retry_now();
                }
                let now = Instant::now();
                let change = context.reports.tick(now, connected, |pod| context.cluster.has_pod(pod));
                let hears = kind(context.reports.hearing(now));
                if hears != hearing {
                    hearing = hears;
                    context.look_at_rooms(|_| true);
                }
                change
            }
        };
        look_at(&context, &change);
    }
}

fn look_at(context: &Context, change: &Change) {
    for pool in &change.pools {
        context.look_at_rooms_of(pool);
        context.queue.add(Key::Pool(pool.clone()));
    }
    for room in &change.rooms {
        add_room(&context.queue, &room.replacen('/', ".", 1));
    }
    if let Some((above, upto)) = change.applied {
        for key in context.bucket.written_between(above, upto) {
            add_room(&context.queue, &key);
        }
    }
}
