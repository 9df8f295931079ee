//! The wall clock jumps by an hour, forward and back, while members are in a room: only the monotonic clock counts.
//! Needs libfaketime.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::{path::PathBuf, process::Command};

use hubbub_testkit::{GatewayProcess, Member, OPEN, RoomsFile, eventually};

const GATEWAY: &str = env!("CARGO_BIN_EXE_hubbub-gateway");
const LOBBY: &str = "/rooms/demo/lobby";
const MEMBERS: usize = 20;

fn faketime() -> PathBuf {
    let directories = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut places = directories.map(|d| d.path().join("faketime/libfaketimeMT.so.1"));
    places.find(|place| place.is_file()).expect(
        "this test needs libfaketime, and there is none in /usr/lib (apt-get install faketime)",
    )
}

/// The hour of the newest log line, as the gateway's wall clock had it.
fn hour(gateway: &GatewayProcess, path: &str) -> Option<u32> {
    let refused = gateway.find_all("handshake refused");
    let line = refused.iter().find(|line| line.to_string().contains(path))?;
    line["timestamp"].as_str()?.get(11..13)?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_stay_when_the_wall_clock_jumps_by_an_hour_and_back() {
    let file =
        RoomsFile::lobby(&format!("{OPEN}, heartbeat: {{pongWait: 30s, pingPeriod: 200ms}}"));
    let offset = file.directory().join("offset");
    std::fs::write(&offset, "+0\n").unwrap();
    let mut command = Command::new(GATEWAY);
    command.env("LD_PRELOAD", faketime()).env("FAKETIME_TIMESTAMP_FILE", &offset);
    command.env("FAKETIME_NO_CACHE", "1").env("DONT_FAKE_MONOTONIC", "1");
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.args(["--log", "info,hubbub_gateway=debug", "--log-format", "json"]);
    command.args(file.flags(&[]));
    let gateway = GatewayProcess::start_command(command).await;
    let mut members = Vec::new();
    for _ in 0..MEMBERS {
        members.push(Member::join(gateway.listen(), LOBBY, None).await.expect("served"));
    }
    let mut hours = Vec::new();
    for (step, jump) in ["+0", "+3600", "-3600", "+0"].into_iter().enumerate() {
        std::fs::write(&offset, format!("{jump}\n")).unwrap();
        let pings: Vec<_> = members.iter().map(Member::pings).collect();
        eventually("pings go on", || {
            members.iter().zip(&pings).all(|(member, before)| member.pings() >= before + 3)
        })
        .await;
        members[0].send(&format!("step {step}")).await;
        for member in &members {
            member.hears(&format!("step {step}")).await;
        }
        // A line of the log shows what time the gateway believes that it is.
        let path = format!("/rooms/demo/none-{step}");
        Member::join(gateway.listen(), &path, None).await.expect_err("no such room");
        eventually("it is logged", || hour(&gateway, &path).is_some()).await;
        hours.extend(hour(&gateway, &path));
    }
    let [before, later, earlier, _] = hours[..] else { panic!("{hours:?}") };
    assert!(later != before && earlier != before && later != earlier, "it jumped: {hours:?}");
    assert!(members.iter().all(|member| !member.has_ended()), "nobody is disturbed");
    assert_eq!(gateway.metric("hubbub_gateway_connections").await, MEMBERS as f64);
}
