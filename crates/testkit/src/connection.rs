//! What a client speaks over: a plain socket, or TLS; and whom it trusts.

use std::{io, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

/// A client's side of TLS: the authority that it trusts, and the versions that it speaks.
#[derive(Clone)]
pub struct Trust(TlsConnector);

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

impl Trust {
    /// Trusts this authority, a PEM file, and speaks any version. Every connection meets the server's certificate anew.
    ///
    /// # Panics
    ///
    /// When the file is none.
    #[must_use]
    pub fn in_authority(file: &Path) -> Self {
        Self::speaking(file, &[&TLS13, &TLS12], &[], Resumption::disabled())
    }

    /// The same, and goes on with the keys of before when it comes back, if the server lets it.
    ///
    /// # Panics
    ///
    /// As [`Trust::in_authority`].
    #[must_use]
    pub fn remembering(file: &Path) -> Self {
        Self::speaking(file, &[&TLS13, &TLS12], &[], Resumption::default())
    }

    /// The same, and speaks TLS 1.2 only.
    ///
    /// # Panics
    ///
    /// As [`Trust::in_authority`].
    #[must_use]
    pub fn by_tls12(file: &Path) -> Self {
        Self::speaking(file, &[&TLS12], &[], Resumption::disabled())
    }

    /// The same, with what it offers to speak over TLS (ALPN), such as `h2`.
    ///
    /// # Panics
    ///
    /// As [`Trust::in_authority`].
    #[must_use]
    pub fn offering(file: &Path, protocols: &[&str]) -> Self {
        Self::speaking(file, &[&TLS13, &TLS12], protocols, Resumption::disabled())
    }

    fn speaking(
        file: &Path,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&str],
        resumption: Resumption,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(file).expect("a file of certificates") {
            roots.add(certificate.expect("a certificate")).expect("an authority");
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("the provider knows these versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = resumption;
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self(TlsConnector::from(Arc::new(config)))
    }

    /// Does the handshake on a connected socket, with a server that is called `localhost`.
    ///
    /// # Errors
    ///
    /// Whatever keeps the two from coming together.
    ///
    /// # Panics
    ///
    /// Never: the name is good.
    pub async fn connect(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").expect("a good name");
        self.0.connect(name, socket).await
    }
}

/// A connection to a server: plain, or by TLS.
pub(crate) type Connection = Either<TcpStream, Box<TlsStream<TcpStream>>>;

pub(crate) fn tcp(connection: &mut Connection) -> &mut TcpStream {
    match connection {
        Either::Left(socket) => socket,
        Either::Right(stream) => stream.get_mut().0,
    }
}

/// The certificate that the server has shown, if there was one to be shown.
pub(crate) fn certificate(connection: &Connection) -> Option<Vec<u8>> {
    let Either::Right(stream) = connection else { return None };
    let shown = stream.get_ref().1.peer_certificates()?;
    shown.first().map(|certificate| certificate.to_vec())
}

/// Whether the server has said, in TLS, that nothing more comes.
pub(crate) fn was_told_the_end(connection: &Connection) -> bool {
    let Either::Right(stream) = connection else { return false };
    !stream.get_ref().1.wants_read()
}

/// Says the same to the server.
pub(crate) async fn end_tls(connection: &mut Connection) -> io::Result<()> {
    if let Either::Right(stream) = connection {
        stream.get_mut().1.send_close_notify();
        stream.flush().await?;
    }
    Ok(())
}

/// Waits for bytes and puts them behind those in `into`; 0 is the end. May be dropped and called again.
pub(crate) async fn receive(connection: &mut Connection, into: &mut Vec<u8>) -> io::Result<usize> {
    if let Either::Left(socket) = connection {
        socket.readable().await?;
    }
    // A buffer only when something is there, so that thousands of clients can wait; one that speaks TLS has its own anyway.
    into.reserve(64 * 1024);
    connection.read_buf(into).await
}
