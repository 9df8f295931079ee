//! `kubectl` against one cluster.

use std::{
    io::{Seek as _, Write as _},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

/// See the module.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    options: Vec<String>,
}

impl Kubectl {
    /// A `kubectl` that is always given these options.
    pub(crate) fn new(program: PathBuf, options: Vec<String>) -> Self {
        Self { program, options }
    }

    /// What it prints.
    ///
    /// # Panics
    ///
    /// When it fails, with what it says.
    pub async fn run(&self, arguments: &[&str]) -> String {
        self.try_run(arguments)
            .await
            .unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
    }

    /// What it prints, as JSON. Asks for that by `--output=json`.
    ///
    /// # Panics
    ///
    /// When it fails, with what it says.
    pub async fn json(&self, arguments: &[&str]) -> Value {
        let printed = self.run(&[arguments, &["--output=json"]].concat()).await;
        serde_json::from_str(&printed).expect("kubectl prints JSON")
    }

    /// Applies these manifests by the server.
    ///
    /// # Panics
    ///
    /// When it fails, with what it says.
    pub async fn apply(&self, manifests: &str) -> String {
        let arguments = ["apply", "--server-side", "--filename=-"];
        let applied = self.try_feed(&arguments, manifests).await;
        applied.unwrap_or_else(|error| panic!("kubectl apply: {error}\n{manifests}"))
    }

    /// What it prints.
    ///
    /// # Errors
    ///
    /// What it says when it fails.
    pub async fn try_run(&self, arguments: &[&str]) -> Result<String, String> {
        self.try_feed(arguments, "").await
    }

    /// What it prints when it is given that on its standard input.
    ///
    /// # Errors
    ///
    /// What it says when it fails.
    pub async fn try_feed(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(input.as_bytes()).expect("a temporary file can be written");
        file.rewind().expect("a temporary file can be read");
        let mut command = self.command(arguments);
        command.stdin(Stdio::from(file));
        let ended = tokio::task::spawn_blocking(move || command.output()).await;
        let Output { status, stdout, stderr } =
            ended.expect("waiting does not panic").expect("kubectl can be started");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if status.success() { Ok(text(&stdout)) } else { Err(text(&stderr)) }
    }

    /// A kubeconfig in JSON (which is YAML) for this very user, in one piece.
    ///
    /// # Panics
    ///
    /// When there is no cluster to be reached.
    pub async fn kubeconfig(&self) -> String {
        self.json(&["config", "view", "--raw", "--minify", "--flatten"]).await.to_string()
    }

    /// A kubeconfig in JSON (which is YAML) by which a program is that service account, with a token for an hour.
    ///
    /// # Panics
    ///
    /// When there is no such account.
    pub async fn service_account_kubeconfig(&self, namespace: &str, account: &str) -> String {
        let namespaced = format!("--namespace={namespace}");
        let token = self.run(&["create", "token", account, &namespaced, "--duration=1h"]).await;
        let admin = self.json(&["config", "view", "--raw", "--minify", "--flatten"]).await;
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": account,
            "contexts": [{"name": account, "context": {
                "cluster": account, "user": account, "namespace": namespace,
            }}],
            "clusters": [{"name": account, "cluster": admin["clusters"][0]["cluster"]}],
            "users": [{"name": account, "user": {"token": token.trim()}}],
        })
        .to_string()
    }

    /// A `kubectl` process that is yet to be started.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // Preferences of the person at the machine would change what it does.
        command.env("KUBERC", "off").args(&self.options).args(arguments);
        command
    }
}
