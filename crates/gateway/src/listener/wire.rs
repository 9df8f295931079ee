//! The socket of a connection that speaks HTTP: plain, or by TLS.

use std::io;

use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::engine::Transport;

/// See the module: bytes go as they are, or encrypted.
pub(super) type Wire = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// What a shard takes over, once all that was written is out.
///
/// # Errors
///
/// Those of the socket, which is broken then.
pub(super) async fn into_transport(wire: Wire) -> io::Result<Transport> {
    match wire {
        Either::Left(socket) => Ok(socket.into_std()?.into()),
        Either::Right(mut stream) => {
            stream.flush().await?;
            let (socket, session) = stream.into_inner();
            Ok(Transport::tls(socket.into_std()?, session))
        }
    }
}
