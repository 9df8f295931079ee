//! Room names that mean something to a file system, a URL or NATS: none leads anywhere, and nothing of them reaches
//! the bus.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use hubbub_testkit::{
    Client, GatewayProcess, Handshake, NatsServer, Received, RoomsFile, http, within,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const LOBBY: &str = "/rooms/demo/lobby";

/// What an attacker writes in place of the room's name, as bytes of the request line.
fn names() -> Vec<Vec<u8>> {
    let plain = [
        "*",
        ">",
        "lobby.*",
        "lobby.>",
        "lobby*",
        "lobby>",
        ".",
        "..",
        "...",
        "lobby.",
        ".lobby",
        "lob..by",
        "$JS.API.>",
        "_INBOX.>",
        "$SYS.>",
        "$KV.hubbub-policies.>",
        "%2a",
        "%3e",
        "%2e",
        "%2e%2e",
        "..%2flobby",
        "%2e%2e%2fdemo%2flobby",
        "lobby%00",
        "lobby%0d%0aPUB%20hubbub.room.demo.lobby%202%0d%0ahi%0d%0a",
        "%6cobby",
        "%256cobby",
        "lobby%20",
        "lobby+",
        "lobby;x=y",
        "lobby/",
        "lobby/x",
        "./lobby",
        "x/../lobby",
        "../demo/lobby",
        "\\lobby",
        "Lobby",
        "LOBBY",
        "lobby,lobby",
        "lobby:443",
        "demo/lobby",
        "",
        "%",
        "%zz",
        "lobby\u{0}",
        "lob\tby",
        "lob by",
        "lobby\u{200b}",
        "lоbby",
        "ｌobby",
        "\u{202e}ybbol",
        "lobby\u{301}",
        "%F0%9F%92%A9",
        "lobby\r\nPUB hubbub.room.demo.lobby 2\r\nhi\r\n",
        "lobby\nX-Other: 1",
        "-lobby",
        "lobby-",
        "xn--lobby",
        "${jndi:ldap://x}",
        "'; DROP TABLE rooms; --",
        "<script>",
    ];
    let mut names: Vec<Vec<u8>> = plain.iter().map(|name| name.as_bytes().to_vec()).collect();
    names.extend([64, 1_000, 10_000, 17_000, 70_000].map(|length| vec![b'a'; length]));
    // Overlong encodings of "/" and of NUL, and half a character.
    names.extend([
        b"..\xc0\xaflobby".to_vec(),
        b"lobby\xc0\x80".to_vec(),
        b"lobby\xe2\x82".to_vec(),
    ]);
    names
}

/// Whole targets that are not simply a name.
const TARGETS: [&str; 16] = [
    "//rooms/demo/lobby",
    "/rooms//lobby",
    "/rooms/demo",
    "/rooms/",
    "/rooms",
    "/rooms/*/lobby",
    "/rooms/>/lobby",
    "/rooms/demo.lobby",
    "/rooms/demo%2flobby",
    "/ROOMS/demo/lobby",
    "/rooms/DEMO/lobby",
    "/%72ooms/demo/lobby",
    "/rooms/demo/lobby/../lobby",
    "rooms/demo/lobby",
    "*",
    "/ws",
];

/// Sends the handshake and then a frame that no room may get; everything that comes back, until the server closes.
async fn all_answered(gateway: &GatewayProcess, target: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(gateway.listen()).await.unwrap();
    let handshake = Handshake::new(gateway.listen(), target).with("Origin", "https://a.example");
    let mut bytes = handshake.set("Connection", "Upgrade, close").to_bytes();
    bytes.extend_from_slice(b"\x81\x88\0\0\0\0injected");
    let _ = socket.write_all(&bytes).await;
    let mut answer = Vec::new();
    // A reset ends it as well.
    let _ = within("the connection's end", socket.read_to_end(&mut answer)).await;
    answer
}

async fn every_name_is_refused(gateway: &GatewayProcess) {
    let mut member =
        Client::join(gateway.listen(), LOBBY, Some("https://a.example")).await.unwrap();
    let targets = names().into_iter().map(|name| [b"/rooms/demo/".as_slice(), &name].concat());
    for target in targets.chain(TARGETS.iter().map(|target| target.as_bytes().to_vec())) {
        let answer = all_answered(gateway, &target).await;
        let shown = String::from_utf8_lossy(&target[..target.len().min(100)]).into_owned();
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 4"), "{shown:?}: {text}");
        assert!(!text.contains("secret"), "{shown:?}: {text}");
        // What is said in the room now is for its members alone.
        member.send("secret").await.unwrap();
        assert_eq!(member.next_message().await, Received::Text("secret".to_owned()), "{shown:?}");
    }
    let overview = http::get(gateway.admin(), "/rooms").await.body;
    let overview: serde_json::Value = serde_json::from_str(&overview).unwrap();
    assert_eq!(overview["connections"], 1, "{overview}");
    assert_eq!(overview["rooms"].as_array().map(Vec::len), Some(2), "{overview}");
    assert_eq!(gateway.metric("hubbub_gateway_panics_total").await, 0.0);
}

fn rooms() -> RoomsFile {
    let spec = r#"{allowedOrigins: ["*"], limits: {messagesPerSecond: 10000, burst: 10000}}"#;
    RoomsFile::new(&[("lobby", spec), ("other", spec)])
}

#[tokio::test]
async fn no_name_but_a_room_s_own_leads_into_it() {
    let rooms = rooms();
    let program = env!("CARGO_BIN_EXE_hubbub-gateway");
    let gateway = GatewayProcess::start(program, &rooms.arguments()).await;
    every_name_is_refused(&gateway).await;
}

#[tokio::test]
async fn no_name_becomes_a_subscription() {
    let (rooms, nats) = (rooms(), NatsServer::start().await);
    let mut arguments = rooms.arguments();
    arguments.extend(["--nats".to_owned(), nats.url()]);
    let program = env!("CARGO_BIN_EXE_hubbub-gateway");
    let gateway = GatewayProcess::start(program, &arguments).await;
    gateway.metric_until("hubbub_gateway_bus_connected", |connected| connected == 1.0).await;
    // What the gateway itself needs, one member in the lobby included.
    let mut member =
        Client::join(gateway.listen(), LOBBY, Some("https://a.example")).await.unwrap();
    member.send("first").await.unwrap();
    assert_eq!(member.next_message().await, Received::Text("first".to_owned()));
    let before = nats.subscriptions().await;
    assert!(before.iter().any(|subject| subject == "hubbub.room.demo.lobby"), "{before:?}");
    member.send_close(1000).await.unwrap();
    assert_eq!(member.close_code().await, Some(1000));

    every_name_is_refused(&gateway).await;

    let _stays = Client::join(gateway.listen(), LOBBY, Some("https://a.example")).await.unwrap();
    let mut after = nats.subscriptions().await;
    after.retain(|subject| !before.contains(subject));
    assert_eq!(after, Vec::<String>::new(), "subjects that were not there before");
    let wild = before.iter().filter(|subject| subject.starts_with("hubbub.room"));
    assert!(wild.clone().all(|subject| subject == "hubbub.room.demo.lobby"), "{before:?}");
}
