//! The rules of who may enter.

use super::{Candidate, Check, MAX_AUDIENCES, MAX_LEEWAY, MAX_NAME_CHARS, Rule};
use crate::auth::{Access, Auth, Jwt};
use crate::jwks::{JwksError, parse_jwks};
use crate::room_name::is_dns_label;

const JWT: &str = "spec.auth.jwt";
const JWKS: &str = "spec.auth.jwt.jwks";

/// The most bytes of a Kubernetes object's name.
const MAX_OBJECT_NAME: usize = 253;

/// Parameters of the query that have a meaning of their own.
const TAKEN_PARAMETERS: [&str; 2] = ["connection", "origin"];

/// A rule that only rooms with tokens can break.
const fn of_jwt(
    id: &'static str,
    fields: &'static [&'static str],
    message: &'static str,
    scope: &'static str,
    cel: &'static str,
    holds: fn(&Candidate<'_>) -> bool,
) -> Rule {
    Rule { id, fields, message, scope, cel, check: Check::Whole(holds) }
}

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "auth-lets-somebody-in",
        fields: &["spec.auth.anonymous", JWT],
        message: "lets nobody in without a token, and spec.auth.jwt does not say which tokens there are: say Read or ReadWrite, or give spec.auth.jwt",
        scope: "spec.auth",
        cel: "self.anonymous != 'None' || has(self.jwt)",
        check: Check::Whole(|room| {
            room.auth.is_none_or(|auth| auth.anonymous != Access::None || auth.jwt.is_some())
        }),
    },
    Rule {
        id: "auth-tokens-count",
        fields: &["spec.auth.anonymous", JWT],
        message: "gives everybody what a token could give, so that the tokens of spec.auth.jwt are for nothing: say None, or Read for an audience without tokens",
        scope: "spec.auth",
        cel: "self.anonymous != 'ReadWrite' || !has(self.jwt)",
        check: Check::Whole(|room| {
            room.auth.is_none_or(|auth| auth.anonymous != Access::ReadWrite || auth.jwt.is_none())
        }),
    },
    of_jwt(
        "jwt-issuer",
        &["spec.auth.jwt.issuer"],
        "must be what the tokens' claim iss says, 1 to 256 characters such as https://id.example.com/",
        "spec.auth.jwt.issuer",
        "self.size() >= 1 && self.size() <= 256",
        |room| jwt(room).is_none_or(|jwt| is_name(&jwt.issuer)),
    ),
    of_jwt(
        "jwt-audiences",
        &["spec.auth.jwt.audiences"],
        "must have 1 to 16 entries of 1 to 256 characters: those that the tokens' claim aud names for this service",
        "spec.auth.jwt.audiences",
        "self.size() >= 1 && self.size() <= 16 && self.all(a, a.size() >= 1 && a.size() <= 256)",
        |room| {
            jwt(room).is_none_or(|jwt| {
                (1..=MAX_AUDIENCES).contains(&jwt.audiences.len())
                    && jwt.audiences.iter().all(|audience| is_name(audience))
            })
        },
    ),
    of_jwt(
        "jwt-claim",
        &["spec.auth.jwt.claim"],
        "must be the name of a claim, 1 to 256 characters",
        "spec.auth.jwt.claim",
        "self.size() >= 1 && self.size() <= 256",
        |room| jwt(room).is_none_or(|jwt| is_name(&jwt.claim)),
    ),
    of_jwt(
        "jwt-query-parameter",
        &["spec.auth.jwt.queryParameter"],
        "must be 1 to 64 letters, digits, hyphens or underscores, such as access_token, and not connection or origin, which mean something else",
        "spec.auth.jwt.queryParameter",
        "self.matches('^[A-Za-z0-9_-]{1,64}$') && !(self in ['connection', 'origin'])",
        |room| {
            let parameter = jwt(room).and_then(|jwt| jwt.query_parameter.as_deref());
            parameter.is_none_or(|name| {
                (1..=64).contains(&name.len())
                    && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-')
                    && !TAKEN_PARAMETERS.contains(&name)
            })
        },
    ),
    of_jwt(
        "jwt-leeway",
        &["spec.auth.jwt.leeway"],
        "must be 0s to 5m: clocks that differ by more need mending",
        "spec.auth.jwt.leeway",
        "duration(self) <= duration('5m')",
        |room| jwt(room).is_none_or(|jwt| *jwt.leeway <= MAX_LEEWAY),
    ),
    of_jwt(
        "jwks-one-source",
        &[JWKS],
        "must have exactly one of inline, configMap and url",
        JWKS,
        "[has(self.inline), has(self.configMap), has(self.url)].filter(given, given).size() == 1",
        |room| jwt(room).is_none_or(|jwt| jwt.jwks.given() == 1),
    ),
    of_jwt(
        "jwks-inline-json",
        &["spec.auth.jwt.jwks.inline"],
        "must be a JSON Web Key Set of at most 65536 bytes as text, such as {\"keys\": [{\"kty\": \"EC\", …}]}, as the jwks_uri of your identity provider gives it",
        "spec.auth.jwt.jwks.inline",
        r#"self.size() <= 65536 && self.matches('^\\s*\\{') && self.contains('"keys"')"#,
        |room| !inline_has(room, JwksError::Shape) && !inline_has(room, JwksError::TooLong),
    ),
    of_jwt(
        "jwks-inline-symmetric",
        &["spec.auth.jwt.jwks.inline"],
        "holds a symmetric key (kty oct), with which whoever verifies tokens can also make them: sign with RS, PS, ES or EdDSA, and give the public key",
        "spec.auth.jwt.jwks.inline",
        r#"self.size() > 65536 || !self.matches('"kty"\\s*:\\s*"oct"')"#,
        |room| !inline_has(room, JwksError::Symmetric),
    ),
    of_jwt(
        "jwks-inline-private",
        &["spec.auth.jwt.jwks.inline"],
        "holds a private key: give the public half alone, and replace the key, because it was seen here",
        "spec.auth.jwt.jwks.inline",
        r#"self.size() > 65536 || self.matches('"kty"\\s*:\\s*"oct"') || !self.matches('"(d|p|q|dp|dq|qi|oth)"\\s*:')"#,
        |room| !inline_has(room, JwksError::Private),
    ),
    of_jwt(
        "jwks-inline-usable",
        &["spec.auth.jwt.jwks.inline"],
        "must hold 1 to 32 keys that verify, each with a kid of its own: RSA of 2048 to 8192 bits, EC on P-256 or P-384, or Ed25519, and not for encryption",
        "spec.auth.jwt.jwks.inline",
        r#"self.size() > 65536 || !self.contains('"keys"') || self.matches('"kty"\\s*:\\s*"oct"') || self.matches('"(RSA|P-256|P-384|Ed25519)"')"#,
        |room| {
            let faults =
                [JwksError::Empty, JwksError::NoneUsable, JwksError::TooMany, JwksError::Repeated];
            !faults.into_iter().any(|fault| inline_has(room, fault))
        },
    ),
    of_jwt(
        "jwks-config-map",
        &["spec.auth.jwt.jwks.configMap"],
        "must name a ConfigMap of the room's namespace, in lower-case letters, digits, hyphens and dots, and one of its keys, in letters, digits, hyphens, underscores and dots",
        "spec.auth.jwt.jwks.configMap",
        "self.name.size() <= 253 && self.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$') && self.key.matches('^[-._a-zA-Z0-9]{1,253}$')",
        |room| {
            let config_map = jwt(room).and_then(|jwt| jwt.jwks.config_map.as_ref());
            config_map.is_none_or(|config_map| {
                config_map.name.len() <= MAX_OBJECT_NAME
                    && config_map.name.split('.').all(is_dns_label)
                    && (1..=MAX_OBJECT_NAME).contains(&config_map.key.len())
                    && config_map
                        .key
                        .bytes()
                        .all(|c| c.is_ascii_alphanumeric() || b"-._".contains(&c))
            })
        },
    ),
    of_jwt(
        "jwks-url",
        &["spec.auth.jwt.jwks.url"],
        "must be an https address of at most 1024 characters, without user or fragment, such as https://id.example.com/.well-known/jwks.json: keys that came unprotected could be anybody's",
        "spec.auth.jwt.jwks.url",
        "self.size() <= 1024 && self.matches('^https://[A-Za-z0-9.:\\\\[\\\\]-]+(/[^\\\\s#@]*)?$')",
        |room| jwt(room).and_then(|jwt| jwt.jwks.url.as_deref()).is_none_or(is_https),
    ),
];

fn jwt<'a>(room: &Candidate<'a>) -> Option<&'a Jwt> {
    room.auth.and_then(|auth: &Auth| auth.jwt.as_ref())
}

fn inline<'a>(room: &Candidate<'a>) -> Option<&'a str> {
    jwt(room).and_then(|jwt| jwt.jwks.inline.as_deref())
}

fn inline_has(room: &Candidate<'_>, fault: JwksError) -> bool {
    inline(room).is_some_and(|set| parse_jwks(set) == Err(fault))
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_CHARS).contains(&text.chars().count())
}

fn is_https(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("https://") else { return false };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    url.len() <= 1024
        && !host.is_empty()
        && host.bytes().all(|c| c.is_ascii_alphanumeric() || b".:[]-".contains(&c))
        && !path.contains(|c: char| c.is_whitespace() || c == '#' || c == '@')
}
