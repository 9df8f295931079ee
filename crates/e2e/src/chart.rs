//! The chart, and copies of it that differ.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The folder of the chart.
///
/// # Panics
///
/// When it is not there.
#[must_use]
pub fn chart() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/hubbub");
    folder.canonicalize().expect("the chart is in charts/hubbub")
}

/// A copy of the chart that has another version, and so another `appVersion`. It is gone when this is dropped.
///
/// # Panics
///
/// When it cannot be copied.
#[must_use]
pub fn chart_of_version(version: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    copy(&chart(), folder.path()).expect("the chart can be copied");
    let file = folder.path().join("Chart.yaml");
    let about = fs::read_to_string(&file).expect("a chart has a Chart.yaml");
    let lines = about.lines().map(|line| match line.split_once(':') {
        Some((key @ ("version" | "appVersion"), _)) => format!("{key}: {version}"),
        _ => line.to_owned(),
    });
    fs::write(file, lines.collect::<Vec<_>>().join("\n")).expect("the copy can be written");
    folder
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
