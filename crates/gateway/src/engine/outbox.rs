//! What one member is still owed, while its socket takes no more.
//!
//! An outbox exists only then; a member whose socket takes everything has none. It holds references to buffers that
//! all members share; or nothing, while the end of what was encrypted waits in the [transport](super::transport). What
//! waits is written together, in one call: the price of a write is per call, not per byte.

use std::{collections::VecDeque, io, sync::Arc};

use bytes::Bytes;

/// Bytes put into one write when several buffers wait: large enough to empty most queues in one call, small enough
/// to stay in the second-level cache.
const WRITE_TOGETHER: usize = 64 * 1024;

/// One or more whole frames, ready for the wire and shared by all members of a room.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    bytes: Bytes,
    /// Where each message ends; `None` for a single one.
    ends: Option<Arc<[u32]>>,
    /// Whether these are messages of the room, which count against the queue's bound.
    counted: bool,
}

impl Chunk {
    /// One frame that is not a message of the room: a pong, a ping, a close.
    pub(super) fn control(bytes: Bytes) -> Self {
        Self { bytes, ends: None, counted: false }
    }

    /// Joins frames into one chunk; a single one is not copied.
    pub(super) fn join<'a>(frames: impl ExactSizeIterator<Item = &'a Bytes> + Clone) -> Self {
        if frames.len() == 1
            && let Some(only) = frames.clone().next()
        {
            return Self { bytes: only.clone(), ends: None, counted: true };
        }
        let mut bytes = Vec::with_capacity(frames.clone().map(Bytes::len).sum());
        let mut ends = Vec::with_capacity(frames.len());
        for frame in frames {
            bytes.extend_from_slice(frame);
            ends.push(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        }
        Self { bytes: bytes.into(), ends: Some(ends.into()), counted: true }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Messages of which a byte at or after `offset` is still to be written.
    fn waiting_after(&self, offset: usize) -> usize {
        match &self.ends {
            _ if !self.counted => 0,
            None => usize::from(offset < self.bytes.len()),
            Some(ends) => ends.len() - ends.partition_point(|end| *end as usize <= offset),
        }
    }
}

/// How far a flush came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flushed {
    /// Nothing waits any more.
    Empty,
    /// The socket is full again; whether at least one chunk was completed.
    Blocked { progress: bool },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: VecDeque<Chunk>,
    /// Bytes of the first chunk that are written.
    offset: usize,
    /// Bytes in all chunks, written ones included.
    bytes: usize,
    /// Messages in all chunks, written ones included.
    messages: usize,
    /// The newest pong owed: only the latest ping needs an answer (RFC 6455, 5.5.3), so one place is enough however
    /// many pings come.
    pong: Option<Bytes>,
    /// When the first chunk must be out, on the shard's clock.
    pub(super) write_by: u64,
}

impl Outbox {
    pub(super) fn new(write_by: u64) -> Self {
        Self { queue: VecDeque::new(), offset: 0, bytes: 0, messages: 0, pong: None, write_by }
    }

    /// Begins with a chunk of which `offset` bytes are written.
    pub(super) fn resume(chunk: Chunk, offset: usize, write_by: u64) -> Self {
        let mut outbox = Self::new(write_by);
        outbox.push(chunk);
        outbox.offset = offset;
        outbox
    }

    pub(super) fn push(&mut self, chunk: Chunk) {
        self.bytes += chunk.bytes.len();
        self.messages += chunk.waiting_after(0);
        self.queue.push_back(chunk);
    }

    pub(super) fn set_pong(&mut self, frame: Bytes) {
        self.pong = Some(frame);
    }

    /// Messages not yet written whole.
    pub(super) fn messages(&self) -> usize {
        let written = self
            .queue
            .front()
            .map_or(0, |chunk| chunk.waiting_after(0) - chunk.waiting_after(self.offset));
        self.messages - written
    }

    /// Bytes of messages, not of control frames, that are not yet written.
    pub(super) fn message_bytes(&self) -> usize {
        let counted = |chunk: &&Chunk| chunk.counted;
        let all: usize = self.queue.iter().filter(counted).map(|chunk| chunk.bytes.len()).sum();
        all - self.queue.front().filter(counted).map_or(0, |_| self.offset)
    }

    /// Bytes not yet written.
    pub(super) fn bytes(&self) -> usize {
        self.bytes - self.offset
    }

    /// Drops everything that has not begun to be written, so that a close frame may follow a whole frame.
    /// Returns how many messages were dropped.
    pub(super) fn discard(&mut self) -> usize {
        let before = self.messages();
        self.pong = None;
        let first = self.queue.pop_front();
        self.queue.clear();
        (self.bytes, self.messages) = (0, 0);
        match first {
            Some(chunk) if self.offset > 0 => {
                let rest = chunk.frame_rest(self.offset);
                self.offset = 0;
                let kept = usize::from(!rest.is_empty() && chunk.counted);
                if !rest.is_empty() {
                    self.push(Chunk { bytes: rest, ends: None, counted: chunk.counted });
                }
                before.saturating_sub(kept)
            }
            _ => before,
        }
    }

    /// Writes until nothing waits or the socket is full. `scratch` is where waiting chunks are joined.
    ///
    /// # Errors
    ///
    /// Those of the socket, other than that it would block.
    pub(super) fn flush(
        &mut self,
        socket: &mut impl io::Write,
        scratch: &mut Vec<u8>,
    ) -> io::Result<Flushed> {
        let mut progress = false;
        loop {
            // A pong goes out at the next frame boundary, ahead of what waits.
            if self.offset == 0
                && let Some(pong) = self.pong.take()
            {
                self.bytes += pong.len();
                self.queue.push_front(Chunk::control(pong));
            }
            let Some(first) = self.queue.front() else {
                // What was taken may not be out yet.
                return match socket.flush() {
                    Ok(()) => Ok(Flushed::Empty),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        Ok(Flushed::Blocked { progress })
                    }
                    Err(error) => Err(error),
                };
            };
            let rest = &first.bytes[self.offset..];
            let together = match self.queue.get(1) {
                Some(second) if rest.len() + second.bytes.len() <= WRITE_TOGETHER => {
                    scratch.clear();
                    scratch.extend_from_slice(rest);
                    for chunk in self.queue.iter().skip(1) {
                        if scratch.len() + chunk.bytes.len() > WRITE_TOGETHER {
                            break;
                        }
                        scratch.extend_from_slice(&chunk.bytes);
                    }
                    scratch.as_slice()
                }
                _ => rest,
            };
            let wanted = together.len();
            let written = match socket.write(together) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Flushed::Blocked { progress });
                }
                Err(error) => return Err(error),
            };
            progress |= self.advance(written);
            if written < wanted {
                return Ok(Flushed::Blocked { progress });
            }
        }
    }

    /// Accounts for written bytes; says whether a chunk was completed.
    fn advance(&mut self, mut written: usize) -> bool {
        let mut completed = false;
        while let Some(first) = self.queue.front() {
            let rest = first.bytes.len() - self.offset;
            if written < rest {
                self.offset += written;
                break;
            }
            written -= rest;
            self.bytes -= first.bytes.len();
            self.messages -= first.waiting_after(0);
            self.offset = 0;
            self.queue.pop_front();
            completed = true;
        }
        completed
    }
}

impl Chunk {
    /// From `offset` to the end of the frame it lies in; empty at a boundary.
    fn frame_rest(&self, offset: usize) -> Bytes {
        let end = match &self.ends {
            None => self.bytes.len(),
            Some(ends) => {
                let at = ends.partition_point(|end| (*end as usize) < offset);
                ends.get(at).map_or(self.bytes.len(), |end| *end as usize)
            }
        };
        self.bytes.slice(offset..end.max(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that takes as many bytes as it is allowed.
    #[derive(Default)]
    struct Pipe {
        taken: Vec<u8>,
        space: usize,
        calls: usize,
        /// Whether the end of what it has taken does not go out.
        stuck: bool,
    }

    impl io::Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            if self.space == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let taken = bytes.len().min(self.space);
            self.space -= taken;
            self.taken.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            if self.stuck { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        }
    }

    fn joined(frames: &[&'static str]) -> Chunk {
        let frames: Vec<Bytes> =
            frames.iter().map(|frame| Bytes::from_static(frame.as_bytes())).collect();
        Chunk::join(frames.iter())
    }

    #[test]
    fn what_waits_goes_out_in_one_call_and_in_order() {
        let mut outbox = Outbox::new(0);
        outbox.push(joined(&["one,"]));
        outbox.push(joined(&["two,", "three,"]));
        outbox.push(joined(&["four"]));
        assert_eq!(outbox.messages(), 4);
        let mut pipe = Pipe { space: 100, ..Pipe::default() };
        assert_eq!(outbox.flush(&mut pipe, &mut Vec::new()).unwrap(), Flushed::Empty);
        assert_eq!((pipe.taken.as_slice(), pipe.calls), (&b"one,two,three,four"[..], 1));
        assert_eq!((outbox.bytes(), outbox.messages()), (0, 0));
    }

    #[test]
    fn counts_whole_messages_however_little_is_taken() {
        for space in 1..9 {
            let mut outbox = Outbox::resume(joined(&["abc", "def", "ghi"]), 0, 0);
            let mut pipe = Pipe { space, ..Pipe::default() };
            outbox.flush(&mut pipe, &mut Vec::new()).unwrap();
            assert_eq!(outbox.messages(), 3 - space / 3, "{space} bytes taken");
            assert_eq!(outbox.bytes(), 9 - space);
        }
    }

    #[test]
    fn discarding_keeps_the_frame_that_has_begun_and_nothing_else() {
        for taken in 0..=9 {
            let mut outbox = Outbox::resume(joined(&["abc", "def", "ghi"]), 0, 0);
            outbox.push(joined(&["jkl"]));
            let mut pipe = Pipe { space: taken, ..Pipe::default() };
            outbox.flush(&mut pipe, &mut Vec::new()).unwrap();
            outbox.discard();
            outbox.push(Chunk::control(Bytes::from_static(b"CLOSE")));
            pipe.space = 100;
            outbox.flush(&mut pipe, &mut Vec::new()).unwrap();
            let whole = taken.div_ceil(3) * 3;
            let mut wanted = b"abcdefghi"[..whole].to_vec();
            wanted.extend_from_slice(b"CLOSE");
            assert_eq!(pipe.taken, wanted, "{taken} bytes were out");
        }
    }

    #[test]
    fn only_the_latest_pong_is_kept_and_it_waits_for_a_frame_boundary() {
        let mut outbox = Outbox::resume(joined(&["abcdef"]), 3, 0);
        outbox.push(joined(&["next"]));
        outbox.set_pong(Bytes::from_static(b"old"));
        outbox.set_pong(Bytes::from_static(b"PONG"));
        let mut pipe = Pipe { space: 100, ..Pipe::default() };
        outbox.flush(&mut pipe, &mut Vec::new()).unwrap();
        assert_eq!(pipe.taken, b"defnextPONG", "joined writes cross the boundary");
        let mut outbox = Outbox::new(0);
        outbox.push(joined(&["next"]));
        outbox.set_pong(Bytes::from_static(b"PONG"));
        let mut pipe = Pipe { space: 100, ..Pipe::default() };
        outbox.flush(&mut pipe, &mut Vec::new()).unwrap();
        assert_eq!(pipe.taken, b"PONGnext");
    }

    #[test]
    fn what_was_taken_and_is_not_out_is_waited_for() {
        let mut outbox = Outbox::resume(joined(&["abc"]), 1, 0);
        let mut pipe = Pipe { space: 100, stuck: true, ..Pipe::default() };
        let blocked = Flushed::Blocked { progress: true };
        assert_eq!(outbox.flush(&mut pipe, &mut Vec::new()).unwrap(), blocked);
        assert_eq!((outbox.bytes(), outbox.messages(), outbox.discard()), (0, 0, 0));
        let blocked = Flushed::Blocked { progress: false };
        assert_eq!(outbox.flush(&mut pipe, &mut Vec::new()).unwrap(), blocked);
        pipe.stuck = false;
        assert_eq!(outbox.flush(&mut pipe, &mut Vec::new()).unwrap(), Flushed::Empty);
        assert_eq!(pipe.taken, b"bc", "once");
    }

    #[test]
    fn a_broken_socket_is_told() {
        struct Broken;
        impl io::Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut outbox = Outbox::resume(joined(&["abc"]), 0, 0);
        let error = outbox.flush(&mut Broken, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
