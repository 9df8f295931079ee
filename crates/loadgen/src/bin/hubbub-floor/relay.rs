//! The link between two bare write loops: what a second server costs at the least.
//!
//! Each message goes over it once, whichever members there are. It has no broker, no subscriptions and no way back from a
//! broken link: whatever a real one has comes on top.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener},
};

use anyhow::Context;
use mio::net::TcpStream;

/// Before each message: the length of its room's path and that of its frame.
const HEAD: usize = size_of::<u16>() + size_of::<u32>();

/// One end of the link.
pub(crate) struct Relay {
    pub(crate) stream: TcpStream,
    /// What has come of a message that is not there whole.
    came: Vec<u8>,
    /// What the socket would not take.
    out: Vec<u8>,
}

impl Relay {
    /// Waits for the other one, and says where.
    pub(crate) fn wait(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).context("cannot listen for the other loop")?;
        writeln!(io::stdout(), "relay on {}", listener.local_addr()?)?;
        let (stream, _) = listener.accept()?;
        Self::over(stream)
    }

    /// Goes to the other one, which waits.
    pub(crate) fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream =
            std::net::TcpStream::connect(address).context("cannot reach the other loop")?;
        Self::over(stream)
    }

    fn over(stream: std::net::TcpStream) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream: TcpStream::from_std(stream), came: Vec::new(), out: Vec::new() })
    }

    /// Passes a frame on to the members of the room there.
    ///
    /// # Errors
    ///
    /// A broken link, or a path or frame that is too long for it.
    pub(crate) fn pass_on(&mut self, room: &str, frame: &[u8]) -> anyhow::Result<()> {
        self.out.extend_from_slice(&u16::try_from(room.len())?.to_le_bytes());
        self.out.extend_from_slice(&u32::try_from(frame.len())?.to_le_bytes());
        self.out.extend_from_slice(room.as_bytes());
        self.out.extend_from_slice(frame);
        self.flush()
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    ///
    /// A broken link.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("the other loop is gone"),
            }
        }
        Ok(())
    }

    /// Takes what has come from the other one: the path of the room and the frame of each message.
    ///
    /// # Errors
    ///
    /// A broken link.
    pub(crate) fn take(
        &mut self,
        buffer: &mut [u8],
        mut message: impl FnMut(&str, &[u8]),
    ) -> anyhow::Result<()> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => anyhow::bail!("the other loop is gone"),
                Ok(read) => self.came.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("the other loop is gone"),
            }
        }
        let mut at = 0;
        while let Some((room, frame, used)) = first(&self.came[at..]) {
            message(&String::from_utf8_lossy(room), frame);
            at += used;
        }
        self.came.drain(..at);
        Ok(())
    }
}

/// The path and the frame of the first message, and how many bytes it takes, if it is there whole.
fn first(bytes: &[u8]) -> Option<(&[u8], &[u8], usize)> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let (room, frame) = head.split_at(size_of::<u16>());
    let room = u16::from_le_bytes(room.try_into().ok()?) as usize;
    let frame = u32::from_le_bytes(frame.try_into().ok()?) as usize;
    let (room, rest) = rest.split_at_checked(room)?;
    Some((room, rest.get(..frame)?, HEAD + room.len() + frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_however_they_come() {
        let (near, far) = pair();
        let (mut near, mut far) = (Relay::over(near).unwrap(), Relay::over(far).unwrap());
        near.pass_on("/a", b"one").unwrap();
        near.pass_on("/b", b"").unwrap();
        let mut heard = Vec::new();
        // A buffer that is too small for one of them.
        while heard.len() < 2 {
            far.take(&mut [0; 5], |room, frame| heard.push((room.to_owned(), frame.to_vec())))
                .unwrap();
        }
        assert_eq!(heard, [("/a".to_owned(), b"one".to_vec()), ("/b".to_owned(), Vec::new())]);
        assert!(far.came.is_empty());
        drop(near);
        let ended = loop {
            if let Err(error) = far.take(&mut [0; 5], |_, _| {}) {
                break error;
            }
        };
        assert!(ended.to_string().contains("the other loop is gone"), "{ended}");
    }

    fn pair() -> (std::net::TcpStream, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }
}
