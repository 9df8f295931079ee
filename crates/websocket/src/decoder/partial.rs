//! What a decoder keeps while a frame or a fragmented message is incomplete.

use std::fmt;

use crate::{
    Close, ProtocolError,
    frame::{Kind, Opcode},
    header::{Header, MAX_HEADER_BYTES, MessageSoFar},
    mask,
};

/// An incomplete header, frame or message; or an event just handed out, until it is released.
#[derive(Default)]
pub(super) struct Partial {
    /// The first `header_len` bytes are an incomplete header.
    header: [u8; MAX_HEADER_BYTES],
    header_len: u8,

    /// The frame whose payload is arriving.
    frame: Option<OpenFrame>,

    /// The message under way.
    message: Option<OpenMessage>,

    /// The message's payload so far; behind it, the payload of a control frame that interrupts it.
    bytes: Vec<u8>,

    /// What of `bytes` has just been handed out and is still borrowed by the caller.
    handed_out: Option<HandedOut>,
}

#[derive(Clone, Copy, Debug)]
struct OpenFrame {
    opcode: Opcode,
    fin: bool,
    /// The key, turned so that its first byte falls on the next byte to arrive.
    mask: Option<[u8; 4]>,
    remaining: usize,
    /// How its message must begin.
    prefix: Option<&'static str>,
}

#[derive(Clone, Copy, Debug)]
struct OpenMessage {
    kind: Kind,
    fragments: u32,
    /// Bytes of payload that have arrived.
    len: usize,
    /// Of a text: how many bytes are known to be whole characters.
    valid: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HandedOut {
    Message,
    Control,
}

impl Partial {
    /// Drops what was handed out. Returns whether nothing is left to keep.
    pub(super) fn release(&mut self) -> bool {
        match self.handed_out.take() {
            Some(HandedOut::Message) => self.message = None,
            Some(HandedOut::Control) => self.bytes.truncate(self.message_len()),
            None => {}
        }
        !self.is_open()
    }

    pub(super) fn is_open(&self) -> bool {
        let message_open = self.message.is_some() && self.handed_out != Some(HandedOut::Message);
        message_open || self.frame.is_some() || self.header_len > 0
    }

    pub(super) fn in_frame(&self) -> bool {
        self.frame.is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// The payload of what was handed out.
    pub(super) fn payload(&self) -> &[u8] {
        match self.handed_out {
            Some(HandedOut::Message) => &self.bytes,
            Some(HandedOut::Control) => &self.bytes[self.message_len()..],
            None => &[],
        }
    }

    pub(super) fn message_so_far(&self) -> Option<MessageSoFar> {
        self.message.map(|OpenMessage { kind, fragments, len, .. }| MessageSoFar {
            kind,
            fragments,
            bytes: len,
        })
    }

    pub(super) fn header_bytes(&self) -> usize {
        usize::from(self.header_len)
    }

    /// The kept bytes of the header, continued by as much of `rest` as a header may take.
    pub(super) fn header_with(&mut self, rest: &[u8]) -> &[u8] {
        let held = self.header_bytes();
        let take = rest.len().min(MAX_HEADER_BYTES - held);
        self.header[held..held + take].copy_from_slice(&rest[..take]);
        &self.header[..held + take]
    }

    /// Keeps the first `len` bytes of what [`header_with`](Self::header_with) last gave.
    pub(super) fn keep_header(&mut self, len: usize) {
        self.header_len = len.min(MAX_HEADER_BYTES) as u8;
    }

    /// Opens the frame of an accepted header, and its message if it is a first fragment.
    pub(super) fn begin_frame(&mut self, header: &Header) -> Result<(), ProtocolError> {
        let kind = match header.opcode {
            Opcode::Text => Some(Kind::Text),
            Opcode::Binary => Some(Kind::Binary),
            Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => None,
        };
        if let Some(kind) = kind {
            self.message = Some(OpenMessage { kind, fragments: 1, len: 0, valid: 0 });
        } else if header.opcode == Opcode::Continuation
            && let Some(message) = &mut self.message
        {
            message.fragments += 1;
        }
        self.frame = Some(OpenFrame {
            opcode: header.opcode,
            fin: header.fin,
            mask: header.mask,
            remaining: header.payload_len,
            prefix: header.prefix,
        });
        match header.prefix {
            Some(prefix) => self.begins_so(prefix, false),
            None => Ok(()),
        }
    }

    /// Refuses a message that begins otherwise, as far as it has arrived; `whole` if all of it has.
    fn begins_so(&self, prefix: &str, whole: bool) -> Result<(), ProtocolError> {
        let (text, prefix) = (&self.bytes[..self.message_len()], prefix.as_bytes());
        let long_enough = whole || text.len() >= prefix.len();
        let fits = if long_enough { text.starts_with(prefix) } else { prefix.starts_with(text) };
        if fits { Ok(()) } else { Err(ProtocolError::MessageTooBig) }
    }

    /// Takes what `input` holds of the open frame's payload. Returns how much that was, and the
    /// opcode of the event that it completed.
    pub(super) fn payload_arrived(
        &mut self,
        input: &mut [u8],
    ) -> Result<(usize, Option<Opcode>), ProtocolError> {
        let Some(frame) = &mut self.frame else { return Ok((0, None)) };
        let take = frame.remaining.min(input.len());
        let arrived = &mut input[..take];
        if let Some(key) = &mut frame.mask {
            mask::apply(arrived, *key);
            key.rotate_left(take % 4);
        }
        if self.bytes.capacity() - self.bytes.len() < take {
            // Grow by what arrived, at least doubling. Only the frame known to be a message's last
            // is a bound to that; were every small fragment, a message of many would be copied
            // once for each.
            let doubled = take.max(self.bytes.len());
            let last = frame.fin && !frame.opcode.is_control();
            self.bytes.reserve_exact(if last { doubled.min(frame.remaining) } else { doubled });
        }
        self.bytes.extend_from_slice(arrived);
        frame.remaining -= take;
        let (opcode, fin, complete) = (frame.opcode, frame.fin, frame.remaining == 0);
        let prefix = frame.prefix;
        if complete {
            self.frame = None;
        }

        if opcode.is_control() {
            if complete {
                if opcode == Opcode::Close {
                    Close::parse(&self.bytes[self.message_len()..])?;
                }
                self.handed_out = Some(HandedOut::Control);
            }
            return Ok((take, complete.then_some(opcode)));
        }
        let Some(message) = &mut self.message else { return Ok((take, None)) };
        message.len = self.bytes.len();
        let whole = complete && fin;
        if let Some(prefix) = prefix {
            self.begins_so(prefix, whole)?;
        }
        let Some(message) = &mut self.message else { return Ok((take, None)) };
        if message.kind == Kind::Text {
            message.valid += check_utf8(&self.bytes[message.valid..])?;
            if whole && message.valid < message.len {
                return Err(ProtocolError::InvalidUtf8);
            }
        }
        if whole {
            self.handed_out = Some(HandedOut::Message);
        }
        Ok((take, whole.then_some(message.kind.into())))
    }

    fn message_len(&self) -> usize {
        self.message.map_or(0, |message| message.len)
    }
}

/// How many bytes of `text` are whole characters; the rest may become one when more arrives.
fn check_utf8(text: &[u8]) -> Result<usize, ProtocolError> {
    match simdutf8::compat::from_utf8(text) {
        Ok(_) => Ok(text.len()),
        Err(error) if error.error_len().is_none() => Ok(error.valid_up_to()),
        Err(_) => Err(ProtocolError::InvalidUtf8),
    }
}

/// Without the payload: what people write does not belong in logs.
impl fmt::Debug for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partial")
            .field("header_len", &self.header_len)
            .field("frame", &self.frame)
            .field("message", &self.message)
            .field("bytes", &self.bytes.len())
            .field("handed_out", &self.handed_out)
            .finish()
    }
}
