//! A real API server with the definition of `ChatRoom`, asked whether it would take a room.

#![allow(
    dead_code,
    clippy::panic,
    clippy::unwrap_used,
    reason = "each test uses a part, and fails by panicking"
)]

use std::time::Duration;

use hubbub_api::kubernetes::custom_resource_definition;
use hubbub_api::rules::{Candidate, Violation, check};
use hubbub_api::{API_VERSION, ChatRoom, ChatRoomSpec, KIND, RoomName};
use hubbub_testkit::{Cluster, Kubectl, Namespace, within};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// See the module.
pub(crate) struct Admission {
    client: Client,
    namespace: Namespace,
    kubectl: &'static Kubectl,
}

/// One reason for which a room is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The field, such as `spec.gateways.min`.
    pub(crate) field: String,
    /// What is wrong with it, in the words of the definition.
    pub(crate) message: String,
}

impl Admission {
    /// The cluster of all tests of this program, with a namespace of this test's own.
    pub(crate) async fn open(purpose: &str) -> Self {
        static KUBECONFIG: OnceCell<String> = OnceCell::const_new();
        let cluster = Cluster::shared().await;
        let kubectl = cluster.kubectl();
        let kubeconfig = KUBECONFIG.get_or_init(|| install(kubectl)).await;
        let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        let client = Client::try_from(config).unwrap();
        Self { client, namespace: cluster.namespace(purpose).await, kubectl }
    }

    pub(crate) fn namespace(&self) -> &str {
        self.namespace.name()
    }

    pub(crate) fn kubectl(&self) -> &Kubectl {
        self.kubectl
    }

    /// The room as the API server would keep it, or why it would not.
    ///
    /// It is sent to the namespace that it names, or to this test's own. Fields that the definition does not know are an
    /// error, as they are for `kubectl apply`.
    pub(crate) async fn judge(&self, room: &Value) -> Result<Value, Vec<Refusal>> {
        let namespace = room["metadata"]["namespace"].as_str().unwrap_or(self.namespace());
        let uri = format!(
            "/apis/{API_VERSION}/namespaces/{namespace}/chatrooms?dryRun=All&fieldValidation=Strict"
        );
        let request = http::Request::post(uri).header("content-type", "application/json");
        let request = request.body(room.to_string().into_bytes()).unwrap();
        let status = match self.client.request(request).await {
            Ok(kept) => return Ok(kept),
            Err(kube::Error::Api(status)) => status,
            Err(error) => panic!("the API server answers: {error}"),
        };
        let causes = status.details.map(|details| details.causes).unwrap_or_default();
        if causes.is_empty() {
            return Err(vec![Refusal { field: String::new(), message: status.message }]);
        }
        let refusals = causes.into_iter().map(|cause| {
            // `Invalid value: 0: must be …`: the value, if it is a plain one, stands before the message.
            let message = cause.message.trim_start_matches("Invalid value: ").to_owned();
            Refusal { field: cause.field, message }
        });
        Err(refusals.collect())
    }

    /// The sentences for which a room with these origins is refused, by the API server and by the rules in Rust.
    pub(crate) async fn judge_origins(&self, origins: &[String]) -> (Vec<String>, Vec<String>) {
        let room = room(&json!({"allowedOrigins": origins}));
        let there = self.judge(&room).await.err().unwrap_or_default();
        let spec = ChatRoomSpec::new(origins.to_vec());
        let mut here: Vec<String> =
            violations(spec).into_iter().map(|v| v.rule.message.to_owned()).collect();
        here.dedup();
        (there.into_iter().map(|refusal| refusal.message).collect(), here)
    }
}

/// Has the definition in force, and gives the cluster's kubeconfig.
async fn install(kubectl: &Kubectl) -> String {
    kubectl.apply(&custom_resource_definition().to_string()).await;
    let crd = "crd/chatrooms.hubbub.dev";
    kubectl.run(&["wait", "--for=condition=Established", crd, "--timeout=180s"]).await;
    // Rooms are served a moment after that.
    let list = ["get", "--raw=/apis/hubbub.dev/v1alpha1/chatrooms?limit=1"];
    within("rooms are served", async {
        while kubectl.try_run(&list).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    kubectl.kubeconfig().await
}

/// A room with this spec.
pub(crate) fn room(spec: &Value) -> Value {
    json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "room"}, "spec": spec})
}

/// What the rules in Rust say of a room with this spec.
pub(crate) fn violations(spec: ChatRoomSpec) -> Vec<Violation> {
    let room = ChatRoom::new(&RoomName::new("demo", "room").unwrap(), spec);
    check(&Candidate::of_chat_room(&room))
}
