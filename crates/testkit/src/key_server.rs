//! An identity provider's address of keys: a real HTTPS server whose answer the test changes.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::Certificates;

/// See the module. Dropped, it ends.
#[derive(Debug)]
pub struct KeyServer {
    address: SocketAddr,
    answer: Arc<Mutex<Told>>,
    asked: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

/// What is answered.
#[derive(Debug, Clone)]
struct Told {
    status: u16,
    text: String,
    /// The field `Location`.
    location: Option<String>,
}

impl KeyServer {
    /// Serves this text on a free port of `localhost`, with the server's certificate.
    ///
    /// # Panics
    ///
    /// When the certificate or the port cannot be used.
    pub async fn start(certificates: &Certificates, text: &str) -> Self {
        let chain: Vec<_> = CertificateDer::pem_file_iter(certificates.server())
            .expect("a certificate in PEM")
            .map(|certificate| certificate.expect("a certificate in PEM"))
            .collect();
        let key = PrivateKeyDer::from_pem_file(certificates.server_key()).expect("a key in PEM");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("certificate and key belong together");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let answer =
            Arc::new(Mutex::new(Told { status: 200, text: text.to_owned(), location: None }));
        let asked = Arc::<AtomicUsize>::default();
        let (told, counted) = (Arc::clone(&answer), Arc::clone(&asked));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut answering = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, told, counted) =
                    (acceptor.clone(), Arc::clone(&told), Arc::clone(&counted));
                answering.spawn(async move {
                    // Who does not trust the certificate goes away, which is the test's affair.
                    let Ok(mut socket) = acceptor.accept(socket).await else { return };
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match socket.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    let Told { status, text, location } =
                        told.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let location = location.map(|to| format!("location: {to}\r\n"));
                    let location = location.unwrap_or_default();
                    let answer = format!(
                        "HTTP/1.1 {status} Told\r\n{location}content-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}",
                        text.len()
                    );
                    counted.fetch_add(1, Ordering::AcqRel);
                    let _ = socket.write_all(answer.as_bytes()).await;
                    let _ = socket.shutdown().await;
                });
            }
        });
        Self { address, answer, asked, _serving: serving }
    }

    /// Its address as the certificate names it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://localhost:{}/jwks.json", self.port())
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Answers so from now on.
    pub fn answer(&self, status: u16, text: &str) {
        self.tell(Told { status, text: text.to_owned(), location: None });
    }

    /// Sends whoever asks to that address, from now on.
    pub fn redirect(&self, to: &str) {
        self.tell(Told { status: 302, text: String::new(), location: Some(to.to_owned()) });
    }

    fn tell(&self, told: Told) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = told;
    }

    /// How often it was asked.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Acquire)
    }
}
