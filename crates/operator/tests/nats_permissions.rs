//! The permissions that `hubbub-operator nats-permissions` prints, on a real server: with them gateways and operator do all that they do, each
//! line of them is needed, and who has stolen a gateway's login can do nothing else.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod chat;
mod support;

use std::path::Path;

use futures_util::StreamExt as _;
use hubbub_api::{
    GatewayReport, RoomPolicy, Statement,
    names::{BUCKET, BUCKET_STREAM, REPORT_WILDCARD, statement_key},
    permissions::{Grant, OPERATOR_INBOX, Permissions},
};
use hubbub_operator::{cli::PermissionsFormat, nats_permissions};
use hubbub_testkit::{
    Auth, Client, GatewayProcess, NatsConfig, NatsServer, NatsUser, Received, eventually, http,
    within,
};
use nats::{
    HeaderMap,
    datetime::DateTime,
    jetstream::{self, stream},
};
use serde_json::json;

/// The password of all users.
const PASSWORD: &str = "s3cret";

/// Who may do everything.
const ADMIN: &str = "admin";

/// A server whose users have these lists.
async fn server(permissions: String) -> NatsServer {
    let user = |name: &str, permissions: Option<&str>| NatsUser {
        name: name.to_owned(),
        password: PASSWORD.to_owned(),
        permissions: permissions.map(str::to_owned),
    };
    let limited = [Permissions::gateway(&[]), Permissions::operator()];
    let mut users: Vec<_> =
        limited.iter().map(|limited| user(limited.user, Some(limited.variable))).collect();
    users.push(user(ADMIN, None));
    let auth = Auth::Users { permissions, users };
    NatsServer::start_with(NatsConfig { auth, ..NatsConfig::default() }).await
}

/// What the command prints.
fn printed() -> String {
    nats_permissions::text(PermissionsFormat::Conf, &[])
}

/// The subjects that the server has refused somebody, in order.
fn refusals(log: &Path) -> Vec<String> {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    let refused = log.lines().filter_map(|line| line.split_once(" Violation - Subject \""));
    refused.map(|(_, rest)| rest.split('"').next().unwrap_or_default().to_owned()).collect()
}

/// Whether the subject falls under the pattern, as NATS compares them.
fn covers(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(wanted), Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_permissions_that_are_printed_everything_works() {
    let mut server = server(printed()).await;
    chat::all_of_it(&mut server).await;
    assert_eq!(refusals(&server.log_file()), [""; 0]);
}

/// Both users, with this line of this list of this user left out.
fn without(user: usize, publish: bool, line: usize) -> (Grant, String) {
    let mut users = [Permissions::gateway(&[]), Permissions::operator()];
    let lists = &mut users[user];
    let list = if publish { &mut lists.publish } else { &mut lists.subscribe };
    let left_out = list.remove(line);
    (left_out, users.each_ref().map(Permissions::configuration).join(""))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_one_line_something_is_refused() {
    let users = [Permissions::gateway(&[]), Permissions::operator()];
    for (user, lists) in users.iter().enumerate() {
        for (publish, list) in [(true, &lists.publish), (false, &lists.subscribe)] {
            for line in 0..list.len() {
                let (left_out, permissions) = without(user, publish, line);
                let mut server = server(permissions).await;
                let log = server.log_file();
                let refused = || {
                    let refused = refusals(&log);
                    assert!(
                        refused.iter().all(|subject| covers(&left_out.subject, subject)),
                        "only for want of {left_out:?}: {refused:?}"
                    );
                    !refused.is_empty()
                };
                tokio::select! {
                    () = eventually("something is refused", refused) => {}
                    () = chat::all_of_it(&mut server) => {
                        panic!("{} does all that it does without {left_out:?}", lists.user);
                    }
                }
            }
        }
    }
}

/// The stolen login.
async fn thief(server: &NatsServer) -> nats::Client {
    let Permissions { user, inbox, .. } = Permissions::gateway(&[]);
    server.client_as(user, PASSWORD, inbox).await
}

/// What the bucket is, when it was made, and all that it holds.
type Contents = (stream::Config, DateTime, Vec<(u64, String, Vec<u8>)>);

async fn contents(server: &NatsServer) -> Contents {
    let context = jetstream::new(server.client_as(ADMIN, PASSWORD, "_INBOX_admin").await);
    let stream = context.get_stream(BUCKET_STREAM).await.unwrap();
    let info = stream.cached_info();
    let mut held = Vec::new();
    for sequence in info.state.first_sequence..=info.state.last_sequence {
        // Where nothing is, something was replaced.
        if let Ok(message) = stream.get_raw_message(sequence).await {
            held.push((sequence, message.subject.to_string(), message.payload.to_vec()));
        }
    }
    (info.config.clone(), info.created, held)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_gateway_login_changes_no_policy_and_hears_nobody_else() {
    let server = server(printed()).await;
    let operator = chat::Operator::start(&server).await;
    operator.publish("lobby").await;
    let before = contents(&server).await;
    let thief = thief(&server).await;
    let log = server.log_file();

    let mut open_to_all = chat::policy("lobby");
    open_to_all.generation += 1;
    let forged = open_to_all.to_json().unwrap();
    let denied = Statement { id: Some(u64::MAX), ..Statement::default() }.to_json().unwrap();
    let header = |name: &str, value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(name, value);
        headers
    };
    let none = HeaderMap::new;
    let kv = |key: &str| format!("$KV.{BUCKET}.{key}");
    let api = |name: &str| format!("$JS.API.{name}.{BUCKET_STREAM}");
    // By the subject of old. The one by which gateways read on after a break takes it: see the test of consumers that last.
    let durable = format!("{}.thief", api("CONSUMER.DURABLE.CREATE"));
    let acts = [
        ("put a policy", kv("demo.lobby"), none(), forged.clone()),
        ("delete one", kv("demo.lobby"), header("KV-Operation", "DEL"), Vec::new()),
        ("purge one", kv("demo.lobby"), header("Nats-Rollup", "sub"), Vec::new()),
        ("make a room", kv("demo.new"), none(), forged),
        ("speak as the operator", kv(&statement_key("hubbub/hubbub")), none(), denied.clone()),
        ("speak as another operator", kv(&statement_key("other/hubbub")), none(), denied),
        ("delete the bucket", api("STREAM.DELETE"), none(), Vec::new()),
        ("change the bucket", api("STREAM.UPDATE"), none(), b"{}".to_vec()),
        ("make the bucket", api("STREAM.CREATE"), none(), b"{}".to_vec()),
        ("empty the bucket", api("STREAM.PURGE"), none(), Vec::new()),
        ("delete a message", api("STREAM.MSG.DELETE"), none(), b"{\"seq\": 1}".to_vec()),
        ("restore a bucket", api("STREAM.RESTORE"), none(), b"{}".to_vec()),
        ("make a stream of its own", "$JS.API.STREAM.CREATE.own".to_owned(), none(), Vec::new()),
        ("list streams", "$JS.API.STREAM.NAMES".to_owned(), none(), Vec::new()),
        ("make a consumer that lasts, as of old", durable, none(), b"{}".to_vec()),
        ("list consumers", api("CONSUMER.LIST"), none(), Vec::new()),
        ("pull", format!("{}.any", api("CONSUMER.MSG.NEXT")), none(), Vec::new()),
        ("get directly", api("DIRECT.GET"), none(), b"{}".to_vec()),
        ("answer the operator", format!("{OPERATOR_INBOX}.any"), none(), Vec::new()),
        ("ask the system", "$SYS.REQ.SERVER.PING".to_owned(), none(), Vec::new()),
    ];
    for (act, subject, headers, payload) in acts {
        let known = refusals(&log).len();
        thief.publish_with_headers(subject.clone(), headers, payload.into()).await.unwrap();
        eventually(&format!("NATS refuses to {act}"), || {
            refusals(&log)[known..].contains(&subject)
        })
        .await;
    }
    let operators = format!("{OPERATOR_INBOX}.>");
    for subject in
        [">", "*.>", "hubbub.>", "$SYS.>", "$JS.API.>", "$JS.>", "$KV.>", "_INBOX.>", &operators]
    {
        let known = refusals(&log).len();
        let _heard = thief.subscribe(subject.to_owned()).await.unwrap();
        eventually(&format!("NATS refuses to hear {subject}"), || {
            refusals(&log)[known..].iter().any(|refused| refused == subject)
        })
        .await;
    }
    assert_eq!(contents(&server).await, before);

    // And that was no wonder of a login that can do nothing at all.
    let context = jetstream::new(thief);
    let stream = context.get_stream(BUCKET_STREAM).await.unwrap();
    assert_eq!(stream.cached_info().config.name, BUCKET_STREAM);
    let (_, _, held) = &before;
    let (.., lobby) = held.iter().find(|(_, subject, _)| *subject == kv("demo.lobby")).unwrap();
    assert_eq!(RoomPolicy::from_json(lobby).unwrap(), chat::policy("lobby"));
}

/// Permissions end where NATS acts itself: it answers to any subject that who asks has named, so a stolen login has it write an answer in place of a
/// policy. Who reads the bucket must bear that.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nats_writes_over_a_policy_is_none_and_is_mended() {
    let server = server(printed()).await;
    let operator = chat::Operator::start(&server).await;
    operator.publish("lobby").await;
    let gateway = chat::gateway(&server, "one").await;
    let mut member = chat::join(&gateway, "lobby").await;
    let thief = thief(&server).await;
    let kv = |key: &str| format!("$KV.{BUCKET}.{key}");
    let ask = format!("$JS.API.STREAM.INFO.{BUCKET_STREAM}");

    // The gateway refuses it, and the operator sees that there is no policy, and writes it again.
    thief.publish_with_reply(ask.clone(), kv("demo.lobby"), "".into()).await.unwrap();
    eventually("the policy is overwritten", || {
        let entry = operator.bucket.entry("demo.lobby");
        entry.present && entry.policy.is_none()
    })
    .await;
    support::until("the gateway refuses what stands there", async || {
        http::get(gateway.admin(), "/rooms").await.body.contains("demo.lobby at revision ")
    })
    .await;
    talks(&gateway, &mut member).await;
    operator.publish("lobby").await;
    support::until("nothing is refused any more", async || {
        !http::get(gateway.admin(), "/rooms").await.body.contains("demo.lobby at revision ")
    })
    .await;

    // Nor does an answer say that rooms are gone.
    let own = statement_key("hubbub/hubbub");
    let last = operator.bucket.last();
    thief.publish_with_reply(ask, kv(&own), "".into()).await.unwrap();
    eventually("the statement is overwritten", || operator.bucket.last() > last).await;
    operator.publish("behind").await;
    drop(chat::join(&gateway, "behind").await);
    talks(&gateway, &mut member).await;
}

/// Nor do the answers hold up rooms, wherever they are written: what is nobody's is taken out, and the statement stands again.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nats_writes_anywhere_hold_up_no_room_and_are_taken_out() {
    let server = server(printed()).await;
    let operator = chat::Operator::start(&server).await;
    operator.publish("lobby").await;
    let gateway = chat::gateway(&server, "one").await;
    drop(chat::join(&gateway, "lobby").await);
    let thief = thief(&server).await;
    let ask = format!("$JS.API.STREAM.INFO.{BUCKET_STREAM}");
    let own = statement_key("hubbub/hubbub");
    let strays = ["junk", "a.b.c", "j\u{fc}nk", "*", "*.x", "_junk", "_operator.evil.x"];
    // The last is a room's of a namespace that nobody looks after, so it stays where it is.
    for key in strays.into_iter().chain([&*own, "elsewhere.room"]) {
        let last = operator.bucket.last();
        thief
            .publish_with_reply(ask.clone(), format!("$KV.{BUCKET}.{key}"), "".into())
            .await
            .unwrap();
        eventually("NATS has written its answer", || operator.bucket.last() > last).await;
    }
    eventually("what is nobody's is gone", || {
        strays.iter().all(|key| !operator.bucket.entry(key).present)
    })
    .await;
    let admin = jetstream::new(server.client_as(ADMIN, PASSWORD, "_INBOX_admin").await);
    let stream = admin.get_stream(BUCKET_STREAM).await.unwrap();
    let newest = async |key: &str| {
        let subject = format!("$KV.{BUCKET}.{key}");
        stream.get_last_raw_message_by_subject(&subject).await.unwrap()
    };
    support::until("the statement stands again", async || {
        Statement::from_json(&newest(&own).await.payload).is_ok()
    })
    .await;
    assert!(operator.bucket.owes_statement(), "it is to be said again that all is published");
    for key in strays {
        assert!(newest(key).await.payload.is_empty(), "{key}");
    }

    let mut reports = operator.client.subscribe(REPORT_WILDCARD).await.unwrap();
    operator.publish("behind").await;
    let published = operator.bucket.entry("demo.behind").revision;
    let applied = async {
        loop {
            let message = reports.next().await.unwrap();
            if GatewayReport::from_json(&message.payload).unwrap().applied_revision >= published {
                break;
            }
        }
    };
    within("the gateway tells that it runs what was published afterwards", applied).await;
    let told = http::get(gateway.admin(), "/rooms").await.body;
    assert!(told.contains("elsewhere.room at revision "), "still told as a fault: {told}");
}

/// A consumer hands what it reads to the subject that its maker names, in NATS' own name.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_of_a_stolen_login_writes_nothing_and_deletes_nothing() {
    let server = server(printed()).await;
    let operator = chat::Operator::start(&server).await;
    operator.publish("lobby").await;
    let before = contents(&server).await;
    let thief = thief(&server).await;
    let make = async |subject: &str| {
        let config = json!({
            "deliver_subject": subject, "headers_only": true, "ack_policy": "none",
            "deliver_policy": "last", "replay_policy": "instant", "max_deliver": 1,
        });
        let asked = json!({"stream_name": BUCKET_STREAM, "config": config, "action": ""});
        let make = format!("$JS.API.CONSUMER.CREATE.{BUCKET_STREAM}");
        let made = thief.request(make, asked.to_string().into()).await.unwrap();
        String::from_utf8(made.payload.to_vec()).unwrap()
    };
    let refused = make(&format!("$KV.{BUCKET}.demo.other")).await;
    assert!(refused.contains("forms a cycle"), "{refused}");
    let admin = server.client_as(ADMIN, PASSWORD, "_INBOX_admin").await;
    for api in ["STREAM.DELETE", "STREAM.PURGE"] {
        // NATS hands it over only where somebody listens, so that this is no proof otherwise.
        let subject = format!("$JS.API.{api}.{BUCKET_STREAM}");
        let mut heard = admin.subscribe(subject.clone()).await.unwrap();
        admin.flush().await.unwrap();
        let made = make(&subject).await;
        assert!(made.contains("\"name\""), "{made}");
        let handed = within("what the consumer hands over", heard.next()).await.unwrap();
        assert!(handed.payload.is_empty(), "as the API wants it: {handed:?}");
    }
    // NATS takes such requests one after the other, so those before have been looked at when this one is answered.
    let own = stream::Config { name: "own".to_owned(), ..stream::Config::default() };
    jetstream::new(admin).create_stream(own).await.unwrap();
    assert_eq!(contents(&server).await, before);
}

/// What a thief asks NATS for: a consumer of that name that lasts, by the right to read on after a break, which every gateway has.
async fn make_durable(thief: &nats::Client, name: &str, deliver: Option<&str>) -> String {
    let filter = format!("$KV.{BUCKET}.>");
    let config = json!({
        "name": name, "durable_name": name, "deliver_subject": deliver, "filter_subject": filter,
        "ack_policy": "none", "deliver_policy": "all", "replay_policy": "instant",
        "mem_storage": true,
    });
    let asked = json!({"stream_name": BUCKET_STREAM, "config": config, "action": ""});
    let make = format!("$JS.API.CONSUMER.CREATE.{BUCKET_STREAM}.{name}.{filter}");
    let made = thief.request(make, asked.to_string().into()).await.unwrap();
    String::from_utf8(made.payload.to_vec()).unwrap()
}

async fn consumers(server: &NatsServer) -> Vec<String> {
    let context = jetstream::new(server.client_as(ADMIN, PASSWORD, "_INBOX_admin").await);
    let stream = context.get_stream(BUCKET_STREAM).await.unwrap();
    stream.consumer_names().map(Result::unwrap).collect().await
}

/// No list of subjects tells a consumer that lasts from the one that reads on after a break, so the operator deletes them.
#[tokio::test(flavor = "multi_thread")]
async fn consumers_that_last_lock_nobody_out() {
    let server = server(printed()).await;
    let operator = chat::Operator::start(&server).await;
    operator.publish("lobby").await;
    drop(operator);
    let thief = thief(&server).await;
    let mut made = 0;
    let refused = loop {
        let answer = make_durable(&thief, &format!("thief-{made}"), None).await;
        if answer.contains("\"error\"") {
            break answer;
        }
        made += 1;
    };
    assert!(refused.contains("maximum consumers limit reached"), "after {made}: {refused}");

    // The operator needs a consumer itself, and so does a gateway that starts now.
    let _operator = chat::Operator::start(&server).await;
    let gateway = chat::gateway(&server, "one").await;
    drop(chat::join(&gateway, "lobby").await);
    support::until("those of the thief are gone, and no others", async || {
        let left = consumers(&server).await;
        left.len() >= 2 && !left.iter().any(|name| name.starts_with("thief"))
    })
    .await;
}

/// Nor does one have policies read out in a room: gateways take what a consumer hands over for no message, and it does not last.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_reads_out_no_policy_in_a_room() {
    let server = server(printed()).await;
    let operator = chat::Operator::start(&server).await;
    operator.publish("lobby").await;
    let gateway = chat::gateway(&server, "one").await;
    let mut member = chat::join(&gateway, "lobby").await;
    let admin = server.client_as(ADMIN, PASSWORD, "_INBOX_admin").await;
    let mut heard = admin.subscribe("hubbub.room.demo.lobby").await.unwrap();
    admin.flush().await.unwrap();
    let readers = consumers(&server).await;
    let thief = thief(&server).await;
    let made = make_durable(&thief, "thief", Some("hubbub.room.demo.lobby")).await;
    assert!(!made.contains("\"error\""), "{made}");
    drop(thief);
    let handed = within("what the consumer hands over", heard.next()).await.unwrap();
    assert!(handed.reply.is_some_and(|reply| reply.starts_with("$JS.ACK.")));
    support::until("it is gone, and those that follow the bucket are not", async || {
        let left = consumers(&server).await;
        !left.iter().any(|name| name == "thief") && readers.iter().all(|name| left.contains(name))
    })
    .await;
    talks(&gateway, &mut member).await;
    let metrics = http::get(gateway.admin(), "/metrics").await.body;
    let dropped = "hubbub_gateway_bus_dropped_messages_total{reason=\"malformed\"} ";
    let dropped = metrics.lines().find_map(|line| line.strip_prefix(dropped)).unwrap();
    assert!(dropped.parse::<u64>().unwrap() >= 1, "{dropped}");
}

/// The member still is in the room, as is who comes now.
async fn talks(gateway: &GatewayProcess, member: &mut Client) {
    let mut newcomer = chat::join(gateway, "lobby").await;
    newcomer.send("still here").await.unwrap();
    for client in [member, &mut newcomer] {
        assert_eq!(client.next_message().await, Received::Text("still here".to_owned()));
    }
}
