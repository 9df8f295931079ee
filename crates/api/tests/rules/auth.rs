//! Rooms at the bounds of the rules of who may enter.

use hubbub_api::{Access, Auth, ChatRoom, ConfigMapKey, Jwt, KeySource, WireDuration};

use super::{Edit, ms};

const KEY: &str =
    r#"{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

fn jwt(room: &mut ChatRoom, edit: impl FnOnce(&mut Jwt)) {
    let mut jwt = Jwt::new("https://id.example.com/", "chat", KeySource::inline(set(&[KEY])));
    edit(&mut jwt);
    room.spec.auth = Auth { anonymous: Access::None, jwt: Some(jwt) };
}

fn set(keys: &[&str]) -> String {
    format!(r#"{{"keys": [{}]}}"#, keys.join(", "))
}

/// A good set of exactly so many bytes.
fn padded(bytes: usize) -> String {
    let set = set(&[KEY]);
    " ".repeat(bytes - set.len()) + &set
}

fn inline(room: &mut ChatRoom, jwks: &str) {
    jwt(room, |jwt| jwt.jwks = KeySource::inline(jwks));
}

fn url(room: &mut ChatRoom, url: &str) {
    let url = Some(url.to_owned());
    jwt(room, |jwt| jwt.jwks = KeySource { url, ..KeySource::default() });
}

fn config_map(room: &mut ChatRoom, name: &str, key: &str) {
    let config_map = Some(ConfigMapKey { name: name.to_owned(), key: key.to_owned() });
    jwt(room, |jwt| jwt.jwks = KeySource { config_map, ..KeySource::default() });
}

fn audiences(room: &mut ChatRoom, count: usize, length: usize) {
    jwt(room, |jwt| {
        jwt.audiences = (0..count).map(|n| format!("{n:0length$}")).collect();
    });
}

fn parameter(room: &mut ChatRoom, name: &str) {
    jwt(room, |jwt| jwt.query_parameter = Some(name.to_owned()));
}

fn leeway(room: &mut ChatRoom, leeway: WireDuration) {
    jwt(room, |jwt| jwt.leeway = leeway);
}

/// For each rule, rooms that just keep it and rooms that just break it.
pub(super) fn table() -> Vec<(&'static str, Vec<Edit>, Vec<Edit>)> {
    vec![
        (
            "auth-lets-somebody-in",
            vec![|r| jwt(r, |_| ()), |r| r.spec.auth.anonymous = Access::Read],
            vec![|r| r.spec.auth.anonymous = Access::None],
        ),
        (
            "auth-tokens-count",
            vec![|r| {
                jwt(r, |_| ());
                r.spec.auth.anonymous = Access::Read;
            }],
            vec![|r| {
                jwt(r, |_| ());
                r.spec.auth.anonymous = Access::ReadWrite;
            }],
        ),
        (
            "jwt-issuer",
            vec![|r| jwt(r, |jwt| jwt.issuer = "ü".repeat(256))],
            vec![|r| jwt(r, |jwt| jwt.issuer.clear()), |r| {
                jwt(r, |jwt| jwt.issuer = "u".repeat(257));
            }],
        ),
        (
            "jwt-audiences",
            vec![|r| audiences(r, 16, 256)],
            vec![|r| audiences(r, 0, 1), |r| audiences(r, 17, 2), |r| audiences(r, 1, 257)],
        ),
        (
            "jwt-claim",
            vec![|r| jwt(r, |jwt| jwt.claim = "https://hubbub.dev/rooms".to_owned())],
            vec![|r| jwt(r, |jwt| jwt.claim.clear()), |r| {
                jwt(r, |jwt| jwt.claim = "c".repeat(257));
            }],
        ),
        (
            "jwt-query-parameter",
            vec![|r| parameter(r, "access_token"), |r| parameter(r, &"t".repeat(64))],
            vec![
                |r| parameter(r, ""),
                |r| parameter(r, &"t".repeat(65)),
                |r| parameter(r, "a&b"),
                |r| parameter(r, "origin"),
                |r| parameter(r, "connection"),
            ],
        ),
        (
            "jwt-leeway",
            vec![|r| leeway(r, ms(0)), |r| leeway(r, ms(300_000))],
            vec![|r| leeway(r, ms(300_001))],
        ),
        (
            "jwks-one-source",
            vec![|r| url(r, "https://id.example.com/keys")],
            vec![|r| jwt(r, |jwt| jwt.jwks = KeySource::default()), |r| {
                jwt(r, |jwt| jwt.jwks.url = Some("https://id.example.com/keys".to_owned()));
            }],
        ),
        (
            "jwks-inline-json",
            vec![|r| inline(r, &format!("\n{}", set(&[KEY]))), |r| {
                inline(r, &padded(65_536));
            }],
            vec![
                |r| inline(r, ""),
                |r| inline(r, KEY),
                |r| inline(r, "-----BEGIN PUBLIC KEY-----"),
                |r| inline(r, &padded(65_537)),
            ],
        ),
        (
            "jwks-inline-symmetric",
            vec![],
            vec![|r| inline(r, &set(&[KEY, r#"{"kty":"oct","k":"c2VjcmV0"}"#]))],
        ),
        (
            "jwks-inline-private",
            vec![],
            vec![|r| inline(r, &set(&[&KEY.replace('}', r#", "d": "AAAA"}"#)]))],
        ),
        (
            "jwks-inline-usable",
            vec![|r| {
                let (one, other) = (KEY.replace('}', r#", "kid": "1"}"#), KEY.to_owned());
                inline(r, &set(&[&one, &other, r#"{"kty": "ML-DSA"}"#]));
            }],
            vec![
                |r| inline(r, &set(&[])),
                |r| inline(r, &set(&[r#"{"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}"#])),
                |r| inline(r, &set(&[KEY; 33])),
                |r| {
                    let one = KEY.replace('}', r#", "kid": "1"}"#);
                    inline(r, &set(&[&one, &one]));
                },
            ],
        ),
        (
            "jwks-config-map",
            vec![|r| config_map(r, "id.keys-1", "jwks.json"), |r| {
                config_map(r, "a", &"k".repeat(253));
            }],
            vec![
                |r| config_map(r, "", "jwks.json"),
                |r| config_map(r, "Keys", "jwks.json"),
                |r| config_map(r, "a..b", "jwks.json"),
                |r| config_map(r, "a", ""),
                |r| config_map(r, "a", "../secret"),
                |r| config_map(r, "a", &"k".repeat(254)),
            ],
        ),
        (
            "jwks-url",
            vec![|r| url(r, "https://id.example.com"), |r| {
                url(r, "https://[2001:db8::1]:8443/keys?of=chat")
            }],
            vec![
                |r| url(r, ""),
                |r| url(r, "http://id.example.com/keys"),
                |r| url(r, "https://"),
                |r| url(r, "https://user@id.example.com/keys"),
                |r| url(r, "https://id.example.com/keys#now"),
                |r| url(r, "https://id.example.com/a b"),
                |r| url(r, &format!("https://id.example.com/{}", "k".repeat(1024))),
            ],
        ),
    ]
}
