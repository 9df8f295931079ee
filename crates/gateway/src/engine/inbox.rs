//! The way to a shard from every other thread.
//!
//! Commands arrive in the order sent by each thread. A push wakes the shard only if it sleeps, and costs no system call
//! when it comes from the shard's own thread, as a message of the bus does; the shard takes all that is there at once. What waits is weighed, so that who publishes can hold back.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use super::{ConnectionId, Entrant, Found, Transport, Trip};
use crate::room::Room;

/// Weight from which publishers hold back: enough for half a second of 10,000 messages of 1 kB a second, little
/// beside the sockets' own buffers.
const HIGH_WATER: usize = 8 * 1024 * 1024;

/// What a waiting message weighs beside its bytes.
const MESSAGE_WEIGHT: usize = 128;

/// What a shard can be asked.
#[derive(Debug)]
pub(super) enum Command {
    /// Write this frame to the room's members.
    Deliver { room: u64, frame: Bytes, trip: Trip },
    /// Hold a place for a connection whose handshake is being answered, and keep what arrives for it.
    Reserve(Box<Entrant>),
    /// The handshake was answered: here is the socket, and what the client sent with it.
    Attach { connection: ConnectionId, socket: Transport, sent: Bytes },
    /// The handshake failed after all.
    Cancel(ConnectionId),
    /// Tell of this connection, if it is here.
    Find { connection: ConnectionId, answer: oneshot::Sender<Option<Found>> },
    /// Look at the members of this room again.
    PolicyChanged(Arc<Room>),
    /// Close the members of this room.
    RoomGone(Arc<Room>),
    /// Close everybody, spread evenly over the time from now to so many milliseconds later.
    Drain { window: u64 },
    /// Tell how many bytes are held for each of those members for whom much is held.
    Weigh { answer: oneshot::Sender<Vec<usize>> },
    /// Send members away until about so many bytes are free, and some of those for whom nothing is held if others are to go as well.
    Shed { bytes: usize, others: bool },
    /// Drop everybody at once.
    Cut,
    /// End the thread.
    Stop,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Inbox {
    queue: Mutex<Vec<Command>>,
    weight: AtomicUsize,
    awake: AtomicBool,
    pushed: Notify,
    relieved: Notify,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            queue: Mutex::default(),
            weight: AtomicUsize::new(0),
            awake: AtomicBool::new(true),
            pushed: Notify::new(),
            relieved: Notify::new(),
        }
    }
}

impl Inbox {
    pub(super) fn push(&self, command: Command) {
        if let Command::Deliver { frame, .. } = &command {
            self.weight.fetch_add(weigh(frame), Ordering::AcqRel);
        }
        self.push_for_later(command);
        // Either the shard sees the push when it looks before it sleeps, or we see here that it sleeps.
        if !self.awake.swap(true, Ordering::SeqCst) {
            self.pushed.notify_one();
        }
    }

    /// Like [`Inbox::push`] for what only has to stand before the next command: the shard may sleep on, which spares
    /// every handshake a wake-up.
    pub(super) fn push_for_later(&self, command: Command) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push(command);
    }

    /// Wakes the shard if something was pushed for later and it sleeps.
    pub(super) fn wake(&self) {
        let waits = !self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if waits && !self.awake.swap(true, Ordering::SeqCst) {
            self.pushed.notify_one();
        }
    }

    /// Takes everything, giving `into` (empty) in exchange.
    pub(super) fn take(&self, into: &mut Vec<Command>) {
        std::mem::swap(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner), into);
    }

    /// Says that the shard is about to sleep; false if there is something to do first.
    pub(super) fn may_sleep(&self) -> bool {
        self.awake.store(false, Ordering::SeqCst);
        let empty = self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if !empty {
            self.awake.store(true, Ordering::SeqCst);
        }
        empty
    }

    /// Waits for a push since [`Inbox::may_sleep`].
    pub(super) async fn pushed(&self) {
        self.pushed.notified().await;
    }

    pub(super) fn woke(&self) {
        self.awake.store(true, Ordering::SeqCst);
    }

    /// Says that a message has been dealt with.
    pub(super) fn delivered(&self, frame: &Bytes) {
        let weight = weigh(frame);
        let before = self.weight.fetch_sub(weight, Ordering::AcqRel);
        if before >= HIGH_WATER && before - weight < HIGH_WATER {
            self.relieved.notify_waiters();
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.weight.load(Ordering::Acquire) < HIGH_WATER
    }

    pub(super) async fn ready(&self) {
        loop {
            let relieved = self.relieved.notified();
            tokio::pin!(relieved);
            relieved.as_mut().enable();
            if self.has_room() {
                return;
            }
            relieved.await;
        }
    }
}

fn weigh(frame: &Bytes) -> usize {
    frame.len() + MESSAGE_WEIGHT
}
