//! What the tests on a real cluster share: Helm ([`Helm`]), a release of the chart ([`Release`]), and looks at its rooms and
//! gateways. Everything panics with the reason when it cannot do its work. Nothing of it ships.
//!
//! The cluster is the one that `KUBECONFIG` names. `scripts/e2e-tests` sets it, and everything else that is needed.

#![allow(clippy::expect_used, clippy::panic, reason = "only tests use this crate")]

mod chart;
mod helm;
mod jaeger;
mod load;
mod pod;
mod release;
mod world;

pub use chart::{chart, chart_of_version};
pub use helm::Helm;
pub use jaeger::Jaeger;
pub use load::Load;
pub use pod::Pod;
pub use release::{PAGE, Release};
pub use world::{World, slowly};
