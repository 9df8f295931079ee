//! A certificate and its key: read, checked, and what is wrong with them told so that it can be mended.

use std::{
    fs::File,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    Error, InconsistentKeys,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error as PemError, PemObject as _},
    },
    sign::CertifiedKey,
};

use super::Validity;
use crate::settled;

/// Bytes of a file that are read at most: chains have some ten thousand.
const MAX_BYTES: u64 = 1024 * 1024;

const CERTIFICATE: &str = "--tls-certificate";
const KEY: &str = "--tls-key";

/// Where the certificate and its key are, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and behind it those that lead to its authority.
    pub certificate: PathBuf,
    /// The key of the first.
    pub key: PathBuf,
}

/// Why certificate and key cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{flag}: {} cannot be read: {fault}; name a file that is there and that the gateway may read", path.display())]
    Read {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        fault: String,
    },
    /// There is no certificate in the file.
    #[error(
        "{CERTIFICATE}: {} holds no certificate: it must hold the server's in PEM, and behind it those that lead to its authority", .0.display()
    )]
    NoCertificate(PathBuf),
    /// There is no key in the file.
    #[error(
        "{KEY}: {} holds no key: it must hold the certificate's private key in PEM, without a passphrase", .0.display()
    )]
    NoKey(PathBuf),
    /// What is in the file is not what it should be.
    #[error("{flag}: {} cannot be used: {fault}; write it anew from where it was issued", path.display())]
    Unusable {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// The library does not take the key.
    #[error(
        "{KEY}: {} cannot be used: {fault}; it must be a whole key: RSA of 2,048 to 8,192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519", path.display()
    )]
    UnusableKey {
        /// The key's file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// Certificate and key do not belong together.
    #[error(
        "the key {} is not that of the certificate {}: give the two that were issued together, with the server's own certificate as the first of its file", key.display(), certificate.display()
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate is over, and the one in use is not.
    #[error("the certificate {} was valid until {ends}, and the one in use still is; give one that is valid", path.display())]
    Ended {
        /// The certificate's file.
        path: PathBuf,
        /// When it ended.
        ends: String,
    },
    /// The certificate's time has not come, and the one in use is valid.
    #[error(
        "the certificate {} is valid from {begins} on, and the one in use is valid now; it is taken when its time has come, if it is still there", path.display()
    )]
    Early {
        /// The certificate's file.
        path: PathBuf,
        /// When it begins to hold.
        begins: String,
    },
    /// The library cannot be set up, which has nothing to do with the files.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] Error),
}

/// What is shown to clients.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) validity: Validity,
}

/// What both files held at one moment, or why they could not be read.
#[derive(Debug, Default)]
pub(super) struct Contents {
    certificate: Option<Result<Vec<u8>, String>>,
    key: Option<Result<Vec<u8>, String>>,
}

impl settled::Contents for Contents {
    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.certificate, &self.key).hash(&mut hasher);
        hasher.finish()
    }
}

impl Contents {
    pub(super) fn read(files: &TlsFiles) -> Self {
        Self { certificate: Some(read(&files.certificate)), key: Some(read(&files.key)) }
    }

    /// The pair, if both files are good and belong together.
    pub(super) fn pair(&self, files: &TlsFiles) -> Result<Pair, TlsError> {
        let chain = bytes(CERTIFICATE, &files.certificate, self.certificate.as_ref())?;
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| unusable(CERTIFICATE, &files.certificate, &error))?;
        let Some(own) = chain.first() else {
            return Err(TlsError::NoCertificate(files.certificate.clone()));
        };
        let Some(validity) = Validity::of(own) else {
            return Err(unusable(CERTIFICATE, &files.certificate, &"it is no X.509 certificate"));
        };
        let key = bytes(KEY, &files.key, self.key.as_ref())?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            PemError::NoItemsFound => TlsError::NoKey(files.key.clone()),
            error => unusable(KEY, &files.key, &error),
        })?;
        let key =
            aws_lc_rs::default_provider().key_provider.load_private_key(key).map_err(|error| {
                TlsError::UnusableKey { path: files.key.clone(), fault: error.to_string() }
            })?;
        let pair = CertifiedKey::new(chain, key);
        match pair.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => {
                let TlsFiles { certificate, key } = files.clone();
                return Err(TlsError::Mismatch { certificate, key });
            }
            Err(error) => return Err(unusable(CERTIFICATE, &files.certificate, &error)),
        }
        Ok(Pair { key: Arc::new(pair), validity })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn bytes<'a>(
    flag: &'static str,
    path: &Path,
    content: Option<&'a Result<Vec<u8>, String>>,
) -> Result<&'a [u8], TlsError> {
    match content {
        Some(Ok(bytes)) => Ok(bytes),
        other => {
            let fault = match other {
                Some(Err(fault)) => fault.clone(),
                _ => "the reading was given up".to_owned(),
            };
            Err(TlsError::Read { flag, path: path.to_owned(), fault })
        }
    }
}

fn unusable(flag: &'static str, path: &Path, fault: &dyn ToString) -> TlsError {
    TlsError::Unusable { flag, path: path.to_owned(), fault: fault.to_string() }
}
