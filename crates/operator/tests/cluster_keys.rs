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
    let jwt = json!({"issuer": ISSUER, "audiences": ["chat"], "jwks": jwks});
    let auth = serde_json::from_value(json!({"anonymous": "None", "jwt": jwt})).unwrap();
    world.room_with(name, |spec| spec.auth = auth).await;
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
    let _operator = world.operator_asking(&certificates, &["localhost"]).await;
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
    let too_long = " ".repeat(64 * 1024 + 1);
    for (status, text, told) in [
        (503, "", "answered 503"),
        (200, "hello", "is not a JSON Web Key Set"),
        (200, &too_long, "more than 65536 bytes"),
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

/// A room that was open to all, and is declared anew to ask for tokens whose keys cannot be had.
#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_comes_to_ask_for_tokens_is_closed_without_their_keys_and_all_else_counts() {
    let world = World::start().await;
    let issuer = TokenIssuer::new(ISSUER, "one");
    let certificates = Certificates::for_server(&["localhost"]);
    let server = KeyServer::start(&certificates, &issuer.jwks()).await;
    let operator = world.operator_asking(&certificates, &["localhost"]).await;
    let gateway = world.gateway("gateway", "default").await;
    world.room("lobby", "default").await;
    world.ready("lobby").await;
    let path = world.path("lobby");
    let origin = Some("https://chat.example.com");
    let mut open = Client::join(gateway.listen(), &path, origin).await.unwrap();

    server.answer(503, "");
    let jwks = |url: &str| json!({"issuer": ISSUER, "audiences": ["chat"], "jwks": {"url": url}});
    let auth = json!({"anonymous": "None", "jwt": jwks(&server.url())});
    world.patch_room("lobby", json!({"spec": {"auth": auth}})).await;
    tells(&world, "lobby", &["answered 503", "nobody enters by a token until there are keys"])
        .await;
    assert_eq!(open.close_code().await, Some(4401));
    let anonymous = Client::join(gateway.listen(), &path, origin).await;
    assert_eq!(anonymous.unwrap_err().status, 401);
    assert_eq!(knock(&gateway, &path, &issuer.token("chat")).await, 401);

    server.answer(200, &issuer.jwks());
    world.ready("lobby").await;
    assert_eq!(knock(&gateway, &path, &issuer.token("chat")).await, 101);

    // Other keys that cannot be had: those of the old place are not good for the new one, and all else that was declared counts.
    let elsewhere = format!("https://localhost:{}/other", server.port());
    server.answer(503, "");
    let spec = json!({"auth": {"jwt": jwks(&elsewhere)}, "allowedOrigins": ["https://other.example"], "requireOrigin": true});
    world.patch_room("lobby", json!({"spec": spec})).await;
    tells(
        &world,
        "lobby",
        &["/other answered 503", "nobody enters by a token until there are keys"],
    )
    .await;
    assert_eq!(knock(&gateway, &path, &issuer.token("chat")).await, 403, "of another origin");
    operator.stop().await;

    // Nor are they after a restart.
    let _operator = world.operator_asking(&certificates, &["localhost"]).await;
    let back = json!({"spec": {"allowedOrigins": [origin]}});
    world.patch_room("lobby", back).await;
    until("the origin counts", async || knock(&gateway, &path, &issuer.token("chat")).await == 401)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_set_takes_the_last_key_back() {
    let world = World::start().await;
    let issuer = TokenIssuer::new(ISSUER, "one");
    let certificates = Certificates::for_server(&["localhost"]);
    let server = KeyServer::start(&certificates, &issuer.jwks()).await;
    let _operator = world.operator_asking(&certificates, &["localhost"]).await;
    let gateway = world.gateway("gateway", "default").await;
    room(&world, "lobby", json!({"url": server.url()})).await;
    world.ready("lobby").await;
    let (path, authorization) = (world.path("lobby"), format!("Bearer {}", issuer.token("chat")));
    let headers = [("Authorization", authorization.as_str())];
    let origin = Some("https://chat.example.com");
    let mut member = Client::join_with(gateway.listen(), &path, origin, &headers).await.unwrap();
    server.answer(200, r#"{"keys": []}"#);
    tells(&world, "lobby", &["holds no key", "nobody enters by a token until there are keys"])
        .await;
    assert_eq!(member.close_code().await, Some(4401));
    assert_eq!(knock(&gateway, &path, &issuer.token("chat")).await, 401);
}

/// Waits until the room says of its keys that.
async fn tells(world: &World, name: &str, words: &[&str]) {
    world
        .status_until(name, "it says why its keys are not fetched", |s| {
            because(s, "Programmed", "KeysUnavailable")
                && s.conditions.iter().any(|c| words.iter().all(|word| c.message.contains(word)))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_only_the_operator_reaches_are_not_asked_unless_they_are_listed() {
    let world = World::start().await;
    let issuer = TokenIssuer::new(ISSUER, "one");
    let certificates = Certificates::for_server(&["localhost"]);
    let server = KeyServer::start(&certificates, &issuer.jwks()).await;
    let port = server.port();

    let operator = world.operator_asking(&certificates, &[]).await;
    let _gateway = world.gateway("gateway", "default").await;
    let own = "the operator's own machine; if that is meant, name the host in --keys-allow";
    for (name, host, words) in [
        ("name", "localhost", ["localhost is at ", own]),
        ("number", "127.0.0.1", ["127.0.0.1 is at 127.0.0.1", own]),
        ("six", "[::1]", ["[::1] is at ::1", own]),
        ("mapped", "[::ffff:127.0.0.1]", ["is at ::ffff:127.0.0.1", own]),
        ("nothing", "0.0.0.0", ["0.0.0.0 is at 0.0.0.0", "an address of no host"]),
        ("metadata", "169.254.169.254", ["is at 169.254.169.254", "a cloud's metadata"]),
        // What only old resolvers take for an address has no certificate either.
        ("short", "127.1", ["127.1", "invalid dns name"]),
        ("decimal", "2130706433", ["2130706433", "invalid dns name"]),
    ] {
        room(&world, name, json!({"url": format!("https://{host}:{port}/jwks.json")})).await;
        tells(&world, name, &words).await;
    }
    assert_eq!(server.asked(), 0);
    operator.stop().await;

    // A list is of all that may be asked.
    let operator = world.operator_asking(&certificates, &["id.example.com", "*.localhost"]).await;
    tells(&world, "name", &["localhost is none of the hosts"]).await;
    assert_eq!(server.asked(), 0);
    operator.stop().await;

    let _operator = world.operator_asking(&certificates, &["localhost"]).await;
    world.ready("name").await;
    assert!(server.asked() > 0);
    tells(&world, "metadata", &["169.254.169.254 is none of the hosts"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let world = World::start().await;
    let issuer = TokenIssuer::new(ISSUER, "one");
    let certificates = Certificates::for_server(&["localhost"]);
    let (here, there) = (
        KeyServer::start(&certificates, "").await,
        KeyServer::start(&certificates, &issuer.jwks()).await,
    );
    here.redirect(&there.url());
    let _operator = world.operator_asking(&certificates, &["localhost"]).await;
    let _gateway = world.gateway("gateway", "default").await;
    room(&world, "lobby", json!({"url": here.url()})).await;
    tells(&world, "lobby", &["answered 302"]).await;
    assert_eq!(there.asked(), 0);
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
    let path = world.path("lobby");
    assert_eq!(knock(&gateway, &path, &issuer.token("chat")).await, 401, "not open to all");
    let literal = format!("--from-literal=jwks.json={}", issuer.jwks());
    world.kubectl().run(&["create", "configmap", "keys", "-n", DEMO, &literal]).await;
    world.ready("lobby").await;
    assert_eq!(knock(&gateway, &world.path("lobby"), &issuer.token("chat")).await, 101);
    assert_eq!(knock(&gateway, &world.path("lobby"), "hunter2").await, 401);
}
