//! The opening handshake, section 4: what a server must check, and the client's side of it.
//!
//! [`check`] is as strict as the RFC lets a server be: what it accepts is one well-formed request
//! and nothing that two parsers could read in two ways. It says nothing about origins, paths or
//! capacity; those are the caller's. No extension and no subprotocol is ever chosen here.

pub mod client;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
        TRANSFER_ENCODING, UPGRADE,
    },
    uri::Authority,
};
use sha1::{Digest, Sha1};
use thiserror::Error;

/// What is appended to the key before it is hashed (section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why a request is no handshake that a server can accept. The text says how to mend it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HandshakeError {
    /// A plain request: no `Upgrade: websocket`.
    #[error("this address speaks websocket; send \"Upgrade: websocket\"")]
    NotUpgrade,

    /// The method is not GET.
    #[error("a websocket handshake must use GET")]
    BadMethod,

    /// The version is not HTTP/1.1.
    #[error("a websocket handshake must use HTTP/1.1")]
    HttpVersion,

    /// The named header is missing, or lacks the token that it must hold.
    #[error("the header {0} is missing or lacks its value")]
    Missing(&'static str),

    /// The named header came more than once.
    #[error("the header {0} must come once")]
    Duplicate(&'static str),

    /// `Sec-WebSocket-Version` is not 13.
    #[error("the websocket version must be 13")]
    UnsupportedVersion,

    /// `Host` names no host.
    #[error("the header host must be a host name or address, with or without a port")]
    BadHost,

    /// `Sec-WebSocket-Key` is not the base64 of 16 bytes.
    #[error("the header sec-websocket-key must be 16 bytes in base64")]
    BadKey,

    /// The request announces a body, whose end and the first frame's start could be confused.
    #[error("a websocket handshake must not have a body")]
    HasBody,
}

impl HandshakeError {
    /// Everything that [`HandshakeError::reason`] can say.
    pub const REASONS: [&'static str; 9] = [
        "not_upgrade",
        "bad_method",
        "http_version",
        "missing_header",
        "duplicate_header",
        "unsupported_version",
        "bad_host",
        "bad_key",
        "has_body",
    ];

    /// The status of the answer: 405 for another method, 426 for another version of the
    /// protocol, 400 for all else.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnsupportedVersion => StatusCode::UPGRADE_REQUIRED,
            Self::NotUpgrade
            | Self::HttpVersion
            | Self::Missing(_)
            | Self::Duplicate(_)
            | Self::BadHost
            | Self::BadKey
            | Self::HasBody => StatusCode::BAD_REQUEST,
        }
    }

    /// The headers that the answer must carry with that status: `Allow` with 405, `Upgrade`
    /// and `Sec-WebSocket-Version` with 426.
    pub const fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::BadMethod => &[("allow", "GET, HEAD")],
            Self::UnsupportedVersion => &[
                ("upgrade", "websocket"),
                ("connection", "upgrade"),
                ("sec-websocket-version", "13"),
            ],
            Self::NotUpgrade
            | Self::HttpVersion
            | Self::Missing(_)
            | Self::Duplicate(_)
            | Self::BadHost
            | Self::BadKey
            | Self::HasBody => &[],
        }
    }

    /// A stable name for metrics and logs, such as `bad_key`.
    pub const fn reason(self) -> &'static str {
        // A new one belongs into `REASONS` too.
        match self {
            Self::NotUpgrade => "not_upgrade",
            Self::BadMethod => "bad_method",
            Self::HttpVersion => "http_version",
            Self::Missing(_) => "missing_header",
            Self::Duplicate(_) => "duplicate_header",
            Self::UnsupportedVersion => "unsupported_version",
            Self::BadHost => "bad_host",
            Self::BadKey => "bad_key",
            Self::HasBody => "has_body",
        }
    }
}

/// The value of `Sec-WebSocket-Accept` that answers a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept(HeaderValue);

impl Accept {
    /// The value: 28 characters of base64.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

impl From<Accept> for HeaderValue {
    fn from(accept: Accept) -> Self {
        accept.0
    }
}

/// Checks a server's received handshake (section 4.2.1) and gives the answer to its key.
///
/// A request without `Upgrade: websocket` is told apart first, as [`HandshakeError::NotUpgrade`], so
/// that one address can serve a page as well.
///
/// # Errors
///
/// The first thing found wrong.
pub fn check(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
) -> Result<Accept, HandshakeError> {
    if !has_token(headers, &UPGRADE, "websocket") {
        return Err(HandshakeError::NotUpgrade);
    }
    if method != Method::GET {
        return Err(HandshakeError::BadMethod);
    }
    if version != Version::HTTP_11 {
        return Err(HandshakeError::HttpVersion);
    }
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(HandshakeError::Missing("connection"));
    }
    if !is_host(only(headers, &HOST, "host")?) {
        return Err(HandshakeError::BadHost);
    }
    if only(headers, &SEC_WEBSOCKET_VERSION, "sec-websocket-version")? != "13" {
        return Err(HandshakeError::UnsupportedVersion);
    }
    let key = only(headers, &SEC_WEBSOCKET_KEY, "sec-websocket-key")?.as_bytes();
    if !is_key(key) {
        return Err(HandshakeError::BadKey);
    }
    let has_length = headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0");
    if has_length || headers.contains_key(TRANSFER_ENCODING) {
        return Err(HandshakeError::HasBody);
    }
    Ok(accept(key))
}

/// The answer to `key`, whatever it holds (section 4.2.2, step 5.4).
pub fn accept_for(key: &str) -> Accept {
    accept(key.as_bytes())
}

fn accept(key: &[u8]) -> Accept {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    // Base64 is always a legal value; were it not, the empty one would make every client refuse.
    Accept(HeaderValue::try_from(STANDARD.encode(digest)).unwrap_or(HeaderValue::from_static("")))
}

/// Whether the value names a host, with or without a port. Nothing is done with it, but RFC 9112 (section 3.2) wants
/// what is no host refused: whoever stands before or behind may read something else in it.
fn is_host(value: &HeaderValue) -> bool {
    let authority = value.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
    authority.is_some_and(|authority| {
        let (text, host) = (authority.as_str(), authority.host());
        let port = text.strip_prefix(host).unwrap_or_default();
        // Not by `parse` alone, which takes a sign before a number.
        let is_number = authority.port_u16().is_some() && !port.contains('+');
        !host.is_empty() && !text.contains('@') && (matches!(port, "" | ":") || is_number)
    })
}

/// Whether `key` is the base64 of 16 bytes: 22 characters of its alphabet and two of padding.
///
/// The four bits of the last character that no byte needs may be anything: RFC 4648 (section 3.5)
/// leaves that to the decoder, and clients that draw random characters exist.
fn is_key(key: &[u8]) -> bool {
    match key.split_first_chunk::<22>() {
        Some((digits, b"==")) => {
            digits.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/'))
        }
        _ => false,
    }
}

/// The value of a header that must come exactly once.
fn only<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    label: &'static str,
) -> Result<&'a HeaderValue, HandshakeError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        (None, _) => Err(HandshakeError::Missing(label)),
        (Some(_), Some(_)) => Err(HandshakeError::Duplicate(label)),
    }
}

/// Whether `token` is in the comma-separated list that all headers of this name form together,
/// whatever its case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().any(|value| list_has(value.as_bytes(), token))
}

fn list_has(list: &[u8], token: &str) -> bool {
    list.split(|&byte| byte == b',')
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests;
