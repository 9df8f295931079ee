//! Helm, as a user runs it.

use std::{path::PathBuf, process::Command};

use crate::world::variable;

/// See the module.
#[derive(Debug, Clone)]
pub struct Helm(PathBuf);

impl Helm {
    /// The one that `HUBBUB_HELM` names.
    ///
    /// # Panics
    ///
    /// When it names none.
    #[must_use]
    pub fn from_environment() -> Self {
        Self(variable("HUBBUB_HELM").into())
    }

    /// What it prints, warnings included.
    ///
    /// # Errors
    ///
    /// The same, when it fails.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub async fn try_run(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.command(arguments);
        let ended = tokio::task::spawn_blocking(move || command.output()).await;
        let output = ended.expect("waiting does not panic").expect("helm can be started");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        if output.status.success() { Ok(text) } else { Err(text) }
    }

    /// A process that is yet to be started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.0);
        command.args(arguments);
        command
    }

    /// What it prints, warnings included.
    ///
    /// # Panics
    ///
    /// When it fails, with what it says.
    pub async fn run(&self, arguments: &[&str]) -> String {
        let ran = self.try_run(arguments).await;
        ran.unwrap_or_else(|error| panic!("helm {arguments:?}: {error}"))
    }
}
