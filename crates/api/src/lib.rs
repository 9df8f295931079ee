//! The contract between the people who declare rooms, the operator and the gateway.
//!
//! A [`ChatRoom`] is what people write, [`RoomPolicy`] is what a gateway is told, [`GatewayReport`] is what a gateway
//! answers, and [`names`] are the NATS subjects and keys over which the last two travel, as [`permissions`] allows the two programs. [`rules`] holds every rule of
//! validation once; [`parse_rooms`] applies them to a file of rooms and [`RoomPolicy::from_json`] to what comes over the
//! wire, so nothing that breaks a rule reaches a gateway's rooms.
//!
//! ```
//! use hubbub_api::{Origin, AllowedOrigins, RoomPolicy, parse_rooms};
//!
//! let rooms = parse_rooms(
//!     "
//! apiVersion: hubbub.dev/v1alpha1
//! kind: ChatRoom
//! metadata: {name: lobby, namespace: demo}
//! spec: {allowedOrigins: ['https://*.example.com']}
//! ",
//! )
//! .expect("a good file");
//! let policy = RoomPolicy::from_chat_room(&rooms[0])?;
//! assert_eq!(policy.room.subject(), "hubbub.room.demo.lobby");
//!
//! let allowed = AllowedOrigins::compile(&policy.allowed_origins).expect("checked above");
//! assert!(allowed.matches(&Origin::parse("https://chat.example.com")?));
//! assert!(!allowed.matches(&Origin::parse("https://chat.example.com.evil.com")?));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! This crate does no I/O and knows neither Kubernetes' client nor NATS'. With the feature `kubernetes` it has the resource as
//! the API server knows it, its status and its definition; the gateway is built without.

mod allowed;
mod answer;
mod auth;
mod chat_room;
mod document;
mod duration;
mod jwks;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod names;
mod node;
mod origin;
pub mod permissions;
mod policy;
mod report;
mod room_name;
mod rooms_file;
pub mod rules;
mod statement;
mod suggest;

pub use allowed::{AllowedOrigins, OriginRefusal, PatternError, PatternFault};
pub use answer::is_nats_answer;
pub use auth::{
    Access, Auth, AuthPolicy, ConfigMapKey, DEFAULT_CLAIM, DEFAULT_CONFIG_MAP_KEY, Jwt, JwtPolicy,
    KeySource,
};
pub use chat_room::{
    API_GROUP, API_VERSION, ChatRoom, ChatRoomSpec, Gateways, Heartbeat, KIND, Metadata, RoomLimits,
};
pub use duration::{DurationError, WireDuration};
pub use jwks::{
    Algorithm, JwksError, KeyMaterial, MAX_JWKS_BYTES, MAX_KEYS, VerificationKey, parse_jwks,
};
pub use origin::{Origin, OriginError};
pub use policy::{POLICY_SCHEMA, PolicyError, RoomPolicy};
pub use report::{DrainReport, GatewayReport, REPORT_SCHEMA, ReportError};
pub use room_name::{NameError, RoomName, is_dns_label};
pub use rooms_file::{MAX_ROOMS_BYTES, Problem, parse_rooms, parse_rooms_with_lines};
pub use statement::{Statement, StatementError};
pub use suggest::nearest;
