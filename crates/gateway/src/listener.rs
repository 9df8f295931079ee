//! Accepting connections and speaking HTTP on them, until one becomes a member's socket.
//!
//! The loop is our own because the framework's has neither header timeout nor a way to take the socket back. A request
//! head must be complete within five seconds and fit in 16 KiB, and is given up at twice that. After a handshake was
//! answered the bare socket goes to the engine, with its TLS session if it has one; no HTTP state stays behind. Most
//! handshakes without TLS take the short way (`short_way`).

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body, response::Response};
use bytes::Bytes;
use futures_util::future::{Either, FutureExt as _, ready, select};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use mio::net::TcpListener;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::TcpStream,
    task::yield_now,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use crate::{
    engine::Ticket,
    events::{HttpEvents, http::OpenSocket},
    limits::{Limits, SocketRefusal, WaitingPlace},
    tls::Handshakes,
};

mod encrypted;
mod impatient;
mod short_way;
mod silent;
mod wire;

use impatient::Impatient;
pub(crate) use short_way::Doorkeeper;
use short_way::{Fresh, Look, Rest};
use silent::Silent;
use wire::{Wire, into_transport};

/// Time for a request head, counted from the connection's first byte or from the end of the last request.
const HEAD_TIME: Duration = Duration::from_secs(5);

/// Time in which a client must take at least some of an answer that waits for it.
const TAKE_TIME: Duration = Duration::from_secs(10);

/// Bytes and fields of a request head. Browsers with many cookies stay below 8 KiB.
pub(crate) const HEAD_BYTES: usize = 16 * 1024;
pub(crate) const HEAD_FIELDS: usize = 64;

/// Up to so many times that, a head is read, so that its refusal can be put in words: what goes beyond is answered by
/// the HTTP library, with a bare status.
const HEAD_ROOM: usize = 2;

/// Connections that may wait to be accepted. With the runtime's default of 128 a burst of clients waits a second for a
/// resent SYN.
const BACKLOG: i32 = 4096;

/// Bytes of unsent and unacknowledged data that the kernel holds for one member; it takes twice that with its own
/// overhead. Left to itself it grows to megabytes, which hides a member that no longer reads until memory runs out.
const SEND_BUFFER: usize = 64 * 1024;

/// Connections that are accepted before those that came in are told of to their shards, which sleep until then: being woken
/// costs as much as a handshake.
const ACCEPTED_AT_ONCE: usize = 64;

/// Pause after the system refused a connection, for want of file descriptors: without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the handler of a request knows of its connection, and where it leaves the ticket of an accepted handshake.
#[derive(Debug)]
pub(crate) struct Door {
    peer: SocketAddr,
    ticket: Mutex<Option<Ticket>>,
}

impl Door {
    fn new(peer: SocketAddr) -> Self {
        Self { peer, ticket: Mutex::new(None) }
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub(crate) fn admit(&self, ticket: Ticket) {
        *self.ticket.lock().unwrap_or_else(PoisonError::into_inner) = Some(ticket);
    }

    fn take(&self) -> Option<Ticket> {
        self.ticket.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

type Accepted = (mio::net::TcpStream, SocketAddr);

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener(AsyncFd<TcpListener>);

impl Listener {
    /// Opens one. `[::]` serves IPv4 too, and IPv4 alone where the system has no IPv6.
    ///
    /// # Errors
    ///
    /// Those of the system, such as an address that is in use.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        match listen(address) {
            Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && !is_in_use(&error) => {
                listen((Ipv4Addr::UNSPECIFIED, address.port()).into()).map_err(|_| error)
            }
            bound => bound,
        }
    }

    /// Where it listens; the real port, also when 0 was asked for.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }

    /// The next connection. Its socket is not watched by the runtime, which most never need.
    async fn accept(&self) -> io::Result<Accepted> {
        self.0.async_io(Interest::READABLE, TcpListener::accept).await
    }

    /// The next connection if there is one now; otherwise `WouldBlock`.
    fn try_accept(&self) -> io::Result<Accepted> {
        self.0.try_io(Interest::READABLE, TcpListener::accept)
    }
}

fn is_in_use(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

fn listen(address: SocketAddr) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Whatever the machine's default is.
        socket.set_only_v6(false)?;
    }
    // Accepted sockets inherit these, which spares two calls a connection.
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into());
    #[expect(
        deprecated,
        reason = "its successor is unsafe, for types whose descriptor may change or close; mio's does neither while it lives"
    )]
    AsyncFd::with_interest(listener, Interest::READABLE).map(Listener)
}

/// What connections are served with. A clone is the same.
#[derive(Clone)]
pub(crate) struct Site {
    /// Who answers requests.
    pub router: Router,
    /// Who answers handshakes that come the [short way](short_way), if there are handshakes.
    pub doorkeeper: Option<Arc<dyn Doorkeeper>>,
    /// What handshakes of TLS are made with, if all that comes in is encrypted.
    pub tls: Option<Handshakes>,
    /// What happens here.
    pub events: Arc<HttpEvents>,
    /// How many sockets there may be without a handshake, if that is limited.
    pub limits: Option<Arc<Limits>>,
    /// Keeps the tasks of connections.
    pub tracker: TaskTracker,
    /// Ends all of it.
    pub stop: CancellationToken,
}

/// Serves connections until it is to stop; those that need one have a task.
pub(crate) async fn serve(listener: Listener, site: Site) {
    let mut silent = Silent::default();
    while !site.stop.is_cancelled() {
        let due = silent.due();
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => Some(accepted),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => None,
            () = site.stop.cancelled() => return,
        };
        let (mut more, mut failed) = (accepted, false);
        let mut left = ACCEPTED_AT_ONCE;
        while let Some(accepted) = more.take() {
            match accepted {
                Ok((socket, mut peer)) => {
                    // An IPv4 client of a socket for both shows as ::ffff:192.0.2.1.
                    peer.set_ip(peer.ip().to_canonical());
                    match site.wait_at_door(peer) {
                        Ok(waiting) => {
                            let open = site.events.socket_opened(waiting);
                            site.meet(Fresh { socket, peer, open }, 0, &mut silent);
                        }
                        // Without a word, which costs least, and nobody who means well opens so many.
                        Err(refusal) => site.events.socket_refused(refusal, peer),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    site.events.accept_failed(&error);
                    failed = true;
                    break;
                }
            }
            left -= 1;
            more = (left > 0).then(|| listener.try_accept());
        }
        let now = Instant::now();
        while let Some((looks, fresh)) = silent.next(now) {
            site.meet(fresh, looks, &mut silent);
        }
        if let Some(doorkeeper) = &site.doorkeeper {
            doorkeeper.all_in();
        }
        if failed {
            tokio::time::sleep(ACCEPT_PAUSE).await;
        } else if left == 0 {
            yield_now().await; // other tasks have their turn in a storm
        }
    }
}

impl Site {
    /// Counts a socket, if there may be another one.
    fn wait_at_door(&self, peer: SocketAddr) -> Result<WaitingPlace, SocketRefusal> {
        let members = self.doorkeeper.as_ref().map_or(0, |doorkeeper| doorkeeper.members());
        match &self.limits {
            Some(limits) => limits.wait_at_door(peer.ip(), members),
            None => Ok(WaitingPlace::uncounted()),
        }
    }

    /// Serves a connection by what it has sent, or puts that off, after so many looks that were, if it has sent nothing yet.
    fn meet(&self, fresh: Fresh, looks: usize, silent: &mut Silent) {
        if let Some(tls) = self.tls.clone() {
            self.tracker.spawn(encrypted::converse(fresh, tls, self.clone()));
            return;
        }
        let long_way = |fresh| self.converse(Rest { fresh, read: Bytes::new(), answer: None });
        let Some(doorkeeper) = &self.doorkeeper else { return long_way(fresh) };
        match fresh.look(&**doorkeeper) {
            Look::Nothing(fresh) => _ = silent.put_off(looks, fresh).map(long_way),
            Look::Other(rest) => self.converse(rest),
            Look::Handshake(known) => {
                let mut entering = Box::pin(known.enter(Arc::clone(doorkeeper)));
                // Without a task, unless it has to wait for the bus.
                match entering.as_mut().now_or_never() {
                    Some(None) => {}
                    Some(Some(rest)) => self.converse(rest),
                    None => {
                        let (site, doorkeeper) = (self.clone(), Arc::clone(doorkeeper));
                        self.tracker.spawn(async move {
                            let rest = entering.await;
                            doorkeeper.all_in();
                            if let Some(rest) = rest {
                                converse(rest, site).await;
                            }
                        });
                    }
                }
            }
        }
    }

    fn converse(&self, rest: Rest) {
        self.tracker.spawn(converse(rest, self.clone()));
    }
}

/// Speaks HTTP on one connection that is not encrypted.
async fn converse(rest: Rest, site: Site) {
    let Rest { fresh: Fresh { socket, peer, open }, read, answer } = rest;
    let socket = match TcpStream::from_std(socket.into()) {
        Ok(socket) => socket,
        Err(error) => return site.events.accept_failed(&error),
    };
    // The HTTP library answers what it cannot read only if that can be written at once, and the runtime has to see first that
    // a new socket takes bytes: that it is broken the first read tells.
    let _ = socket.writable().await;
    talk(Wire::Left(socket), peer, open, read, answer, site).await;
}

/// Speaks HTTP on one connection, and hands the socket over if a handshake was accepted. `read` was read from it already;
/// `answer` is the answer to the first request, if that is known.
async fn talk(
    wire: Wire,
    peer: SocketAddr,
    open: OpenSocket,
    read: Bytes,
    answer: Option<Response>,
    site: Site,
) {
    let Site { router, events, stop, .. } = site;
    let door = Arc::new(Door::new(peer));
    let service = {
        let door = Arc::clone(&door);
        let answer = Mutex::new(answer);
        service_fn(move |mut request: Request<Incoming>| {
            type Answer = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;
            if let Some(answer) = answer.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return Box::pin(ready(Ok(answer))) as Answer;
            }
            request.extensions_mut().insert(Arc::clone(&door));
            Box::pin(router.clone().oneshot(request.map(Body::new))) as Answer
        })
    };
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(HEAD_FIELDS * HEAD_ROOM)
        .max_buf_size(HEAD_BYTES * HEAD_ROOM)
        .serve_connection(TokioIo::new(Impatient::new(wire, read, TAKE_TIME)), service);
    let finished = {
        let talk = poll_fn(|context| connection.poll_without_shutdown(context));
        match select(pin!(talk), pin!(stop.cancelled())).await {
            Either::Left((finished, _)) => Some(finished),
            Either::Right(_) => None,
        }
    };
    let finished = match finished {
        Some(finished) => finished,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|context| connection.poll_without_shutdown(context)).await
        }
    };
    if let Err(error) = finished {
        events.request_cut(&error, peer);
        return; // a ticket that was given out is given back with the door
    }
    let parts = connection.into_parts();
    drop(open);
    if let Some(ticket) = door.take() {
        let wire = parts.io.into_inner().into_inner();
        // The shard's epoll takes over; a socket that cannot be taken back is broken, or takes nothing, and its place given
        // back.
        if let Ok(Ok(transport)) = timeout(TAKE_TIME, into_transport(wire)).await {
            ticket.enter(transport, parts.read_buf);
        }
    }
}
