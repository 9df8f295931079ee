//! A load generator for WebSocket rooms that verifies every delivery.
//!
//! [`run()`] takes a [`Plan`] made from the command line ([`Cli`]) through its stages: connect, hold,
//! probe, warm up, measure, wait for what is under way, leave; and gives a [`Report`]. The load is
//! an open loop on a schedule, driven by one or few threads of which each serves thousands of
//! sockets, so that the generator stays cheaper than the server it measures. Linux only.
//!
//! Rooms are *plain*: what one member sends, all members get, the sender included, byte for byte; or channels of
//! Centrifugo, or subjects of NATS ([`Protocol`]).

mod chart;
mod cli;
mod closes;
mod comebacks;
mod control;
mod hgrm;
pub mod limits;
mod link;
pub mod payload;
mod plan;
mod plot;
pub mod process;
mod progress;
mod protocol;
mod random;
pub mod reconnect;
mod report;
mod run;
mod schedule;
mod stream;
mod tally;
mod timeline;
mod tls;
pub mod verify;
mod worker;

pub use cli::Cli;
pub use closes::Spread;
pub use comebacks::Comebacks;
pub use control::Snapshot;
pub use hgrm::hgrm;
pub use plan::{Part, Plan, PlanError, Target};
pub use plot::plot;
pub use progress::{Progress, Step};
pub use protocol::Protocol;
pub use report::{Asked, Connecting, Load, MemoryUse, Report, Times, Verification};
pub use run::{RunError, run};
pub use schedule::Schedule;
pub use timeline::Slice;
pub use tls::TrustError;
