//! A pod of the product's image, to try from inside the cluster what it may do.

use serde_json::{Value, json};

use crate::{World, world::slowly};

/// See the module. It goes with its namespace.
#[derive(Debug)]
pub struct Pod<'a> {
    world: &'a World,
    namespace: String,
    name: &'static str,
}

impl<'a> Pod<'a> {
    /// Runs a command of the image in a pod with these labels, and again each time that it has ended.
    ///
    /// # Panics
    ///
    /// When the pod is not taken.
    pub async fn run(
        world: &'a World,
        namespace: &str,
        name: &'static str,
        labels: Value,
        command: &[&str],
    ) -> Self {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {
                "restartPolicy": "Always",
                "automountServiceAccountToken": false,
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "main",
                    "image": world.image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": command,
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }],
            },
        });
        world.kubectl().apply(&pod.to_string()).await;
        Self { world, namespace: namespace.to_owned(), name }
    }

    /// Waits until a run of it has ended well, or failed: what it said then.
    ///
    /// An agent learns of a new pod a moment after the pod runs, and what it enforces on the pod itself holds only from then on:
    /// so the first run proves nothing, and it is run again.
    ///
    /// # Panics
    ///
    /// When that does not come about within five minutes.
    pub async fn ends(&self, well: bool) -> String {
        slowly(&format!("{} ends {}", self.name, if well { "well" } else { "badly" }), || async {
            let pod = self.kubectl(&["get", "pod", self.name, "--output=json"]).await?;
            let pod: Value = serde_json::from_str(&pod).map_err(|error| error.to_string())?;
            let container = &pod["status"]["containerStatuses"][0];
            let codes = ["state", "lastState"].map(|at| &container[at]["terminated"]["exitCode"]);
            let code = codes.into_iter().find_map(Value::as_i64);
            let previous = container["state"]["terminated"].is_null();
            let arguments = ["logs", self.name, &format!("--previous={previous}")];
            let said = self.kubectl(&arguments).await.unwrap_or_default();
            match code {
                Some(code) if (code == 0) == well => Ok(said),
                _ => Err(format!("exit code {code:?}: {said}")),
            }
        })
        .await
    }

    /// Waits until it has said this.
    ///
    /// # Panics
    ///
    /// When it does not within five minutes.
    pub async fn says(&self, text: &str) {
        slowly(&format!("{} says {text:?}", self.name), || async {
            let said = self.kubectl(&["logs", self.name]).await?;
            if said.contains(text) { Ok(()) } else { Err(said) }
        })
        .await;
    }

    async fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let namespaced = [arguments, &["--namespace", &self.namespace]].concat();
        self.world.kubectl().try_run(&namespaced).await
    }
}
