//! The operator's program: read the command line, then run, or print the definition of the resource.

use std::{io::Write as _, process::ExitCode};

use anyhow::Context as _;
use hubbub_operator::{
    cli::{Cli, Command, Run},
    definition,
    operator::{Config, Operator},
    settings::Settings,
    signals,
};
use hubbub_program::Signals;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = hubbub_program::parse::<Cli>();
    let ended = match cli.command {
        None => run(cli.run).await,
        Some(Command::Crd) => print_definition(),
    };
    ended.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "hubbub-operator: {error:#}");
        ExitCode::FAILURE
    })
}

fn print_definition() -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(definition::yaml()?.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

async fn run(flags: Run) -> anyhow::Result<ExitCode> {
    flags.log.init()?;
    let heard = Signals::listen().context("cannot listen for signals")?;
    let operator = Operator::start(config(flags).await?).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        admin = %operator.admin_address(),
        "started"
    );
    let stop = operator.stopper();
    tokio::select! {
        ended = operator.run() => {
            // Whoever lost the lease must not go on: it is started again, and waits.
            ended?;
            Ok(ExitCode::SUCCESS)
        }
        code = signals::second(heard, &stop) => Ok(ExitCode::from(code)),
    }
}

async fn config(flags: Run) -> anyhow::Result<Config> {
    let mut kubernetes = kube::Config::infer().await.context(
        "no way to an API server: run in a cluster, or set KUBECONFIG (kubectl config view shows it)",
    )?;
    // What failed is tried again by the queue, which knows what else there is to do.
    kubernetes.default_retry = false;
    let namespace = flags.namespace.clone();
    let namespace = namespace.unwrap_or_else(|| kubernetes.default_namespace.clone());
    let (admin_listen, leader_election) = (flags.admin_listen, flags.leader_election);
    let (instance, room_namespaces) = (flags.instance.clone(), flags.room_namespaces.clone());
    let (identity, bucket_replicas) = (flags.identity(), usize::from(flags.bucket_replicas));
    let (settings, nats) = flags.required()?;
    Ok(Config {
        admin_listen,
        client: kube::Client::try_from(kubernetes).context("the API server cannot be used")?,
        nats,
        bucket_replicas,
        settings: Settings::read(&settings)?,
        instance,
        namespace,
        room_namespaces,
        identity,
        leader_election,
    })
}
