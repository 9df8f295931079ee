//! What a program exposes, in OpenMetrics' text, and whether `docs/metrics.md` says the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
};

/// Set, it has the table written anew instead of compared.
const WRITE: &str = "HUBBUB_WRITE_METRICS";

/// Labels whose values are names that somebody chose: all others have the values that the table lists.
const NAMES: [&str; 4] = ["namespace", "room", "pool", "version"];

/// A metric with all its series.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Metric {
    kind: String,
    unit: String,
    help: String,
    /// By label, its values.
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// The metrics of a scrape, by the name that a query takes.
pub(crate) fn families(text: &str) -> BTreeMap<String, Metric> {
    let mut found: BTreeMap<String, Metric> = BTreeMap::new();
    let mut family = String::new();
    for line in text.lines().filter(|line| !line.is_empty() && *line != "# EOF") {
        let comment = line.strip_prefix("# ").and_then(|line| {
            let mut words = line.splitn(3, ' ');
            Some((words.next()?, words.next()?, words.next()?))
        });
        let Some((what, name, value)) = comment else {
            series(line, &family, found.get_mut(&family).unwrap_or_else(|| panic!("{line}")));
            continue;
        };
        match what {
            "HELP" => {
                name.clone_into(&mut family);
                let help = value.trim_end_matches('.').to_owned();
                let before = found.insert(family.clone(), Metric { help, ..Metric::default() });
                assert_eq!(before, None, "{name} is there twice");
            }
            "TYPE" => value.clone_into(&mut found.get_mut(name).unwrap().kind),
            "UNIT" => value.clone_into(&mut found.get_mut(name).unwrap().unit),
            other => panic!("what is {other}?"),
        }
    }
    let named = |name: String, metric: &Metric| match metric.kind.as_str() {
        "counter" => format!("{name}_total"),
        "info" => format!("{name}_info"),
        _ => name,
    };
    found.into_iter().map(|(name, metric)| (named(name, &metric), metric)).collect()
}

fn series(line: &str, family: &str, metric: &mut Metric) {
    assert!(line.starts_with(family), "{line} is not of {family}");
    let line = line.split(" # ").next().unwrap();
    let Some((_, labels)) = line.split_once('{') else { return };
    let labels = labels.rsplit_once('}').unwrap().0;
    for (label, value) in labels.split("\",").filter_map(|pair| pair.split_once("=\"")) {
        if label != "le" {
            let values = metric.labels.entry(label.to_owned()).or_default();
            values.insert(value.trim_end_matches('"').to_owned());
        }
    }
}

/// The table of `docs/metrics.md` is what these scrapes of the programs show, each metric with its type, labels, unit and help.
pub(crate) fn is_written_down(root: &Path, scrapes: &[&str]) {
    let path = root.join("docs/metrics.md");
    let mut page = std::fs::read_to_string(&path).unwrap();
    for scrape in scrapes {
        let metrics = families(scrape);
        let program = metrics.keys().next().unwrap().split('_').nth(1).unwrap();
        let (begin, end) =
            (format!("<!-- {program}: begin -->\n"), format!("<!-- {program}: end -->\n"));
        let from = page.find(&begin).unwrap_or_else(|| panic!("no {begin}")) + begin.len();
        let to = page.find(&end).unwrap_or_else(|| panic!("no {end}"));
        let table = table(&metrics);
        if std::env::var_os(WRITE).is_some() {
            page.replace_range(from..to, &table);
            std::fs::write(&path, &page).unwrap();
        }
        let written: Vec<&str> =
            page[from..from + table.len().min(page.len() - from)].lines().collect();
        let shown: Vec<&str> = table.lines().collect();
        let differ = shown.iter().zip(&written).find(|(shown, written)| shown != written);
        assert!(
            page[from..].starts_with(&format!("{table}{end}")),
            "docs/metrics.md does not say what {program} exposes; with {WRITE}=1 this test writes it. First: {differ:?}"
        );
    }
}

fn table(metrics: &BTreeMap<String, Metric>) -> String {
    let mut table = String::from(
        "\n| metric | type | labels | unit | what it tells |\n|---|---|---|---|---|\n",
    );
    for (name, metric) in metrics {
        let labels: Vec<String> =
            metric.labels.iter().map(|(label, values)| shown(label, values)).collect();
        let or_none = |text: &str| if text.is_empty() { "–".to_owned() } else { text.to_owned() };
        let (labels, unit) = (or_none(&labels.join("; ")), or_none(&metric.unit));
        let Metric { kind, help, .. } = metric;
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| `{name}` | {kind} | {labels} | {unit} | {help} |");
    }
    table.push('\n');
    table
}

fn shown(label: &str, values: &BTreeSet<String>) -> String {
    if NAMES.contains(&label) {
        return format!("`{label}`");
    }
    let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
    format!("`{label}`: {}", values.join(", "))
}
