//! The command line: flags, each of them also an environment variable.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use hubbub_api::WireDuration;
use hubbub_nats::{NatsFlags, NatsOptions};
use hubbub_program::{LogFlags, address, dns_label, own_name};

use crate::{keys::HostPattern, scaling::WINDOW};

const EXAMPLES: &str = "\
Examples:
  Define the resource ChatRoom in a cluster, then run the operator against it from this machine:
    hubbub-operator crd | kubectl apply -f -
    kubectl create namespace hubbub
    hubbub-operator --config settings.yaml --nats nats://127.0.0.1:4222 --namespace hubbub

  The least that settings.yaml must say:
    nats: {url: 'nats://nats:4222'}
    pools: {default: {image: 'registry.example.com/hubbub-gateway:0.1.0'}}

  Let the users of NATS do what the programs use, and no more:
    hubbub-operator nats-permissions >hubbub-permissions.conf

  See what it makes of a room:
    kubectl apply -f rooms.yaml && kubectl get room -A -o wide";

/// Run chat rooms on Kubernetes: watch ChatRoom objects, publish their policies, run pools of gateways.
#[derive(Debug, Parser)]
#[command(name = "hubbub-operator", version, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true, max_term_width = 100)]
pub struct Cli {
    /// What to do; without a command the operator runs.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to run.
    #[command(flatten)]
    pub run: Run,
}

/// What can be done instead of running.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the definition of the resource ChatRoom, for kubectl apply
    Crd,
    /// Print what the NATS users of gateways and operator must be allowed: no more than the programs use
    NatsPermissions {
        /// For what: the configuration file of nats-server, or the commands of nsc
        #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
        format: PermissionsFormat,
        /// The pools whose gateways share the user, with commas between [default: all]
        #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = dns_label)]
        pools: Vec<String>,
    },
    /// Remove the pools of a release whose operator is gone, and let go of its rooms, which stay
    Uninstall {
        /// Which release is meant.
        #[command(flatten)]
        release: Release,
        /// What is logged, and how.
        #[command(flatten)]
        log: LogFlags,
    },
}

/// How the permissions of NATS users are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum PermissionsFormat {
    /// Lists for a configuration file of nats-server
    #[default]
    Conf,
    /// Commands for nsc, where users have JWTs
    Nsc,
}

/// Which release is meant, and whose rooms it serves.
#[derive(Debug, Clone, Args)]
pub struct Release {
    /// Where pools are run, and the lease is [default: the operator's own namespace, or that of the kubeconfig's context]
    #[arg(long, env = "HUBBUB_NAMESPACE", value_name = "NAME", value_parser = dns_label)]
    pub namespace: Option<String>,

    /// The release: what its pools are labelled with, and their names begin with
    #[arg(long, env = "HUBBUB_INSTANCE", default_value = "hubbub", value_name = "NAME", value_parser = dns_label)]
    pub instance: String,

    /// The namespaces whose rooms are served, with commas between [default: all]
    #[arg(long, env = "HUBBUB_ROOM_NAMESPACES", value_name = "NAME", value_delimiter = ',', value_parser = dns_label)]
    pub room_namespaces: Vec<String>,
}

/// What the flag that is shared with the gateway says in its help there is not so here.
const NATS_HELP: &str = "NATS servers, as nats://host:4222 or tls://host, with commas between; gateways are told of rooms over them";

/// The flags of a running operator.
#[derive(Debug, Args)]
#[command(mut_arg("url", |nats| nats.help(NATS_HELP)))]
pub struct Run {
    /// The file of settings: how the gateways of each pool are built
    #[arg(long, env = "HUBBUB_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Which release this is.
    #[command(flatten)]
    pub release: Release,

    /// Where probes and metrics come in: IP:PORT, or :PORT for all addresses; port 0 takes any free one
    #[arg(long, env = "HUBBUB_ADMIN_LISTEN", default_value = ":9090", value_name = "ADDRESS", value_parser = address)]
    pub admin_listen: SocketAddr,

    /// How to reach NATS.
    #[command(flatten)]
    pub nats: NatsFlags,

    /// Copies of the bucket of policies in a cluster of NATS servers, if this operator makes it
    #[arg(long, env = "HUBBUB_BUCKET_REPLICAS", default_value_t = 1, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=5), help_heading = "NATS")]
    pub bucket_replicas: u8,

    /// How long a pool's load must have been lower before a gateway goes
    #[arg(long, env = "HUBBUB_SCALE_DOWN_AFTER", default_value_t = WireDuration::from(WINDOW), value_name = "TIME")]
    pub scale_down_after: WireDuration,

    /// A file of certificates in PEM, of the authorities that addresses of key sets (spec.auth.jwt.jwks.url) are trusted by [default:
    /// those of the system]
    #[arg(long, env = "HUBBUB_KEYS_CA", value_name = "FILE", help_heading = "Tokens")]
    pub keys_ca: Option<PathBuf>,

    /// The hosts that may be asked for key sets, as id.example.com or *.example.com, with commas between; they may be anywhere [default: any host whose
    /// address is not loopback, link-local, unspecified or multicast]
    #[arg(
        long,
        env = "HUBBUB_KEYS_ALLOW",
        value_name = "HOST",
        value_delimiter = ',',
        help_heading = "Tokens"
    )]
    pub keys_allow: Vec<HostPattern>,

    /// How often an address of keys is asked for them; a ConfigMap is read every 30 s
    #[arg(long, env = "HUBBUB_KEYS_REFRESH", default_value_t = WireDuration::from_secs(300), value_name = "TIME", help_heading = "Tokens")]
    pub keys_refresh: WireDuration,

    /// Whether replicas agree on one that writes; switch it off only where a second can never run
    #[arg(long, env = "HUBBUB_LEADER_ELECTION", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "Replicas")]
    pub leader_election: bool,

    /// This replica's name [default: the host name, with the process id outside a container]
    #[arg(long, env = "HUBBUB_IDENTITY", value_name = "NAME", help_heading = "Replicas")]
    pub identity: Option<String>,

    /// What is logged, and how.
    #[command(flatten)]
    pub log: LogFlags,
}

/// Flags that must be given to run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CliError {
    /// Without settings no gateway can be built.
    #[error(
        "--config is missing: name the file that says how gateways are built; --help shows the least that it must say"
    )]
    NoSettings,
    /// Without NATS no gateway can be told anything.
    #[error(
        "--nats is missing: name the NATS servers over which gateways are told of rooms, such as nats://nats:4222"
    )]
    NoNats,
}

impl Run {
    /// This replica's name.
    #[must_use]
    pub fn identity(&self) -> String {
        self.identity.clone().unwrap_or_else(|| own_name("operator"))
    }

    /// The settings' file and the way to NATS.
    ///
    /// # Errors
    ///
    /// [`CliError`], each with its remedy.
    pub fn required(self) -> Result<(PathBuf, NatsOptions), CliError> {
        let identity = self.identity();
        let settings = self.config.ok_or(CliError::NoSettings)?;
        let nats = self.nats.options(&identity).ok_or(CliError::NoNats)?;
        Ok((settings, nats))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_environment_variable() {
        for argument in Cli::command().get_arguments() {
            let Some(long) = argument.get_long() else { continue };
            if matches!(long, "help" | "version") {
                continue;
            }
            let wanted = format!("HUBBUB_{}", long.to_uppercase().replace('-', "_"));
            let given = argument.get_env().and_then(|env| env.to_str());
            assert_eq!(given, Some(wanted.as_str()), "--{long}");
        }
    }

    #[test]
    fn wrong_flags_are_answered_with_what_is_right() {
        for (flags, words) in [
            (&[][..], "--config is missing"),
            (&["--config", "a"], "--nats is missing"),
            (&["--instance", "A_b"], "DNS label"),
            (&["--room-namespaces", "a,B"], "DNS label"),
            (&["--admin-listen", "9090"], "127.0.0.1:8080"),
            (&["--bucket-replicas", "0"], "1..=5"),
            (&["--keys-allow", "id.example.com,https://a"], "write such as id.example.com"),
            (&["--confg", "a"], "--config"),
        ] {
            let arguments = ["hubbub-operator"].iter().chain(flags);
            let error = match Cli::try_parse_from(arguments) {
                Ok(cli) => cli.run.required().expect_err(words).to_string(),
                Err(error) => error.to_string(),
            };
            assert!(error.contains(words), "{flags:?}: {error}");
        }
    }
}
