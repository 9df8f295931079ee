//! A real Jaeger for one test: all of it in one process, in memory, on free ports, and gone when the test is.

use std::{
    net::SocketAddr,
    ops::Deref,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::PoisonError,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Certificates, eventually, log_lines::log_lines};

mod api;

pub use api::{JaegerApi, JaegerSpan};

/// Names the `jaeger` to run, when it is not on the path.
const PROGRAM_ENV: &str = "HUBBUB_JAEGER";

/// Port 0 takes any free one; the log tells which. Nothing is batched, so that what is taken can be found at once.
const CONFIG: &str = r"
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {receivers: [otlp], exporters: [jaeger_storage_exporter]}
  telemetry:
    metrics: {level: none}
    logs: {level: info, encoding: json}
extensions:
  jaeger_storage: {backends: {memory: {memory: {max_traces: 100000}}}}
  jaeger_query:
    storage: {traces: memory}
    http: {endpoint: '127.0.0.1:0'}
    grpc: {endpoint: '127.0.0.1:0'}
receivers:
  otlp:
    protocols:
      grpc: {endpoint: '127.0.0.1:0'{tls}}
      http: {endpoint: '127.0.0.1:0'{tls}}
exporters:
  jaeger_storage_exporter: {trace_storage: memory}
";

/// A running Jaeger, asked by [`JaegerApi`]. Dropping it kills the process.
#[derive(Debug)]
pub struct Jaeger {
    process: Child,
    _directory: TempDir,
    api: JaegerApi,
    grpc: SocketAddr,
    http: SocketAddr,
    scheme: &'static str,
}

impl Jaeger {
    /// Starts one on free ports of 127.0.0.1.
    ///
    /// # Panics
    ///
    /// When there is no `jaeger`, or it does not start.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// The same, with OTLP over TLS by the server's certificate of these.
    ///
    /// # Panics
    ///
    /// As [`Jaeger::start`].
    pub async fn start_with_tls(certificates: &Certificates) -> Self {
        Self::start_with(Some(certificates)).await
    }

    async fn start_with(certificates: Option<&Certificates>) -> Self {
        let directory = tempfile::tempdir().expect("a directory for Jaeger");
        let config = directory.path().join("jaeger.yaml");
        let tls = certificates.map_or_else(String::new, |certificates| {
            let (certificate, key) = (certificates.server(), certificates.server_key());
            format!(
                ", tls: {{cert_file: '{}', key_file: '{}'}}",
                certificate.display(),
                key.display()
            )
        });
        std::fs::write(&config, CONFIG.replace("{tls}", &tls)).expect("a file for Jaeger");
        let program =
            std::env::var_os(PROGRAM_ENV).map_or_else(|| PathBuf::from("jaeger"), PathBuf::from);
        let mut process = Command::new(&program)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "cannot start {} ({error}); set {PROGRAM_ENV}, as scripts/jaeger prints it",
                    program.display()
                )
            });
        let (log, _) = log_lines(&mut process);
        let (mut query, mut grpc, mut http) = (None, None, None);
        eventually("Jaeger serves", || {
            if let Ok(Some(status)) = process.try_wait() {
                let log = log.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
                panic!("Jaeger ended with {status}:\n{log}");
            }
            for line in log.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
                let address = |field: &str| line[field].as_str().and_then(|text| text.parse().ok());
                match line["msg"].as_str() {
                    Some("Query server started") => query = address("http_addr"),
                    Some("Starting GRPC server") => grpc = address("endpoint").or(grpc),
                    Some("Starting HTTP server") => http = address("endpoint").or(http),
                    _ => {}
                }
            }
            query.is_some() && grpc.is_some() && http.is_some()
        })
        .await;
        let told = |address: Option<SocketAddr>| address.expect("an address is told");
        Self {
            process,
            _directory: directory,
            api: JaegerApi::at(told(query)),
            grpc: told(grpc),
            http: told(http),
            scheme: if certificates.is_some() { "https" } else { "http" },
        }
    }

    /// Stops it in its tracks: connections stay, and nothing is answered until [`Jaeger::thaw`].
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    ///
    /// # Panics
    ///
    /// As [`Jaeger::freeze`].
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("Jaeger runs");
    }

    /// Where OTLP comes in over gRPC, as `OTEL_EXPORTER_OTLP_ENDPOINT` takes it.
    #[must_use]
    pub fn grpc(&self) -> String {
        format!("{}://{}", self.scheme, self.grpc)
    }

    /// The same over HTTP.
    #[must_use]
    pub fn http(&self) -> String {
        format!("{}://{}", self.scheme, self.http)
    }
}

impl Deref for Jaeger {
    type Target = JaegerApi;

    fn deref(&self) -> &JaegerApi {
        &self.api
    }
}

impl Drop for Jaeger {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
