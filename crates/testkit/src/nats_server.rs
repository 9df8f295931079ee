//! A real `nats-server` for one test: on a free port, with its own store, and gone when the test is.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde::Deserialize;
use tempfile::TempDir;

use crate::{Certificates, eventually};

mod config;

pub use config::{Auth, JetStream, NatsConfig, NatsUser, Tls};

/// Names the `nats-server` to run, when it is not on the path.
const SERVER_ENV: &str = "HUBBUB_NATS_SERVER";

/// The name of the server's log.
const LOG: &str = "nats.log";

/// A running server. Dropping it kills the process and removes its store.
#[derive(Debug)]
pub struct NatsServer {
    config: NatsConfig,
    directory: TempDir,
    process: Option<Child>,
    port: u16,
    monitoring: String,
    websocket: Option<String>,
}

/// What the server writes into its ports file.
#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
    monitoring: Vec<String>,
    #[serde(default)]
    websocket: Vec<String>,
}

impl NatsServer {
    /// Starts an open server with JetStream on a free port of 127.0.0.1.
    ///
    /// # Panics
    ///
    /// When there is no `nats-server`, or it does not start.
    pub async fn start() -> Self {
        Self::start_with(NatsConfig::default()).await
    }

    /// Starts such a server on a free port of 127.0.0.1.
    ///
    /// # Panics
    ///
    /// When there is no `nats-server`, or it does not start.
    pub async fn start_with(config: NatsConfig) -> Self {
        let directory = tempfile::tempdir().expect("a directory for the NATS server");
        let mut server = Self {
            config,
            directory,
            process: None,
            port: 0,
            monitoring: String::new(),
            websocket: None,
        };
        server.start_again().await;
        server
    }

    /// Where clients connect.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Where clients connect by WebSocket.
    ///
    /// # Panics
    ///
    /// When the server was configured without that.
    #[must_use]
    pub fn websocket_url(&self) -> &str {
        self.websocket.as_deref().expect("a server with a WebSocket listener")
    }

    /// All subjects that the server's clients are subscribed to now, as its monitoring tells, sorted.
    ///
    /// # Panics
    ///
    /// When monitoring does not answer.
    pub async fn subscriptions(&self) -> Vec<String> {
        let address = self.monitoring.parse().expect("an address for monitoring");
        // In HTTP/1.0, because a longer answer would come in chunks otherwise.
        let asked = b"GET /connz?subs=1&limit=1024 HTTP/1.0\r\n\r\n";
        let answer = crate::http::request(address, asked).await;
        let told: serde_json::Value =
            serde_json::from_str(&answer.body).expect("monitoring answers in JSON");
        let clients = told["connections"].as_array().expect("a list of connections");
        let lists = clients.iter().filter_map(|client| client["subscriptions_list"].as_array());
        let subjects = lists.flatten().filter_map(|subject| subject.as_str().map(str::to_owned));
        let mut subjects: Vec<String> = subjects.collect();
        subjects.sort();
        subjects
    }

    /// The certificates that the server was configured with.
    ///
    /// # Panics
    ///
    /// When it was configured without TLS.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        match &self.config.tls {
            Tls::Server(certificates) | Tls::Mutual(certificates) => certificates,
            Tls::Off => panic!("this server was started without TLS"),
        }
    }

    /// A client of an open server, for what a test does beside the program under test.
    ///
    /// # Panics
    ///
    /// When it cannot connect.
    pub async fn client(&self) -> nats::Client {
        nats::connect(self.url()).await.expect("a connection to the test's own server")
    }

    /// A client that logs in as one of the server's users, with inboxes that have this prefix.
    ///
    /// # Panics
    ///
    /// When it cannot connect.
    pub async fn client_as(&self, user: &str, password: &str, inbox: &str) -> nats::Client {
        nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
            .custom_inbox_prefix(inbox)
            .skip_subject_validation(true)
            .connect(self.url())
            .await
            .expect("the test's own server lets its user in")
    }

    /// The file to which the server writes what happens; it lives as long as this value.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.directory.path().join(LOG)
    }

    /// Ends the process as if the machine had lost power; what JetStream stored stays.
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("a process of ours");
            process.wait().expect("a process of ours");
        }
    }

    /// Ends the process and takes away what JetStream stored, as a restart without a volume does. Follow it with
    /// [`start_again`](Self::start_again).
    ///
    /// # Panics
    ///
    /// When the store cannot be removed.
    pub fn kill9_and_wipe(&mut self) {
        self.kill9();
        let store = self.directory.path().join("jetstream");
        if store.exists() {
            std::fs::remove_dir_all(store).expect("a store of ours");
        }
    }

    /// Freezes the process: connections stay open, and nothing answers. Returns when it stands still.
    ///
    /// # Panics
    ///
    /// When the process does not run.
    pub fn pause(&self) {
        let pid = self.signal(Signal::STOP);
        let stopped = waitpid(Some(pid), WaitOptions::UNTRACED).expect("a child of ours");
        assert!(stopped.is_some_and(|(_, status)| status.stopped()), "the server ended");
    }

    /// Thaws the process.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Changes the configuration for the next [`start_again`](Self::start_again).
    pub fn configure(&mut self, change: impl FnOnce(&mut NatsConfig)) {
        change(&mut self.config);
    }

    /// Starts the server on the port that it had, with what JetStream stored.
    ///
    /// # Panics
    ///
    /// When it runs already, or does not start.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "the server runs already");
        let directory = self.directory.path();
        let configuration = directory.join("nats.conf");
        std::fs::write(&configuration, self.config.text(directory, self.port))
            .expect("a writable directory");
        if let Auth::Users { permissions, .. } = &self.config.auth {
            let file = directory.join(config::PERMISSIONS);
            std::fs::write(file, permissions).expect("a writable directory");
        }
        let log = directory.join(LOG);
        let errors =
            std::fs::File::create(directory.join("nats.err")).expect("a writable directory");
        let process = Command::new(executable())
            .arg("--config")
            .arg(&configuration)
            .arg("--log")
            .arg(&log)
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .expect("nats-server can be started");
        let pid = process.id();
        self.process = Some(process);
        let mut ports = None;
        eventually("nats-server writes its ports file", || {
            if let Some(status) = self.process.as_mut().and_then(|p| p.try_wait().ok().flatten()) {
                let told = std::fs::read_to_string(&log).unwrap_or_default();
                let errors =
                    std::fs::read_to_string(directory.join("nats.err")).unwrap_or_default();
                panic!("nats-server ended with {status}:\n{told}{errors}");
            }
            ports = ports_file(directory, pid);
            ports.is_some()
        })
        .await;
        (self.port, self.monitoring, self.websocket) = ports.expect("ports were read");
    }

    /// Ends the process and starts it again.
    pub async fn restart(&mut self) {
        self.kill9();
        self.start_again().await;
    }

    fn signal(&self, signal: Signal) -> Pid {
        let process = self.process.as_ref().expect("the server runs");
        let pid = Pid::from_child(process);
        kill_process(pid, signal).expect("a process of ours");
        pid
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// The port for clients, the address for monitoring and the URL for WebSockets, if there is one, in the file that the
/// process writes, once it is whole.
fn ports_file(directory: &Path, pid: u32) -> Option<(u16, String, Option<String>)> {
    let suffix = format!("_{pid}.ports");
    let entry = std::fs::read_dir(directory)
        .ok()?
        .filter_map(Result::ok)
        .find(|entry| entry.file_name().to_string_lossy().ends_with(&suffix))?;
    let ports: Ports = serde_json::from_slice(&std::fs::read(entry.path()).ok()?).ok()?;
    let port = ports.nats.first()?.rsplit(':').next()?.parse().ok()?;
    let monitoring = ports.monitoring.first()?.strip_prefix("http://")?.to_owned();
    let websocket = ports.websocket.first().map(|url| format!("{url}/"));
    Some((port, monitoring, websocket))
}

/// The `nats-server` to run.
fn executable() -> PathBuf {
    if let Some(named) = std::env::var_os(SERVER_ENV) {
        let named = PathBuf::from(named);
        assert!(named.is_file(), "{SERVER_ENV} names {}, which is not a file", named.display());
        return named;
    }
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|directory| directory.join("nats-server"))
        .find(|file| file.is_file())
        .unwrap_or_else(|| {
            panic!(
                "this test needs a real nats-server, and there is none on the path: run it by `make test`, which gets \
                 one, or set {SERVER_ENV} to one (`go install github.com/nats-io/nats-server/v2@v2.15.2`)"
            )
        })
}
