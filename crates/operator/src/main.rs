//! The operator's program: read the command line, then run, print what others need of it, or take all away.

use std::{io::Write as _, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use hubbub_operator::{
    cli::{Cli, Command, Release, Run},
    definition,
    error::in_words,
    keys::Fetcher,
    nats_permissions,
    operator::{Config, Operator, StartError},
    settings::Settings,
    signals,
    uninstall::Uninstall,
};
use hubbub_program::{LogFlags, Signals, own_name};
use hubbub_telemetry::{Program, Traces};

/// The exit code for what no restart mends, as clap's for a wrong command line.
const WRONG_CONFIGURATION: u8 = 2;

/// Whatever is asked for, an address of keys is not asked more often.
const SHORTEST_REFRESH: Duration = Duration::from_secs(1);

/// Why the program ends without success.
enum Failure {
    /// What it was told cannot work.
    Configuration(anyhow::Error),
    /// Something failed that may not fail the next time.
    Running(anyhow::Error),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = hubbub_program::parse::<Cli>();
    let ended = match cli.command {
        None => run(cli.run).await,
        Some(Command::Crd) => print_definition(),
        Some(Command::NatsPermissions { format, pools }) => {
            print(&nats_permissions::text(format, &pools))
        }
        Some(Command::Uninstall { release, log }) => uninstall(release, &log).await,
    };
    ended.unwrap_or_else(|failure| {
        let (Failure::Configuration(error) | Failure::Running(error)) = &failure;
        let _ = writeln!(std::io::stderr(), "hubbub-operator: {}", in_words(&**error));
        match failure {
            Failure::Configuration(_) => ExitCode::from(WRONG_CONFIGURATION),
            Failure::Running(_) => ExitCode::FAILURE,
        }
    })
}

fn print_definition() -> Result<ExitCode, Failure> {
    let yaml = definition::yaml().map_err(|error| Failure::Running(error.into()))?;
    print(&yaml)
}

fn print(text: &str) -> Result<ExitCode, Failure> {
    let printed = std::io::stdout().write_all(text.as_bytes());
    printed.map_err(|error| Failure::Running(error.into()))?;
    Ok(ExitCode::SUCCESS)
}

async fn uninstall(release: Release, log: &LogFlags) -> Result<ExitCode, Failure> {
    let identity = own_name("uninstall");
    // Nothing of it is traced, but what makes no sense is refused as it is by the operator.
    log.init(&program(&identity)).map_err(|error| Failure::Configuration(error.into()))?;
    let (client, namespace) = kubernetes(&release).await.map_err(Failure::Configuration)?;
    let Release { instance, room_namespaces, .. } = release;
    let uninstall = Uninstall { client, instance, namespace, room_namespaces, identity };
    let removed = uninstall.run().await.map_err(|error| Failure::Running(error.into()))?;
    tracing::info!(objects = removed.objects, rooms = removed.rooms, "removed");
    Ok(ExitCode::SUCCESS)
}

/// A way to the API server, and the namespace of the release.
async fn kubernetes(release: &Release) -> anyhow::Result<(kube::Client, String)> {
    let mut kubernetes = kube::Config::infer().await.context(
        "no way to an API server: run in a cluster, or set KUBECONFIG (kubectl config view shows it)",
    )?;
    // What fails is tried again by who knows what else there is to do.
    kubernetes.default_retry = false;
    let namespace = release.namespace.clone();
    let namespace = namespace.unwrap_or_else(|| kubernetes.default_namespace.clone());
    let client = kube::Client::try_from(kubernetes).context("the API server cannot be used")?;
    Ok((client, namespace))
}

async fn run(flags: Run) -> Result<ExitCode, Failure> {
    let traces = flags.log.init(&program(&flags.identity()));
    let traces = traces.map_err(|error| Failure::Configuration(error.into()))?;
    let heard = Signals::listen().context("cannot listen for signals").map_err(Failure::Running)?;
    let mut config = config(flags).await.map_err(Failure::Configuration)?;
    config.traces = traces.clone();
    let operator = Operator::start(config).await.map_err(|error| match error {
        StartError::NatsOptions(_) => Failure::Configuration(error.into()),
        StartError::Listen { .. } | StartError::Nats(_) => Failure::Running(error.into()),
    })?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        admin = %operator.admin_address(),
        "started"
    );
    let stop = operator.stopper();
    tokio::select! {
        ended = operator.run() => {
            traces.shutdown().await;
            let Err(lost) = ended else { return Ok(ExitCode::SUCCESS) };
            // Whoever lost the lease must not go on: it is started again, and waits. In the log, as all that went before.
            tracing::error!(error = %lost, "ending");
            Ok(ExitCode::FAILURE)
        }
        code = signals::second(heard, &stop) => Ok(ExitCode::from(code)),
    }
}

/// This program, as traces tell of it.
fn program(identity: &str) -> Program {
    Program {
        service: "hubbub-operator",
        version: env!("CARGO_PKG_VERSION"),
        instance: identity.to_owned(),
    }
}

async fn config(flags: Run) -> anyhow::Result<Config> {
    let (client, namespace) = kubernetes(&flags.release).await?;
    let (admin_listen, leader_election) = (flags.admin_listen, flags.leader_election);
    let Release { instance, room_namespaces, .. } = flags.release.clone();
    let scale_down_window = *flags.scale_down_after;
    let (identity, bucket_replicas) = (flags.identity(), usize::from(flags.bucket_replicas));
    let keys = Arc::new(Fetcher::new(flags.keys_ca.as_deref(), flags.keys_allow.clone().into())?);
    let keys_period = (*flags.keys_refresh).max(SHORTEST_REFRESH);
    let (settings, nats) = flags.required()?;
    Ok(Config {
        admin_listen,
        client,
        nats,
        bucket_replicas,
        settings: Settings::read(&settings)?,
        scale_down_window,
        instance,
        namespace,
        room_namespaces,
        identity,
        leader_election,
        keys,
        keys_period,
        traces: Traces::off(),
    })
}
