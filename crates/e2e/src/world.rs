//! The cluster, and what is in it before a release.

use std::{env, future::Future, time::Duration, time::Instant};

use hubbub_testkit::{Cluster, Controllers, Kubectl, Namespace};
use serde_json::Value;

use crate::Helm;

/// How long what takes pods some time is waited for: images start, volumes are mounted, members are moved, and the machine
/// may be busy.
const GIVE_UP: Duration = Duration::from_secs(300);

/// How often it is looked at: each look is a program that is started.
const LOOK: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Debug)]
pub struct World {
    /// The cluster.
    pub cluster: Cluster,
    /// Helm.
    pub helm: Helm,
    /// The image of the product, as `repository:tag`.
    pub image: String,
    /// The image of NATS.
    pub nats_image: String,
    /// The image of Jaeger.
    pub jaeger_image: String,
}

impl World {
    /// The cluster that `KUBECONFIG` names, with images that `HUBBUB_E2E_IMAGE`, `HUBBUB_E2E_NATS_IMAGE` and
    /// `HUBBUB_E2E_JAEGER_IMAGE` name.
    ///
    /// # Panics
    ///
    /// When something is not set, or the cluster does not answer.
    pub async fn enter() -> Self {
        let _ = variable("KUBECONFIG");
        Self {
            image: variable("HUBBUB_E2E_IMAGE"),
            nats_image: variable("HUBBUB_E2E_NATS_IMAGE"),
            jaeger_image: variable("HUBBUB_E2E_JAEGER_IMAGE"),
            cluster: Cluster::start(Controllers::On).await,
            helm: Helm::from_environment(),
        }
    }

    /// Its `kubectl`.
    #[must_use]
    pub fn kubectl(&self) -> &Kubectl {
        self.cluster.kubectl()
    }

    /// A new namespace in which only what keeps to the restricted level of Pod Security may run.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub async fn restricted_namespace(&self, purpose: &str) -> Namespace {
        let namespace = self.cluster.namespace(purpose).await;
        let restricted =
            ["enforce", "warn"].map(|mode| format!("pod-security.kubernetes.io/{mode}=restricted"));
        let [enforce, warn] = &restricted;
        self.kubectl().run(&["label", "namespace", namespace.name(), enforce, warn]).await;
        namespace
    }

    /// An address of a node.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub async fn node_address(&self) -> String {
        let nodes = self.kubectl().json(&["get", "nodes"]).await;
        let addresses = nodes["items"][0]["status"]["addresses"].as_array().cloned();
        let is_internal = |address: &&Value| address["type"] == "InternalIP";
        let addresses = addresses.unwrap_or_default();
        let internal = addresses.iter().find(is_internal).and_then(|a| a["address"].as_str());
        internal.expect("a node has an address").to_owned()
    }
}

/// What the variable says.
pub(crate) fn variable(name: &str) -> String {
    env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| {
        panic!("{name} is not set: these tests need a real cluster, run them by `make e2e`")
    })
}

/// Waits until `look` finds something, which may take the cluster a while.
///
/// # Panics
///
/// After five minutes, naming `what`, with what was seen last.
pub async fn slowly<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let begun = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) => {
                assert!(begun.elapsed() < GIVE_UP, "gave up waiting until {what}; last: {seen}");
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}
