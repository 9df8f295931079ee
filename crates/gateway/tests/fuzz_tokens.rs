//! Tokens of any shape: none is good that the room's key has not signed, and of those that it has signed just the ones whose claims are
//! good by a list of plain conditions.
//!
//! A few thousand in an ordinary `cargo test`. For longer: `BOLERO_RANDOM_TEST_TIME_MS=60000 BOLERO_RANDOM_ITERATIONS=1000000000 cargo
//! test --release -p hubbub-gateway --test fuzz_tokens`.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::{
    collections::BTreeMap,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use hubbub_api::{
    Access, Jwt, JwtPolicy, KeyMaterial, KeySource, RoomName, VerificationKey, parse_jwks,
};
use hubbub_gateway::token::{CarrierFault, PROTOCOL, TokenFault, Verifier, carried};
use hubbub_testkit::{TokenIssuer, key_set};
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use serde_json::{Map, Value, json};

const ISSUER: &str = "https://id.example.com/";
const AUDIENCE: &str = "chat";

/// Seconds since 1970 at which tokens are looked at.
const NOW: u64 = 1_800_000_000;

/// By how much clocks may differ, which is the room's default.
const LEEWAY: u64 = 30;

/// The room's signers, whose keys have the same name, and a stranger who uses that name too.
static SIGNERS: LazyLock<[TokenIssuer; 3]> = LazyLock::new(|| {
    ["ES256", "EdDSA", "RS256"].map(|alg| TokenIssuer::with_algorithm(ISSUER, "one", alg))
});
static STRANGER: LazyLock<TokenIssuer> = LazyLock::new(|| TokenIssuer::new(ISSUER, "one"));

static KEYS: LazyLock<Vec<VerificationKey>> = LazyLock::new(|| {
    let [ec, ed, rsa] = &*SIGNERS;
    parse_jwks(&key_set(&[ec, ed, rsa])).unwrap()
});

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let declared = Jwt::new(ISSUER, AUDIENCE, KeySource::default());
    Verifier::new(&JwtPolicy::new(&declared, "demo", KEYS.clone()))
});

/// Good claims.
fn claims() -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "anna", "exp": NOW + 60})
}

/// A good token of each signer.
static GOOD: LazyLock<[String; 3]> =
    LazyLock::new(|| SIGNERS.each_ref().map(|signer| signer.sign(&claims())));

fn pick<'a, T>(from: &'a [T], byte: Option<&u8>) -> &'a T {
    &from[usize::from(byte.copied().unwrap_or(0)) % from.len()]
}

/// The number of a public key that sets it apart.
fn number(key: &VerificationKey) -> String {
    match &key.material {
        KeyMaterial::Rsa { n, .. } => n.clone(),
        KeyMaterial::Ec { x, .. } | KeyMaterial::Okp { x, .. } => x.clone(),
    }
}

#[test]
fn nothing_is_good_that_no_key_of_the_room_has_signed() {
    bolero::check!().with_iterations(3000).with_max_len(400).for_each(|input: &[u8]| {
        let text = String::from_utf8_lossy(input);
        assert!(VERIFIER.verify(&text, NOW).is_err(), "{text:?}");
        let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let parts: Vec<String> = input.split(|byte| *byte == b'.').take(3).map(encoded).collect();
        assert!(VERIFIER.verify(&parts.join("."), NOW).is_err(), "{input:?}");

        // All in order but the signature, with whatever forgers put into the header.
        let algs =
            ["ES256", "EdDSA", "RS256", "none", "None", "", "HS256", "HS512", "PS256", "ES384"];
        let mut head = json!({"typ": "JWT", "alg": pick(&algs, input.first())});
        for (name, value) in [
            ("kid", json!(pick(&["one", "two", ""], input.get(1)))),
            ("jwk", STRANGER.jwk().clone()),
            ("jku", json!("https://evil.example.com/jwks.json")),
            ("crit", json!(["exp"])),
            ("b64", json!(false)),
            ("zip", json!("DEF")),
        ] {
            if input.get(2).unwrap_or(&0).count_ones() > 3 || name == "kid" {
                head[name] = value;
            }
        }
        let claimed = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "eve", "exp": NOW + 60});
        let claimed = encoded(claimed.to_string().as_bytes());
        let signed = format!("{}.{claimed}", encoded(head.to_string().as_bytes()));
        let others = GOOD.each_ref().map(|token| token.rsplit_once('.').unwrap().1.to_owned());
        let mut signatures = vec![String::new(), encoded(input), encoded(&[0; 64])];
        signatures.extend(others);
        // Everybody knows the public key, so it must be no secret of an HMAC.
        let known = pick(&KEYS, input.get(3));
        for secret in [serde_json::to_string(known).unwrap(), number(known)] {
            let secret = EncodingKey::from_secret(secret.as_bytes());
            signatures.push(sign(signed.as_bytes(), &secret, Algorithm::HS256).unwrap());
        }
        for signature in signatures {
            let forged = format!("{signed}.{signature}");
            assert!(VERIFIER.verify(&forged, NOW).is_err(), "{forged}");
        }
        let strange = STRANGER.sign_headed(&head, &claims());
        assert!(VERIFIER.verify(&strange, NOW).is_err(), "{strange}");
    });
}

#[test]
fn a_token_with_something_changed_is_good_only_if_what_is_signed_is_not() {
    static SURVIVED: AtomicUsize = AtomicUsize::new(0);
    for good in &*GOOD {
        assert!(VERIFIER.verify(good, NOW).is_ok(), "{good}");
    }
    bolero::check!().with_iterations(5000).with_max_len(16).for_each(|input: &[u8]| {
        let good = pick(&*GOOD, input.first());
        let mut token = good.clone().into_bytes();
        for change in input.get(1..).unwrap_or_default().chunks_exact(4) {
            let place = u16::from_be_bytes([change[0], change[1]]);
            if token.is_empty() {
                break;
            }
            let at = usize::from(place) % token.len();
            match change[2] % 4 {
                0 => token[at] = change[3],
                1 => token.insert(at, change[3]),
                2 => drop(token.remove(at)),
                _ => token.truncate(at.max(1)),
            }
        }
        let token = String::from_utf8_lossy(&token);
        if VERIFIER.verify(&token, NOW).is_ok() {
            SURVIVED.fetch_add(1, Ordering::Relaxed);
            let signed = |token: &str| token.rsplit_once('.').map(|(signed, _)| signed.to_owned());
            assert_eq!(signed(&token), signed(good));
        }
    });
    // Those to which nothing was done, at least.
    assert!(SURVIVED.load(Ordering::Relaxed) > 0);
}

/// What must become of a token because of one of its claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    Bad,
    /// Not as RFC 7519 has it, so either will do.
    Either,
}

use Verdict::{Bad, Either, Good};

/// The value of a claim, none leaves it out, and what must become of a token with it.
type Choice = (Option<Value>, Verdict);

/// Values for each claim, good ones first.
fn values() -> Vec<(&'static str, Vec<Choice>)> {
    let some = |value: Value, verdict| (Some(value), verdict);
    let any = [json!(null), json!(true), json!({}), json!([[]]), json!({"a": [1]})];
    let with_any = |mut values: Vec<_>, verdict| {
        values.extend(any.iter().map(|value| some(value.clone(), verdict)));
        values
    };
    let long = "x".repeat(128);
    vec![
        (
            "iss",
            with_any(
                vec![
                    some(json!(ISSUER), Good),
                    some(json!("https://id.example.com"), Bad),
                    some(json!("HTTPS://ID.EXAMPLE.COM/"), Bad),
                    some(json!(""), Bad),
                    some(json!([ISSUER]), Bad),
                    (None, Bad),
                ],
                Bad,
            ),
        ),
        (
            "aud",
            with_any(
                vec![
                    some(json!(AUDIENCE), Good),
                    some(json!(["other", AUDIENCE]), Good),
                    some(json!(["other"]), Bad),
                    some(json!([]), Bad),
                    some(json!("chatter"), Bad),
                    some(json!([1, AUDIENCE]), Either),
                    (None, Bad),
                ],
                Bad,
            ),
        ),
        (
            "exp",
            with_any(
                vec![
                    some(json!(NOW + 60), Good),
                    some(json!(NOW - LEEWAY + 1), Good),
                    some(json!(NOW - LEEWAY), Bad),
                    some(json!(0), Bad),
                    some(json!(-1), Bad),
                    some(json!(NOW as f64 + 0.5), Good),
                    some(json!(1e300), Either),
                    some(json!(u64::MAX), Good),
                    some(json!("1900000000"), Bad),
                    (None, Bad),
                ],
                Bad,
            ),
        ),
        (
            "nbf",
            with_any(
                vec![
                    (None, Good),
                    some(json!(NOW + LEEWAY), Good),
                    some(json!(0), Good),
                    some(json!(NOW + LEEWAY + 1), Bad),
                    some(json!(u64::MAX), Bad),
                    some(json!(1e300), Bad),
                    some(json!(-1.5), Either),
                    some(json!("1900000000"), Bad),
                ],
                Bad,
            ),
        ),
        ("sub", with_any(vec![some(json!("anna"), Good), (None, Good)], Either)),
        ("iat", with_any(vec![(None, Good), some(json!(NOW), Good)], Either)),
        (
            "hubbub",
            with_any(
                vec![
                    (None, Good),
                    some(json!({"read": ["demo/*"], "write": "demo/lobby"}), Good),
                    some(json!({"read": []}), Good),
                    some(json!({"read": [&long]}), Bad),
                    some(json!({"read": vec!["demo/*"; 257]}), Bad),
                    some(json!({"write": 7}), Bad),
                    some(json!({"write": ["demo/*", null]}), Bad),
                    some(json!("demo/*"), Bad),
                ],
                // Of those for every claim the objects say nothing of rooms.
                Either,
            ),
        ),
    ]
}

#[test]
fn what_the_room_has_signed_is_judged_by_its_claims() {
    static OUTCOMES: LazyLock<std::sync::Mutex<BTreeMap<String, usize>>> =
        LazyLock::new(Default::default);
    bolero::check!().with_iterations(3000).with_max_len(40).for_each(|input: &[u8]| {
        let mut script = input.iter();
        let signer = pick(&SIGNERS[..2], script.next());
        let mut claims = Map::new();
        let mut expected = Good;
        for (name, values) in values() {
            // Mostly the first, or hardly any would be good.
            let choice = script.next().copied().unwrap_or(0);
            let index = if choice < 170 { 0 } else { usize::from(choice) % values.len() };
            let (value, verdict) = &values[index];
            if let Some(value) = value {
                claims.insert(name.to_owned(), value.clone());
            }
            expected = match (expected, *verdict) {
                (Bad, _) | (_, Bad) => Bad,
                (Either, _) | (_, Either) => Either,
                (Good, Good) => Good,
            };
        }
        let name = format!("x{}", script.len());
        claims.insert(name, json!(script.as_slice()));
        let token = signer.sign(&Value::Object(claims.clone()));
        let verified = VERIFIER.verify(&token, NOW);
        match expected {
            Good => assert!(verified.is_ok(), "{claims:?}: {verified:?}"),
            Bad => assert!(verified.is_err(), "{claims:?}: {verified:?}"),
            Either => {}
        }
        // Reading what it says never fails either.
        let lobby = RoomName::new("demo", "lobby").unwrap();
        let access = verified.as_ref().map(|bearer| VERIFIER.access(bearer, &lobby));
        if !claims.contains_key("hubbub") {
            assert!(access.is_err() || access == Ok(Access::ReadWrite), "{access:?}");
        }
        let outcome =
            verified.map_or_else(|fault| fault.reason().to_owned(), |_| "good".to_owned());
        *OUTCOMES.lock().unwrap().entry(outcome).or_default() += 1;
    });
    let outcomes = OUTCOMES.lock().unwrap();
    let faults = [
        TokenFault::Expired,
        TokenFault::NotYet,
        TokenFault::NoExpiry,
        TokenFault::Issuer,
        TokenFault::Audience,
    ];
    for outcome in faults.map(TokenFault::reason).iter().chain(&["good", "token_claim"]) {
        assert!(outcomes.contains_key(*outcome), "{outcome} is never reached: {outcomes:?}");
    }
}

/// Something that a handshake may bring, and what it counts as.
enum Piece {
    Header(HeaderName, &'static str, usize),
    Query(&'static str, usize),
}

fn pieces() -> Vec<Piece> {
    use Piece::{Header, Query};
    let (authorization, protocol) = (header::AUTHORIZATION, header::SEC_WEBSOCKET_PROTOCOL);
    vec![
        Header(authorization.clone(), "Bearer a.b.c", 1),
        Header(authorization.clone(), "bEaReR  a.b.c ", 1),
        Header(authorization.clone(), "Basic YTpi", 0),
        Header(authorization.clone(), "Bearer", 0),
        Header(authorization, "", 0),
        Header(protocol.clone(), "hubbub.v1", 0),
        Header(protocol.clone(), "chat , hubbub.v1", 0),
        Header(protocol.clone(), "hubbub.bearer.a.b.c", 1),
        Header(protocol.clone(), "hubbub.v1,hubbub.bearer.a.b.c", 1),
        Header(protocol.clone(), "hubbub.bearer.a.b.c, hubbub.bearer.a.b.c", 2),
        Header(protocol, "hubbub.v10, xhubbub.bearer.a", 0),
        Query("token=a.b.c", 1),
        Query("token=a.b.c&token=", 2),
        Query("Token=a.b.c", 0),
        Query("connection=token", 0),
        Query("&&=&token", 0),
    ]
}

#[test]
fn a_handshake_brings_one_token_or_is_refused() {
    bolero::check!().with_iterations(5000).with_max_len(6).for_each(|input: &[u8]| {
        let pieces = pieces();
        let mut script = input.iter();
        let parameter = script.next().is_none_or(|byte| byte % 3 != 0).then_some("token");
        let (mut headers, mut query) = (HeaderMap::new(), Vec::new());
        let (mut in_headers, mut in_protocol, mut in_query, mut offered) = (0, 0, 0, false);
        for byte in script {
            match pick(&pieces, Some(byte)) {
                Piece::Header(name, value, tokens) => {
                    headers.append(name, HeaderValue::from_static(value));
                    in_headers += tokens;
                    if name == header::SEC_WEBSOCKET_PROTOCOL {
                        in_protocol += tokens;
                        offered |= value.split([',', ' ']).any(|word| word == PROTOCOL);
                    }
                }
                Piece::Query(text, tokens) => {
                    query.push(*text);
                    in_query += tokens;
                }
            }
        }
        let query = query.join("&");
        if parameter.is_none() {
            in_query = 0;
        }
        let expected = match in_headers + in_query {
            _ if in_headers > 1 => Err(CarrierFault::Repeated),
            _ if in_protocol > 0 && !offered => Err(CarrierFault::Protocol),
            0 => Ok(None),
            1 => Ok(Some("a.b.c")),
            _ => Err(CarrierFault::Repeated),
        };
        let found = carried(&headers, Some(&query), parameter);
        assert_eq!(found.map(|found| found.token), expected, "{headers:?} {query:?}");
        if let Ok(found) = found {
            assert_eq!(found.protocol, offered, "{headers:?}");
        }
    });
}

#[test]
fn any_bytes_in_a_handshake_bring_no_more_than_stands_there() {
    bolero::check!().with_iterations(5000).with_max_len(200).for_each(|input: &[u8]| {
        let mut headers = HeaderMap::new();
        let mut parts = input.split(|byte| *byte == 0);
        let query = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        for (number, part) in parts.take(16).enumerate() {
            let begun = pick(&["Bearer ", "", "hubbub.bearer."], part.first()).as_bytes();
            let value = [begun, part].concat();
            let (first, second) = (header::AUTHORIZATION, header::SEC_WEBSOCKET_PROTOCOL);
            let name = if number % 2 == 0 { first } else { second };
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.append(name, value);
            }
        }
        if let Ok(found) = carried(&headers, Some(&query), Some("token"))
            && let Some(token) = found.token
        {
            let brought = headers.values().filter_map(|value| value.to_str().ok());
            let mut brought = brought.chain([query.as_str()]);
            assert!(brought.any(|text| text.contains(token)), "{token:?}");
            // Whatever it is, it is looked at without a fault.
            assert!(VERIFIER.verify(token, NOW).is_err());
        }
    });
}
