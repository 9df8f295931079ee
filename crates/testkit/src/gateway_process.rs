//! The real gateway program as a process of the test's own.

use std::{
    ffi::OsStr,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::PoisonError,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use serde_json::Value;

use crate::{
    GIVE_UP, eventually,
    log_lines::{LogLines, log_lines},
};

/// A running gateway; dropped, it is killed.
#[derive(Debug)]
pub struct GatewayProcess {
    child: Child,
    log: LogLines,
    reader: Option<JoinHandle<()>>,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl GatewayProcess {
    /// Starts `program` (`env!("CARGO_BIN_EXE_hubbub-gateway")`) on free ports of 127.0.0.1 with further arguments,
    /// and waits until it serves. `--log debug` is given, so that its log lines tell each connection.
    ///
    /// # Panics
    ///
    /// When it does not come to serve, with its log.
    pub async fn start<S: AsRef<OsStr>>(program: impl AsRef<Path>, arguments: &[S]) -> Self {
        Self::start_with(program, arguments, &[]).await
    }

    /// The same with variables of the environment, such as `OTEL_EXPORTER_OTLP_ENDPOINT`.
    ///
    /// # Panics
    ///
    /// As [`GatewayProcess::start`].
    pub async fn start_with<S: AsRef<OsStr>>(
        program: impl AsRef<Path>,
        arguments: &[S],
        variables: &[(&str, &str)],
    ) -> Self {
        let mut command = Command::new(program.as_ref());
        command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command.args(["--log", "info,hubbub_gateway=debug", "--log-format", "json"]);
        command.args(arguments).envs(variables.iter().copied());
        Self::start_command(command).await
    }

    /// Starts a command that runs the gateway, such as one that puts it into a cage first.
    ///
    /// # Panics
    ///
    /// When it does not come to serve, with its log.
    pub async fn start_command(mut command: Command) -> Self {
        let given: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
        for (name, _) in std::env::vars_os() {
            let known = ["HUBBUB_", "OTEL_"].iter().any(|p| name.to_string_lossy().starts_with(p));
            if known && !given.contains(&name) {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the gateway's program can be started");
        let (log, reader) = log_lines(&mut child);
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut process =
            Self { child, log, reader: Some(reader), listen: nowhere, admin: nowhere };
        let mut serving = None;
        eventually("the gateway serves", || {
            serving = process.find("serving");
            if serving.is_none()
                && let Ok(Some(status)) = process.child.try_wait()
            {
                panic!("the gateway ended with {status}:\n{}", process.log().join("\n"));
            }
            serving.is_some()
        })
        .await;
        let line = serving.expect("a line was found");
        let address = |field: &str| {
            line[field].as_str().and_then(|text| text.parse().ok()).expect("an address is told")
        };
        process.listen = address("listen");
        process.admin = address("admin");
        process
    }

    /// Where members come in.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where probes, metrics and the drain hook come in.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All log lines so far.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All log lines so far with this message, as JSON.
    #[must_use]
    pub fn find_all(&self, message: &str) -> Vec<Value> {
        let parsed = self.log().into_iter().filter_map(|line| serde_json::from_str(&line).ok());
        parsed.filter(|line: &Value| line["message"] == message).collect()
    }

    /// The first log line with this message, as JSON.
    #[must_use]
    pub fn find(&self, message: &str) -> Option<Value> {
        self.find_all(message).into_iter().next()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends any signal.
    ///
    /// # Panics
    ///
    /// When the process is gone already.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the gateway runs");
    }

    /// Waits for its end and for the last of its log.
    ///
    /// # Panics
    ///
    /// When it does not end.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the gateway ends", || {
            status = self.child.try_wait().expect("a child of ours");
            status.is_some()
        })
        .await;
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log can be read");
        }
        status.expect("it has ended")
    }

    /// The value of a metric by its whole name and labels as they are written, such as
    /// `hubbub_gateway_connections`; 0 when it is not there.
    ///
    /// # Panics
    ///
    /// When the admin port does not answer.
    pub async fn metric(&self, name: &str) -> f64 {
        let answer = crate::http::get(self.admin, "/metrics").await;
        let value = answer.body.lines().find_map(|line| {
            let (metric, value) = line.rsplit_once(' ')?;
            (metric == name).then(|| value.parse().expect("a number"))
        });
        value.unwrap_or(0.0)
    }

    /// Waits until that metric has such a value, and gives it.
    ///
    /// # Panics
    ///
    /// When it never has, with the last value.
    pub async fn metric_until(&self, name: &str, holds: impl Fn(f64) -> bool) -> f64 {
        let begun = Instant::now();
        loop {
            let value = self.metric(name).await;
            if holds(value) {
                return value;
            }
            assert!(begun.elapsed() < GIVE_UP, "gave up waiting: {name} is {value}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Resident memory in bytes.
    ///
    /// # Panics
    ///
    /// When the process is gone.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("the gateway runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes =
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kilobytes.expect("a size in kB") * 1024
    }
}

impl Drop for GatewayProcess {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The gateway's program for tests of other crates: that of `HUBBUB_GATEWAY`, or the one that is built beside them.
///
/// # Panics
///
/// When it is not there.
#[must_use]
pub fn gateway_program() -> PathBuf {
    if let Some(named) = std::env::var_os("HUBBUB_GATEWAY") {
        return named.into();
    }
    let test = std::env::current_exe().expect("a test is a program");
    let folder = test.parent().and_then(Path::parent).expect("it lies in a folder of the build's");
    let program = folder.join("hubbub-gateway");
    assert!(program.is_file(), "there is no {}: run `make build`", program.display());
    program
}

/// Lets this process have as many files open as the system allows: a test with thousands of clients needs more than the
/// usual 1,024.
///
/// # Panics
///
/// When the system refuses.
pub fn raise_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .expect("the soft limit can be raised to the hard one");
}
