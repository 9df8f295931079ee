//! A release of the chart in a namespace of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
};

use hubbub_testkit::{Kubectl, Member, Namespace};
use serde_json::{Value, json};

use crate::{World, chart::chart, world::slowly};

/// Where the rooms of the tests let pages join from.
pub const PAGE: &str = "https://chat.example.com";

/// See the module. Dropped, it is removed, and so is its namespace.
#[derive(Debug)]
pub struct Release<'a> {
    world: &'a World,
    namespace: Namespace,
    values: Value,
    /// Where the Service of the pool `default` is reached from outside.
    address: SocketAddr,
    /// What `helm install` printed.
    pub notes: String,
}

impl<'a> Release<'a> {
    /// The release's name, which all its objects begin with.
    pub const NAME: &'static str = "hubbub";

    /// Installs the chart as a user does, with these values beside the images, and waits for its gateways.
    ///
    /// # Panics
    ///
    /// When Helm fails, or gateways do not come up.
    pub async fn install(world: &'a World, purpose: &str, values: Value) -> Self {
        Self::install_with(world, purpose, values, &[]).await
    }

    /// The same, after these objects are in its namespace.
    ///
    /// # Panics
    ///
    /// As [`Release::install`], and when an object is refused.
    pub async fn install_with(
        world: &'a World,
        purpose: &str,
        values: Value,
        objects: &[Value],
    ) -> Self {
        let namespace = world.restricted_namespace(purpose).await;
        for object in objects {
            let mut object = object.clone();
            object["metadata"]["namespace"] = json!(namespace.name());
            world.kubectl().apply(&object.to_string()).await;
        }
        Self::install_into(world, namespace, &chart(), values).await
    }

    /// The same from a chart of another folder.
    ///
    /// # Panics
    ///
    /// As [`Release::install`].
    pub async fn install_chart(
        world: &'a World,
        from: &Path,
        purpose: &str,
        values: Value,
    ) -> Self {
        let namespace = world.restricted_namespace(purpose).await;
        Self::install_into(world, namespace, from, values).await
    }

    async fn install_into(
        world: &'a World,
        namespace: Namespace,
        from: &Path,
        values: Value,
    ) -> Self {
        let (repository, tag) = split_image(&world.image);
        let (nats_repository, nats_tag) = split_image(&world.nats_image);
        let mut all = json!({
            "image": {"repository": repository, "tag": tag},
            "pools": {"default": {
                // Reached at a node's address from wherever the test runs.
                "service": {"type": "NodePort"},
                // And asked for its members by way of the API server, wherever that runs.
                "networkPolicy": {"adminFrom": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]},
            }},
            "nats": {"server": {"image": {"repository": nats_repository, "tag": nats_tag}}},
        });
        merge(&mut all, values);
        let file = values_file(&all);
        let name = namespace.name();
        let path = file.path().display().to_string();
        let arguments = [
            "install",
            Self::NAME,
            &from.display().to_string(),
            "--namespace",
            name,
            "--values",
            &path,
            "--wait",
            "--timeout=5m",
            // The definition may be there from a release that is gone: it is kept.
            "--take-ownership",
        ];
        let notes = world.helm.run(&arguments).await;
        let kubectl = world.kubectl();
        let service = slowly("the pool has a Service", || async {
            kubectl
                .try_run(&[
                    "get",
                    "service",
                    "hubbub-default",
                    "--namespace",
                    name,
                    "--output=jsonpath={.spec.ports[0].nodePort}",
                ])
                .await
        })
        .await;
        let address = format!("{}:{service}", world.node_address().await);
        let address = address.parse().expect("an address and a port");
        let release = Self { world, namespace, values: all, address, notes };
        release.rolled_out().await;
        release
    }

    /// Upgrades it to the chart, with these values changed, and waits until the chart's own objects are ready.
    ///
    /// # Panics
    ///
    /// When Helm fails.
    pub async fn upgrade(&mut self, values: Value) {
        merge(&mut self.values, values);
        let file = values_file(&self.values);
        let path = file.path().display().to_string();
        let arguments = [
            "upgrade",
            Self::NAME,
            &chart().display().to_string(),
            "--namespace",
            self.namespace(),
            "--values",
            &path,
            "--wait",
            "--timeout=5m",
        ];
        self.world.helm.run(&arguments).await;
    }

    /// Removes it, as a user does.
    ///
    /// # Panics
    ///
    /// When Helm fails.
    pub async fn uninstall(&self) -> String {
        let arguments =
            ["uninstall", Self::NAME, "--namespace", self.namespace(), "--wait", "--timeout=5m"];
        self.world.helm.run(&arguments).await
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.namespace.name()
    }

    /// The Service of the pool `default`, from outside.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn kubectl(&self) -> &Kubectl {
        self.world.kubectl()
    }

    /// `kubectl` in its namespace.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub async fn run(&self, arguments: &[&str]) -> String {
        self.kubectl().run(&[arguments, &["--namespace", self.namespace()]].concat()).await
    }

    /// The same, as JSON.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub async fn json(&self, arguments: &[&str]) -> Value {
        self.kubectl().json(&[arguments, &["--namespace", self.namespace()]].concat()).await
    }

    /// Waits until all gateways of the pool `default` are of the newest kind and ready.
    ///
    /// # Panics
    ///
    /// When they are not within five minutes.
    pub async fn rolled_out(&self) {
        slowly("the pool has a Deployment", || async {
            self.kubectl()
                .try_run(&["get", "deployment", "hubbub-default", "--namespace", self.namespace()])
                .await
        })
        .await;
        self.run(&["rollout", "status", "deployment/hubbub-default", "--timeout=5m"]).await;
    }

    /// Declares a room in the release's namespace and waits until it is ready. `spec` is added to what lets [`PAGE`] join.
    ///
    /// # Panics
    ///
    /// When it is refused, or does not become ready.
    pub async fn room(&self, name: &str, spec: Value) {
        let mut room = json!({
            "apiVersion": "hubbub.dev/v1alpha1",
            "kind": "ChatRoom",
            "metadata": {"name": name, "namespace": self.namespace()},
            "spec": {"allowedOrigins": [PAGE]},
        });
        merge(&mut room["spec"], spec);
        self.kubectl().apply(&room.to_string()).await;
        self.run(&["wait", "--for=condition=Ready", &format!("chatroom/{name}"), "--timeout=5m"])
            .await;
    }

    /// The path of a room.
    #[must_use]
    pub fn path(&self, room: &str) -> String {
        format!("/rooms/{}/{room}", self.namespace())
    }

    /// A member of a room, through the Service.
    ///
    /// # Panics
    ///
    /// When it is refused.
    pub async fn join(&self, room: &str, origin: &str) -> Member {
        let joined = Member::join(self.address, &self.path(room), Some(origin)).await;
        joined.unwrap_or_else(|answer| panic!("{origin} may not join {room}: {answer:?}"))
    }

    /// The gateways that run, ready or not, and how many members of a room each has.
    ///
    /// # Panics
    ///
    /// When they cannot be asked.
    pub async fn members(&self, room: &str) -> BTreeMap<String, u64> {
        let mut members = BTreeMap::new();
        for pod in self.gateways().await {
            let path =
                format!("/api/v1/namespaces/{}/pods/{pod}:9090/proxy/rooms", self.namespace());
            // One that ends just now has none.
            let Ok(rooms) = self.kubectl().try_run(&["get", "--raw", &path]).await else {
                continue;
            };
            let rooms: Value = serde_json::from_str(&rooms).expect("a gateway answers in JSON");
            let all = rooms["rooms"].as_array().cloned().unwrap_or_default();
            let full = format!("{}/{room}", self.namespace());
            let here = all.iter().find(|entry| entry["room"] == full.as_str());
            members.insert(pod, here.and_then(|entry| entry["members"].as_u64()).unwrap_or(0));
        }
        members
    }

    /// The names of the pool's gateways that are not on their way out.
    ///
    /// # Panics
    ///
    /// When they cannot be listed.
    pub async fn gateways(&self) -> BTreeSet<String> {
        let pods = self.json(&["get", "pods", "--selector=hubbub.dev/pool=default"]).await;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let staying = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        staying.filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)).collect()
    }

    /// Members of a room on every one of at least `gateways` gateways, as the Service spreads them.
    ///
    /// # Panics
    ///
    /// When it never leads to so many.
    pub async fn join_on(&self, room: &str, gateways: usize) -> Vec<Member> {
        let mut members = Vec::new();
        while self.members(room).await.values().filter(|count| **count > 0).count() < gateways {
            assert!(
                members.len() < 100,
                "the Service leads all members to fewer than {gateways} gateways"
            );
            for _ in 0..2 {
                members.push(self.join(room, PAGE).await);
            }
        }
        members
    }
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        // Rights in the whole cluster do not go with a namespace. It may have been removed already.
        let _ = self
            .world
            .helm
            .command(&["uninstall", Self::NAME, "--namespace", self.namespace(), "--no-hooks"])
            .output();
    }
}

/// Puts the fields of `more` into `into`, object by object.
fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

fn values_file(values: &Value) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().expect("a temporary file");
    std::fs::write(file.path(), values.to_string()).expect("a temporary file can be written");
    file
}

/// Repository and tag.
fn split_image(image: &str) -> (&str, &str) {
    image.rsplit_once(':').expect("an image is named as repository:tag")
}
