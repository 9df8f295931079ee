//! Who may enter a room: everybody, or who shows a token that is signed by a known key (RFC 7519).
//!
//! People declare [`Auth`]; gateways are told [`AuthPolicy`], in which the keys stand themselves, wherever they came from.

use serde::{Deserialize, Serialize};

use crate::duration::WireDuration;
use crate::jwks::{self, VerificationKey};

/// The claim that says what the bearer of a token may do, unless the room names another.
pub const DEFAULT_CLAIM: &str = "hubbub";

/// The key of a ConfigMap under which a key set stands, unless the room names another.
pub const DEFAULT_CONFIG_MAP_KEY: &str = "jwks.json";

/// What somebody may do in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Access {
    /// Nothing: the handshake is refused.
    #[default]
    None,
    /// Hear what is said.
    Read,
    /// Say something, and hear nothing.
    Write,
    /// Both.
    ReadWrite,
}

impl Access {
    /// Their names, as people write them.
    pub const NAMES: [&str; 4] = ["None", "Read", "Write", "ReadWrite"];

    /// That of somebody who may do these.
    #[must_use]
    pub fn of(read: bool, write: bool) -> Self {
        match (read, write) {
            (false, false) => Self::None,
            (true, false) => Self::Read,
            (false, true) => Self::Write,
            (true, true) => Self::ReadWrite,
        }
    }

    /// Whether it allows to hear what is said.
    #[must_use]
    pub fn reads(self) -> bool {
        matches!(self, Self::Read | Self::ReadWrite)
    }

    /// Whether it allows to say something.
    #[must_use]
    pub fn writes(self) -> bool {
        matches!(self, Self::Write | Self::ReadWrite)
    }
}

/// Who may enter the room, and what they may do there. Left out, everybody may read and write whose page is of an allowed
/// origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// What whoever comes without a token may do: None, Read, Write or ReadWrite. None when auth is given without it.
    #[serde(default)]
    pub anonymous: Access,
    /// What the tokens are that let their bearers in. Left out, tokens are not asked for, and not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
}

impl Default for Auth {
    fn default() -> Self {
        Self { anonymous: Access::ReadWrite, jwt: None }
    }
}

/// Which tokens let their bearers in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Jwt {
    /// Who signs them: what their claim iss says, character for character.
    pub issuer: String,
    /// For whom they are: their claim aud must name one of these, so that a token for another service opens nothing here.
    pub audiences: Vec<String>,
    /// Where the public keys stand that they are signed with. Exactly one of its fields is given.
    pub jwks: KeySource,
    /// The claim that says what their bearers may do and in which rooms, as in {"read": ["demo/*"], "write": ["demo/lobby"]}.
    #[serde(default = "default_claim")]
    pub claim: String,
    /// What the bearer of a token without that claim may do in this room: None, Read, Write or ReadWrite.
    #[serde(default = "default_access")]
    pub access_without_claim: Access,
    /// The parameter of the query in which a token may come as well, if any. Addresses end up in logs and histories, so headers are better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_parameter: Option<String>,
    /// By how much the clocks of signers and gateways may differ.
    #[serde(default = "default_leeway")]
    pub leeway: WireDuration,
}

fn default_claim() -> String {
    DEFAULT_CLAIM.to_owned()
}

const fn default_access() -> Access {
    Access::ReadWrite
}

const fn default_leeway() -> WireDuration {
    WireDuration::from_secs(30)
}

impl Jwt {
    /// Tokens of this issuer for this audience, with these keys, and defaults for the rest.
    #[must_use]
    pub fn new(issuer: &str, audience: &str, jwks: KeySource) -> Self {
        Self {
            issuer: issuer.to_owned(),
            audiences: vec![audience.to_owned()],
            jwks,
            claim: default_claim(),
            access_without_claim: default_access(),
            query_parameter: None,
            leeway: default_leeway(),
        }
    }
}

/// Where a key set stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct KeySource {
    /// Here: the JSON Web Key Set as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<String>,
    /// In a ConfigMap in the room's namespace, which the operator reads every 30 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapKey>,
    /// At this https address, which the operator asks again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl KeySource {
    /// A key set as text.
    #[must_use]
    pub fn inline(jwks: impl Into<String>) -> Self {
        Self { inline: Some(jwks.into()), ..Self::default() }
    }

    /// The place outside the room where the keys stand, as a sentence names it; none for keys that are in the room itself.
    #[must_use]
    pub fn place(&self, namespace: &str) -> Option<String> {
        if let Some(url) = &self.url {
            return Some(url.clone());
        }
        Some(self.config_map.as_ref()?.place(namespace))
    }

    /// How many of its fields are given.
    pub(crate) fn given(&self) -> usize {
        [self.inline.is_some(), self.config_map.is_some(), self.url.is_some()]
            .into_iter()
            .filter(|given| *given)
            .count()
    }
}

/// A key set in a ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKey {
    /// The ConfigMap's name.
    pub name: String,
    /// Under which of its keys the set stands.
    #[serde(default = "default_config_map_key")]
    pub key: String,
}

impl ConfigMapKey {
    /// Where it is for rooms of that namespace, as a sentence names it.
    #[must_use]
    pub fn place(&self, namespace: &str) -> String {
        format!("the key {} of the ConfigMap {namespace}/{}", self.key, self.name)
    }
}

fn default_config_map_key() -> String {
    DEFAULT_CONFIG_MAP_KEY.to_owned()
}

/// What a gateway is told of [`Auth`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthPolicy {
    /// What whoever comes without a token may do.
    pub anonymous: Access,
    /// Which tokens let their bearers in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtPolicy>,
}

impl Default for AuthPolicy {
    fn default() -> Self {
        Self { anonymous: Access::ReadWrite, jwt: None }
    }
}

/// What a gateway is told of [`Jwt`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JwtPolicy {
    /// As declared.
    pub issuer: String,
    /// As declared.
    pub audiences: Vec<String>,
    /// Public keys. None only if they stand elsewhere and are not known, or all were taken back there: no token is good then.
    pub keys: Vec<VerificationKey>,
    /// Where they were fetched from ([`KeySource::place`]), so that keys of one place never serve for another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys_from: Option<String>,
    /// As declared.
    pub claim: String,
    /// As declared.
    pub access_without_claim: Access,
    /// As declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_parameter: Option<String>,
    /// As declared.
    pub leeway: WireDuration,
}

impl JwtPolicy {
    /// The policy of what a room of that namespace declares, with the keys that stand where it says.
    #[must_use]
    pub fn new(declared: &Jwt, namespace: &str, keys: Vec<VerificationKey>) -> Self {
        let keys_from = declared.jwks.place(namespace);
        let Jwt { issuer, audiences, claim, access_without_claim, query_parameter, leeway, .. } =
            declared.clone();
        Self {
            issuer,
            audiences,
            keys,
            keys_from,
            claim,
            access_without_claim,
            query_parameter,
            leeway,
        }
    }

    /// Whether nobody could be let in by it who should not be: it names whom tokens are for, and its keys are sound.
    pub(crate) fn is_sound(&self) -> bool {
        !self.issuer.is_empty()
            && !self.audiences.is_empty()
            && (self.keys_from.is_some() || !self.keys.is_empty())
            && self.keys.iter().all(VerificationKey::is_sound)
            && jwks::names_are_unique(&self.keys)
    }
}
