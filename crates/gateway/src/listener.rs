//! Accepting connections and speaking HTTP on them, until one becomes a member's socket.
//!
//! The loop is our own because the framework's has neither header timeout nor a way to take the socket back. A request
//! head must be complete within five seconds and fit in 16 KiB, and is given up at twice that. After a handshake was
//! answered the bare socket goes to the engine; no HTTP state stays behind.

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
use futures_util::future::{Either, select};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use crate::{engine::Ticket, events::HttpEvents};

mod impatient;

use impatient::Impatient;

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

/// Pause after the system refused a connection, for want of file descriptors: without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the handler of a request knows of its connection, and where it leaves the ticket of an accepted handshake.
#[derive(Debug)]
pub(crate) struct Door {
    peer: SocketAddr,
    ticket: Mutex<Option<Ticket>>,
}

impl Door {
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

/// Opens a listening socket. `[::]` serves IPv4 too, and IPv4 alone where the system has no IPv6.
///
/// # Errors
///
/// Those of the system, such as an address that is in use.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match listen(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && !is_in_use(&error) => {
            listen((Ipv4Addr::UNSPECIFIED, address.port()).into()).map_err(|_| error)
        }
        bound => bound,
    }
}

fn is_in_use(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
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
    TcpListener::from_std(socket.into())
}

/// Serves connections until `stop`; each of them is a task of `tracker`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    events: Arc<HttpEvents>,
    tracker: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let accepted = match select(pin!(listener.accept()), pin!(stop.cancelled())).await {
            Either::Left((accepted, _)) => accepted,
            Either::Right(_) => return,
        };
        match accepted {
            Ok((socket, mut peer)) => {
                // An IPv4 client of a socket for both shows as ::ffff:192.0.2.1.
                peer.set_ip(peer.ip().to_canonical());
                let connection =
                    converse(socket, peer, router.clone(), Arc::clone(&events), stop.clone());
                tracker.spawn(connection);
            }
            Err(error) => {
                events.accept_failed(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Speaks HTTP on one connection, and hands the socket over if a handshake was accepted.
async fn converse(
    socket: TcpStream,
    peer: SocketAddr,
    router: Router,
    events: Arc<HttpEvents>,
    stop: CancellationToken,
) {
    let open = events.socket_opened();
    let door = Arc::new(Door { peer, ticket: Mutex::new(None) });
    let service = {
        let door = Arc::clone(&door);
        service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&door));
            let answer = router.clone().oneshot(request.map(Body::new));
            Box::pin(answer) as Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>
        })
    };
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(HEAD_FIELDS * HEAD_ROOM)
        .max_buf_size(HEAD_BYTES * HEAD_ROOM)
        .serve_connection(TokioIo::new(Impatient::new(socket, TAKE_TIME)), service);
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
        // The shard's epoll takes over; a socket that cannot be taken back is broken, and its place given back.
        if let Ok(socket) = parts.io.into_inner().into_inner().into_std() {
            ticket.enter(socket, parts.read_buf);
        }
    }
}
