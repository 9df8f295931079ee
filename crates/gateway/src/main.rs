//! The gateway's program: read the command line, then serve, check or drain.

use std::{io::IsTerminal as _, process::ExitCode};

use anyhow::Context as _;
use hubbub_gateway::{
    cli::{Cli, Command, Serve},
    drain_hook,
    gateway::Gateway,
    policy::files,
    signals, startup,
};
use hubbub_program::Signals;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = hubbub_program::parse::<Cli>();
    let ended = match cli.command {
        None => serve(cli.serve).await,
        Some(Command::Check { files }) => check(&files),
        Some(Command::Drain { admin }) => drain(admin).await,
    };
    ended.unwrap_or_else(|error| {
        startup::complain(&error);
        ExitCode::from(startup::exit_code(&error))
    })
}

async fn serve(flags: Serve) -> anyhow::Result<ExitCode> {
    let log = flags.log.clone();
    let for_people = std::io::stderr().is_terminal();
    let mut config = flags.config()?;
    let traces = log.init(&startup::program(&config))?;
    config.traces = traces.clone();
    let heard = Signals::listen().context("cannot listen for signals")?;
    let summary = startup::Summary::of(&config);
    let gateway = Gateway::start(config).await?;
    summary.tell(&gateway, for_people);
    let drain = gateway.drain();
    tokio::select! {
        _ = gateway.run() => {
            traces.shutdown().await;
            Ok(ExitCode::SUCCESS)
        }
        code = signals::second(heard, &drain) => Ok(ExitCode::from(code)),
    }
}

fn check(paths: &[std::path::PathBuf]) -> anyhow::Result<ExitCode> {
    match files::check(paths) {
        Ok(rooms) => {
            startup::in_order(&rooms);
            Ok(ExitCode::SUCCESS)
        }
        Err(faults) => {
            startup::faulty(&faults);
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn drain(admin: std::net::SocketAddr) -> anyhow::Result<ExitCode> {
    startup::receipt(&drain_hook::drain(admin).await?);
    Ok(ExitCode::SUCCESS)
}
