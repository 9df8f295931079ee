//! A WebSocket client that does as the test says, also what no client should: it answers nothing by itself.

use std::{collections::VecDeque, io, net::SocketAddr};

use hubbub_websocket::{
    Decoder, Event, Kind, Limits, Opcode, Role,
    handshake::client::{Key, Request},
    write_close, write_frame,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    Trust,
    connection::{self, Connection},
    http::Answer,
    within,
};

/// The mask of every frame; any will do.
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// What the server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>),
    /// A close frame: code and reason, if it has any.
    Close(Option<(u16, String)>),
    /// The connection ended.
    End,
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    socket: Connection,
    decoder: Decoder,
    received: VecDeque<Received>,
}

impl Client {
    /// Joins the room at `path` of the gateway at `server`.
    ///
    /// # Errors
    ///
    /// The answer, when it refuses.
    ///
    /// # Panics
    ///
    /// When the server cannot be reached or never answers.
    pub async fn join(
        server: SocketAddr,
        path: &str,
        origin: Option<&str>,
    ) -> Result<Self, Answer> {
        let socket = TcpStream::connect(server).await.expect("the server listens");
        Self::join_on(socket, path, origin).await
    }

    /// The same with further header lines, such as `Authorization`.
    ///
    /// # Errors
    ///
    /// As [`Client::join`].
    ///
    /// # Panics
    ///
    /// As [`Client::join`].
    pub async fn join_with(
        server: SocketAddr,
        path: &str,
        origin: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Result<Self, Answer> {
        let socket = TcpStream::connect(server).await.expect("the server listens");
        Self::join_on_with(socket, path, origin, headers).await
    }

    /// The same by TLS, for a server whose certificate the test trusts.
    ///
    /// # Errors
    ///
    /// As [`Client::join`].
    ///
    /// # Panics
    ///
    /// As [`Client::join`], and when the handshake of TLS fails.
    pub async fn join_by_tls(
        server: SocketAddr,
        path: &str,
        origin: Option<&str>,
        trust: &Trust,
    ) -> Result<Self, Answer> {
        let socket = TcpStream::connect(server).await.expect("the server listens");
        Self::join_by_tls_on(socket, path, origin, trust).await
    }

    /// The same by TLS, on a socket that the test has made.
    ///
    /// # Errors
    ///
    /// As [`Client::join`].
    ///
    /// # Panics
    ///
    /// As [`Client::join_by_tls`].
    pub async fn join_by_tls_on(
        socket: TcpStream,
        path: &str,
        origin: Option<&str>,
        trust: &Trust,
    ) -> Result<Self, Answer> {
        let stream = within("a handshake of TLS", trust.connect(socket)).await;
        let stream = Box::new(stream.expect("the certificate is trusted"));
        Self::enter(Connection::Right(stream), path, origin, &[]).await
    }

    /// The same on a socket that the test has made, bound to an address of its choice, say.
    ///
    /// # Errors
    ///
    /// As [`Client::join`].
    ///
    /// # Panics
    ///
    /// As [`Client::join`].
    pub async fn join_on(
        socket: TcpStream,
        path: &str,
        origin: Option<&str>,
    ) -> Result<Self, Answer> {
        Self::join_on_with(socket, path, origin, &[]).await
    }

    /// Both: on such a socket, with further header lines.
    ///
    /// # Errors
    ///
    /// As [`Client::join`].
    ///
    /// # Panics
    ///
    /// As [`Client::join`].
    pub async fn join_on_with(
        socket: TcpStream,
        path: &str,
        origin: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Result<Self, Answer> {
        Self::enter(Connection::Left(socket), path, origin, headers).await
    }

    async fn enter(
        mut socket: Connection,
        path: &str,
        origin: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Result<Self, Answer> {
        connection::tcp(&mut socket).set_nodelay(true).expect("an open socket");
        let host =
            connection::tcp(&mut socket).peer_addr().expect("a connected socket").to_string();
        let request = Request { origin, headers, ..Request::new(&host, path) };
        let key = Key::from_nonce([9; 16]);
        let bytes = request.to_bytes(&key).expect("a well-formed request");
        let _ = socket.write_all(&bytes).await;
        let _ = socket.flush().await;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        let head = within("an answer to the handshake", async {
            loop {
                match request.check_response(&key, &answer) {
                    Ok(Some(head)) => return Some(head),
                    Err(_) if answer.is_empty() => {}
                    Err(_) => return None,
                    Ok(None) => {}
                }
                match socket.read(&mut buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(read) => answer.extend_from_slice(&buffer[..read]),
                }
            }
        })
        .await;
        let Some(head) = head else { return Err(Answer::parse(&answer)) };
        let mut client =
            Self { socket, decoder: Decoder::new(Role::Client), received: VecDeque::new() };
        client.take_in(&mut answer[head..]);
        Ok(client)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await?;
        self.socket.flush().await
    }

    /// Sends one frame.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    pub async fn send_frame(
        &mut self,
        fin: bool,
        opcode: Opcode,
        payload: &[u8],
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, fin, opcode, Some(MASK), payload);
        self.send_bytes(&bytes).await
    }

    /// Sends a text message.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    pub async fn send(&mut self, text: &str) -> io::Result<()> {
        self.send_frame(true, Opcode::Text, text.as_bytes()).await
    }

    /// Sends a close frame.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    pub async fn send_close(&mut self, code: u16) -> io::Result<()> {
        let mut bytes = Vec::new();
        write_close(&mut bytes, Some(MASK), code, "");
        self.send_bytes(&bytes).await
    }

    /// The next thing that the server sends.
    ///
    /// # Panics
    ///
    /// When nothing comes, or something that breaks the protocol.
    pub async fn next(&mut self) -> Received {
        within("something from the server", self.receive()).await
    }

    /// The same, waiting as long as it takes; may be dropped and called again.
    ///
    /// # Panics
    ///
    /// When something breaks the protocol.
    pub async fn receive(&mut self) -> Received {
        loop {
            if let Some(received) = self.received.pop_front() {
                return received;
            }
            let mut read = Vec::new();
            match connection::receive(&mut self.socket, &mut read).await {
                Ok(0) | Err(_) => return Received::End,
                Ok(_) => self.take_in(&mut read),
            }
        }
    }

    /// The next message or the end, answering pings on the way.
    ///
    /// # Panics
    ///
    /// As [`Client::next`].
    pub async fn next_message(&mut self) -> Received {
        loop {
            match self.next().await {
                Received::Ping(payload) => {
                    // A server that is gone shows as the end.
                    let _ = self.send_frame(true, Opcode::Pong, &payload).await;
                }
                Received::Pong(_) => {}
                other => return other,
            }
        }
    }

    /// Reads on until the server closes; the code of its close frame, if there was one before the end.
    ///
    /// # Panics
    ///
    /// As [`Client::next`].
    pub async fn close_code(&mut self) -> Option<u16> {
        loop {
            match self.next_message().await {
                Received::Close(close) => return close.map(|(code, _)| code),
                Received::End => return None,
                _ => {}
            }
        }
    }

    /// The socket, for what else a test wants to do to it; below TLS, if that is spoken.
    pub fn socket(&mut self) -> &mut TcpStream {
        connection::tcp(&mut self.socket)
    }

    /// Ends TLS as it is ended in good order, and leaves the socket open.
    ///
    /// # Panics
    ///
    /// When the server is gone already.
    pub async fn end_tls(&mut self) {
        connection::end_tls(&mut self.socket).await.expect("the server is there");
    }

    /// The certificate that the server has shown, if it speaks TLS: its DER.
    #[must_use]
    pub fn certificate(&self) -> Option<Vec<u8>> {
        connection::certificate(&self.socket)
    }

    /// Whether TLS was ended by the server in good order, once [`Received::End`] came.
    #[must_use]
    pub fn was_told_the_end(&self) -> bool {
        connection::was_told_the_end(&self.socket)
    }

    fn take_in(&mut self, mut bytes: &mut [u8]) {
        let limits = Limits::for_message_bytes(64 * 1024 * 1024);
        loop {
            let (used, event) = self.decoder.decode(bytes, limits);
            let event = event.expect("the server keeps to the protocol");
            let Some(event) = event else { return };
            self.received.push_back(match event {
                Event::Message { kind: Kind::Text, payload } => {
                    Received::Text(String::from_utf8(payload.to_vec()).expect("checked text"))
                }
                Event::Message { kind: Kind::Binary, payload } => {
                    Received::Binary(payload.to_vec())
                }
                Event::Ping(payload) => Received::Ping(payload.to_vec()),
                Event::Pong(payload) => Received::Pong(payload.to_vec()),
                Event::Close(close) => {
                    Received::Close(close.map(|close| (close.code, close.reason.to_owned())))
                }
            });
            bytes = &mut bytes[used..];
        }
    }
}
