//! The resource and its status.

use std::borrow::Cow;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};

use super::definition;
use crate::chat_room::{API_GROUP, API_VERSION, ChatRoom, ChatRoomSpec, KIND, Metadata};
use crate::room_name::RoomName;

/// `chatrooms`, as in URLs and roles.
pub const PLURAL: &str = "chatrooms";

/// A `ChatRoom` with all of its metadata and its status.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ChatRoomResource {
    /// Name, namespace, labels, annotations, finalizers.
    pub metadata: ObjectMeta,
    /// What is wanted of the room.
    pub spec: ChatRoomSpec,
    /// How the room is; written by the operator alone.
    #[serde(default)]
    pub status: Option<ChatRoomStatus>,
}

impl ChatRoomResource {
    /// A room with this name and spec, to be created.
    #[must_use]
    pub fn new(room: &RoomName, spec: ChatRoomSpec) -> Self {
        let metadata = ObjectMeta {
            name: Some(room.name().to_owned()),
            namespace: Some(room.namespace().to_owned()),
            ..ObjectMeta::default()
        };
        Self { metadata, spec, status: None }
    }

    /// The document that people would have written, for the rules and for the policy.
    #[must_use]
    pub fn declared(&self) -> ChatRoom {
        ChatRoom {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            metadata: Metadata {
                name: self.metadata.name.clone().unwrap_or_default(),
                namespace: self.metadata.namespace.clone().unwrap_or_default(),
                generation: self.metadata.generation.unwrap_or_default(),
            },
            spec: self.spec.clone(),
        }
    }
}

/// With `apiVersion` and `kind`, which the API server wants to see.
impl Serialize for ChatRoomResource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = if self.status.is_some() { 5 } else { 4 };
        let mut object = serializer.serialize_struct(KIND, fields)?;
        object.serialize_field("apiVersion", API_VERSION)?;
        object.serialize_field("kind", KIND)?;
        object.serialize_field("metadata", &self.metadata)?;
        object.serialize_field("spec", &self.spec)?;
        match &self.status {
            Some(status) => object.serialize_field("status", status)?,
            None => object.skip_field("status")?,
        }
        object.end()
    }
}

impl kube::Resource for ChatRoomResource {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        API_GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        definition::VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// How a room is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ChatRoomStatus {
    /// The generation of the spec that this status tells of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The operator that manages the room, as the namespace and the name of its release: `hubbub/hubbub`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// The path at which members join, on any gateway of the pool.
    pub path: String,
    /// The gateways of the room's pool. Missing while the operator cannot hear them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateways: Option<GatewayCounts>,
    /// Members of the room, over all gateways; at most 30 s old. Missing while the operator cannot hear gateways.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// Accepted, Programmed and Ready; and Paused while the room is.
    #[schemars(schema_with = "definition::conditions")]
    pub conditions: Vec<Condition>,
}

/// The gateways of a room's pool.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayCounts {
    /// Gateways that serve: heard lately, with their policies loaded, not draining.
    pub ready: u32,
    /// Those of them that run the observed generation of this room.
    pub programmed: u32,
}
