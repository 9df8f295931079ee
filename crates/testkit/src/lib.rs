//! What the tests of several crates share: a real `nats-server` under the test's control ([`NatsServer`]), certificates
//! for it ([`Certificates`]), the real gateway program ([`GatewayProcess`]) and its rooms ([`RoomsFile`]), a WebSocket
//! client that also misbehaves ([`Client`]), over TLS too ([`Trust`]), one that does not and lives in the background ([`Member`]), requests that
//! are not as they should be ([`Handshake`]), a real Jaeger ([`Jaeger`]) and Prometheus ([`Prometheus`]), a real Kubernetes control plane ([`ControlPlane`], or the user's own
//! cluster by [`Cluster`]), an issuer of tokens ([`TokenIssuer`]) and its address of keys ([`KeyServer`]),
//! and awaiting a condition ([`eventually`]).
//!
//! Everything here panics with the reason when it cannot do its work, as a test would. Nothing of it ships.

#![allow(clippy::expect_used, clippy::panic, reason = "only tests use this crate")]

mod await_condition;
mod certificates;
mod client;
mod cluster;
mod connection;
mod control_plane;
mod gateway_process;
mod handshake;
pub mod http;
mod jaeger;
mod key_server;
mod kubectl;
mod log_lines;
mod member;
mod nats_server;
mod prometheus;
mod rooms_file;
mod slow_reader;
mod token_issuer;

pub use await_condition::{GIVE_UP, eventually, within};
pub use certificates::Certificates;
pub use client::{Client, Received};
pub use cluster::{Cluster, Namespace};
pub use connection::Trust;
pub use control_plane::{AuditEvent, ControlPlane, Controllers};
pub use gateway_process::{GatewayProcess, gateway_program, raise_descriptors};
pub use handshake::Handshake;
pub use hubbub_websocket::Opcode;
pub use jaeger::{Jaeger, JaegerApi, JaegerSpan};
pub use key_server::KeyServer;
pub use kubectl::Kubectl;
pub use member::Member;
pub use nats_server::{Auth, JetStream, NatsConfig, NatsServer, NatsUser, Tls};
pub use prometheus::{Prometheus, Sample, Target, prometheus_program};
pub use rooms_file::{OPEN, RoomsFile, chat_room};
pub use slow_reader::slow_reader_is_out_alone;
pub use token_issuer::{TokenIssuer, key_set};
