//! The Jaeger of `manifests/jaeger.yaml`, in a namespace of its own.

use hubbub_testkit::{JaegerApi, Namespace};
use serde_json::{Value, json};

use crate::World;

/// See the module. Dropped, it is removed with its namespace.
#[derive(Debug)]
pub struct Jaeger {
    /// What it tells.
    pub api: JaegerApi,
    namespace: Namespace,
}

impl Jaeger {
    /// Applies the manifest as a user does, with the image that is here, and waits for it.
    ///
    /// # Panics
    ///
    /// When it is refused, or does not come up.
    pub async fn install(world: &World) -> Self {
        let namespace = world.restricted_namespace("observability").await;
        let kubectl = world.kubectl();
        let within = ["--namespace", namespace.name()];
        let manifest = include_str!("../../../manifests/jaeger.yaml");
        let image = |line: &str| match line.split_once("image: ") {
            Some((before, _)) => format!("{before}image: {}", world.jaeger_image),
            None => line.to_owned(),
        };
        let manifest: Vec<_> = manifest.lines().map(image).collect();
        let apply = ["apply", "--server-side", "--filename=-"];
        let applied = kubectl.try_feed(&[&apply[..], &within].concat(), &manifest.join("\n")).await;
        applied.expect("the manifest is taken");
        let nodes = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "nodes", "namespace": namespace.name()},
            "spec": {
                "type": "NodePort",
                "selector": {"app.kubernetes.io/name": "jaeger"},
                "ports": [{"port": 80, "targetPort": "query"}],
            },
        });
        kubectl.apply(&nodes.to_string()).await;
        let rollout = ["rollout", "status", "deployment/jaeger", "--timeout=5m"];
        kubectl.run(&[&rollout[..], &within].concat()).await;
        let service: Value =
            kubectl.json(&[&["get", "service", "nodes"][..], &within].concat()).await;
        let port = &service["spec"]["ports"][0]["nodePort"];
        let address = format!("{}:{port}", world.node_address().await);
        let api = JaegerApi::at(address.parse().expect("an address and a port"));
        Self { api, namespace }
    }

    /// Where spans are sent to from inside the cluster, as the chart's `traces.endpoint` takes it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://jaeger.{}:4317", self.namespace.name())
    }
}
