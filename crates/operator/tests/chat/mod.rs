//! All that gateways and operator do over NATS.

use std::{path::PathBuf, sync::Arc};

use futures_util::StreamExt as _;
use hubbub_api::{
    ChatRoom, ChatRoomSpec, GatewayReport, RoomName, RoomPolicy, Statement,
    names::{BUCKET, REPORT_WILDCARD},
    permissions::Permissions,
};
use hubbub_nats::NatsOptions;
use hubbub_operator::{
    bucket::Bucket,
    connection::{self, Trouble},
    fence::Fence,
};
use hubbub_testkit::{Client, GatewayProcess, NatsServer, Received, eventually, http, within};
use nats::jetstream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{ADMIN, PASSWORD, support};

/// Bytes and number of values that together are far more than NATS sends before it is told that they were read (2 MiB).
const MUCH: (usize, usize) = (700 * 1024, 8);

/// The operator's part of NATS: the bucket, as its user. Ends with the value.
pub(crate) struct Operator {
    pub(crate) bucket: Arc<Bucket>,
    pub(crate) client: nats::Client,
    _following: JoinSet<()>,
}

impl Operator {
    pub(crate) async fn start(server: &NatsServer) -> Self {
        let Permissions { user, inbox, .. } = Permissions::operator();
        let options = NatsOptions {
            user: Some(user.to_owned()),
            password: Some(PASSWORD.to_owned()),
            inbox: Some(inbox.to_owned()),
            ..NatsOptions::new(server.url(), "operator")
        };
        let client = connection::connect(&options, &Trouble::default()).await.unwrap();
        let fence = Fence::default();
        fence.open_for_ever();
        let bucket = Arc::new(Bucket::new(client.clone(), fence, 1, "hubbub/hubbub"));
        let mut following = JoinSet::new();
        let followed = Arc::clone(&bucket);
        following.spawn(async move {
            followed.run(|_| {}, |_| {}, || {}, |_| {}, CancellationToken::new()).await;
        });
        eventually("the operator has read its bucket", || bucket.is_read()).await;
        Self { bucket, client, _following: following }
    }

    /// Writes the policy of an open room, and tries until that is done.
    pub(crate) async fn publish(&self, name: &str) {
        let policy = policy(name);
        let key = policy.room.policy_key();
        support::until("a policy is published", async || {
            let over = self.bucket.entry(&key).revision;
            self.bucket.put(&policy, over).await.is_ok()
        })
        .await;
    }

    async fn remove(&self, name: &str) {
        let key = room(name).policy_key();
        support::until("a policy is removed", async || {
            let over = self.bucket.entry(&key).revision;
            self.bucket.remove(&key, over).await.is_ok()
        })
        .await;
    }

    async fn state(&self) {
        support::until("the operator says that all is published", async || {
            let statement = Statement { id: Some(1), ..Statement::default() };
            self.bucket.state(&statement, self.bucket.last()).await.is_ok()
        })
        .await;
    }
}

fn room(name: &str) -> RoomName {
    RoomName::new("demo", name).unwrap()
}

/// The policy of a room that is open to all.
pub(crate) fn policy(name: &str) -> RoomPolicy {
    let mut spec = ChatRoomSpec::new(vec!["*".to_owned()]);
    spec.require_origin = false;
    RoomPolicy::from_chat_room(&ChatRoom::new(&room(name), spec)).unwrap()
}

/// A gateway as its user.
pub(crate) async fn gateway(server: &NatsServer, id: &str) -> GatewayProcess {
    let Permissions { user, inbox, .. } = Permissions::gateway(&[]);
    let url = server.url();
    let arguments = [
        ["--nats", &*url],
        ["--nats-user", user],
        ["--nats-password", PASSWORD],
        ["--nats-inbox", inbox],
        ["--policies", "nats"],
        ["--gateway-id", id],
    ];
    let program: PathBuf = hubbub_testkit::gateway_program();
    GatewayProcess::start(program, arguments.as_flattened()).await
}

/// Joins a room as soon as the gateway knows it.
pub(crate) async fn join(gateway: &GatewayProcess, name: &str) -> Client {
    let path = room(name).path();
    let mut joined = None;
    support::until("the gateway serves the room", async || {
        joined = Client::join(gateway.listen(), &path, None).await.ok();
        joined.is_some()
    })
    .await;
    joined.unwrap()
}

async fn is_gone(gateway: &GatewayProcess, name: &str) {
    let path = room(name).path();
    support::until("the gateway serves the room no more", async || {
        matches!(Client::join(gateway.listen(), &path, None).await, Err(answer) if answer.status == 404)
    })
    .await;
}

/// A member of a room at each of two gateways.
async fn talk([one, two]: [&GatewayProcess; 2], name: &str) {
    let (mut here, mut there) = (join(one, name).await, join(two, name).await);
    for text in ["hello", "over there"] {
        here.send(text).await.unwrap();
        let said = Received::Text(text.to_owned());
        assert_eq!(there.next_message().await, said);
        assert_eq!(here.next_message().await, said);
    }
    // Each knows from the other's reports that somebody is there.
    let elsewhere = async |gateway: &GatewayProcess| {
        let told = http::get(gateway.admin(), "/rooms").await.body;
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        let rooms = told["rooms"].as_array().unwrap();
        let found = rooms.iter().find(|told| told["room"] == room(name).as_str()).unwrap();
        found["membersElsewhere"].as_u64().unwrap()
    };
    support::until("each gateway counts the other's member", async || {
        elsewhere(one).await == 1 && elsewhere(two).await == 1
    })
    .await;
}

/// Everything: ends when it all has worked.
pub(crate) async fn all_of_it(server: &mut NatsServer) {
    let operator = Operator::start(server).await;
    operator.publish("lobby").await;
    operator.publish("gone").await;
    operator.remove("gone").await;
    operator.state().await;
    let (one, two) = (gateway(server, "one").await, gateway(server, "two").await);
    let gateways = [&one, &two];
    talk(gateways, "lobby").await;
    is_gone(&one, "gone").await;

    let mut reports = operator.client.subscribe(REPORT_WILDCARD).await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let message = within("a report", reports.next()).await.unwrap();
        let report = GatewayReport::from_json(&message.payload).unwrap();
        if report.applied_revision > 0 && !heard.contains(&report.gateway) {
            heard.push(report.gateway);
        }
    }

    // More than NATS sends at once. Keys that begin so are no room's, and nobody minds what stands there.
    let admin = server.client_as(ADMIN, PASSWORD, "_INBOX_admin").await;
    let context = jetstream::new(admin);
    let store = context.get_key_value(BUCKET).await.unwrap();
    let (bytes, values) = MUCH;
    for number in 0..values {
        store.put(format!("_padding.{number}"), vec![b'x'; bytes].into()).await.unwrap();
    }
    let last = format!("_padding.{}", values - 1);
    eventually("the operator has read all", || operator.bucket.entry(&last).present).await;
    operator.publish("behind").await;
    talk(gateways, "behind").await;

    // Reading goes on after a break.
    server.restart().await;
    operator.publish("after").await;
    talk(gateways, "after").await;

    // And after a loss.
    within("a bucket is deleted", context.delete_key_value(BUCKET)).await.unwrap();
    eventually("the operator notices", || !operator.bucket.is_read()).await;
    eventually("it makes another", || operator.bucket.is_read()).await;
    operator.publish("anew").await;
    talk(gateways, "anew").await;
    // What was there before is not denied, so it is still served.
    talk(gateways, "lobby").await;
}
