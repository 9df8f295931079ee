//! A real Prometheus for one test: on a free port, with what it scrapes, and gone when the test is.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::PoisonError,
    time::Instant,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{GIVE_UP, eventually, log_lines::log_lines};

/// Names the folder with `prometheus` and `promtool`, when they are not on the path.
const FOLDER_ENV: &str = "HUBBUB_PROMETHEUS";

/// How often targets are scraped: often, so that a test need not wait.
const INTERVAL: &str = "200ms";

/// A running Prometheus. Dropping it kills the process.
#[derive(Debug)]
pub struct Prometheus {
    process: Child,
    _directory: TempDir,
    address: SocketAddr,
}

/// What is scraped.
#[derive(Debug, Clone)]
pub struct Target {
    /// The job.
    pub job: &'static str,
    /// Where `/metrics` is.
    pub address: SocketAddr,
    /// Labels that all its series get, such as the namespace and the pod.
    pub labels: Vec<(&'static str, String)>,
}

/// One series of an answer: its labels, and its last value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its labels, with its name as `__name__` if it has one.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// Where that program of Prometheus is.
#[must_use]
pub fn prometheus_program(name: &str) -> PathBuf {
    std::env::var_os(FOLDER_ENV).map_or_else(PathBuf::new, PathBuf::from).join(name)
}

impl Prometheus {
    /// Starts one on a free port of 127.0.0.1, with these targets and the rules of that file.
    ///
    /// # Panics
    ///
    /// When there is no `prometheus`, or it does not start.
    pub async fn start(targets: &[Target], rules: &Path) -> Self {
        let directory = tempfile::tempdir().expect("a directory for Prometheus");
        let jobs: Vec<Value> = targets
            .iter()
            .map(|target| {
                let labels: BTreeMap<_, _> = target.labels.iter().cloned().collect();
                let targets = [target.address.to_string()];
                // A job of its own for each target, because a name may stand there once; the label is set anew.
                json!({
                    "job_name": format!("{}-{}", target.job, target.address),
                    "static_configs": [{"targets": targets, "labels": labels}],
                    "relabel_configs": [{"target_label": "job", "replacement": target.job}],
                })
            })
            .collect();
        let config = json!({
            "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
            "rule_files": [rules],
            // How many are kept; the flag alone keeps none.
            "storage": {"exemplars": {"max_exemplars": 10_000}},
            "scrape_configs": jobs,
        });
        let file = directory.path().join("prometheus.yaml");
        // JSON is YAML.
        std::fs::write(&file, config.to_string()).expect("a file for Prometheus");
        let program = prometheus_program("prometheus");
        let mut process = Command::new(&program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .args(["--web.listen-address=127.0.0.1:0", "--log.format=json"])
            .arg("--enable-feature=exemplar-storage")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "cannot start {} ({error}); set {FOLDER_ENV}, as scripts/prometheus prints it",
                    program.display()
                )
            });
        let (log, _) = log_lines(&mut process);
        let mut address = None;
        eventually("Prometheus serves", || {
            let log = log.lock().unwrap_or_else(PoisonError::into_inner);
            if let Ok(Some(status)) = process.try_wait() {
                panic!("Prometheus ended with {status}:\n{}", log.join("\n"));
            }
            let said = |message: &str| {
                let lines = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
                lines.into_iter().find(|line| line["msg"] == message)
            };
            let listening = said("Listening on");
            address = listening.and_then(|line| line["address"].as_str()?.parse().ok());
            address.is_some() && said("Server is ready to receive web requests.").is_some()
        })
        .await;
        Self { process, _directory: directory, address: address.expect("an address is told") }
    }

    /// What an expression comes to now.
    ///
    /// # Panics
    ///
    /// When the expression is wrong, or there is no answer.
    pub async fn query(&self, expression: &str) -> Vec<Sample> {
        let data = self.ask("query", &[("query", expression)]).await;
        let list = data["result"].as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|series| Sample {
                labels: serde_json::from_value(series["metric"].clone()).expect("labels"),
                value: series["value"][1].as_str().and_then(|v| v.parse().ok()).expect("a value"),
            })
            .collect()
    }

    /// Waits until what an expression comes to is as wanted, and gives it.
    ///
    /// # Panics
    ///
    /// When it never is, with the last answer.
    pub async fn until(&self, expression: &str, wanted: impl Fn(&[Sample]) -> bool) -> Vec<Sample> {
        let begun = Instant::now();
        loop {
            let found = self.query(expression).await;
            if wanted(&found) {
                return found;
            }
            assert!(begun.elapsed() < GIVE_UP, "gave up waiting for {expression}: {found:#?}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// What the HTTP API answers at that path of `/api/v1/`, with these parameters.
    ///
    /// # Panics
    ///
    /// When it is no success.
    pub async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let mut query = String::new();
        for (name, value) in parameters {
            // Writing to a string cannot fail.
            let _ = write!(query, "{name}={}&", crate::http::encoded(value));
        }
        // In HTTP/1.0, because a longer answer would come in chunks otherwise.
        let request = format!("GET /api/v1/{path}?{query} HTTP/1.0\r\n\r\n");
        let answer = crate::http::request(self.address, request.as_bytes()).await;
        let body: Value = serde_json::from_str(&answer.body)
            .unwrap_or_else(|_| panic!("no JSON: {} {}", answer.status, answer.body));
        assert_eq!(body["status"], "success", "{path} {parameters:?}: {body}");
        body["data"].clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
