//! One connection: a non-blocking stream, how far its handshake is, and what it could not yet send.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
};

use hubbub_telemetry::OpenSpan;
use hubbub_websocket::{Decoder, Opcode, Role, handshake::client, write_frame};
use mio::net::TcpStream;
use socket2::{Domain, Socket, Type};

use crate::{
    protocol::Speech,
    stream::{Secure, Stream},
};

/// How far a connection is.
#[derive(Debug)]
pub(crate) enum Phase {
    /// TCP is connecting.
    Connecting,
    /// The request is sent; the answer's bytes so far.
    Handshake(Vec<u8>),
    /// The protocol inside the frames is being agreed on; whether the request to be let in is sent.
    Joining { asked: bool },
    /// In the room.
    Open,
    /// We have sent a close and wait for the server to end the connection.
    Leaving,
    /// The server has sent a close and we have answered it.
    Closed,
}

/// What a read gave.
#[derive(Debug)]
pub(crate) enum Input {
    /// So many bytes; `drained` when the socket held no more.
    Bytes { count: usize, drained: bool },
    /// Nothing for now.
    Nothing,
    /// The end, clean or not.
    End,
    /// It failed, in a way that should be told.
    Failed(String),
}

/// A connection of one member.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stream: Stream,
    pub(crate) phase: Phase,
    pub(crate) decoder: Decoder,
    /// What is spoken inside the frames, if a frame is not a message.
    pub(crate) speech: Option<Speech>,
    pub(crate) key: client::Key,
    /// When the connect was called, or the leave begun: nanoseconds of the run's clock.
    pub(crate) since_ns: u64,
    /// The handshake, while it is under way and if it is traced.
    pub(crate) span: OpenSpan,
    /// What the socket would not take. Empty, and without memory, nearly always.
    out: Vec<u8>,
}

impl Link {
    /// Begins to connect. The socket becomes writable when that is done, well or not.
    pub(crate) fn connect(
        address: SocketAddr,
        source: Option<SocketAddr>,
        secure: Option<&Secure>,
        key: client::Key,
        speech: Option<Speech>,
        now: u64,
    ) -> io::Result<Self> {
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM, Some(socket2::Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = source {
            socket.bind(&source.into())?;
        }
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        Ok(Self {
            stream: Stream::new(TcpStream::from_std(socket.into()), secure)?,
            phase: Phase::Connecting,
            decoder: Decoder::new(Role::Client),
            speech,
            key,
            since_ns: now,
            span: OpenSpan::none(),
            out: Vec::new(),
        })
    }

    /// Whether TCP is connected; the error if it failed.
    pub(crate) fn connected(&self) -> io::Result<bool> {
        if let Some(error) = self.stream.socket().take_error()? {
            return Err(error);
        }
        match self.stream.socket().peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Bytes that wait for the socket.
    pub(crate) fn backlog(&self) -> usize {
        self.out.len()
    }

    /// Sends a frame, masked, now or as soon as the socket takes it.
    pub(crate) fn send_frame(
        &mut self,
        opcode: Opcode,
        mask: [u8; 4],
        payload: &[u8],
        scratch: &mut Vec<u8>,
    ) -> io::Result<()> {
        scratch.clear();
        write_frame(scratch, true, opcode, Some(mask), payload);
        self.send(scratch)
    }

    /// Sends bytes, now or as soon as the socket takes them.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = if self.out.is_empty() { self.write(bytes)? } else { 0 };
        self.out.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    /// Sends what waits, as far as the socket takes it.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return match self.stream.flush() {
                Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
                _ => Ok(()),
            };
        }
        let out = std::mem::take(&mut self.out);
        let written = self.write(&out)?;
        if written < out.len() {
            self.out = out;
            self.out.drain(..written);
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < bytes.len() {
            match self.stream.write(&bytes[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    /// Reads once.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Input {
        loop {
            return match self.stream.read(buffer) {
                Ok((0, _)) => Input::End,
                Ok((count, drained)) => Input::Bytes { count, drained },
                Err(error) if error.kind() == ErrorKind::WouldBlock => Input::Nothing,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // The certificate is not trusted, or what came is no TLS.
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    Input::Failed(format!("TLS with the server failed: {error}"))
                }
                Err(_) => Input::End,
            };
        }
    }
}
