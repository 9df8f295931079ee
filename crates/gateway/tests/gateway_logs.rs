//! What clients write of themselves stays within the line of the log that tells of it: nobody forges another, and nobody steers a terminal.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use hubbub_testkit::{Client, GatewayProcess, Handshake, RoomsFile, eventually, within};
use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

const LOBBY: &str = "/rooms/demo/lobby";
const ORIGIN: Option<&str> = Some("https://app.example.com");

/// What a forger would have stand in the log.
const FORGED: &str = "2026-01-01T00:00:00.000000Z ERROR forged";

fn rooms() -> RoomsFile {
    RoomsFile::new(&[("lobby", r#"{allowedOrigins: ["https://app.example.com"]}"#)])
}

/// Writes into everything that a client writes, and then is refused in a way that is logged, so that all before has been.
async fn attack(gateway: SocketAddr) {
    let good = Handshake::new(gateway, LOBBY).with("Origin", "https://app.example.com");
    let breaks = [
        "\r\n",
        "\n",
        "\r",
        "%0d%0a",
        "\\n",
        "\u{2028}",
        "\u{85}",
        "\u{1b}[2J\u{1b}[31m",
        "\u{9b}31m",
        "\u{202e}",
        "\0",
    ];
    for line_break in breaks {
        let text = format!("x{line_break}{FORGED}");
        let spaceless = text.replace(' ', "%20");
        for handshake in [
            Handshake::new(gateway, format!("/rooms/demo/{spaceless}")).with("Origin", "https://a"),
            Handshake::new(gateway, format!("/{spaceless}")),
            Handshake::new(gateway, format!("{LOBBY}?connection={spaceless}")),
            good.clone().set("Origin", &text),
            good.clone().set("Host", &text),
            good.clone().with("User-Agent", &text),
            good.clone().with("traceparent", &text),
            good.clone().with("Authorization", format!("Bearer {text}")),
            good.clone().with("Sec-WebSocket-Protocol", format!("hubbub.v1, {text}")),
            good.clone().set("Sec-WebSocket-Version", &text),
            good.clone().with(&text, "1"),
            good.clone().method(&spaceless),
            good.clone().version(&spaceless),
        ] {
            let mut socket = TcpStream::connect(gateway).await.unwrap();
            // It may be cut before all is written.
            let _ = socket.write_all(&handshake.to_bytes()).await;
            let _ = within("an answer, or the end", socket.readable()).await;
        }
        let mut member = Client::join(gateway, LOBBY, ORIGIN).await.unwrap();
        member.send(&text).await.unwrap();
        let farewell = [&4000_u16.to_be_bytes()[..], text.as_bytes()].concat();
        member.send_frame(true, hubbub_testkit::Opcode::Close, &farewell).await.unwrap();
        assert_eq!(member.close_code().await, Some(4000));
    }
    let last = Handshake::new(gateway, "/rooms/demo/the-last").with("Origin", "https://a");
    assert_eq!(last.answer().await.status, 404);
}

/// What no line may hold.
fn is_plain(line: &str) -> bool {
    !line.contains(|c: char| c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c))
}

#[tokio::test]
async fn a_line_of_json_stays_one_object_whatever_clients_write() {
    let rooms = rooms();
    let gateway =
        GatewayProcess::start(env!("CARGO_BIN_EXE_hubbub-gateway"), &rooms.arguments()).await;
    attack(gateway.listen()).await;
    eventually("the last is logged", || gateway.log().iter().any(|line| line.contains("the-last")))
        .await;
    let log = gateway.log();
    assert!(log.iter().any(|line| line.contains("forged")), "something of it is logged");
    for line in log {
        let parsed: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        assert!(parsed["timestamp"].is_string(), "{line}");
        assert_ne!(parsed["level"], "ERROR", "{line}");
        assert!(is_plain(&line), "{line:?}");
    }
}

/// A gateway that logs as for people; dropped, it ends.
struct Talking(Child);

impl Drop for Talking {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap()
}

#[tokio::test]
async fn a_line_of_text_begins_with_its_own_time_and_level_whatever_clients_write() {
    let (rooms, log) = (rooms(), tempfile::NamedTempFile::new().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_hubbub-gateway"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HUBBUB_") {
            command.env_remove(name);
        }
    }
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.args(["--log", "debug", "--log-format", "text"]).args(rooms.arguments());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.reopen().unwrap());
    let _gateway = Talking(command.spawn().unwrap());
    let mut listen = None;
    eventually("it serves", || {
        let told = read(log.path());
        let line = told.lines().find(|line| line.contains(" serving "));
        let word =
            line.and_then(|line| line.split(' ').find_map(|word| word.strip_prefix("listen=")));
        listen = word.and_then(|address| address.parse().ok());
        listen.is_some()
    })
    .await;
    attack(listen.unwrap()).await;
    eventually("the last is logged", || read(log.path()).contains("the-last")).await;
    let told = read(log.path());
    assert!(told.contains("forged"), "something of it is logged");
    for line in told.lines() {
        let (time, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        assert!(time.starts_with("20") && time.ends_with('Z') && time.len() == 27, "{line:?}");
        let level = rest.split_whitespace().next().unwrap_or_default();
        assert!(["INFO", "DEBUG", "WARN"].contains(&level), "{line:?}");
        assert!(is_plain(line), "{line:?}");
    }
}
