//! Clients whose network goes away without a word: no FIN, no reset. Needs root, and `ip` of iproute2.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::{
    process::Command,
    time::{Duration, Instant},
};

use hubbub_testkit::{GatewayProcess, Member, OPEN, RoomsFile, eventually, within};

const GATEWAY: &str = env!("CARGO_BIN_EXE_hubbub-gateway");
const LOBBY: &str = "/rooms/demo/lobby";
const VANISHING: usize = 200;
const STAYING: usize = 20;

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap_or_else(|error| {
        panic!("cannot run ip: {error}; this test needs iproute2 (apt-get install iproute2)")
    });
    assert!(
        output.status.success(),
        "ip {arguments}: {}; this test needs root and network namespaces",
        String::from_utf8_lossy(&output.stderr).trim()
    );
}

/// A network namespace for the gateway, and two links into it. Dropped, all of it is removed.
struct Network {
    name: String,
    /// One of the 64 networks of four addresses each, of those set aside for tests (RFC 2544).
    slot: u32,
}

impl Network {
    fn new() -> Self {
        let pid = std::process::id();
        let network = Self { name: format!("hub{pid}"), slot: pid % 8_000 };
        ip(&format!("netns add {}", network.name));
        for link in [0, 1] {
            let Self { name, .. } = &network;
            ip(&format!(
                "link add {} type veth peer name in{link} netns {name}",
                network.link(link)
            ));
            ip(&format!("addr add {}/30 dev {}", network.address(link, 1), network.link(link)));
            ip(&format!("link set {} up", network.link(link)));
            ip(&format!("-n {name} addr add {}/30 dev in{link}", network.address(link, 2)));
            ip(&format!("-n {name} link set in{link} up"));
        }
        network
    }

    fn link(&self, link: u32) -> String {
        format!("{}-{link}", self.name)
    }

    fn address(&self, link: u32, end: u32) -> String {
        let offset = self.slot * 8 + link * 4 + end;
        std::net::Ipv4Addr::from_bits(u32::from_be_bytes([198, 18, 0, 0]) + offset).to_string()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The links go with it.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_whose_network_is_gone_are_out_after_pong_wait_and_the_others_stay() {
    let network = Network::new();
    let file = RoomsFile::lobby(&format!("{OPEN}, heartbeat: {{pongWait: 6s, pingPeriod: 2s}}"));
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &network.name, GATEWAY, "--log-format", "json"]);
    command.args(["--listen", "0.0.0.0:0", "--admin-listen"]);
    command.arg(format!("{}:0", network.address(1, 2))).args(file.flags(&[]));
    let gateway = GatewayProcess::start_command(command).await;
    let by_link = |link| {
        let address = network.address(link, 2).parse().expect("an address");
        std::net::SocketAddr::new(address, gateway.listen().port())
    };
    let mut vanishing = Vec::new();
    for _ in 0..VANISHING {
        vanishing.push(Member::join(by_link(0), LOBBY, None).await.expect("the room is served"));
    }
    let mut staying = Vec::new();
    for _ in 0..STAYING {
        staying.push(Member::join(by_link(1), LOBBY, None).await.expect("the room is served"));
    }
    staying[0].send("before").await;
    vanishing[0].hears("before").await;
    let connections = "hubbub_gateway_connections";
    assert_eq!(gateway.metric(connections).await, (VANISHING + STAYING) as f64);

    ip(&format!("link set {} down", network.link(0)));
    let begun = Instant::now();
    within("they are out", async {
        while gateway.metric(connections).await > STAYING as f64 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    println!("{VANISHING} half-open members were out after {:?}", begun.elapsed());
    let told = gateway.find_all("connection ended unexpectedly");
    assert_eq!(told.len(), VANISHING, "each is told once");
    assert!(told.iter().all(|line| line["reason"] == "pong_timeout"), "{:?}", told.first());
    staying[0].send("after").await;
    for member in &staying {
        member.hears("after").await;
        assert!(!member.has_ended());
    }
    eventually("the vanished know nothing", || vanishing.iter().all(|m| !m.has_heard("after")))
        .await;
}
