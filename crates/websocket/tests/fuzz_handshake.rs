//! Both sides of the handshake against rules read off the raw header lines.
//!
//! Heads are written as bytes, parsed as a server would, and judged twice: by this crate, and here
//! by a list of plain conditions over the lines. A few thousand heads in an ordinary `cargo test`.
//! For longer: `BOLERO_RANDOM_TEST_TIME_MS=60000 BOLERO_RANDOM_ITERATIONS=1000000000 cargo test
//! --release -p hubbub-websocket --test fuzz_handshake`.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use hubbub_websocket::handshake::{
    HandshakeError, accept_for, check,
    client::{Key, Request},
};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Values for each header, good ones first; what a script picks most often.
const REQUEST: &[(&str, &[&str])] = &[
    (
        "Host",
        &["chat.example.com", "localhost:8080", "", "localhost:", "h:65536", ":80", "h:+80", "a@b"],
    ),
    ("Upgrade", &["websocket", "WebSocket", "h2c, websocket", "h2c", "websocket/13", "web socket"]),
    (
        "Connection",
        &["Upgrade", "keep-alive, upgrade", "close", "up, grade", ",,UPGRADE", "Upgrade\t"],
    ),
    ("Sec-WebSocket-Version", &["13", " 13 ", "12", "8", "13, 8", "", "013", "+13"]),
    (
        "Sec-WebSocket-Key",
        &[
            KEY,
            "AAAAAAAAAAAAAAAAAAAAAA==",
            "AAAA",
            "",
            "AAAAAAAAAAAAAAAAAAAAAAA=",
            "AAAAAAAAAAAAAAAAAAAAAA=A",
            "AAAAAAAAAAAAAAAAAAAA-_==",
            "AAAAAAAAAAAAAAAAAAAAA/==",
        ],
    ),
];
const RESPONSE: &[(&str, &[&str])] = &[
    ("Upgrade", &["websocket", "WEBSOCKET", "h2c"]),
    ("Connection", &["Upgrade", "keep-alive, upgrade", "close"]),
    ("Sec-WebSocket-Accept", &["s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "S3pPLMBiTxaQ9kYGzzhZRbK+xOo=", ""]),
];
const OTHERS: &[(&str, &str)] = &[
    ("Content-Length", "0"),
    ("Content-Length", "5"),
    ("Transfer-Encoding", "chunked"),
    ("Origin", "null"),
    ("sec-websocket-key", KEY),
    ("upgrade", "websocket"),
    ("HOST", "h"),
    ("connection", "upgrade"),
    ("Sec-WebSocket-Protocol", "chat"),
    ("X", "websocket"),
    ("Sec-WebSocket-Extensions", "permessage-deflate"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
];

type Lines = Vec<(String, Vec<u8>)>;

/// Header lines by script: each of `wanted` mostly there once and mostly good, and some others.
fn lines(wanted: &[(&str, &[&str])], script: &mut impl Iterator<Item = u8>) -> Lines {
    let mut lines = Lines::new();
    let mut byte = move || script.next().unwrap_or(0);
    for (name, values) in wanted {
        let copies = match byte() {
            0..=225 => 1,
            226..=240 => 0,
            _ => 2,
        };
        for _ in 0..copies {
            let choice = byte();
            let value =
                if choice < 200 { values[0] } else { values[usize::from(choice) % values.len()] };
            let mut value = value.as_bytes().to_vec();
            if byte() > 245 && !value.is_empty() {
                let at = usize::from(byte()) % value.len();
                // A line break would make other lines than these.
                value[at] = match byte() {
                    b'\r' | b'\n' => 0,
                    byte => byte,
                };
            }
            let name = if byte() > 200 { name.to_ascii_lowercase() } else { (*name).to_owned() };
            lines.push((name, value));
        }
    }
    for _ in 0..[0, 0, 0, 1, 2][usize::from(byte()) % 5] {
        let (name, value) = OTHERS[usize::from(byte()) % OTHERS.len()];
        lines.insert(usize::from(byte()) % (lines.len() + 1), (name.into(), value.into()));
    }
    lines
}

fn head(first: &str, lines: &Lines) -> Vec<u8> {
    let mut head = format!("{first}\r\n").into_bytes();
    for (name, value) in lines {
        head.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    head.extend(b"\r\n");
    head
}

/// The values of one header, as the grammar trims them.
fn values<'a>(lines: &'a Lines, name: &str) -> Vec<&'a [u8]> {
    let named = lines.iter().filter(|(n, _)| n.to_lowercase() == name.to_lowercase());
    named.map(|(_, value)| value.trim_ascii()).collect()
}

fn has_item(lines: &Lines, name: &str, item: &str) -> bool {
    let joined = values(lines, name).join(&b","[..]).to_ascii_lowercase();
    String::from_utf8_lossy(&joined).split(',').any(|part| part.trim_matches([' ', '\t']) == item)
}

fn good_request(method: &str, version: u8, lines: &Lines) -> bool {
    let keys = values(lines, "Sec-WebSocket-Key");
    let lengths = values(lines, "Content-Length");
    method == "GET"
        && version == 1
        && has_item(lines, "Upgrade", "websocket")
        && has_item(lines, "Connection", "upgrade")
        && matches!(values(lines, "Host")[..], [host] if names_a_host(host))
        && values(lines, "Sec-WebSocket-Version") == [b"13"]
        && keys.len() == 1
        && decodes_to_16_bytes(keys[0])
        && values(lines, "Transfer-Encoding").is_empty()
        && lengths.iter().all(|length| *length == b"0")
}

/// A registered name or IPv4 address of RFC 3986 (section 3.2.2) and perhaps a port; the scripts make no IPv6 address.
fn names_a_host(host: &[u8]) -> bool {
    let (name, port) = match host.iter().position(|byte| *byte == b':') {
        Some(colon) => (&host[..colon], &host[colon + 1..]),
        None => (host, &b""[..]),
    };
    let is_number = port.iter().all(u8::is_ascii_digit);
    let number = port.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(*digit & 15));
    !name.is_empty()
        && name.iter().all(|c| c.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(c))
        && is_number
        && number <= 65_535
}

/// Base64 by arithmetic: 24 characters of six bits, of which the last two stand for nothing.
fn decodes_to_16_bytes(key: &[u8]) -> bool {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = key.iter().take_while(|c| ALPHABET.contains(c)).count();
    let padding = key.iter().rev().take_while(|c| **c == b'=').count();
    digits + padding == key.len()
        && padding == 2
        && (digits * 6) / 8 == 16
        && key.len().is_multiple_of(4)
}

fn parse(head: &[u8]) -> Option<(Method, Version, HeaderMap)> {
    let mut slots = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut slots);
    request.parse(head).ok().filter(httparse::Status::is_complete)?;
    let mut headers = HeaderMap::new();
    for header in request.headers.iter() {
        let name = HeaderName::try_from(header.name).ok()?;
        headers.append(name, HeaderValue::from_bytes(header.value).ok()?);
    }
    let version = if request.version? == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
    Some((request.method?.parse().ok()?, version, headers))
}

#[test]
fn a_server_accepts_exactly_the_good_requests() {
    let (mut accepted, mut refused) = (0, 0);
    bolero::check!().with_iterations(10_000).with_max_len(80).for_each(|script: &[u8]| {
        let mut script = script.iter().copied();
        let method = ["GET", "GET", "GET", "GET", "GET", "GET", "POST", "HEAD", "get"]
            [usize::from(script.next().unwrap_or(0)) % 9];
        let version = u8::from(script.next() < Some(240));
        let lines = lines(REQUEST, &mut script);
        let head = head(&format!("{method} /rooms/a/b HTTP/1.{version}"), &lines);
        let Some((parsed_method, parsed_version, headers)) = parse(&head) else { return };

        let result = check(&parsed_method, parsed_version, &headers);
        let text = String::from_utf8_lossy(&head);
        assert_eq!(result.is_ok(), good_request(method, version, &lines), "{result:?}\n{text}");
        match result {
            Ok(accept) => {
                accepted += 1;
                let key = String::from_utf8_lossy(values(&lines, "Sec-WebSocket-Key")[0]);
                assert_eq!(accept, accept_for(&key));
            }
            Err(error) => {
                refused += 1;
                let plain = !has_item(&lines, "Upgrade", "websocket");
                assert_eq!(error == HandshakeError::NotUpgrade, plain, "{error:?}\n{text}");
                let mends_version = error.headers().contains(&("sec-websocket-version", "13"));
                assert_eq!(error.status() == 426, mends_version);
            }
        }
    });
    assert!(accepted > 300 && refused > 300, "{accepted} accepted, {refused} refused");
}

#[test]
fn a_client_accepts_exactly_the_good_answers() {
    let key = Key::from_nonce(*b"the sample nonce");
    assert_eq!(key.as_str(), KEY);
    let request = Request::new("chat.example.com", "/rooms/a/b");
    let (mut accepted, mut refused) = (0, 0);
    bolero::check!().with_iterations(10_000).with_max_len(80).for_each(|script: &[u8]| {
        let mut bytes = script.iter().copied();
        let status = [101, 101, 101, 101, 101, 101, 200, 400, 503]
            [usize::from(bytes.next().unwrap_or(0)) % 9];
        let version = u8::from(bytes.next() < Some(240));
        let lines = lines(RESPONSE, &mut bytes);
        let mut head = head(&format!("HTTP/1.{version} {status} X"), &lines);
        let head_len = head.len();
        assert!(!matches!(request.check_response(&key, &head[..head_len - 1]), Ok(Some(_))));
        head.extend(script);

        let good = status == 101
            && version == 1
            && has_item(&lines, "Upgrade", "websocket")
            && has_item(&lines, "Connection", "upgrade")
            && values(&lines, "Sec-WebSocket-Accept") == [b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]
            && values(&lines, "Sec-WebSocket-Extensions").is_empty()
            && values(&lines, "Sec-WebSocket-Protocol").is_empty()
            && lines.iter().all(|(_, value)| {
                value.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control())
            });
        let text = String::from_utf8_lossy(&head);
        match request.check_response(&key, &head) {
            Ok(Some(len)) => {
                accepted += 1;
                assert!(good && len == head_len, "{text}");
            }
            Ok(None) => assert!(!good, "{text}"),
            Err(error) => {
                refused += 1;
                assert!(!good, "{error}\n{text}");
            }
        }
        // And of arbitrary bytes it only must make something.
        let _ = request.check_response(&key, script);
    });
    assert!(accepted > 300 && refused > 300, "{accepted} accepted, {refused} refused");
}
