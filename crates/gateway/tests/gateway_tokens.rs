//! Rooms that ask for tokens: who is let in by which token, what it may do there, and for how long.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hubbub_testkit::{
    Client, GatewayProcess, Handshake, Received, RoomsFile, TokenIssuer, chat_room, eventually,
    key_set,
};
use hubbub_websocket::Opcode;
use serde_json::{Value, json};

const GATEWAY: &str = env!("CARGO_BIN_EXE_hubbub-gateway");
const LOBBY: &str = "/rooms/demo/lobby";
const ISSUER: &str = "https://id.example.com/";
const ORIGIN: Option<&str> = Some("https://a.example.com");

/// The spec of a room that asks for tokens which these keys sign; `more` goes to `auth`, `jwt` to its part.
fn spec(jwks: &str, more: &str, jwt: &str) -> String {
    format!(
        "allowedOrigins: ['https://a.example.com'], auth: {{{more} jwt: {{issuer: '{ISSUER}', audiences: [chat], \
         jwks: {{inline: '{jwks}'}}{jwt}}}}}"
    )
}

async fn start(text: &str) -> (RoomsFile, GatewayProcess) {
    let file = RoomsFile::of_text(text);
    let gateway = GatewayProcess::start(GATEWAY, &file.flags(&[])).await;
    (file, gateway)
}

fn bearing(gateway: &GatewayProcess, token: &str) -> Handshake {
    Handshake::new(gateway.listen(), LOBBY)
        .with("Origin", "https://a.example.com")
        .with("Authorization", format!("Bearer {token}"))
}

async fn enter(gateway: &GatewayProcess, token: &str) -> Client {
    let protocols = format!("hubbub.v1, hubbub.bearer.{token}");
    let headers = [("Sec-WebSocket-Protocol", protocols.as_str())];
    Client::join_with(gateway.listen(), LOBBY, ORIGIN, &headers).await.expect("the token is good")
}

/// Status and reason of the answer.
async fn answer(handshake: &Handshake) -> (u16, String) {
    let answer = handshake.answer().await;
    let problem: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    (answer.status, problem["reason"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn every_algorithm_is_verified_and_nothing_but_its_own_key_is_good_for_it() {
    for alg in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"] {
        let issuer = TokenIssuer::with_algorithm(ISSUER, "one", alg);
        let stranger = TokenIssuer::with_algorithm(ISSUER, "one", alg);
        let (_file, gateway) = start(&chat_room("lobby", &spec(&issuer.jwks(), "", ""))).await;
        let good = issuer.token("chat");
        // Twice: the second time it is known.
        for _ in 0..2 {
            assert_eq!(answer(&bearing(&gateway, &good)).await.0, 101, "{alg}");
        }
        let forged = answer(&bearing(&gateway, &stranger.token("chat"))).await;
        assert_eq!(forged, (401, "token_signature".to_owned()), "{alg}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_said_before_the_upgrade() {
    let issuer = TokenIssuer::new(ISSUER, "one");
    let (_file, gateway) = start(&chat_room("lobby", &spec(&issuer.jwks(), "", ""))).await;
    let now = issuer.claims("chat")["iat"].as_u64().unwrap();
    let with = |more: Value| issuer.token_with("chat", &more);
    let headed = |header: Value| issuer.sign_headed(&header, &issuer.claims("chat"));
    let good = issuer.token("chat");
    let parts: Vec<&str> = good.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("three parts") };
    let none = URL_SAFE_NO_PAD.encode(json!({"alg": "none", "kid": "one"}).to_string());
    let symmetric = json!({"alg": "HS256", "kid": "one"});
    let other =
        URL_SAFE_NO_PAD.encode(json!({"iss": ISSUER, "aud": "chat", "exp": now + 9}).to_string());
    for (token, status, reason) in [
        (with(json!({"exp": now - 31})), 401, "token_expired"),
        (with(json!({"exp": null})), 401, "token_no_expiry"),
        (with(json!({"exp": "tomorrow"})), 401, "token_no_expiry"),
        (with(json!({"nbf": now + 60})), 401, "token_not_yet_valid"),
        (with(json!({"nbf": "yesterday"})), 401, "token_not_yet_valid"),
        (with(json!({"iss": "https://id.example.com"})), 401, "token_issuer"),
        (with(json!({"iss": null})), 401, "token_issuer"),
        (with(json!({"iss": [ISSUER]})), 401, "token_issuer"),
        (with(json!({"aud": "mail"})), 401, "token_audience"),
        (with(json!({"aud": null})), 401, "token_audience"),
        (with(json!({"aud": []})), 401, "token_audience"),
        (with(json!({"hubbub": "everything"})), 401, "token_claim"),
        (with(json!({"hubbub": {"read": ["demo/other"]}})), 403, "token_not_for_room"),
        (with(json!({"hubbub": {}})), 403, "token_not_for_room"),
        (headed(json!({"alg": "ES256", "kid": "two"})), 401, "token_key_unknown"),
        (headed(json!({"alg": "RS256", "kid": "one"})), 401, "token_key_unknown"),
        (headed(symmetric), 401, "token_key_unknown"),
        (headed(json!({"alg": "ES256", "kid": "one", "crit": ["exp"]})), 401, "token_malformed"),
        (format!("{none}.{claims}."), 401, "token_malformed"),
        (format!("{none}.{claims}.{signature}"), 401, "token_malformed"),
        (format!("{header}.{other}.{signature}"), 401, "token_signature"),
        (format!("{header}.{claims}."), 401, "token_signature"),
        (format!("{header}.{claims}"), 401, "token_malformed"),
        (format!("{good}.{signature}"), 401, "token_malformed"),
        ("hunter2".to_owned(), 401, "token_malformed"),
        ("x".repeat(9000), 401, "token_malformed"),
    ] {
        let refused = answer(&bearing(&gateway, &token)).await;
        assert_eq!(refused, (status, reason.to_owned()), "{token}");
    }
    // Within the leeway, several audiences, a fraction of a second, no kid, grants for this room.
    for token in [
        with(json!({"exp": now - 5})),
        with(json!({"nbf": now + 20})),
        with(json!({"aud": ["mail", "chat"]})),
        with(json!({"exp": now as f64 + 100.5})),
        with(json!({"hubbub": {"read": ["demo/*"]}})),
        headed(json!({"alg": "ES256"})),
    ] {
        assert_eq!(answer(&bearing(&gateway, &token)).await.0, 101, "{token}");
    }
    let challenge = bearing(&gateway, "hunter2").answer().await;
    let asked = challenge.header("www-authenticate").unwrap();
    assert_eq!(asked, r#"Bearer realm="hubbub", error="invalid_token""#);
    let metric = |reason| format!(r#"hubbub_gateway_handshakes_total{{outcome="{reason}"}}"#);
    gateway.metric_until(&metric("token_audience"), |count| count == 3.0).await;
}

#[tokio::test]
async fn a_token_comes_by_header_subprotocol_or_where_the_room_says_the_query() {
    let issuer = TokenIssuer::new(ISSUER, "one");
    let lobby = spec(&issuer.jwks(), "", "");
    let lenient = spec(&issuer.jwks(), "", ", queryParameter: access_token");
    let (_file, gateway) =
        start(&(chat_room("lobby", &lobby) + &chat_room("lenient", &lenient))).await;
    let token = issuer.token("chat");
    let plain = |target: &str| {
        Handshake::new(gateway.listen(), target).with("Origin", "https://a.example.com")
    };
    let in_query = |room: &str| plain(&format!("/rooms/demo/{room}?access_token={token}"));
    let protocols = |names: &str| plain(LOBBY).with("Sec-WebSocket-Protocol", names);

    assert_eq!(answer(&plain(LOBBY)).await, (401, "token_missing".to_owned()));
    assert_eq!(answer(&in_query("lobby")).await, (401, "token_missing".to_owned()));
    assert_eq!(answer(&in_query("lenient")).await.0, 101);
    let browser = protocols(&format!("hubbub.v1, hubbub.bearer.{token}")).answer().await;
    assert_eq!(browser.status, 101);
    assert_eq!(browser.header("sec-websocket-protocol"), Some("hubbub.v1"), "and never the token");
    let alone = protocols(&format!("hubbub.bearer.{token}"));
    assert_eq!(answer(&alone).await, (400, "token_carrier".to_owned()));
    let twice = in_query("lenient").with("Authorization", format!("Bearer {token}"));
    assert_eq!(answer(&twice).await, (400, "token_carrier".to_owned()));
    let proxied =
        protocols(&format!("hubbub.v1, hubbub.bearer.{token}")).with("Authorization", "Basic YTpi");
    assert_eq!(answer(&proxied).await.0, 101, "what a proxy asked for is not ours");
}

#[tokio::test]
async fn the_origin_still_counts_and_a_plain_get_tells_what_a_token_would_give() {
    let issuer = TokenIssuer::new(ISSUER, "one");
    let (_file, gateway) = start(&chat_room("lobby", &spec(&issuer.jwks(), "", ""))).await;
    let reader = issuer.token_with("chat", &json!({"hubbub": {"read": "demo/lobby"}}));
    let stolen = bearing(&gateway, &reader).set("Origin", "https://evil.example.com");
    assert_eq!(answer(&stolen).await, (403, "origin_not_allowed".to_owned()));

    let ask = |handshake: Handshake| async move {
        let answer = handshake.without("Upgrade").without("Connection").answer().await;
        serde_json::from_str::<Value>(&answer.body).unwrap()
    };
    let told = ask(bearing(&gateway, &reader)).await;
    assert_eq!((&told["accepted"], &told["access"]), (&json!(true), &json!("Read")), "{told}");
    let refused = ask(bearing(&gateway, "hunter2")).await;
    assert_eq!(refused["status"], 401);
    assert_eq!(refused["tokens"], true);
    assert_eq!(refused["members"], Value::Null, "who is kept out learns nothing of those inside");
}

#[tokio::test]
async fn who_may_only_read_hears_and_who_may_only_write_is_heard() {
    let issuer = TokenIssuer::new(ISSUER, "one");
    let (_file, gateway) =
        start(&chat_room("lobby", &spec(&issuer.jwks(), "anonymous: Read,", ""))).await;
    let claim = |claim: Value| issuer.token_with("chat", &json!({"hubbub": claim}));
    let mut both = enter(&gateway, &issuer.token("chat")).await;
    let mut writer = enter(&gateway, &claim(json!({"write": "demo/lobby"}))).await;
    let mut reader = enter(&gateway, &claim(json!({"read": "demo/lobby"}))).await;
    let mut guest = Client::join(gateway.listen(), LOBBY, ORIGIN).await.expect("anonymous: Read");
    gateway.metric_until("hubbub_gateway_connections", |count| count == 4.0).await;

    writer.send("from the writer").await.unwrap();
    for client in [&mut both, &mut reader, &mut guest] {
        assert_eq!(client.next_message().await, Received::Text("from the writer".to_owned()));
    }
    for client in [&mut reader, &mut guest] {
        client.send("may I?").await.unwrap();
        let Received::Close(Some((code, reason))) = client.next_message().await else {
            panic!("who may not write is closed")
        };
        assert_eq!((code, reason.as_str()), (1008, "this connection may not write in the room"));
    }
    both.send("the last").await.unwrap();
    assert_eq!(both.next_message().await, Received::Text("the last".to_owned()), "nothing between");
    writer.send_close(1000).await.unwrap();
    assert_eq!(
        writer.next_message().await,
        Received::Close(Some((1000, String::new()))),
        "it heard nothing"
    );
}

#[tokio::test]
async fn an_expired_token_ends_the_connection_unless_it_is_renewed() {
    let issuer = TokenIssuer::new(ISSUER, "one");
    let room = spec(&issuer.jwks(), "", ", leeway: 0s");
    let (_file, gateway) = start(&chat_room("lobby", &room)).await;
    let now = issuer.claims("chat")["iat"].as_u64().unwrap();
    let until = |seconds: u64| issuer.token_with("chat", &json!({"exp": now + seconds}));
    let mut expires = enter(&gateway, &until(4)).await;
    let mut renews = enter(&gateway, &until(4)).await;
    let longer = until(3600);
    renews.send(&format!("\u{1}token {longer}")).await.unwrap();
    let Received::Close(Some((code, reason))) = expires.next_message().await else {
        panic!("it is closed, and hears nothing of tokens before")
    };
    assert_eq!((code, reason.as_str()), (4401, "the token has expired; come back with a new one"));
    renews.send("still here").await.unwrap();
    assert_eq!(renews.next_message().await, Received::Text("still here".to_owned()));
    assert_eq!(answer(&bearing(&gateway, &until(4))).await.1, "token_expired", "known as it is");
}

#[tokio::test]
async fn a_renewal_is_as_long_as_its_token_and_everything_else_as_the_room_says() {
    let issuer = TokenIssuer::with_algorithm(ISSUER, "one", "RS256");
    let (_file, gateway) =
        start(&chat_room("lobby", &spec(&issuer.jwks(), "", ", leeway: 0s"))).await;
    let now = issuer.claims("chat")["iat"].as_u64().unwrap();
    let until = |seconds: u64| {
        issuer.token_with("chat", &json!({"exp": now + seconds, "name": "n".repeat(300)}))
    };
    let renewal = format!("\u{1}token {}", until(3600));
    assert!(renewal.len() > 512, "longer than the messages of a room that says nothing of them");

    let mut whole = enter(&gateway, &until(5)).await;
    let mut cut = enter(&gateway, &until(5)).await;
    let mut expires = enter(&gateway, &until(5)).await;
    whole.send(&renewal).await.unwrap();
    let (start, rest) = renewal.as_bytes().split_at(4);
    let (middle, end) = rest.split_at(500);
    cut.send_frame(false, Opcode::Text, start).await.unwrap();
    cut.send_frame(false, Opcode::Continuation, middle).await.unwrap();
    cut.send_frame(true, Opcode::Continuation, end).await.unwrap();
    assert_eq!(expires.close_code().await, Some(4401), "the first tokens are over");
    for client in [&mut whole, &mut cut] {
        client.send("still here").await.unwrap();
    }
    for client in [&mut whole, &mut cut] {
        for _ in 0..2 {
            assert_eq!(client.next_message().await, Received::Text("still here".to_owned()));
        }
    }

    let longest = "x".repeat(512);
    whole.send(&longest).await.unwrap();
    assert_eq!(whole.next_message().await, Received::Text(longest.clone()));
    whole.send(&format!("{longest}x")).await.unwrap();
    assert_eq!(whole.close_code().await, Some(1009), "no message for the gateway");
    cut.send_frame(false, Opcode::Text, longest.as_bytes()).await.unwrap();
    cut.send_frame(true, Opcode::Continuation, b"x").await.unwrap();
    assert_eq!(cut.close_code().await, Some(1009));
    for (message, code) in [
        (format!("\u{1}token {}", "x".repeat(8 * 1024)), 4401),
        (format!("\u{1}token {}", "x".repeat(9 * 1024)), 1009),
        (format!("\u{1}tokens {longest}"), 1009),
    ] {
        let mut member = enter(&gateway, &until(3600)).await;
        member.send(&message).await.unwrap();
        assert_eq!(member.close_code().await, Some(code), "{} bytes", message.len());
    }
    // Who has not agreed on the subprotocol cannot renew, and says nothing longer than others.
    let bearer = format!("Bearer {}", until(3600));
    let headers = [("Authorization", bearer.as_str())];
    let mut raw = Client::join_with(gateway.listen(), LOBBY, ORIGIN, &headers).await.unwrap();
    raw.send(&renewal).await.unwrap();
    assert_eq!(raw.close_code().await, Some(1009));
}

#[tokio::test]
async fn what_comes_in_place_of_a_token_must_be_as_good() {
    let issuer = TokenIssuer::new(ISSUER, "one");
    let stranger = TokenIssuer::new(ISSUER, "one");
    let (_file, gateway) = start(&chat_room("lobby", &spec(&issuer.jwks(), "", ""))).await;
    let first = issuer.token("chat");
    let bad = [
        (stranger.token("chat"), 4401, "bad_token"),
        (issuer.token("mail"), 4401, "bad_token"),
        (issuer.token_with("chat", &json!({"sub": "somebody else"})), 4401, "other_subject"),
        (issuer.token_with("chat", &json!({"hubbub": {}})), 4401, "token_refused"),
        (String::new(), 4401, "bad_token"),
    ];
    for (token, code, label) in bad {
        let mut member = enter(&gateway, &first).await;
        member.send(&format!("\u{1}token {token}")).await.unwrap();
        assert_eq!(member.close_code().await, Some(code), "{label}");
        eventually("its end is logged", || {
            let ends = gateway.log();
            ends.iter().any(|line| line.contains(&format!("\"{label}\"")))
        })
        .await;
    }
    let mut member = enter(&gateway, &first).await;
    member.send("\u{1}hello").await.unwrap();
    assert_eq!(member.close_code().await, Some(1008), "no such control message");

    let (_file, open) =
        start(&chat_room("lobby", "allowedOrigins: ['https://a.example.com']")).await;
    let mut member = enter(&open, &first).await;
    member.send(&format!("\u{1}token {first}")).await.unwrap();
    let Received::Close(Some((code, reason))) = member.next_message().await else {
        panic!("no token is of use there")
    };
    assert_eq!((code, reason.as_str()), (1008, "this room takes no tokens: come back without one"));

    // Without the subprotocol, every byte is the room's.
    let headers = [("Authorization", format!("Bearer {first}"))];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut raw = Client::join_with(gateway.listen(), LOBBY, ORIGIN, &headers).await.unwrap();
    raw.send("\u{1}hello").await.unwrap();
    assert_eq!(raw.next_message().await, Received::Text("\u{1}hello".to_owned()));
}

#[tokio::test]
async fn a_key_that_is_taken_out_ends_its_connections_alone_and_new_ones_count_at_once() {
    let old = TokenIssuer::new(ISSUER, "old");
    let new = TokenIssuer::new(ISSUER, "new");
    let (file, gateway) = start(&chat_room("lobby", &spec(&old.jwks(), "", ""))).await;
    let mut leaves = enter(&gateway, &old.token("chat")).await;
    assert_eq!(answer(&bearing(&gateway, &new.token("chat"))).await.1, "token_key_unknown");

    file.replace(&chat_room("lobby", &spec(&key_set(&[&old, &new]), "", "")));
    eventually("both keys count", || gateway.find_all("rooms declared").len() > 1).await;
    let mut stays = enter(&gateway, &new.token("chat")).await;
    leaves.send("both are here").await.unwrap();
    for client in [&mut leaves, &mut stays] {
        assert_eq!(client.next_message().await, Received::Text("both are here".to_owned()));
    }

    file.replace(&chat_room("lobby", &spec(&new.jwks(), "", "")));
    assert_eq!(leaves.close_code().await, Some(4401));
    stays.send("alone").await.unwrap();
    assert_eq!(stays.next_message().await, Received::Text("alone".to_owned()));
    assert_eq!(answer(&bearing(&gateway, &old.token("chat"))).await.1, "token_key_unknown");
}

#[tokio::test]
async fn a_room_that_comes_to_ask_for_tokens_closes_who_has_none() {
    let issuer = TokenIssuer::new(ISSUER, "one");
    let open = "allowedOrigins: ['https://a.example.com']";
    let (file, gateway) = start(&chat_room("lobby", open)).await;
    // An open room does not look at tokens, so this one is worth nothing.
    let headers = [("Authorization", "Bearer hunter2")];
    let mut member =
        Client::join_with(gateway.listen(), LOBBY, ORIGIN, &headers).await.expect("an open room");
    let mut guest = Client::join(gateway.listen(), LOBBY, ORIGIN).await.expect("an open room");

    file.replace(&chat_room("lobby", &spec(&issuer.jwks(), "anonymous: Read,", "")));
    eventually("it is in force", || gateway.find_all("rooms declared").len() > 1).await;
    let mut writer = enter(&gateway, &issuer.token("chat")).await;
    writer.send("to all").await.unwrap();
    for client in [&mut member, &mut guest] {
        assert_eq!(client.next_message().await, Received::Text("to all".to_owned()));
    }
    guest.send("not any more").await.unwrap();
    assert_eq!(guest.close_code().await, Some(1008));

    file.replace(&chat_room("lobby", &spec(&issuer.jwks(), "", "")));
    assert_eq!(member.close_code().await, Some(4401));
    assert_eq!(writer.next_message().await, Received::Text("to all".to_owned()));
    writer.send("still").await.unwrap();
    assert_eq!(writer.next_message().await, Received::Text("still".to_owned()));
}
