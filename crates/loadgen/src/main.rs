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
    let plan = Plan::new(cli)?;
    let mut progress = if cli.quiet { Progress::quiet() } else { Progress::for_standard_error() };
    let report = hubbub_load::run(&plan, &mut progress)?;
    progress.finish();
    if !cli.quiet {
        writeln!(io::stderr(), "{report}")?;
    }
    if let Some(path) = &cli.json {
        let json = serde_json::to_string_pretty(&report)? + "\n";
        if path == Path::new("-") {
            io::stdout().write_all(json.as_bytes())?;
        } else {
            fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(report)
}
