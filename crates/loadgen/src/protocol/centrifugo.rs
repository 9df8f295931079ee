//! Centrifugo's bidirectional client protocol in JSON: <https://centrifugal.dev/docs/transports/client_protocol>.
//!
//! A client sends commands with a number, of which each gets a reply; pushes have none. A frame holds one or several,
//! separated by newlines. An empty reply is a ping, and answered by an empty command.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::json;

use super::Sign;
use crate::reconnect::Cause;

/// Numbers of the first two commands; publications have those after.
const CONNECT: u32 = 1;
const SUBSCRIBE: u32 = 2;

pub(super) fn connect(out: &mut Vec<u8>, token: Option<&str>) {
    let request = token.map_or_else(|| json!({}), |token| json!({ "token": token }));
    out.extend(json!({ "id": CONNECT, "connect": request }).to_string().into_bytes());
}

pub(super) fn subscribe(out: &mut Vec<u8>, channel: &str) {
    let command = json!({ "id": SUBSCRIBE, "subscribe": { "channel": channel } });
    out.extend(command.to_string().into_bytes());
}

pub(super) fn publish(out: &mut Vec<u8>, channel: &str, number: u32, payload: &[u8]) {
    let id = SUBSCRIBE + 1 + number % (1 << 30);
    // Our payloads are printable ASCII.
    let data = String::from_utf8_lossy(payload);
    let command = json!({ "id": id, "publish": { "channel": channel, "data": data } });
    out.extend(command.to_string().into_bytes());
}

/// Codes from 3500 and 4500 on are final, the others of both ranges are not; the rest is WebSocket's own.
pub(super) fn cause(code: u16) -> Cause {
    match code {
        3000..=3499 | 4000..=4499 => Cause::Closed(1013),
        3500..=3999 | 4500..=4999 => Cause::Denied,
        _ => Cause::Closed(code),
    }
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(default)]
    id: u32,
    error: Option<Refusal<'a>>,
    connect: Option<IgnoredAny>,
    subscribe: Option<IgnoredAny>,
    #[serde(borrow)]
    push: Option<Push<'a>>,
}

#[derive(Deserialize)]
struct Refusal<'a> {
    code: u32,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
    #[serde(default)]
    temporary: bool,
}

#[derive(Deserialize)]
struct Push<'a> {
    #[serde(borrow, rename = "pub")]
    publication: Option<Publication<'a>>,
    unsubscribe: Option<Code>,
}

#[derive(Deserialize)]
struct Publication<'a> {
    #[serde(borrow)]
    data: Data<'a>,
}

/// Ours is a string; what somebody else publishes may be anything.
#[derive(Deserialize)]
#[serde(untagged)]
enum Data<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
struct Code {
    #[serde(default)]
    code: u16,
}

pub(super) fn read(frame: &[u8], mut hear: impl FnMut(&[u8]), signs: &mut Vec<Sign>) {
    for line in frame.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        if line == b"{}" {
            signs.push(Sign::Ping);
            continue;
        }
        let Ok(reply) = serde_json::from_slice::<Reply<'_>>(line) else {
            signs.push(Sign::Garbled("what should be a Centrifugo reply is none"));
            return;
        };
        if let Some(refusal) = reply.error {
            let asked = match reply.id {
                CONNECT => "connect",
                SUBSCRIBE => "subscribe",
                _ => "publish",
            };
            let Refusal { code, message, temporary } = refusal;
            let reason = format!("the server refused to {asked}: {message} (code {code})");
            signs.push(Sign::Refused { reason, temporary });
        } else if reply.connect.is_some() {
            signs.push(Sign::Welcome);
        } else if reply.subscribe.is_some() {
            signs.push(Sign::Joined);
        }
        let Some(push) = reply.push else { continue };
        match push.publication {
            Some(Publication { data: Data::Text(text) }) => hear(text.as_bytes()),
            Some(Publication { data: Data::Other(_) }) => hear(b""),
            None => {}
        }
        if let Some(Code { code }) = push.unsubscribe {
            signs.push(Sign::PutOut(code));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(frame: &str) -> (Vec<String>, Vec<Sign>) {
        let (mut messages, mut signs) = (Vec::new(), Vec::new());
        let hear = |payload: &[u8]| messages.push(String::from_utf8_lossy(payload).into_owned());
        read(frame.as_bytes(), hear, &mut signs);
        (messages, signs)
    }

    #[test]
    fn several_replies_in_one_frame() {
        let (messages, signs) = heard(concat!(
            r#"{"id":1,"connect":{"client":"x","ping":25,"pong":true}}"#,
            "\n",
            r#"{"id":2,"subscribe":{}}"#,
            "\n",
            r#"{"push":{"channel":"r","pub":{"data":"a\\b","info":{"client":"x"}}}}"#,
            "\n{}\n",
            r#"{"push":{"channel":"r","pub":{"data":{"some":["body",1]}}}}"#,
        ));
        assert_eq!(messages, ["a\\b", ""]);
        assert_eq!(signs, [Sign::Welcome, Sign::Joined, Sign::Ping]);
    }

    #[test]
    fn refusals_and_being_put_out() {
        let (_, signs) = heard(
            r#"{"id":2,"error":{"code":103,"message":"permission denied"}}
               {"push":{"channel":"r","unsubscribe":{"code":2500,"reason":"x"}}}"#,
        );
        let reason = "the server refused to subscribe: permission denied (code 103)".to_owned();
        assert_eq!(signs, [Sign::Refused { reason, temporary: false }, Sign::PutOut(2500)]);
        assert!(matches!(heard("hello").1[..], [Sign::Garbled(_)]));
    }

    #[test]
    fn what_is_published_comes_back_as_it_was() {
        let payload: String = (b'0'..=b'~').map(char::from).collect();
        let mut out = Vec::new();
        publish(&mut out, "room-1", 7, payload.as_bytes());
        let command: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(command["id"], 10);
        assert_eq!(command["publish"]["channel"], "room-1");
        let data = &command["publish"]["data"];
        let (messages, _) = heard(&json!({ "push": { "pub": { "data": data } } }).to_string());
        assert_eq!(messages, [payload]);
    }

    #[test]
    fn a_token_is_shown() {
        let mut out = Vec::new();
        connect(&mut out, Some("abc"));
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"connect":{"token":"abc"},"id":1}"#);
    }

    #[test]
    fn final_codes_are_final() {
        assert_eq!(cause(3001), Cause::Closed(1013));
        assert_eq!((cause(3501), cause(4999)), (Cause::Denied, Cause::Denied));
        assert_eq!(cause(1012), Cause::Closed(1012));
    }
}
