//! One leader among the replicas, by a Lease.
//!
//! Clocks of different machines are never compared: whoever waits takes the lease over when it has seen its renewTime stand
//! still for [`PATIENCE`]. That is shorter than [`DURATION`] by what it takes to see a renewal and to write, so that the lease is
//! held again within its duration after the last renewal. Every write of the Lease names the version that was read, so of
//! two that take it one fails. Who could not renew for [`RENEW_LIMIT`] closes the [`Fence`] and ends, before anybody else may
//! take over.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{context, error::in_words, fence::Fence};

/// Within how long after its last renewal the lease of a leader that is gone is held by another.
pub const DURATION: Duration = Duration::from_secs(15);

/// How long whoever waits sees the lease stand still before it takes it over.
pub const PATIENCE: Duration = Duration::from_secs(12);

/// How long a leader goes on without having renewed. The rest of [`PATIENCE`] is for requests that are on their way.
pub const RENEW_LIMIT: Duration = Duration::from_secs(8);

/// How often the lease is renewed.
const PERIOD: Duration = Duration::from_secs(2);

/// How often whoever waits looks at the lease, and so how late at most it sees a renewal.
const LOOK: Duration = Duration::from_millis(500);

// No request of the old leader may be on its way when the new one begins.
const _: () =
    assert!(RENEW_LIMIT.as_millis() + context::REQUEST_LIMIT.as_millis() <= PATIENCE.as_millis());

// To see a renewal, and to take the lease by two requests, leaves each a second.
const _: () = assert!(PATIENCE.as_millis() + LOOK.as_millis() + 2 * 1000 <= DURATION.as_millis());

/// How long one request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(3);

/// The name of the lease of that release's operators.
#[must_use]
pub fn name(instance: &str) -> String {
    format!("{instance}-operator")
}

/// Why a replica may not write any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// It could not renew in time.
    #[error("the lease could not be renewed for {} s; another replica may lead", RENEW_LIMIT.as_secs())]
    NotRenewed,
    /// Somebody else holds it.
    #[error("another replica has taken the lease")]
    Taken,
}

/// A lease that this replica wants or holds.
pub struct Election {
    leases: Api<Lease>,
    name: String,
    identity: String,
    fence: Fence,
    /// Holder and renewTime as last seen, and when they were first seen so.
    seen: Option<(String, Option<MicroTime>, Instant)>,
}

impl std::fmt::Debug for Election {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Election").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// What one look at the lease has shown.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Held,
    HeldBy(String),
    /// Another was faster; look again.
    Contended,
}

/// What is told of a lease that this replica wants or holds.
#[derive(Debug)]
pub enum Sight<'a> {
    /// This replica holds it, and has just taken or renewed it.
    Held,
    /// That replica holds it.
    HeldBy(&'a str),
    /// It could not be looked at, taken or renewed.
    Failed(&'a kube::Error),
    /// The API server did not answer in time.
    NoAnswer,
}

impl Sight<'_> {
    /// Why it is not known who holds the lease, in words; none where it is.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        match self {
            Self::Held | Self::HeldBy(_) => None,
            Self::Failed(error) => Some(in_words(*error)),
            Self::NoAnswer => Some("the API server does not answer in time".to_owned()),
        }
    }
}

impl Look {
    fn sight(looked: &Option<Result<Self, kube::Error>>) -> Option<Sight<'_>> {
        match looked {
            Some(Ok(Self::Held)) => Some(Sight::Held),
            Some(Ok(Self::HeldBy(holder))) => Some(Sight::HeldBy(holder)),
            // The next look tells.
            Some(Ok(Self::Contended)) => None,
            Some(Err(error)) => Some(Sight::Failed(error)),
            None => Some(Sight::NoAnswer),
        }
    }
}

impl Election {
    /// Wants the lease of that name for `identity`, which no other replica has. `client` must not be fenced.
    #[must_use]
    pub fn new(client: &Client, namespace: &str, name: &str, identity: &str, fence: Fence) -> Self {
        Self {
            leases: Api::namespaced(client.clone(), namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            fence,
            seen: None,
        }
    }

    /// Waits until the lease is held, and opens the fence. Each look is told; errors on the way are tried again.
    pub async fn acquire(&mut self, mut told: impl FnMut(Sight<'_>)) {
        loop {
            let asked = Instant::now();
            let looked = self.look_in_time().await;
            Look::sight(&looked).into_iter().for_each(&mut told);
            let wait = match looked {
                Some(Ok(Look::Held)) => {
                    self.fence.open_until(asked + RENEW_LIMIT);
                    return;
                }
                Some(Ok(Look::HeldBy(_))) => self.patience_left().min(LOOK),
                Some(Ok(Look::Contended)) | None => LOOK,
                // Whoever cannot be reached is not asked more often than a leader asks.
                Some(Err(_)) => PERIOD,
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Renews until the lease is lost; the fence is closed then.
    pub async fn keep(&mut self, mut told: impl FnMut(Sight<'_>)) -> Lost {
        let (mut renewed, mut asked) = (Instant::now(), Instant::now());
        loop {
            // A try that took longer than a period is followed by the next at once.
            tokio::time::sleep(PERIOD.saturating_sub(asked.elapsed())).await;
            asked = Instant::now();
            let looked = self.look_in_time().await;
            Look::sight(&looked).into_iter().for_each(&mut told);
            match looked {
                Some(Ok(Look::Held)) => {
                    renewed = asked;
                    self.fence.open_until(renewed + RENEW_LIMIT);
                }
                Some(Ok(Look::HeldBy(_))) => {
                    self.fence.close();
                    return Lost::Taken;
                }
                // Somebody else has written the Lease; the next look tells who.
                Some(Ok(Look::Contended) | Err(_)) | None => {}
            }
            if renewed.elapsed() >= RENEW_LIMIT {
                self.fence.close();
                return Lost::NotRenewed;
            }
        }
    }

    /// Gives the lease up, so that another need not wait. Nothing is written any more before that.
    pub async fn release(&mut self) {
        self.fence.close();
        let released = async {
            let Some(mut lease) = self.leases.get_opt(&self.name).await? else { return Ok(()) };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(&self.identity) {
                return Ok(());
            }
            spec.holder_identity = None;
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            self.leases.replace(&self.name, &PostParams::default(), &lease).await?;
            Ok::<_, kube::Error>(())
        };
        // Who cannot be told waits until the lease expires.
        let _ = tokio::time::timeout(REQUEST_LIMIT, released).await;
    }

    async fn look_in_time(&mut self) -> Option<Result<Look, kube::Error>> {
        tokio::time::timeout(REQUEST_LIMIT, self.look()).await.ok()
    }

    /// Takes the lease if it is free, renews it if it is held.
    async fn look(&mut self) -> Result<Look, kube::Error> {
        let parameters = PostParams::default();
        let now = MicroTime(Timestamp::now());
        let Some(lease) = self.leases.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let spec = self.claim(LeaseSpec::default(), now);
            let lease = Lease { metadata, spec: Some(spec) };
            return contended(self.leases.create(&parameters, &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        if let Some(holder) = holder.filter(|holder| *holder != self.identity) {
            self.see(&holder, &spec);
            if !self.patience_left().is_zero() {
                return Ok(Look::HeldBy(holder));
            }
        }
        let lease = Lease { metadata: lease.metadata, spec: Some(self.claim(spec, now)) };
        contended(self.leases.replace(&self.name, &parameters, &lease).await)
    }

    /// Remembers since when the lease has been as it is.
    fn see(&mut self, holder: &str, spec: &LeaseSpec) {
        let stands = self
            .seen
            .as_ref()
            .is_some_and(|(seen, renewed, _)| seen == holder && *renewed == spec.renew_time);
        if !stands {
            self.seen = Some((holder.to_owned(), spec.renew_time.clone(), Instant::now()));
        }
    }

    /// For how long the lease must stand still yet before it may be taken over.
    fn patience_left(&self) -> Duration {
        self.seen
            .as_ref()
            .map_or(PATIENCE, |(_, _, since)| PATIENCE.saturating_sub(since.elapsed()))
    }

    fn claim(&self, spec: LeaseSpec, now: MicroTime) -> LeaseSpec {
        let taken = spec.holder_identity.as_deref() != Some(&self.identity);
        let transitions = spec.lease_transitions.unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if taken { Some(now.clone()) } else { spec.acquire_time },
            renew_time: Some(now),
            lease_transitions: Some(if taken { transitions + 1 } else { transitions }),
            ..spec
        }
    }
}

fn contended(written: Result<Lease, kube::Error>) -> Result<Look, kube::Error> {
    match written {
        Ok(_) => Ok(Look::Held),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
            Ok(Look::Contended)
        }
        Err(error) => Err(error),
    }
}

/// Waits for the lease, works while it is held, and gives it up when `stop` asks for it.
///
/// # Errors
///
/// [`Lost`], when the lease was lost; `work` has been dropped by then, and the process should end.
pub async fn lead<W: Future<Output = ()>>(
    mut election: Election,
    stop: &CancellationToken,
    mut told: impl FnMut(Sight<'_>),
    work: impl FnOnce() -> W,
) -> Result<(), Lost> {
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        () = election.acquire(&mut told) => {}
    }
    let lost = tokio::select! {
        biased;
        lost = election.keep(&mut told) => Err(lost),
        () = work() => Ok(()),
    };
    if lost.is_ok() {
        election.release().await;
    }
    lost
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{Method, Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::{Value, json};
    use tower::{BoxError, service_fn};

    use super::*;

    /// An API server that keeps one Lease, and answers each request after `delay`.
    #[derive(Debug, Clone, Default)]
    struct Server {
        lease: Arc<Mutex<Option<Value>>>,
        version: Arc<Mutex<u64>>,
        delay: Duration,
    }

    impl Server {
        fn client(&self) -> Client {
            let server = self.clone();
            let service = service_fn(move |request: Request<Body>| {
                let server = server.clone();
                async move {
                    tokio::time::sleep(server.delay).await;
                    let method = request.method().clone();
                    let body = request.into_body().collect_bytes().await?;
                    let (status, answer) = server.answer(&method, &body);
                    let answer = Response::builder().status(status).body(Body::from(answer));
                    Ok::<_, BoxError>(answer?)
                }
            });
            Client::new(service, "chat")
        }

        fn answer(&self, method: &Method, body: &[u8]) -> (StatusCode, Vec<u8>) {
            let mut lease = self.lease.lock().unwrap();
            let failure = |code: StatusCode, reason: &str| {
                let status = json!({"kind": "Status", "status": "Failure", "reason": reason, "code": code.as_u16()});
                (code, status.to_string().into_bytes())
            };
            if method == Method::GET {
                return match &*lease {
                    Some(lease) => (StatusCode::OK, lease.to_string().into_bytes()),
                    None => failure(StatusCode::NOT_FOUND, "NotFound"),
                };
            }
            let mut given: Value = serde_json::from_slice(body).unwrap();
            let known = lease.as_ref().map(|lease| &lease["metadata"]["resourceVersion"]);
            if method == Method::PUT && known != Some(&given["metadata"]["resourceVersion"]) {
                return failure(StatusCode::CONFLICT, "Conflict");
            }
            let mut version = self.version.lock().unwrap();
            *version += 1;
            given["metadata"]["resourceVersion"] = json!(version.to_string());
            *lease = Some(given.clone());
            (StatusCode::OK, given.to_string().into_bytes())
        }

        fn election(&self, identity: &str, fence: &Fence) -> Election {
            Election::new(&self.client(), "chat", "hubbub-operator", identity, fence.clone())
        }

        fn holder(&self) -> Value {
            let lease = self.lease.lock().unwrap();
            lease.as_ref().map(|lease| lease["spec"]["holderIdentity"].clone()).unwrap_or_default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_takes_over_within_the_leases_duration_and_not_before_the_fence_is_closed()
     {
        // Wherever the death of the leader falls between two renewals, and two looks of who waits.
        for died_after in (0..4100).step_by(70) {
            let server = Server { delay: Duration::from_millis(300), ..Server::default() };
            let (fences, told) = ([Fence::default(), Fence::default()], Mutex::new(Instant::now()));
            let mut leader = server.election("leader", &fences[0]);
            leader.acquire(|_| ()).await;
            let mut waiting = server.election("waiting", &fences[1]);
            let leads = leader.keep(|sight| {
                if matches!(sight, Sight::Held) {
                    *told.lock().unwrap() = Instant::now();
                }
            });
            let dies = tokio::time::timeout(Duration::from_millis(10_000 + died_after), leads);
            let takes_over = async {
                waiting.acquire(|_| ()).await;
                Instant::now()
            };
            let (died, taken) = tokio::join!(dies, takes_over);
            died.expect_err("it led until it died");
            // Of the last renewal, the request was answered then, and the time in it is two requests older.
            let renewed = *told.lock().unwrap() - 2 * server.delay;
            assert_eq!(server.holder(), "waiting");
            assert!(taken - renewed <= DURATION, "{:?} after {died_after} ms", taken - renewed);
            assert!(taken - renewed >= RENEW_LIMIT + context::REQUEST_LIMIT);
            assert!(fences[0].check().is_err() && fences[1].check().is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_renews_is_never_taken_over_and_one_that_gave_up_is_at_once() {
        let server = Server { delay: Duration::from_millis(900), ..Server::default() };
        let fence = Fence::default();
        let mut leader = server.election("leader", &fence);
        leader.acquire(|_| ()).await;
        let mut waiting = server.election("waiting", &Fence::default());
        let mut seen = Vec::new();
        let acquired = waiting.acquire(|sight| {
            if let Sight::HeldBy(holder) = sight {
                seen.push(holder.to_owned());
            }
        });
        let an_hour = tokio::time::timeout(Duration::from_secs(3600), leader.keep(|_| ()));
        tokio::select! {
            () = acquired => panic!("it was taken over"),
            kept = an_hour => drop(kept.expect_err("it keeps it")),
        }
        assert!(seen.len() > 1000 && seen.iter().all(|holder| holder == "leader"));
        leader.release().await;
        let begun = Instant::now();
        waiting.acquire(|_| ()).await;
        assert!(begun.elapsed() < Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_cannot_renew_closes_the_fence_and_ends() {
        let server = Server::default();
        let fence = Fence::default();
        let mut leader = server.election("leader", &fence);
        leader.acquire(|_| ()).await;
        let stuck = Server { delay: Duration::from_secs(3600), ..server };
        leader.leases = Api::namespaced(stuck.client(), "chat");
        let begun = Instant::now();
        assert_eq!(leader.keep(|_| ()).await, Lost::NotRenewed);
        assert!(fence.check().is_err());
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    }
}
