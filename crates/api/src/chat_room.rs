//! The `ChatRoom` document, as `kubectl apply` and a stand-alone gateway take it.
//!
//! These are plain serde types: they give shape and defaults, and tolerate fields that they do not know, because a policy
//! may come from a newer operator and an object from a newer CRD. What people write by hand is read by
//! [`parse_rooms`](crate::parse_rooms), which refuses unknown fields, and judged by [`rules`](crate::rules).
//! The doc comments of the fields are what `kubectl explain` will say.

use serde::{Deserialize, Serialize};

use crate::auth::Auth;
use crate::duration::WireDuration;
use crate::names::DEFAULT_POOL;
use crate::room_name::{NameError, RoomName};

/// The API group of a `ChatRoom`.
pub const API_GROUP: &str = "hubbub.dev";

/// `apiVersion` of a `ChatRoom`.
pub const API_VERSION: &str = "hubbub.dev/v1alpha1";

/// `kind` of a `ChatRoom`.
pub const KIND: &str = "ChatRoom";

/// One chat room: who may enter it, how much it may carry, and how many gateways serve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChatRoom {
    /// Always [`API_VERSION`].
    pub api_version: String,
    /// Always [`KIND`].
    pub kind: String,
    /// Its name and namespace.
    pub metadata: Metadata,
    /// What is wanted of the room.
    pub spec: ChatRoomSpec,
}

impl ChatRoom {
    /// A room with this name and spec, as a document would declare it.
    #[must_use]
    pub fn new(room: &RoomName, spec: ChatRoomSpec) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            metadata: Metadata {
                name: room.name().to_owned(),
                namespace: room.namespace().to_owned(),
                generation: 0,
            },
            spec,
        }
    }

    /// The room's name.
    ///
    /// # Errors
    /// When namespace or name is not a DNS label; never for a room that [`parse_rooms`](crate::parse_rooms) returned.
    pub fn room_name(&self) -> Result<RoomName, NameError> {
        RoomName::new(&self.metadata.namespace, &self.metadata.name)
    }
}

/// The part of an object's metadata that matters here; labels, annotations and the rest are tolerated and dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The room's name, a DNS label.
    pub name: String,
    /// The room's namespace, a DNS label; `default` when it is not given.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Counted up by the API server on every change of the spec; 0 in a file.
    #[serde(default)]
    pub generation: i64,
}

fn default_namespace() -> String {
    "default".to_owned()
}

/// What is wanted of a room. Only `allowedOrigins` has no default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ChatRoomSpec {
    /// The origins whose pages may join, as scheme://host or scheme://host:port, compared after parsing. `https://*.example.com` allows any
    /// number of labels under the host, never the host itself; `null` allows pages without an origin; `*` stands alone
    /// and allows all.
    pub allowed_origins: Vec<String>,
    /// Whether a handshake without an Origin header (any client that is not a browser) is refused.
    #[serde(default = "default_require_origin")]
    pub require_origin: bool,
    /// Who may enter, and what they may do. Left out, everybody may read and write whose page is of an allowed origin.
    #[serde(default)]
    pub auth: Auth,
    /// Which gateways serve the room, and how many.
    #[serde(default)]
    pub gateways: Gateways,
    /// What the room and each of its members may use.
    #[serde(default)]
    pub limits: RoomLimits,
    /// How members that went away are found.
    #[serde(default)]
    pub heartbeat: Heartbeat,
}

const fn default_require_origin() -> bool {
    true
}

impl ChatRoomSpec {
    /// A spec with these origins and defaults for the rest.
    #[must_use]
    pub fn new(allowed_origins: Vec<String>) -> Self {
        Self {
            allowed_origins,
            require_origin: default_require_origin(),
            auth: Auth::default(),
            gateways: Gateways::default(),
            limits: RoomLimits::default(),
            heartbeat: Heartbeat::default(),
        }
    }
}

/// Which gateways serve a room, and how many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Gateways {
    /// The pool of gateways that serves the room, a DNS label. Rooms of one pool share its gateways; a pool of its own
    /// isolates a room.
    pub pool: String,
    /// Gateways that the pool must have for this room.
    pub min: u32,
    /// Gateways that this room may grow the pool to.
    pub max: u32,
    /// Connections that count as one gateway's full load.
    pub connections_per_gateway: u32,
}

impl Default for Gateways {
    fn default() -> Self {
        Self { pool: DEFAULT_POOL.to_owned(), min: 2, max: 10, connections_per_gateway: 5_000 }
    }
}

/// What a room and each of its members may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct RoomLimits {
    /// Connections of the whole room, over all gateways; the next handshake gets 503 with Retry-After.
    pub max_connections: u32,
    /// Bytes of one message; a larger one closes its sender with 1009.
    pub max_message_bytes: u32,
    /// Messages that may wait for one slow member; one more, and that member is closed with 1013.
    pub send_queue: u32,
    /// Messages that one connection may send in a second; over it the gateway stops reading that connection until it
    /// may send again.
    pub messages_per_second: u32,
    /// Messages that one connection may send at once before messagesPerSecond holds it back.
    pub burst: u32,
    /// Bytes of messages that one connection may send in a second, and so many at once; over it the gateway stops reading
    /// that connection until it may send again. Left out, the limits on messages alone hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u32>,
    /// Messages that all members together may send in a second, over all gateways, and so many at once; those above it
    /// wait for their turn, and their senders with them. Left out, only each member is held to its own limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_messages_per_second: Option<u32>,
}

impl Default for RoomLimits {
    fn default() -> Self {
        Self {
            max_connections: 50_000,
            max_message_bytes: 512,
            send_queue: 256,
            messages_per_second: 20,
            burst: 40,
            bytes_per_second: None,
            room_messages_per_second: None,
        }
    }
}

/// How members that went away are found: a ping every `pingPeriod`, and out after `pongWait` without a pong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Heartbeat {
    /// How long a member may be silent before it is closed.
    pub pong_wait: WireDuration,
    /// How often a member is pinged; shorter than pongWait.
    pub ping_period: WireDuration,
    /// How long one write to a member may take.
    pub write_wait: WireDuration,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self {
            pong_wait: WireDuration::from_secs(60),
            ping_period: WireDuration::from_secs(54),
            write_wait: WireDuration::from_secs(10),
        }
    }
}
