//! What a gateway is told about a room: the JSON value under the room's key in the policy bucket.
//!
//! The schema number grows only when an older gateway would misread a newer policy; new fields alone do not raise it,
//! because unknown ones are tolerated. Whatever is read has passed every rule, so a gateway never applies a bad policy.

use serde::{Deserialize, Serialize};

use crate::chat_room::{ChatRoom, ChatRoomSpec, Heartbeat, RoomLimits};
use crate::room_name::RoomName;
use crate::rules::{self, Candidate, Violation};

/// The schema of [`RoomPolicy`] that this program writes, and the newest it reads.
pub const POLICY_SCHEMA: u32 = 1;

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
}

fn list(violations: &[Violation]) -> String {
    let texts: Vec<String> = violations.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// What a gateway is told about one room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoomPolicy {
    /// [`POLICY_SCHEMA`] of the program that wrote it.
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
    /// The policy of a room.
    ///
    /// # Errors
    /// [`PolicyError::Invalid`] with everything that is wrong with the room; never for one that
    /// [`parse_rooms`](crate::parse_rooms) returned.
    pub fn from_chat_room(chat_room: &ChatRoom) -> Result<Self, PolicyError> {
        let violations = rules::check(&Candidate::of_chat_room(chat_room));
        let (Ok(room), true) = (chat_room.room_name(), violations.is_empty()) else {
            return Err(PolicyError::Invalid(violations));
        };
        let ChatRoomSpec { allowed_origins, require_origin, gateways, limits, heartbeat } =
            chat_room.spec.clone();
        Ok(Self {
            schema: POLICY_SCHEMA,
            room,
            generation: chat_room.metadata.generation,
            pool: gateways.pool,
            allowed_origins,
            require_origin,
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
        if violations.is_empty() { Ok(()) } else { Err(PolicyError::Invalid(violations)) }
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
