//! What the operator's tests share: a real control plane, a real nats-server, operators in this process, and gateways
//! started by hand.

#![allow(
    dead_code,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "each test uses a part, and fails by panicking"
)]

pub(crate) mod dying;
pub(crate) mod process;

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::{Duration, Instant},
};

use hubbub_api::{
    ChatRoomSpec, RoomName, RoomPolicy,
    kubernetes::{ChatRoomResource, ChatRoomStatus, custom_resource_definition},
    names::BUCKET,
};
use hubbub_nats::NatsOptions;
use hubbub_operator::{
    events::OperatorEvents,
    keys::{AllowedHosts, Fetcher, HostPattern},
    lease::Lost,
    operator::{Config, Operator},
    scaling::WINDOW,
    settings::Settings,
};
use hubbub_telemetry::Traces;
use hubbub_testkit::{
    Certificates, Cluster, ControlPlane, Controllers, GIVE_UP, GatewayProcess, Kubectl, Namespace,
    NatsServer, gateway_program,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The namespace of the release, in a control plane of the test's own.
pub(crate) const HOME: &str = "hubbub";

/// The namespace of the rooms there.
pub(crate) const DEMO: &str = "demo";

/// A control plane of the test's own with the definition, and NATS: for tests that stop the API server, read its log, or change
/// what all of a cluster share.
pub(crate) struct World {
    pub(crate) plane: ControlPlane,
    place: Place,
}

impl Deref for World {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Place {
        &mut self.place
    }
}

/// Two namespaces of any cluster with the definition, and NATS.
pub(crate) struct Place {
    kubectl: Kubectl,
    pub(crate) nats: NatsServer,
    pub(crate) client: Client,
    /// The namespace of the release.
    pub(crate) home: String,
    /// The namespace of the rooms.
    pub(crate) demo: String,
    /// The cluster is others' too, so only rooms of `demo` are served.
    shared: bool,
    /// Removed in the end, those of rooms before the cluster.
    namespaces: Vec<Namespace>,
    cluster: Option<Cluster>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.shared {
            // Nobody is left to take the finalizers away, and their namespace would wait for that.
            let rooms = ["get", "chatrooms", "-n", &self.demo, "--output=name"];
            let rooms = self.kubectl.command(&rooms).output().map(|o| o.stdout).unwrap_or_default();
            for room in String::from_utf8_lossy(&rooms).lines() {
                let free = r#"--patch={"metadata": {"finalizers": null}}"#;
                let patch = ["patch", room, "-n", &self.demo, "--type=merge", free];
                // It may have gone meanwhile.
                let _ = self.kubectl.command(&patch).output();
            }
        }
    }
}

/// An operator in this process.
pub(crate) struct Running {
    pub(crate) admin: std::net::SocketAddr,
    pub(crate) events: std::sync::Arc<OperatorEvents>,
    stop: CancellationToken,
    task: JoinSet<Result<(), Lost>>,
}

impl Running {
    /// Ends it in good order.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        self.task.join_next().await.unwrap().unwrap().unwrap();
    }

    /// Ends it as if its process were killed.
    pub(crate) async fn kill(mut self) {
        self.task.shutdown().await;
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> Result<(), Lost> {
        hubbub_testkit::within("the operator ends", self.task.join_next()).await.unwrap().unwrap()
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(Controllers::Off).await
    }

    pub(crate) async fn start_with(controllers: Controllers) -> Self {
        let (plane, nats) =
            tokio::join!(ControlPlane::start_with(controllers), NatsServer::start());
        let kubectl = plane.kubectl().clone();
        define(&kubectl).await;
        for namespace in [HOME, DEMO] {
            kubectl.run(&["create", "namespace", namespace]).await;
        }
        let client = client_of(&kubectl.kubeconfig().await).await;
        let (home, demo) = (HOME.to_owned(), DEMO.to_owned());
        let (namespaces, cluster) = (Vec::new(), None);
        let place = Place { kubectl, nats, client, home, demo, shared: false, namespaces, cluster };
        Self { plane, place }
    }
}

/// Has the definition in force.
async fn define(kubectl: &Kubectl) {
    kubectl.apply(&custom_resource_definition().to_string()).await;
    let crd = "crd/chatrooms.hubbub.dev";
    kubectl.run(&["wait", "--for=condition=Established", crd, "--timeout=60s"]).await;
}

impl Place {
    /// In the cluster that `KUBECONFIG` names, with namespaces of the test's own; without one, in a control plane of its own
    /// with these controllers.
    pub(crate) async fn open(controllers: Controllers) -> Self {
        let (cluster, nats) = tokio::join!(Cluster::start(controllers), NatsServer::start());
        let kubectl = cluster.kubectl().clone();
        define(&kubectl).await;
        let home = cluster.namespace(HOME).await;
        let demo = cluster.namespace(DEMO).await;
        let client = client_of(&kubectl.kubeconfig().await).await;
        let (home_name, demo_name) = (home.name().to_owned(), demo.name().to_owned());
        Self {
            kubectl,
            nats,
            client,
            home: home_name,
            demo: demo_name,
            shared: cluster.is_shared(),
            namespaces: vec![demo, home],
            cluster: Some(cluster),
        }
    }

    /// One more namespace of the test's own.
    pub(crate) async fn namespace(&mut self, purpose: &str) -> String {
        let cluster = self.cluster.as_ref().unwrap();
        let namespace = cluster.namespace(purpose).await;
        let name = namespace.name().to_owned();
        self.namespaces.push(namespace);
        name
    }

    pub(crate) fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Where a room's members come in.
    pub(crate) fn path(&self, room: &str) -> String {
        format!("/rooms/{}/{room}", self.demo)
    }

    /// How operators are configured here.
    pub(crate) fn config(&self, client: Client) -> Config {
        let settings = format!(
            "nats: {{url: '{}'}}\npools: {{default: {{min: 1, image: 'hubbub-gateway:test'}}}}",
            self.nats.url()
        );
        Config {
            admin_listen: "127.0.0.1:0".parse().unwrap(),
            client,
            nats: NatsOptions::new(self.nats.url(), "operator"),
            bucket_replicas: 1,
            settings: Settings::parse(&settings).unwrap(),
            scale_down_window: WINDOW,
            instance: "hubbub".to_owned(),
            namespace: self.home.clone(),
            room_namespaces: if self.shared { vec![self.demo.clone()] } else { Vec::new() },
            identity: "one".to_owned(),
            leader_election: false,
            keys: Arc::new(Fetcher::new(None, AllowedHosts::default()).unwrap()),
            keys_period: Duration::from_millis(200),
            traces: Traces::off(),
        }
    }

    /// An operator without a lease.
    pub(crate) async fn operator(&self) -> Running {
        run(self.config(self.client.clone())).await
    }

    /// The same, which trusts these certificates where keys are fetched, and asks only these hosts; any that is not special if there is none.
    pub(crate) async fn operator_asking(
        &self,
        certificates: &Certificates,
        hosts: &[&str],
    ) -> Running {
        let mut config = self.config(self.client.clone());
        let hosts: Vec<HostPattern> = hosts.iter().map(|host| host.parse().unwrap()).collect();
        let fetcher = Fetcher::new(Some(&certificates.authority()), hosts.into());
        config.keys = Arc::new(fetcher.unwrap());
        run(config).await
    }

    /// A gateway of that pool, started by hand.
    pub(crate) async fn gateway(&self, id: &str, pool: &str) -> GatewayProcess {
        let url = self.nats.url();
        let arguments = [
            "--nats",
            &url,
            "--policies",
            "nats",
            "--pool",
            pool,
            "--gateway-id",
            id,
            "--drain-settle",
            "0s",
            "--drain-window",
            "0s",
            "--drain-deadline",
            "1s",
        ];
        GatewayProcess::start(gateway_program(), &arguments).await
    }

    pub(crate) fn rooms(&self) -> Api<ChatRoomResource> {
        Api::namespaced(self.client.clone(), &self.demo)
    }

    /// Declares an open room of that pool.
    pub(crate) async fn room(&self, name: &str, pool: &str) -> ChatRoomResource {
        self.room_with(name, |spec| pool.clone_into(&mut spec.gateways.pool)).await
    }

    /// The same with a spec that is changed before anybody sees it.
    pub(crate) async fn room_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut ChatRoomSpec),
    ) -> ChatRoomResource {
        let mut spec = ChatRoomSpec::new(vec!["*".to_owned()]);
        spec.require_origin = false;
        spec.gateways.min = 1;
        change(&mut spec);
        let room = ChatRoomResource::new(&RoomName::new(&self.demo, name).unwrap(), spec);
        self.rooms().create(&PostParams::default(), &room).await.unwrap()
    }

    pub(crate) async fn patch_room(&self, name: &str, patch: Value) {
        let parameters = PatchParams::default();
        self.rooms().patch(name, &parameters, &Patch::Merge(patch)).await.unwrap();
    }

    pub(crate) async fn delete_room(&self, name: &str) {
        self.rooms().delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub(crate) async fn status(&self, name: &str) -> ChatRoomStatus {
        let room = self.rooms().get_opt(name).await.ok().flatten();
        room.and_then(|room| room.status).unwrap_or_default()
    }

    /// Waits until a room's status is so, and gives it.
    pub(crate) async fn status_until(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&ChatRoomStatus) -> bool,
    ) -> ChatRoomStatus {
        let begun = Instant::now();
        loop {
            let status = self.status(name).await;
            if holds(&status) {
                return status;
            }
            assert!(begun.elapsed() < GIVE_UP, "gave up waiting until {what}: {status:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn ready(&self, name: &str) -> ChatRoomStatus {
        self.status_until(name, "the room is ready", |s| is(s, "Ready", "True")).await
    }

    /// The policy of a room in the bucket.
    pub(crate) async fn policy(&self, name: &str) -> Option<RoomPolicy> {
        self.policy_at(&self.nats, name).await
    }

    /// The same on another server.
    pub(crate) async fn policy_at(&self, server: &NatsServer, name: &str) -> Option<RoomPolicy> {
        let context = nats::jetstream::new(server.client().await);
        let store = context.get_key_value(BUCKET).await.ok()?;
        let value = store.get(format!("{}.{name}", self.demo)).await.unwrap()?;
        Some(RoomPolicy::from_json(&value).unwrap())
    }

    /// The objects of a pool as `kind/name`, and how many there should be.
    pub(crate) async fn objects(&self, pool: &str) -> Vec<String> {
        let selector = format!("--selector=hubbub.dev/pool={pool}");
        let kinds = "deployments,services,poddisruptionbudgets,serviceaccounts,networkpolicies";
        let listed =
            self.kubectl().run(&["get", kinds, "-n", &self.home, &selector, "--output=name"]).await;
        listed.lines().map(str::to_owned).collect()
    }
}

/// Starts an operator.
pub(crate) async fn run(config: Config) -> Running {
    let operator = Operator::start(config).await.unwrap();
    let (admin, events) = (operator.admin_address(), std::sync::Arc::clone(operator.events()));
    let stop = operator.stopper();
    let mut task = JoinSet::new();
    task.spawn(operator.run());
    Running { admin, events, stop, task }
}

/// A client by a kubeconfig's text.
pub(crate) async fn client_of(kubeconfig: &str) -> Client {
    let parsed = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(parsed, &options).await.unwrap();
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

pub(crate) fn condition<'a>(status: &'a ChatRoomStatus, kind: &str) -> Option<&'a Condition> {
    let mut found = status.conditions.iter().filter(|condition| condition.type_ == kind);
    let condition = found.next();
    assert!(found.next().is_none(), "two conditions of type {kind}");
    condition
}

/// Whether a condition has that status.
pub(crate) fn is(status: &ChatRoomStatus, kind: &str, value: &str) -> bool {
    condition(status, kind).is_some_and(|condition| condition.status == value)
}

/// Whether a condition has that reason.
pub(crate) fn because(status: &ChatRoomStatus, kind: &str, reason: &str) -> bool {
    condition(status, kind).is_some_and(|condition| condition.reason == reason)
}

/// Waits until something that has to be asked for is so.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < GIVE_UP, "gave up waiting until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn pausing(value: Option<&str>) -> Value {
    json!({"metadata": {"annotations": {"hubbub.dev/paused": value}}})
}
