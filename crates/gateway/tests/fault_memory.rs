//! A gateway in a memory cage: who does not read is evicted long before memory runs out, who finishes no message is sent away before
//! the kernel ends the gateway, and the others miss nothing. Needs root and the kernel's memory cgroups (either version).

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use hubbub_testkit::{
    Client, GatewayProcess, Member, RoomsFile, eventually, raise_descriptors, within,
};
use tokio::net::TcpSocket;

const GATEWAY: &str = env!("CARGO_BIN_EXE_hubbub-gateway");
const LOBBY: &str = "/rooms/demo/lobby";
const MIB: usize = 1024 * 1024;
const READERS: usize = 950;
const DEAF: usize = 50;
/// Of a message; the queue's bound in bytes is a megabyte, so that 50 deaf members alone could take 50 MiB.
const MESSAGE_BYTES: usize = 2_000;

/// A memory cgroup of the test's own, below the one that it runs in. Dropped, it is removed.
struct Cage {
    directory: PathBuf,
    unified: bool,
}

impl Cage {
    fn new(bytes: usize) -> Self {
        let own = std::fs::read_to_string("/proc/self/cgroup").expect("Linux tells the cgroup");
        let first = own.lines().find_map(|line| line.split_once(":memory:")).map(|(_, path)| path);
        let unified = first.is_none();
        let (root, path) = match first {
            Some(path) => ("/sys/fs/cgroup/memory", path),
            None => {
                ("/sys/fs/cgroup", own.lines().find_map(|l| l.strip_prefix("0::")).unwrap_or("/"))
            }
        };
        // In a container the path may be one of the host's, and what is mounted is the own one already.
        let full = Path::new(root).join(path.trim_start_matches('/'));
        let parent = if full.is_dir() { full } else { PathBuf::from(root) };
        let directory = parent.join(format!("hubbub-test-{}-{bytes}", std::process::id()));
        std::fs::create_dir(&directory).unwrap_or_else(|error| {
            panic!(
                "cannot make the memory cgroup {}: {error}; this test needs root and a writable /sys/fs/cgroup",
                directory.display()
            )
        });
        let cage = Self { directory, unified };
        let limit = if unified { "memory.max" } else { "memory.limit_in_bytes" };
        std::fs::write(cage.file(limit), bytes.to_string()).unwrap_or_else(|error| {
            panic!(
                "cannot limit the memory of {}: {error}; is the memory controller on?",
                cage.file(limit).display()
            )
        });
        cage
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The command, run in the cage by way of a shell that enters it first.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg("echo $$ > \"$0\" && exec \"$@\"")
            .arg(self.file("cgroup.procs"))
            .arg(program);
        command.process_group(0);
        command
    }

    fn kills(&self) -> u64 {
        let file = if self.unified { "memory.events" } else { "memory.oom_control" };
        let text = std::fs::read_to_string(self.file(file)).expect("the cage is there");
        let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.and_then(|kills| kills.trim().parse().ok()).expect("kills are counted")
    }

    fn peak(&self) -> String {
        let file = if self.unified { "memory.peak" } else { "memory.max_usage_in_bytes" };
        std::fs::read_to_string(self.file(file)).unwrap_or_default().trim().to_owned()
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        // Fails while the last process in it has not been reaped; an empty directory is left then.
        let _ = std::fs::remove_dir(&self.directory);
    }
}

async fn gateway(cage: &Cage, file: &RoomsFile) -> GatewayProcess {
    let mut command = cage.command(GATEWAY);
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.args(["--log-format", "json"]);
    command.args(file.flags(&[]));
    GatewayProcess::start_command(command).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_64_mib_fifty_members_who_never_read_are_evicted_and_nobody_else_loses_anything() {
    raise_descriptors();
    // On a busy machine the deaf would be out by writeWait before their queues are full; this is about the queues.
    let file = RoomsFile::lobby(
        "allowedOrigins: ['*'], requireOrigin: false, \
         limits: {messagesPerSecond: 100000, burst: 100000, maxMessageBytes: 4096, sendQueue: 256}, \
         heartbeat: {pongWait: 1h, pingPeriod: 59m, writeWait: 5m}",
    );
    let cage = Cage::new(64 * MIB);
    let gateway = gateway(&cage, &file).await;
    let listen = gateway.listen();
    let mut deaf = Vec::new();
    for _ in 0..DEAF {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a new socket");
        let socket = socket.connect(listen).await.expect("the gateway listens");
        deaf.push(Client::join_on(socket, LOBBY, None).await.expect("the room is served"));
    }
    let mut members = Vec::new();
    for _ in 0..READERS {
        members.push(Member::join(listen, LOBBY, None).await.expect("the room is served"));
    }
    let evicted = "hubbub_gateway_connections_closed_total{reason=\"queue_full\",by=\"gateway\"}";
    let mut sent = 0;
    within("the deaf are evicted", async {
        while gateway.metric(evicted).await < DEAF as f64 {
            let text = format!("{sent:06}{}", "x".repeat(MESSAGE_BYTES));
            members[0].send(&text).await;
            sent += 1;
            // All others keep pace, so that only the deaf are slow.
            eventually("all others have it", || {
                members.iter().all(|member| member.count() >= sent)
            })
            .await;
        }
    })
    .await;
    for member in &members {
        assert!(!member.has_ended(), "who reads stays");
        assert_eq!(member.count(), sent, "and misses nothing");
    }
    assert_eq!(gateway.metric(evicted).await, DEAF as f64, "nobody else is evicted");
    assert_eq!(cage.kills(), 0, "the kernel killed nobody");
    println!("{sent} messages; the cage held {} bytes at most", cage.peak());
    drop(deaf);
    drop(gateway);
}

/// Begins a message of four mebibytes, of which the last byte never comes.
async fn begin(client: &mut Client) {
    let size = 4 * MIB;
    let mut bytes = b"\x82\xff".to_vec();
    bytes.extend_from_slice(&(size as u64).to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.resize(bytes.len() + size - 1, 0);
    // Who is sent away does not get all of it out.
    let _ = client.send_bytes(&bytes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_128_mib_members_who_hold_twice_as_much_are_sent_away_and_neither_the_gateway_nor_anybody_else_goes()
 {
    let limits =
        "{allowedOrigins: ['*'], requireOrigin: false, limits: {maxMessageBytes: 4194304}}";
    let file = RoomsFile::new(&[("lobby", limits), ("quiet", limits)]);
    let cage = Cage::new(128 * MIB);
    let gateway = gateway(&cage, &file).await;
    let mut quiet = Vec::new();
    for _ in 0..20 {
        let member = Member::join(gateway.listen(), "/rooms/demo/quiet", None).await;
        quiet.push(member.expect("the room is served"));
    }
    let mut greedy = Vec::new();
    for _ in 0..60 {
        let client = Client::join(gateway.listen(), LOBBY, None).await;
        greedy.push(client.expect("the room is served"));
    }
    within("everything is sent, or its sender sent away", async {
        futures_util::future::join_all(greedy.iter_mut().map(begin)).await;
    })
    .await;
    let shed = "hubbub_gateway_connections_closed_total{reason=\"memory\",by=\"gateway\"}";
    gateway.metric_until(shed, |shed| shed > 0.0).await;
    quiet[0].send("still here").await;
    for member in &quiet {
        member.hears("still here").await;
        assert!(!member.has_ended(), "who holds nothing stays");
    }
    assert_eq!(cage.kills(), 0, "the kernel killed nobody");
    println!("{} sent away; the cage held {} bytes", gateway.metric(shed).await, cage.peak());
    drop(gateway);
}
