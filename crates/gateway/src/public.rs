//! The public routes: rooms, and nothing else.
//!
//! A room's name is taken from the path as it was sent and looked up as it is: a name that is not, byte for byte, that
//! of a declared room leads nowhere, so nothing that a client writes ever becomes part of a bus subject.

use std::{fmt::Write as _, net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{MatchedPath, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{Html, IntoResponse, Response},
    routing::any,
};
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use hubbub_api::Access;
use hubbub_websocket::handshake::{self, Accept, HandshakeError};
use serde::Serialize;

use crate::{
    engine::{Arrival, ConnectionId, MalformedConnectionId, Pass, Ticket},
    entrance::Entrance,
    events::{HttpEvents, http::Handshake},
    listener::{Door, Doorkeeper, HEAD_BYTES, HEAD_FIELDS},
    page,
    refusal::Refusal,
    room::Room,
    token::{self, Carried},
};

const ROOMS: &str = "/rooms/";
const ROOM_ROUTE: &str = "/rooms/{namespace}/{name}";

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

/// From where a request comes, as far as its peer can be believed.
#[derive(Debug, Clone, Copy)]
struct Client(SocketAddr);

/// The header of the answer to a handshake that says what the connection is called, or would have been.
const CONNECTION: HeaderName = HeaderName::from_static("hubbub-connection");

impl Public {
    /// Counts a request, before anything of it is looked at. A handshake is told of and traced from here to its answer.
    fn meet(&self, route: Option<&str>, parts: &mut Parts) -> Result<(), Refusal> {
        let Some(door) = parts.extensions.get::<Arc<Door>>() else { return Ok(()) };
        let client = self.entrance.client(door.peer(), &parts.headers);
        parts.extensions.insert(Client(client));
        // A plain GET is a question.
        if parts.headers.contains_key(header::UPGRADE) {
            let handshake = self.events.handshake_begun(route, parts, client);
            parts.extensions.insert(Arc::new(handshake));
        }
        self.entrance.knock(client.ip())
    }
}

impl Doorkeeper for Public {
    fn knows(&self, head: &Parts) -> bool {
        let name = head.uri.path().strip_prefix(ROOMS).and_then(|name| name.split_once('/'));
        let is_room = name.is_some_and(|(namespace, name)| {
            !namespace.is_empty() && !name.is_empty() && !name.contains('/')
        });
        is_room && head.headers.contains_key(header::UPGRADE)
    }

    fn answer(
        self: Arc<Self>,
        mut head: Parts,
        door: Arc<Door>,
    ) -> BoxFuture<'static, Result<(Ticket, Bytes), Response>> {
        async move {
            head.extensions.insert(door);
            self.meet(Some(ROOM_ROUTE), &mut head)
                .map_err(|refusal| refuse(&self, refusal, &head))?;
            let name = head.uri.path().strip_prefix(ROOMS).unwrap_or_default();
            let Admitted { accept, ticket, protocol } = admit(&self, name, &head).await?;
            let protocol = match protocol {
                Some(protocol) => format!("sec-websocket-protocol: {protocol}\r\n"),
                None => String::new(),
            };
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-accept: {}\r\n{protocol}{CONNECTION}: {}\r\n\r\n",
                accept.as_str(),
                ticket.connection()
            );
            Ok((ticket, Bytes::from(answer)))
        }
        .boxed()
    }

    fn all_in(&self) {
        self.entrance.engine.wake();
    }

    fn members(&self) -> usize {
        self.entrance.engine.connections()
    }
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
    /// Whether tokens are looked at.
    tokens: bool,
    /// What whoever asks could do in the room.
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<Access>,
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
        .route(ROOM_ROUTE, any(room))
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
    let (mut parts, body) = request.into_parts();
    let route = parts.extensions.get::<MatchedPath>().cloned();
    if let Err(refusal) = public.meet(route.as_ref().map(MatchedPath::as_str), &mut parts) {
        return refuse(&public, refusal, &parts);
    }
    let request = Request::from_parts(parts, body);
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
    let Admitted { accept, ticket, protocol } = match admit(public, name, parts).await {
        Ok(admitted) => admitted,
        Err(answer) => return answer,
    };
    let connection = ticket.connection();
    if let Some(door) = parts.extensions.get::<Arc<Door>>() {
        door.admit(ticket);
    }
    switching_protocols(accept.into(), protocol, connection)
}

/// Who is let into a room.
struct Admitted {
    accept: Accept,
    ticket: Ticket,
    /// The subprotocol, if it offered ours.
    protocol: Option<&'static str>,
}

/// Lets a client into the room, or gives the answer to whatever else it asks for.
async fn admit(public: &Public, name: &str, parts: &Parts) -> Result<Admitted, Response> {
    let accept = match handshake::check(&parts.method, parts.version, &parts.headers) {
        Ok(accept) => accept,
        // The answer to a HEAD is that to a GET; its body is left out below, by hyper.
        Err(HandshakeError::NotUpgrade)
            if parts.method == Method::GET || parts.method == Method::HEAD =>
        {
            return Err(describe(public, name, parts));
        }
        // Whatever else it lacks: another method can never be right here.
        Err(HandshakeError::NotUpgrade) => {
            return Err(refuse(public, Refusal::Handshake(HandshakeError::BadMethod), parts));
        }
        Err(error) => return Err(refuse(public, Refusal::Handshake(error), parts)),
    };
    let (Some(Client(client)), Some(handshake)) =
        (parts.extensions.get::<Client>(), parts.extensions.get::<Arc<Handshake>>())
    else {
        return Err(StatusCode::INTERNAL_SERVER_ERROR.into_response());
    };
    match enter(public, name, parts, *client, handshake).await {
        Ok((ticket, protocol)) => {
            handshake.accepted(&ticket, parts.headers.contains_key(header::ORIGIN));
            Ok(Admitted { accept, ticket, protocol })
        }
        Err(refusal) => Err(refuse(public, refusal, parts)),
    }
}

async fn enter(
    public: &Public,
    name: &str,
    parts: &Parts,
    client: SocketAddr,
    handshake: &Handshake,
) -> Result<(Ticket, Option<&'static str>), Refusal> {
    let connection = wanted_connection(parts.uri.query()).map_err(Refusal::ConnectionId)?;
    let room = public.entrance.room(name)?;
    handshake.found(&room);
    let arrival = Arrival { peer: client, connection, handshake: handshake.context() };
    let carried = carried(&room, parts)?;
    let ticket = public.entrance.enter(&room, origins(&parts.headers), carried, arrival).await?;
    Ok((ticket, carried.protocol.then_some(token::PROTOCOL)))
}

/// The token that a request brings to this room.
fn carried<'a>(room: &Room, parts: &'a Parts) -> Result<Carried<'a>, Refusal> {
    let policy = room.policy();
    let Some(tokens) = policy.tokens() else {
        return Ok(Carried { token: None, protocol: token::offers_protocol(&parts.headers) });
    };
    token::carried(&parts.headers, parts.uri.query(), tokens.query_parameter())
        .map_err(Refusal::TokenCarrier)
}

/// What the client calls its connection, if it does.
fn wanted_connection(query: Option<&str>) -> Result<Option<ConnectionId>, MalformedConnectionId> {
    let pairs = query.unwrap_or_default().split('&');
    let mut named = pairs.filter_map(|pair| match pair.split_once('=') {
        Some(("connection", value)) => Some(value),
        None if pair == "connection" => Some(""),
        _ => None,
    });
    match (named.next(), named.next()) {
        (None, _) => Ok(None),
        (Some(one), None) => one.parse().map(Some),
        (Some(_), Some(_)) => Err(MalformedConnectionId),
    }
}

fn switching_protocols(
    accept: HeaderValue,
    protocol: Option<&'static str>,
    connection: ConnectionId,
) -> Response {
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    with_connection(response, connection)
}

fn with_connection(mut response: Response, connection: ConnectionId) -> Response {
    if let Ok(connection) = HeaderValue::from_str(&connection.to_string()) {
        response.headers_mut().insert(CONNECTION, connection);
    }
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
    let verdict = carried(&room, parts).and_then(|carried| match &asked {
        Some(origin) => public.entrance.verdict(&room, [origin.as_bytes()], carried),
        None => public.entrance.verdict(&room, origins(&parts.headers), carried),
    });
    let body = verdict_of(public, &room, &verdict);
    let mut response = Json(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("accept, origin"));
    // A refused page of another origin must be able to read why. The member count is told only to those admitted.
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

fn verdict_of<'a>(public: &Public, room: &'a Room, verdict: &Result<Pass, Refusal>) -> Verdict<'a> {
    let policy = room.policy();
    let refusal = verdict.as_ref().err();
    // Who is kept out for what it is, not for want of room, learns nothing of those inside.
    let admitted = refusal.is_none_or(|refusal| {
        let kept_out = [StatusCode::FORBIDDEN, StatusCode::UNAUTHORIZED, StatusCode::BAD_REQUEST];
        !kept_out.contains(&refusal.status())
    });
    Verdict {
        room: room.name().as_str(),
        path: room.name().path(),
        accepted: refusal.is_none(),
        members: admitted.then(|| public.entrance.members(room)),
        max_message_bytes: policy.declared().limits.max_message_bytes,
        require_origin: policy.declared().require_origin,
        tokens: policy.tokens().is_some(),
        access: verdict.as_ref().ok().map(|pass| pass.access),
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
    let handshake = parts.extensions.get::<Arc<Handshake>>();
    if let (Some(handshake), Some(Client(client))) = (handshake, parts.extensions.get::<Client>()) {
        // Who is refused complains by a name too: its own, as far as that is one.
        let wanted = wanted_connection(parts.uri.query()).ok().flatten();
        let connection = wanted.unwrap_or_else(ConnectionId::random);
        handshake.refused(&refusal, connection, parts.uri.path(), *client);
        return with_connection(refusal.into_response(), connection);
    }
    public.events.request_refused(&refusal);
    if parts.method != Method::GET || !wants_page(&parts.headers) {
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
