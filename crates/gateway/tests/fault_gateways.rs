//! Gateways killed, and all their clients coming back at once; and what is left after much coming and going.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::{net::SocketAddr, process::Command, time::Duration};

use hubbub_testkit::{
    Client, GatewayProcess, Member, NatsServer, OPEN, RoomsFile, eventually, raise_descriptors,
    within,
};
use rustix::process::Signal;
use tokio::{net::TcpSocket, task::JoinSet};

const GATEWAY: &str = env!("CARGO_BIN_EXE_hubbub-gateway");
const LOBBY: &str = "/rooms/demo/lobby";

async fn join(server: SocketAddr) -> Member {
    Member::join(server, LOBBY, None).await.expect("the room is served")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_gateway_harms_only_its_own_members_and_the_others_take_them() {
    const MEMBERS: usize = 200;
    let server = NatsServer::start().await;
    let file = RoomsFile::lobby(OPEN);
    let mut gateways = Vec::new();
    let mut members = Vec::new();
    for id in ["a", "b", "c"] {
        let url = server.url();
        let flags = file.flags(&["--nats", &url, "--gateway-id", id]);
        let gateway = GatewayProcess::start(GATEWAY, &flags).await;
        let mut here = Vec::new();
        for _ in 0..MEMBERS {
            here.push(join(gateway.listen()).await);
        }
        gateways.push(gateway);
        members.push(here);
    }
    let (others, own) = (members.split_off(1), members.swap_remove(0));
    let mut expected = Vec::new();
    for n in 0..300 {
        if n == 100 {
            gateways[0].signal(Signal::KILL);
        }
        let text = format!("{n:04}");
        others[n % 2][0].send(&text).await;
        // Its own copy sets the pace, so that the order is certain.
        others[n % 2][0].hears(&text).await;
        expected.push(text);
    }
    for member in others.iter().flatten() {
        member.hears("0299").await;
        assert_eq!(member.texts(), expected, "nothing missed, nothing twice, in order");
        assert!(!member.has_ended());
    }
    for member in &own {
        assert_eq!(member.ended().await, None, "nobody could say goodbye");
    }
    let mut back = Vec::new();
    for n in 0..MEMBERS {
        back.push(join(gateways[1 + n % 2].listen()).await);
    }
    others[0][0].send("welcome back").await;
    for member in &back {
        member.hears("welcome back").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_clients_that_lose_their_gateway_at_once_are_all_back() {
    const HERD: usize = 5_000;
    raise_descriptors();
    let file = RoomsFile::lobby(OPEN);
    let mut first = GatewayProcess::start(GATEWAY, &file.flags(&[])).await;
    let listen = first.listen();
    let mut joining = JoinSet::new();
    for _ in 0..HERD {
        joining.spawn(async move { join(listen).await });
    }
    let members = within("all are in", joining.join_all()).await;
    first.signal(Signal::KILL);
    first.ended().await;
    let mut returning = JoinSet::new();
    for member in members {
        returning.spawn(async move {
            member.ended().await;
            let socket = loop {
                // From another address: one that happened to leave from the gateway's own port would meet itself.
                let socket = TcpSocket::new_v4().expect("a socket");
                socket.bind(SocketAddr::from(([127, 0, 0, 2], 0))).expect("a free port");
                match socket.connect(listen).await {
                    Ok(socket) => break socket,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            };
            Member::of(Client::join_on(socket, LOBBY, None).await.expect("the room is served"))
        });
    }
    let mut command = Command::new(GATEWAY);
    command.args(["--listen", &listen.to_string(), "--admin-listen", "127.0.0.1:0"]);
    command.args(["--log-format", "json"]).args(file.flags(&[]));
    let second = GatewayProcess::start_command(command).await;
    let back = within("all are back", returning.join_all()).await;
    // A client has its answer a moment before its connection is counted.
    second.metric_until("hubbub_gateway_connections", |count| count == HERD as f64).await;
    back[0].send("all back").await;
    eventually("all hear it", || back.iter().all(|member| member.has_heard("all back"))).await;
    assert!(back.iter().all(|member| !member.has_ended()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_much_coming_and_going_nothing_is_left_over() {
    const VISITS: usize = 1_000;
    let server = NatsServer::start().await;
    let file = RoomsFile::lobby(OPEN);
    let url = server.url();
    let gateway = GatewayProcess::start(GATEWAY, &file.flags(&["--nats", &url])).await;
    let files =
        || std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).expect("it runs").count();
    let connected = "hubbub_gateway_bus_connected";
    within("the bus is connected", async {
        while gateway.metric(connected).await < 1.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let before = {
        drop(join(gateway.listen()).await);
        at_rest(&gateway).await;
        files()
    };
    let listen = gateway.listen();
    let mut visiting = JoinSet::new();
    for n in 0..VISITS {
        if visiting.len() == 50 {
            visiting.join_next().await.expect("one is under way").expect("the visit ends well");
        }
        visiting.spawn(async move {
            let mut client = Client::join(listen, LOBBY, None).await.expect("the room is served");
            client.send(&n.to_string()).await.expect("still open");
            if n % 3 == 0 {
                client.send_close(1000).await.expect("still open");
                assert_eq!(client.close_code().await, Some(1000));
            } else if n % 3 == 1 {
                // In the middle of a message.
                client.send_bytes(&[0x01, 0x85, 1]).await.expect("still open");
            }
        });
    }
    visiting.join_all().await;
    at_rest(&gateway).await;
    // Fewer is well too: `before` may have caught the end of a request for metrics.
    eventually("all files are closed", || files() <= before).await;
    let opened = gateway.metric("hubbub_gateway_connections_opened_total").await;
    let answer = hubbub_testkit::http::get(gateway.admin(), "/metrics").await;
    let closed: f64 = answer
        .body
        .lines()
        .filter(|line| line.starts_with("hubbub_gateway_connections_closed_total{"))
        .filter(|line| !line.contains("never_entered"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum();
    assert_eq!((opened, closed), (VISITS as f64 + 1.0, VISITS as f64 + 1.0));
    assert_eq!(gateway.metric("hubbub_gateway_panics_total").await, 0.0);
}

/// Waits until no connection is left, and no room is subscribed to.
async fn at_rest(gateway: &GatewayProcess) {
    within("nobody is left", async {
        while gateway.metric("hubbub_gateway_connections").await
            + gateway.metric("hubbub_gateway_bus_subscriptions").await
            > 0.0
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
