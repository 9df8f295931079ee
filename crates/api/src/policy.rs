//! What a gateway is told about a room: the JSON value under the room's key in the policy bucket.
//!
//! The schema number grows only when an older gateway would misread a newer policy; new fields alone do not raise it,
//! because unknown ones are tolerated. Whatever is read has passed every rule, so a gateway never applies a bad policy.

use serde::{Deserialize, Serialize};

use crate::auth::{AuthPolicy, JwtPolicy};
use crate::chat_room::{ChatRoom, ChatRoomSpec, Heartbeat, RoomLimits};
use crate::jwks::{VerificationKey, parse_jwks};
use crate::room_name::RoomName;
use crate::rules::{self, Candidate, Violation};

/// The newest schema of [`RoomPolicy`] that this program reads.
pub const POLICY_SCHEMA: u32 = 2;

/// The schema of a room that does not let everybody read and write: a gateway that does not know of that would.
const SCHEMA_WITH_AUTH: u32 = 2;

/// The schema of every other room, which older gateways read as well.
const SCHEMA_WITHOUT: u32 = 1;

/// Why a policy cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The text is not JSON, or not of this shape.
    #[error("not a room policy: {0}")]
    Json(#[from] serde_json::Error),
    /// The policy was written by a newer program.
    #[error(
        "policy schema {found} is newer than {known}, the newest this program reads: upgrade the gateway first"
    )]
    NewerSchema {
        /// The schema of the policy.
        found: u32,
        /// The newest schema that this program reads.
        known: u32,
    },
    /// The policy breaks rules.
    #[error("the policy breaks a rule: {}", list(.0))]
    Invalid(Vec<Violation>),
    /// The keys that tokens are verified with stand where only the operator can look.
    #[error(
        "spec.auth.jwt.jwks: without an operator nobody can look into a ConfigMap or at a URL: give the key set by spec.auth.jwt.jwks.inline"
    )]
    KeysElsewhere,
    /// A policy from the wire would let nobody in, or somebody who should not be.
    #[error("the policy's issuer, audiences or keys are not sound")]
    Keys,
}

fn list(violations: &[Violation]) -> String {
    let texts: Vec<String> = violations.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// What a gateway is told about one room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoomPolicy {
    /// The least [`POLICY_SCHEMA`] of a program that can read it.
    pub schema: u32,
    /// The room; in JSON the two fields `namespace` and `name`.
    #[serde(flatten, with = "room_fields")]
    pub room: RoomName,
    /// The generation of the `ChatRoom` that this was made from.
    pub generation: i64,
    /// The pool whose gateways serve the room.
    pub pool: String,
    /// As in the spec.
    pub allowed_origins: Vec<String>,
    /// As in the spec.
    pub require_origin: bool,
    /// As in the spec, with the keys themselves. Policies that were written before there was such a field let everybody in.
    #[serde(default)]
    pub auth: AuthPolicy,
    /// As in the spec.
    #[serde(default)]
    pub limits: RoomLimits,
    /// As in the spec.
    #[serde(default)]
    pub heartbeat: Heartbeat,
}

/// Only the number, so that a policy of another shape is known by it before its fields are looked at.
#[derive(Deserialize)]
struct SchemaOnly {
    schema: u32,
}

impl RoomPolicy {
    /// The policy of a room whose keys, if it has any, stand inline.
    ///
    /// # Errors
    /// [`PolicyError::Invalid`] with everything that is wrong with the room; never for one that
    /// [`parse_rooms`](crate::parse_rooms) returned. [`PolicyError::KeysElsewhere`] if its keys have to be fetched.
    pub fn from_chat_room(chat_room: &ChatRoom) -> Result<Self, PolicyError> {
        let source = chat_room.spec.auth.jwt.as_ref().map(|jwt| &jwt.jwks);
        let keys = match source {
            None => Vec::new(),
            Some(source) if source.config_map.is_some() || source.url.is_some() => {
                Self::with_keys(chat_room, Vec::new())?; // what else is wrong comes first
                return Err(PolicyError::KeysElsewhere);
            }
            // A set that is not sound breaks a rule.
            Some(source) => {
                source.inline.as_deref().and_then(|set| parse_jwks(set).ok()).unwrap_or_default()
            }
        };
        Self::with_keys(chat_room, keys)
    }

    /// The policy of a room, with the keys that its tokens are verified with, wherever they stand.
    ///
    /// # Errors
    /// [`PolicyError::Invalid`] with everything that is wrong with the room.
    pub fn with_keys(
        chat_room: &ChatRoom,
        keys: Vec<VerificationKey>,
    ) -> Result<Self, PolicyError> {
        let violations = rules::check(&Candidate::of_chat_room(chat_room));
        let (Ok(room), true) = (chat_room.room_name(), violations.is_empty()) else {
            return Err(PolicyError::Invalid(violations));
        };
        let ChatRoomSpec { allowed_origins, require_origin, auth, gateways, limits, heartbeat } =
            chat_room.spec.clone();
        let jwt = auth.jwt.as_ref().map(|jwt| JwtPolicy::new(jwt, room.namespace(), keys));
        let auth = AuthPolicy { anonymous: auth.anonymous, jwt };
        let is_open = auth == AuthPolicy::default();
        Ok(Self {
            schema: if is_open { SCHEMA_WITHOUT } else { SCHEMA_WITH_AUTH },
            room,
            generation: chat_room.metadata.generation,
            pool: gateways.pool,
            allowed_origins,
            require_origin,
            auth,
            limits,
            heartbeat,
        })
    }

    /// Reads and checks a policy.
    ///
    /// # Errors
    /// When it is not JSON of this shape, was written by a newer program, or breaks a rule.
    pub fn from_json(json: &[u8]) -> Result<Self, PolicyError> {
        let SchemaOnly { schema: found } = serde_json::from_slice(json)?;
        if found > POLICY_SCHEMA {
            return Err(PolicyError::NewerSchema { found, known: POLICY_SCHEMA });
        }
        let policy: Self = serde_json::from_slice(json)?;
        policy.validate()?;
        Ok(policy)
    }

    /// Writes the policy as one line of JSON.
    ///
    /// # Errors
    /// None for a value of this type; it is there because the writer has one.
    pub fn to_json(&self) -> Result<Vec<u8>, PolicyError> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Checks every rule that a policy can break.
    ///
    /// # Errors
    /// [`PolicyError::Invalid`] with all of them.
    pub fn validate(&self) -> Result<(), PolicyError> {
        let violations = rules::check(&Candidate::of_policy(self));
        if !violations.is_empty() {
            return Err(PolicyError::Invalid(violations));
        }
        match &self.auth.jwt {
            Some(jwt) if !jwt.is_sound() => Err(PolicyError::Keys),
            _ => Ok(()),
        }
    }
}

/// A room's name as the two fields `namespace` and `name`.
mod room_fields {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use crate::room_name::RoomName;

    #[derive(Serialize)]
    struct Written<'a> {
        namespace: &'a str,
        name: &'a str,
    }

    #[derive(Deserialize)]
    struct Read {
        namespace: String,
        name: String,
    }

    pub(super) fn serialize<S: Serializer>(room: &RoomName, to: S) -> Result<S::Ok, S::Error> {
        Written { namespace: room.namespace(), name: room.name() }.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<RoomName, D::Error> {
        let Read { namespace, name } = Read::deserialize(from)?;
        RoomName::new(&namespace, &name).map_err(de::Error::custom)
    }
}
