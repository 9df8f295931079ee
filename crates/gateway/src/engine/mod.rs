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
    fmt, io,
    net::{SocketAddr, TcpStream},
    num::NonZeroUsize,
    panic::resume_unwind,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use hubbub_api::{Origin, RoomName};
use hubbub_websocket::{Kind, frame};
use tokio::{
    runtime::{Builder, Handle},
    sync::Notify,
};

use crate::{
    bus::{Bus, Sink},
    events::EngineEvents,
    room::{Room, RoomObserver},
};

mod bucket;
mod closing;
mod ending;
mod inbox;
mod member;
mod outbox;
mod reading;
mod shard;
mod timers;
mod waiting;
mod wheel;
mod writing;

pub use ending::Ending;
use inbox::{Command, Inbox};
pub use member::Traffic;
use shard::Shard;

/// Members of a room that share one shard before the room is spread over all. A message to a room of up to this many
/// wakes one thread; writing to 128 sockets takes that thread a third of a millisecond.
const HOME_MEMBERS: u32 = 128;

/// A connection, unique in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// Who is about to enter a room.
#[derive(Debug)]
pub(crate) struct Entrant {
    connection: ConnectionId,
    room: Arc<Room>,
    origin: Option<Origin>,
    peer: SocketAddr,
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
    events: EngineEvents,
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
    next: AtomicU64,
}

impl Engine {
    /// Starts the shards' threads for a gateway of that pool. Give it a bus before the first member enters.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread or an epoll instance.
    pub fn start(
        shards: NonZeroUsize,
        pool: impl Into<String>,
        events: EngineEvents,
    ) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            epoch: Instant::now(),
            pool: pool.into(),
            bus: OnceLock::new(),
            population: Population::default(),
            events,
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
            next: AtomicU64::new(1),
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

    /// Connections, handshakes that are being answered included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.population.connections.load(Ordering::Acquire)
    }

    /// Takes a place in a shard for a member whose place in the room is reserved already
    /// ([`Room::reserve`]). From now on the room's messages are kept for it.
    pub fn reserve(&self, room: &Arc<Room>, origin: Option<Origin>, peer: SocketAddr) -> Ticket {
        let shard = place(room);
        room.by_shard()[shard].fetch_add(1, Ordering::AcqRel);
        self.shared.population.connections.fetch_add(1, Ordering::AcqRel);
        let connection = ConnectionId(self.next.fetch_add(1, Ordering::Relaxed));
        let inbox = Arc::clone(&self.inboxes[shard]);
        inbox.push_for_later(Command::Reserve(Box::new(Entrant {
            connection,
            room: Arc::clone(room),
            origin,
            peer,
        })));
        Ticket { connection, inbox: Some(inbox) }
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
    fn deliver(&self, room: &Arc<Room>, kind: Kind, payload: &[u8]) {
        room.count_message();
        let frame = frame(kind.into(), payload);
        for inbox in self.reached(room) {
            inbox.push(Command::Deliver { room: room.id(), frame: frame.clone() });
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
    pub fn enter(mut self, socket: TcpStream, sent: Bytes) {
        if let Some(inbox) = self.inbox.take() {
            inbox.push(Command::Attach { connection: self.connection, socket, sent });
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
