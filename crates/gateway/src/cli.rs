//! The command line: flags, each of them also an environment variable, and what they must be.

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    thread::available_parallelism,
};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::styling};
use hubbub_api::{RoomName, WireDuration, names::DEFAULT_POOL};
use hubbub_nats::NatsFlags;
use hubbub_program::{LogFlags, address, dns_label, network, own_name};
use hubbub_telemetry::Traces;
use ipnet::IpNet;

use crate::{
    descriptors,
    drain::DrainTimes,
    gateway::{Config, Policies},
    limits::LimitOptions,
    tls::TlsFiles,
};

/// Shards that are allowed for each core, and on the smallest machine, so that one configuration fits several. A shard
/// is a thread that is always busy or asleep: more of them than cores only take turns.
const SHARDS_A_CORE: usize = 4;
const SHARDS_ANYWHERE: usize = 16;

/// Less than this no gateway runs in.
const LEAST_MEMORY: u64 = 16 << 20;

const STYLES: styling::Styles = styling::Styles::styled()
    .header(styling::AnsiColor::Green.on_default().bold())
    .usage(styling::AnsiColor::Green.on_default().bold())
    .literal(styling::AnsiColor::Cyan.on_default().bold())
    .placeholder(styling::AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
Examples:
  Serve the rooms of a file on http://localhost:8080, nothing else needed:
    hubbub-gateway --rooms rooms.yaml

  Two gateways that serve the same rooms as one, over NATS:
    hubbub-gateway --rooms rooms.yaml --nats nats://127.0.0.1:4222 --gateway-id a
    hubbub-gateway --rooms rooms.yaml --nats nats://127.0.0.1:4222 --gateway-id b \\
      --listen :8081 --admin-listen :9091

  Say what is wrong with a file before it is deployed:
    hubbub-gateway check rooms.yaml

  Send all members away in good order, as a preStop hook does:
    hubbub-gateway drain";

/// Serve chat rooms over WebSocket: what one member sends, all members of the room get.
#[derive(Debug, Parser)]
#[command(name = "hubbub-gateway", version, styles = STYLES, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true, max_term_width = 100)]
pub struct Cli {
    /// What to do; without a command the gateway serves.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to serve.
    #[command(flatten)]
    pub serve: Serve,
}

/// What can be done instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check rooms files, and say for each fault where it is and how to mend it
    Check {
        /// Files of ChatRoom documents
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Drain the gateway of this machine or pod, and wait until it is done: the preStop hook
    Drain {
        /// The admin address of the gateway; a wildcard address means this machine
        #[arg(long, env = "HUBBUB_ADMIN_LISTEN", default_value = ":9090", value_name = "ADDRESS", value_parser = address)]
        admin: SocketAddr,
    },
}

/// Where a gateway's rooms come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PolicyKind {
    /// The files that --rooms names
    Files,
    /// The key-value bucket that the operator fills
    Nats,
}

/// The flags of a serving gateway.
#[derive(Debug, Args)]
pub struct Serve {
    /// Where members come in: IP:PORT, or :PORT for all addresses, IPv6 and IPv4; port 0 takes any free one
    #[arg(long, env = "HUBBUB_LISTEN", default_value = ":8080", value_name = "ADDRESS", value_parser = address)]
    pub listen: SocketAddr,

    /// Where probes, metrics and the drain hook come in; never expose it
    #[arg(long, env = "HUBBUB_ADMIN_LISTEN", default_value = ":9090", value_name = "ADDRESS", value_parser = address)]
    pub admin_listen: SocketAddr,

    /// A PEM file with the certificate for members to come in by TLS, and behind it those that lead to its authority; looked at again and again, so a renewal needs no restart; goes with --tls-key
    #[arg(long, env = "HUBBUB_TLS_CERTIFICATE", value_name = "FILE", help_heading = "TLS")]
    pub tls_certificate: Option<PathBuf>,

    /// The PEM key of --tls-certificate
    #[arg(long, env = "HUBBUB_TLS_KEY", value_name = "FILE", help_heading = "TLS")]
    pub tls_key: Option<PathBuf>,

    /// Files of ChatRoom documents, as kubectl apply takes them; watched, so a change needs no restart; several with spaces or commas between
    #[arg(long, env = "HUBBUB_ROOMS", value_name = "FILE", value_delimiter = ',', num_args = 1..)]
    pub rooms: Vec<PathBuf>,

    /// Where rooms come from [default: files if --rooms is given, else nats]
    #[arg(long, env = "HUBBUB_POLICIES", value_enum, value_name = "SOURCE")]
    pub policies: Option<PolicyKind>,

    /// The room that is also served at /ws, for clients that know one address
    #[arg(long, env = "HUBBUB_DEFAULT_ROOM", value_name = "NAMESPACE/NAME")]
    pub default_room: Option<RoomName>,

    /// The pool this gateway belongs to; it serves the rooms that name this pool
    #[arg(long, env = "HUBBUB_POOL", default_value = DEFAULT_POOL, value_name = "NAME", value_parser = dns_label)]
    pub pool: String,

    /// This gateway's name, unique in its pool [default: the host name, with the process id outside a container]
    #[arg(long, env = "HUBBUB_GATEWAY_ID", value_name = "NAME")]
    pub gateway_id: Option<String>,

    /// How to reach NATS.
    #[command(flatten)]
    pub nats: NatsFlags,

    /// How long a draining gateway still serves handshakes, because load balancers learn late
    #[arg(
        long,
        env = "HUBBUB_DRAIN_SETTLE",
        default_value = "5s",
        value_name = "TIME",
        help_heading = "Drain"
    )]
    pub drain_settle: WireDuration,

    /// Over how long the members are then sent away, evenly
    #[arg(
        long,
        env = "HUBBUB_DRAIN_WINDOW",
        default_value = "20s",
        value_name = "TIME",
        help_heading = "Drain"
    )]
    pub drain_window: WireDuration,

    /// When whoever is still there is cut off, counted from the beginning
    #[arg(
        long,
        env = "HUBBUB_DRAIN_DEADLINE",
        default_value = "30s",
        value_name = "TIME",
        help_heading = "Drain"
    )]
    pub drain_deadline: WireDuration,

    /// Threads that write to sockets, at most four a core, and 16 on any machine [default: one a core]
    #[arg(long, env = "HUBBUB_SHARDS", value_name = "NUMBER", value_parser = shards, help_heading = "Limits")]
    pub shards: Option<NonZeroUsize>,

    /// Connections this gateway may have [default: what its limit of open files allows]
    #[arg(long, env = "HUBBUB_MAX_CONNECTIONS", value_name = "NUMBER", help_heading = "Limits")]
    pub max_connections: Option<usize>,

    /// What is limited at the door.
    #[command(flatten)]
    pub door: DoorFlags,

    /// Whether metrics are exported by room: one series a room each
    #[arg(long, env = "HUBBUB_ROOM_METRICS", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "Telemetry")]
    pub room_metrics: bool,

    /// Whether the trace of a client's traceparent header goes on here, rather than being linked to; only where all clients are your own
    #[arg(long, env = "HUBBUB_TRUST_TRACEPARENT", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", help_heading = "Telemetry")]
    pub trust_traceparent: bool,

    /// What is logged, and how.
    #[command(flatten)]
    pub log: LogFlags,
}

/// What is limited at the door, beside the rooms' own limits. Without its flag nothing of it is.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub struct DoorFlags {
    /// Proxies whose X-Forwarded-For says who the client is, by address or network, with commas between
    #[arg(long, env = "HUBBUB_TRUSTED_PROXIES", value_name = "NETWORK", value_delimiter = ',', num_args = 1.., value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,

    /// Handshakes and other requests that are answered in a second; those beyond get 503 [default: 0, no limit]
    #[arg(
        long,
        env = "HUBBUB_REQUESTS_PER_SECOND",
        default_value_t = 0,
        hide_default_value = true,
        value_name = "NUMBER"
    )]
    pub requests_per_second: u32,

    /// The same of one address (of IPv6, one /64), and ten times as many at once; those beyond get 429 [default: 0, no limit]
    #[arg(
        long,
        env = "HUBBUB_REQUESTS_PER_ADDRESS",
        default_value_t = 0,
        hide_default_value = true,
        value_name = "NUMBER"
    )]
    pub requests_per_address: u32,

    /// Connections that one address may have here; the next gets 429 [default: 0, no limit]
    #[arg(
        long,
        env = "HUBBUB_CONNECTIONS_PER_ADDRESS",
        default_value_t = 0,
        hide_default_value = true,
        value_name = "NUMBER"
    )]
    pub connections_per_address: u32,

    /// Connections that the subject of one token may have here; the next gets 429 [default: 0, no limit]
    #[arg(
        long,
        env = "HUBBUB_CONNECTIONS_PER_SUBJECT",
        default_value_t = 0,
        hide_default_value = true,
        value_name = "NUMBER"
    )]
    pub connections_per_subject: u32,

    /// Memory that this process may use, such as 512MiB; newcomers are refused from 85 % on, members sent away from 95 % on [default: what its control group may, if that is limited]
    #[arg(long, env = "HUBBUB_MEMORY_LIMIT", value_name = "BYTES", value_parser = bytes)]
    pub memory_limit: Option<u64>,
}

impl DoorFlags {
    fn options(self) -> LimitOptions {
        LimitOptions {
            trusted_proxies: self.trusted_proxies,
            requests_per_second: NonZeroU32::new(self.requests_per_second),
            requests_per_address: NonZeroU32::new(self.requests_per_address),
            connections_per_address: NonZeroU32::new(self.connections_per_address),
            connections_per_subject: NonZeroU32::new(self.connections_per_subject),
        }
    }
}

/// Flags that are right one by one, but not together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CliError {
    /// Nothing says which rooms there are.
    #[error(
        "there are no rooms to serve: give --rooms FILE (try manifests/examples/rooms.yaml), or --nats URL to take them from the operator"
    )]
    NoRooms,
    /// `--policies files` without files.
    #[error("--policies files needs --rooms FILE")]
    FilesWithoutRooms,
    /// `--policies nats` without NATS.
    #[error("--policies nats needs --nats URL")]
    BucketWithoutNats,
    /// Two sources of rooms.
    #[error(
        "--policies nats takes the rooms from NATS: leave out --rooms, or give --policies files"
    )]
    TwoSources,
    /// The deadline comes before the members are away.
    #[error(
        "--drain-deadline {deadline} is before the members are away: make it at least --drain-settle plus --drain-window, {least}"
    )]
    Deadline {
        /// What was given.
        deadline: WireDuration,
        /// What is needed.
        least: WireDuration,
    },
    /// No connection may ever be made.
    #[error("--max-connections must be at least 1")]
    NoConnections,
    /// The id cannot be part of a subject.
    #[error(
        "--gateway-id {0:?} must be 1 to 253 characters, without white space or control characters"
    )]
    GatewayId(String),
    /// A certificate without a key, or the other way round.
    #[error("--{given} is given without --{missing}: give both for TLS, or neither")]
    TlsPair {
        /// The flag that is there.
        given: &'static str,
        /// The flag that is not.
        missing: &'static str,
    },
}

impl Serve {
    /// The configuration that the flags ask for.
    ///
    /// # Errors
    ///
    /// [`CliError`], each with its remedy.
    pub fn config(self) -> Result<Config, CliError> {
        let policies = self.source()?;
        let least = *self.drain_settle + *self.drain_window;
        if *self.drain_deadline < least {
            let least =
                WireDuration::from_millis(u64::try_from(least.as_millis()).unwrap_or(u64::MAX));
            return Err(CliError::Deadline { deadline: self.drain_deadline, least });
        }
        let gateway = self.gateway_id.unwrap_or_else(|| own_name("gateway"));
        let visible = |c: char| !c.is_whitespace() && !c.is_control();
        if gateway.is_empty() || gateway.len() > 253 || !gateway.chars().all(visible) {
            return Err(CliError::GatewayId(gateway));
        }
        let tls = tls(self.tls_certificate, self.tls_key)?;
        let open_files = descriptors::raise_limit();
        let max_connections =
            self.max_connections.unwrap_or_else(|| descriptors::connections(open_files));
        if max_connections == 0 {
            return Err(CliError::NoConnections);
        }
        Ok(Config {
            listen: self.listen,
            admin_listen: self.admin_listen,
            tls,
            policies,
            nats: self.nats.options(&gateway),
            pool: self.pool,
            gateway,
            default_room: self.default_room,
            drain: DrainTimes {
                settle: *self.drain_settle,
                window: *self.drain_window,
                deadline: *self.drain_deadline,
            },
            shards: self.shards.unwrap_or_else(cores),
            max_connections,
            memory_limit: self.door.memory_limit,
            limits: self.door.options(),
            open_files,
            room_metrics: self.room_metrics,
            traces: Traces::off(),
            trust_traceparent: self.trust_traceparent,
        })
    }

    fn source(&self) -> Result<Policies, CliError> {
        let (files, nats) = (!self.rooms.is_empty(), self.nats.url.is_some());
        match self.policies {
            Some(PolicyKind::Files) | None if files => Ok(Policies::Files(self.rooms.clone())),
            Some(PolicyKind::Files) => Err(CliError::FilesWithoutRooms),
            Some(PolicyKind::Nats) if files => Err(CliError::TwoSources),
            Some(PolicyKind::Nats) if !nats => Err(CliError::BucketWithoutNats),
            None if !nats => Err(CliError::NoRooms),
            Some(PolicyKind::Nats) | None => Ok(Policies::Bucket),
        }
    }
}

fn tls(certificate: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<TlsFiles>, CliError> {
    const FLAGS: (&str, &str) = ("tls-certificate", "tls-key");
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key })),
        (Some(_), None) => Err(CliError::TlsPair { given: FLAGS.0, missing: FLAGS.1 }),
        (None, Some(_)) => Err(CliError::TlsPair { given: FLAGS.1, missing: FLAGS.0 }),
        (None, None) => Ok(None),
    }
}

/// The cores that this process may use.
fn cores() -> NonZeroUsize {
    available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn shards(text: &str) -> Result<NonZeroUsize, String> {
    let cores = cores().get();
    let most = SHARDS_ANYWHERE.max(cores.saturating_mul(SHARDS_A_CORE));
    let given = text.parse().ok().filter(|shards: &NonZeroUsize| shards.get() <= most);
    given.ok_or_else(|| {
        format!(
            "must be 1 to {most}: each shard is a thread, and more of them than cores ({cores} here) only take turns; \
             without the flag there is one a core"
        )
    })
}

/// So many bytes, KiB, MiB or GiB.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..).unwrap_or_default() {
        "" => Some(1),
        "Ki" | "KiB" => Some(1 << 10),
        "Mi" | "MiB" => Some(1 << 20),
        "Gi" | "GiB" => Some(1 << 30),
        _ => None,
    };
    let number = digits.trim_end().parse::<u64>().ok();
    let bytes = number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    bytes
        .filter(|bytes| *bytes >= LEAST_MEMORY)
        .ok_or_else(|| "must be at least 16MiB, as 512MiB, 1GiB or a number of bytes".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn serve(flags: &[&str]) -> Result<Config, String> {
        let arguments = ["hubbub-gateway"].iter().chain(flags);
        let cli = Cli::try_parse_from(arguments).map_err(|error| error.to_string())?;
        cli.serve.config().map_err(|error| error.to_string())
    }

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
            assert_eq!(
                argument.get_env().and_then(|env| env.to_str()),
                Some(wanted.as_str()),
                "--{long}"
            );
        }
    }

    #[test]
    fn rooms_alone_are_enough() {
        let config = serve(&["--rooms", "a.yaml", "b.yaml"]).unwrap();
        assert_eq!(config.policies, Policies::Files(vec!["a.yaml".into(), "b.yaml".into()]));
        assert!(config.nats.is_none());
        assert!(config.max_connections > 0);
    }

    #[test]
    fn wrong_flags_are_answered_with_what_is_right() {
        for (flags, words) in [
            (&[][..], "give --rooms FILE"),
            (&["--policies", "files"], "--policies files needs --rooms FILE"),
            (&["--policies", "nats"], "--policies nats needs --nats URL"),
            (&["--rooms", "a", "--policies", "nats", "--nats", "nats://h"], "leave out --rooms"),
            (
                &["--rooms", "a", "--drain-deadline", "10s"],
                "--drain-settle plus --drain-window, 25s",
            ),
            (&["--rooms", "a", "--drain-settle", "5"], "such as 60s"),
            (&["--rooms", "a", "--listen", "8080"], "127.0.0.1:8080"),
            (&["--rooms", "a", "--default-room", "lobby"], "namespace/name"),
            (&["--rooms", "a", "--pool", "A_b"], "DNS label"),
            (&["--rooms", "a", "--max-connections", "0"], "at least 1"),
            (&["--rooms", "a", "--gateway-id", "a b"], "white space"),
            (&["--rooms", "a", "--nats-user", "u"], "--nats"),
            (&["--rooms", "a", "--tls-key", "k"], "--tls-key is given without --tls-certificate"),
            (&["--rooms", "a", "--tls-certificate", "c"], "without --tls-key: give both"),
            (&["--rooms", "a", "--shards", "0"], "must be 1 to "),
            (&["--rooms", "a", "--shards", "1000000"], "more of them than cores"),
            (&["--rooms", "a", "--requests-per-second", "many"], "requests-per-second"),
            (&["--rooms", "a", "--trusted-proxies", "10.0.0.1/8"], "write 10.0.0.0/8"),
            (&["--rooms", "a", "--trusted-proxies", "proxy"], "such as 10.0.0.0/8"),
            (&["--rooms", "a", "--memory-limit", "1MiB"], "at least 16MiB"),
            (&["--rooms", "a", "--memory-limit", "1TB"], "512MiB"),
            (&["--roms", "a"], "--rooms"),
        ] {
            let error = serve(flags).expect_err(&format!("{flags:?}"));
            assert!(error.contains(words), "{flags:?}: {error}");
        }
    }

    #[test]
    fn limits_are_off_unless_they_are_asked_for() {
        let config = serve(&["--rooms", "a"]).unwrap();
        assert_eq!((config.limits, config.memory_limit), (LimitOptions::default(), None));
        let config = serve(&[
            "--rooms",
            "a",
            "--trusted-proxies",
            "10.0.0.0/8,192.0.2.7,fd00::/8",
            "--connections-per-address",
            "5",
            "--memory-limit",
            "512MiB",
        ])
        .unwrap();
        let networks: Vec<_> =
            config.limits.trusted_proxies.iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8"]);
        assert_eq!(config.limits.connections_per_address, NonZeroU32::new(5));
        assert_eq!(config.memory_limit, Some(512 << 20));
        for (text, expected) in [("16777216", 16 << 20), ("64Mi", 64 << 20), ("2GiB", 2 << 30)] {
            assert_eq!(bytes(text), Ok(expected));
        }
    }

    #[test]
    fn a_room_written_wrong_is_told_once() {
        for room in ["lobby", "Demo/lobby", "demo/Lobby"] {
            let error = serve(&["--rooms", "a", "--default-room", room]).unwrap_err();
            let sentence = room.parse::<RoomName>().unwrap_err().to_string();
            assert!(error.contains(&sentence), "{error}");
            assert_eq!(error.matches("such as").count(), sentence.matches("such as").count());
        }
    }

    #[test]
    fn some_more_shards_than_cores_are_taken() {
        let config = serve(&["--rooms", "a", "--shards", "16"]).unwrap();
        assert_eq!(config.shards.get(), 16);
    }

    #[test]
    fn no_limit_at_the_door_can_be_said_as_well() {
        let config = serve(&[
            "--rooms",
            "rooms.yaml",
            "--requests-per-second",
            "0",
            "--requests-per-address=0",
            "--connections-per-address=0",
            "--connections-per-subject=0",
        ]);
        assert_eq!(config.unwrap().limits, LimitOptions::default());
    }
}
