//! One row for each rule of section 4.2.1.

use super::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const GOOD: &[(&str, &str)] = &[
    ("host", "chat.example.com"),
    ("upgrade", "websocket"),
    ("connection", "Upgrade"),
    ("sec-websocket-key", KEY),
    ("sec-websocket-version", "13"),
];

fn headers(list: &[(&str, &str)]) -> HeaderMap {
    list.iter()
        .map(|(name, value)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap())
        })
        .collect()
}

fn check_get(list: &[(&str, &str)]) -> Result<Accept, HandshakeError> {
    check(&Method::GET, Version::HTTP_11, &headers(list))
}

/// The good request with every header of this name replaced by these values.
fn with(name: &str, values: &[&str]) -> Result<Accept, HandshakeError> {
    let mut list: Vec<_> = GOOD.iter().copied().filter(|(n, _)| *n != name).collect();
    list.extend(values.iter().map(|value| (name, *value)));
    check_get(&list)
}

#[test]
fn the_example_of_the_rfc() {
    assert_eq!(check_get(GOOD).unwrap().as_str(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(HeaderValue::from(accept_for(KEY)), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[test]
fn accepted() {
    for (name, values) in [
        ("connection", &["keep-alive, Upgrade"][..]),
        ("connection", &["keep-alive", "UPGRADE"]),
        ("connection", &[" , ,\tupgrade\t, close"]),
        ("upgrade", &["WebSocket"]),
        ("upgrade", &["h2c, websocket"]),
        ("upgrade", &["h2c", "websocket"]),
        ("sec-websocket-key", &["/////////////////////w=="]),
        ("sec-websocket-key", &["/////////////////////x=="]),
        ("content-length", &["0"]),
        ("sec-websocket-extensions", &["permessage-deflate", "x-other"]),
        ("sec-websocket-protocol", &["chat"]),
    ] {
        assert!(with(name, values).is_ok(), "{name}: {values:?}");
    }
}

#[test]
fn refused() {
    use HandshakeError::*;
    for (name, values, error) in [
        ("upgrade", &[][..], NotUpgrade),
        ("upgrade", &["h2c"], NotUpgrade),
        ("upgrade", &["websocket2"], NotUpgrade),
        ("upgrade", &["websocket/13"], NotUpgrade),
        ("upgrade", &["not websocket"], NotUpgrade),
        ("connection", &[], Missing("connection")),
        ("connection", &["keep-alive"], Missing("connection")),
        ("connection", &["upgraded"], Missing("connection")),
        ("connection", &["upgrade; x"], Missing("connection")),
        ("host", &[], Missing("host")),
        ("host", &["a", "b"], Duplicate("host")),
        ("host", &[""], BadHost),
        ("host", &["a b"], BadHost),
        ("host", &["a@b"], BadHost),
        ("host", &["[::1"], BadHost),
        ("host", &["b:80@b:80"], BadHost),
        ("host", &["x:99999999"], BadHost),
        ("host", &["x:+80"], BadHost),
        ("host", &["a/b"], BadHost),
        ("sec-websocket-version", &[], Missing("sec-websocket-version")),
        ("sec-websocket-version", &["13", "13"], Duplicate("sec-websocket-version")),
        ("sec-websocket-version", &["8", "13"], Duplicate("sec-websocket-version")),
        ("sec-websocket-version", &["12"], UnsupportedVersion),
        ("sec-websocket-version", &["8"], UnsupportedVersion),
        ("sec-websocket-version", &["013"], UnsupportedVersion),
        ("sec-websocket-version", &["13, 8"], UnsupportedVersion),
        ("sec-websocket-version", &[""], UnsupportedVersion),
        ("sec-websocket-key", &[], Missing("sec-websocket-key")),
        ("sec-websocket-key", &[KEY, KEY], Duplicate("sec-websocket-key")),
        ("sec-websocket-key", &[""], BadKey),
        ("sec-websocket-key", &["AAAA"], BadKey),
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ"], BadKey),
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ= ="], BadKey),
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQQ="], BadKey),
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQQQ"], BadKey),
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ==, x"], BadKey),
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25-_Q=="], BadKey),
        ("content-length", &["5"], HasBody),
        ("transfer-encoding", &["chunked"], HasBody),
    ] {
        assert_eq!(with(name, values), Err(error), "{name}: {values:?}");
    }
}

#[test]
fn method_and_version() {
    let headers = headers(GOOD);
    for method in [Method::POST, Method::HEAD, Method::CONNECT, Method::OPTIONS] {
        let refused = check(&method, Version::HTTP_11, &headers);
        assert_eq!(refused, Err(HandshakeError::BadMethod), "{method}");
    }
    for version in [Version::HTTP_09, Version::HTTP_10, Version::HTTP_2, Version::HTTP_3] {
        let refused = check(&Method::GET, version, &headers);
        assert_eq!(refused, Err(HandshakeError::HttpVersion), "{version:?}");
    }
    let plain = check(&Method::POST, Version::HTTP_10, &HeaderMap::new());
    assert_eq!(plain, Err(HandshakeError::NotUpgrade), "a plain request is told apart first");
}

#[test]
fn bytes_that_are_no_text_are_refused_and_not_panicked_over() {
    for name in ["upgrade", "connection", "sec-websocket-key", "sec-websocket-version"] {
        let mut headers = headers(GOOD);
        let name = HeaderName::try_from(name).unwrap();
        headers.insert(name, HeaderValue::from_bytes(b"\xff\xfe").unwrap());
        assert!(check(&Method::GET, Version::HTTP_11, &headers).is_err());
    }
}

#[test]
fn answers() {
    assert_eq!(HandshakeError::NotUpgrade.status(), 400);
    assert_eq!(HandshakeError::BadMethod.status(), 405);
    assert_eq!(HandshakeError::BadMethod.headers(), [("allow", "GET, HEAD")]);
    assert_eq!(HandshakeError::UnsupportedVersion.status(), 426);
    let headers = HandshakeError::UnsupportedVersion.headers();
    assert!(headers.contains(&("sec-websocket-version", "13")), "section 4.4");
    assert!(headers.contains(&("upgrade", "websocket")), "RFC 9110, section 15.5.22");
}
