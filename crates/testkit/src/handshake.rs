//! The bytes of an opening handshake, well formed until the test changes them.

use std::net::SocketAddr;

use crate::http::{self, Answer};

/// A request under construction; header lines stand in the order given, and nothing is checked.
#[derive(Debug, Clone)]
pub struct Handshake {
    server: SocketAddr,
    method: String,
    target: Vec<u8>,
    version: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Handshake {
    /// What a good client sends to this server and path, without an origin.
    #[must_use]
    pub fn new(server: SocketAddr, target: impl AsRef<[u8]>) -> Self {
        let plain = Self {
            server,
            method: "GET".to_owned(),
            target: target.as_ref().to_vec(),
            version: "HTTP/1.1".to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        plain
            .with("Host", server.to_string())
            .with("Connection", "Upgrade")
            .with("Upgrade", "websocket")
            .with("Sec-WebSocket-Version", "13")
            .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    }

    /// Another method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    /// Another version of HTTP, such as `HTTP/1.0`.
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.version);
        self
    }

    /// One header line more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Without the header lines of this name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self
    }

    /// One line of this name in place of those that there are.
    #[must_use]
    pub fn set(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.without(name).with(name, value)
    }

    /// Bytes behind the head.
    #[must_use]
    pub fn body(mut self, body: &[u8]) -> Self {
        body.clone_into(&mut self.body);
        self
    }

    /// The request as it goes over the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} ", self.method).into_bytes();
        bytes.extend_from_slice(&self.target);
        bytes.extend_from_slice(format!(" {}\r\n", self.version).as_bytes());
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The server's answer to it.
    ///
    /// # Panics
    ///
    /// When the server cannot be reached or never answers.
    pub async fn answer(&self) -> Answer {
        http::request(self.server, &self.to_bytes()).await
    }
}
