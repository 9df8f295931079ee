//! The command line of `hubbub-load`.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use clap::Parser;

use crate::protocol::Protocol;

/// Put load on WebSocket rooms and verify every delivery.
///
/// Works with any server whose rooms relay what one member sends to all members, the sender
/// included, byte for byte, and with Centrifugo and NATS by their own protocols. Messages are sent on a fixed schedule, whatever the server does, and
/// latency counts from the scheduled time. Each delivery is checked: missing, doubled, reordered,
/// misrouted and corrupt ones are counted, and any of them makes the exit code 1.
#[derive(Clone, Debug, Parser)]
#[command(version, max_term_width = 100, args_override_self = true, after_help = EXAMPLES)]
pub struct Cli {
    /// Room address, such as ws://127.0.0.1:8080/rooms/demo/lobby; wss:// for TLS. With several rooms it holds
    /// {room}, which becomes 1, 2, 3 and so on. With several addresses (gateways of one deployment) the
    /// members of each room take turns over them.
    #[arg(required = true, value_name = "URL")]
    pub urls: Vec<String>,

    /// What the server speaks inside the WebSocket frames.
    #[arg(long, value_enum, default_value_t)]
    pub protocol: Protocol,

    /// Name of each room's channel (Centrifugo) or subject (NATS); with several rooms it holds {room}. A plain room is
    /// its address.  [default: room-{room}]
    #[arg(long, value_name = "NAME")]
    pub channel: Option<String>,

    /// What each member shows to get in: a JWT of Centrifugo, a token of NATS.
    #[arg(long, env = "HUBBUB_LOAD_TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// Members in each room.
    #[arg(short, long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub members: u32,

    /// Rooms; more than one needs {room} in the address.
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    pub rooms: u32,

    /// Members of each room that send, in turn; they read as well.
    #[arg(short, long, default_value_t = 1)]
    pub publishers: u32,

    /// Messages a second in each room, shared by its publishers. 0: nobody sends, the members are
    /// held and answer pings.
    #[arg(long, default_value_t = 10.0, value_parser = rate, value_name = "PER_SECOND")]
    pub rate: f64,

    /// Bytes in each message; at least 32, for what it says about itself.
    #[arg(short, long, default_value_t = 128, value_parser = size, value_name = "BYTES")]
    pub size: usize,

    /// Send binary messages instead of text (the bytes are printable either way).
    #[arg(long)]
    pub binary: bool,

    /// How long to measure: 500ms, 10s, 5m.
    #[arg(short, long, default_value = "10s", value_parser = duration)]
    pub duration: Duration,

    /// How long to send before measuring; verified as well, but not part of the figures.
    #[arg(short, long, default_value = "2s", value_parser = duration)]
    pub warmup: Duration,

    /// How long to hold the members quietly, once connected, before anything is sent; their
    /// memory is read at its end.
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub idle: Duration,

    /// How long to wait, after the last message was sent, for what is still under way; counted
    /// anew with whatever arrives.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub tail: Duration,

    /// New connections a second; 0: as fast as the concurrency allows.
    #[arg(long, default_value_t = 0.0, value_parser = rate, value_name = "PER_SECOND")]
    pub ramp: f64,

    /// Handshakes under way at once.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: u32,

    /// A handshake that takes longer has failed.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub connect_timeout: Duration,

    /// Value of the Origin header; without it none is sent, as by a program that is no browser.
    #[arg(long)]
    pub origin: Option<String>,

    /// PEM certificates of the authorities that servers at wss:// are trusted by, instead of the system's.
    #[arg(long, value_name = "FILE", conflicts_with = "tls_insecure")]
    pub tls_ca: Option<PathBuf>,

    /// Trust whatever certificate a server at wss:// shows.
    #[arg(long)]
    pub tls_insecure: bool,

    /// Local addresses to connect from, taken in turn. One address has about 28,000 ports for one
    /// server; loopback has 127.0.0.1, 127.0.0.2 and so on without further ado.
    #[arg(long, value_delimiter = ',', value_name = "IP,...")]
    pub source_addresses: Vec<Ipv4Addr>,

    /// Members that leave, and as many that join, a second over all rooms. Publishers stay.
    #[arg(long, default_value_t = 0.0, value_parser = rate, value_name = "PER_SECOND")]
    pub churn: f64,

    /// Members of each room that never read until the measuring is over. What the server does with
    /// them is reported by close code and is no failure.
    #[arg(long, default_value_t = 0)]
    pub slow: u32,

    /// Come back after a close as the close code asks: 1012 after a short random wait; 1011, 1013
    /// and broken connections with backoff; 1007, 1008, 1009, 4401, 4403, 4404 not at all.
    #[arg(long)]
    pub reconnect: bool,

    /// Close codes that are no failure, such as 1012 when a drain is being watched. When all members
    /// are closed the run ends at once. 1006 stands for a connection that ends without a close.
    #[arg(long, value_delimiter = ',', value_name = "CODE,...")]
    pub expect_close: Vec<u16>,

    /// Threads that drive the connections; one serves millions of deliveries a second.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,

    /// Processes of the server, if it runs on this machine: their CPU time and memory are reported.
    #[arg(long, value_delimiter = ',', value_name = "PID,...")]
    pub server_pid: Vec<u32>,

    /// Write the whole report to this file, as JSON; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Draw latency and throughput over time, and the curve of percentiles, as SVG.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,

    /// Write all percentiles of the latency in the text form of HdrHistogram, in milliseconds.
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,

    /// Print no progress and no summary.
    #[arg(short, long)]
    pub quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  One room of 1,000 members, 50 messages a second:
    hubbub-load ws://127.0.0.1:8080/rooms/demo/lobby -m 1000 --rate 50 --origin https://chat.example.com
  A hundred rooms over two gateways, with the cost of both:
    hubbub-load 'ws://127.0.0.1:8081/rooms/demo/room-{room}' 'ws://127.0.0.1:8082/rooms/demo/room-{room}' \\
      -r 100 -m 20 --rate 5 --server-pid 4711,4712
  Watch a drain: hold 10,000 members and see when each is closed:
    hubbub-load ws://127.0.0.1:8080/rooms/demo/lobby -m 10000 --rate 0 -d 60s --expect-close 1012
  Centrifugo, and NATS by its own WebSocket listener:
    hubbub-load ws://127.0.0.1:8000/connection/websocket --protocol centrifugo --channel 'chat:{room}' -r 10
    hubbub-load ws://127.0.0.1:9222/ --protocol nats --channel 'chat.{room}' -r 10
With OTEL_EXPORTER_OTLP_ENDPOINT set, each handshake is traced and the server told of it (traceparent).
Exit codes: 0 all verified; 1 a delivery or a connection failed; 2 the load could not be run.";

/// A rate: finite and not negative.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(rate),
        _ => Err("a number of 0 or more a second is wanted, such as 50 or 0.5".to_owned()),
    }
}

fn size(text: &str) -> Result<usize, String> {
    let least = crate::payload::STAMP_BYTES;
    match text.parse() {
        Ok(size) if (least..=MAX_SIZE).contains(&size) => Ok(size),
        _ => Err(format!("a number of bytes from {least} to {MAX_SIZE} is wanted")),
    }
}

/// Largest message: a frame and its masked copy stay small beside the sockets' own buffers.
const MAX_SIZE: usize = 1 << 20;

/// A duration as people and Kubernetes write it: a number and `ms`, `s`, `m` or `h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => f64::NAN,
    };
    match digits.parse::<f64>().map(|number| Duration::try_from_secs_f64(number * factor)) {
        Ok(Ok(duration)) => Ok(duration),
        _ => Err("a number with a unit is wanted: 500ms, 10s, 5m or 1h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn durations() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        for wrong in ["", "10", "s", "-1s", "10 s", "1d", "nans", "1e99h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(rate("0.5"), Ok(0.5));
        assert!(rate("-1").is_err() && rate("inf").is_err() && rate("fast").is_err());
        assert_eq!(size("32"), Ok(32));
        assert!(size("31").is_err() && size("2000000").is_err());
    }
}
