//! A cluster for what any cluster will do: the one that `KUBECONFIG` names, else a control plane of the test's own.

use std::{env, path::PathBuf};

use tokio::sync::OnceCell;

use crate::{ControlPlane, Controllers, Kubectl, control_plane::named_program};

/// See the module.
#[derive(Debug)]
pub struct Cluster {
    kubectl: Kubectl,
    own: Option<ControlPlane>,
}

impl Cluster {
    /// The cluster that `KUBECONFIG` names, as it is; without one, a new control plane with these controllers.
    ///
    /// # Panics
    ///
    /// When the cluster does not answer, or no control plane can be started.
    pub async fn start(controllers: Controllers) -> Self {
        if env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty()) {
            let program = named_program("kubectl").unwrap_or_else(|| PathBuf::from("kubectl"));
            let kubectl = Kubectl::new(program, Vec::new());
            kubectl.run(&["get", "--raw=/readyz"]).await;
            return Self { kubectl, own: None };
        }
        let own = ControlPlane::start_with(controllers).await;
        Self { kubectl: own.kubectl().clone(), own: Some(own) }
    }

    /// The same, without controllers, once for all tests of a program. It ends with the program.
    ///
    /// # Panics
    ///
    /// As [`Cluster::start`].
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        SHARED.get_or_init(|| Self::start(Controllers::Off)).await
    }

    /// `kubectl` as its administrator.
    #[must_use]
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Whether it is the user's, with things in it that are none of the test's business.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.own.is_none()
    }

    /// A new namespace whose name begins with this.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub async fn namespace(&self, purpose: &str) -> Namespace {
        let name = format!("{purpose}-{:08x}", fastrand::u32(..));
        self.kubectl.run(&["create", "namespace", &name]).await;
        // One of our own goes with its control plane.
        let remove = self.own.is_none().then(|| self.kubectl.clone());
        Namespace { name, remove }
    }
}

/// A namespace of one test. Dropped, it is removed.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    remove: Option<Kubectl>,
}

impl Namespace {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Some(kubectl) = &self.remove {
            // The cluster may be gone.
            let _ = kubectl.command(&["delete", "namespace", &self.name, "--wait=false"]).output();
        }
    }
}
