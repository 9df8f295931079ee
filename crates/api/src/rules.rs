//! Every rule that a room must keep, once: its sentence, the fields it reads, its predicate here and its twin in CEL.
//!
//! A file of rooms, a policy from the wire and the resource definition of a cluster are judged by this one table, so all
//! three refuse the same rooms with the same words. Shapes (types, unknown and missing fields, the form of a duration)
//! are not in it: the reader of each format sees to them before.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

mod auth;

use crate::allowed::{OriginPattern, PatternFault};
use crate::auth::Auth;
use crate::chat_room::{ChatRoom, Gateways, Heartbeat, RoomLimits};
use crate::origin::OriginError;
use crate::policy::RoomPolicy;
use crate::room_name::is_dns_label;

/// The most entries of `spec.allowedOrigins` (the bound of the Gateway API's CORS filter).
pub const MAX_ORIGINS: usize = 64;
/// The most bytes of one entry (the same).
pub const MAX_ORIGIN_ENTRY_BYTES: usize = 253;
/// The most gateways that a room may ask for.
pub const MAX_GATEWAYS: u32 = 500;
/// The highest `spec.gateways.connectionsPerGateway`.
pub const MAX_CONNECTIONS_PER_GATEWAY: u32 = 1_000_000;
/// The highest `spec.limits.maxConnections`.
pub const MAX_CONNECTIONS: u32 = 10_000_000;
/// The highest `spec.limits.maxMessageBytes`: 16 MiB.
pub const MAX_MESSAGE_BYTES: u32 = 16 * 1024 * 1024;
/// The highest `spec.limits.sendQueue`.
pub const MAX_SEND_QUEUE: u32 = 65_536;
/// The highest `spec.limits.messagesPerSecond` and `roomMessagesPerSecond`, and the highest burst.
pub const MAX_RATE: u32 = 1_000_000;
/// The highest `spec.limits.bytesPerSecond`: more than one connection carries.
pub const MAX_BYTES_PER_SECOND: u32 = 1_000_000_000;
/// The shortest of the durations of a heartbeat.
pub const MIN_HEARTBEAT: Duration = Duration::from_millis(100);
/// The longest `spec.heartbeat.pongWait` and `pingPeriod`.
pub const MAX_HEARTBEAT: Duration = Duration::from_secs(3_600);
/// The longest `spec.heartbeat.writeWait`.
pub const MAX_WRITE_WAIT: Duration = Duration::from_secs(300);
/// The most entries of `spec.auth.jwt.audiences`.
pub const MAX_AUDIENCES: usize = 16;
/// The most characters of an issuer, an audience and the name of a claim.
pub const MAX_NAME_CHARS: usize = 256;
/// The longest `spec.auth.jwt.leeway`.
pub const MAX_LEEWAY: Duration = Duration::from_secs(300);

/// What the rules judge: a room, from whatever it was read.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The namespace, not yet known to be sound.
    pub namespace: &'a str,
    /// The name, not yet known to be sound.
    pub name: &'a str,
    /// The pool.
    pub pool: &'a str,
    /// The allowlist as written.
    pub allowed_origins: &'a [String],
    /// Who may enter, as declared; a policy has something else, and the rules then hold.
    pub auth: Option<&'a Auth>,
    /// The numbers of gateways; a policy has none, and their rules then hold.
    pub gateways: Option<&'a Gateways>,
    /// The limits.
    pub limits: &'a RoomLimits,
    /// The heartbeat.
    pub heartbeat: &'a Heartbeat,
}

impl<'a> Candidate<'a> {
    /// A declared room.
    #[must_use]
    pub fn of_chat_room(room: &'a ChatRoom) -> Self {
        Self {
            namespace: &room.metadata.namespace,
            name: &room.metadata.name,
            pool: &room.spec.gateways.pool,
            allowed_origins: &room.spec.allowed_origins,
            auth: Some(&room.spec.auth),
            gateways: Some(&room.spec.gateways),
            limits: &room.spec.limits,
            heartbeat: &room.spec.heartbeat,
        }
    }

    /// A policy from the wire.
    pub(crate) fn of_policy(policy: &'a RoomPolicy) -> Self {
        Self {
            namespace: policy.room.namespace(),
            name: policy.room.name(),
            pool: &policy.pool,
            allowed_origins: &policy.allowed_origins,
            auth: None,
            gateways: None,
            limits: &policy.limits,
            heartbeat: &policy.heartbeat,
        }
    }
}

/// How a rule is checked.
#[derive(Debug, Clone, Copy)]
pub enum Check {
    /// The rule holds when this is true.
    Whole(fn(&Candidate<'_>) -> bool),
    /// The positions of the entries of the list that break the rule.
    Entries(fn(&[String]) -> Vec<usize>),
}

/// One rule.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Its name, in words joined by hyphens; also the name of its invalid example.
    pub id: &'static str,
    /// The paths of the fields that it reads. It is reported at the first.
    pub fields: &'static [&'static str],
    /// What is wrong and how to mend it, in one sentence. The resource definition says the very same.
    pub message: &'static str,
    /// The path at which the CEL rule stands: what `self` is in it. Empty for the root of the object.
    pub scope: &'static str,
    /// The same rule in CEL over defaulted fields; empty where the API server enforces it anyway. It is never stricter,
    /// but looser where CEL cannot parse an origin: numbers in addresses and ports.
    pub cel: &'static str,
    /// The rule in Rust.
    pub check: Check,
}

/// A broken rule.
#[derive(Debug, Clone)]
pub struct Violation {
    /// The rule.
    pub rule: &'static Rule,
    /// The field at which it is broken, such as `spec.allowedOrigins[2]`.
    pub field: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.rule.message)
    }
}

/// Everything that is wrong with a room, in the order of [`RULES`].
#[must_use]
pub fn check(candidate: &Candidate<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for rule in RULES {
        let field = rule.fields.first().copied().unwrap_or_default();
        match rule.check {
            Check::Whole(holds) if holds(candidate) => {}
            Check::Whole(_) => violations.push(Violation { rule, field: field.to_owned() }),
            Check::Entries(broken) => {
                let broken = broken(candidate.allowed_origins).into_iter();
                violations.extend(
                    broken.map(|index| Violation { rule, field: format!("{field}[{index}]") }),
                );
            }
        }
    }
    violations
}

/// The bounds of one field, at which its CEL rule stands too.
const fn bound(
    id: &'static str,
    fields: &'static [&'static str; 1],
    message: &'static str,
    cel: &'static str,
    holds: fn(&Candidate<'_>) -> bool,
) -> Rule {
    Rule { id, fields, message, scope: fields[0], cel, check: Check::Whole(holds) }
}

const ORIGINS: &str = "spec.allowedOrigins";

/// All rules.
pub static RULES: &[Rule] =
    &joined::<{ ROOM_RULES.len() + auth::RULES.len() }>(ROOM_RULES, auth::RULES);

/// `first` and then `second`, which together have `N`.
const fn joined<const N: usize>(first: &[Rule], second: &[Rule]) -> [Rule; N] {
    let mut all = [first[0]; N];
    let mut at = 0;
    while at < N {
        all[at] = if at < first.len() { first[at] } else { second[at - first.len()] };
        at += 1;
    }
    all
}

const ROOM_RULES: &[Rule] = &[
    Rule {
        id: "name-dns-label",
        fields: &["metadata.name"],
        message: "must be a DNS label, because it becomes part of a NATS subject: 1 to 63 lower-case letters, digits or hyphens, with a letter or digit at both ends",
        scope: "",
        cel: "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",
        check: Check::Whole(|room| is_dns_label(room.name)),
    },
    Rule {
        id: "namespace-dns-label",
        fields: &["metadata.namespace"],
        message: "must be a DNS label: 1 to 63 lower-case letters, digits or hyphens, with a letter or digit at both ends",
        scope: "",
        cel: "",
        check: Check::Whole(|room| is_dns_label(room.namespace)),
    },
    Rule {
        id: "origins-count",
        fields: &[ORIGINS],
        message: "must have 1 to 64 entries; gather hosts under one wildcard such as https://*.example.com, or write \"*\" alone to allow every origin",
        scope: ORIGINS,
        cel: "self.size() >= 1 && self.size() <= 64",
        check: Check::Whole(|room| (1..=MAX_ORIGINS).contains(&room.allowed_origins.len())),
    },
    Rule {
        id: "origins-star-alone",
        fields: &[ORIGINS],
        message: "\"*\" allows every origin and must stand alone: remove it, or remove the other entries",
        scope: ORIGINS,
        cel: "self.size() == 1 || !self.exists(o, o == '*')",
        check: Check::Whole(|room| {
            room.allowed_origins.len() <= 1 || room.allowed_origins.iter().all(|o| o != "*")
        }),
    },
    Rule {
        id: "origin-length",
        fields: &[ORIGINS],
        message: "must be an origin of at most 253 characters",
        scope: ORIGINS,
        cel: "self.all(o, o.size() >= 1 && o.size() <= 253)",
        check: Check::Entries(|origins| positions(origins, |o| !length_is_sound(o))),
    },
    Rule {
        id: "origin-scheme",
        fields: &[ORIGINS],
        message: "must begin with the scheme of the page that connects, such as https:// or http:// (not ws:// or wss://, which is the socket's own; pages of file: and data: count as \"null\")",
        scope: ORIGINS,
        cel: "self.all(o, o in ['', '*', 'null'] || o.matches('^[A-Za-z][A-Za-z0-9+.-]*://') && !o.matches('^(?i:file|data|blob|about|javascript|filesystem|ws|wss)://'))",
        check: Check::Entries(|origins| {
            faults(origins, |fault| fault == PatternFault::Origin(OriginError::Scheme))
        }),
    },
    Rule {
        id: "origin-wildcard",
        fields: &[ORIGINS],
        message: "a wildcard stands only for whole labels in front of a host name, as in https://*.example.com, never for a scheme, a port or a part of a label: list those one by one",
        scope: ORIGINS,
        cel: "self.all(o, o == '*' || !o.contains('*') || o.matches('^[^*]*://[*][.][^*]*$'))",
        check: Check::Entries(|origins| faults(origins, |fault| fault == PatternFault::Wildcard)),
    },
    Rule {
        id: "origin-path",
        fields: &[ORIGINS],
        message: "must end after the host or its port: remove the path or trailing slash",
        scope: ORIGINS,
        cel: "self.all(o, !o.matches('^[^/?#]*://[^/?#,]*[/?#]'))",
        check: Check::Entries(|origins| {
            faults(origins, |fault| fault == PatternFault::Origin(OriginError::Path))
        }),
    },
    Rule {
        id: "origin-form",
        fields: &[ORIGINS],
        message: "must be scheme://host or scheme://host:port, such as https://chat.example.com or http://localhost:8080, without user, white space or a dot at the end, and in punycode if the host is not ASCII",
        scope: ORIGINS,
        cel: r"self.all(o, o in ['*', 'null'] || !o.matches('^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*($|,)') || o.contains('*') && !o.matches('^[^*]*://[*][.][^*]*$') || o.matches('^[^/]*://([*][.])?([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?([.][A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*|\\[[0-9A-Fa-f:.]+\\])(:[1-9][0-9]{0,4})?$'))",
        check: Check::Entries(|origins| faults(origins, is_form)),
    },
    Rule {
        id: "origins-unique",
        fields: &[ORIGINS],
        message: "repeats an origin that already stands in the list: remove it (case and the default port make no difference)",
        scope: ORIGINS,
        // Lists that other rules refuse anyway are left out: their cost could end the judging of the whole room.
        cel: "self.size() > 64 || self.exists(o, o.size() > 253) || [self.map(o, o.lowerAscii()).map(o, o.startsWith('https://') && o.endsWith(':443') ? o.substring(0, o.size() - 4) : o.startsWith('http://') && o.endsWith(':80') ? o.substring(0, o.size() - 3) : o)].all(l, l.all(o, l.exists_one(p, p == o)))",
        check: Check::Entries(|origins| {
            let mut seen = HashSet::new();
            positions(origins, |o| OriginPattern::parse(o).is_ok_and(|p| !seen.insert(p)))
        }),
    },
    Rule {
        id: "pool-dns-label",
        fields: &["spec.gateways.pool"],
        message: "must be a DNS label, because gateways are named after it: 1 to 63 lower-case letters, digits or hyphens, with a letter or digit at both ends",
        scope: "spec.gateways.pool",
        cel: "self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",
        check: Check::Whole(|room| is_dns_label(room.pool)),
    },
    bound(
        "gateways-min-range",
        &["spec.gateways.min"],
        "must be 1 to 500 gateways",
        "self >= 1 && self <= 500",
        |room| room.gateways.is_none_or(|g| (1..=MAX_GATEWAYS).contains(&g.min)),
    ),
    bound(
        "gateways-max-range",
        &["spec.gateways.max"],
        "must be 1 to 500 gateways",
        "self >= 1 && self <= 500",
        |room| room.gateways.is_none_or(|g| (1..=MAX_GATEWAYS).contains(&g.max)),
    ),
    Rule {
        id: "gateways-min-max",
        fields: &["spec.gateways.min", "spec.gateways.max"],
        message: "must not exceed spec.gateways.max: lower min (2 if not given) or raise max (10 if not given)",
        scope: "spec.gateways",
        cel: "self.min <= self.max",
        check: Check::Whole(|room| room.gateways.is_none_or(|g| g.min <= g.max)),
    },
    bound(
        "connections-per-gateway-range",
        &["spec.gateways.connectionsPerGateway"],
        "must be 1 to 1000000 connections",
        "self >= 1 && self <= 1000000",
        |room| {
            room.gateways.is_none_or(|g| {
                (1..=MAX_CONNECTIONS_PER_GATEWAY).contains(&g.connections_per_gateway)
            })
        },
    ),
    bound(
        "max-connections-range",
        &["spec.limits.maxConnections"],
        "must be 1 to 10000000 connections",
        "self >= 1 && self <= 10000000",
        |room| (1..=MAX_CONNECTIONS).contains(&room.limits.max_connections),
    ),
    bound(
        "max-message-bytes-range",
        &["spec.limits.maxMessageBytes"],
        "must be 1 to 16777216 bytes (16 MiB)",
        "self >= 1 && self <= 16777216",
        |room| (1..=MAX_MESSAGE_BYTES).contains(&room.limits.max_message_bytes),
    ),
    bound(
        "send-queue-range",
        &["spec.limits.sendQueue"],
        "must be 1 to 65536 messages",
        "self >= 1 && self <= 65536",
        |room| (1..=MAX_SEND_QUEUE).contains(&room.limits.send_queue),
    ),
    bound(
        "messages-per-second-range",
        &["spec.limits.messagesPerSecond"],
        "must be 1 to 1000000 messages a second",
        "self >= 1 && self <= 1000000",
        |room| (1..=MAX_RATE).contains(&room.limits.messages_per_second),
    ),
    bound(
        "burst-range",
        &["spec.limits.burst"],
        "must be 1 to 1000000 messages",
        "self >= 1 && self <= 1000000",
        |room| (1..=MAX_RATE).contains(&room.limits.burst),
    ),
    bound(
        "bytes-per-second-range",
        &["spec.limits.bytesPerSecond"],
        "must be 1 to 1000000000 bytes a second; leave it out for no such limit",
        "self >= 1 && self <= 1000000000",
        |room| {
            let given = room.limits.bytes_per_second;
            given.is_none_or(|bytes| (1..=MAX_BYTES_PER_SECOND).contains(&bytes))
        },
    ),
    bound(
        "room-messages-per-second-range",
        &["spec.limits.roomMessagesPerSecond"],
        "must be 1 to 1000000 messages a second; leave it out for no such limit",
        "self >= 1 && self <= 1000000",
        |room| {
            let given = room.limits.room_messages_per_second;
            given.is_none_or(|messages| (1..=MAX_RATE).contains(&messages))
        },
    ),
    bound(
        "pong-wait-range",
        &["spec.heartbeat.pongWait"],
        "must be 100ms to 1h",
        "duration(self) >= duration('100ms') && duration(self) <= duration('1h')",
        |room| (MIN_HEARTBEAT..=MAX_HEARTBEAT).contains(&room.heartbeat.pong_wait),
    ),
    bound(
        "ping-period-range",
        &["spec.heartbeat.pingPeriod"],
        "must be 100ms to 1h",
        "duration(self) >= duration('100ms') && duration(self) <= duration('1h')",
        |room| (MIN_HEARTBEAT..=MAX_HEARTBEAT).contains(&room.heartbeat.ping_period),
    ),
    bound(
        "write-wait-range",
        &["spec.heartbeat.writeWait"],
        "must be 100ms to 5m",
        "duration(self) >= duration('100ms') && duration(self) <= duration('5m')",
        |room| (MIN_HEARTBEAT..=MAX_WRITE_WAIT).contains(&room.heartbeat.write_wait),
    ),
    Rule {
        id: "ping-before-pong",
        fields: &["spec.heartbeat.pingPeriod", "spec.heartbeat.pongWait"],
        message: "must be shorter than spec.heartbeat.pongWait, or members are closed before they are asked: lower pingPeriod (54s if not given) or raise pongWait (60s if not given)",
        scope: "spec.heartbeat",
        cel: "duration(self.pingPeriod) < duration(self.pongWait)",
        check: Check::Whole(|room| room.heartbeat.ping_period < room.heartbeat.pong_wait),
    },
];

fn positions(origins: &[String], mut broken: impl FnMut(&str) -> bool) -> Vec<usize> {
    let numbered = origins.iter().enumerate();
    numbered.filter(|(_, origin)| broken(origin)).map(|(index, _)| index).collect()
}

fn length_is_sound(origin: &str) -> bool {
    (1..=MAX_ORIGIN_ENTRY_BYTES).contains(&origin.len())
}

/// The entries with such a fault; of one with the wrong length that alone is said.
fn faults(origins: &[String], broken: impl Fn(PatternFault) -> bool) -> Vec<usize> {
    positions(origins, |origin| {
        length_is_sound(origin) && OriginPattern::parse(origin).is_err_and(&broken)
    })
}

/// Whether no other rule says what is wrong with the entry.
fn is_form(fault: PatternFault) -> bool {
    match fault {
        PatternFault::Wildcard | PatternFault::AnyNotAlone => false,
        PatternFault::Origin(error) => match error {
            OriginError::Scheme | OriginError::Path | OriginError::Empty | OriginError::TooLong => {
                false
            }
            OriginError::Character
            | OriginError::List
            | OriginError::UserInfo
            | OriginError::Host
            | OriginError::Port => true,
        },
    }
}
