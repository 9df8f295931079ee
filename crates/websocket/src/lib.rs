//! The WebSocket protocol, RFC 6455, as pure functions over bytes, for a server and for a client.
//!
//! [`Decoder`] turns received bytes into [`Event`]s and refuses what the protocol forbids; [`frame()`],
//! [`close_frame`] and [`write_frame`] make bytes to send; [`handshake`] checks and writes the HTTP
//! upgrade. A frame that lies whole in the caller's buffer is unmasked there and handed out as a
//! borrowed slice; between messages a decoder owns no memory beyond itself. What a peer *declares*
//! costs nothing, only what it has *sent* does, and that is bounded by [`Limits`].
//!
//! There is no I/O here, no timer, no `unsafe`, and no extension: `permessage-deflate` is never
//! negotiated, so reserved bits are always an error.

mod close;
mod decoder;
mod error;
mod frame;
pub mod handshake;
mod header;
mod mask;

pub use close::{Close, MAX_CLOSE_REASON_BYTES, close_frame, is_valid_close_code, write_close};
pub use decoder::{Decoder, Event, Limits, LongTexts, Role};
pub use error::ProtocolError;
pub use frame::{Kind, Opcode, frame, header_len, write_frame};
pub use header::{MAX_CONTROL_BYTES, MAX_HEADER_BYTES};
