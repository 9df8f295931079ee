//! Bytes to an HTTP server and its answer back, with nothing corrected on the way.

use std::{fmt::Write as _, net::SocketAddr};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{Trust, within};

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status, 0 when the server closed without an answer.
    pub status: u16,
    /// Names in lower case, values trimmed, in the order they came.
    pub headers: Vec<(String, String)>,
    /// The body, as text.
    pub body: String,
}

impl Answer {
    /// The first header of that (lower case) name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect();
        Self { status: status.unwrap_or(0), headers, body: body.to_owned() }
    }

    fn is_whole(bytes: &[u8]) -> bool {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return false;
        };
        let answer = Self::parse(bytes);
        let length = answer.header("content-length").and_then(|length| length.parse().ok());
        match length {
            Some(length) => bytes.len() - end - 4 >= length,
            None => answer.status == 101,
        }
    }
}

/// Sends these bytes and reads until the answer is whole or the server closes.
///
/// # Panics
///
/// When the server cannot be reached or never answers.
pub async fn request(server: SocketAddr, bytes: &[u8]) -> Answer {
    exchange(TcpStream::connect(server).await.expect("the server listens"), bytes).await
}

/// The same over a socket that is connected.
pub(crate) async fn exchange(
    mut socket: impl AsyncRead + AsyncWrite + Unpin,
    bytes: &[u8],
) -> Answer {
    // A server may refuse before it has read everything.
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    within("an HTTP answer", async {
        while !Answer::is_whole(&answer) {
            match socket.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(read) => answer.extend_from_slice(&buffer[..read]),
            }
        }
    })
    .await;
    Answer::parse(&answer)
}

/// A plain GET.
///
/// # Panics
///
/// As [`request`].
pub async fn get(server: SocketAddr, path: &str) -> Answer {
    request(server, format!("GET {path} HTTP/1.1\r\nHost: {server}\r\n\r\n").as_bytes()).await
}

/// A GET by TLS.
///
/// # Panics
///
/// As [`request`], and when the handshake of TLS fails.
pub async fn get_by_tls(server: SocketAddr, path: &str, trust: &Trust) -> Answer {
    let socket = TcpStream::connect(server).await.expect("the server listens");
    let stream = within("a handshake of TLS", trust.connect(socket)).await;
    let bytes = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\n\r\n");
    exchange(stream.expect("the certificate is trusted"), bytes.as_bytes()).await
}

/// A plain POST without a body.
///
/// # Panics
///
/// As [`request`].
pub async fn post(server: SocketAddr, path: &str) -> Answer {
    let request_bytes =
        format!("POST {path} HTTP/1.1\r\nHost: {server}\r\ncontent-length: 0\r\n\r\n");
    request(server, request_bytes.as_bytes()).await
}

/// A text as it may stand in a query string.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}
