//! The admin routes: probes, metrics, rooms, drain. Never on the public port.

use std::{fmt::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderValue, StatusCode, header};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    bus::BusState, drain::Phase, engine::ConnectionId, entrance::Entrance, memory::Fill,
    policy::PolicyHealth, rates::Rates,
};

/// How long the bus may be away before the gateway says that it is not ready: a restart of one NATS server is over by
/// then, and taking all gateways out for it would turn a hiccup into an outage.
pub const BUS_GRACE: Duration = Duration::from_secs(5);

/// What the routes need.
pub struct Admin {
    entrance: Arc<Entrance>,
    registry: Registry,
    health: Arc<PolicyHealth>,
    gateway: String,
    rates: Arc<Rates>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("gateway", &self.gateway).finish_non_exhaustive()
    }
}

impl Admin {
    /// The state behind the routes of the gateway of that id.
    #[must_use]
    pub fn new(
        entrance: Arc<Entrance>,
        registry: Registry,
        health: Arc<PolicyHealth>,
        gateway: String,
        rates: Arc<Rates>,
    ) -> Arc<Self> {
        Arc::new(Self { entrance, registry, health, gateway, rates })
    }

    fn checks(&self) -> [Check; 4] {
        let rooms = &self.entrance.rooms;
        let bus = self.entrance.bus.state();
        let phase = self.entrance.drain.phase();
        let memory = &self.entrance.memory;
        [
            Check {
                name: "policies",
                ok: rooms.is_loaded(),
                detail: if rooms.is_loaded() {
                    format!("{} rooms declared", rooms.len())
                } else {
                    "not loaded yet".to_owned()
                },
            },
            Check {
                name: "bus",
                ok: match bus {
                    BusState::Connected => true,
                    BusState::Away(away) => away < BUS_GRACE,
                    BusState::Connecting => false,
                },
                detail: match bus {
                    BusState::Connected => "connected".to_owned(),
                    BusState::Connecting => "not connected yet".to_owned(),
                    BusState::Away(away) => format!("away for {:.1} s", away.as_secs_f64()),
                },
            },
            Check {
                name: "draining",
                ok: phase == Phase::Serving,
                detail: if phase == Phase::Serving { "no" } else { "yes" }.to_owned(),
            },
            Check {
                name: "memory",
                ok: !memory.is_short(),
                detail: match memory.fill() {
                    Some(Fill { used, limit }) => {
                        format!("{} of {} MiB in use", used >> 20, limit >> 20)
                    }
                    None => "no limit".to_owned(),
                },
            },
        ]
    }
}

struct Check {
    name: &'static str,
    ok: bool,
    detail: String,
}

/// The routes.
pub fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/rooms", get(rooms))
        .route("/drain", post(drain))
        .fallback(async || (StatusCode::NOT_FOUND, HINT))
        .with_state(admin)
}

const HINT: &str =
    "nothing is here; there are /livez, /readyz, /metrics, /rooms, and POST /drain\n";

async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let checks = admin.checks();
    let ready = checks.iter().all(|check| check.ok);
    let mut text = String::new();
    for check in &checks {
        let sign = if check.ok { '+' } else { '-' };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "[{sign}] {}: {}", check.name, check.detail);
    }
    for fault in admin.health.faults() {
        let _ = writeln!(text, "[!] {fault}");
    }
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, text).into_response()
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let mut text = String::new();
    if encode(&mut text, &admin.registry).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let kind =
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

#[derive(Debug, Deserialize)]
struct Asked {
    connection: Option<String>,
}

/// All rooms, or the one connection that is asked for.
async fn rooms(State(admin): State<Arc<Admin>>, Query(asked): Query<Asked>) -> Response {
    match asked.connection {
        None => all_rooms(&admin),
        Some(connection) => one_connection(&admin, &connection).await,
    }
}

/// What is known of a connection.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ConnectionOverview<'a> {
    connection: ConnectionId,
    gateway: &'a str,
    room: String,
    path: String,
    peer: SocketAddr,
    /// When its handshake was answered; not there while that is being done.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    open_seconds: Option<f64>,
    closing: bool,
    messages_in: u64,
    bytes_in: u64,
    messages_out: u64,
    bytes_out: u64,
    messages_waiting: usize,
}

async fn one_connection(admin: &Admin, asked: &str) -> Response {
    let connection = match asked.parse::<ConnectionId>() {
        Ok(connection) => connection,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let Some(found) = admin.entrance.engine.find(connection).await else {
        let gateway = &admin.gateway;
        let detail = format!(
            "there is no connection {connection} on the gateway {gateway}; it has ended, or is on another gateway"
        );
        return problem(StatusCode::NOT_FOUND, &detail);
    };
    let traffic = found.traffic;
    Json(ConnectionOverview {
        connection,
        gateway: &admin.gateway,
        path: found.room.path(),
        room: found.room.to_string(),
        peer: found.peer,
        since: found.open.and_then(ago),
        open_seconds: found.open.map(|open| open.as_secs_f64()),
        closing: found.closing,
        messages_in: traffic.messages_in,
        bytes_in: traffic.bytes_in,
        messages_out: traffic.messages_out,
        bytes_out: traffic.bytes_out,
        messages_waiting: found.waiting,
    })
    .into_response()
}

/// The time so long ago, by RFC 3339.
fn ago(duration: Duration) -> Option<String> {
    let then = OffsetDateTime::now_utc().checked_sub(duration.try_into().ok()?)?;
    then.replace_nanosecond(0).ok()?.format(&Rfc3339).ok()
}

fn problem(status: StatusCode, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or_default();
    let body = serde_json::json!({
        "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail,
    });
    let kind = HeaderValue::from_static("application/problem+json");
    (status, [(header::CONTENT_TYPE, kind)], body.to_string()).into_response()
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Overview<'a> {
    gateway: &'a str,
    pool: &'a str,
    phase: Phase,
    policy_revision: u64,
    connections: usize,
    rooms: Vec<RoomOverview>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    faults: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RoomOverview {
    room: String,
    path: String,
    pool: String,
    generation: i64,
    /// On this gateway.
    members: u32,
    members_elsewhere: u64,
    messages: u64,
    messages_per_second: f64,
}

fn all_rooms(admin: &Admin) -> Response {
    let entrance = &admin.entrance;
    let rooms = entrance.rooms.all();
    let rooms = rooms
        .into_iter()
        .map(|room| {
            let messages = room.messages();
            RoomOverview {
                room: room.name().to_string(),
                path: room.name().path(),
                pool: room.policy().declared().pool.clone(),
                generation: room.policy().declared().generation,
                members: room.members(),
                members_elsewhere: entrance.elsewhere.members(&room),
                messages,
                messages_per_second: admin.rates.of(room.id()),
            }
        })
        .collect();
    Json(Overview {
        gateway: &admin.gateway,
        pool: &entrance.pool,
        phase: entrance.drain.phase(),
        policy_revision: entrance.rooms.applied().revision,
        connections: entrance.engine.connections(),
        rooms,
        faults: admin.health.faults(),
    })
    .into_response()
}

/// Begins the drain and answers when it is done: that is what the preStop hook waits for.
async fn drain(State(admin): State<Arc<Admin>>) -> Response {
    admin.entrance.drain.begin("the drain hook");
    match admin.entrance.drain.done().await {
        Some(receipt) => Json(receipt).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
