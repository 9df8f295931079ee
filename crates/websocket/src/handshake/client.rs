//! The client's side of the opening handshake: the request to send, and the check of the answer.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use thiserror::Error;

use super::{accept_for, list_has};

/// More headers than any server sends in an answer; beyond it the answer is refused.
const MAX_HEADERS: usize = 64;

/// A handshake to send.
///
/// ```
/// use hubbub_websocket::handshake::{accept_for, client::{Key, Request}};
///
/// let request = Request::new("chat.example.com", "/rooms/demo/lobby");
/// let key = Key::from_nonce([7; 16]);
/// assert!(request.to_bytes(&key)?.starts_with(b"GET /rooms/demo/lobby HTTP/1.1\r\n"));
///
/// let answer = format!(
///     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
///      Sec-WebSocket-Accept: {}\r\n\r\n",
///     accept_for(key.as_str()).as_str(),
/// );
/// let head_len = request.check_response(&key, answer.as_bytes())?;
/// assert_eq!(head_len, Some(answer.len()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The value of `Host`: host, and port unless it is the scheme's own.
    pub host: &'a str,

    /// Path and query, beginning with a slash.
    pub path: &'a str,

    /// The value of `Origin`, which browsers always send.
    pub origin: Option<&'a str>,

    /// Further headers, name and value, such as `Authorization` or `traceparent`.
    pub headers: &'a [(&'a str, &'a str)],
}

/// The client's nonce in base64, as `Sec-WebSocket-Key` carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

/// A part of the request cannot stand in an HTTP head.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the {0} of the request must not be empty or hold spaces or control characters")]
pub struct RequestError(&'static str);

/// The answer does not open a WebSocket connection.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResponseError {
    /// Not an HTTP/1.1 answer, or one of more than 64 headers.
    #[error("the answer is not a well-formed HTTP/1.1 response")]
    Malformed,

    /// The server refused, with this status.
    #[error("the server refused the handshake with status {status}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Seconds, when `Retry-After` says them.
        retry_after: Option<u32>,
    },

    /// 101, but the named header is missing, doubled or has another value than the RFC demands.
    #[error("the header {0} of the answer is missing or wrong")]
    WrongHeader(&'static str),

    /// 101, but `Sec-WebSocket-Accept` does not answer our key: no WebSocket server is there.
    #[error("the server's sec-websocket-accept does not answer our key")]
    WrongAccept,

    /// The server chose the named thing, which was not offered.
    #[error("the server chose by {0} what was not offered")]
    NotOffered(&'static str),
}

impl Key {
    /// A key from 16 bytes, which should be random and new for each connection.
    pub fn from_nonce(nonce: [u8; 16]) -> Self {
        Self(STANDARD.encode(nonce))
    }

    /// The key as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'a> Request<'a> {
    /// A request with no origin and no further headers.
    pub const fn new(host: &'a str, path: &'a str) -> Self {
        Self { host, path, origin: None, headers: &[] }
    }

    /// The request's bytes, complete with the empty line.
    ///
    /// # Errors
    ///
    /// When a part would break out of its place in the head.
    pub fn to_bytes(&self, key: &Key) -> Result<Vec<u8>, RequestError> {
        let is_word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        let is_value = |text: &str| text.bytes().all(|b| b == b'\t' || (b >= b' ' && b != 0x7F));
        if !is_word(self.host) {
            return Err(RequestError("host"));
        }
        if !is_word(self.path) || !self.path.starts_with('/') {
            return Err(RequestError("path"));
        }
        let mut head = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n",
            self.path,
            self.host,
            key.as_str(),
        );
        let origin = self.origin.map(|origin| ("Origin", origin));
        for (name, value) in origin.into_iter().chain(self.headers.iter().copied()) {
            if !is_word(name) || name.contains(':') {
                return Err(RequestError("header name"));
            }
            if !is_value(value) {
                return Err(RequestError("header value"));
            }
            for part in [name, ": ", value, "\r\n"] {
                head.push_str(part);
            }
        }
        head.push_str("\r\n");
        Ok(head.into_bytes())
    }

    /// Checks the answer (section 4.1). Returns the length of its head when the connection is open;
    /// frames may follow in the same bytes. Returns `None` when the head is not whole yet.
    ///
    /// # Errors
    ///
    /// When the answer is anything but the right 101.
    pub fn check_response(
        &self,
        key: &Key,
        received: &[u8],
    ) -> Result<Option<usize>, ResponseError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let head_len = match response.parse(received) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(ResponseError::Malformed),
        };
        let values = |name: &'static str| {
            response
                .headers
                .iter()
                .filter(move |h| h.name.eq_ignore_ascii_case(name))
                .map(|h| h.value)
        };
        let status = response.code.unwrap_or_default();
        if status != 101 {
            let retry_after = values("retry-after")
                .next()
                .and_then(|value| std::str::from_utf8(value).ok()?.trim().parse().ok());
            return Err(ResponseError::Refused { status, retry_after });
        }
        if response.version != Some(1) {
            return Err(ResponseError::Malformed);
        }
        if !values("upgrade").any(|value| list_has(value, "websocket")) {
            return Err(ResponseError::WrongHeader("upgrade"));
        }
        if !values("connection").any(|value| list_has(value, "upgrade")) {
            return Err(ResponseError::WrongHeader("connection"));
        }
        let mut accepts = values("sec-websocket-accept");
        match (accepts.next(), accepts.next()) {
            (Some(value), None)
                if value.trim_ascii() == accept_for(key.as_str()).as_str().as_bytes() => {}
            (Some(_), None) => return Err(ResponseError::WrongAccept),
            _ => return Err(ResponseError::WrongHeader("sec-websocket-accept")),
        }
        if values("sec-websocket-extensions").next().is_some() {
            return Err(ResponseError::NotOffered("sec-websocket-extensions"));
        }
        let mut chosen = values("sec-websocket-protocol");
        if let Some(protocol) = chosen.next() {
            let offered = self.headers.iter().any(|(name, offer)| {
                name.eq_ignore_ascii_case("sec-websocket-protocol")
                    && offer.split(',').any(|item| item.trim().as_bytes() == protocol.trim_ascii())
            });
            if !offered || chosen.next().is_some() {
                return Err(ResponseError::NotOffered("sec-websocket-protocol"));
            }
        }
        Ok(Some(head_len))
    }
}

#[cfg(test)]
mod tests;
