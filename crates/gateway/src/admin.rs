//! The admin routes: probes, metrics, rooms, drain. Never on the public port.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderValue, StatusCode, header};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde::Serialize;

use crate::{bus::BusState, drain::Phase, entrance::Entrance, policy::PolicyHealth, rates::Rates};

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

    fn checks(&self) -> [Check; 3] {
        let rooms = &self.entrance.rooms;
        let bus = self.entrance.bus.state();
        let phase = self.entrance.drain.phase();
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

async fn rooms(State(admin): State<Arc<Admin>>) -> Response {
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
