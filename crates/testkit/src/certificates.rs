//! A certificate authority made for one test, with a certificate for a server on this machine and one for a client.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;

/// PEM files in a directory that goes with this value.
#[derive(Debug)]
pub struct Certificates {
    directory: TempDir,
}

impl Certificates {
    /// Makes an authority, a server certificate for `localhost` and `127.0.0.1`, and a client certificate.
    ///
    /// # Panics
    ///
    /// When the files cannot be written.
    #[must_use]
    pub fn make() -> Self {
        Self::for_server(&["localhost", "127.0.0.1"])
    }

    /// The same, with a server certificate for these names and addresses.
    ///
    /// # Panics
    ///
    /// When one is neither, or the files cannot be written.
    #[must_use]
    pub fn for_server(names: &[&str]) -> Self {
        Self::issued(names, None)
    }

    /// The same as [`make`](Self::make), with a server certificate that is valid from one time until another.
    ///
    /// # Panics
    ///
    /// When the files cannot be written.
    #[must_use]
    pub fn valid(from: SystemTime, until: SystemTime) -> Self {
        Self::issued(&["localhost", "127.0.0.1"], Some((from, until)))
    }

    fn issued(names: &[&str], valid: Option<(SystemTime, SystemTime)>) -> Self {
        let directory = tempfile::tempdir().expect("a directory for certificates");
        let authority = authority("hubbub test authority");
        let made = Self { directory };
        write(&made.authority(), &authority.pem());
        made.issue(&authority, "server", names, ExtendedKeyUsagePurpose::ServerAuth, valid);
        made.issue(&authority, "client", &["client"], ExtendedKeyUsagePurpose::ClientAuth, None);
        made
    }

    /// The authority's certificate.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.path("authority.pem")
    }

    /// The server's certificate.
    #[must_use]
    pub fn server(&self) -> PathBuf {
        self.path("server.pem")
    }

    /// The server's key.
    #[must_use]
    pub fn server_key(&self) -> PathBuf {
        self.path("server-key.pem")
    }

    /// The client's certificate.
    #[must_use]
    pub fn client(&self) -> PathBuf {
        self.path("client.pem")
    }

    /// The client's key.
    #[must_use]
    pub fn client_key(&self) -> PathBuf {
        self.path("client-key.pem")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn issue(
        &self,
        authority: &CertifiedIssuer<'_, KeyPair>,
        name: &str,
        names: &[&str],
        usage: ExtendedKeyUsagePurpose,
        valid: Option<(SystemTime, SystemTime)>,
    ) {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("valid names");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        if let Some((from, until)) = valid {
            (params.not_before, params.not_after) = (from.into(), until.into());
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, authority).expect("a signed certificate");
        write(&self.path(&format!("{name}.pem")), &certificate.pem());
        write(&self.path(&format!("{name}-key.pem")), &key.serialize_pem());
    }
}

/// A new authority that signs itself.
pub(crate) fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("an authority without names");
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("a signed authority")
}

pub(crate) fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a writable temporary directory");
}
