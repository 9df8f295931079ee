//! Which pages may open a socket: the table of known tricks, row by row, and 10,000 random origins against a second,
//! textual matcher.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;

use hubbub_api::{AllowedOrigins, Origin, OriginError, OriginRefusal, PatternFault};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const APP: &str = "https://app.example.com";

fn allow(entries: &[&str]) -> AllowedOrigins {
    AllowedOrigins::compile(entries).unwrap()
}

/// The verdict on one request with these Origin headers, in a room that requires one.
fn verdict(list: &AllowedOrigins, headers: &[&[u8]]) -> Result<Option<Origin>, OriginRefusal> {
    list.admit(headers.iter().copied(), true)
}

#[test]
fn the_table_of_tricks_holds_row_by_row() {
    use OriginRefusal::{Malformed, Missing, NotAllowed, Repeated};

    let list = allow(&[APP]);
    for good in
        [APP, "https://APP.Example.COM", "HTTPS://app.example.com", "https://app.example.com:443"]
    {
        let admitted = verdict(&list, &[good.as_bytes()]).unwrap().unwrap();
        assert_eq!(admitted.to_string(), APP, "{good}");
    }
    let long = format!("https://{}example.com", "a.".repeat(4_096));
    let rows: &[(&str, OriginRefusal)] = &[
        ("http://app.example.com", NotAllowed),
        ("https://app.example.com:8443", NotAllowed),
        ("https://app.example.com:80", NotAllowed),
        ("https://app.example.com.evil.com", NotAllowed),
        ("https://evil-app.example.com", NotAllowed),
        ("https://evilapp.example.com", NotAllowed),
        ("https://app.example.com@evil.com", Malformed(OriginError::UserInfo)),
        ("https://app.example.com:443@evil.com", Malformed(OriginError::UserInfo)),
        ("https://evil.com@app.example.com", Malformed(OriginError::UserInfo)),
        ("https://app.example.comevil", NotAllowed),
        ("null", NotAllowed),
        ("NULL", Malformed(OriginError::Scheme)),
        ("", Malformed(OriginError::Empty)),
        ("https://app.example.com.", Malformed(OriginError::Host)),
        ("https://app.example.com/", Malformed(OriginError::Path)),
        ("https://app.example.com/chat", Malformed(OriginError::Path)),
        ("https://app.example.com?x", Malformed(OriginError::Path)),
        ("https://app.example.com#x", Malformed(OriginError::Path)),
        ("https://app.example.com\\@evil.com", Malformed(OriginError::UserInfo)),
        ("file://", Malformed(OriginError::Scheme)),
        ("file:///etc/passwd", Malformed(OriginError::Scheme)),
        ("data:text/html,x", Malformed(OriginError::List)),
        ("data:text/html;x", Malformed(OriginError::Scheme)),
        // The second `a` of the look-alike is Cyrillic; its punycode is a well-formed name, but another one.
        ("https://\u{430}pp.example.com", Malformed(OriginError::Character)),
        ("https://xn--pp-6kc.example.com", NotAllowed),
        ("https://app.example.com,https://evil.com", Malformed(OriginError::List)),
        ("https://app.example.com https://evil.com", Malformed(OriginError::Character)),
        (" https://app.example.com", Malformed(OriginError::Character)),
        ("https://app.example.com ", Malformed(OriginError::Character)),
        ("https://app.example.com\t", Malformed(OriginError::Character)),
        ("https://app.example.com\0.evil.com", Malformed(OriginError::Character)),
        ("https://app.example.com\r\nX: y", Malformed(OriginError::Character)),
        (&long, Malformed(OriginError::TooLong)),
        ("https://app%2eexample.com", Malformed(OriginError::Host)),
        ("https://app..example.com", Malformed(OriginError::Host)),
        ("https://", Malformed(OriginError::Host)),
        ("https:app.example.com", Malformed(OriginError::Scheme)),
        ("//app.example.com", Malformed(OriginError::Scheme)),
        ("app.example.com", Malformed(OriginError::Scheme)),
        ("wss://app.example.com", Malformed(OriginError::Scheme)),
        ("https://app.example.com:", Malformed(OriginError::Port)),
        ("https://app.example.com:0443", Malformed(OriginError::Port)),
        ("https://app.example.com:+443", Malformed(OriginError::Port)),
        ("https://app.example.com:65979", Malformed(OriginError::Port)),
        ("https://app.example.com:443:443", Malformed(OriginError::Port)),
    ];
    for (text, refusal) in rows {
        assert_eq!(verdict(&list, &[text.as_bytes()]), Err(*refusal), "{text:?}");
    }
    assert_eq!(verdict(&list, &[]), Err(Missing));
    assert_eq!(list.admit([], false), Ok(None), "a room may do without the header");
    assert_eq!(verdict(&list, &[APP.as_bytes(), APP.as_bytes()]), Err(Repeated));
    assert_eq!(verdict(&list, &[APP.as_bytes(), b"https://evil.com"]), Err(Repeated));
    assert_eq!(
        list.admit([b"https://evil.com".as_slice()], false),
        Err(NotAllowed),
        "a wrong one still counts"
    );
    let latin1 = b"https://\xe4pp.example.com".as_slice();
    assert_eq!(verdict(&list, &[latin1]), Err(Malformed(OriginError::Character)));
}

#[test]
fn a_wildcard_reaches_labels_under_the_host_and_nothing_else() {
    let list = allow(&["https://*.example.com"]);
    let matches = |text: &str| Origin::parse(text).is_ok_and(|origin| list.matches(&origin));
    for good in ["https://a.example.com", "https://a.b.c.example.com", "https://A.EXAMPLE.com:443"]
    {
        assert!(matches(good), "{good}");
    }
    for bad in [
        "https://example.com",
        "https://.example.com",
        "https://aexample.com",
        "https://-.example.com",
        "https://x.example.com.evil.com",
        "https://x.example.com:8443",
        "http://x.example.com",
        "https://x.example.co",
        "https://*.example.com",
        "null",
    ] {
        assert!(!matches(bad), "{bad}");
    }
}

#[test]
fn null_is_matched_by_its_own_entry_and_by_the_star() {
    assert!(allow(&["null"]).matches(&Origin::NULL));
    assert!(allow(&["*"]).matches(&Origin::NULL));
    assert!(!allow(&[APP, "https://*.example.com"]).matches(&Origin::NULL));
    assert!(!allow(&["null"]).matches(&Origin::parse(APP).unwrap()));
    assert_eq!(Origin::parse("null"), Ok(Origin::NULL));
}

#[test]
fn hosts_are_names_or_addresses_as_browsers_write_them() {
    for (text, canonical) in [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:80", "http://[::1]"),
        ("http://[0:0:0:0:0:0:0:1]", "http://[::1]"),
        ("http://[2001:DB8::1]", "http://[2001:db8::1]"),
        ("http://localhost:65535", "http://localhost:65535"),
        ("https://my_host.example.com", "https://my_host.example.com"),
        ("http://example.com:443", "http://example.com:443"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("tauri://localhost:1420", "tauri://localhost:1420"),
    ] {
        let origin = Origin::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(origin.to_string(), canonical);
        assert_eq!(Origin::parse(canonical), Ok(origin), "what is written reads back");
    }
    for text in [
        "http://127.1",
        "http://0x7f.0.0.1",
        "http://127.0.0.0x1",
        "http://2130706433",
        "http://127.0.0.256",
        "http://127.0.0.01",
        "http://1.2.3.4.5",
        "http://[::1",
        "http://[::1]8080",
        "http://[fe80::1%eth0]",
        "http://[127.0.0.1]",
        "http://::1",
        "http://[]",
        "http://a]",
        "http://-a.com",
        "http://a-.com",
    ] {
        assert!(Origin::parse(text).is_err(), "{text}");
    }
    assert_ne!(
        Origin::parse("capacitor://localhost").unwrap(),
        Origin::parse("capacitor://localhost:80").unwrap(),
        "only http and https have default ports"
    );
    let host = |bytes: usize| format!("https://{}", &"a.".repeat(200)[..bytes]);
    assert!(Origin::parse(&host(253)).is_ok());
    assert_eq!(Origin::parse(&host(255)), Err(OriginError::Host));
    assert!(Origin::parse(&format!("https://{}.com", "a".repeat(63))).is_ok());
    assert!(Origin::parse(&format!("https://{}.com", "a".repeat(64))).is_err());
}

#[test]
fn a_list_names_every_bad_entry() {
    let errors =
        AllowedOrigins::compile(&["https://a/", APP, "http://a:*", "*", "https://b."]).unwrap_err();
    let found: Vec<(usize, PatternFault)> = errors.iter().map(|e| (e.index, e.fault)).collect();
    assert_eq!(
        found,
        [
            (0, PatternFault::Origin(OriginError::Path)),
            (2, PatternFault::Wildcard),
            (3, PatternFault::AnyNotAlone),
            (4, PatternFault::Origin(OriginError::Host)),
        ]
    );
    assert!(errors[0].to_string().starts_with("allowedOrigins[0]: "), "{}", errors[0]);
}

/// The allowlist of the random test.
const LIST: [&str; 6] = [
    "https://app.example.com",
    "https://*.example.org",
    "http://localhost:8080",
    "https://*.dev.example.net:8443",
    "http://10.0.0.7",
    "null",
];

/// The second opinion: text against text, nothing parsed. What the list allows is a handful of spellings, and for its
/// wildcards a plain text between a fixed beginning and a fixed end.
fn second_opinion(origin: &str) -> bool {
    let text = origin.to_ascii_lowercase();
    let fixed = [
        "https://app.example.com",
        "https://app.example.com:443",
        "http://localhost:8080",
        "http://10.0.0.7",
        "http://10.0.0.7:80",
    ];
    let labels_between = |end: &str| {
        let middle = text.strip_prefix("https://").and_then(|rest| rest.strip_suffix(end));
        middle.is_some_and(|labels| {
            labels.split('.').all(|label| {
                let inside = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
                let edge = |c: Option<char>| c.is_some_and(|c| c != '-');
                label.len() < 64
                    && label.chars().all(inside)
                    && edge(label.chars().next())
                    && edge(label.chars().last())
            })
        })
    };
    origin == "null"
        || fixed.contains(&text.as_str())
        || labels_between(".example.org")
        || labels_between(".example.org:443")
        || labels_between(".dev.example.net:8443")
}

/// Origins near the list: pieces that are right more often than not, then a few characters changed.
fn near_the_list() -> impl Strategy<Value = String> {
    let scheme = prop_oneof![
        6 => Just("https"), 3 => Just("http"), 1 => Just("HTTPS"),
        1 => prop::sample::select(vec!["wss", "file", "data", "", "httpss", "ftp", "null"]),
    ];
    let separator = prop_oneof![20 => Just("://"), 1 => prop::sample::select(vec![":", ":/", ":///", "//", ":\\\\", ""])];
    let user = prop_oneof![
        20 => Just(""),
        1 => prop::sample::select(vec!["user@", "app.example.com@", "app.example.com:443@", "@", "localhost:8080@"]),
    ];
    let before = prop_oneof![
        4 => Just(String::new()),
        4 => "[a-z0-9]{1,8}\\.",
        2 => "[a-zA-Z0-9_-]{1,5}\\.[a-z-]{1,3}\\.",
        1 => "[a-z]{1,3}-?",
        1 => "[a-z]{62,65}\\.",
        1 => Just(".".to_owned()),
    ];
    let host = prop_oneof![
        8 => prop::sample::select(vec![
            "app.example.com", "example.org", "a.example.org", "localhost", "dev.example.net", "x.dev.example.net",
            "10.0.0.7", "APP.example.COM", "Example.Org",
        ]),
        1 => prop::sample::select(vec!["example.com", "example.net", "10.0.0.07", "10.7", "0x0a.0.0.7", "[::1]", "evil.com"]),
    ];
    let after = prop_oneof![
        12 => Just(""),
        1 => prop::sample::select(vec![".", ".evil.com", "evil", ".example.org", "%2e", ",https://evil.com", "\u{200b}"]),
    ];
    let port = prop_oneof![
        5 => Just(""),
        6 => prop::sample::select(vec![":443", ":80", ":8080", ":8443"]),
        1 => prop::sample::select(vec![":", ":0", ":0443", ":08080", ":65536", ":+443", ":443:443", ":8081", ":x", ": 443"]),
    ];
    let tail = prop_oneof![
        14 => Just(""),
        1 => prop::sample::select(vec!["/", "/chat", "?x", "#x", " ", "\t", "\r\n", "\\", "@evil.com", ",", " https://evil.com"]),
    ];
    let assembled = (scheme, separator, user, before, host, after, port, tail).prop_map(
        |(scheme, separator, user, before, host, after, port, tail)| {
            format!("{scheme}{separator}{user}{before}{host}{after}{port}{tail}")
        },
    );
    let listed = prop::sample::select(LIST.to_vec()).prop_map(str::to_owned);
    let change = (any::<prop::sample::Index>(), 0..4_u8, any::<char>(), "[ -~]");
    let changes = prop_oneof![3 => Just(0..1_usize), 1 => Just(1..4)]
        .prop_flat_map(move |count| prop::collection::vec(change.clone(), count));
    (prop_oneof![9 => assembled, 1 => listed], changes).prop_map(|(origin, changes)| {
        let mut text: Vec<char> = origin.chars().collect();
        for (at, what, any, ascii) in changes {
            let at = at.index(text.len().max(1)).min(text.len());
            let ascii = ascii.chars().next().unwrap();
            match what {
                0 => text.insert(at, ascii),
                1 => text.insert(at, any),
                2 if at < text.len() => drop(text.remove(at)),
                _ if at < text.len() => text[at] = if what == 2 { any } else { ascii },
                _ => {}
            }
        }
        text.into_iter().collect()
    })
}

#[test]
fn ten_thousand_random_origins_are_judged_as_a_second_matcher_judges_them() {
    let list = allow(&LIST);
    let allowed = Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: 10_000, ..Config::default() });
    runner
        .run(&near_the_list(), |origin| {
            let admitted = verdict(&list, &[origin.as_bytes()]).is_ok();
            allowed.set(allowed.get() + u32::from(admitted));
            prop_assert_eq!(admitted, second_opinion(&origin), "{:?}", origin);
            Ok(())
        })
        .unwrap();
    // Otherwise the test would show only that nonsense is refused.
    assert!((500..9_500).contains(&allowed.get()), "{} of 10,000 allowed", allowed.get());
}

proptest! {
    #![proptest_config(Config { cases: 10_000, ..Config::default() })]

    #[test]
    fn what_is_parsed_is_written_back_to_the_same_origin(text in near_the_list()) {
        if let Ok(origin) = Origin::parse(&text) {
            let written = origin.to_string();
            prop_assert_eq!(Origin::parse(&written), Ok(origin));
            prop_assert!(written.is_ascii() && !written.contains(['@', ' ', ',']));
        }
    }
}
