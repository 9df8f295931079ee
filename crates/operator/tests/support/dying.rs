//! An operator that is killed at a chosen write: its client carries the write out or not, and then nothing more.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{Method, Request};
use kube::{Client, client::Body};
use tokio::sync::watch;
use tower::{BoxError, service_fn};

/// Tells when the operator has died.
#[derive(Clone)]
pub(crate) struct Death {
    dead: watch::Sender<bool>,
}

impl Death {
    pub(crate) fn has_come(&self) -> bool {
        *self.dead.borrow()
    }
}

/// A client that carries out that many writes and dies of the next: after it was answered, or before it was sent.
pub(crate) fn client(inner: &Client, writes: usize, answered: bool) -> (Client, Death) {
    let death = Death { dead: watch::Sender::new(false) };
    let (inner, told) = (inner.clone(), death.clone());
    let count = Arc::new(AtomicUsize::new(0));
    let service = service_fn(move |request: Request<Body>| {
        let (inner, told, count) = (inner.clone(), told.clone(), Arc::clone(&count));
        async move {
            let write = request.method() != Method::GET;
            if told.has_come() {
                return pending().await;
            }
            let last = write && count.fetch_add(1, Ordering::AcqRel) == writes;
            if last && !answered {
                told.dead.send_replace(true);
                return pending().await;
            }
            let answer = inner.send(request).await.map_err(BoxError::from);
            if last {
                told.dead.send_replace(true);
                return pending().await;
            }
            answer
        }
    });
    (Client::new(service, "default"), death)
}
