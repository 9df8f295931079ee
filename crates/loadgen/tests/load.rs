//! Whole runs against a real server that behaves, and against one that does not: the verifier must
//! notice each fault, and nothing else.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod room;

use std::{
    io::{BufRead, BufReader, Lines, Read, Write},
    net::TcpListener,
    process::{ChildStdout, Command, Stdio},
};

use clap::Parser;
use hubbub_load::{Cli, Plan, Progress, Report, verify::Faults};
use room::{Manners, Server};

/// Members of each room, deliveries of each message.
const MEMBERS: u64 = 8;

/// A short run with `options`, which may override those given here.
fn load(urls: &[String], options: &[&str]) -> Report {
    let mut arguments = vec!["hubbub-load"];
    arguments.extend(urls.iter().map(String::as_str));
    arguments
        .extend("--members=8 --rate=100 --warmup=100ms --duration=300ms --tail=30s".split(' '));
    arguments.extend(options);
    let plan = Plan::new(&Cli::try_parse_from(arguments).unwrap()).unwrap();
    hubbub_load::run(&plan, &mut Progress::quiet()).unwrap()
}

/// The faults of a short run against a server of such manners. The wait for what never comes is
/// short where something is known to be lost.
fn faults(manners: Manners, options: &[&str]) -> Faults {
    let server = Server::start(manners);
    let report = load(&[server.url("/rooms/demo/room-{room}")], options);
    assert_eq!(report.verification.passed, manners == Manners::Good, "{report}");
    report.verification.faults
}

#[test]
fn a_faithful_server_passes_and_every_delivery_is_counted() {
    let server = Server::start(Manners::Good);
    let report = load(
        &[server.url("/rooms/demo/room-{room}")],
        &["--rooms=3", "--publishers=2", "--threads=2"],
    );
    assert!(report.verification.passed, "{report}");
    assert_eq!(report.connecting.connected, 3 * MEMBERS);
    assert_eq!(report.connecting.handshake_ms.count, 3 * MEMBERS);
    // 100 a second for 400 ms in each of 3 rooms, of which 300 ms are measured.
    assert_eq!(report.verification.deliveries, 3 * 40 * MEMBERS);
    assert_eq!(report.load.sent, 3 * 30);
    assert_eq!(report.load.latency_ms.count, 3 * 30 * MEMBERS);
    assert!(report.load.latency_ms.p50 > 0.0);
}

#[test]
fn binary_messages_come_back_as_binary() {
    assert_eq!(faults(Manners::Good, &["--binary"]), Faults::default());
}

#[test]
fn lost_messages_are_noticed() {
    let expected = Faults { missing: MEMBERS, ..Faults::default() };
    assert_eq!(faults(Manners::Drop, &["--tail=2s"]), expected);
}

#[test]
fn doubled_messages_are_noticed() {
    let expected = Faults { doubled: MEMBERS, ..Faults::default() };
    assert_eq!(faults(Manners::Double, &[]), expected);
}

#[test]
fn reordered_messages_are_noticed() {
    let expected = Faults { reordered: MEMBERS, ..Faults::default() };
    assert_eq!(faults(Manners::Swap, &[]), expected);
}

#[test]
fn corrupt_messages_are_noticed_and_missed() {
    let expected = Faults { corrupt: MEMBERS, missing: MEMBERS, ..Faults::default() };
    assert_eq!(faults(Manners::Corrupt, &["--tail=2s"]), expected);
}

#[test]
fn misrouted_messages_are_noticed() {
    let expected = Faults { misrouted: 2 * MEMBERS, ..Faults::default() };
    assert_eq!(faults(Manners::Misroute, &["--rooms=2"]), expected);
}

#[test]
fn members_thrown_out_are_noticed_unless_expected() {
    let server = Server::start(Manners::Close(1008));
    let urls = [server.url("/lobby")];
    let report = load(&urls, &["--reconnect"]);
    assert!(!report.verification.passed, "1008 forbids to come back: {report}");
    assert_eq!((report.verification.thrown_out, report.load.reconnects), (MEMBERS, 0));
    assert_eq!(report.closes[&1008].count, MEMBERS);
}

#[test]
fn members_of_a_restarting_server_come_back() {
    let server = Server::start(Manners::Close(1012));
    // A room for each: a publisher that was closed knows its place in the sequence and goes on.
    let report = load(
        &[server.url("/rooms/demo/room-{room}")],
        &["--rooms=8", "--members=1", "--reconnect", "--duration=6s"],
    );
    assert_eq!(report.closes[&1012].count, MEMBERS);
    assert_eq!(report.load.reconnects, MEMBERS, "within two seconds: {report}");
    assert_eq!(report.verification.thrown_out, 0);
    assert_eq!(report.verification.faults, Faults::default());
}

#[test]
fn leaving_and_joining_members_lose_nothing_between() {
    let server = Server::start(Manners::Good);
    let report = load(&[server.url("/lobby")], &["--churn=50", "--duration=1s"]);
    assert!(report.verification.passed, "{report}");
    assert!(report.load.leaves > 0 && report.load.joins > 0, "{report}");
}

#[test]
fn a_refusal_is_reported_with_its_status() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/lobby", listener.local_addr().unwrap());
    let refuser = std::thread::spawn(move || {
        for _ in 0..MEMBERS {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while request.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
    });
    let report = load(&[url], &[]);
    refuser.join().unwrap();
    assert_eq!(report.connecting.connected, 0);
    let (reason, count) = report.connecting.failures.first_key_value().unwrap();
    assert!(reason.contains("403") && *count == MEMBERS, "{:?}", report.connecting.failures);
    assert!(reason.contains("--origin"), "what may be wrong is said: {reason}");
    assert!(!report.verification.passed);
}

/// A child process that does not outlive its test.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a bare write loop; what it says first is read from the second value.
fn floor(options: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
    let floor = Command::new(env!("CARGO_BIN_EXE_hubbub-floor"))
        .args(options)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut floor = Child(floor);
    let said = BufReader::new(floor.0.stdout.take().unwrap()).lines();
    (floor, said)
}

/// The address in its next line, which begins with these words.
fn address(said: &mut Lines<BufReader<ChildStdout>>, words: &str) -> String {
    let line = said.next().unwrap().unwrap();
    assert!(line.starts_with(words), "{words}, not {line}");
    line[words.len()..].to_owned()
}

#[test]
fn the_program_measures_the_bare_write_loop() {
    for collect in ["0", "5"] {
        let (floor, mut said) = floor(&["--collect", collect]);
        let address = address(&mut said, "listening on ");
        let output = Command::new(env!("CARGO_BIN_EXE_hubbub-load"))
            .arg(format!("ws://{address}/rooms/demo/room-{{room}}"))
            .args("-r5 -m20 -p2 --rate=50 -w0s -d500ms --churn=20 --json=-".split(' '))
            .arg(format!("--server-pid={}", floor.0.id()))
            .output()
            .unwrap();
        let summary = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{summary}");
        assert!(summary.ends_with("PASSED\n"), "{summary}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        // A machine that is busy just then sends the last ones after the window.
        let sent = report["load"]["sent"].as_u64().unwrap();
        assert!((1..=5 * 25).contains(&sent), "{sent}");
        assert!(report["memory"]["after"]["rss"].as_u64().unwrap() > 0);
    }
}

#[test]
fn two_bare_write_loops_serve_the_same_rooms() {
    let free = "127.0.0.1:0";
    let (_first, mut first_said) = floor(&["--relay-listen", free]);
    let relay = address(&mut first_said, "relay on ");
    let (_second, mut second_said) = floor(&["--relay", &relay]);
    let url = |said: &mut Lines<BufReader<ChildStdout>>| {
        format!("ws://{}/rooms/demo/room-{{room}}", address(said, "listening on "))
    };
    let output = Command::new(env!("CARGO_BIN_EXE_hubbub-load"))
        .args([url(&mut first_said), url(&mut second_said)])
        .args("-r5 -m20 -p2 --rate=50 -w0s -d500ms --tail=30s".split(' '))
        .output()
        .unwrap();
    let summary = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && summary.ends_with("PASSED\n"), "{summary}");
}

#[test]
fn the_picture_and_the_percentiles_show_what_the_report_says() {
    let server = Server::start(Manners::Good);
    let folder = tempfile::tempdir().unwrap();
    let [plot, hgrm] = ["plot.svg", "latency.hgrm"].map(|name| folder.path().join(name));
    let output = Command::new(env!("CARGO_BIN_EXE_hubbub-load"))
        .args([&server.url("/lobby"), "-m8", "--rate=100"])
        .args("--warmup=100ms --duration=600ms --tail=30s --quiet --json=-".split(' '))
        .args(["--plot".as_ref(), plot.as_os_str(), "--hgrm".as_ref(), hgrm.as_os_str()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let over_time = report["load"]["over_time"].as_array().unwrap();
    assert_eq!(over_time.len(), 6, "tenths of a second");

    let picture = std::fs::read_to_string(plot).unwrap();
    let picture = roxmltree::Document::parse(&picture).unwrap();
    assert_eq!(picture.root_element().tag_name().name(), "svg");
    let texts = |tag: &str| -> Vec<String> {
        let nodes = picture.descendants().filter(|node| node.has_tag_name(tag));
        nodes.filter_map(|node| node.text().map(str::to_owned)).collect()
    };
    assert!(texts("text").contains(&server.address.to_string()));
    let points = texts("title");
    for slice in over_time {
        let rate = slice["deliveries_per_second"].as_f64().unwrap();
        let begin = format!("{:.1}", slice["at_s"].as_f64().unwrap()).replace("0.0", "0");
        let told =
            points.iter().find(|point| point.starts_with(&begin) && point.contains("deliveries/s"));
        let told = told.unwrap_or_else(|| panic!("nothing of {begin} s in {points:?}"));
        let number: f64 = told.split(' ').rev().nth(1).unwrap().parse().unwrap();
        assert!((number - rate).abs() <= rate / 100.0, "{told}, but {rate}");
    }
    let inside = picture.descendants().filter(|node| node.has_tag_name("circle"));
    for (name, most) in [("cx", 900.0), ("cy", 84.0 + 3.0 * 290.0)] {
        for point in inside.clone() {
            let place: f64 = point.attribute(name).unwrap().parse().unwrap();
            assert!((0.0..=most).contains(&place), "{point:?}");
        }
    }

    let percentiles = std::fs::read_to_string(hgrm).unwrap();
    let count = report["load"]["latency_ms"]["count"].as_u64().unwrap();
    assert!(percentiles.contains(&format!("Total count    = {count:>12}]")), "{percentiles}");
    let max = report["load"]["latency_ms"]["max"].as_f64().unwrap();
    assert!(percentiles.contains(&format!("#[Max     = {max:>12.3},")), "{percentiles}");
}

#[test]
fn a_report_that_could_not_be_kept_is_refused_before_the_run() {
    for option in ["--json", "--plot", "--hgrm"] {
        let output = Command::new(env!("CARGO_BIN_EXE_hubbub-load"))
            .args(["ws://127.0.0.1:9/r", "-m1", option, "/no/such/folder/file"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("cannot write /no/such/folder/file"), "{text}");
    }
}

#[test]
fn without_publishers_there_is_nothing_left_to_measure() {
    let server = Server::start(Manners::CloseSender(1008));
    // An hour, of which nobody would wait for the end.
    let output = Command::new(env!("CARGO_BIN_EXE_hubbub-load"))
        .args([&server.url("/rooms/demo/room-{room}"), "--rooms=2", "--publishers=2", "-m8"])
        .args(["--rate=100", "--warmup=100ms", "--duration=1h", "--tail=1s"])
        .output()
        .unwrap();
    let summary = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{summary}");
    assert!(summary.contains("every publisher was closed or kept out"), "{summary}");
    assert!(summary.contains("4 thrown out") && summary.ends_with("FAILED\n"), "{summary}");
}

#[test]
fn what_cannot_be_run_ends_with_code_two() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hubbub-load"))
        .args(["ws://127.0.0.1:9/r", "-m1", "--server-pid", "4294967295"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2));
    assert!(text.contains("is process 4294967295 running"), "{text}");
}
