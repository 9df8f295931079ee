//! The operator's program as a process of the test's own, in the name of a service account.

use std::{
    ffi::OsStr,
    process::{Child, Command, ExitStatus, Stdio},
};

use hubbub_testkit::eventually;
use rustix::process::{Pid, Signal, kill_process};

use super::Place;

/// A running operator; dropped, it is killed.
pub(crate) struct OperatorProcess {
    command: Command,
    child: Child,
    log: tempfile::NamedTempFile,
    _files: tempfile::TempDir,
}

impl OperatorProcess {
    /// Starts it as that account of the release's namespace.
    pub(crate) async fn start(world: &Place, account: &str, identity: &str) -> Self {
        Self::start_with(world, account, identity, &[]).await
    }

    /// The same with further arguments.
    pub(crate) async fn start_with(
        world: &Place,
        account: &str,
        identity: &str,
        more: &[&str],
    ) -> Self {
        Self::start_in(world, account, identity, more, &[]).await
    }

    /// The same with variables of the environment.
    pub(crate) async fn start_in(
        world: &Place,
        account: &str,
        identity: &str,
        more: &[&str],
        variables: &[(&str, &OsStr)],
    ) -> Self {
        let files = tempfile::tempdir().unwrap();
        let (kubeconfig, settings) =
            (files.path().join("kubeconfig"), files.path().join("settings.yaml"));
        let access = world.kubectl().service_account_kubeconfig(&world.home, account).await;
        std::fs::write(&kubeconfig, access).unwrap();
        let url = world.nats.url();
        let text = format!(
            "nats: {{url: '{url}'}}\npools: {{default: {{min: 1, image: 'hubbub-gateway:test'}}}}\n"
        );
        std::fs::write(&settings, text).unwrap();
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hubbub-operator"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HUBBUB_") {
                command.env_remove(name);
            }
        }
        command
            .env("KUBECONFIG", kubeconfig)
            .envs(variables.iter().copied())
            .args(["--nats", &url, "--namespace", &world.home, "--identity", identity])
            .args(["--admin-listen", "127.0.0.1:0", "--log-format", "json", "--config"])
            .arg(settings)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.reopen().unwrap());
        let child = command.spawn().unwrap();
        Self { command, child, log, _files: files }
    }

    /// Starts it again as it was, after its end.
    pub(crate) fn start_again(&mut self) {
        self.child = self.command.spawn().unwrap();
    }

    /// Waits until it has logged that message.
    pub(crate) async fn says(&self, message: &str) {
        let wanted = format!("\"message\":\"{message}\"");
        eventually(&format!("the operator says {message:?}"), || self.log().contains(&wanted))
            .await;
    }

    /// Where its probes and metrics are, once it has said so.
    pub(crate) fn admin(&self) -> std::net::SocketAddr {
        let log = self.log();
        let line = log.lines().find(|line| line.contains("\"message\":\"started\"")).unwrap();
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let admin = line["admin"].as_str().or_else(|| line["fields"]["admin"].as_str());
        admin.unwrap_or_else(|| panic!("{line}")).parse().unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub(crate) fn kill(self) {
        self.signal(Signal::KILL);
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Seconds of a processor that it has used so far.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Behind the name, which may hold anything: user and system time are the 12th and 13th.
        let numbers = stat.rsplit_once(") ").unwrap().1;
        let ticks = numbers.split(' ').skip(11).take(2).map(|n| n.parse::<u64>().unwrap());
        let each = rustix::param::clock_ticks_per_second();
        ticks.sum::<u64>() as f64 / each as f64
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the operator ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for OperatorProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the operator said:\n{}", self.log());
        }
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
