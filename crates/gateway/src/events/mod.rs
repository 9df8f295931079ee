//! What happens in a gateway, each thing written once: its log line, its metrics and its span stand together.

pub mod bus;
pub mod drain;
pub mod engine;
pub mod http;
pub mod memory;
pub mod policy;
pub mod rooms;
pub mod tasks;
mod throttles;
pub mod tls;
mod traces;

pub use drain::DrainEvents;
pub use engine::EngineEvents;
pub(crate) use engine::FanOut;
pub use http::{HttpEvents, Traced};
pub use memory::MemoryEvents;
pub use rooms::RoomMetrics;
pub use tasks::TaskMetrics;
pub(crate) use throttles::Throttle;
pub use tls::TlsEvents;
