use super::*;

const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

fn key() -> Key {
    Key::from_nonce(*b"the sample nonce")
}

fn check(answer: &str) -> Result<Option<usize>, ResponseError> {
    Request::new("localhost", "/").check_response(&key(), answer.as_bytes())
}

#[test]
fn the_example_of_the_rfc() {
    assert_eq!(key().as_str(), "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(check(GOOD), Ok(Some(GOOD.len())));
    assert_eq!(check(&format!("{GOOD}\u{1}frames")), Ok(Some(GOOD.len())));
    for end in 0..GOOD.len() {
        assert_eq!(check(&GOOD[..end]), Ok(None), "{end}");
    }
}

#[test]
fn what_we_send_a_server_accepts() {
    let request = Request {
        origin: Some("https://chat.example.com"),
        headers: &[("Authorization", "Bearer x y"), ("X-Empty", "")],
        ..Request::new("chat.example.com:8080", "/rooms/demo/lobby?a=b")
    };
    let bytes = request.to_bytes(&key()).unwrap();

    let mut slots = [httparse::EMPTY_HEADER; 16];
    let mut parsed = httparse::Request::new(&mut slots);
    assert_eq!(parsed.parse(&bytes), Ok(httparse::Status::Complete(bytes.len())));
    assert_eq!(parsed.path, Some("/rooms/demo/lobby?a=b"));
    let headers: http::HeaderMap = parsed
        .headers
        .iter()
        .map(|h| {
            let name = http::HeaderName::try_from(h.name).unwrap();
            (name, http::HeaderValue::from_bytes(h.value).unwrap())
        })
        .collect();
    assert_eq!(headers["host"], "chat.example.com:8080");
    assert_eq!(headers["origin"], "https://chat.example.com");
    assert_eq!(headers["authorization"], "Bearer x y");
    let accept = super::super::check(&http::Method::GET, http::Version::HTTP_11, &headers);
    assert_eq!(accept, Ok(accept_for(key().as_str())));
}

#[test]
fn nothing_breaks_out_of_its_place_in_the_head() {
    let good = Request::new("h", "/");
    for request in [
        Request { host: "", ..good },
        Request { host: "a b", ..good },
        Request { host: "a\r\nX: y", ..good },
        Request { path: "", ..good },
        Request { path: "rooms", ..good },
        Request { path: "/a b", ..good },
        Request { path: "/\r\n", ..good },
        Request { origin: Some("https://a\r\nX: y"), ..good },
        Request { headers: &[("", "x")], ..good },
        Request { headers: &[("A: b", "x")], ..good },
        Request { headers: &[("A", "x\ny")], ..good },
        Request { headers: &[("A", "x\0")], ..good },
    ] {
        assert!(request.to_bytes(&key()).is_err(), "{request:?}");
    }
}

#[test]
fn wrong_answers() {
    use ResponseError::*;
    let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    for (from, to, error) in [
        ("HTTP/1.1", "SSH-2.0", Malformed),
        ("HTTP/1.1", "HTTP/1.0", Malformed),
        ("101", "200", Refused { status: 200, retry_after: None }),
        (
            "101 Switching Protocols",
            "503 Busy\r\nRetry-After: 7",
            Refused { status: 503, retry_after: Some(7) },
        ),
        ("Upgrade: websocket\r\n", "", WrongHeader("upgrade")),
        ("Upgrade: websocket", "Upgrade: h2c", WrongHeader("upgrade")),
        ("Connection: Upgrade", "Connection: close", WrongHeader("connection")),
        (accept, "", WrongHeader("sec-websocket-accept")),
        (accept, &[accept, accept].concat(), WrongHeader("sec-websocket-accept")),
        ("s3pP", "S3pP", WrongAccept),
        (
            "\r\n\r\n",
            "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            NotOffered("sec-websocket-extensions"),
        ),
        (
            "\r\n\r\n",
            "\r\nSec-WebSocket-Protocol: chat\r\n\r\n",
            NotOffered("sec-websocket-protocol"),
        ),
        ("\r\n\r\n", &format!("\r\n{}\r\n", "X: y\r\n".repeat(64)), Malformed),
    ] {
        let answer = GOOD.replacen(from, to, 1);
        assert_ne!(answer, GOOD);
        assert_eq!(check(&answer), Err(error), "{answer}");
    }
}

#[test]
fn a_protocol_that_was_offered_may_be_chosen() {
    let request = Request {
        headers: &[("Sec-WebSocket-Protocol", "a, chat")],
        ..Request::new("localhost", "/")
    };
    let answer = |protocol: &str| {
        let line = format!("\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n");
        request.check_response(&key(), GOOD.replace("\r\n\r\n", &line).as_bytes())
    };
    assert!(matches!(answer("chat"), Ok(Some(_))));
    assert!(matches!(answer("Chat"), Err(ResponseError::NotOffered(_))));
}
