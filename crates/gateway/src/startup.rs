//! What the program says to the person who started it.

use std::{io::Write as _, net::SocketAddr};

use hubbub_api::RoomPolicy;
use hubbub_telemetry::{InitError, Program};

use crate::{
    bus::nats::NatsBusError,
    cli::CliError,
    descriptors,
    gateway::{Config, Gateway, Policies, StartError},
    policy::files::FilesError,
};

/// Rooms listed at start; with more, their number has to do.
const ROOMS_LISTED: usize = 20;

/// What the configuration says, kept for the line that tells it once the gateway serves.
#[derive(Debug)]
pub struct Summary {
    gateway: String,
    pool: String,
    tls: bool,
    bus: String,
    policies: String,
    shards: usize,
    max_connections: usize,
    open_files: Option<u64>,
    default_room: Option<String>,
}

impl Summary {
    /// What is worth telling of a configuration; no secrets.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            gateway: config.gateway.clone(),
            pool: config.pool.clone(),
            tls: config.tls.is_some(),
            bus: match &config.nats {
                None => "in-process".to_owned(),
                Some(nats) => nats.shown_servers(),
            },
            policies: match &config.policies {
                Policies::Files(paths) => {
                    let names: Vec<_> =
                        paths.iter().map(|path| path.display().to_string()).collect();
                    names.join(", ")
                }
                Policies::Bucket => "NATS bucket".to_owned(),
            },
            shards: config.shards.get(),
            max_connections: config.max_connections,
            open_files: config.open_files,
            default_room: config.default_room.as_ref().map(ToString::to_string),
        }
    }

    /// Says what is served and where: one log line, and for people on a terminal the addresses to open.
    pub fn tell(&self, gateway: &Gateway, for_people: bool) {
        let carried = descriptors::connections(self.open_files);
        if self.max_connections > carried {
            tracing::warn!(
                max_connections = self.max_connections,
                open_files = self.open_files,
                carried,
                "--max-connections is more than the limit of open files carries, and handshakes over that will fail: \
                 raise the limit (ulimit -Hn, LimitNOFILE= in systemd, --ulimit nofile= in Docker) or lower --max-connections",
            );
        }
        let (listen, admin) = (gateway.address(), gateway.admin_address());
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            gateway = self.gateway,
            pool = self.pool,
            %listen,
            %admin,
            tls = self.tls,
            bus = self.bus,
            policies = self.policies,
            rooms = gateway.rooms().len(),
            shards = self.shards,
            max_connections = self.max_connections,
            "serving",
        );
        if !for_people {
            return;
        }
        let mut text = String::from("\n");
        let (pages, sockets) = if self.tls { ("https", "wss") } else { ("http", "ws") };
        let base = format!("{pages}://{}", openable(listen));
        let rooms = gateway.rooms().all();
        if !rooms.is_empty() {
            text.push_str(&format!("  Open a room in a browser, or join it with a WebSocket client ({sockets}://, and an Origin that the room allows):\n"));
        }
        for room in rooms.iter().take(ROOMS_LISTED) {
            text.push_str(&format!("    {base}{}\n", room.name().path()));
        }
        if rooms.len() > ROOMS_LISTED {
            text.push_str(&format!("    … and {} more\n", rooms.len() - ROOMS_LISTED));
        }
        if let Some(room) = &self.default_room {
            text.push_str(&format!("    {base}/ws is {room}\n"));
        }
        let admin = format!("http://{}", openable(admin));
        text.push_str(&format!(
            "  Probes, metrics and rooms, not for the public: {admin}/readyz  {admin}/metrics  {admin}/rooms\n  \
             Ctrl-C drains; twice ends at once.\n\n"
        ));
        say(&text);
    }
}

/// The address as a browser on this machine would be given it.
fn openable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() || address.ip().is_loopback() {
        format!("localhost:{}", address.port())
    } else {
        address.to_string()
    }
}

/// This program, as traces tell of it.
#[must_use]
pub fn program(config: &Config) -> Program {
    Program {
        service: "hubbub-gateway",
        version: env!("CARGO_PKG_VERSION"),
        instance: config.gateway.clone(),
    }
}

/// Says why the program ends: the error, and its causes unless it has told them itself.
pub fn complain(error: &anyhow::Error) {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    let _ = writeln!(std::io::stderr(), "hubbub-gateway: {text}");
}

/// The exit code for an error that ends the program: 2 for what no restart mends, as clap's for a wrong command line, else 1.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let configuration = match error.downcast_ref::<StartError>() {
        Some(
            StartError::Files(_)
            | StartError::Tls(_)
            | StartError::Nats(NatsBusError::Options(_))
            | StartError::BucketWithoutNats,
        ) => true,
        Some(StartError::Listen { .. } | StartError::Nats(_) | StartError::Shards(_)) => false,
        None => error.is::<CliError>() || error.is::<InitError>(),
    };
    if configuration { 2 } else { 1 }
}

/// Says what is wrong with files, one fault a line as editors and CI parse it.
pub fn faulty(faults: &FilesError) {
    let _ = writeln!(std::io::stderr(), "{faults}");
}

/// Says that files are in order.
pub fn in_order(rooms: &[RoomPolicy]) {
    let plural = if rooms.len() == 1 { "room" } else { "rooms" };
    let mut text = format!("in order: {} {plural}\n", rooms.len());
    for policy in rooms {
        text.push_str(&format!("  {} (pool {})\n", policy.room, policy.pool));
    }
    say(&text);
}

/// Says what a drain did.
pub fn receipt(json: &str) {
    say(&format!("{json}\n"));
}

/// To standard output; a reader that went away is no reason to end.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
