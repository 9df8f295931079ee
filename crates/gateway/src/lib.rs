//! The Hubbub gateway: rooms served over WebSocket.
//!
//! A connection comes in through the [`listener`], is asked at the [`entrance`] who it is and which room it wants, and
//! lives in the [`engine`]. What it says goes over a [`bus`] to every gateway on which the room has members. Which
//! rooms there are, a [`policy`] source tells. [`gateway`] puts the parts together; [`drain`] takes them down.

pub mod admin;
mod bucket;
pub mod bus;
pub mod cli;
pub mod descriptors;
pub mod drain;
pub mod drain_hook;
pub mod engine;
pub mod entrance;
pub mod events;
pub mod gateway;
pub mod limits;
pub mod listener;
pub mod memory;
mod page;
pub mod policy;
pub mod public;
pub mod rates;
pub mod refusal;
pub mod reports;
pub mod room;
mod settled;
pub mod signals;
pub mod startup;
pub mod tls;
pub mod token;
