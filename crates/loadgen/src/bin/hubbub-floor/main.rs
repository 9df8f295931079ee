//! The yardstick that no server can beat by much: a bare write loop.
//!
//! One thread, one epoll. It speaks enough of the protocol for `hubbub-load` (the handshake, frames
//! in, one ready frame out to each socket by one `write` call), and has nothing else: no limits, no
//! heartbeat, no queue policy, no origin check. `--collect` waits some milliseconds and writes what
//! has gathered for a room in one call a socket. Two of them can be linked (`--relay-listen` and `--relay`), which tells
//! what a second server costs at the least. Not for any other use.

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Parser;
use hubbub_websocket::{Decoder, Event, Limits, Opcode, Role, handshake::accept_for, write_frame};
use mio::{Events, Interest, Poll, Token, net::TcpListener, net::TcpStream};
use socket2::{Domain, Socket, Type};

mod relay;

use relay::Relay;

const LISTENER: Token = Token(usize::MAX);
const RELAY: Token = Token(usize::MAX - 1);
const LIMITS: Limits = Limits::for_message_bytes(1 << 20);

/// Accepted by the kernel before we come to it; the default of 128 would make connects wait.
const BACKLOG: i32 = 4096;

/// The bare write loop that servers are measured against.
#[derive(Debug, Parser)]
struct Options {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    addr: SocketAddr,

    /// Gather a room's messages for so many milliseconds and write them in one call; 0: at once.
    #[arg(long, default_value_t = 0)]
    collect: u64,

    /// Wait here for a second loop, and pass every message on to it.
    #[arg(long, conflicts_with = "relay")]
    relay_listen: Option<SocketAddr>,

    /// Pass every message on to the loop that waits there.
    #[arg(long)]
    relay: Option<SocketAddr>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut floor = Floor::listen(options.addr).context("cannot listen")?;
    let relay = match (options.relay_listen, options.relay) {
        (Some(address), _) => Some(Relay::wait(address)?),
        (None, Some(address)) => Some(Relay::connect(address)?),
        (None, None) => None,
    };
    if let Some(relay) = relay {
        floor.link(relay)?;
    }
    writeln!(io::stdout(), "listening on {}", floor.listener.local_addr()?)?;
    floor.serve(Duration::from_millis(options.collect))?;
    Ok(())
}

/// A member, or someone about to be one.
struct Peer {
    stream: TcpStream,
    /// None before the handshake.
    place: Option<Place>,
    decoder: Decoder,
    /// What the socket would not take.
    out: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Place {
    room: usize,
    /// In the room's list.
    seat: usize,
}

struct Room {
    path: String,
    members: Vec<usize>,
    /// Frames to be written.
    gathered: Vec<u8>,
}

struct Floor {
    poll: Poll,
    listener: TcpListener,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    rooms: Vec<Room>,
    names: HashMap<String, usize>,
    /// Rooms with something gathered.
    due: Vec<usize>,
    buffer: Vec<u8>,
    relay: Option<Relay>,
}

impl Floor {
    fn listen(addr: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        let mut listener = TcpListener::from_std(socket.into());
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            peers: Vec::new(),
            free: Vec::new(),
            rooms: Vec::new(),
            names: HashMap::new(),
            due: Vec::new(),
            buffer: vec![0; 64 * 1024],
            relay: None,
        })
    }

    fn link(&mut self, mut relay: Relay) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut relay.stream, RELAY, interest)?;
        self.relay = Some(relay);
        Ok(())
    }

    fn serve(&mut self, collect: Duration) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut write_at: Option<Instant> = None;
        loop {
            let wait = write_at.map(|at| at.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    RELAY => {
                        self.take_over()?;
                        if collect.is_zero() {
                            self.broadcast();
                        }
                    }
                    Token(id) => {
                        if event.is_writable() {
                            self.flush(id);
                        }
                        if event.is_readable() || event.is_read_closed() || event.is_error() {
                            self.read(id)?;
                        }
                        if collect.is_zero() {
                            self.broadcast();
                        }
                    }
                }
            }
            if self.due.is_empty() {
                continue;
            }
            let now = Instant::now();
            if *write_at.get_or_insert(now + collect) <= now {
                write_at = None;
                self.broadcast();
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let id = self.free.pop().unwrap_or(self.peers.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(id), interest)?;
            let decoder = Decoder::new(Role::Server);
            let peer = Some(Peer { stream, place: None, decoder, out: Vec::new() });
            if id == self.peers.len() {
                self.peers.push(peer);
            } else {
                self.peers[id] = peer;
            }
        }
    }

    /// Takes what the other loop has passed on, and goes on with what is for it.
    fn take_over(&mut self) -> anyhow::Result<()> {
        let Some(relay) = &mut self.relay else { return Ok(()) };
        let (names, rooms, due) = (&self.names, &mut self.rooms, &mut self.due);
        relay.take(&mut self.buffer, |path, frame| {
            if let Some(room) = names.get(path) {
                gather(&mut rooms[*room], *room, due).extend_from_slice(frame);
            }
        })?;
        relay.flush()
    }

    /// Fails only with the link to the other loop.
    fn read(&mut self, id: usize) -> anyhow::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Some(Some(peer)) = self.peers.get_mut(id) {
            match peer.stream.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Ok(count) if count > 0 => {
                    let alive = match peer.place {
                        None => self.shake_hands(id, &buffer[..count]),
                        Some(place) => self.receive(id, place, &mut buffer[..count])?,
                    };
                    if !alive {
                        self.remove(id);
                    }
                }
                Ok(_) | Err(_) => self.remove(id),
            }
        }
        self.buffer = buffer;
        Ok(())
    }

    /// The request is taken to come in one piece, as `hubbub-load` sends it.
    fn shake_hands(&mut self, id: usize, request: &[u8]) -> bool {
        let request = String::from_utf8_lossy(request);
        let mut lines = request.lines();
        let path = lines.next().and_then(|line| line.split(' ').nth(1));
        let key = lines.find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
        let (Some(path), Some(key), Some(Some(peer))) = (path, key, self.peers.get_mut(id)) else {
            return false;
        };
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            accept_for(key).as_str()
        );
        if peer.stream.write_all(answer.as_bytes()).is_err() {
            return false;
        }
        let room = *self.names.entry(path.to_owned()).or_insert_with(|| {
            self.rooms.push(Room {
                path: path.to_owned(),
                members: Vec::new(),
                gathered: Vec::new(),
            });
            self.rooms.len() - 1
        });
        let members = &mut self.rooms[room].members;
        peer.place = Some(Place { room, seat: members.len() });
        members.push(id);
        true
    }

    /// Says whether the member is still there.
    fn receive(&mut self, id: usize, place: Place, bytes: &mut [u8]) -> anyhow::Result<bool> {
        let Some(Some(peer)) = self.peers.get_mut(id) else { return Ok(false) };
        let mut at = 0;
        loop {
            let (used, event) = peer.decoder.decode(&mut bytes[at..], LIMITS);
            at += used;
            match event {
                Ok(Some(Event::Message { kind, payload })) => {
                    let room = &mut self.rooms[place.room];
                    let gathered = gather(room, place.room, &mut self.due);
                    let begin = gathered.len();
                    write_frame(gathered, true, kind.into(), None, payload);
                    if let Some(relay) = &mut self.relay {
                        relay.pass_on(&room.path, &room.gathered[begin..])?;
                    }
                }
                Ok(Some(Event::Close(_))) => {
                    let mut answer = Vec::new();
                    write_frame(&mut answer, true, Opcode::Close, None, &1000_u16.to_be_bytes());
                    // The peer is leaving: it does not matter whether it hears that.
                    let _ = peer.stream.write(&answer);
                    return Ok(false);
                }
                Ok(Some(_)) => {}
                Ok(None) => return Ok(true),
                Err(_) => return Ok(false),
            }
        }
    }

    /// Writes what each room has gathered to each of its members.
    fn broadcast(&mut self) {
        for room in std::mem::take(&mut self.due) {
            let frames = std::mem::take(&mut self.rooms[room].gathered);
            for seat in (0..self.rooms[room].members.len()).rev() {
                let id = self.rooms[room].members[seat];
                let Some(Some(peer)) = self.peers.get_mut(id) else { continue };
                let written =
                    if peer.out.is_empty() { write(&mut peer.stream, &frames) } else { Some(0) };
                match written {
                    Some(written) => peer.out.extend_from_slice(&frames[written..]),
                    None => self.remove(id),
                }
            }
        }
    }

    fn flush(&mut self, id: usize) {
        let Some(Some(peer)) = self.peers.get_mut(id) else { return };
        if peer.out.is_empty() {
            return;
        }
        match write(&mut peer.stream, &peer.out) {
            Some(written) if written == peer.out.len() => peer.out = Vec::new(),
            Some(written) => drop(peer.out.drain(..written)),
            None => self.remove(id),
        }
    }

    fn remove(&mut self, id: usize) {
        let Some(Peer { place, .. }) = self.peers[id].take() else { return };
        self.free.push(id);
        let Some(Place { room, seat }) = place else { return };
        let members = &mut self.rooms[room].members;
        members.swap_remove(seat);
        if let Some(&moved) = members.get(seat)
            && let Some(place) = self.peers[moved].as_mut().and_then(|peer| peer.place.as_mut())
        {
            place.seat = seat;
        }
    }
}

/// Where the frames of a room gather, which is due from then on.
fn gather<'a>(room: &'a mut Room, key: usize, due: &mut Vec<usize>) -> &'a mut Vec<u8> {
    if room.gathered.is_empty() {
        due.push(key);
    }
    &mut room.gathered
}

/// One write call; `None` when the connection is no more.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> Option<usize> {
    match stream.write(bytes) {
        Ok(written) => Some(written),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Some(0),
        Err(_) => None,
    }
}
