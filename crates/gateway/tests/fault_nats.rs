//! NATS killed and frozen under the load of real gateways: members stay, readiness tells, traffic resumes by itself,
//! nothing comes twice, and no member of any gateway misses more than the gateways admit.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says what it expects by failing"
)]

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use hubbub_testkit::{
    GatewayProcess, Member, NatsServer, OPEN, RoomsFile, chat_room, http, within,
};
use tokio::task::JoinSet;

const GATEWAY: &str = env!("CARGO_BIN_EXE_hubbub-gateway");
const ROOMS: usize = 10;
/// Of each room on each gateway.
const MEMBERS: usize = 10;
/// Between two messages of one sender: with ten senders a gateway, 200 messages a second reach each gateway.
const PACE: Duration = Duration::from_millis(100);
/// Ends a message that was said while NATS was known to be away.
const WAITS: &str = "/waits";
const LOST: [&str; 3] = ["away", "unconfirmed", "too_large"];

struct Load {
    _file: RoomsFile,
    gateways: Vec<GatewayProcess>,
    /// By gateway, by room.
    members: Vec<Vec<Vec<Arc<Member>>>>,
    sending: JoinSet<BTreeSet<String>>,
    stop: Arc<AtomicBool>,
    /// Whether all gateways know that NATS is away: what is said now waits, and must reach everybody.
    waits: Arc<AtomicBool>,
    waiting: Arc<AtomicUsize>,
}

impl Load {
    async fn begin(server: &NatsServer, gateways: usize) -> Self {
        let file = RoomsFile::of_text(
            &(0..ROOMS).map(|n| chat_room(&format!("r{n}"), OPEN)).collect::<String>(),
        );
        let mut load = Self {
            _file: file,
            gateways: Vec::new(),
            members: Vec::new(),
            sending: JoinSet::new(),
            stop: Arc::default(),
            waits: Arc::default(),
            waiting: Arc::default(),
        };
        for n in 0..gateways {
            let (url, id) = (server.url(), format!("g{n}"));
            let flags = load._file.flags(&["--nats", &url, "--gateway-id", &id]);
            load.gateways.push(GatewayProcess::start(GATEWAY, &flags).await);
        }
        for gateway in &load.gateways {
            becomes_ready(gateway, true).await;
            let mut rooms = Vec::new();
            for room in 0..ROOMS {
                let mut members = Vec::new();
                for _ in 0..MEMBERS {
                    let path = format!("/rooms/demo/r{room}");
                    let member = Member::join(gateway.listen(), &path, None).await;
                    members.push(Arc::new(member.expect("the room is served")));
                }
                rooms.push(members);
            }
            load.members.push(rooms);
        }
        for (g, rooms) in load.members.iter().enumerate() {
            for (r, members) in rooms.iter().enumerate() {
                let (member, stop) = (Arc::clone(&members[0]), Arc::clone(&load.stop));
                let (waits, waiting) = (Arc::clone(&load.waits), Arc::clone(&load.waiting));
                load.sending.spawn(async move {
                    let mut sent = BTreeSet::new();
                    let mut pace = tokio::time::interval(PACE);
                    while !stop.load(Ordering::SeqCst) {
                        pace.tick().await;
                        let must_wait = waits.load(Ordering::SeqCst);
                        let end = if must_wait { WAITS } else { "" };
                        let text = format!("{r}/{g}/{:06}{end}", sent.len());
                        member.send(&text).await;
                        waiting.fetch_add(usize::from(must_wait), Ordering::SeqCst);
                        sent.insert(text);
                    }
                    sent
                });
            }
        }
        load.crosses("at the beginning").await;
        load
    }

    /// Waits until in each room what is sent at each gateway arrives at every gateway. Each sender speaks again and
    /// again: right after its return a gateway may be back before another one listens.
    async fn crosses(&self, when: &str) {
        for (g, rooms) in self.members.iter().enumerate() {
            for (r, members) in rooms.iter().enumerate() {
                let probe = format!("probe {g}/{r} {when}");
                let heard_by_all = || {
                    let mut hearers = self.members.iter().flat_map(|rooms| &rooms[r]);
                    hearers.all(|member| member.has_heard(&probe))
                };
                within("a probe crosses", async {
                    while !heard_by_all() {
                        members[0].send(&probe).await;
                        tokio::time::sleep(PACE).await;
                    }
                })
                .await;
            }
        }
    }

    /// Lets the senders say so much that has to wait.
    async fn say_while_away(&self, messages: usize) {
        self.waits.store(true, Ordering::SeqCst);
        within("so much is said", async {
            while self.waiting.load(Ordering::SeqCst) < messages {
                tokio::time::sleep(PACE).await;
            }
        })
        .await;
        self.waits.store(false, Ordering::SeqCst);
    }

    async fn metric(&self, name: &str) -> f64 {
        let mut sum = 0.0;
        for gateway in &self.gateways {
            sum += gateway.metric(name).await;
        }
        sum
    }

    /// Ends the load; checks that nobody was disturbed, and that no more is missing anywhere than is admitted.
    async fn settle(mut self, fault: &str) {
        self.stop.store(true, Ordering::SeqCst);
        let mut sent = BTreeSet::new();
        while let Some(one) = self.sending.join_next().await {
            sent.append(&mut one.expect("the sender ends"));
        }
        self.crosses("at the end").await;
        let (mut at_home, mut elsewhere) = (BTreeSet::new(), BTreeSet::new());
        for (g, rooms) in self.members.iter().enumerate() {
            for (r, members) in rooms.iter().enumerate() {
                for member in members {
                    assert!(!member.has_ended(), "no member is disturbed");
                    let texts = member.texts();
                    let got: BTreeSet<_> = texts.iter().cloned().collect();
                    let numbered = texts.iter().filter(|text| !text.starts_with("probe")).count();
                    let distinct = got.iter().filter(|text| !text.starts_with("probe")).count();
                    assert_eq!(distinct, numbered, "nothing comes twice");
                    let of_room = format!("{r}/");
                    for text in sent.iter().filter(|t| t.starts_with(&of_room) && !got.contains(*t))
                    {
                        let own = text.starts_with(&format!("{r}/{g}/"));
                        if own { &mut at_home } else { &mut elsewhere }.insert(text.clone());
                    }
                }
            }
        }
        let mut admitted = 0.0;
        for reason in LOST {
            admitted += self
                .metric(&format!("hubbub_gateway_bus_lost_messages_total{{reason=\"{reason}\"}}"))
                .await;
        }
        assert_eq!(
            self.metric("hubbub_gateway_connections").await as usize,
            self.gateways.len() * ROOMS * MEMBERS
        );
        assert!(!sent.is_empty());
        for (missing, place) in [(at_home, "the sender's gateway"), (elsewhere, "another gateway")]
        {
            let waited: Vec<_> = missing.iter().filter(|text| text.ends_with(WAITS)).collect();
            assert!(
                waited.is_empty(),
                "{fault}: they waited, and are missing on {place}: {waited:?}"
            );
            assert!(
                missing.len() as f64 <= admitted,
                "{fault}: of {} messages {} are missing on {place}, and only {admitted} admitted",
                sent.len(),
                missing.len()
            );
        }
    }
}

async fn becomes_ready(gateway: &GatewayProcess, wanted: bool) {
    within("readiness turns", async {
        while (http::get(gateway.admin(), "/readyz").await.status == 200) != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(http::get(gateway.admin(), "/livez").await.status, 200, "alive all the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_nats_costs_no_member_and_traffic_resumes_by_itself() {
    let mut server = NatsServer::start().await;
    let load = Load::begin(&server, 2).await;
    server.kill9();
    for gateway in &load.gateways {
        becomes_ready(gateway, false).await;
        let ready = http::get(gateway.admin(), "/readyz").await;
        assert!(ready.body.contains("[-] bus: away for"), "{}", ready.body);
    }
    load.say_while_away(200).await;
    server.start_again().await;
    for gateway in &load.gateways {
        becomes_ready(gateway, true).await;
    }
    load.crosses("after the kill").await;
    load.settle("kill -9").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_nats_costs_no_member_and_traffic_resumes_by_itself() {
    let server = NatsServer::start().await;
    let load = Load::begin(&server, 2).await;
    server.pause();
    for gateway in &load.gateways {
        becomes_ready(gateway, false).await;
    }
    load.say_while_away(200).await;
    server.resume();
    for gateway in &load.gateways {
        becomes_ready(gateway, true).await;
    }
    load.crosses("after the freeze").await;
    load.settle("freeze").await;
}
