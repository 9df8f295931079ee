//! The API server judges origins by CEL and the gateway by Rust. Both take the same, except where CEL cannot parse: there the
//! API server takes more, which the operator then finds. It never takes less.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod admission;

use admission::Admission;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Lists of origins on which both agree.
const AGREED: &[&[&str]] = &[
    // Good ones.
    &["https://chat.example.com"],
    &["http://localhost:8080"],
    &["http://127.0.0.1:3000"],
    &["http://[::1]:8080"],
    &["http://[2001:DB8::1]"],
    &["https://*.example.com"],
    &["https://*.example.com:8443"],
    &["https://*.localhost"],
    &["*"],
    &["null"],
    &["null", "https://chat.example.com"],
    &["https://example.com", "https://*.example.com"],
    &["HTTPS://Chat.Example.COM"],
    &["https://my_host.example.com"],
    &["https://xn--pp-6kc.example.com"],
    &["https://a-b.example.com", "https://a.example.com", "http://a.example.com"],
    &["https://a.example.com:1", "https://a.example.com:65535"],
    &["chrome-extension://abcdefghijklmnop"],
    &["capacitor://localhost"],
    &["tauri://localhost:1420"],
    &["a+b-c.d1://localhost"],
    // Scheme.
    &["chat.example.com"],
    &["//chat.example.com"],
    &["https:chat.example.com"],
    &["://chat.example.com"],
    &["1http://chat.example.com"],
    &["ht_tp://chat.example.com"],
    &["wss://chat.example.com"],
    &["WS://chat.example.com"],
    &["file:///etc/passwd"],
    &["FILE://host"],
    &["data:text/html;x"],
    &["javascript://x"],
    &["NULL"],
    &["localhost:8080"],
    // Wildcard.
    &["https://*"],
    &["https://chat.*.com"],
    &["https://*chat.example.com"],
    &["https://chat*.example.com"],
    &["https://*.*.example.com"],
    &["https://example.com:*"],
    &["*://example.com"],
    &["*.example.com"],
    &["**"],
    // Path.
    &["https://chat.example.com/"],
    &["https://chat.example.com/room"],
    &["https://chat.example.com?x"],
    &["https://chat.example.com#x"],
    &["https://*.example.com/"],
    // Form.
    &["https://"],
    &["https://user@chat.example.com"],
    &["https://chat.example.com."],
    &["https://.chat.example.com"],
    &["https://chat..example.com"],
    &["https://-chat.example.com"],
    &["https://chat-.example.com"],
    &["https://chat.example.com:"],
    &["https://chat.example.com:0443"],
    &["https://chat.example.com:+443"],
    &["https://chat.example.com:443:443"],
    &["https://chat.example.com:100000"],
    &["https://chat example.com"],
    &["https://app%2eexample.com"],
    &["https://\u{430}pp.example.com"],
    &["https://chat.example.com,https://other.example.com"],
    &["https://chat.example.com,other.example.com/"],
    // Lists.
    &[],
    &[""],
    &["*", "https://chat.example.com"],
    &["https://chat.example.com", "https://Chat.example.com"],
    &["https://chat.example.com", "HTTPS://chat.example.com:443"],
    &["http://*.example.com:80", "http://*.Example.com"],
    &["https://chat.example.com", "https://chat.example.com:80"],
    &["http://chat.example.com", "http://chat.example.com:443"],
    &["capacitor://localhost", "capacitor://localhost:80"],
    &["null", "null2://x", "wss://x"],
    &["https://chat.example.com", "wss://chat.example.com", "https://chat.example.com/"],
];

/// Lists that only Rust refuses, because CEL would have to parse numbers.
const LEFT_TO_RUST: &[&[&str]] = &[
    &["https://chat.example.com:65536"],
    &["http://256.1.1.1"],
    &["http://127.1"],
    &["http://[1::2::3]"],
    &["https://*.127.0.0.1"],
];

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|&origin| origin.to_owned()).collect()
}

#[tokio::test]
async fn the_api_server_takes_what_rust_takes_and_says_what_rust_says() {
    let admission = Admission::open("agreed").await;
    let mut differing = Vec::new();
    for list in AGREED {
        let (there, here) = admission.judge_origins(&owned(list)).await;
        // Of an entry with several faults Rust tells the first, and CEL may tell others too.
        let told = here.iter().all(|sentence| there.contains(sentence));
        if !told || there.is_empty() != here.is_empty() {
            differing.push(format!("{list:?}\n    API server: {there:#?}\n    Rust: {here:#?}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[tokio::test]
async fn cel_is_looser_just_where_it_cannot_parse() {
    let admission = Admission::open("looser").await;
    for list in LEFT_TO_RUST {
        let (there, here) = admission.judge_origins(&owned(list)).await;
        assert!(there.is_empty(), "the API server refuses {list:?}: {there:?}");
        assert!(!here.is_empty(), "{list:?} moves to the lists that both judge alike");
    }
}

/// What origins and near misses are made of.
fn origins() -> impl Strategy<Value = Vec<String>> {
    let piece = prop::sample::select(vec![
        "https",
        "http",
        "wss",
        "file",
        "HTTPS",
        "://",
        ":",
        "/",
        "//",
        "*",
        "*.",
        ".",
        "-",
        "_",
        "a",
        "Z",
        "example",
        "com",
        "localhost",
        "127.0.0.1",
        "256.0.0.1",
        "[::1]",
        "[",
        "]",
        "443",
        "8080",
        "0",
        "65536",
        "@",
        "?",
        "#",
        ",",
        " ",
        "\\",
        "%",
        "null",
        "\u{e9}",
        "xn--e1a",
    ]);
    let noise = prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat());
    let scheme = prop::sample::select(vec!["https", "http", "HTTP", "capacitor", "ws"]);
    let host = "([*][.])?[a-zA-Z0-9_-]{1,5}([.][a-z0-9-]{1,4}){0,2}";
    let port = prop::option::of(0_u32..70_000);
    let near = (scheme, host, port).prop_map(|(scheme, host, port)| {
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://{host}{port}")
    });
    prop::collection::vec(prop_oneof![1 => noise, 3 => near], 1..4)
}

#[tokio::test]
async fn cel_never_refuses_what_rust_takes() {
    let admission = Admission::open("random").await;
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..500 {
        let list = origins().new_tree(&mut runner).unwrap().current();
        let (there, here) = admission.judge_origins(&list).await;
        assert!(
            there.is_empty() || !here.is_empty(),
            "only the API server refuses {list:?}: {there:?}"
        );
        *(if here.is_empty() { &mut taken } else { &mut refused }) += 1;
    }
    assert!(taken > 50 && refused > 50, "{taken} good lists and {refused} bad ones");
}
