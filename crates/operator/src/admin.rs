//! The admin routes: probes and metrics.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderValue, StatusCode, header};
use prometheus_client::{encoding::text::encode, registry::Registry};

const HINT: &str = "nothing is here; there are /livez, /readyz and /metrics\n";

/// How far this replica is.
#[derive(Debug, Default)]
pub struct Progress {
    /// It holds the lease.
    pub leads: AtomicBool,
    /// Everything that is watched has been listed.
    pub listed: AtomicBool,
    /// NATS is connected.
    pub nats: AtomicBool,
}

/// What the routes need.
#[derive(Debug)]
pub struct Admin {
    progress: Arc<Progress>,
    registry: Registry,
}

/// The routes.
pub fn router(progress: Arc<Progress>, registry: Registry) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(async || (StatusCode::NOT_FOUND, HINT))
        .with_state(Arc::new(Admin { progress, registry }))
}

/// A replica that waits for the lease is ready to take over. NATS does not count: without it the operator can do all but
/// publish, and a restart would not help.
async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let is = |flag: &AtomicBool| flag.load(Ordering::Acquire);
    let Progress { leads, listed, nats } = &*admin.progress;
    let (leads, listed, nats) = (is(leads), is(listed), is(nats));
    let ready = !leads || listed;
    let lease = if leads { "held" } else { "held by another; waiting" };
    let watches = match (leads, listed) {
        (true, true) => "listed",
        (true, false) => "not listed yet",
        (false, _) => "begin with the lease",
    };
    let mut text = format!("[+] lease: {lease}\n");
    let sign = if ready { '+' } else { '-' };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "[{sign}] watches: {watches}");
    let _ = writeln!(
        text,
        "[{}] nats: {}",
        if nats { '+' } else { '!' },
        if nats { "connected" } else { "away" }
    );
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
