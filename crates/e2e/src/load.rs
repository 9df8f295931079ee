//! `hubbub-load`, which holds many members from outside the cluster and verifies what they hear.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::world::variable;

/// A load that runs. Dropped, it ends.
#[derive(Debug)]
pub struct Load {
    child: Child,
    report: tempfile::NamedTempFile,
}

impl Load {
    /// Starts the program that `HUBBUB_LOAD` names.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    pub fn start(url: &str, arguments: &[&str]) -> Self {
        let report = tempfile::NamedTempFile::new().expect("a temporary file");
        let mut command = Command::new(variable("HUBBUB_LOAD"));
        command.arg(url).args(arguments).arg("--json").arg(report.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = command.spawn().expect("hubbub-load can be started");
        Self { child, report }
    }

    /// Whether it still runs.
    ///
    /// # Panics
    ///
    /// When that cannot be told.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// Its report, when it has ended.
    ///
    /// # Panics
    ///
    /// When it wrote none.
    pub async fn report(mut self) -> Value {
        while self.runs() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let text = std::fs::read_to_string(self.report.path()).expect("a report");
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("the report of hubbub-load: {error}: {text}"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It has mostly ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
