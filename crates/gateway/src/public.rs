//! The public routes: rooms, and nothing else.
//!
//! A room's name is taken from the path as it was sent and looked up as it is: a name that is not, byte for byte, that
//! of a declared room leads nowhere, so nothing that a client writes ever becomes part of a bus subject.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    Json, Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{Html, IntoResponse, Response},
    routing::any,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use hubbub_websocket::handshake::{self, HandshakeError};
use serde::Serialize;

use crate::{
    entrance::Entrance,
    events::HttpEvents,
    listener::{Door, HEAD_BYTES, HEAD_FIELDS},
    page,
    refusal::Refusal,
    room::Room,
};

const ROOMS: &str = "/rooms/";

/// What the routes need.
#[derive(Debug)]
pub struct Public {
    /// Who may enter.
    pub entrance: Arc<Entrance>,
    /// What happens here.
    pub events: Arc<HttpEvents>,
    /// The room at `/ws`, as `namespace/name`.
    pub default_room: Option<String>,
}

/// What a plain GET is told about a room.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict<'a> {
    room: &'a str,
    path: String,
    accepted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<u64>,
    max_message_bytes: u32,
    require_origin: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

/// The routes.
pub fn router(public: Arc<Public>) -> Router {
    Router::new()
        .route("/rooms/{namespace}/{name}", any(room))
        .route("/ws", any(default_room))
        .fallback(nothing)
        .layer(from_fn_with_state(Arc::clone(&public), only_small_heads))
        .with_state(public)
}

async fn only_small_heads(
    State(public): State<Arc<Public>>,
    request: Request,
    next: Next,
) -> Response {
    if request.headers().len() <= HEAD_FIELDS && head_bytes(&request) <= HEAD_BYTES {
        return next.run(request).await;
    }
    let (parts, _) = request.into_parts();
    let mut response = refuse(&public, Refusal::HeadTooLarge, &parts);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The bytes of a request's head as it came over the wire, but for white space that nobody needs.
fn head_bytes(request: &Request) -> usize {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let line = request.method().as_str().len() + target + "  HTTP/1.1\r\n".len();
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() + ": \r\n".len()
    };
    line + request.headers().iter().map(field).sum::<usize>() + "\r\n".len()
}

async fn room(State(public): State<Arc<Public>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let name = parts.uri.path().strip_prefix(ROOMS).unwrap_or_default().to_owned();
    visit(&public, &name, &parts).await
}

async fn default_room(State(public): State<Arc<Public>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let Some(name) = &public.default_room else {
        return refuse(&public, Refusal::NoSuchPath, &parts);
    };
    if let Err(Refusal::NoSuchRoom) = public.entrance.room(name) {
        return refuse(&public, Refusal::NoDefaultRoom { room: name.clone() }, &parts);
    }
    visit(&public, name, &parts).await
}

async fn nothing(State(public): State<Arc<Public>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    refuse(&public, Refusal::NoSuchPath, &parts)
}

/// Answers a handshake, or tells a visitor about the room.
async fn visit(public: &Public, name: &str, parts: &Parts) -> Response {
    let accept = match handshake::check(&parts.method, parts.version, &parts.headers) {
        Ok(accept) => accept,
        // The answer to a HEAD is that to a GET; its body is left out below, by hyper.
        Err(HandshakeError::NotUpgrade)
            if parts.method == Method::GET || parts.method == Method::HEAD =>
        {
            return describe(public, name, parts);
        }
        // Whatever else it lacks: another method can never be right here.
        Err(HandshakeError::NotUpgrade) => {
            return refuse(public, Refusal::Handshake(HandshakeError::BadMethod), parts);
        }
        Err(error) => return refuse(public, Refusal::Handshake(error), parts),
    };
    let Some(door) = parts.extensions.get::<Arc<Door>>() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let entered = match public.entrance.room(name) {
        Ok(room) => public.entrance.enter(&room, origins(&parts.headers), door.peer()).await,
        Err(refusal) => Err(refusal),
    };
    match entered {
        Ok(ticket) => {
            public.events.handshake_accepted();
            door.admit(ticket);
            switching_protocols(accept.into())
        }
        Err(refusal) => refuse(public, refusal, parts),
    }
}

fn switching_protocols(accept: HeaderValue) -> Response {
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

fn origins(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(header::ORIGIN).iter().map(HeaderValue::as_bytes)
}

/// The room's page for a browser, the verdict for everybody else: a browser does not show its page the answer to a
/// refused handshake, so the page asks here.
fn describe(public: &Public, name: &str, parts: &Parts) -> Response {
    let room = match public.entrance.room(name) {
        Ok(room) => room,
        Err(refusal) => return refuse(public, refusal, parts),
    };
    if wants_page(&parts.headers) {
        let (html, policy) = page::room_page();
        return with_policy(Html(html).into_response(), policy);
    }
    let asked = asked_origin(parts);
    let verdict = match &asked {
        Some(origin) => public.entrance.verdict(&room, [origin.as_bytes()]),
        None => public.entrance.verdict(&room, origins(&parts.headers)),
    };
    let body = verdict_of(public, &room, verdict.as_ref().err());
    let mut response = Json(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("accept, origin"));
    // A refused page of another origin must be able to read why. The member count is told only to those admitted.
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

fn verdict_of<'a>(public: &Public, room: &'a Room, refusal: Option<&Refusal>) -> Verdict<'a> {
    let policy = room.policy();
    let admitted = !matches!(refusal, Some(Refusal::Origin(_)));
    Verdict {
        room: room.name().as_str(),
        path: room.name().path(),
        accepted: refusal.is_none(),
        members: admitted.then(|| public.entrance.members(room)),
        max_message_bytes: policy.declared().limits.max_message_bytes,
        require_origin: policy.declared().require_origin,
        status: refusal.map(|refusal| refusal.status().as_u16()),
        reason: refusal.map(Refusal::reason),
        title: refusal.map(Refusal::title),
        detail: refusal.map(ToString::to_string),
        retry_after: refusal.and_then(Refusal::retry_after).map(|wait| wait.as_secs()),
    }
}

/// The origin that a same-origin page asks for: its plain GET carries no `Origin` header, its handshake would.
fn asked_origin(parts: &Parts) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Asked {
        origin: Option<String>,
    }
    axum::extract::Query::<Asked>::try_from_uri(&parts.uri).ok().and_then(|asked| asked.0.origin)
}

fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

fn refuse(public: &Public, refusal: Refusal, parts: &Parts) -> Response {
    let handshake = parts.headers.contains_key(header::UPGRADE);
    // A plain GET is a question, not a handshake.
    if handshake && let Some(door) = parts.extensions.get::<Arc<Door>>() {
        public.events.handshake_refused(&refusal, parts.uri.path(), door.peer());
    }
    if handshake || parts.method != Method::GET || !wants_page(&parts.headers) {
        return refusal.into_response();
    }
    let status = refusal.status();
    let mut detail = refusal.to_string();
    if let Some(wait) = refusal.retry_after() {
        let _ = write!(detail, "; try again in {} s", wait.as_secs());
    }
    let html = page::error_page(status, refusal.title(), &detail);
    let mut response = with_policy((status, Html(html)).into_response(), page::error_page_policy());
    if let Some(wait) = refusal.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    }
    response
}

/// Headers of every page: only what stands in it may run, and nobody may frame it.
fn with_policy(mut response: Response, policy: &'static str) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    response
}
