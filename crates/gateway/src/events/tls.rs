//! What happens to the certificate, and to handshakes of TLS.

use std::{io, net::SocketAddr};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use tracing::{debug, error, info, warn};

use crate::tls::{Now, Validity};

/// What became of a handshake of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsOutcome {
    /// What follows is encrypted.
    Done,
    /// Client and gateway did not come together: it does not trust the certificate, it knows no version or cipher that
    /// the gateway does, or it went away.
    Failed,
    /// The client does not speak TLS.
    NotTls,
    /// It did not come to its end in time.
    Timeout,
}

impl TlsOutcome {
    const ALL: [Self; 4] = [Self::Done, Self::Failed, Self::NotTls, Self::Timeout];

    /// A stable name, for metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::NotTls => "not_tls",
            Self::Timeout => "timeout",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

const TAKEN: OutcomeLabel = OutcomeLabel { outcome: "taken" };
const REFUSED: OutcomeLabel = OutcomeLabel { outcome: "refused" };

/// One method a happening: its log line and its metrics.
#[derive(Debug)]
pub struct TlsEvents {
    handshakes: Family<OutcomeLabel, Counter>,
    reloads: Family<OutcomeLabel, Counter>,
    expiry: Gauge,
}

impl TlsEvents {
    /// Registers the metrics; `registry` gives them their prefix.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let new = Self {
            handshakes: Family::default(),
            reloads: Family::default(),
            expiry: Gauge::default(),
        };
        registry.register(
            "tls_handshakes",
            "Handshakes of TLS, before any of WebSocket, by outcome",
            new.handshakes.clone(),
        );
        registry.register(
            "tls_reloads",
            "Times that the files of certificate and key had changed, by whether they were taken",
            new.reloads.clone(),
        );
        registry.register_with_unit(
            "tls_certificate_expiry_timestamp",
            "When the certificate that is shown ends, in Unix time",
            Unit::Seconds,
            new.expiry.clone(),
        );
        // What has not happened yet reads 0, so that a rate over it works from the first time on.
        for outcome in TlsOutcome::ALL {
            drop(new.handshakes.get_or_create(&OutcomeLabel { outcome: outcome.label() }));
        }
        for label in [TAKEN, REFUSED] {
            drop(new.reloads.get_or_create(&label));
        }
        new
    }

    /// This certificate is shown from the start on.
    pub(crate) fn begun(&self, validity: &Validity) {
        self.shows(validity);
        info!(serial = validity.serial, ends = validity.ends, "members come in by TLS");
    }

    /// Other files are there, and in force for handshakes from now on.
    pub(crate) fn reloaded(&self, validity: &Validity) {
        self.reloads.get_or_create(&TAKEN).inc();
        self.shows(validity);
        info!(serial = validity.serial, ends = validity.ends, "the certificate was replaced");
    }

    /// Other files are there, and cannot be used; the certificate that was in force stays.
    pub(crate) fn reload_refused(&self, fault: &dyn std::error::Error) {
        self.reloads.get_or_create(&REFUSED).inc();
        error!(%fault, "the new certificate is refused; the old one stays");
    }

    fn shows(&self, validity: &Validity) {
        self.expiry.set(validity.not_after);
        match validity.now() {
            Now::Valid => {}
            Now::Ended => {
                warn!(
                    ends = validity.ends,
                    "the certificate has ended: clients refuse it; renew it"
                );
            }
            Now::Early => warn!(
                begins = validity.begins,
                "the certificate is not valid yet: clients refuse it until then; give one that is valid, or set this machine's clock"
            ),
        }
    }

    pub(crate) fn handshake_ended(
        &self,
        outcome: TlsOutcome,
        peer: SocketAddr,
        error: Option<&io::Error>,
    ) {
        self.handshakes.get_or_create(&OutcomeLabel { outcome: outcome.label() }).inc();
        if outcome != TlsOutcome::Done {
            let error = error.map(ToString::to_string);
            debug!(outcome = outcome.label(), error, %peer, "no TLS with a client");
        }
    }
}
