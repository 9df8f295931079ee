//! Nothing is written without the lease: a gate in front of every request that changes something.
//!
//! The lease task moves a deadline on with each renewal. A request that would change something after the deadline is
//! refused before it is sent, whatever the code that made it believes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Method, Request};
use kube::{Client, client::Body};
use tokio::time::Instant;
use tower::{BoxError, service_fn};

/// The write was refused, because another replica may lead by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not written: this replica does not hold the lease")]
pub struct Fenced;

/// See the module. Clones share the deadline.
#[derive(Debug, Clone)]
pub struct Fence {
    epoch: Instant,
    /// Milliseconds after `epoch`; 0 is closed.
    until: Arc<AtomicU64>,
}

impl Default for Fence {
    fn default() -> Self {
        Self { epoch: Instant::now(), until: Arc::default() }
    }
}

impl Fence {
    /// Lets writes pass until then.
    pub fn open_until(&self, until: Instant) {
        let after = until.saturating_duration_since(self.epoch).as_millis();
        self.until.store(u64::try_from(after).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Lets every write pass, for who runs without a lease.
    pub fn open_for_ever(&self) {
        self.until.store(u64::MAX, Ordering::Release);
    }

    /// Lets no write pass from now on.
    pub fn close(&self) {
        self.until.store(0, Ordering::Release);
    }

    /// Whether writes pass now.
    ///
    /// # Errors
    ///
    /// [`Fenced`] when they do not.
    pub fn check(&self) -> Result<(), Fenced> {
        let until = Duration::from_millis(self.until.load(Ordering::Acquire));
        if self.epoch.elapsed() < until { Ok(()) } else { Err(Fenced) }
    }

    /// A client whose writes pass only while this is open.
    #[must_use]
    pub fn guard(&self, client: &Client) -> Client {
        let (fence, inner) = (self.clone(), client.clone());
        let guarded = service_fn(move |request: Request<Body>| {
            let (fence, inner) = (fence.clone(), inner.clone());
            async move {
                if request.method() != Method::GET {
                    fence.check()?;
                }
                inner.send(request).await.map_err(BoxError::from)
            }
        });
        Client::new(guarded, client.default_namespace())
    }
}

/// Whether a request failed because the fence was closed.
#[must_use]
pub fn is_fenced(error: &kube::Error) -> bool {
    let kube::Error::Service(inner) = error else { return false };
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&**inner);
    while let Some(error) = cause {
        if error.is::<Fenced>() || error.downcast_ref::<kube::Error>().is_some_and(is_fenced) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use http::Response;
    use k8s_openapi::api::core::v1::Pod;
    use kube::{
        Api,
        api::{Patch, PatchParams},
    };
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_closed_fence_lets_reads_pass_and_writes_not() {
        let server = service_fn(|_: Request<Body>| async {
            let pod = json!({"metadata": {"name": "a", "namespace": "b"}});
            Ok::<_, BoxError>(Response::new(Body::from(pod.to_string().into_bytes())))
        });
        let fence = Fence::default();
        let pods: Api<Pod> = Api::namespaced(fence.guard(&Client::new(server, "b")), "b");
        let patch = Patch::Merge(json!({}));
        let params = PatchParams::default();

        let error = pods.patch("a", &params, &patch).await.unwrap_err();
        assert!(is_fenced(&error), "{error:?}");
        pods.get("a").await.unwrap();

        fence.open_until(Instant::now() + Duration::from_secs(60));
        pods.patch("a", &params, &patch).await.unwrap();
        fence.open_until(Instant::now());
        assert!(is_fenced(&pods.patch("a", &params, &patch).await.unwrap_err()));
        fence.open_for_ever();
        pods.patch("a", &params, &patch).await.unwrap();
        fence.close();
        assert!(pods.patch("a", &params, &patch).await.is_err());
    }
}
