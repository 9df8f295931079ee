//! The drain of the real program: who begins it, what members get, when it ends and with which exit code.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::{
    process::Command,
    time::{Duration, Instant},
};

use hubbub_testkit::{
    Client, GatewayProcess, Member, OPEN, Received, RoomsFile, eventually, http, raise_descriptors,
    within,
};
use rustix::process::Signal;
use serde_json::Value;
use tokio::task::JoinSet;

const GATEWAY: &str = env!("CARGO_BIN_EXE_hubbub-gateway");
const LOBBY: &str = "/rooms/demo/lobby";
const QUICK: [&str; 6] =
    ["--drain-settle", "0s", "--drain-window", "100ms", "--drain-deadline", "30s"];

/// How a drain is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Terminate,
    Interrupt,
    Hook,
    HookAndTerminate,
}

async fn members(gateway: &GatewayProcess, count: usize) -> Vec<Member> {
    let mut members = Vec::with_capacity(count);
    for _ in 0..count {
        members.push(Member::join(gateway.listen(), LOBBY, None).await.expect("it is served"));
    }
    members
}

fn receipt(gateway: &GatewayProcess) -> Value {
    gateway.find("drained").expect("the receipt is logged")
}

async fn phase(gateway: &GatewayProcess) -> Value {
    let rooms = http::get(gateway.admin(), "/rooms").await;
    serde_json::from_str::<Value>(&rooms.body).expect("JSON")["phase"].clone()
}

async fn drains(by: By) {
    let file = RoomsFile::lobby(OPEN);
    let mut gateway = GatewayProcess::start(GATEWAY, &file.flags(&QUICK)).await;
    let members = members(&gateway, 3).await;
    let hook = || {
        // As by default: a port of whatever addresses the gateway has. This one has only 127.0.0.1.
        let admin = format!(":{}", gateway.admin().port());
        Command::new(GATEWAY)
            .args(["drain", "--admin", &admin])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("the hook can be started")
    };
    let asked = matches!(by, By::Hook | By::HookAndTerminate).then(hook);
    match by {
        By::Terminate => gateway.terminate(),
        By::Interrupt => gateway.signal(Signal::INT),
        By::Hook => {}
        By::HookAndTerminate => {
            eventually("the hook has begun the drain", || {
                !gateway
                    .find_all("drain begun: not ready any more, handshakes still served")
                    .is_empty()
            })
            .await;
            // Once its members are gone it may be gone before the signal comes; that is as good.
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_raw(gateway.pid().cast_signed()).expect("a pid"),
                Signal::TERM,
            );
        }
    }
    for member in &members {
        assert_eq!(member.ended().await, Some(1012), "{by:?}");
    }
    assert_eq!(gateway.ended().await.code(), Some(0), "{by:?}");
    let begun = gateway.find_all("drain begun: not ready any more, handshakes still served");
    assert_eq!(begun.len(), 1, "{by:?}: one drain, whoever else asks");
    let told = receipt(&gateway);
    assert_eq!((&told["moved"], &told["cut"]), (&3.into(), &0.into()), "{by:?}");
    if let Some(hook) = asked {
        let output = hook.wait_with_output().expect("the hook ends");
        assert!(output.status.success(), "{by:?}: the hook ends well");
        let printed: Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");
        assert_eq!((&printed["moved"], &printed["cut"]), (&3.into(), &0.into()), "{by:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_alone_drains() {
    drains(By::Terminate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigint_alone_drains() {
    drains(By::Interrupt).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hook_alone_drains_and_prints_the_receipt() {
    drains(By::Hook).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_after_the_hook_joins_its_drain() {
    drains(By::HookAndTerminate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_are_served_while_it_settles_and_refused_after() {
    let file = RoomsFile::lobby(OPEN);
    let flags = ["--drain-settle", "3s", "--drain-window", "20s", "--drain-deadline", "50s"];
    let mut gateway = GatewayProcess::start(GATEWAY, &file.flags(&flags)).await;
    // So many that they are still leaving while this test looks.
    let early = members(&gateway, 20).await;
    let begun = Instant::now();
    gateway.terminate();
    let mut ready = http::get(gateway.admin(), "/readyz").await;
    while ready.status == 200 {
        ready = http::get(gateway.admin(), "/readyz").await;
    }
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("[-] draining: yes"), "{}", ready.body);
    assert_eq!(http::get(gateway.admin(), "/livez").await.status, 200);
    let mut late = None;
    if phase(&gateway).await == "settling" {
        let joined = Member::join(gateway.listen(), LOBBY, None).await;
        // Unless this test was held up for seconds, the handshake came in time.
        if phase(&gateway).await == "settling" {
            let joined = joined.expect("handshakes are served while it settles");
            early[0].send("still here").await;
            joined.hears("still here").await;
            late = Some(joined);
        }
    }
    let refused = loop {
        match Client::join(gateway.listen(), LOBBY, None).await {
            Ok(_) => {}
            Err(answer) => break answer,
        }
    };
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("retry-after"), Some("2"));
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    assert!(refused.body.contains("draining"), "{}", refused.body);
    // Only now: it may be the last to go, and the gateway ends with it.
    if let Some(late) = late {
        assert_eq!(late.ended().await, Some(1012));
    }
    assert_eq!(gateway.ended().await.code(), Some(0));
    let first = early.iter().filter_map(Member::closed_at).min().expect("all were sent away");
    assert!(first.duration_since(begun) >= Duration::from_secs(3), "not while it settles");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_member_is_written_before_its_close_frame() {
    let file = RoomsFile::lobby(OPEN);
    let mut gateway = GatewayProcess::start(GATEWAY, &file.flags(&QUICK)).await;
    let mut slow = Client::join(gateway.listen(), LOBBY, None).await.expect("it is served");
    let quick = Member::join(gateway.listen(), LOBBY, None).await.expect("it is served");
    // More than the kernel's buffers hold on their own, less than evicts a member.
    let queued = "hubbub_gateway_deliveries_total{path=\"queued\"}";
    let mut sent = 0;
    while gateway.metric(queued).await < 5.0 {
        sent += 1;
        quick.send(&format!("{sent:06}{}", "x".repeat(60_000))).await;
        eventually("the sender has its copy", || quick.count() == sent).await;
    }
    gateway.terminate();
    assert_eq!(quick.ended().await, Some(1012));
    let mut got = 0;
    loop {
        match slow.next_message().await {
            Received::Text(text) => {
                got += 1;
                assert!(text.starts_with(&format!("{got:06}")), "in order and without a gap");
            }
            Received::Close(close) => {
                assert_eq!(close.map(|(code, _)| code), Some(1012));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, sent);
    slow.send_close(1012).await.expect("still open");
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert_eq!(receipt(&gateway)["cut"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_before_the_close_came_still_reaches_the_others() {
    let file = RoomsFile::lobby(OPEN);
    let flags = ["--drain-settle", "0s", "--drain-window", "2s", "--drain-deadline", "30s"];
    let mut gateway = GatewayProcess::start(GATEWAY, &file.flags(&flags)).await;
    // With so many, half of them are still there when the first is sent away.
    let others = members(&gateway, 30).await;
    let mut leaving = Vec::new();
    for _ in 0..30 {
        leaving.push(Client::join(gateway.listen(), LOBBY, None).await.expect("it is served"));
    }
    gateway.terminate();
    eventually("the first member is sent away", || {
        others.iter().any(|member| member.close_code().is_some())
    })
    .await;
    // None of these has read its close frame yet, and some have got it.
    for (n, client) in leaving.iter_mut().enumerate() {
        client.send(&format!("from {n}")).await.expect("still open");
    }
    for client in &mut leaving {
        assert_eq!(client.close_code().await, Some(1012));
        client.send_close(1012).await.expect("still open");
    }
    assert_eq!(gateway.ended().await.code(), Some(0));
    let mut heard_of = std::collections::BTreeSet::new();
    for member in &others {
        heard_of.extend(member.texts());
    }
    assert_eq!(heard_of.len(), leaving.len(), "each message reached somebody: {heard_of:?}");
    assert_eq!(receipt(&gateway)["cut"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    for (second, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let file = RoomsFile::lobby(OPEN);
        let flags = ["--drain-settle", "300s", "--drain-window", "1s", "--drain-deadline", "301s"];
        let mut gateway = GatewayProcess::start(GATEWAY, &file.flags(&flags)).await;
        let member = Member::join(gateway.listen(), LOBBY, None).await.expect("it is served");
        gateway.terminate();
        eventually("the drain has begun", || {
            gateway.find("drain begun: not ready any more, handshakes still served").is_some()
        })
        .await;
        gateway.signal(second);
        assert_eq!(gateway.ended().await.code(), Some(code));
        assert_eq!(member.ended().await, None, "there was no time for a close frame");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_cuts_who_does_not_read() {
    let file = RoomsFile::lobby(OPEN);
    let flags = ["--drain-settle", "0s", "--drain-window", "100ms", "--drain-deadline", "2s"];
    let mut gateway = GatewayProcess::start(GATEWAY, &file.flags(&flags)).await;
    let deaf = Client::join(gateway.listen(), LOBBY, None).await.expect("it is served");
    let quick = Member::join(gateway.listen(), LOBBY, None).await.expect("it is served");
    let queued = "hubbub_gateway_deliveries_total{path=\"queued\"}";
    while gateway.metric(queued).await < 5.0 {
        quick.send(&"x".repeat(60_000)).await;
    }
    gateway.terminate();
    assert_eq!(gateway.ended().await.code(), Some(0));
    let told = receipt(&gateway);
    assert_eq!((&told["moved"], &told["cut"]), (&1.into(), &1.into()));
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_answers_the_close_does_not_hold_up_the_end() {
    let file = RoomsFile::lobby(OPEN);
    let mut gateway = GatewayProcess::start(GATEWAY, &file.flags(&QUICK)).await;
    let silent = Client::join(gateway.listen(), LOBBY, None).await.expect("it is served");
    gateway.terminate();
    assert_eq!(gateway.ended().await.code(), Some(0));
    let told = receipt(&gateway);
    assert_eq!((&told["moved"], &told["cut"]), (&1.into(), &0.into()), "it was told to go");
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_members_leave_evenly_and_none_is_cut() {
    const MEMBERS: usize = 5_000;
    const PARTS: usize = 5;
    raise_descriptors();
    let file = RoomsFile::lobby(OPEN);
    let flags = ["--drain-settle", "0s", "--drain-window", "15s", "--drain-deadline", "55s"];
    let mut gateway = GatewayProcess::start(GATEWAY, &file.flags(&flags)).await;
    let listen = gateway.listen();
    let mut joining = JoinSet::new();
    let mut members = Vec::with_capacity(MEMBERS);
    for _ in 0..MEMBERS {
        if joining.len() == 64 {
            members.push(joining.join_next().await.expect("one is under way").expect("it joins"));
        }
        joining
            .spawn(async move { Member::join(listen, LOBBY, None).await.expect("it is served") });
    }
    members.extend(joining.join_all().await);
    members[0].send("to all").await;
    eventually("all have heard it", || members.iter().all(|member| member.has_heard("to all")))
        .await;
    let begun = Instant::now();
    gateway.terminate();
    within("all leave", async {
        for member in &members {
            assert_eq!(member.ended().await, Some(1012));
        }
    })
    .await;
    assert_eq!(gateway.ended().await.code(), Some(0));
    let told = receipt(&gateway);
    assert_eq!((&told["moved"], &told["cut"]), (&MEMBERS.into(), &0.into()));
    assert_eq!(told["bus_flushed"], true);

    let times: Vec<_> = members.iter().filter_map(Member::closed_at).collect();
    assert_eq!(times.len(), MEMBERS);
    let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    let span = last.duration_since(*first).max(Duration::from_millis(1));
    // A busy machine makes it longer, and nothing makes it shorter.
    let taken = last.duration_since(begun);
    assert!(taken >= Duration::from_secs(13), "they left within {taken:?} of a window of 15 s");
    let mut shares = [0; PARTS];
    for time in &times {
        let part = time.duration_since(*first).as_secs_f64() / span.as_secs_f64();
        // Truncated on purpose: it is an index.
        shares[((part * PARTS as f64) as usize).min(PARTS - 1)] += 1;
    }
    assert!(
        shares.iter().all(|share| *share >= MEMBERS / 20),
        "each fifth of the time has a share of the closes, whatever else the machine does: {shares:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_all_vanish_while_they_wait_to_be_sent_away_do_no_harm() {
    const MEMBERS: usize = 4_000;
    raise_descriptors();
    let file = RoomsFile::lobby(OPEN);
    let flags = ["--drain-settle", "0s", "--drain-window", "10ms", "--drain-deadline", "50s"];
    let mut gateway = GatewayProcess::start(GATEWAY, &file.flags(&flags)).await;
    let listen = gateway.listen();
    let mut joining = JoinSet::new();
    let mut silent = Vec::with_capacity(MEMBERS);
    for _ in 0..MEMBERS {
        if joining.len() == 64 {
            silent.push(joining.join_next().await.expect("one is under way").expect("it joins"));
        }
        joining
            .spawn(async move { Client::join(listen, LOBBY, None).await.expect("it is served") });
    }
    silent.extend(joining.join_all().await);
    gateway.terminate();
    eventually("members are being sent away", || {
        gateway.find("drain: handshakes refused, members are being sent away").is_some()
    })
    .await;
    // Frozen, the gateway learns of all of them at the same moment, and each reset makes room for the next one.
    gateway.signal(Signal::STOP);
    for client in &mut silent {
        socket2::SockRef::from(&*client.socket())
            .set_linger(Some(Duration::ZERO))
            .expect("an open socket");
    }
    drop(silent);
    gateway.signal(Signal::CONT);
    assert_eq!(gateway.ended().await.code(), Some(0), "{:?}", gateway.log().last());
    assert_eq!(receipt(&gateway)["cut"], 0);
}
