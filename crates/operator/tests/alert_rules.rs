//! The alerts of the chart, by Prometheus' own promtool: each fires where it should and not where it should not. Each has a
//! runbook, and what it looks at is in the table of metrics.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Command,
};

use hubbub_testkit::prometheus_program;
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_yaml::from_str(&read(path)).unwrap()
}

fn promtool(arguments: &[&str]) {
    let program = prometheus_program("promtool");
    let output = Command::new(&program)
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "cannot start {}: {error}; set HUBBUB_PROMETHEUS, as scripts/prometheus prints it",
                program.display()
            )
        });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "promtool {arguments:?}:\n{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

const RULES: &str = "charts/hubbub/files/alerts.yaml";
const TESTS: &str = "tests/prometheus";

fn alerts() -> Vec<Value> {
    yaml(RULES)["groups"][0]["rules"].as_array().unwrap().clone()
}

/// The files of tests, from the root: one for each part of the rules.
fn tests() -> Vec<String> {
    let entries = std::fs::read_dir(root().join(TESTS)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut tests: Vec<String> = names
        .filter(|name| name.ends_with("_test.yaml"))
        .map(|name| format!("{TESTS}/{name}"))
        .collect();
    tests.sort();
    assert!(!tests.is_empty(), "{TESTS} has no tests");
    tests
}

#[test]
fn promtool_finds_the_rules_in_order_and_each_does_what_its_tests_say() {
    promtool(&["check", "rules", RULES]);
    for tests in tests() {
        promtool(&["test", "rules", &tests]);
    }
}

#[test]
fn the_recording_rules_of_the_page_are_in_order() {
    let page = read("docs/metrics.md");
    let (_, rules) = page.split_once("```yaml\n").unwrap();
    let (rules, _) = rules.split_once("```").unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rules).unwrap();
    promtool(&["check", "rules", file.path().to_str().unwrap()]);
}

#[test]
fn each_alert_is_tried_where_it_fires_and_where_it_does_not() {
    let mut tried: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
    let tests =
        tests().into_iter().flat_map(|file| yaml(&file)["tests"].as_array().unwrap().clone());
    for test in tests {
        for case in test["alert_rule_test"].as_array().unwrap() {
            let name = case["alertname"].as_str().unwrap().to_owned();
            let fires = !case["exp_alerts"].as_array().unwrap().is_empty();
            tried.entry(name).or_default().insert(fires);
        }
    }
    let both = BTreeSet::from([false, true]);
    let wanted: BTreeMap<String, BTreeSet<bool>> = alerts()
        .iter()
        .map(|alert| (alert["alert"].as_str().unwrap().to_owned(), both.clone()))
        .collect();
    assert_eq!(tried, wanted);
}

#[test]
fn each_alert_has_its_runbook_and_looks_at_metrics_that_there_are() {
    let runbooks = read("docs/operations.md");
    let table = read("docs/metrics.md");
    let known: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split('`').next())
        .collect();
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        let url = alert["annotations"]["runbook_url"].as_str().unwrap();
        let place = format!("docs/operations.md#{}", name.to_lowercase());
        assert!(url.ends_with(&place), "{name}: {url}");
        assert!(runbooks.contains(&format!("\n### {name}\n")), "{name} has no runbook");
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        let expression = alert["expr"].as_str().unwrap();
        let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let metrics: Vec<&str> = words.filter(|word| word.starts_with("hubbub_")).collect();
        assert!(!metrics.is_empty(), "{name}: {expression}");
        for metric in metrics {
            let whole = metric.trim_end_matches("_bucket");
            assert!(known.contains(whole), "{name} looks at {metric}, which docs/metrics.md lacks");
        }
    }
    for section in runbooks.lines().filter_map(|line| line.strip_prefix("### Hubbub")) {
        let name = format!("Hubbub{section}");
        assert!(alerts().iter().any(|alert| alert["alert"] == name.as_str()), "no alert {name}");
    }
}
