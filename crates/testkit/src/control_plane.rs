//! A real Kubernetes control plane for tests: etcd, the API server and, where a test asks for them, the controllers. No
//! node, so nothing runs in it.
//!
//! It is on a free port of 127.0.0.1 with its own store, authorizes by RBAC, and is gone when the test is, however that
//! ends. What the tests do to it is here too: API server down, frozen, or forgetting.

mod audit;
mod components;
mod pki;
mod watchdog;

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

pub use self::audit::AuditEvent;
pub(crate) use self::components::named_program;
use self::{components::Component, pki::Pki, watchdog::Watchdog};
use crate::{Kubectl, certificates::write, http};

/// When starting is given up. A machine that builds something beside needs up to half a minute.
const START_LIMIT: Duration = Duration::from_secs(180);

const API_SERVER: &str = "kube-apiserver";

const CONTROLLERS: &str = "kube-controller-manager";

/// The group that the API server lets do as it likes.
const ADMINISTRATORS: &str = "system:masters";

/// Whether the controllers run that act on what is declared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Controllers {
    /// Nothing acts but the test: objects stay as they were written, and what an owner leaves behind stays.
    #[default]
    Off,
    /// Those of kube-controller-manager: garbage collection, namespaces that empty themselves, service accounts, replica
    /// sets of deployments and their pods (which stay pending).
    On,
}

/// See the module. Dropping it ends the processes and removes their folder.
#[derive(Debug)]
pub struct ControlPlane {
    home: PathBuf,
    pki: Pki,
    address: SocketAddr,
    kubectl: Kubectl,
    /// What runs. The API server is not in it while it is down.
    running: Vec<Component>,
    watchdog: Watchdog,
    /// Keeps the port from others while the API server is down.
    _port: TcpSocket,
}

impl ControlPlane {
    /// Starts etcd and an API server.
    ///
    /// # Panics
    ///
    /// When there are no programs, or they do not start.
    pub async fn start() -> Self {
        Self::start_with(Controllers::Off).await
    }

    /// Starts them with controllers or without.
    ///
    /// # Panics
    ///
    /// As [`ControlPlane::start`].
    pub async fn start_with(controllers: Controllers) -> Self {
        let home = tempfile::tempdir().expect("a directory for the control plane");
        Self::start_in(&home.keep(), controllers).await
    }

    /// Starts them in a folder, which is theirs alone and is removed with them.
    ///
    /// # Panics
    ///
    /// As [`ControlPlane::start`].
    pub async fn start_in(home: &Path, controllers: Controllers) -> Self {
        let mut plane = Self::prepare(home);
        plane.run("etcd", components::etcd(home));
        plane.start_again().await;
        plane.await_object("namespace/default").await;
        if controllers == Controllers::On {
            plane.start_controllers();
            plane.await_object("serviceaccount/default").await;
        }
        plane
    }

    /// Everything but the processes.
    fn prepare(home: &Path) -> Self {
        let watchdog = Watchdog::start(home);
        let port = TcpSocket::new_v4().expect("a socket");
        port.set_reuseport(true).expect("a socket that shares its port");
        port.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let address = port.local_addr().expect("a bound socket");
        let pki = Pki::make(&home.join("pki"), &format!("https://{address}"));
        let kubeconfig = home.join("kubeconfig");
        pki.write_kubeconfig(&kubeconfig, "admin", Some(ADMINISTRATORS));
        write(&home.join("audit-policy.yaml"), include_str!("control_plane/audit-policy.yaml"));
        let options = vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--cache-dir={}", home.join("kubectl").display()),
        ];
        let kubectl = Kubectl::new(components::program("kubectl"), options);
        let home = home.to_owned();
        Self { home, pki, address, kubectl, running: Vec::new(), watchdog, _port: port }
    }

    /// An administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.home.join("kubeconfig")
    }

    /// `kubectl` as that administrator.
    #[must_use]
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Where the API server listens, also after a restart.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request for a resource that was answered so far, except those of the control plane's own parts. A request
    /// may appear a moment after its answer.
    #[must_use]
    pub fn audit_log(&self) -> Vec<AuditEvent> {
        audit::read(&self.home.join("audit.log"))
    }

    /// Ends the API server as if its machine had lost power. Its port stays closed until it is started again.
    pub fn kill9(&mut self) {
        self.end(API_SERVER);
    }

    /// Starts the API server on the address that it had, and waits until it is ready.
    ///
    /// # Panics
    ///
    /// When it runs already, or does not start.
    pub async fn start_again(&mut self) {
        assert!(self.api_server().is_none(), "the API server runs already");
        let arguments = components::api_server(&self.home, &self.pki, self.address.port());
        self.run(API_SERVER, arguments);
        let begun = Instant::now();
        while TcpStream::connect(self.address).await.is_err()
            || self.kubectl.try_run(&["get", "--raw=/readyz"]).await.is_err()
        {
            self.running.iter_mut().for_each(Component::assert_running);
            assert!(begun.elapsed() < START_LIMIT, "gave up waiting:\n{}", self.last_words());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends the API server and starts it again.
    pub async fn restart(&mut self) {
        self.kill9();
        self.start_again().await;
    }

    /// Freezes the API server: connections stay open, and nothing answers. Returns when it stands still.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn pause(&self) {
        self.api_server().expect("the API server runs").pause();
    }

    /// Thaws the API server.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn resume(&self) {
        self.api_server().expect("the API server runs").resume();
    }

    /// Ends the controllers: what is declared stays as it is until they are started again.
    pub fn kill_controllers(&mut self) {
        self.end(CONTROLLERS);
    }

    /// Starts the controllers. They know of nothing that was and is no more.
    pub fn start_controllers(&mut self) {
        let kubeconfig = self.home.join("controllers.kubeconfig");
        self.pki.write_kubeconfig(&kubeconfig, "system:kube-controller-manager", None);
        let arguments = components::controller_manager(&kubeconfig, &self.pki);
        self.run(CONTROLLERS, arguments);
    }

    /// Makes the control plane forget its past: whoever resumes a watch or continues a list from before is answered with
    /// 410 Gone. The API server is restarted on the way.
    ///
    /// # Panics
    ///
    /// When etcd does not do as it is told.
    pub async fn expire_watches(&mut self) {
        self.kill9();
        // A revision that no client has seen, so that even the latest they know is in the past.
        let put = self.etcd_call("/v3/kv/put", &json!({"key": "aHVic3Vi"})).await;
        let revision = put["header"]["revision"].clone();
        let compaction = json!({"revision": revision, "physical": true});
        self.etcd_call("/v3/kv/compaction", &compaction).await;
        self.start_again().await;
    }

    /// Lets everything run on. The file `pids` in the folder tells the processes, one a line.
    ///
    /// # Panics
    ///
    /// When the file cannot be written.
    pub fn leave(mut self) {
        let pids: String = self.running.iter().map(|part| format!("{}\n", part.pid())).collect();
        write(&self.home.join("pids"), &pids);
        self.watchdog.dismiss();
        self.running.clear();
    }

    fn api_server(&self) -> Option<&Component> {
        self.running.iter().find(|part| part.name == API_SERVER)
    }

    /// Kills a part, if it runs.
    fn end(&mut self, name: &str) {
        if let Some(index) = self.running.iter().position(|part| part.name == name) {
            self.running.remove(index).kill();
            self.tell_watchdog();
        }
    }

    fn run(&mut self, name: &'static str, arguments: Vec<OsString>) {
        self.running.push(Component::start(name, &self.home, arguments));
        self.tell_watchdog();
    }

    fn tell_watchdog(&mut self) {
        self.watchdog.watch(self.running.iter().map(Component::pid));
    }

    /// Waits for what the control plane makes by itself a moment after it is ready.
    async fn await_object(&mut self, object: &str) {
        let limit = format!("--timeout={}s", START_LIMIT.as_secs());
        if let Err(error) = self.kubectl.try_run(&["wait", "--for=create", object, &limit]).await {
            panic!("{error}{}", self.last_words());
        }
    }

    fn last_words(&self) -> String {
        self.running.iter().map(Component::last_words).collect()
    }

    /// A call of etcd's JSON gateway.
    async fn etcd_call(&self, path: &str, body: &Value) -> Value {
        let socket = UnixStream::connect(components::etcd_socket(&self.home)).await;
        let body = body.to_string();
        // In HTTP/1.0, because a longer answer would come in chunks otherwise.
        let asked = format!("POST {path} HTTP/1.0\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let answer = http::exchange(socket.expect("etcd listens"), asked.as_bytes()).await;
        assert_eq!(answer.status, 200, "etcd {path}: {}", answer.body);
        serde_json::from_str(&answer.body).expect("etcd answers in JSON")
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.running.drain(..).for_each(|mut part| part.kill());
        // The numbers of what has ended are anybody's now.
        self.tell_watchdog();
    }
}
