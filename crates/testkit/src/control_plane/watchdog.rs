//! Ends what a test started when the test itself cannot any more: killed, interrupted, or done with a value in a `static`.
//!
//! A shell reads from a pipe whose other end this process alone holds. Each line is the list of processes to end; when
//! the pipe closes, for whatever reason, the shell ends them and removes the folder.

use std::{
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

const SCRIPT: &str =
    r#"while read -r line; do pids=$line; done; [ -z "$pids" ] || kill -9 $pids; rm -rf "$1""#;

/// See the module.
#[derive(Debug)]
pub(super) struct Watchdog(Child);

impl Watchdog {
    /// Watches over this process's end; `folder` is then removed.
    pub(super) fn start(folder: &Path) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "watchdog"]).arg(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // In a group of its own, so that Ctrl-C in a terminal ends the test and not its watchdog.
        Self(command.process_group(0).spawn().expect("a shell can be started"))
    }

    /// Says which processes are to be ended from now on.
    pub(super) fn watch(&mut self, pids: impl Iterator<Item = u32>) {
        let line: Vec<String> = pids.map(|pid| pid.to_string()).collect();
        let pipe = self.0.stdin.as_mut().expect("a pipe was asked for");
        // One that was dismissed does not listen any more.
        let _ = writeln!(pipe, "{}", line.join(" "));
    }

    /// Calls it off: nothing is ended or removed.
    pub(super) fn dismiss(&mut self) {
        let _ = self.0.kill();
    }
}

impl Drop for Watchdog {
    /// Lets it do its work, and waits until it has.
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
