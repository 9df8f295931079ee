//! The plan of a run: who connects where, from which address, and in what part.
//!
//! Pure and made before the first connection, so that what cannot work is refused with a remedy
//! before any load is put on anything.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs},
    time::Duration,
};

use hubbub_telemetry::Traces;
use rustls::pki_types::ServerName;
use thiserror::Error;

use crate::{
    cli::Cli,
    protocol::Protocol,
    stream::Secure,
    tls::{self, TrustError},
};

/// The channels of rooms that have no name of their own.
const CHANNEL: &str = "room-{room}";

/// Why a run cannot be planned.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The address is not one of a room.
    #[error("`{0}` is not a room's address: ws://host:port/path is wanted, or wss:// for TLS")]
    Url(String),

    /// No server could be trusted.
    #[error(transparent)]
    Trust(#[from] TrustError),

    /// The host has no address.
    #[error("the host of `{url}` cannot be resolved: {source}")]
    Resolve {
        /// The room's address.
        url: String,
        /// What the resolver said.
        source: std::io::Error,
    },

    /// One address for many rooms.
    #[error(
        "{0} rooms need {{room}} in the address, such as ws://host:port/rooms/demo/room-{{room}}"
    )]
    Template(u32),

    /// One channel for many rooms.
    #[error("{0} rooms need {{room}} in the channel, such as --channel room-{{room}}")]
    Channel(u32),

    /// No server would have such a channel.
    #[error("`{channel}` cannot be a channel: {reason}")]
    ChannelName {
        /// The channel.
        channel: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// An option of one protocol, given with another.
    #[error("{option} does not go with --protocol {protocol}: {remedy}")]
    Protocol {
        /// The option.
        option: &'static str,
        /// The protocol asked for.
        protocol: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },

    /// A picture of nothing.
    #[error(
        "{0} shows latencies, and there are none where nobody publishes: raise --rate and --publishers"
    )]
    NothingToShow(&'static str),

    /// More parts than members.
    #[error(
        "{publishers} publishers and {slow} slow members do not fit a room of {members}: raise --members"
    )]
    Parts {
        /// Publishers of a room.
        publishers: u32,
        /// Slow members of a room.
        slow: u32,
        /// Members of a room.
        members: u32,
    },

    /// Sequence or room numbers would not fit the stamp.
    #[error("that are more messages than one run can number: shorten --duration or lower --rate")]
    TooMany,
}

/// One address of the deployment.
#[derive(Clone, Debug)]
pub struct Target {
    /// Host and port as written, for the Host header.
    pub authority: String,

    /// Where it is.
    pub address: SocketAddr,

    /// How to speak TLS with it, if it is reached so.
    pub(crate) secure: Option<Secure>,

    /// The path with `{room}` for the room's number.
    path: String,
}

impl Target {
    fn parse(url: &str, cli: &Cli) -> Result<Self, PlanError> {
        let invalid = || PlanError::Url(url.to_owned());
        let (scheme, rest) = url.split_once("://").ok_or_else(invalid)?;
        let (encrypted, usual_port) = match scheme {
            "ws" => (false, 80),
            "wss" => (true, 443),
            _ => return Err(invalid()),
        };
        let (authority, path) = rest.split_once('/').ok_or_else(invalid)?;
        let printable = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if authority.is_empty() || authority.contains('@') || !printable(rest) || path.contains('#')
        {
            return Err(invalid());
        }
        let has_port =
            authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let with_port =
            if has_port { authority.to_owned() } else { format!("{authority}:{usual_port}") };
        let resolve = |source| PlanError::Resolve { url: url.to_owned(), source };
        let address = with_port.to_socket_addrs().map_err(resolve)?.next();
        let address = address.ok_or_else(|| resolve(std::io::Error::other("it has no address")))?;
        let secure = if encrypted {
            let host = with_port.rsplit_once(':').map_or(authority, |(host, _)| host);
            let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(name).map_err(|_| invalid())?;
            Some(Secure { config: tls::client(cli.tls_ca.as_deref(), cli.tls_insecure)?, name })
        } else {
            None
        };
        Ok(Self { authority: authority.to_owned(), address, secure, path: format!("/{path}") })
    }

    /// The path of room `room` (from 0, which is written 1).
    pub fn path(&self, room: u32) -> String {
        self.path.replace("{room}", &(room + 1).to_string())
    }
}

/// What a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Sends and reads; the number is its place among the room's publishers.
    Publisher(u32),

    /// Reads.
    Listener,

    /// Reads, and may leave and be followed by another under churn.
    Passing,

    /// Does not read until the measuring is over.
    Slow,
}

/// What is to be done; see [`Cli`] for the meaning of each value.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each field is the option of its name, documented there")]
pub struct Plan {
    pub targets: Vec<Target>,
    pub protocol: Protocol,
    pub channel: String,
    pub token: Option<String>,
    pub rooms: u32,
    pub members: u32,
    pub publishers: u32,
    pub slow: u32,
    pub rate: f64,
    pub size: usize,
    pub binary: bool,
    pub duration: Duration,
    pub warmup: Duration,
    pub idle: Duration,
    pub tail: Duration,
    pub ramp: f64,
    pub concurrency: u32,
    pub connect_timeout: Duration,
    pub origin: Option<String>,
    pub sources: Vec<Ipv4Addr>,
    pub churn: f64,
    pub reconnect: bool,
    pub expected_closes: Vec<u16>,
    pub threads: u32,
    pub server_pids: Vec<u32>,
    /// Whether handshakes are traced, and the server is told of it.
    pub traces: Traces,
}

impl Plan {
    /// Checks the options against each other and resolves the addresses.
    ///
    /// # Errors
    /// When they cannot be carried out; the text says what to change.
    pub fn new(cli: &Cli) -> Result<Self, PlanError> {
        let publishers = if cli.rate > 0.0 { cli.publishers } else { 0 };
        check_protocol(cli)?;
        if publishers.saturating_add(cli.slow) > cli.members || publishers >= 1 << 18 {
            return Err(PlanError::Parts { publishers, slow: cli.slow, members: cli.members });
        }
        for (option, file) in [("--plot", &cli.plot), ("--hgrm", &cli.hgrm)] {
            if file.is_some() && publishers == 0 {
                return Err(PlanError::NothingToShow(option));
            }
        }
        let messages = cli.rate * (cli.warmup + cli.duration).as_secs_f64();
        if messages > f64::from(crate::payload::MAX_SEQUENCE) {
            return Err(PlanError::TooMany);
        }
        Ok(Self {
            targets: cli
                .urls
                .iter()
                .map(|url| Target::parse(url, cli))
                .collect::<Result<_, _>>()?,
            protocol: cli.protocol,
            channel: cli.channel.clone().unwrap_or_else(|| CHANNEL.to_owned()),
            token: cli.token.clone(),
            rooms: cli.rooms,
            members: cli.members,
            publishers,
            slow: cli.slow,
            rate: if publishers > 0 { cli.rate } else { 0.0 },
            size: cli.size,
            binary: cli.binary,
            duration: cli.duration,
            warmup: if publishers > 0 { cli.warmup } else { Duration::ZERO },
            idle: cli.idle,
            tail: cli.tail,
            ramp: cli.ramp,
            concurrency: cli.concurrency,
            connect_timeout: cli.connect_timeout,
            origin: cli.origin.clone(),
            sources: cli.source_addresses.clone(),
            churn: cli.churn,
            reconnect: cli.reconnect,
            expected_closes: cli.expect_close.clone(),
            threads: cli.threads,
            server_pids: cli.server_pid.clone(),
            traces: Traces::off(),
        })
    }

    /// The channel of room `room` (from 0, which is written 1), where rooms are channels.
    pub fn channel(&self, room: u32) -> String {
        self.channel.replace("{room}", &(room + 1).to_string())
    }

    /// Members of all rooms.
    pub fn connections(&self) -> u64 {
        u64::from(self.rooms) * u64::from(self.members)
    }

    /// Room and part of member `index` of all; rooms fill one after the other.
    pub fn seat(&self, index: u64) -> (u32, Part) {
        let room = (index / u64::from(self.members)) as u32;
        let place = (index % u64::from(self.members)) as u32;
        let part = if place < self.publishers {
            Part::Publisher(place)
        } else if place >= self.members - self.slow {
            Part::Slow
        } else if self.churn > 0.0 {
            Part::Passing
        } else {
            Part::Listener
        };
        (room, part)
    }

    /// Where member `index` connects at its `attempt`: the members of a room take turns over the
    /// targets, the rooms begin with different ones, and who comes back tries the next.
    pub fn target(&self, index: u64, attempt: u64) -> &Target {
        let (room, _) = self.seat(index);
        let turn = index % u64::from(self.members) + u64::from(room) + attempt;
        &self.targets[(turn % self.targets.len() as u64) as usize]
    }

    /// The local address that connection number `connection` leaves from, if one was asked for.
    pub fn source(&self, connection: u64) -> Option<SocketAddr> {
        let count = self.sources.len() as u64;
        let index = connection.checked_rem(count)? as usize;
        Some(SocketAddr::new(IpAddr::V4(self.sources[index]), 0))
    }
}

/// Options that make no sense with the protocol, or do only with it.
fn check_protocol(cli: &Cli) -> Result<(), PlanError> {
    let misfit = |option, remedy| {
        let protocol = match cli.protocol {
            Protocol::Plain => "plain",
            Protocol::Centrifugo => "centrifugo",
            Protocol::Nats => "nats",
        };
        Err(PlanError::Protocol { option, protocol, remedy })
    };
    if cli.protocol == Protocol::Plain {
        if cli.channel.is_some() {
            return misfit("--channel", "a plain room is its address, which may hold {room}");
        }
        if cli.token.is_some() {
            let option = "--token (or HUBBUB_LOAD_TOKEN)";
            return misfit(option, "what a plain room asks for stands in its address");
        }
        if cli.rooms > 1 && !cli.urls.iter().all(|url| url.contains("{room}")) {
            return Err(PlanError::Template(cli.rooms));
        }
        return Ok(());
    }
    if cli.binary {
        return misfit("--binary", "it has one kind of frame, so leave the option away");
    }
    let channel = cli.channel.as_deref().unwrap_or(CHANNEL);
    if cli.rooms > 1 && !channel.contains("{room}") {
        return Err(PlanError::Channel(cli.rooms));
    }
    match cli.protocol.refuse_channel(channel) {
        Some(reason) => Err(PlanError::ChannelName { channel: channel.to_owned(), reason }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn plan(arguments: &[&str]) -> Result<Plan, PlanError> {
        let arguments = ["hubbub-load"].iter().chain(arguments);
        Plan::new(&Cli::try_parse_from(arguments).expect("arguments parse"))
    }

    #[test]
    fn the_seats_of_a_room() {
        let plan = plan(&["ws://127.0.0.1:1/r/{room}", "-r2", "-m5", "-p2", "--slow=1"]).unwrap();
        let seats: Vec<_> = (5..10).map(|index| plan.seat(index)).collect();
        let parts =
            [Part::Publisher(0), Part::Publisher(1), Part::Listener, Part::Listener, Part::Slow];
        assert_eq!(seats, parts.map(|part| (1, part)));
        assert_eq!(plan.connections(), 10);
        assert_eq!(plan.target(5, 0).path(1), "/r/2");
        assert_eq!(plan.source(7), None);
    }

    #[test]
    fn members_take_turns_over_gateways_and_sources() {
        let urls = ["ws://127.0.0.1:1/r/{room}", "ws://127.0.0.1:2/r/{room}", "-r2", "-m4"];
        let plan =
            plan(&[&urls[..], &["--source-addresses=127.0.0.1,127.0.0.2"]].concat()).unwrap();
        let port = |index, attempt| plan.target(index, attempt).address.port();
        assert_eq!([port(0, 0), port(1, 0), port(2, 0)], [1, 2, 1]);
        assert_eq!(
            [port(4, 0), port(5, 0)],
            [2, 1],
            "the second room begins with the other gateway"
        );
        assert_eq!(port(0, 1), 2, "who comes back tries the next");
        assert_eq!(plan.source(3), Some("127.0.0.2:0".parse().unwrap()));
    }

    #[test]
    fn rooms_are_channels_where_the_protocol_has_these() {
        let plan = plan(&["ws://127.0.0.1:1/ws", "--protocol=centrifugo", "-r2"]).unwrap();
        assert_eq!(plan.channel(1), "room-2");
    }

    #[test]
    fn without_a_rate_nobody_publishes() {
        let plan = plan(&["ws://127.0.0.1:1/lobby", "--rate=0", "-m1"]).unwrap();
        assert_eq!(plan.seat(0), (0, Part::Listener));
        assert_eq!(plan.warmup, Duration::ZERO);
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_remedy() {
        let refusal = |arguments: &[&str]| plan(arguments).unwrap_err().to_string();
        assert!(refusal(&["ws://h/r", "-r2"]).contains("need {room} in the address"));
        let no_file = refusal(&["wss://127.0.0.1/r", "--tls-ca=/nonexistent/ca.pem"]);
        assert!(no_file.contains("--tls-ca: /nonexistent/ca.pem cannot be used"), "{no_file}");
        assert!(
            refusal(&["ws://127.0.0.1:1/r", "-m2", "-p2", "--slow=1"]).contains("raise --members")
        );
        let channel = |more: &[&str]| refusal(&[&["ws://127.0.0.1:1/"], more].concat());
        assert!(channel(&["--channel=x"]).contains("a plain room is its address"));
        assert!(channel(&["--token=x"]).contains("stands in its address"));
        assert!(channel(&["--protocol=nats", "--binary"]).contains("leave the option away"));
        assert!(channel(&["--protocol=nats", "--channel=a.*"]).contains("no wildcards"));
        assert!(channel(&["--protocol=nats", "--channel=a..b"]).contains("no empty parts"));
        assert!(channel(&["--protocol=centrifugo", "--channel=a b"]).contains("without spaces"));
        assert!(
            channel(&["--protocol=centrifugo", "--channel=x", "-r2"])
                .contains("--channel room-{room}")
        );
        for option in ["--plot=x.svg", "--hgrm=x"] {
            assert!(channel(&[option, "--rate=0"]).contains("raise --rate and --publishers"));
        }
        assert!(refusal(&["ws://127.0.0.1:1/r", "--rate=1e9"]).contains("lower --rate"));
        for url in ["http://127.0.0.1/r", "ws://127.0.0.1", "ws:///r", "ws://u@h/r", "ws://h/a b"] {
            assert!(refusal(&[url]).contains("ws://host:port/path is wanted"), "{url}");
        }
    }
}
