//! A real Centrifugo for one test, on a free port of this machine, and gone when the test is.

use std::{
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
};

use hubbub_testkit::eventually;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) struct Centrifugo {
    process: Child,
    port: u16,
    _directory: TempDir,
}

impl Centrifugo {
    /// One with `rules` for clients and `channels`, which pings each second.
    pub(crate) async fn start(mut rules: Value, channels: Value) -> Self {
        rules["ping_interval"] = "1s".into();
        rules["pong_timeout"] = "500ms".into();
        let program = std::env::var_os("HUBBUB_CENTRIFUGO").unwrap_or_else(|| "centrifugo".into());
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("centrifugo.json");
        loop {
            // It takes no port 0, so another process may come first, and then the next port is tried.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let configuration = json!({
                "http_server": { "address": "127.0.0.1", "port": port.to_string() },
                "log": { "level": "error" },
                "client": rules,
                "channel": { "without_namespace": channels },
            });
            std::fs::write(&file, configuration.to_string()).unwrap();
            let mut process = Command::new(&program)
                .args(["--config".as_ref(), file.as_os_str()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| {
                    panic!(
                        "cannot start {} ({error}); set HUBBUB_CENTRIFUGO, as scripts/centrifugo prints it",
                        program.display()
                    )
                });
            let mut ended = false;
            eventually("Centrifugo listens, or could not", || {
                ended = process.try_wait().unwrap().is_some();
                ended || TcpStream::connect(("127.0.0.1", port)).is_ok()
            })
            .await;
            if !ended {
                return Self { process, port, _directory: directory };
            }
        }
    }

    /// One where anybody may do what a member of a room does.
    pub(crate) async fn open() -> Self {
        let rules = json!({ "allow_anonymous_connect_without_token": true });
        Self::start(rules, anybody_may(&["subscribe_for_anonymous", "publish_for_anonymous"])).await
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/connection/websocket", self.port)
    }

    /// Asks it to end, as Kubernetes would.
    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
    }
}

/// What clients may do in channels, beside these: to publish and subscribe when they are known.
pub(crate) fn anybody_may(what: &[&str]) -> Value {
    let mut rules = json!({ "allow_subscribe_for_client": true, "allow_publish_for_client": true });
    for rule in what {
        rules[format!("allow_{rule}")] = true.into();
    }
    rules
}

impl Drop for Centrifugo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
