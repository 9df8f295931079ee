//! Policies of any shape, as NATS may hand them out: what passes the rules has all that it needs, and what does not is refused.
//!
//! A few thousand in an ordinary `cargo test`. For longer: `BOLERO_RANDOM_TEST_TIME_MS=60000 BOLERO_RANDOM_ITERATIONS=1000000000 cargo
//! test --release -p hubbub-gateway --test fuzz_policies`.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::sync::{
    LazyLock,
    atomic::{AtomicUsize, Ordering},
};

use hubbub_api::RoomPolicy;
use hubbub_gateway::room::Policy;
use hubbub_testkit::TokenIssuer;
use serde_json::{Value, json};

static KEY: LazyLock<Value> =
    LazyLock::new(|| TokenIssuer::new("https://id.example.com/", "one").jwk().clone());

/// Reads a policy as a gateway does. What is read can be used, and is written and read back as it was.
fn read(json: &[u8]) -> Option<RoomPolicy> {
    let policy = RoomPolicy::from_json(json).ok()?;
    let written = policy.to_json().unwrap();
    assert_eq!(RoomPolicy::from_json(&written).unwrap(), policy);
    let compiled = Policy::compile(policy.clone()).expect("what passes the rules can be used");
    assert_eq!(compiled.tokens().is_some(), policy.auth.jwt.is_some());
    Some(policy)
}

/// The value of a field, none leaves it out, and whether a policy may be taken with it.
type Choice = (Option<Value>, bool);

/// Values for the fields of a policy, a good one first.
fn fields() -> Vec<(&'static str, Vec<Choice>)> {
    let some = |value: Value, good: bool| (Some(value), good);
    // What is no value of any field.
    let with_nonsense = |mut values: Vec<Choice>| {
        let nonsense = [json!(null), json!([{}]), json!(-1.5), json!("\u{0}"), json!([[[[]]]])];
        values.extend(nonsense.map(|value| (Some(value), false)));
        values
    };
    let count = |most: u64| {
        let good = [1, 2, most].map(|number| some(json!(number), true));
        let bad = [json!(0), json!(most + 1), json!(-1), json!(u64::MAX), json!("7"), json!(7.5)];
        let bad = bad.map(|number| some(number, false));
        with_nonsense([vec![(None, true)], good.to_vec(), bad.to_vec()].concat())
    };
    let label = || {
        let good = [json!("lobby"), json!("a"), json!("0-9"), json!("x".repeat(63))];
        let bad = ["", "-a", "a-", "A", "a.b", "a/b", "*", ">", "a b", "a\r\nPUB x", "tür"];
        let good = good.map(|name| some(name, true)).to_vec();
        let bad = bad.map(|name| some(json!(name), false)).to_vec();
        with_nonsense([good, bad, vec![some(json!("x".repeat(64)), false), (None, false)]].concat())
    };
    let jwt = |changes: &Value| {
        let mut jwt = json!({
            "issuer": "https://id.example.com/", "audiences": ["chat"], "keys": [&*KEY],
            "claim": "hubbub", "accessWithoutClaim": "Read", "leeway": "30s",
        });
        jwt.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        json!({"anonymous": "None", "jwt": jwt})
    };
    let key = |member: &str, value: Value| {
        let mut key = KEY.clone();
        key[member] = value;
        json!({"keys": [key]})
    };
    let heartbeat = |pong: &str, ping: &str, write: &str| json!({"pongWait": pong, "pingPeriod": ping, "writeWait": write});
    vec![
        (
            "schema",
            with_nonsense(vec![
                some(json!(2), true),
                some(json!(1), true),
                some(json!(3), false),
                (None, false),
            ]),
        ),
        ("namespace", label()),
        ("name", label()),
        ("pool", label()),
        (
            "generation",
            with_nonsense(vec![
                some(json!(1), true),
                some(json!(i64::MIN), true),
                some(json!(u64::MAX), false),
            ]),
        ),
        (
            "allowedOrigins",
            with_nonsense(vec![
                some(
                    json!(["https://chat.example.com", "https://*.example.org:8443", "null"]),
                    true,
                ),
                some(json!(["*"]), true),
                some(json!([]), false),
                some(json!(["*", "https://a.example"]), false),
                some(json!(["https://a.example/"]), false),
                some(json!(["https://A.example", "https://a.example:443"]), false),
                some(json!(["https://*.*.example"]), false),
                some(json!(["wss://a.example"]), false),
                some(json!([format!("https://{}", "a.".repeat(126))]), false),
                some(
                    json!((0..65).map(|n| format!("https://{n}.example")).collect::<Vec<_>>()),
                    false,
                ),
                some(json!("https://a.example"), false),
                (None, false),
            ]),
        ),
        (
            "requireOrigin",
            vec![
                some(json!(true), true),
                some(json!("yes"), false),
                some(json!(1), false),
                (None, false),
            ],
        ),
        (
            "auth",
            vec![
                (None, true),
                some(json!({"anonymous": "Read"}), true),
                some(jwt(&json!({})), true),
                some(jwt(&json!({"queryParameter": "token", "newer": [1]})), true),
                some(json!({"anonymous": "read"}), false),
                some(json!({}), false),
                some(jwt(&json!({"issuer": ""})), false),
                some(jwt(&json!({"audiences": []})), false),
                some(jwt(&json!({"keys": []})), false),
                some(jwt(&json!({"keys": [&*KEY, &*KEY]})), false),
                some(jwt(&json!({"leeway": "-1s"})), false),
                some(jwt(&json!({"leeway": 30})), false),
                some(jwt(&key("alg", json!("HS256"))), false),
                some(jwt(&key("alg", json!("none"))), false),
                some(jwt(&key("alg", json!("ES384"))), false),
                some(jwt(&key("kty", json!("oct"))), false),
                some(jwt(&key("crv", json!("secp256k1"))), false),
                some(jwt(&key("x", json!("AAAA"))), false),
                some(jwt(&key("y", json!("?"))), false),
            ],
        ),
        ("limits/maxConnections", count(10_000_000)),
        ("limits/maxMessageBytes", count(16_777_216)),
        ("limits/sendQueue", count(65_536)),
        ("limits/messagesPerSecond", count(1_000_000)),
        ("limits/burst", count(1_000_000)),
        (
            "heartbeat",
            vec![
                (None, true),
                some(heartbeat("1h", "59m59s999ms", "5m"), true),
                some(heartbeat("101ms", "100ms", "100ms"), true),
                some(json!({"pingPeriod": "1s"}), true),
                some(heartbeat("30s", "30s", "1s"), false),
                some(heartbeat("30s", "31s", "1s"), false),
                some(heartbeat("61m", "1s", "1s"), false),
                some(heartbeat("1s", "99ms", "1s"), false),
                some(heartbeat("2s", "1s", "301s"), false),
                some(heartbeat("2s", "1s", "1"), false),
                some(heartbeat("99999h99999h99999h99999h", "1s", "1s"), false),
                some(json!({"pongWait": "1s"}), false),
            ],
        ),
        ("newer", vec![(None, true), some(json!({"than": ["this"]}), true)]),
    ]
}

#[test]
fn a_policy_is_taken_if_and_only_if_all_its_fields_are_good() {
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    static REFUSED: AtomicUsize = AtomicUsize::new(0);
    let fields = fields();
    bolero::check!().with_iterations(5000).with_max_len(20).for_each(|input: &[u8]| {
        let mut script = input.iter();
        let (mut policy, mut expected, mut chosen) = (json!({}), true, Vec::new());
        for (field, values) in &fields {
            // Mostly the first, or hardly any would be good.
            let choice = script.next().copied().unwrap_or(0);
            let index = if choice < 200 { 0 } else { usize::from(choice - 200) % values.len() };
            let (value, good) = &values[index];
            expected &= good;
            let Some(value) = value else { continue };
            chosen.push((field, value));
            match field.split_once('/') {
                Some((object, field)) => policy[object][field] = value.clone(),
                None => policy[*field] = value.clone(),
            }
        }
        let taken = read(policy.to_string().as_bytes()).is_some();
        assert_eq!(taken, expected, "{chosen:?}");
        let count = if taken { &TAKEN } else { &REFUSED };
        count.fetch_add(1, Ordering::Relaxed);
    });
    let counts = [&TAKEN, &REFUSED].map(|count| count.load(Ordering::Relaxed));
    assert!(counts.iter().all(|count| *count > 100), "taken and refused: {counts:?}");
}

#[test]
fn any_bytes_are_a_policy_or_refused() {
    let mut good = json!({});
    for (field, values) in fields() {
        if let (Some(value), None) = (&values[0].0, field.split_once('/')) {
            good[field] = value.clone();
        }
    }
    let good = good.to_string().into_bytes();
    assert!(read(&good).is_some());
    bolero::check!().with_iterations(5000).with_max_len(64).for_each(|input: &[u8]| {
        read(input);
        let mut changed = good.clone();
        for change in input.chunks_exact(4) {
            let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % changed.len();
            match change[2] % 3 {
                0 => changed[at] = change[3],
                1 => changed.insert(at, change[3]),
                _ => drop(changed.remove(at)),
            }
        }
        read(&changed);
    });
}
