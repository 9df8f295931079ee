//! Deletes consumers of the bucket's stream that nobody makes who follows the bucket.
//!
//! Who may follow the bucket may make consumers of every kind of its stream: one right covers them all. NATS allows a stream
//! 1,000 of them unless it is told otherwise, keeps durable ones for good, and hands what they read to any subject of the account. So whoever
//! has stolen a gateway's login could lock new gateways out, or have policies read out in a room, also after it is taken away.

use std::{convert::Infallible, time::Duration};

use hubbub_api::names::{BUCKET_STREAM, SUBJECT_PREFIX};
use nats::jetstream;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::{Bucket, Tidied};
use crate::error::in_words;

/// How often the consumers are looked at while their number stays the same.
const PERIOD: Duration = Duration::from_secs(30);

/// How long one look at the consumers may take, with the deletions. What is left is done by the next.
const LIMIT: Duration = Duration::from_secs(10);

/// How long a consumer that nobody hears may stay: as those of NATS' own programs, and ten times what gateways ask for (30 s, the
/// client library's choice).
const LONGEST_IDLE: Duration = Duration::from_secs(300);

/// The characters of the names that the clients of NATS make of inboxes.
const INBOX_NAME: usize = 22;

/// A page of the list. Read loosely: what this program does not know of consumers must not hide them.
#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    total: usize,
    #[serde(default)]
    consumers: Option<Vec<Listed>>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    config: Shape,
}

/// What tells a reader of the bucket from other consumers.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Shape {
    durable_name: Option<String>,
    deliver_subject: Option<String>,
    /// In nanoseconds.
    inactive_threshold: u64,
    pause_until: Option<IgnoredAny>,
}

impl Shape {
    /// Whether it is one that follows the bucket: it lasts no longer than it is heard, and is heard in an inbox.
    fn is_reader(&self) -> bool {
        self.durable_name.is_none()
            && self.pause_until.is_none()
            && Duration::from_nanos(self.inactive_threshold) <= LONGEST_IDLE
            && self.deliver_subject.as_deref().is_some_and(is_inbox)
    }
}

/// Whether the subject is one that a client makes for what it alone is to hear: words that the user chose, and a name that is
/// random. Not one below such a name, where a client waits for all its answers for as long as it runs.
fn is_inbox(subject: &str) -> bool {
    let is_random = |word: &str| {
        word.len() == INBOX_NAME && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    let Some((prefix, name)) = subject.rsplit_once('.') else { return false };
    let is_ours_or_nats = subject.starts_with(SUBJECT_PREFIX) || subject.starts_with('$');
    is_random(name) && !is_ours_or_nats && !prefix.split('.').any(is_random)
}

impl Bucket {
    /// Looks at the consumers whenever their number has changed, and now and then, for ever.
    pub(super) async fn sweep_when_due(&self, tidied: &impl Fn(Tidied<'_>)) -> Infallible {
        let context = jetstream::new(self.client.clone());
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.crowd.notified() => {}
                _ = ticks.tick() => {}
            }
            if self.is_read() {
                self.sweep(&context, tidied).await;
            }
        }
    }

    /// Deletes the consumers that are no readers, and tells of each, and of why it cannot be done.
    pub(super) async fn sweep(&self, context: &jetstream::Context, tidied: &impl Fn(Tidied<'_>)) {
        let swept = tokio::time::timeout(LIMIT, self.try_sweep(context, tidied)).await;
        match swept {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => tidied(Tidied::Unswept(&cause)),
            Err(_) => tidied(Tidied::Unswept("NATS takes too long")),
        }
    }

    async fn try_sweep(
        &self,
        context: &jetstream::Context,
        tidied: &impl Fn(Tidied<'_>),
    ) -> Result<(), String> {
        let mut others = Vec::new();
        let mut seen = 0;
        loop {
            let list = format!("CONSUMER.LIST.{BUCKET_STREAM}");
            let page = context.request(list, &json!({"offset": seen})).await;
            let Page { total, consumers, error } = page.map_err(|error| in_words(&error))?;
            if let Some(error) = error {
                return Err(error.to_string());
            }
            let consumers = consumers.unwrap_or_default();
            seen += consumers.len();
            let is_last = consumers.is_empty() || seen >= total;
            let found = consumers.into_iter().filter(|listed| !listed.config.is_reader());
            others.extend(found.map(|listed| listed.name));
            if is_last {
                break;
            }
        }
        let mut failed = None;
        for name in others {
            self.fence.check().map_err(|fenced| fenced.to_string())?;
            match context.delete_consumer_from_stream(&name, BUCKET_STREAM).await {
                Ok(_) => tidied(Tidied::Consumer(&name)),
                Err(error) => failed = Some(in_words(&error)),
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a gateway's client has them made, and as NATS lists it.
    fn reader() -> Value {
        json!({
            "ack_policy": "none", "deliver_policy": "last_per_subject", "max_deliver": 1,
            "deliver_subject": "_INBOX_hubbub_gateway.Hq4nHyv1vZsQwkV7OzzKf0",
            "flow_control": true, "idle_heartbeat": 5_000_000_000_u64, "mem_storage": true,
            "inactive_threshold": 30_000_000_000_u64, "filter_subject": "$KV.hubbub-policies.>",
        })
    }

    fn is_reader(change: &[(&str, Value)]) -> bool {
        let mut config = reader();
        for (name, value) in change {
            config[*name] = value.clone();
        }
        serde_json::from_value::<Shape>(config).unwrap().is_reader()
    }

    #[test]
    fn only_what_follows_the_bucket_and_ends_with_who_hears_it_may_stay() {
        assert!(is_reader(&[]));
        assert!(is_reader(&[("something_newer", json!({"of": "NATS"}))]));
        for (name, value) in [
            ("durable_name", json!("thief")),
            ("deliver_subject", Value::Null),
            ("inactive_threshold", json!(3_600_000_000_000_u64)),
            ("pause_until", json!("2036-01-01T00:00:00Z")),
        ] {
            assert!(!is_reader(&[(name, value)]), "{name}");
        }
    }

    #[test]
    fn an_inbox_is_what_one_client_alone_hears() {
        let name = "Hq4nHyv1vZsQwkV7OzzKf0";
        for inbox in ["_INBOX", "_INBOX_hubbub_operator", "chat.answers"] {
            assert!(is_inbox(&format!("{inbox}.{name}")), "{inbox}");
        }
        for other in [
            "hubbub.room.demo.lobby".to_owned(),
            format!("hubbub.room.demo.{name}"),
            format!("hubbub.echo.{name}"),
            format!("$JS.API.{name}"),
            format!("_INBOX.{name}.{name}"),
            format!("_INBOX.{name}.x"),
            "orders.new".to_owned(),
            name.to_owned(),
        ] {
            assert!(!is_inbox(&other), "{other}");
        }
    }
}
