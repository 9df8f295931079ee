//! The bytes of a connection: as they are, or by TLS.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    sync::Arc,
};

use mio::net::TcpStream;
use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};

/// Bytes that are encrypted at once: a record holds so many.
const RECORD: usize = 16 * 1024;

/// How to reach a server by TLS.
#[derive(Clone, Debug)]
pub(crate) struct Secure {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

/// See the module.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<Encrypted>),
}

/// A socket and its TLS, whose handshake goes on with whatever is read and written.
#[derive(Debug)]
pub(crate) struct Encrypted {
    socket: TcpStream,
    session: ClientConnection,
}

impl Stream {
    pub(crate) fn new(socket: TcpStream, secure: Option<&Secure>) -> io::Result<Self> {
        let Some(Secure { config, name }) = secure else { return Ok(Self::Plain(socket)) };
        let session = ClientConnection::new(Arc::clone(config), name.clone());
        let session = session.map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new(Encrypted { socket, session })))
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(encrypted) => &encrypted.socket,
        }
    }

    /// The same, to be watched.
    pub(crate) fn source(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(encrypted) => &mut encrypted.socket,
        }
    }

    /// Takes bytes; by TLS the end of them may be out only after a [`Stream::flush`].
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(encrypted) => {
                encrypted.flush()?;
                let taken = encrypted.session.writer().write(&bytes[..bytes.len().min(RECORD)])?;
                match encrypted.flush() {
                    Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
                    _ => Ok(taken),
                }
            }
        }
    }

    /// Goes on with what was taken.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(encrypted) => encrypted.flush(),
        }
    }

    /// Reads once: bytes, 0 for the end, and whether the socket is empty. A read that does not fill the buffer has emptied a plain
    /// one (epoll(7)), which saves the second call that would only say so.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
        match self {
            Self::Plain(socket) => {
                let count = socket.read(buffer)?;
                Ok((count, count < buffer.len()))
            }
            Self::Tls(encrypted) => encrypted.read(buffer).map(|count| (count, false)),
        }
    }
}

impl Encrypted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            let read = self.session.read_tls(&mut self.socket)?;
            if let Err(error) = self.session.process_new_packets() {
                // An alert that says why, if the socket takes it.
                let _ = self.flush();
                return Err(io::Error::new(ErrorKind::InvalidData, error));
            }
            if read == 0 && self.session.is_handshaking() {
                return Ok(0);
            }
            match self.flush() {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
