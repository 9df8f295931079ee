//! How a member's bytes go over its socket: as they are, or by TLS.
//!
//! An encrypted member has its session with it, because each byte for it is encrypted for it alone. What the session holds
//! is bounded: one record that the socket has not taken whole, and one that has come in part. As long as such a record waits
//! to go out, nothing further is taken, so that what waits for a slow member stays in its queue, where it is counted and
//! shared with all others.

use std::{
    io::{self, Read as _, Write},
    net::Shutdown,
};

use mio::net::TcpStream;
use rustls::ServerConnection;

/// Bytes that are encrypted at once, while nothing encrypted waits: a record holds so many (RFC 8446, 5.1).
const RECORD: usize = 16 * 1024;

/// A member's connection.
#[derive(Debug)]
pub enum Transport {
    /// Bytes go as they are.
    Plain(TcpStream),
    /// They are encrypted.
    Tls(Box<Encrypted>),
}

/// A socket with its TLS session, whose handshake is done.
#[derive(Debug)]
pub struct Encrypted {
    socket: TcpStream,
    session: ServerConnection,
    /// What was wrong behind bytes that were good.
    fault: Option<io::Error>,
}

/// What a read gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// Bytes; 0 is the end.
    pub(super) bytes: usize,
    /// Whether there was no more to be read, so that the next event tells of what comes.
    pub(super) drained: bool,
}

impl From<TcpStream> for Transport {
    fn from(socket: TcpStream) -> Self {
        Self::Plain(socket)
    }
}

/// Of a socket that does not block.
impl From<std::net::TcpStream> for Transport {
    fn from(socket: std::net::TcpStream) -> Self {
        Self::Plain(TcpStream::from_std(socket))
    }
}

impl Transport {
    /// A connection by TLS, on a socket that does not block.
    #[must_use]
    pub fn tls(socket: std::net::TcpStream, session: ServerConnection) -> Self {
        let socket = TcpStream::from_std(socket);
        Self::Tls(Box::new(Encrypted { socket, session, fault: None }))
    }

    /// The socket, to be watched.
    pub(super) fn socket(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(encrypted) => &mut encrypted.socket,
        }
    }

    /// Whether there may be bytes that were read from the socket already, of which no event tells.
    pub(super) fn reads_ahead(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Whether bytes that were taken are not on their way yet: [`Write::flush`] goes on with them.
    pub(super) fn holds_back(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(encrypted) => encrypted.session.wants_write(),
        }
    }

    /// Reads what there is, as far as the buffer has room.
    ///
    /// # Errors
    ///
    /// Those of the socket, `WouldBlock` if there is nothing; `InvalidData` when what came is no good TLS.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Taken> {
        match self {
            Self::Plain(socket) => {
                let bytes = socket.read(buffer)?;
                Ok(Taken { bytes, drained: bytes < buffer.len() })
            }
            Self::Tls(encrypted) => encrypted.read(buffer),
        }
    }

    /// Says to the peer that nothing more comes, if all that was taken is on its way: without that word it could not tell
    /// the end from somebody who cuts the connection.
    pub(super) fn say_farewell(&mut self) {
        if let Self::Tls(encrypted) = self
            && !encrypted.session.wants_write()
        {
            encrypted.session.send_close_notify();
            // A peer that is gone, or takes nothing, is not to be told.
            let _ = encrypted.flush();
        }
    }

    /// Shuts our side.
    pub(super) fn finish(&mut self) {
        self.say_farewell();
        // Fails only when the peer is gone, which the next read will tell.
        let _ = self.socket().shutdown(Shutdown::Write);
    }
}

impl Write for Transport {
    /// Takes bytes. By TLS they may wait to go out (`holds_back`): a record of them at most.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(encrypted) => encrypted.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()), // it holds nothing
            Self::Tls(encrypted) => encrypted.flush(),
        }
    }
}

impl Encrypted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Taken> {
        if let Some(error) = self.fault.take() {
            return Err(error);
        }
        let mut bytes = 0;
        loop {
            match self.session.reader().read(&mut buffer[bytes..]) {
                Ok(0) => return Ok(Taken { bytes, drained: false }),
                // Who ends without a word has ended too: that a room's member is done, its close frame says, so there is
                // nothing that somebody who cuts the connection could make of it.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(Taken { bytes, drained: false });
                }
                Ok(read) => {
                    bytes += read;
                    if bytes == buffer.len() {
                        return Ok(Taken { bytes, drained: false });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            match self.take_in() {
                Ok(()) => {}
                Err(error) if bytes > 0 => {
                    let drained = error.kind() == io::ErrorKind::WouldBlock;
                    self.fault = (!drained).then_some(error);
                    return Ok(Taken { bytes, drained });
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads from the socket once, and decrypts what is whole.
    fn take_in(&mut self) -> io::Result<()> {
        self.session.read_tls(&mut self.socket)?;
        if let Err(error) = self.session.process_new_packets() {
            // An alert that says why, if the socket takes it.
            let _ = self.flush();
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        let mut taken = 0;
        for record in bytes.chunks(RECORD) {
            taken += self.session.writer().write(record)?;
            match self.flush() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream as StdStream},
        sync::Arc,
        thread,
        time::{Duration, Instant},
    };

    use hubbub_testkit::Certificates;
    use prometheus_client::registry::Registry;
    use rustls::{
        ClientConfig, ClientConnection, RootCertStore, StreamOwned,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    };

    use super::*;
    use crate::{
        events::TlsEvents,
        tls::{self, TlsFiles},
    };

    type Client = StreamOwned<ClientConnection, StdStream>;

    fn client(authority: CertificateDer<'static>) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        roots.add(authority).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        ClientConnection::new(Arc::new(config), name).unwrap()
    }

    /// Both ends of a connection, its handshake done.
    fn connected() -> (Transport, Client) {
        let made = Certificates::make();
        let files = TlsFiles { certificate: made.server(), key: made.server_key() };
        let events = TlsEvents::register(&mut Registry::default());
        let (handshakes, _) = tls::load(files, Arc::new(events)).unwrap();
        let authority = CertificateDer::from_pem_file(made.authority()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = thread::spawn(move || {
            let mut stream = Client::new(client(authority), StdStream::connect(address).unwrap());
            stream.conn.complete_io(&mut stream.sock).unwrap();
            stream
        });
        let (mut socket, _) = listener.accept().unwrap();
        let config = Arc::clone(handshakes.acceptor.config());
        let mut session = ServerConnection::new(config).unwrap();
        while session.is_handshaking() || session.wants_write() {
            session.complete_io(&mut socket).unwrap();
        }
        socket.set_nonblocking(true).unwrap();
        (Transport::tls(socket, session), client.join().unwrap())
    }

    /// Tries until it does not block any more.
    fn awaited<T>(mut attempt: impl FnMut() -> io::Result<T>) -> T {
        let begun = Instant::now();
        loop {
            match attempt() {
                Ok(done) => return done,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(begun.elapsed() < Duration::from_secs(30), "it blocks for ever");
                    thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn pattern(from: usize, bytes: usize) -> Vec<u8> {
        (from..from + bytes).map(|n| (n % 251) as u8).collect()
    }

    #[test]
    fn no_more_is_taken_than_one_record_that_waits_and_all_that_was_taken_arrives() {
        let (mut transport, mut client) = connected();
        let mut taken = 0;
        // The client reads nothing.
        loop {
            let bytes = pattern(taken, 5 * RECORD);
            let now = transport.write(&bytes).unwrap();
            taken += now;
            if now < bytes.len() {
                assert_eq!(now % RECORD, 0, "whole records");
                break;
            }
            assert!(!transport.holds_back(), "else it had not taken all");
        }
        assert!(transport.holds_back());
        for _ in 0..3 {
            let error = transport.write(b"more").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
        let Transport::Tls(encrypted) = &mut transport else { panic!("it is encrypted") };
        let state = encrypted.session.process_new_packets().unwrap();
        assert!(state.tls_bytes_to_write() <= RECORD + 64, "{state:?}");
        let reader = thread::spawn(move || {
            let mut got = vec![0; taken];
            client.read_exact(&mut got).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0, "a good end");
            got
        });
        awaited(|| transport.flush());
        assert!(!transport.holds_back());
        transport.finish();
        assert!(reader.join().unwrap() == pattern(0, taken));
    }

    #[test]
    fn what_is_no_tls_is_told_behind_what_was_good() {
        let (mut transport, mut client) = connected();
        client.write_all(b"good").unwrap();
        client.flush().unwrap();
        client.sock.write_all(b"\x17\x03\x03\0\x20abcdefghijklmnopqrstuvwxyzabcdef").unwrap();
        let mut buffer = [0; 100];
        let first = awaited(|| transport.read(&mut buffer));
        assert_eq!(&buffer[..first.bytes], b"good");
        let error = awaited(|| match transport.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            other => Ok(other.unwrap_err()),
        });
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn what_has_come_is_read_in_as_many_pieces_as_the_buffer_asks_for() {
        let (mut transport, mut client) = connected();
        assert_eq!(transport.read(&mut [0; 10]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let (bytes, cut) = (100_000, 4_099);
        let writer = thread::spawn(move || {
            client.write_all(&pattern(0, bytes)).unwrap();
            client.flush().unwrap();
            client
        });
        let (mut got, mut buffer) = (Vec::new(), vec![0; cut]);
        while got.len() < bytes {
            let taken = awaited(|| transport.read(&mut buffer));
            assert!(taken.bytes == cut || taken.drained, "{taken:?}");
            got.extend_from_slice(&buffer[..taken.bytes]);
        }
        assert!(got == pattern(0, bytes));
        let mut client = writer.join().unwrap();
        client.conn.send_close_notify();
        client.flush().unwrap();
        let end = awaited(|| transport.read(&mut buffer));
        assert_eq!(end.bytes, 0, "the socket is open, and TLS is not any more");
    }
}
