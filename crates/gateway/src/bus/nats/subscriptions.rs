//! The rooms that one connection is subscribed to, one task each, and how their messages reach the sink.
//!
//! A room's task always empties the client's buffer. What the members' shards cannot take yet waits in the room's own
//! backlog, bounded in bytes; beyond it messages are dropped and counted, here where the number is exact.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use futures_util::StreamExt as _;
use hubbub_websocket::Kind;
use nats::{Client, Message};
use tokio::{runtime::Handle, sync::SetOnce, task::AbortHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Sink, wire};
use crate::{
    events::bus::{BusEvents, DroppedBecause},
    room::Room,
};

/// What may wait for a room's shards on this gateway, in bytes of payload.
const MAX_BACKLOG_BYTES: usize = 4 * 1024 * 1024;

/// And in messages, because a short one costs more than its payload.
const MAX_BACKLOG_MESSAGES: usize = 16 * 1024;

/// A room's subscription, shared by its task and by whoever waits for it.
#[derive(Debug, Default)]
pub(super) struct Subscribed {
    /// The client has taken the subscription: a round trip begun from now on comes back after NATS has it.
    pub(super) requested: SetOnce<()>,
    /// NATS is known to have it.
    pub(super) confirmed: AtomicBool,
    /// The room was left: nothing may be delivered any more, even if the task has not ended yet.
    left: AtomicBool,
}

struct Entry {
    subscribed: Arc<Subscribed>,
    task: AbortHandle,
}

/// See the module.
pub(super) struct Subscriptions {
    client: Client,
    sink: Arc<dyn Sink>,
    events: Arc<BusEvents>,
    runtime: Handle,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// By [`Room::id`]: a room that was removed and declared again is another one.
    rooms: Mutex<HashMap<u64, Entry>>,
}

impl Subscriptions {
    pub(super) fn new(
        client: Client,
        sink: Arc<dyn Sink>,
        events: Arc<BusEvents>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let runtime = Handle::current();
        Self { client, sink, events, runtime, tasks, stop, rooms: Mutex::default() }
    }

    /// Subscribes to the room unless that is done.
    pub(super) fn join(&self, room: &Arc<Room>) -> Arc<Subscribed> {
        let mut rooms = self.lock();
        if let Some(entry) = rooms.get(&room.id()) {
            return Arc::clone(&entry.subscribed);
        }
        let subscribed = Arc::new(Subscribed::default());
        if self.stop.is_cancelled() {
            let _ = subscribed.requested.set(());
            return subscribed;
        }
        let feed = Feed {
            room: Arc::clone(room),
            sink: Arc::clone(&self.sink),
            events: Arc::clone(&self.events),
            subscribed: Arc::clone(&subscribed),
            backlog: VecDeque::new(),
            backlog_bytes: 0,
        };
        let task = self.tasks.spawn_on(feed.run(self.client.clone()), &self.runtime).abort_handle();
        rooms.insert(room.id(), Entry { subscribed: Arc::clone(&subscribed), task });
        self.events.subscribed();
        subscribed
    }

    /// Ends the subscription if the room is empty. Under the same lock as `join`: whoever reserves a place and then
    /// joins either is seen here, or finds no subscription and makes a new one.
    pub(super) fn leave(&self, room: &Arc<Room>) {
        let mut rooms = self.lock();
        if room.members() == 0
            && let Some(entry) = rooms.remove(&room.id())
        {
            entry.end();
            self.events.unsubscribed(1);
        }
    }

    /// Ends all of them.
    pub(super) fn end(&self) {
        let mut rooms = self.lock();
        self.events.unsubscribed(rooms.len());
        for (_, entry) in rooms.drain() {
            entry.end();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn end(self) {
        self.subscribed.left.store(true, Ordering::Release);
        self.task.abort();
    }
}

/// A room's task.
struct Feed {
    room: Arc<Room>,
    sink: Arc<dyn Sink>,
    events: Arc<BusEvents>,
    subscribed: Arc<Subscribed>,
    /// With the time at which each arrived.
    backlog: VecDeque<(Kind, Message, Instant)>,
    backlog_bytes: usize,
}

impl Feed {
    async fn run(mut self, client: Client) {
        let subscribed = client.subscribe(self.room.subject().clone()).await;
        // Only this task sets it.
        let _ = self.subscribed.requested.set(());
        // It fails only when the client has ended.
        let Ok(mut messages) = subscribed else { return };
        drop(client);
        loop {
            if self.backlog.is_empty() {
                let Some(message) = messages.next().await else { return };
                self.take(message);
                continue;
            }
            tokio::select! {
                () = self.sink.ready(&self.room) => self.relieve(),
                message = messages.next() => {
                    let Some(message) = message else { return };
                    self.take(message);
                }
            }
        }
    }

    fn take(&mut self, message: Message) {
        self.events.received();
        let Ok(kind) = wire::kind(&message) else {
            return self.drop_one(DroppedBecause::Malformed, &message);
        };
        let limit = self.room.policy().declared().limits.max_message_bytes;
        if message.payload.len() as u64 > u64::from(limit) {
            return self.drop_one(DroppedBecause::TooLarge, &message);
        }
        if self.backlog.is_empty() && self.sink.has_room_for(&self.room) {
            return self.deliver(kind, &message, Instant::now());
        }
        let size = message.payload.len();
        if self.backlog.len() >= MAX_BACKLOG_MESSAGES
            || self.backlog_bytes + size > MAX_BACKLOG_BYTES
        {
            return self.drop_one(DroppedBecause::Overload, &message);
        }
        self.backlog_bytes += size;
        self.backlog.push_back((kind, message, Instant::now()));
    }

    /// Hands over what waits, as far as it is taken.
    fn relieve(&mut self) {
        while self.sink.has_room_for(&self.room)
            && let Some((kind, message, arrived)) = self.backlog.pop_front()
        {
            self.backlog_bytes -= message.payload.len();
            self.deliver(kind, &message, arrived);
        }
        if self.backlog.is_empty() {
            self.backlog = VecDeque::new();
        }
    }

    fn deliver(&self, kind: Kind, message: &Message, arrived: Instant) {
        // A new subscription of this room may deliver already; nobody may get a message twice.
        if !self.subscribed.left.load(Ordering::Acquire) {
            self.sink.deliver(&self.room, kind, &message.payload, wire::span(message), arrived);
        }
    }

    fn drop_one(&self, reason: DroppedBecause, message: &Message) {
        let (bytes, published) = (message.payload.len(), wire::span(message));
        self.sink.dropped(&self.room, bytes, published, reason.label());
        self.events.dropped(reason, Some(self.room.name().as_str()), 1);
    }
}
