//! What happens in a gateway, each thing written once: its log line and its metrics stand together.

pub mod bus;
pub mod drain;
pub mod engine;
pub mod http;
pub mod limit;
pub mod policy;
pub mod rooms;

pub use drain::DrainEvents;
pub use engine::EngineEvents;
pub use http::HttpEvents;
pub use rooms::RoomMetrics;
