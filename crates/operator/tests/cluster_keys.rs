//! Keys of tokens that stand elsewhere, against a real API server and a real HTTPS server: they come to the gateways, follow what is changed
//! there, and stay when it cannot be reached.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use hubbub_testkit::{Certificates, Client, KeyServer, TokenIssuer, key_set};
use serde_json::{Value, json};
use support::{DEMO, World, because, until};

const ISSUER: &str = "https://id.example.com/";

/// Makes a room whose tokens are verified by keys that stand there.
async fn room(world: &World, name: &str, jwks: Value) {
    world.room(name, "default").await;
    let jwt = json!({"issuer": ISSUER, "audiences": ["chat"], "jwks": jwks});
    world.patch_room(name, json!({"spec": {"auth": {"anonymous": "None", "jwt": jwt}}})).await;
}

/// The status of a handshake with such a token.
async fn knock(gateway: &hubbub_testkit::GatewayProcess, path: &str, token: &str) -> u16 {
    let authorization = format!("Bearer {token}");
    let headers = [("Authorization", authorization.as_str())];
    match Client::join_with(gateway.listen(), path, Some("https://chat.example.com"), &headers)
        .await
    {
        Ok(_) => 101,
        Err(answer) => answer.status,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_an_address_follow_it_and_stay_while_it_is_away() {
    let world = World::start().await;
    let (old, new) = (TokenIssuer::new(ISSUER, "old"), TokenIssuer::new(ISSUER, "new"));
    let certificates = Certificates::for_server(&["localhost"]);
    let server = KeyServer::start(&certificates, &old.jwks()).await;
    let _operator = world.operator_trusting(&certificates).await;
    let gateway = world.gateway("gateway", "default").await;
    room(&world, "lobby", json!({"url": server.url()})).await;
    world.ready("lobby").await;
    world
        .status_until("lobby", "its keys are there", |s| because(s, "KeysResolved", "KeysResolved"))
        .await;
    let path = world.path("lobby");
    assert_eq!(knock(&gateway, &path, &old.token("chat")).await, 101);
    assert_eq!(knock(&gateway, &path, &new.token("chat")).await, 401);

    // Rotated: both, then the new one alone.
    server.answer(200, &key_set(&[&old, &new]));
    until("the new key counts", async || knock(&gateway, &path, &new.token("chat")).await == 101)
        .await;
    assert_eq!(knock(&gateway, &path, &old.token("chat")).await, 101);
    server.answer(200, &new.jwks());
    until("the old key does not", async || knock(&gateway, &path, &old.token("chat")).await == 401)
        .await;

    // Away, or giving nonsense: what was good stays, and it is told.
    for (status, text, told) in [
        (503, "", "answered 503"),
        (200, "hello", "is not a JSON Web Key Set"),
        (200, r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}"#, "holds a symmetric key"),
    ] {
        server.answer(status, text);
        world
            .status_until("lobby", "it is told", |s| {
                s.conditions
                    .iter()
                    .any(|c| c.reason == "KeysUnavailable" && c.message.contains(told))
            })
            .await;
        assert_eq!(knock(&gateway, &path, &new.token("chat")).await, 101, "{told}");
    }
    server.answer(200, &new.jwks());
    world
        .status_until("lobby", "it is well again", |s| because(s, "KeysResolved", "KeysResolved"))
        .await;
    assert!(server.asked() > 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_config_map_are_read_from_the_rooms_own_namespace() {
    let world = World::start().await;
    let issuer = TokenIssuer::new(ISSUER, "one");
    let _operator = world.operator().await;
    let gateway = world.gateway("gateway", "default").await;
    room(&world, "lobby", json!({"configMap": {"name": "keys", "key": "jwks.json"}})).await;
    world
        .status_until("lobby", "it says what is missing", |s| {
            because(s, "Programmed", "KeysUnavailable")
                && s.conditions.iter().any(|c| c.message.contains("there is no ConfigMap keys"))
        })
        .await;
    assert_eq!(
        knock(&gateway, &world.path("lobby"), &issuer.token("chat")).await,
        404,
        "not open to all"
    );
    let literal = format!("--from-literal=jwks.json={}", issuer.jwks());
    world.kubectl().run(&["create", "configmap", "keys", "-n", DEMO, &literal]).await;
    world.ready("lobby").await;
    assert_eq!(knock(&gateway, &world.path("lobby"), &issuer.token("chat")).await, 101);
    assert_eq!(knock(&gateway, &world.path("lobby"), "hunter2").await, 401);
}
