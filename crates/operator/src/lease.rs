//! One leader among the replicas, by a Lease.
//!
//! Clocks of different machines are never compared: a lease has expired when this process has seen its renewTime stand
//! still for the lease's duration. Every write of the Lease names the version that was read, so of two that take it one
//! fails. Who could not renew for [`RENEW_LIMIT`] closes the [`Fence`] and ends, before anybody else may take over.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio_util::sync::CancellationToken;

use crate::fence::Fence;

/// How long others wait for a leader that is silent.
pub const DURATION: Duration = Duration::from_secs(15);

/// How long a leader goes on without having renewed. The rest of [`DURATION`] is for requests that are on their way.
pub const RENEW_LIMIT: Duration = Duration::from_secs(10);

/// How often the lease is renewed, or looked at.
const PERIOD: Duration = Duration::from_secs(2);

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
    seen: Option<(Option<String>, Option<MicroTime>, Instant)>,
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
    HeldByOther,
    /// Another was faster; look again.
    Contended,
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

    /// Waits until the lease is held, and opens the fence. Errors on the way are told and tried again.
    pub async fn acquire(&mut self, mut told: impl FnMut(&kube::Error)) {
        loop {
            let asked = Instant::now();
            match self.look_in_time().await {
                Some(Ok(Look::Held)) => {
                    self.fence.open_until(asked + RENEW_LIMIT);
                    return;
                }
                Some(Ok(Look::HeldByOther | Look::Contended)) | None => {}
                Some(Err(error)) => told(&error),
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Renews until the lease is lost; the fence is closed then.
    pub async fn keep(&mut self, mut told: impl FnMut(&kube::Error)) -> Lost {
        let (mut renewed, mut asked) = (Instant::now(), Instant::now());
        loop {
            // A try that took longer than a period is followed by the next at once.
            tokio::time::sleep(PERIOD.saturating_sub(asked.elapsed())).await;
            asked = Instant::now();
            match self.look_in_time().await {
                Some(Ok(Look::Held)) => {
                    renewed = asked;
                    self.fence.open_until(renewed + RENEW_LIMIT);
                }
                Some(Ok(Look::HeldByOther)) => {
                    self.fence.close();
                    return Lost::Taken;
                }
                // Somebody else has written the Lease; the next look tells who.
                Some(Ok(Look::Contended)) | None => {}
                Some(Err(error)) => told(&error),
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
        let mine = holder.as_deref() == Some(self.identity.as_str());
        if !mine && holder.is_some() && !self.has_expired(&holder, &spec) {
            return Ok(Look::HeldByOther);
        }
        let lease = Lease { metadata: lease.metadata, spec: Some(self.claim(spec, now)) };
        contended(self.leases.replace(&self.name, &parameters, &lease).await)
    }

    fn has_expired(&mut self, holder: &Option<String>, spec: &LeaseSpec) -> bool {
        let duration = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = duration.map_or(DURATION, Duration::from_secs);
        match &self.seen {
            Some((seen, renewed, at)) if seen == holder && *renewed == spec.renew_time => {
                at.elapsed() > duration
            }
            _ => {
                self.seen = Some((holder.clone(), spec.renew_time.clone(), Instant::now()));
                false
            }
        }
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
    mut told: impl FnMut(&kube::Error),
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
