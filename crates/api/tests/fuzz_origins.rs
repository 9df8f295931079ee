//! Origins and allowlists that are put together of known parts, so that what must become of them is known without parsing anything; and
//! any bytes at all.
//!
//! A few thousand in an ordinary `cargo test`. For longer: `BOLERO_RANDOM_TEST_TIME_MS=60000 BOLERO_RANDOM_ITERATIONS=1000000000 cargo
//! test --release -p hubbub-api --test fuzz_origins`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicUsize, Ordering};

use hubbub_api::{AllowedOrigins, Origin, OriginRefusal};

const SCHEMES: [&str; 4] = ["https", "http", "capacitor", "chrome-extension"];
const HOSTS: [&str; 6] =
    ["example.com", "ple.com", "example.com.evil.com", "app.example.com", "localhost", "my_host"];
/// What may stand before a host, and never reaches beyond one dot but as whole labels.
const LABELS: [&str; 6] = ["", "", "app.", "a.b-c.d_e.", "xn--pp-6kc.", "0."];
const PORTS: [Option<u16>; 5] = [None, Some(80), Some(443), Some(8443), Some(65_535)];
/// What makes an origin none, wherever it stands.
const POISON: [&str; 12] =
    ["/", "\\", "?", "#", "@", ",", " ", "\t", "\r\n", "\0", "%2e", "\u{430}"];

fn pick<T: Copy>(from: &[T], byte: Option<&u8>) -> T {
    from[usize::from(byte.copied().unwrap_or(0)) % from.len()]
}

/// The parts of an origin, or of an entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    scheme: &'static str,
    host: String,
    port: Option<u16>,
}

impl Parts {
    fn of(script: &mut std::slice::Iter<'_, u8>) -> Self {
        let scheme = pick(&SCHEMES, script.next());
        let host = format!("{}{}", pick(&LABELS, script.next()), pick(&HOSTS, script.next()));
        Self { scheme, host, port: pick(&PORTS, script.next()) }
    }

    /// With the port that the scheme implies.
    fn port(&self) -> Option<u16> {
        let implied = [("https", 443), ("http", 80)].into_iter().find(|(s, _)| *s == self.scheme);
        self.port.or(implied.map(|(_, port)| port))
    }

    fn text(&self, wildcard: &str) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{wildcard}{}{port}", self.scheme, self.host)
    }

    /// Whether this entry allows that origin.
    fn allows(&self, wild: bool, origin: &Self) -> bool {
        let (ours, theirs): (Vec<_>, Vec<_>) =
            (self.host.rsplit('.').collect(), origin.host.rsplit('.').collect());
        let host = if wild {
            theirs.len() > ours.len() && theirs[..ours.len()] == ours[..]
        } else {
            ours == theirs
        };
        host && self.scheme == origin.scheme && self.port() == origin.port()
    }
}

#[test]
fn an_origin_is_admitted_if_and_only_if_an_entry_is_made_of_the_same_parts() {
    static ADMITTED: AtomicUsize = AtomicUsize::new(0);
    static REFUSED: AtomicUsize = AtomicUsize::new(0);
    bolero::check!().with_iterations(20_000).with_max_len(48).for_each(|input: &[u8]| {
        let mut script = input.iter();
        let origin = Parts::of(&mut script);
        let count = 1 + usize::from(script.next().copied().unwrap_or(0)) % 5;
        let mut entries = Vec::new();
        for _ in 0..count {
            let wild = script.next().is_some_and(|byte| byte % 2 == 0);
            // Half of them from the origin, with something changed or nothing.
            let parts = if script.next().is_some_and(|byte| byte % 2 == 0) {
                let mut parts = origin.clone();
                match script.next().copied().unwrap_or(0) % 5 {
                    0 => parts.scheme = pick(&SCHEMES, script.next()),
                    1 => parts.host = pick(&HOSTS, script.next()).to_owned(),
                    2 => parts.port = pick(&PORTS, script.next()),
                    3 => {
                        parts.host = parts
                            .host
                            .split_once('.')
                            .map_or(parts.host.clone(), |(_, rest)| rest.to_owned())
                    }
                    _ => {}
                }
                parts
            } else {
                Parts::of(&mut script)
            };
            entries.push((wild, parts));
        }
        let texts: Vec<String> =
            entries.iter().map(|(wild, parts)| parts.text(if *wild { "*." } else { "" })).collect();
        let list = AllowedOrigins::compile(&texts).unwrap();

        let mut text = origin.text("");
        if script.next().is_some_and(|byte| byte % 2 == 0) {
            text = text.to_ascii_uppercase();
        }
        let expected = entries.iter().any(|(wild, parts)| parts.allows(*wild, &origin));
        let admitted = list.admit([text.as_bytes()], true);
        assert_eq!(admitted.is_ok(), expected, "{text:?} {texts:?}");
        let counted = if expected { &ADMITTED } else { &REFUSED };
        counted.fetch_add(1, Ordering::Relaxed);

        // The same with something in it that no origin has.
        let at = usize::from(script.next().copied().unwrap_or(0)) % (text.len() + 1);
        text.insert_str(at, pick(&POISON, script.next()));
        let poisoned = list.admit([text.as_bytes()], true);
        assert!(matches!(poisoned, Err(OriginRefusal::Malformed(_))), "{text:?}: {poisoned:?}");
    });
    let counts = [&ADMITTED, &REFUSED].map(|count| count.load(Ordering::Relaxed));
    assert!(counts.iter().all(|count| *count > 1000), "admitted and refused: {counts:?}");
}

#[test]
fn any_bytes_are_an_origin_in_its_one_form_or_refused() {
    bolero::check!().with_iterations(10_000).with_max_len(300).for_each(|input: &[u8]| {
        let Some((choice, rest)) = input.split_first() else { return };
        let begun = pick(&["", "https://", "http://", "http://[", "null"], Some(choice));
        let text = format!("{begun}{}", String::from_utf8_lossy(rest));
        let all = AllowedOrigins::compile(&["*"]).unwrap();
        let parsed = Origin::parse(&text);
        assert_eq!(all.admit([text.as_bytes()], true).ok().flatten(), parsed.clone().ok());
        if let Ok(origin) = parsed {
            let written = origin.to_string();
            assert_eq!(Origin::parse(&written).as_ref(), Ok(&origin), "{text:?}");
            let plain = |c: char| c.is_ascii_graphic() && !"/\\?#@,%*".contains(c);
            let after = written.split_once("://").map_or("", |(_, after)| after);
            assert!(after.chars().all(plain) && written.len() <= 280, "{written:?}");
            // As an entry it allows itself, and nothing else of its kind.
            let own = AllowedOrigins::compile(&[&written]).unwrap();
            assert!(own.matches(&origin));
            assert_eq!(own.matches(&Origin::NULL), origin == Origin::NULL);
        }
        // As an entry of a list it may be anything, and is told or taken.
        if let Err(errors) = AllowedOrigins::compile(&[text.as_str()]) {
            assert_eq!(errors.len(), 1);
            assert!(!errors[0].to_string().is_empty());
        }
    });
}
