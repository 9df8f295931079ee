//! The fan-out engine: members, spread over shards, and the messages that reach them.
//!
//! A shard is one thread with its own epoll loop that owns its members' sockets: it reads, decodes, hands messages to
//! the bus, and writes what the bus delivers, itself. The thread has a tokio runtime as well, in which the bus keeps the
//! connection of the rooms that are at home here. A message is framed once, crosses to a shard once, and is one
//! shared buffer for all members; frames that wait for the same room go out in one write. A small room has all its
//! members on one shard; a big one is spread over all.
//!
//! Entering is in two steps, so that nothing is missed: a place is reserved before the handshake is answered, and what
//! arrives from then on waits for the socket.

use std::{
    collections::HashSet,
    fmt, io,
    net::SocketAddr,
    num::NonZeroUsize,
    panic::resume_unwind,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use hubbub_api::RoomName;
use hubbub_telemetry::{OpenSpan, SpanRef};
use hubbub_websocket::{Kind, frame};
use tokio::{
    runtime::{Builder, Handle},
    sync::{Notify, oneshot},
};

use crate::{
    bus::{Bus, Sink},
    events::EngineEvents,
    limits::Limits,
    room::{Room, RoomObserver},
    token::TokenCache,
};

mod allowance;
mod closing;
mod connection_id;
mod delivery;
mod ending;
mod inbox;
mod member;
mod outbox;
mod reading;
mod shard;
mod shedding;
mod standing;
mod timers;
mod transport;
mod turn;
mod waiting;
mod wheel;
mod writing;

use allowance::Allowance;
pub use connection_id::{ConnectionId, MalformedConnectionId};
pub(crate) use delivery::Delivery;
use delivery::Trip;
pub use ending::Ending;
use inbox::{Command, Inbox};
pub use member::Traffic;
use shard::Shard;
pub(crate) use standing::access;
pub use standing::{Pass, wall_clock};
pub use transport::Transport;

/// Members of a room that share one shard before the room is spread over all. A message to a room of up to this many
/// wakes one thread; writing to 128 sockets takes that thread a third of a millisecond.
const HOME_MEMBERS: u32 = 128;

/// Who comes to the door.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// From where, as far as its peer can be believed; without a port if a proxy says so.
    pub peer: SocketAddr,
    /// The connection's id, if the client names one.
    pub connection: Option<ConnectionId>,
    /// The span of its handshake, if that is kept.
    pub handshake: Option<SpanRef>,
}

/// Who is about to enter a room.
#[derive(Debug)]
pub(crate) struct Entrant {
    connection: ConnectionId,
    room: Arc<Room>,
    pass: Pass,
    arrival: Arrival,
    generation: u32,
}

/// A connection as it is now.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its room.
    pub room: RoomName,
    /// From where it came.
    pub peer: SocketAddr,
    /// How long ago its handshake was answered; none while that is being done.
    pub open: Option<Duration>,
    /// Whether it is being closed.
    pub closing: bool,
    /// What went over it.
    pub traffic: Traffic,
    /// Messages that wait because its socket is full.
    pub waiting: usize,
}

/// A connection that ended.
#[derive(Debug)]
pub(crate) struct End<'a> {
    pub(crate) connection: ConnectionId,
    pub(crate) room: &'a RoomName,
    pub(crate) peer: SocketAddr,
    pub(crate) ending: Ending,
    /// From the answered handshake to the end.
    pub(crate) milliseconds: u64,
    pub(crate) traffic: Traffic,
    /// Whether the handshake had been answered.
    pub(crate) entered: bool,
    /// The span of its handshake, if that was kept.
    pub(crate) handshake: Option<SpanRef>,
}

/// How many connections there are, and who waits for the last of them to end.
#[derive(Debug, Default)]
struct Population {
    connections: AtomicUsize,
    drained: AtomicUsize,
    cut: AtomicUsize,
    empty: Notify,
}

/// What became of the members in a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Departed {
    /// Members who were told to come back elsewhere before their connection ended.
    pub moved: usize,
    /// Members whose connection ended without that.
    pub cut: usize,
}

/// Shared by all shards.
pub(crate) struct Shared {
    epoch: Instant,
    /// The pool of this gateway; rooms of another one have no members here.
    pool: String,
    bus: OnceLock<Arc<dyn Bus>>,
    population: Population,
    /// Names of the connections that there are, so that no two have the same.
    names: Mutex<HashSet<ConnectionId>>,
    events: EngineEvents,
    /// Tokens that were verified lately, at the door or on a connection.
    tokens: TokenCache,
    allowance: Allowance,
    /// What a token's subject may have, for those who bring theirs over the connection.
    limits: Arc<Limits>,
}

impl Shared {
    /// A name that no other connection has: the one that is wanted, or another.
    fn name(&self, wanted: Option<ConnectionId>) -> ConnectionId {
        let mut names = self.names();
        let mut name = wanted.unwrap_or_else(ConnectionId::random);
        while !names.insert(name) {
            name = ConnectionId::random();
        }
        name
    }

    /// What the bus is called in traces.
    fn bus_system(&self) -> &'static str {
        self.bus.get().map_or("hubbub", |bus| bus.system())
    }

    fn names(&self) -> MutexGuard<'_, HashSet<ConnectionId>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("population", &self.population).finish_non_exhaustive()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Engine {
    inboxes: Vec<Arc<Inbox>>,
    runtimes: Vec<Handle>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    shared: Arc<Shared>,
    next: AtomicU32,
}

impl Engine {
    /// Starts the shards' threads for a gateway of that pool, whose limits at the door are these. Give it a bus before the first member enters.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread or an epoll instance.
    pub fn start(
        shards: NonZeroUsize,
        pool: impl Into<String>,
        events: EngineEvents,
        limits: Arc<Limits>,
    ) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            epoch: Instant::now(),
            pool: pool.into(),
            bus: OnceLock::new(),
            population: Population::default(),
            names: Mutex::default(),
            events,
            tokens: TokenCache::default(),
            allowance: Allowance::default(),
            limits,
        });
        let mut inboxes = Vec::with_capacity(shards.get());
        let mut runtimes = Vec::with_capacity(shards.get());
        let mut threads = Vec::with_capacity(shards.get());
        for index in 0..shards.get() {
            let (shared, (tell, told)) = (Arc::clone(&shared), mpsc::sync_channel(1));
            threads.push(
                std::thread::Builder::new()
                    .name(format!("shard-{index}"))
                    .spawn(move || shard_thread(index, shared, &tell))?,
            );
            let (runtime, inbox) = told.recv().map_err(io::Error::other)??;
            runtimes.push(runtime);
            inboxes.push(inbox);
        }
        Ok(Arc::new(Self {
            inboxes,
            runtimes,
            threads: Mutex::new(threads),
            shared,
            next: AtomicU32::new(1),
        }))
    }

    /// Names the bus that members' messages go to. Only the first call counts.
    pub fn connect(&self, bus: Arc<dyn Bus>) {
        let _ = self.shared.bus.set(bus);
    }

    /// How many shards there are; rooms are made for that many.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.inboxes.len()
    }

    /// The runtimes of the shards' threads, for a bus that works where the members are: what it delivers there to a
    /// room that is [at home](Room::home) there wakes no other thread. They end with [`Engine::stop`].
    #[must_use]
    pub fn runtimes(&self) -> &[Handle] {
        &self.runtimes
    }

    /// Tokens that were verified lately.
    #[must_use]
    pub fn tokens(&self) -> &TokenCache {
        &self.shared.tokens
    }

    /// Connections, handshakes that are being answered included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.population.connections.load(Ordering::Acquire)
    }

    /// Takes a place in a shard for a member whose place in the room is reserved already
    /// ([`Room::reserve`]). From now on the room's messages are kept for it.
    pub fn reserve(&self, room: &Arc<Room>, pass: Pass, arrival: Arrival) -> Ticket {
        let shard = place(room);
        room.by_shard()[shard].fetch_add(1, Ordering::AcqRel);
        self.shared.population.connections.fetch_add(1, Ordering::AcqRel);
        let connection = self.shared.name(arrival.connection);
        let inbox = Arc::clone(&self.inboxes[shard]);
        inbox.push_for_later(Command::Reserve(Box::new(Entrant {
            connection,
            room: Arc::clone(room),
            pass,
            arrival,
            generation: self.next.fetch_add(1, Ordering::Relaxed),
        })));
        Ticket { connection, inbox: Some(inbox) }
    }

    /// Sees to it that all shards learn of those who came in by [`Ticket::enter_soon`].
    pub fn wake(&self) {
        self.inboxes.iter().for_each(|inbox| inbox.wake());
    }

    /// The connection of that name as it is now, if there is one here.
    pub async fn find(&self, connection: ConnectionId) -> Option<Found> {
        if !self.shared.names().contains(&connection) {
            return None;
        }
        for inbox in &self.inboxes {
            let (answer, answered) = oneshot::channel();
            inbox.push(Command::Find { connection, answer });
            // A shard that has ended has no members.
            if let Ok(Some(found)) = answered.await {
                return Some(found);
            }
        }
        None
    }

    /// Begins to close all members with 1012, evenly over `window`; who enters later is closed soon after.
    pub fn drain(&self, window: Duration) {
        let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        for inbox in &self.inboxes {
            inbox.push(Command::Drain { window });
        }
    }

    /// Drops all members that are still there.
    pub fn cut(&self) {
        for inbox in &self.inboxes {
            inbox.push(Command::Cut);
        }
    }

    /// Resolves when no connection is left.
    pub async fn empty(&self) {
        loop {
            let empty = self.shared.population.empty.notified();
            tokio::pin!(empty);
            empty.as_mut().enable();
            if self.connections() == 0 {
                return;
            }
            empty.await;
        }
    }

    /// How the members have left since the drain began.
    #[must_use]
    pub fn departed(&self) -> Departed {
        Departed {
            moved: self.shared.population.drained.load(Ordering::Acquire),
            cut: self.shared.population.cut.load(Ordering::Acquire),
        }
    }

    /// Ends the threads, dropping who is still there, and waits for them.
    pub fn stop(&self) {
        for inbox in &self.inboxes {
            inbox.push(Command::Stop);
        }
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                self.shared.events.panicked();
            }
        }
    }

    /// The inboxes of the shards in which the room has members.
    fn reached<'a>(&'a self, room: &'a Room) -> impl Iterator<Item = &'a Arc<Inbox>> {
        self.inboxes
            .iter()
            .zip(room.by_shard())
            .filter(|(_, members)| members.load(Ordering::Acquire) > 0)
            .map(|(inbox, _)| inbox)
    }
}

/// What a shard's thread does; it first tells its runtime and the way to it, or why there is none.
fn shard_thread(
    index: usize,
    shared: Arc<Shared>,
    tell: &mpsc::SyncSender<io::Result<(Handle, Arc<Inbox>)>>,
) {
    let begun = Builder::new_current_thread().enable_all().build().and_then(|runtime| {
        let (shard, inbox) = Shard::new(index, shared, &runtime)?;
        Ok((runtime, shard, inbox))
    });
    // Who started the thread waits for this.
    match begun {
        Err(error) => _ = tell.send(Err(error)),
        Ok((runtime, shard, inbox)) => {
            let _ = tell.send(Ok((runtime.handle().clone(), inbox)));
            // As a task and not as the future that is waited for, which is only looked at again after a call to the
            // system: so what the bus has taken in is written in the same round.
            let ended = runtime.block_on(runtime.spawn(shard.run()));
            // A name that is being looked up for the bus is not waited for.
            runtime.shutdown_background();
            if let Err(error) = ended
                && error.is_panic()
            {
                resume_unwind(error.into_panic());
            }
        }
    }
}

/// The shard for the room's next member: its home while it is small, then whichever has fewest of its members.
fn place(room: &Room) -> usize {
    let by_shard = room.by_shard();
    let home = room.home(by_shard.len());
    if by_shard[home].load(Ordering::Relaxed) < HOME_MEMBERS {
        return home;
    }
    let fewest =
        by_shard.iter().enumerate().min_by_key(|(_, members)| members.load(Ordering::Relaxed));
    fewest.map_or(home, |(shard, _)| shard)
}

impl Sink for Engine {
    fn deliver(
        &self,
        room: &Arc<Room>,
        kind: Kind,
        payload: &[u8],
        published: Option<SpanRef>,
        arrived: Instant,
    ) {
        room.count_message(arrived);
        let events = &self.shared.events;
        let span = published.and_then(|published| {
            events.message_arrived(room, self.shared.bus_system(), payload.len(), published)
        });
        let trip = if span.is_none() && self.reached(room).nth(1).is_none() {
            Trip::Short(arrived)
        } else {
            let span = span.unwrap_or_else(OpenSpan::none);
            Trip::Shared(Arc::new(Delivery::new(arrived, span, events.fan_out().clone())))
        };
        let frame = frame(kind.into(), payload);
        for inbox in self.reached(room) {
            let (frame, trip) = (frame.clone(), trip.clone());
            inbox.push(Command::Deliver { room: room.id(), frame, trip });
        }
    }

    fn dropped(
        &self,
        room: &Arc<Room>,
        bytes: usize,
        published: Option<SpanRef>,
        reason: &'static str,
    ) {
        if let Some(published) = published {
            let system = self.shared.bus_system();
            self.shared.events.message_dropped(room, system, bytes, published, reason);
        }
    }

    fn has_room_for(&self, room: &Arc<Room>) -> bool {
        self.reached(room).all(|inbox| inbox.has_room())
    }

    fn ready<'a>(&'a self, room: &'a Arc<Room>) -> BoxFuture<'a, ()> {
        async {
            for inbox in self.reached(room) {
                inbox.ready().await;
            }
        }
        .boxed()
    }
}

impl RoomObserver for Engine {
    fn policy_changed(&self, room: &Arc<Room>) {
        for inbox in &self.inboxes {
            inbox.push(Command::PolicyChanged(Arc::clone(room)));
        }
    }

    fn room_gone(&self, room: &Arc<Room>) {
        for inbox in &self.inboxes {
            inbox.push(Command::RoomGone(Arc::clone(room)));
        }
    }
}

/// A place in a room, held while the handshake is being answered. Dropped without a socket, it is given back.
#[derive(Debug)]
#[must_use = "dropping the ticket gives the place back"]
pub struct Ticket {
    connection: ConnectionId,
    inbox: Option<Arc<Inbox>>,
}

impl Ticket {
    /// The connection that the place is for.
    #[must_use]
    pub fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// Takes the place: the handshake was answered on this (non-blocking) socket, and the client has `sent` this
    /// beyond its request.
    pub fn enter(mut self, socket: impl Into<Transport>, sent: Bytes) {
        if let Some(inbox) = self.inbox.take() {
            let socket = socket.into();
            inbox.push(Command::Attach { connection: self.connection, socket, sent });
        }
    }

    /// The same, but the shard may sleep on until [`Engine::wake`] is called, for all that came in together.
    pub fn enter_soon(mut self, socket: impl Into<Transport>, sent: Bytes) {
        if let Some(inbox) = self.inbox.take() {
            let socket = socket.into();
            inbox.push_for_later(Command::Attach { connection: self.connection, socket, sent });
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(inbox) = self.inbox.take() {
            inbox.push(Command::Cancel(self.connection));
        }
    }
}
