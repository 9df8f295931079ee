//! What is spoken inside the WebSocket frames: how a member gets into its room, says something, and hears.
//!
//! A *plain* room is an address, and a message is a frame. Other servers have channels: a member first says who it is,
//! then subscribes, and each message is wrapped. Here is what differs, as functions over bytes; who connects, when
//! something is due and what is verified is the same for all, and so is the payload that the verifier sees.

mod centrifugo;
mod nats;

use clap::ValueEnum;
use hubbub_websocket::Opcode;
use serde::Serialize;

use crate::reconnect::Cause;

/// What the server speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A room is an address; what one member sends, all get, byte for byte.
    #[default]
    Plain,

    /// Centrifugo's client protocol, as JSON. Rooms are channels, in which members may publish.
    Centrifugo,

    /// The protocol of NATS clients, at the server's own WebSocket listener. Rooms are subjects.
    Nats,
}

/// What a server said beside messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It is ready to hear what [`Protocol::enter`] says.
    Welcome,
    /// The member is in its room.
    Joined,
    /// It wants to hear [`Protocol::pong`].
    Ping,
    /// What was asked was refused; asked again it may be granted, or not.
    Refused { reason: String, temporary: bool },
    /// The member was put out of its room, with the protocol's own code.
    PutOut(u16),
    /// It said something that the protocol does not know.
    Garbled(&'static str),
}

/// What one connection remembers of what it was told so far.
#[derive(Debug)]
pub(crate) enum Speech {
    Centrifugo,
    Nats(nats::Stream),
}

impl Protocol {
    /// The memory that a connection needs; none where a frame is a message.
    pub(crate) fn speech(self) -> Option<Speech> {
        match self {
            Self::Plain => None,
            Self::Centrifugo => Some(Speech::Centrifugo),
            Self::Nats => Some(Speech::Nats(nats::Stream::default())),
        }
    }

    /// The kind of frame that carries what a client says, where it is not for the user to choose.
    pub(crate) fn opcode(self) -> Option<Opcode> {
        match self {
            Self::Plain => None,
            Self::Centrifugo => Some(Opcode::Text),
            Self::Nats => Some(Opcode::Binary),
        }
    }

    /// What a client says first; nothing where the server has the first word.
    pub(crate) fn greeting(self, out: &mut Vec<u8>, token: Option<&str>) {
        match self {
            Self::Plain | Self::Nats => {}
            Self::Centrifugo => centrifugo::connect(out, token),
        }
    }

    /// The request to be let into a room, after [`Sign::Welcome`].
    pub(crate) fn enter(self, out: &mut Vec<u8>, channel: &str, token: Option<&str>) {
        match self {
            Self::Plain => {}
            Self::Centrifugo => centrifugo::subscribe(out, channel),
            Self::Nats => nats::subscribe(out, channel, token),
        }
    }

    /// A message to all in the room. `number` tells it from others of this connection.
    pub(crate) fn publish(self, out: &mut Vec<u8>, channel: &str, number: u32, payload: &[u8]) {
        match self {
            Self::Plain => out.extend_from_slice(payload),
            Self::Centrifugo => centrifugo::publish(out, channel, number, payload),
            Self::Nats => nats::publish(out, channel, payload),
        }
    }

    /// The answer to [`Sign::Ping`].
    pub(crate) fn pong(self) -> &'static [u8] {
        match self {
            Self::Plain => b"",
            Self::Centrifugo => b"{}",
            Self::Nats => b"PONG\r\n",
        }
    }

    /// What a close code says of coming back.
    pub(crate) fn cause(self, code: u16) -> Cause {
        match self {
            Self::Plain | Self::Nats => Cause::Closed(code),
            Self::Centrifugo => centrifugo::cause(code),
        }
    }

    /// Why a channel of this name cannot be, if it cannot.
    pub(crate) fn refuse_channel(self, channel: &str) -> Option<&'static str> {
        let printable = channel.bytes().all(|byte| byte.is_ascii_graphic());
        if channel.is_empty() || !printable {
            return Some("a name of printable ASCII without spaces is wanted");
        }
        if self == Self::Nats
            && channel.split('.').any(|token| token.is_empty() || matches!(token, "*" | ">"))
        {
            return Some("a NATS subject has no empty parts and no wildcards");
        }
        None
    }
}

impl Speech {
    /// Takes a frame apart: each message's payload goes to `hear`, all else to `signs`.
    pub(crate) fn read(&mut self, frame: &[u8], hear: impl FnMut(&[u8]), signs: &mut Vec<Sign>) {
        match self {
            Self::Centrifugo => centrifugo::read(frame, hear, signs),
            Self::Nats(stream) => stream.read(frame, hear, signs),
        }
    }
}
