//! TLS for members: the certificate and its key, from files that are read again and again.
//!
//! Only new handshakes see a new certificate; who is in stays. Files are compared by content, as those of rooms are, so a
//! Kubernetes secret's swapped symlink and a copy in place look the same. A pair that cannot be used changes nothing; nor does one
//! that is not valid now, while the one in use is: one whose time comes later waits for that.

mod pair;
mod validity;

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use pair::{Contents, Pair};
pub use pair::{TlsError, TlsFiles};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
pub(crate) use validity::{Now, Validity};

use crate::{
    events::TlsEvents,
    settled::{Contents as _, settled},
};

/// How often the files are looked at. Who renews a certificate does so days before it ends.
const PERIOD: Duration = Duration::from_secs(1);

/// How long new files must stand still before they are believed: a key may come a moment after its certificate.
const SETTLE: Duration = Duration::from_millis(200);

/// What is spoken over TLS. HTTP/2 has WebSockets too (RFC 8441), and this gateway does not speak it.
const ALPN: &[u8] = b"http/1.1";

/// The certificate that is shown now.
#[derive(Debug)]
struct Shown(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// What handshakes are made with. A clone is the same.
#[derive(Clone)]
pub(crate) struct Handshakes {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) events: Arc<TlsEvents>,
}

impl fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshakes").finish_non_exhaustive()
    }
}

/// Sees to it that handshakes show what the files hold.
#[derive(Debug)]
pub(crate) struct Follower {
    files: TlsFiles,
    shown: Arc<Shown>,
    events: Arc<TlsEvents>,
    /// The content that was judged last, good or bad.
    judged: u64,
    /// Of what is shown.
    validity: Validity,
    /// What the files hold, if its time has not come.
    early: Option<Pair>,
}

/// Reads the files for the start of a gateway, where a bad one is an error and not something to wait out.
///
/// # Errors
///
/// [`TlsError`], each with its remedy.
pub(crate) fn load(
    files: TlsFiles,
    events: Arc<TlsEvents>,
) -> Result<(Handshakes, Follower), TlsError> {
    let contents = Contents::read(&files);
    let Pair { key, validity } = contents.pair(&files)?;
    let shown = Arc::new(Shown(ArcSwap::new(key)));
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&shown) as _);
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Who comes back brings what is needed to go on with the keys of before: nothing is kept here for anybody.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    events.begun(&validity);
    let handshakes =
        Handshakes { acceptor: TlsAcceptor::from(Arc::new(config)), events: Arc::clone(&events) };
    let judged = contents.digest();
    Ok((handshakes, Follower { files, shown, events, judged, validity, early: None }))
}

impl Follower {
    /// Looks at the files again and again.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut period = interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let following = async {
            loop {
                period.tick().await;
                self.look().await;
            }
        };
        stop.run_until_cancelled(following).await;
    }

    /// Looks once, and takes what has changed and stands still.
    async fn look(&mut self) {
        let files = self.files.clone();
        let read = move || Contents::read(&files);
        let Some(contents) = settled(Some(self.judged), SETTLE, read).await else {
            let time_has_come = |pair: &mut Pair| pair.validity.now() != Now::Early;
            if let Some(pair) = self.early.take_if(time_has_come) {
                self.judge(pair);
            }
            return;
        };
        self.judged = contents.digest();
        self.early = None;
        match contents.pair(&self.files) {
            Ok(pair) => self.judge(pair),
            Err(error) => self.events.reload_refused(&error),
        }
    }

    /// Shows the pair, unless it is not valid now and what is shown is.
    fn judge(&mut self, pair: Pair) {
        let path = self.files.certificate.clone();
        match (self.validity.now(), pair.validity.now()) {
            (Now::Valid, Now::Early) => {
                let begins = pair.validity.begins.clone();
                self.early = Some(pair);
                self.events.reload_refused(&TlsError::Early { path, begins });
            }
            (Now::Valid, Now::Ended) => {
                let ends = pair.validity.ends;
                self.events.reload_refused(&TlsError::Ended { path, ends });
            }
            _ => {
                let Pair { key, validity } = pair;
                self.shown.0.store(key);
                self.events.reloaded(&validity);
                self.validity = validity;
            }
        }
    }
}
