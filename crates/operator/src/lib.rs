//! The Hubbub operator: it watches `ChatRoom` objects, publishes their policies to gateways over NATS, and runs the pools
//! of gateways that serve them.
//!
//! It never carries a message: if it stops, every room goes on, and only changes wait. A [`room`] passes through observe,
//! validate, plan, apply and status; a [`pool`] through observe, plan and apply. [`scaling`] says how many gateways a pool
//! should have. One replica leads ([`lease`]), and without the lease nothing is written ([`fence`]).

pub mod admin;
pub mod bucket;
pub mod claims;
pub mod cli;
pub mod cluster;
pub mod connection;
pub mod context;
pub mod definition;
pub mod error;
pub mod events;
pub mod fence;
pub mod guard;
pub mod keys;
pub mod lease;
pub mod nats_permissions;
pub mod notices;
pub mod operator;
pub mod pool;
pub mod queue;
pub mod reports;
pub mod room;
pub mod scaling;
pub mod settings;
pub mod signals;
mod statement;
mod traces;
pub mod uninstall;
