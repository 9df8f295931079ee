//! The protocol of NATS clients: <https://docs.nats.io/reference/reference-protocols/nats-protocol>.
//!
//! Lines and sized payloads in a stream of bytes. The server's WebSocket listener cuts it into binary frames anywhere, so
//! what is cut is kept until the rest comes.

use std::io::Write as _;

use serde_json::json;

use super::Sign;

/// The longest line that is waited for. INFO of a server in a large cluster is the longest there is.
const MAX_LINE: usize = 64 * 1024;

/// The only subscription of a connection.
const SUBSCRIPTION: u32 = 1;

/// Says who we are, subscribes, and asks for a sign that both are done.
pub(super) fn subscribe(out: &mut Vec<u8>, subject: &str, token: Option<&str>) {
    let mut options = json!({
        "verbose": false, "pedantic": false, "echo": true, "protocol": 1,
        "lang": "rust", "name": "hubbub-load", "version": env!("CARGO_PKG_VERSION"),
    });
    if let Some(token) = token {
        options["auth_token"] = token.into();
    }
    // Writing to memory does not fail.
    let _ = write!(out, "CONNECT {options}\r\nSUB {subject} {SUBSCRIPTION}\r\nPING\r\n");
}

pub(super) fn publish(out: &mut Vec<u8>, subject: &str, payload: &[u8]) {
    let _ = write!(out, "PUB {subject} {}\r\n", payload.len());
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// What of the stream was cut off by the end of a frame.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    rest: Vec<u8>,
}

impl Stream {
    pub(super) fn read(
        &mut self,
        frame: &[u8],
        mut hear: impl FnMut(&[u8]),
        signs: &mut Vec<Sign>,
    ) {
        if self.rest.is_empty() {
            let used = read(frame, &mut hear, signs);
            self.rest.extend_from_slice(&frame[used..]);
        } else {
            self.rest.extend_from_slice(frame);
            let used = read(&self.rest, &mut hear, signs);
            self.rest.drain(..used);
        }
    }
}

/// Reads all that is whole; gives how many bytes that were.
fn read(bytes: &[u8], hear: &mut impl FnMut(&[u8]), signs: &mut Vec<Sign>) -> usize {
    let mut at = 0;
    loop {
        let left = &bytes[at..];
        let Some(end) = left.windows(2).take(MAX_LINE).position(|pair| pair == b"\r\n") else {
            if left.len() > MAX_LINE {
                signs.push(Sign::Garbled("a line of NATS does not end"));
                return bytes.len();
            }
            return at;
        };
        let line = &left[..end];
        let (verb, arguments) =
            line.split_at(line.iter().position(|byte| *byte == b' ').unwrap_or(end));
        let mut used = end + 2;
        match verb {
            b"MSG" => {
                // MSG subject subscription [reply-to] bytes
                let size = arguments.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
                let size = std::str::from_utf8(size).ok().and_then(|size| size.parse::<u32>().ok());
                let Some(size) = size.map(|size| size as usize) else {
                    signs.push(Sign::Garbled("a message of NATS has no size"));
                    return bytes.len();
                };
                let Some(payload) = left.get(used..used + size + 2) else { return at };
                hear(&payload[..size]);
                used += size + 2;
            }
            b"PING" => signs.push(Sign::Ping),
            b"PONG" => signs.push(Sign::Joined),
            // The server says it again when its cluster changes.
            b"INFO" => signs.push(Sign::Welcome),
            b"+OK" => {}
            b"-ERR" => {
                let text = String::from_utf8_lossy(arguments.trim_ascii()).into_owned();
                let reason = format!("the server refused: {text}");
                signs.push(Sign::Refused { reason, temporary: false });
            }
            _ => {
                signs.push(Sign::Garbled("what should be a line of NATS is none"));
                return bytes.len();
            }
        }
        at += used;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_may_be_cut_anywhere() {
        let stream = b"INFO {\"max_payload\":1048576}\r\nPONG\r\nMSG room-1 1 5\r\nhe\r\no\r\n\
            MSG room-1 1 _INBOX.x 0\r\n\r\nPING\r\n-ERR 'Slow Consumer'\r\n";
        for cut in 0..=stream.len() {
            let (mut messages, mut signs) = (Vec::new(), Vec::new());
            let mut reader = Stream::default();
            for part in [&stream[..cut], &stream[cut..]] {
                reader.read(part, |payload| messages.push(payload.to_vec()), &mut signs);
            }
            assert_eq!(messages, [&b"he\r\no"[..], b""], "cut at {cut}");
            let reason = "the server refused: 'Slow Consumer'".to_owned();
            let refused = Sign::Refused { reason, temporary: false };
            assert_eq!(signs, [Sign::Welcome, Sign::Joined, Sign::Ping, refused]);
            assert!(reader.rest.is_empty());
        }
    }

    #[test]
    fn nonsense_is_garbled() {
        for nonsense in ["HELLO\r\n", "MSG room-1 1 many\r\n", &"x".repeat(MAX_LINE + 2)] {
            let mut signs = Vec::new();
            Stream::default().read(nonsense.as_bytes(), |_| panic!("no message"), &mut signs);
            assert!(matches!(signs[..], [Sign::Garbled(_)]));
        }
    }

    #[test]
    fn what_a_client_says() {
        let mut out = Vec::new();
        publish(&mut out, "room-1", b"hello");
        assert_eq!(out, b"PUB room-1 5\r\nhello\r\n");
        out.clear();
        subscribe(&mut out, "room-1", Some("secret"));
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("CONNECT {") && text.contains(r#""auth_token":"secret""#));
        assert!(text.ends_with("}\r\nSUB room-1 1\r\nPING\r\n"), "{text}");
    }
}
