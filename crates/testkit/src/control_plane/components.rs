//! The programs of a control plane: where they are, what they are started with, and one of them running.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::pki::Pki;

/// Names the folder with the programs.
const PROGRAMS_ENV: &str = "HUBBUB_CONTROL_PLANE";

/// The program of that name in the folder that the environment names, if it names one.
///
/// # Panics
///
/// When the folder has no such program.
pub(crate) fn named_program(name: &str) -> Option<PathBuf> {
    let program = PathBuf::from(std::env::var_os(PROGRAMS_ENV)?).join(name);
    assert!(program.is_file(), "{PROGRAMS_ENV}: there is no {}", program.display());
    Some(program)
}

/// The program of that name.
///
/// # Panics
///
/// When there is none.
pub(super) fn program(name: &str) -> PathBuf {
    named_program(name).unwrap_or_else(|| {
        panic!(
            "this test needs a real Kubernetes control plane: run it by `make integration`, which builds one once, or \
             set {PROGRAMS_ENV} to the folder that `scripts/control-plane` prints"
        )
    })
}

/// A running program, with all that it says in a file of its name. The watchdog ends it.
#[derive(Debug)]
pub(super) struct Component {
    pub(super) name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Component {
    pub(super) fn start(name: &'static str, home: &Path, arguments: Vec<OsString>) -> Self {
        let log = home.join(name).with_extension("log");
        let file = OpenOptions::new().create(true).append(true).open(&log);
        let file = file.expect("a writable directory");
        let mut command = Command::new(program(name));
        command.args(arguments).stdin(Stdio::null());
        command.stdout(file.try_clone().expect("a descriptor")).stderr(file);
        // Its end is the test's to decide, not that of a Ctrl-C in the terminal, which would race with it.
        let child = command.process_group(0).spawn();
        Self { name, child: child.expect("the program can be started"), log }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// # Panics
    ///
    /// When it has ended.
    pub(super) fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a child of ours") {
            panic!("it ended with {status}; {}", self.last_words());
        }
    }

    /// The last lines of its log, under its name.
    pub(super) fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(20)..].join("\n");
        format!("{}:\n{last}\n", self.name)
    }

    /// Freezes it. Returns when it stands still.
    pub(super) fn pause(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::STOP).expect("a process of ours");
        let stopped = waitpid(Some(pid), WaitOptions::UNTRACED).expect("a child of ours");
        assert!(stopped.is_some_and(|(_, status)| status.stopped()), "{} ended", self.name);
    }

    /// Thaws it.
    pub(super) fn resume(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).expect("a process of ours");
    }

    /// Ends it at once, if it has not ended yet.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Joins a flag and its value, which need not be UTF-8.
fn flag(name: &str, value: impl AsRef<Path>) -> OsString {
    let mut flag = OsString::from(format!("--{name}="));
    flag.push(value.as_ref());
    flag
}

fn socket(home: &Path, name: &str) -> String {
    format!("unix://{}", home.join(name).display())
}

/// Where etcd listens: a socket in the folder, so that there is no port that another could take or talk to.
pub(super) fn etcd_socket(home: &Path) -> PathBuf {
    home.join("etcd.sock")
}

pub(super) fn etcd(home: &Path) -> Vec<OsString> {
    let clients = socket(home, "etcd.sock");
    vec![
        flag("data-dir", home.join("etcd")),
        flag("listen-client-urls", &clients),
        flag("advertise-client-urls", &clients),
        flag("listen-peer-urls", socket(home, "peer.sock")),
        "--unsafe-no-fsync".into(), // nothing here outlives a power cut
        "--log-level=warn".into(),
    ]
}

pub(super) fn api_server(home: &Path, pki: &Pki, port: u16) -> Vec<OsString> {
    vec![
        flag("etcd-servers", socket(home, "etcd.sock")),
        "--bind-address=127.0.0.1".into(),
        "--advertise-address=127.0.0.1".into(),
        format!("--secure-port={port}").into(),
        "--permit-port-sharing".into(), // with the socket that keeps the port for it
        "--endpoint-reconciler-type=none".into(), // an endpoint on the loopback is refused
        "--service-cluster-ip-range=10.0.0.0/24".into(),
        "--authorization-mode=Node,RBAC".into(),
        flag("client-ca-file", pki.authority()),
        flag("tls-cert-file", pki.server()),
        flag("tls-private-key-file", pki.server_key()),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        flag("service-account-key-file", pki.token_public_key()),
        flag("service-account-signing-key-file", pki.token_key()),
        flag("audit-policy-file", home.join("audit-policy.yaml")),
        flag("audit-log-path", home.join("audit.log")),
    ]
}

pub(super) fn controller_manager(kubeconfig: &Path, pki: &Pki) -> Vec<OsString> {
    vec![
        flag("kubeconfig", kubeconfig),
        "--leader-elect=false".into(),
        "--secure-port=0".into(), // nobody asks it
        "--use-service-account-credentials".into(),
        flag("root-ca-file", pki.authority()),
        flag("service-account-private-key-file", pki.token_key()),
    ]
}
