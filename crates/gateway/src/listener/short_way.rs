//! The short way in, for handshakes whose head is there, whole, a moment after their connection was accepted: nearly all.
//!
//! It spares each of them a task, an HTTP connection with its buffers and timers, and being watched by two epoll
//! instances one after the other. Whatever is not such a handshake, or is to be refused, goes the long way with all that
//! was read, and nothing is decided twice: a refusal that was made here is only put on the wire there.

use std::{
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    sync::Arc,
};

use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, request::Parts};
use mio::net::TcpStream;

use super::{Door, HEAD_FIELDS};
use crate::{engine::Ticket, events::http::OpenSocket};

/// Bytes of a head that goes the short way at most. Browsers send about 600, and twice that with cookies.
const SHORT_HEAD: usize = 4096;

/// Who answers handshakes.
pub(crate) trait Doorkeeper: Send + Sync + 'static {
    /// Whether this request is a handshake that [`Doorkeeper::answer`] knows how to answer as the routes would.
    fn knows(&self, head: &Parts) -> bool;

    /// Answers it: the ticket and what is to be written, or the answer of who may not enter.
    fn answer(
        self: Arc<Self>,
        head: Parts,
        door: Arc<Door>,
    ) -> BoxFuture<'static, Result<(Ticket, Bytes), Response>>;

    /// Those who came in lately are all that come for now: to be called some time after each [`Doorkeeper::answer`].
    fn all_in(&self);

    /// Those who are in, or are just being let in: each has a socket.
    fn members(&self) -> usize;
}

/// A connection that has just been accepted.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) socket: TcpStream,
    pub(super) peer: SocketAddr,
    /// Until it is a member's.
    pub(super) open: OpenSocket,
}

/// What a first look at a connection shows.
pub(super) enum Look {
    /// Nothing yet.
    Nothing(Fresh),
    /// A handshake that the doorkeeper knows.
    Handshake(Box<Known>),
    /// Anything else.
    Other(Rest),
}

/// A handshake, and the connection that it came on.
pub(super) struct Known {
    fresh: Fresh,
    head: Parts,
    read: Bytes,
    head_bytes: usize,
}

/// What goes the long way.
pub(super) struct Rest {
    pub(super) fresh: Fresh,
    /// What was read from it.
    pub(super) read: Bytes,
    /// The answer to the first request in that, if it is known.
    pub(super) answer: Option<Response>,
}

impl Fresh {
    /// Reads what is there, which does not wait.
    pub(super) fn look(mut self, doorkeeper: &dyn Doorkeeper) -> Look {
        let mut buffer = [0; SHORT_HEAD];
        let read = match self.socket.read(&mut buffer) {
            Ok(read) => buffer.get(..read).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Look::Nothing(self),
            // Told by the next read, on the long way.
            Err(_) => &[],
        };
        let known = handshake(read).filter(|(head, _)| doorkeeper.knows(head));
        let read = Bytes::copy_from_slice(read);
        match known {
            Some((head, head_bytes)) => {
                Look::Handshake(Box::new(Known { fresh: self, head, read, head_bytes }))
            }
            None => Look::Other(Rest { fresh: self, read, answer: None }),
        }
    }
}

impl Known {
    /// Answers the handshake, and hands the socket over if the client may enter.
    pub(super) async fn enter(self, doorkeeper: Arc<dyn Doorkeeper>) -> Option<Rest> {
        let Self { mut fresh, head, read, head_bytes } = self;
        let door = Arc::new(Door::new(fresh.peer));
        match doorkeeper.answer(head, door).await {
            Ok((ticket, answer)) => {
                // The buffer of a new socket takes it whole; from one that is broken the ticket takes its place back.
                if fresh.socket.write(&answer).is_ok_and(|written| written == answer.len()) {
                    ticket.enter_soon(fresh.socket, read.slice(head_bytes..));
                }
                None
            }
            Err(answer) => Some(Rest { fresh, read, answer: Some(answer) }),
        }
    }
}

/// The head of a request that is nothing but a GET for a path, by HTTP/1.1, without a body, and how many bytes it has; if it
/// is there, whole and well-formed.
fn handshake(read: &[u8]) -> Option<(Parts, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(bytes) = request.parse(read).ok()? else { return None };
    let (target, version) = (request.path?, request.version?);
    if request.method? != "GET" || version != 1 || !target.starts_with('/') {
        return None;
    }
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = Method::GET;
    head.version = Version::HTTP_11;
    head.uri = target.parse::<Uri>().ok()?;
    head.headers.reserve(request.headers.len());
    for field in request.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        if name == http::header::CONTENT_LENGTH || name == http::header::TRANSFER_ENCODING {
            return None;
        }
        head.headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some((head, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "GET /rooms/demo/lobby?a=b HTTP/1.1\r\nHost: chat\r\nUpgrade: websocket\r\n\r\n";

    #[test]
    fn a_whole_head_is_read_and_what_follows_is_not() {
        let more = format!("{HEAD}\x01\x02");
        let (head, bytes) = handshake(more.as_bytes()).unwrap();
        assert_eq!(bytes, HEAD.len());
        assert_eq!((head.uri.path(), head.uri.query()), ("/rooms/demo/lobby", Some("a=b")));
        assert_eq!(head.headers["host"], "chat");
        assert_eq!(head.headers.len(), 2);
    }

    #[test]
    fn whatever_is_not_one_goes_the_long_way() {
        let field = |field: &str| HEAD.replace("Host: chat", field);
        let many = "A: b\r\n".repeat(HEAD_FIELDS + 1);
        for other in [
            String::new(),
            HEAD[..HEAD.len() - 1].to_owned(),
            HEAD.replace("GET", "POST"),
            HEAD.replace("GET", "HEAD"),
            HEAD.replace("1.1", "1.0"),
            HEAD.replace(" /rooms", " http://chat/rooms"),
            HEAD.replace("/rooms/demo/lobby?a=b", "*"),
            HEAD.replace("a=b", "a=\"<>"),
            field("Content-Length: 0"),
            field("Transfer-Encoding: chunked"),
            field("Host : chat"),
            field("Host: ch\0at"),
            field(many.trim_end()),
            "\x16\x03\x01".to_owned(),
        ] {
            assert!(handshake(other.as_bytes()).is_none(), "{other:?}");
        }
    }
}
