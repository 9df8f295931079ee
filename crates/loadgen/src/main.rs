//! `hubbub-load`: puts load on WebSocket rooms and verifies every delivery.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;
use hubbub_load::{Cli, Plan, Progress, Report};
use hubbub_telemetry::{LogFormat, Program};
use tokio::runtime::Builder;

fn main() -> ExitCode {
    match load(&Cli::parse()) {
        Ok(report) if report.verification.passed => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            // Nothing is left to be done if even that cannot be said.
            let _ = writeln!(io::stderr(), "hubbub-load: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn load(cli: &Cli) -> anyhow::Result<Report> {
    let mut plan = Plan::new(cli)?;
    for path in [&cli.json, &cli.plot, &cli.hgrm].into_iter().flatten() {
        check_writable(path)?;
    }
    // Its one thread sleeps, unless there are spans to send.
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let entered = runtime.enter();
    let program = Program {
        service: "hubbub-load",
        version: env!("CARGO_PKG_VERSION"),
        instance: format!("load-{}", std::process::id()),
    };
    plan.traces = hubbub_telemetry::init("warn", LogFormat::Auto, &program)?;
    drop(entered);
    let mut progress = if cli.quiet { Progress::quiet() } else { Progress::for_standard_error() };
    let report = hubbub_load::run(&plan, &mut progress);
    runtime.block_on(plan.traces.shutdown());
    let report = report?;
    progress.finish();
    if !cli.quiet {
        writeln!(io::stderr(), "{report}")?;
    }
    if let Some(path) = &cli.json {
        let json = serde_json::to_string_pretty(&report)? + "\n";
        write(path, &json)?;
    }
    if let Some(path) = &cli.plot {
        write(path, &hubbub_load::plot(&report))?;
    }
    if let Some(path) = &cli.hgrm {
        write(path, &hubbub_load::hgrm(&report.histogram))?;
    }
    Ok(report)
}

/// Says before the run, not after it, that its result could not be kept.
fn check_writable(path: &Path) -> anyhow::Result<()> {
    if path != Path::new("-") {
        let opened = fs::OpenOptions::new().append(true).create(true).open(path);
        opened.with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Writes to the file; `-` is standard output.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if path == Path::new("-") {
        io::stdout().write_all(text.as_bytes())?;
        return Ok(());
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
