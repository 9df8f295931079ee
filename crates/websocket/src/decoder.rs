//! From received bytes to events.

mod partial;

use std::ops::Range;

use crate::{
    Close, ProtocolError,
    frame::{Kind, Opcode},
    header::Header,
    mask,
};
use partial::Partial;

/// Which side of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// We are the server: what we receive must be masked.
    Server,
    /// We are the client: what we receive must not be masked.
    Client,
}

/// What one message may cost. Control frames have the protocol's own bound of 125 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest message, in bytes, over all its fragments.
    pub max_message_bytes: usize,

    /// The most frames in one message. Fragments may be empty, so bytes alone do not bound them.
    pub max_fragments: u32,

    /// Texts that may be longer, if there are such.
    pub long_texts: Option<LongTexts>,
}

/// Texts that may be longer than other messages, known by how they begin.
///
/// A frame that takes a text beyond [`Limits::max_message_bytes`] is refused as soon as the text is seen to begin otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongTexts {
    /// How they begin.
    pub prefix: &'static str,

    /// The longest of them, in bytes, with the prefix and over all fragments.
    pub max_bytes: usize,
}

impl Limits {
    /// Limits for messages of up to `max_message_bytes`: 1024 fragments, or one for each 64 bytes
    /// where that is more.
    ///
    /// The Autobahn test suite (case 9.3.1) sends 4 MiB in fragments of 64 bytes, the smallest that
    /// any of its size tests uses, and a peer that streams a message has no cause for smaller ones.
    pub const fn for_message_bytes(max_message_bytes: usize) -> Self {
        let by_size = max_message_bytes / 64;
        let max_fragments = if by_size < 1024 {
            1024
        } else if by_size > u32::MAX as usize {
            u32::MAX
        } else {
            by_size as u32
        };
        Self { max_message_bytes, max_fragments, long_texts: None }
    }
}

/// What the peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message.
    Message {
        /// Text or binary.
        kind: Kind,
        /// The payload, unmasked; valid UTF-8 when `kind` is [`Kind::Text`].
        payload: &'a [u8],
    },

    /// A ping, to be answered by a pong with the same payload.
    Ping(&'a [u8]),

    /// A pong, asked for or not.
    Pong(&'a [u8]),

    /// A close. Answer it with the same code, and read no further: what follows has no meaning.
    Close(Option<Close<'a>>),
}

/// Decodes one direction of one connection.
///
/// Its memory is what an unfinished frame or message needs, and is freed when that is done: by the
/// call after the one that returned its event, because the event borrows it. A caller that decodes
/// until it is told that more bytes are needed therefore leaves nothing behind.
///
/// ```
/// use hubbub_websocket::{Decoder, Event, Kind, Limits, Role};
///
/// let mut received = *b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
/// let limits = Limits::for_message_bytes(512);
/// let mut decoder = Decoder::new(Role::Server);
/// let mut at = 0;
/// loop {
///     let (used, event) = decoder.decode(&mut received[at..], limits);
///     at += used;
///     match event? {
///         Some(event) => {
///             assert_eq!(event, Event::Message { kind: Kind::Text, payload: b"Hello" });
///         }
///         None => break, // wait for more bytes
///     }
/// }
/// assert_eq!(decoder.heap_bytes(), 0);
/// # Ok::<(), hubbub_websocket::ProtocolError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    role: Role,
    failed: Option<ProtocolError>,

    /// Boxed, because a connection is nearly always between frames and then owns nothing.
    partial: Option<Box<Partial>>,
}

/// An event, without the borrow: where its payload lies.
enum Found {
    /// In the caller's buffer.
    InInput(Opcode, Range<usize>),
    /// In [`Partial`].
    Held(Opcode),
}

impl Decoder {
    /// A decoder for what `role` receives, at the start of the frames.
    pub const fn new(role: Role) -> Self {
        Self { role, failed: None, partial: None }
    }

    /// Takes bytes from the front of `input` up to the next event.
    ///
    /// Returns how many bytes were used, and the event; or `None` when more bytes are needed, and
    /// then all of `input` was used. Bytes that were used are unmasked in place. `limits` may differ
    /// from call to call; they are looked at when a header arrives, so a message that is already
    /// under way may finish its current frame.
    ///
    /// # Errors
    ///
    /// What the peer did wrong. Nothing that follows can be understood, so all of `input` counts as
    /// used, and every later call returns the same error.
    pub fn decode<'a>(
        &'a mut self,
        input: &'a mut [u8],
        limits: Limits,
    ) -> (usize, Result<Option<Event<'a>>, ProtocolError>) {
        if let Some(error) = self.failed {
            return (input.len(), Err(error));
        }
        if self.partial.as_deref_mut().is_some_and(Partial::release) {
            self.partial = None;
        }
        let (used, found) = match self.advance(input, limits) {
            Ok(Some((used, found))) => (used, found),
            Ok(None) => return (input.len(), Ok(None)),
            Err(error) => return (input.len(), Err(self.fail(error))),
        };
        let (opcode, payload): (Opcode, &'a [u8]) = match found {
            Found::InInput(opcode, range) => (opcode, &input[range]),
            Found::Held(opcode) => (opcode, self.partial.as_deref().map_or(&[], Partial::payload)),
        };
        let event = match opcode {
            Opcode::Text => Event::Message { kind: Kind::Text, payload },
            Opcode::Binary | Opcode::Continuation => Event::Message { kind: Kind::Binary, payload },
            Opcode::Ping => Event::Ping(payload),
            Opcode::Pong => Event::Pong(payload),
            // Was checked before it was found, while the decoder could still be changed.
            Opcode::Close => Event::Close(Close::parse(payload).unwrap_or_default()),
        };
        (used, Ok(Some(event)))
    }

    /// Whether a frame or a fragmented message is incomplete, and so a deadline for it should run.
    pub fn in_message(&self) -> bool {
        self.partial.as_deref().is_some_and(Partial::is_open)
    }

    /// The bytes that have arrived of what is incomplete; what is [held](Decoder::heap_bytes) for it is up to twice as much.
    pub fn arrived_bytes(&self) -> usize {
        self.partial.as_deref().map_or(0, Partial::len)
    }

    /// The bytes of heap held now; 0 between messages.
    pub fn heap_bytes(&self) -> usize {
        self.partial.as_deref().map_or(0, |partial| size_of::<Partial>() + partial.capacity())
    }

    fn fail(&mut self, error: ProtocolError) -> ProtocolError {
        self.failed = Some(error);
        self.partial = None;
        error
    }

    /// Reads frames until one completes an event, or `input` ends.
    fn advance(
        &mut self,
        input: &mut [u8],
        limits: Limits,
    ) -> Result<Option<(usize, Found)>, ProtocolError> {
        let mut at = 0;
        while at < input.len() {
            if let Some(partial) = self.partial.as_deref_mut()
                && partial.in_frame()
            {
                let (used, found) = partial.payload_arrived(&mut input[at..])?;
                at += used;
                match found {
                    Some(opcode) => return Ok(Some((at, Found::Held(opcode)))),
                    None => continue,
                }
            }

            let Some(header) = self.next_header(input, &mut at, limits)? else {
                return Ok(None);
            };
            let alone =
                header.opcode.is_control() || (header.fin && header.opcode != Opcode::Continuation);
            if alone && header.payload_len <= input.len() - at {
                // The common case: the frame is an event by itself and lies whole in the input.
                let range = at..at + header.payload_len;
                let payload = &mut input[range.clone()];
                if let Some(key) = header.mask {
                    mask::apply(payload, key);
                }
                if header.prefix.is_some_and(|prefix| !payload.starts_with(prefix.as_bytes())) {
                    return Err(ProtocolError::MessageTooBig);
                }
                match header.opcode {
                    Opcode::Text if simdutf8::basic::from_utf8(payload).is_err() => {
                        return Err(ProtocolError::InvalidUtf8);
                    }
                    Opcode::Close => _ = Close::parse(payload)?,
                    _ => {}
                }
                let used = range.end;
                return Ok(Some((used, Found::InInput(header.opcode, range))));
            }

            let partial = self.partial.get_or_insert_default();
            partial.begin_frame(&header)?;
            if header.payload_len == 0 {
                let (_, found) = partial.payload_arrived(&mut [])?;
                if let Some(opcode) = found {
                    return Ok(Some((at, Found::Held(opcode))));
                }
            }
        }
        Ok(None)
    }

    /// The header at `at`, which moves behind it; `None` when it goes on behind the input.
    #[inline]
    fn next_header(
        &mut self,
        input: &[u8],
        at: &mut usize,
        limits: Limits,
    ) -> Result<Option<Header>, ProtocolError> {
        let rest = &input[*at..];
        let (header, held) = match self.partial.as_deref_mut() {
            None => (Header::parse(rest, self.role, None, limits)?, 0),
            Some(partial) => {
                let held = partial.header_bytes();
                let message = partial.message_so_far();
                (Header::parse(partial.header_with(rest), self.role, message, limits)?, held)
            }
        };
        match header {
            Some(header) => {
                if let Some(partial) = self.partial.as_deref_mut() {
                    partial.keep_header(0);
                }
                *at += header.len - held;
            }
            None => {
                // Less than a header, so it fits.
                let partial = self.partial.get_or_insert_default();
                partial.header_with(rest);
                partial.keep_header(held + rest.len());
            }
        }
        Ok(header)
    }
}
