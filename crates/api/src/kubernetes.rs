//! The `ChatRoom` as Kubernetes' API server keeps it: the resource, its status, and the definition that is installed.
//!
//! The definition is made of the same types and the same [`RULES`](crate::rules::RULES) that guard files and policies, so
//! the API server refuses what they refuse, with the same sentences. Statuses carry their reasons as text, because one
//! that a newer operator wrote must still be read.

mod condition;
mod definition;
mod resource;

pub use condition::{ConditionType, Reason};
pub use definition::{CATEGORY, SHORT_NAME, custom_resource_definition};
pub use resource::{ChatRoomResource, ChatRoomStatus, GatewayCounts, PLURAL};

/// Keeps a deleted room until its policy has left NATS.
pub const FINALIZER: &str = "hubbub.dev/policy";

/// With the value `"true"`, changes of the room wait until the annotation is removed.
pub const PAUSED: &str = "hubbub.dev/paused";

/// The label that names the pool of a gateway and of everything that belongs to it.
pub const POOL_LABEL: &str = "hubbub.dev/pool";
