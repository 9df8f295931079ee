//! The command line of the real program: what it accepts, what it says, and how it ends.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::process::{Command, Output};

use clap::CommandFactory as _;
use hubbub_gateway::cli::Cli;
use hubbub_testkit::{
    GatewayProcess, Member, OPEN, RoomsFile, chat_room, eventually, http, within,
};

const GATEWAY: &str = env!("CARGO_BIN_EXE_hubbub-gateway");

/// Runs the program to its end, without the environment variables that it knows but those given.
fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(GATEWAY);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HUBBUB_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).envs(environment.iter().copied()).output().expect("it can be run")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_lists_the_rooms_of_a_good_file() {
    let file = RoomsFile::of_text(&(chat_room("lobby", OPEN) + &chat_room("other", OPEN)));
    let output = run(&["check", &file.path().to_string_lossy()], &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = text(&output.stdout);
    assert!(said.contains("in order: 2 rooms"), "{said}");
    assert!(said.contains("demo/lobby") && said.contains("demo/other"), "{said}");
}

#[test]
fn check_tells_the_faults_of_every_file() {
    let one = RoomsFile::of_text(&chat_room("lobby", "allowedOrigins: ['*'], limits: {burst: 0}"));
    let two = RoomsFile::of_text(&chat_room("other", "allowedOrigin: ['*']"));
    let (first, second) = (one.path(), two.path());
    let output = run(&["check", &first.to_string_lossy(), &second.to_string_lossy()], &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    for (path, field) in [(first, "spec.limits.burst"), (second, "spec.allowedOrigin")] {
        let path = path.display().to_string();
        let told = said.lines().any(|line| line.contains(&path) && line.contains(field));
        assert!(told, "{field} in\n{said}");
    }
}

#[test]
fn check_names_file_line_field_and_remedy() {
    let file = RoomsFile::of_text(
        &(chat_room("lobby", "allowedOrigins: ['*'], limits: {burst: 0}")
            + &chat_room("other", "allowedOrigin: ['*']")),
    );
    let path = file.path().to_string_lossy().into_owned();
    let output = run(&["check", &path], &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = text(&output.stderr);
    assert!(said.contains(&format!("{path}:4: spec.limits.burst: ")), "{said}");
    assert!(said.contains("1 to 1000000"), "{said}");
    assert!(said.contains(&format!("{path}:9: spec.allowedOrigin")), "{said}");
    assert!(said.contains("allowedOrigins"), "the right name is said: {said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn wrong_flags_are_answered_in_words_and_with_code_2() {
    let file = RoomsFile::lobby(OPEN);
    let rooms = file.path().to_string_lossy().into_owned();
    for (arguments, words) in [
        (&[][..], "give --rooms FILE"),
        (&["--roms", "x"], "--rooms"),
        (&["--rooms", &rooms, "--listen", "8080"], "127.0.0.1:8080"),
        (&["--rooms", &rooms, "--drain-settle", "5"], "60s"),
        (&["--rooms", &rooms, "--drain-deadline", "1s"], "--drain-settle plus --drain-window"),
        (&["--rooms", &rooms, "--nats-user", "me"], "--nats"),
        (&["--rooms", &rooms, "--policies", "nats"], "--policies nats"),
        (&["--rooms", &rooms, "--nats", "http://a"], "nats://host:port"),
        (&["--rooms", &rooms, "--log", "a=b=c"], "a=b=c"),
        (&["check"], "FILE"),
        (&["chekc", &rooms], "check"),
    ] {
        let output = run(arguments, &[]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    }
}

#[test]
fn a_rooms_file_that_is_not_there_is_named() {
    let file = RoomsFile::lobby(OPEN);
    let path = file.directory().join("none.yaml").to_string_lossy().into_owned();
    // For `check`, faults are what it has found.
    for (arguments, code) in [
        (&["--rooms", &path, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"][..], 2),
        (&["check", &path], 1),
    ] {
        let output = run(arguments, &[]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(text(&output.stderr).contains(&path), "{output:?}");
    }
}

#[test]
fn a_port_in_use_is_named_with_its_flag() {
    let file = RoomsFile::lobby(OPEN);
    let rooms = file.path().to_string_lossy().into_owned();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (used, free) in [("--listen", "--admin-listen"), ("--admin-listen", "--listen")] {
        let output = run(&["--rooms", &rooms, used, &address, free, "127.0.0.1:0"], &[]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&address) && said.contains(&format!("with {used}")), "{said}");
        assert_eq!(said.matches("in use").count(), 1, "the cause is said once: {said}");
    }
}

#[test]
fn a_drain_without_a_gateway_says_so() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = run(&["drain", "--admin", &unused.to_string()], &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains(&format!("no gateway listens on {unused}")), "{said}");
}

#[test]
fn help_teaches_each_flag_and_its_variable() {
    let output = run(&["--help"], &[]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for flag in [
        "listen",
        "admin-listen",
        "tls-certificate",
        "tls-key",
        "rooms",
        "policies",
        "default-room",
        "pool",
        "gateway-id",
        "nats",
        "drain-settle",
        "drain-window",
        "drain-deadline",
        "shards",
        "max-connections",
        "log",
        "log-format",
    ] {
        let variable = format!("HUBBUB_{}", flag.to_uppercase().replace('-', "_"));
        assert!(help.contains(&format!("--{flag} ")), "--{flag} in\n{help}");
        assert!(help.contains(&variable), "{variable} in\n{help}");
    }
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("several with spaces or commas between"), "of --rooms");
    assert!(help.contains("Examples:") && help.contains("check") && help.contains("drain"));
    assert_eq!(run(&["--version"], &[]).status.code(), Some(0));
}

#[test]
fn secrets_in_the_environment_are_not_in_the_help() {
    let output =
        run(&["--help"], &[("HUBBUB_NATS_PASSWORD", "hunter2"), ("HUBBUB_NATS_TOKEN", "hunter3")]);
    assert!(!text(&output.stdout).contains("hunter"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_environment_does_as_well_as_flags() {
    let file = RoomsFile::lobby(OPEN);
    let mut command = Command::new("env");
    command.arg(format!("HUBBUB_ROOMS={}", file.path().display()));
    command.args(["HUBBUB_LISTEN=127.0.0.1:0", "HUBBUB_ADMIN_LISTEN=127.0.0.1:0"]);
    command.args([
        "HUBBUB_DEFAULT_ROOM=demo/lobby",
        "HUBBUB_LOG_FORMAT=json",
        "HUBBUB_GATEWAY_ID=by-env",
    ]);
    command.arg(GATEWAY);
    let gateway = GatewayProcess::start_command(command).await;
    assert_eq!(gateway.find("serving").expect("it serves")["gateway"], "by-env");
    Member::join(gateway.listen(), "/ws", None).await.expect("the default room is served");
}

/// The program on free ports, with a JSON log, started by a shell that first does as `before` says.
fn after(before: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{before}; exec \"$0\" \"$@\""), GATEWAY]);
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.args(["--log-format", "json"]).args(arguments);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_variable_that_is_set_to_nothing_counts_as_not_set() {
    let file = RoomsFile::lobby(OPEN);
    let variables: Vec<String> = Cli::command()
        .get_arguments()
        .filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned()))
        .collect();
    assert!(variables.iter().any(|name| name == "HUBBUB_NATS"));
    let empty = format!("export {}=", variables.join("= "));
    let rooms = file.path().to_string_lossy().into_owned();
    let gateway = GatewayProcess::start_command(after(&empty, &["--rooms", &rooms])).await;
    let told = gateway.find("serving").expect("it serves");
    assert_eq!(
        (told["bus"].as_str(), told["pool"].as_str()),
        (Some("in-process"), Some("default"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_connections_than_files_may_be_open_are_warned_about() {
    let file = RoomsFile::lobby(OPEN);
    let rooms = file.path().to_string_lossy().into_owned();
    for (connections, warned) in [("1000", true), ("44", false)] {
        let flags = ["--rooms", &rooms, "--max-connections", connections];
        let gateway = GatewayProcess::start_command(after("ulimit -n 300", &flags)).await;
        let warning = "--max-connections is more than the limit of open files carries";
        let told = gateway.log().into_iter().find(|line| line.contains(warning));
        assert_eq!(told.is_some(), warned, "{told:?}");
        if let Some(told) = told {
            assert!(told.contains("\"open_files\":300") && told.contains("ulimit"), "{told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_default_room_that_is_not_declared_is_told_at_start_and_at_its_address() {
    let file = RoomsFile::lobby(OPEN);
    let gateway =
        GatewayProcess::start(GATEWAY, &file.flags(&["--default-room", "demo/later"])).await;
    let warning = "the room of --default-room is not declared: /ws answers 404 until it is";
    eventually("it is told", || gateway.find(warning).is_some()).await;
    assert_eq!(gateway.find(warning).expect("told")["room"], "demo/later");
    let answer = http::get(gateway.listen(), "/ws").await;
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("demo/later") && answer.body.contains("--default-room"));

    file.replace(&(chat_room("lobby", OPEN) + &chat_room("later", OPEN)));
    within("the room is served", async {
        while Member::join(gateway.listen(), "/ws", None).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(gateway.find_all(warning).len(), 1);
}
