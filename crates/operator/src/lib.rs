//! The Hubbub operator: it watches `ChatRoom` objects, publishes their policies to gateways, and runs pools of gateways.

pub mod cli;
pub mod definition;
