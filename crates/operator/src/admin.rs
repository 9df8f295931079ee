//! The admin routes: probes and metrics.

use std::{
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
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

use crate::lease::Sight;

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
    lease: Mutex<Lease>,
}

/// What the last look at the lease has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Lease {
    #[default]
    NotLookedAt,
    NotUsed,
    Held,
    HeldBy(String),
    /// It could not be looked at, taken or renewed, and why.
    Failed(String),
}

impl Progress {
    /// A look at the lease has shown this.
    pub fn saw(&self, sight: &Sight<'_>) {
        self.set(match (sight.trouble(), sight) {
            (Some(trouble), _) => Lease::Failed(trouble),
            (None, Sight::HeldBy(holder)) => Lease::HeldBy((*holder).to_owned()),
            (None, _) => Lease::Held,
        });
    }

    /// There are no other replicas.
    pub fn is_alone(&self) {
        self.set(Lease::NotUsed);
    }

    fn set(&self, lease: Lease) {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = lease;
    }

    /// Whether the replica is ready, and why, a line each.
    fn told(&self) -> (bool, String) {
        let is = |flag: &AtomicBool| flag.load(Ordering::Acquire);
        let (leads, listed, nats) = (is(&self.leads), is(&self.listed), is(&self.nats));
        let lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (lease, known) = match lease {
            Lease::NotUsed => ("not used: there is one replica".to_owned(), '+'),
            Lease::Held => ("held".to_owned(), '+'),
            Lease::HeldBy(other) => (format!("held by {other}; waiting"), '+'),
            // Until it runs out it goes on.
            Lease::Failed(cause) if leads => (format!("held, but not renewed: {cause}"), '!'),
            Lease::Failed(cause) => (format!("nobody can tell who holds it: {cause}"), '-'),
            Lease::NotLookedAt => ("not looked at yet".to_owned(), '-'),
        };
        let (watches, shown) = match (leads, listed) {
            (true, true) => ("listed", '+'),
            (true, false) => ("not listed yet", '-'),
            (false, _) => ("begin with the lease", '+'),
        };
        let (nats, connected) = if nats { ("connected", '+') } else { ("away", '!') };
        let mut text = String::new();
        for (sign, what, how) in
            [(known, "lease", &*lease), (shown, "watches", watches), (connected, "nats", nats)]
        {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "[{sign}] {what}: {how}");
        }
        (known != '-' && shown != '-', text)
    }
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

/// A replica that sees another hold the lease is ready to take over. NATS does not count: without it the operator can do all
/// but publish, and a restart would not help.
async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let (ready, text) = admin.progress.told();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_says_who_holds_the_lease_and_when_nobody_can_tell() {
        let progress = Progress::default();
        let told = |ready: bool, line: &str| {
            let (is, text) = progress.told();
            assert!(is == ready && text.lines().next() == Some(line), "{is} {text}");
        };
        told(false, "[-] lease: not looked at yet");
        progress.saw(&Sight::HeldBy("first"));
        told(true, "[+] lease: held by first; waiting");
        progress.saw(&Sight::NoAnswer);
        let away = "the API server does not answer in time";
        told(false, &format!("[-] lease: nobody can tell who holds it: {away}"));
        progress.saw(&Sight::Held);
        progress.leads.store(true, Ordering::Release);
        told(false, "[+] lease: held");
        progress.listed.store(true, Ordering::Release);
        told(true, "[+] lease: held");
        progress.saw(&Sight::NoAnswer);
        told(true, &format!("[!] lease: held, but not renewed: {away}"));
        progress.is_alone();
        told(true, "[+] lease: not used: there is one replica");
        assert!(progress.told().1.ends_with("[+] watches: listed\n[!] nats: away\n"));
    }
}
