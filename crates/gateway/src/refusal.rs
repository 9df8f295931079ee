//! Why a handshake is refused, and how that is told: `application/problem+json` (RFC 9457), before any upgrade.

use std::time::Duration;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use hubbub_api::OriginRefusal;
use hubbub_websocket::handshake::HandshakeError;
use serde::Serialize;

use crate::{
    engine::MalformedConnectionId,
    listener::{HEAD_BYTES, HEAD_FIELDS},
    token::{CarrierFault, TokenFault},
};

/// Seconds after which a refused client should try again when the room or the gateway is full.
const RETRY_FULL: u64 = 30;

/// Seconds after which it should try again when this gateway is on its way out or not ready yet, because another one, or this
/// one, takes it as soon as the load balancer knows; or when it came too often.
const RETRY_SOON: u64 = 2;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request is no acceptable handshake.
    #[error("{0}")]
    Handshake(HandshakeError),
    /// The request's head has more bytes or fields than any client needs.
    #[error(
        "the head of the request has more than {} KiB or {HEAD_FIELDS} fields; are there many cookies for this host?",
        HEAD_BYTES / 1024
    )]
    HeadTooLarge,
    /// The name that the client gives its connection is none.
    #[error("{0}; give ?connection= one, or leave it out")]
    ConnectionId(MalformedConnectionId),
    /// The origin keeps it out.
    #[error("{0}")]
    Origin(OriginRefusal),
    /// It does not carry one token in one place.
    #[error("{0}")]
    TokenCarrier(CarrierFault),
    /// The room asks for a token.
    #[error(
        "this room asks for a token: send it as Authorization: Bearer …, or from a browser as the subprotocols hubbub.v1 and hubbub.bearer.…"
    )]
    TokenMissing,
    /// The token is not good.
    #[error("{0}")]
    Token(TokenFault),
    /// The token is good, and not for this room.
    #[error("the token allows neither to read nor to write in this room")]
    NotGranted,
    /// No such room is declared.
    #[error(
        "no ChatRoom of this namespace and name is declared here; is the address spelled right?"
    )]
    NoSuchRoom,
    /// The room that this address leads to is not declared.
    #[error(
        "this address leads to the room {room}, as --default-room says, and no such ChatRoom is declared here"
    )]
    NoDefaultRoom {
        /// That room, `namespace/name`.
        room: String,
    },
    /// Nothing is at this path.
    #[error("nothing is here; rooms are at /rooms/{{namespace}}/{{name}}")]
    NoSuchPath,
    /// The room belongs to another pool's gateways.
    #[error("this room is served by the gateways of the pool {pool:?}, not by this one")]
    OtherPool {
        /// The room's pool.
        pool: String,
    },
    /// The room has all the connections that it may have.
    #[error("the room is full")]
    RoomFull,
    /// The gateway has all the connections that it may have.
    #[error("this gateway is full")]
    GatewayFull,
    /// The gateway is short of memory.
    #[error("this gateway is short of memory")]
    MemoryShort,
    /// More comes to this gateway than it takes in a second.
    #[error("more comes to this gateway than it takes in a second")]
    GatewayRate,
    /// More comes from one address than may in a second.
    #[error("more comes from this address than may in a second")]
    AddressRate,
    /// One address has all the connections that it may have.
    #[error("this address has all the connections that it may have here; end one of them")]
    AddressFull,
    /// One subject of tokens has all the connections that it may have.
    #[error(
        "the subject of this token has all the connections that it may have here; end one of them"
    )]
    SubjectFull,
    /// The gateway is on its way out.
    #[error("this gateway is going down; another one will take you")]
    Draining,
    /// The gateway does not know its rooms yet.
    #[error("this gateway does not know its rooms yet")]
    NotReady,
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: String,
    reason: &'static str,
    #[serde(rename = "retryAfter", skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

impl Refusal {
    /// Everything that [`Refusal::reason`] can say.
    pub(crate) fn reasons() -> impl Iterator<Item = &'static str> {
        let others = [
            "head_too_large",
            "connection_id",
            "origin_missing",
            "origin_repeated",
            "origin_malformed",
            "origin_not_allowed",
            "token_carrier",
            "token_missing",
            "token_not_for_room",
            "no_such_room",
            "no_default_room",
            "no_such_path",
            "other_pool",
            "room_full",
            "gateway_full",
            "memory",
            "gateway_rate",
            "address_rate",
            "address_full",
            "subject_full",
            "draining",
            "not_ready",
        ];
        let tokens = TokenFault::ALL.map(TokenFault::reason);
        HandshakeError::REASONS.into_iter().chain(others).chain(tokens)
    }

    /// A stable name, for metrics and programs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        // A new one belongs into `reasons` too.
        match self {
            Self::Handshake(error) => error.reason(),
            Self::HeadTooLarge => "head_too_large",
            Self::ConnectionId(_) => "connection_id",
            Self::Origin(OriginRefusal::Missing) => "origin_missing",
            Self::Origin(OriginRefusal::Repeated) => "origin_repeated",
            Self::Origin(OriginRefusal::Malformed(_)) => "origin_malformed",
            Self::Origin(OriginRefusal::NotAllowed) => "origin_not_allowed",
            Self::TokenCarrier(_) => "token_carrier",
            Self::TokenMissing => "token_missing",
            Self::Token(fault) => fault.reason(),
            Self::NotGranted => "token_not_for_room",
            Self::NoSuchRoom => "no_such_room",
            Self::NoDefaultRoom { .. } => "no_default_room",
            Self::NoSuchPath => "no_such_path",
            Self::OtherPool { .. } => "other_pool",
            Self::RoomFull => "room_full",
            Self::GatewayFull => "gateway_full",
            Self::MemoryShort => "memory",
            Self::GatewayRate => "gateway_rate",
            Self::AddressRate => "address_rate",
            Self::AddressFull => "address_full",
            Self::SubjectFull => "subject_full",
            Self::Draining => "draining",
            Self::NotReady => "not_ready",
        }
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Handshake(error) => error.status(),
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::ConnectionId(_) | Self::TokenCarrier(_) => StatusCode::BAD_REQUEST,
            Self::TokenMissing | Self::Token(_) => StatusCode::UNAUTHORIZED,
            Self::Origin(_) | Self::NotGranted => StatusCode::FORBIDDEN,
            Self::NoSuchRoom | Self::NoDefaultRoom { .. } | Self::NoSuchPath => {
                StatusCode::NOT_FOUND
            }
            Self::OtherPool { .. } => StatusCode::MISDIRECTED_REQUEST,
            Self::AddressRate | Self::AddressFull | Self::SubjectFull => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::RoomFull
            | Self::GatewayFull
            | Self::MemoryShort
            | Self::GatewayRate
            | Self::Draining
            | Self::NotReady => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// In how long the client should try again; none if that would not help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RoomFull
            | Self::GatewayFull
            | Self::MemoryShort
            | Self::AddressFull
            | Self::SubjectFull => Some(Duration::from_secs(RETRY_FULL)),
            Self::GatewayRate | Self::AddressRate | Self::Draining | Self::NotReady => {
                Some(Duration::from_secs(RETRY_SOON))
            }
            _ => None,
        }
    }

    /// What the client is asked for (RFC 6750, section 3).
    fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::TokenMissing => Some("Bearer realm=\"hubbub\""),
            Self::TokenCarrier(_) => Some("Bearer realm=\"hubbub\", error=\"invalid_request\""),
            Self::Token(_) => Some("Bearer realm=\"hubbub\", error=\"invalid_token\""),
            Self::NotGranted => Some("Bearer realm=\"hubbub\", error=\"insufficient_scope\""),
            _ => None,
        }
    }

    /// The title: the same for each reason.
    #[must_use]
    pub fn title(&self) -> &'static str {
        match self {
            Self::Handshake(_) => "Not an acceptable WebSocket handshake",
            Self::HeadTooLarge => "Request too large",
            Self::ConnectionId(_) => "Not the name of a connection",
            Self::Origin(_) => "Origin not allowed",
            Self::TokenCarrier(_) => "Not one token",
            Self::TokenMissing => "Token needed",
            Self::Token(_) => "Token not accepted",
            Self::NotGranted => "Token not for this room",
            Self::NoSuchRoom | Self::NoDefaultRoom { .. } => "No such room",
            Self::NoSuchPath => "Nothing here",
            Self::OtherPool { .. } => "Served elsewhere",
            Self::RoomFull => "Room full",
            Self::GatewayFull => "Gateway full",
            Self::MemoryShort => "Gateway short of memory",
            Self::GatewayRate => "Too many requests here",
            Self::AddressRate => "Too many requests",
            Self::AddressFull | Self::SubjectFull => "Too many connections",
            Self::Draining => "Gateway going down",
            Self::NotReady => "Gateway not ready",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let retry_after = self.retry_after().map(|wait| wait.as_secs());
        let problem = Problem {
            r#type: "about:blank",
            title: self.title(),
            status: self.status().as_u16(),
            detail: self.to_string(),
            reason: self.reason(),
            retry_after,
        };
        // Strings and numbers always serialize.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.challenge() {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Self::Handshake(error) = &self {
            for (name, value) in error.headers() {
                headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
        }
        response
    }
}
