//! The ways to log in to NATS, and TLS, each against a real server that asks for it; and what is told when it is wrong.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod support;

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hubbub_gateway::bus::{
    Bus as _, BusState,
    nats::{NatsBus, NatsBusError, NatsOptions},
};
use hubbub_testkit::{
    Auth, Certificates, JetStream, NatsConfig, NatsServer, Tls, eventually, within,
};
use hubbub_websocket::Kind;
use nkeys::KeyPair;
use serde_json::json;
use support::{NatsGateway, Recorder, bus_events, room};
use tokio::runtime::Handle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

async fn works(options: &NatsOptions) {
    let gateway = NatsGateway::connect(options).await;
    eventually("the bus is connected", || gateway.bus.state() == BusState::Connected).await;
    let lobby = room("demo/lobby");
    within("joining", gateway.bus.join(&lobby)).await;
    gateway.bus.publish(&lobby, Kind::Text, b"hello", None).unwrap();
    eventually("a message makes its way", || gateway.sink.texts(&lobby) == ["hello"]).await;
}

/// Fails to connect, and says why.
async fn tells(options: &NatsOptions, cause: &str) {
    let gateway = NatsGateway::connect(options).await;
    eventually("the cause is told", || gateway.bus.last_error().is_some()).await;
    let told = gateway.bus.last_error().unwrap();
    assert!(told.contains(cause), "{told}");
    assert_eq!(gateway.bus.state(), BusState::Connecting);
}

async fn start(auth: Auth, tls: Tls) -> NatsServer {
    NatsServer::start_with(NatsConfig { auth, tls, ..NatsConfig::default() }).await
}

fn write(directory: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_a_password() {
    let auth = Auth::User { user: "gateway".into(), password: "s3cret".into() };
    let server = start(auth, Tls::Off).await;
    let login = |password: &str| NatsOptions {
        user: Some("gateway".into()),
        password: Some(password.into()),
        ..NatsOptions::new(server.url(), "gw")
    };
    works(&login("s3cret")).await;
    tells(&login("guess"), "authorization violation").await;
    tells(&NatsOptions::new(server.url(), "gw"), "authorization violation").await;
    let in_url = server.url().replace("nats://", "nats://gateway:s3cret@");
    works(&NatsOptions::new(in_url, "gw")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token() {
    let server = start(Auth::Token("t0ken".into()), Tls::Off).await;
    let login = |token: &str| NatsOptions {
        token: Some(token.into()),
        ..NatsOptions::new(server.url(), "gw")
    };
    works(&login("t0ken")).await;
    tells(&login("guess"), "authorization violation").await;
    works(&NatsOptions::new(server.url().replace("nats://", "nats://t0ken@"), "gw")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_nkey() {
    let key = KeyPair::new_user();
    let server = start(Auth::NKey(key.public_key()), Tls::Off).await;
    let directory = tempfile::tempdir().unwrap();
    let login = |name: &str, key: &KeyPair| NatsOptions {
        nkey_seed: Some(write(directory.path(), name, &format!("{}\n", key.seed().unwrap()))),
        ..NatsOptions::new(server.url(), "gw")
    };
    works(&login("right.nk", &key)).await;
    tells(&login("wrong.nk", &KeyPair::new_user()), "authorization violation").await;
}

/// A JWT as `nsc` writes it: signed by `issuer`, about `subject`.
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: &serde_json::Value) -> String {
    let claims = json!({
        "jti": "test", "iat": 1, "name": "test",
        "iss": issuer.public_key(), "sub": subject.public_key(), "nats": nats,
    });
    let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed =
        format!("{}.{}", encode(&json!({"typ": "JWT", "alg": "ed25519-nkey"})), encode(&claims));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

/// A credentials file as `nsc` writes it.
fn credentials(account: &KeyPair, user: &KeyPair) -> String {
    let limits = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
    format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        jwt(account, user, &limits),
        user.seed().unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credentials_file() {
    let (operator, account) = (KeyPair::new_operator(), KeyPair::new_account());
    let unlimited = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1,
    });
    let auth = Auth::Jwt {
        operator: jwt(&operator, &operator, &json!({"type": "operator", "version": 2})),
        account: account.public_key(),
        account_jwt: jwt(
            &operator,
            &account,
            &json!({"type": "account", "version": 2, "limits": unlimited}),
        ),
    };
    let config = NatsConfig { auth, jetstream: JetStream::Off, ..NatsConfig::default() };
    let server = NatsServer::start_with(config).await;
    let directory = tempfile::tempdir().unwrap();
    let login = |name: &str, account: &KeyPair| NatsOptions {
        credentials: Some(write(
            directory.path(),
            name,
            &credentials(account, &KeyPair::new_user()),
        )),
        ..NatsOptions::new(server.url(), "gw")
    };
    works(&login("right.creds", &account)).await;
    tells(&login("wrong.creds", &KeyPair::new_account()), "authorization violation").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_an_own_authority() {
    let server = start(Auth::Open, Tls::Server(Certificates::make())).await;
    let trusting = |ca| NatsOptions { ca: Some(ca), ..NatsOptions::new(server.url(), "gw") };
    works(&trusting(server.certificates().authority())).await;
    tells(&trusting(Certificates::make().authority()), "certificate").await;
    tells(&NatsOptions::new(server.url(), "gw"), "certificate").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_a_client_certificate() {
    let server = start(Auth::Open, Tls::Mutual(Certificates::make())).await;
    let made = server.certificates();
    let with = NatsOptions {
        ca: Some(made.authority()),
        client_certificate: Some(made.client()),
        client_key: Some(made.client_key()),
        ..NatsOptions::new(server.url(), "gw")
    };
    works(&with).await;
    let without = NatsOptions { client_certificate: None, client_key: None, ..with };
    tells(&without, "127.0.0.1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_server_is_refused_when_tls_is_asked_for() {
    let server = start(Auth::Open, Tls::Off).await;
    let options = NatsOptions { require_tls: true, ..NatsOptions::new(server.url(), "gw") };
    tells(&options, "127.0.0.1").await;
}

#[tokio::test]
async fn options_that_can_never_work_are_errors_at_once() {
    let options =
        NatsOptions { ca: Some("/nonexistent/ca.pem".into()), ..NatsOptions::new("h", "gw") };
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let (sink, events) = (Recorder::new(), bus_events());
    let here = [Handle::current()];
    let bus = NatsBus::connect(&options, &here, sink, events, &tasks, stop);
    assert!(matches!(bus.await, Err(NatsBusError::Options(_))));
}
