//! One shard: a thread, its epoll loop, the members whose sockets it owns, and the rooms they are in.
//!
//! Each round takes what other threads sent, then the sockets' events, then what came of those, then the timers that are
//! due: so a policy that was said to be in force before a member sent something is in force when that is read. Nothing
//! in it blocks. A fault while one member is served ends that member, not the shard.
//!
//! Between rounds the thread belongs to its tokio runtime: see [`waiting`](super::waiting).

use std::{
    collections::{HashMap, VecDeque},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use hubbub_api::Access;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use tokio::{io::unix::AsyncFd, runtime::Runtime};

use super::{
    ConnectionId, Ending, Entrant, Found, Shared, Transport, Trip,
    inbox::{Command, Inbox},
    member::{Member, NO_PLACE, State},
    turn::{RoomTurn, take_off},
    waiting::watched,
    wheel::{Entry, Wheel},
};
use crate::room::{Policy, Room};

pub(super) const EVENTS_AT_ONCE: usize = 1024;

/// Bytes read in one call, into a buffer that all members of the shard share.
const READ_AT_ONCE: usize = 64 * 1024;

/// A room as one shard knows it.
#[derive(Debug)]
pub(super) struct LocalRoom {
    pub(super) room: Arc<Room>,
    pub(super) policy: Arc<Policy>,
    /// Keys of the members that get the room's messages.
    pub(super) members: Vec<u32>,
    /// Keys of those that may only write.
    pub(super) writers: Vec<u32>,
    /// Members with this room's key, those that are closing included.
    pub(super) references: u32,
    /// Messages that are still to be written, behind those of the turn that is under way.
    pub(super) pending: Vec<Pending>,
    /// The turn at writing that is under way.
    pub(super) turn: Option<Box<RoomTurn>>,
    /// When they may be written at the earliest: see [`pace`](super::writing::pace).
    pub(super) write_at: u64,
}

impl LocalRoom {
    /// The list on which members stand that may do this.
    fn list(&mut self, access: Access) -> &mut Vec<u32> {
        if access.reads() { &mut self.members } else { &mut self.writers }
    }

    /// Whether something waits to be written.
    pub(super) fn has_to_write(&self) -> bool {
        self.turn.is_some() || !self.pending.is_empty()
    }

    /// Takes a member off its list. Gives the members that stand at another place for that, with it.
    fn take_off(&mut self, access: Access, place: u32) -> [Option<(u32, u32)>; 2] {
        if access.reads() {
            let served = self.turn.as_mut().map(|turn| &mut turn.served);
            take_off(&mut self.members, served, place)
        } else {
            take_off(&mut self.writers, None, place)
        }
    }
}

/// A message that is to be written to a room's members.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) frame: Bytes,
    pub(super) trip: Trip,
}

/// The members to be sent away in a drain.
#[derive(Debug, Default)]
pub(super) struct Exodus {
    /// When the last one is to be sent away; `None` while no drain is under way.
    pub(super) until: Option<u64>,
    /// Members whose time has come, waiting because too many are on their way out.
    pub(super) waiting: VecDeque<(u32, u32)>,
    /// Members that were sent away and are not gone yet.
    pub(super) in_flight: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shard {
    index: usize,
    /// The members' sockets. The runtime watches the epoll instance as one descriptor.
    pub(super) poll: AsyncFd<Poll>,
    /// The last look at the sockets may not have shown all that happened on them.
    pub(super) more_events: bool,
    pub(super) inbox: Arc<Inbox>,
    pub(super) shared: Arc<Shared>,
    pub(super) members: Slab<Member>,
    /// Members whose handshake is being answered.
    reserved: HashMap<ConnectionId, u32>,
    pub(super) rooms: Slab<LocalRoom>,
    rooms_by_id: HashMap<u64, u32>,
    /// Rooms with pending frames.
    pub(super) dirty: Vec<u32>,
    pub(super) wheel: Wheel,
    /// Milliseconds since the engine started; read once a round.
    pub(super) now: u64,
    pub(super) read_buffer: Vec<u8>,
    /// Where waiting chunks are joined for one write.
    pub(super) scratch: Vec<u8>,
    /// Members with more to read than one turn allows.
    pub(super) unread: VecDeque<(u32, u32)>,
    pub(super) exodus: Exodus,
    pub(super) random: fastrand::Rng,
    stopped: bool,
}

impl Shard {
    /// A shard that is to run on `runtime`, and the way to it.
    pub(super) fn new(
        index: usize,
        shared: Arc<Shared>,
        runtime: &Runtime,
    ) -> io::Result<(Self, Arc<Inbox>)> {
        let poll = watched(Poll::new()?, runtime)?;
        let inbox = Arc::new(Inbox::default());
        let shard = Self {
            index,
            poll,
            more_events: false,
            inbox: Arc::clone(&inbox),
            shared,
            members: Slab::new(),
            reserved: HashMap::new(),
            rooms: Slab::new(),
            rooms_by_id: HashMap::new(),
            dirty: Vec::new(),
            wheel: Wheel::new(),
            now: 0,
            read_buffer: vec![0; READ_AT_ONCE],
            scratch: Vec::new(),
            unread: VecDeque::new(),
            exodus: Exodus::default(),
            random: fastrand::Rng::with_seed(fastrand::u64(..) ^ index as u64),
            stopped: false,
        };
        Ok((shard, inbox))
    }

    pub(super) async fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_AT_ONCE);
        let mut commands = Vec::new();
        let mut due = Vec::new();
        while !self.stopped {
            self.wait(&mut events).await;
            self.now = self.clock();
            self.obey_all(&mut commands);
            for event in &events {
                let key = event.token().0 as u32;
                let gone = event.is_read_closed() || event.is_error();
                let (readable, writable) = (event.is_readable() || gone, event.is_writable());
                self.guarded(key, |shard| {
                    if writable {
                        shard.on_writable(key);
                    }
                    if readable {
                        shard.on_readable(key, gone);
                    }
                });
            }
            for _ in 0..self.unread.len() {
                if let Some((key, generation)) = self.unread.pop_front()
                    && self.is_current(key, generation)
                {
                    self.guarded(key, |shard| shard.on_readable(key, true));
                }
            }
            self.obey_all(&mut commands);
            self.survive(Self::write_pending);
            self.wheel.advance(self.now, &mut due);
            for entry in due.drain(..) {
                self.call(entry);
            }
            self.survive(Self::send_next_away);
        }
    }

    /// Milliseconds since the engine started, right now.
    pub(super) fn clock(&self) -> u64 {
        u64::try_from(self.shared.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Does a piece of work; a fault in it is counted, and the shard goes on. Says whether there was none.
    fn survive(&mut self, work: impl FnOnce(&mut Self)) -> bool {
        let done = catch_unwind(AssertUnwindSafe(|| work(self))).is_ok();
        if !done {
            self.shared.events.panicked();
        }
        done
    }

    /// Serves one member; a fault there ends only that member.
    pub(super) fn guarded(&mut self, key: u32, serve: impl FnOnce(&mut Self)) {
        if self.survive(serve) {
            return;
        }
        if self.read_buffer.len() != READ_AT_ONCE {
            self.read_buffer = vec![0; READ_AT_ONCE];
        }
        if self.members.contains(key as usize) {
            self.close(key, Ending::Fault);
        }
    }

    fn call(&mut self, entry: Entry) {
        if self.is_current(entry.key, entry.generation)
            && self.members[entry.key as usize].wake_at == entry.at
        {
            self.guarded(entry.key, |shard| shard.on_timer(entry.key));
        }
    }

    pub(super) fn is_current(&self, key: u32, generation: u32) -> bool {
        self.members.get(key as usize).is_some_and(|member| member.generation == generation)
    }

    /// Does all that other threads, and the bus, have asked for. `commands` is empty, before and after.
    fn obey_all(&mut self, commands: &mut Vec<Command>) {
        self.inbox.take(commands);
        for command in commands.drain(..) {
            self.survive(|shard| shard.obey(command));
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Deliver { room, frame, trip } => self.take_in(room, Pending { frame, trip }),
            Command::Reserve(entrant) => self.reserve(*entrant),
            Command::Attach { connection, socket, sent } => self.attach(connection, socket, &sent),
            Command::Cancel(connection) => {
                if let Some(key) = self.reserved.remove(&connection) {
                    self.remove(key, Ending::NeverEntered);
                }
            }
            Command::Find { connection, answer } => {
                // Who asked may have gone.
                let _ = answer.send(self.find(connection));
            }
            Command::PolicyChanged(room) => self.policy_changed(&room),
            Command::RoomGone(room) => {
                for key in self.members_of(room.id()) {
                    self.close(key, Ending::RoomGone);
                }
            }
            Command::Drain { window } => self.begin_exodus(window),
            Command::Weigh { answer } => {
                let _ = answer.send(self.weigh());
            }
            Command::Shed { bytes, others } => self.shed(bytes, others),
            Command::Cut => self.cut_everybody(),
            Command::Stop => {
                self.cut_everybody();
                self.stopped = true;
            }
        }
    }

    fn take_in(&mut self, room: u64, message: Pending) {
        let Some(key) = self.rooms_by_id.get(&room).copied() else {
            self.inbox.delivered(&message.frame);
            return;
        };
        let room = &mut self.rooms[key as usize];
        if !room.has_to_write() {
            self.dirty.push(key);
        }
        room.pending.push(message);
    }

    fn find(&self, connection: ConnectionId) -> Option<Found> {
        let (_, member) =
            self.members.iter().find(|(_, member)| member.connection == connection)?;
        let open = self.now.saturating_sub(member.entered);
        Some(Found {
            room: self.rooms[member.room as usize].room.name().clone(),
            peer: member.peer,
            open: member.socket.as_ref().map(|_| Duration::from_millis(open)),
            closing: member.state != State::Open,
            traffic: member.traffic,
            waiting: member.outbox.as_ref().map_or(0, |outbox| outbox.messages()),
        })
    }

    fn reserve(&mut self, mut entrant: Entrant) {
        // What arrived before this member did is not for it. Writing it may show the last member of the room to be gone,
        // and the room with it, so the room is looked up afterwards.
        if let Some(room) = self.rooms_by_id.get(&entrant.room.id()) {
            self.write_now(*room);
        }
        let room_key = self.local_room(&entrant.room);
        let room = &mut self.rooms[room_key as usize];
        let connection = entrant.connection;
        let mut member = Member::new(&mut entrant, room_key, &room.policy, self.now);
        let entry = self.members.vacant_entry();
        let key = entry.key() as u32;
        let list = room.list(member.access);
        member.place = list.len() as u32;
        list.push(key);
        room.references += 1;
        entry.insert(member);
        self.reserved.insert(connection, key);
    }

    fn attach(&mut self, connection: ConnectionId, mut socket: Transport, sent: &[u8]) {
        let Some(key) = self.reserved.remove(&connection) else { return };
        // Of a new socket everybody knows that it takes bytes: to be told so would cost a round for each member.
        let token = Token(key as usize);
        let registry = self.poll.get_ref().registry();
        let registered = registry.register(socket.socket(), token, Interest::READABLE);
        if let Err(error) = registered {
            self.remove(key, Ending::SocketFailed(error.kind()));
            return;
        }
        let reads_ahead = socket.reads_ahead();
        let member = &mut self.members[key as usize];
        member.socket = Some(socket);
        member.entered = self.now;
        self.shared.events.connection_opened(
            member.connection,
            self.rooms[member.room as usize].room.name(),
            member.peer,
        );
        self.begin_heartbeat(key);
        if let Some(until) = self.exodus.until {
            let soon = until.saturating_sub(self.now).min(1000);
            self.members[key as usize].close_at = self.now + self.random.u64(0..=soon);
        }
        let standing = self.standing(key);
        self.guarded(key, |shard| {
            match standing {
                Ok(access) => shard.give_standing(key, access),
                Err(ending) => shard.close(key, ending),
            }
            shard.on_writable(key);
            if !sent.is_empty() {
                shard.feed_owned(key, sent.to_vec());
            }
            if reads_ahead {
                shard.on_readable(key, true);
            }
        });
        self.arm(key);
    }

    /// Makes the room known here if it is not.
    fn local_room(&mut self, room: &Arc<Room>) -> u32 {
        if let Some(key) = self.rooms_by_id.get(&room.id()) {
            return *key;
        }
        let key = self.rooms.insert(LocalRoom {
            room: Arc::clone(room),
            policy: room.policy(),
            members: Vec::new(),
            writers: Vec::new(),
            references: 0,
            pending: Vec::new(),
            turn: None,
            write_at: 0,
        }) as u32;
        self.rooms_by_id.insert(room.id(), key);
        key
    }

    fn members_of(&self, room: u64) -> Vec<u32> {
        let key = self.rooms_by_id.get(&room);
        key.map_or_else(Vec::new, |key| {
            let LocalRoom { members, writers, .. } = &self.rooms[*key as usize];
            members.iter().chain(writers).copied().collect()
        })
    }

    fn policy_changed(&mut self, room: &Arc<Room>) {
        let Some(key) = self.rooms_by_id.get(&room.id()).copied() else { return };
        self.rooms[key as usize].policy = room.policy();
        for key in self.members_of(room.id()) {
            if self.members[key as usize].socket.is_none() {
                continue; // looked at when its socket comes
            }
            match self.standing(key) {
                Ok(access) => {
                    self.give_standing(key, access);
                    self.begin_heartbeat(key);
                    self.arm(key);
                }
                Err(ending) => self.close(key, ending),
            }
        }
    }

    /// Takes a member off its room's list: it gets no more messages, and its place is free.
    pub(super) fn leave_room(&mut self, key: u32) {
        let member = &mut self.members[key as usize];
        let place = std::mem::replace(&mut member.place, NO_PLACE);
        if place == NO_PLACE {
            return;
        }
        let (room, access) = (member.room as usize, member.access);
        for (moved, place) in self.rooms[room].take_off(access, place).into_iter().flatten() {
            self.members[moved as usize].place = place;
        }
        let room = &self.rooms[room].room;
        room.by_shard()[self.index].fetch_sub(1, Ordering::AcqRel);
        if room.release()
            && let Some(bus) = self.shared.bus.get()
        {
            bus.leave(room);
        }
    }

    /// Puts a member on the list of those that hear, or of those that do not. What has come before this is for it or not by
    /// what it could do then.
    pub(super) fn change_list(&mut self, key: u32, access: Access) {
        self.write_now(self.members[key as usize].room);
        let Some(member) = self.members.get_mut(key as usize) else { return };
        let place = member.place;
        if place == NO_PLACE {
            return;
        }
        let local = &mut self.rooms[member.room as usize];
        let from = local.list(member.access);
        from.swap_remove(place as usize);
        let moved = from.get(place as usize).copied();
        let to = local.list(access);
        member.place = to.len() as u32;
        member.access = access;
        to.push(key);
        if let Some(moved) = moved {
            self.members[moved as usize].place = place;
        }
    }

    /// Forgets a member and closes its socket.
    pub(super) fn remove(&mut self, key: u32, ending: Ending) {
        self.leave_room(key);
        let mut member = self.members.remove(key as usize);
        if member.outbox.is_none()
            && let Some(socket) = &mut member.socket
        {
            socket.say_farewell();
        }
        if member.socket.is_none() {
            self.reserved.remove(&member.connection);
        }
        let room_key = member.room;
        let local = &mut self.rooms[room_key as usize];
        self.shared.events.connection_ended(&super::End {
            connection: member.connection,
            room: local.room.name(),
            peer: member.peer,
            ending,
            milliseconds: self.now.saturating_sub(member.entered),
            traffic: member.final_traffic(),
            entered: member.socket.is_some(),
            handshake: member.handshake,
        });
        self.shared.names().remove(&member.connection);
        local.references -= 1;
        if local.references == 0 {
            let local = self.rooms.remove(room_key as usize);
            self.rooms_by_id.remove(&local.room.id());
            let under_way = local.turn.iter().flat_map(|turn| turn.left());
            for message in under_way.chain(&local.pending) {
                self.inbox.delivered(&message.frame);
            }
            self.dirty.retain(|dirty| *dirty != room_key);
        }
        if let State::Closing { ending: Ending::Drained, .. }
        | State::Lingering { ending: Ending::Drained } = member.state
        {
            self.exodus.in_flight = self.exodus.in_flight.saturating_sub(1);
        }
        let population = &self.shared.population;
        match ending {
            Ending::Drained => population.drained.fetch_add(1, Ordering::AcqRel),
            Ending::Cut => population.cut.fetch_add(1, Ordering::AcqRel),
            _ => 0,
        };
        if population.connections.fetch_sub(1, Ordering::AcqRel) == 1 {
            population.empty.notify_waiters();
        }
    }
}
