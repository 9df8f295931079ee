//! What the program says when it cannot start: one sentence with a remedy, each cause once, and 2 as its exit code where no
//! restart mends it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

const LEAST: &str = "nats: {url: 'nats://nats'}\npools: {default: {image: a}}\n";

/// Standard error and exit code of an operator that is given these settings and arguments.
fn start(settings: &str, kubeconfig: Option<&str>, more: &[&str]) -> (String, i32) {
    let folder = tempfile::tempdir().unwrap();
    let (file, access) = (folder.path().join("settings.yaml"), folder.path().join("kubeconfig"));
    std::fs::write(&file, settings).unwrap();
    // Of a server that nobody has to reach: the start ends before.
    let known = "{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a, user: a}}],
        clusters: [{name: a, cluster: {server: 'https://192.0.2.1'}}], users: [{name: a, user: {}}]}";
    std::fs::write(&access, kubeconfig.unwrap_or(known)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hubbub-operator"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HUBBUB_") {
            command.env_remove(name);
        }
    }
    // The default port may be taken.
    command.env("HUBBUB_ADMIN_LISTEN", "127.0.0.1:0");
    command.env("KUBECONFIG", access).arg("--config").arg(&file).args(more);
    let ended = command.output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    (said.replace(&*file.to_string_lossy(), "FILE"), ended.status.code().unwrap())
}

const NATS: [&str; 2] = ["--nats", "nats://127.0.0.1:4222"];

#[test]
fn wrong_settings_are_told_with_file_field_and_remedy() {
    for (settings, words) in [
        (
            "nats: {url: 'http://nats'}\npools: {default: {image: a}}",
            "hubbub-operator: the settings FILE are not in order: nats.url: http://nats is not a NATS URL (cannot be \
             read): write nats://host:port or tls://host:port\n",
        ),
        (
            "nats: {url: x}\npools: {default: {image: a, resources: {limits: {memory: lots}}}}",
            "hubbub-operator: the settings FILE are not in order: pools.default.resources.limits.memory: \"lots\" is not \
             a quantity: write such as 500m, 2, 64Mi or 1Gi\n",
        ),
        (
            "nats: {uri: x}",
            "hubbub-operator: the settings FILE are not in order: line 1: uri is not a setting: did you mean url?\n",
        ),
    ] {
        assert_eq!(start(settings, None, &NATS), (words.to_owned(), 2));
    }
}

#[test]
fn whatever_is_wrong_is_told_once_and_no_restart_is_worth_it() {
    let missing = ["--config", "/nonexistent/settings.yaml"];
    for (kubeconfig, arguments, words) in [
        (None, &[][..], "--nats is missing"),
        (None, &["--nats", "nats//nats"], "something follows the host"),
        (None, &["--nats", "nats://a", "--log", "a=b=c"], "a=b=c"),
        (Some("]"), &NATS, "no way to an API server"),
        (None, &["--nats", "nats://a", "--nats-ca", "/nonexistent/ca"], "No such file"),
        (None, &["--namespace", "A_b"], "DNS label"),
    ] {
        let (said, code) = start(LEAST, kubeconfig, arguments);
        assert!(said.contains(words) && code == 2, "{code}: {said}");
        assert!(!said.contains("Some(") && !said.contains(" { "), "no dumps: {said}");
        let mut parts: Vec<_> = said.trim().split(": ").filter(|part| part.len() > 12).collect();
        let all = parts.len();
        parts.sort_unstable();
        parts.dedup();
        assert_eq!(parts.len(), all, "each cause once: {said}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_hubbub-operator"));
    let ended = command.args(missing).args(NATS).output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(2), "{said}");
}

#[test]
fn a_port_that_is_taken_may_be_free_the_next_time() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (said, code) = start(LEAST, None, &[&NATS[..], &["--admin-listen", &address]].concat());
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("--admin-listen") && said.matches("in use").count() == 1, "{said}");
}

#[test]
fn permissions_are_printed_for_both_ways_to_make_users() {
    let print = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hubbub-operator"));
        let ended = command.arg("nats-permissions").args(more).output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        String::from_utf8(ended.stdout).unwrap()
    };
    let conf = print(&[]);
    assert_eq!(conf, print(&["--format", "conf"]));
    assert!(
        conf.contains("\nhubbub_gateway: {") && conf.contains("\nhubbub_operator: {"),
        "{conf}"
    );
    assert!(conf.contains("\"hubbub.report.*.*\""), "{conf}");
    let nsc = print(&["--format", "nsc", "--pools", "busy,quiet"]);
    assert!(nsc.contains("nsc add user --name hubbub-operator"), "{nsc}");
    assert!(nsc.contains(",hubbub.report.busy.*,hubbub.report.quiet.*,"), "{nsc}");
}

#[test]
fn the_help_is_that_of_the_operator() {
    let help = Command::new(env!("CARGO_BIN_EXE_hubbub-operator")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        help.contains("--nats <URL>")
            && help.contains("gateways are told of rooms over them")
            && !help.contains("this gateway"),
        "{help}"
    );
}
