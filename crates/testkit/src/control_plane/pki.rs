//! The certificates and keys of one control plane, and the kubeconfigs that hold them.

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
};

use crate::certificates::{authority, write};

/// What the API server's certificate is good for. 10.0.0.1 is the first address of its default range for Services.
const SERVER_NAMES: [&str; 4] = ["127.0.0.1", "localhost", "kubernetes.default.svc", "10.0.0.1"];

/// See the module. The files lie in one folder.
#[derive(Debug)]
pub(super) struct Pki {
    authority: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    server: String,
}

impl Pki {
    /// Makes an authority, a certificate for the API server at that URL, and a key that signs the tokens of service
    /// accounts.
    pub(super) fn make(folder: &Path, server: &str) -> Self {
        std::fs::create_dir_all(folder).expect("a writable directory");
        let pki = Self {
            authority: authority("hubbub test control plane"),
            folder: folder.to_owned(),
            server: server.to_owned(),
        };
        write(&pki.authority(), &pki.authority.pem());
        let names = SERVER_NAMES.map(str::to_owned).to_vec();
        let names = CertificateParams::new(names).expect("valid names");
        let (certificate, key) =
            pki.sign(names, "kube-apiserver", None, ExtendedKeyUsagePurpose::ServerAuth);
        write(&pki.server(), &certificate);
        write(&pki.server_key(), &key);
        let tokens = KeyPair::generate().expect("a key");
        write(&pki.token_key(), &tokens.serialize_pem());
        write(&pki.token_public_key(), &tokens.public_key_pem());
        pki
    }

    pub(super) fn authority(&self) -> PathBuf {
        self.folder.join("authority.pem")
    }

    pub(super) fn server(&self) -> PathBuf {
        self.folder.join("server.pem")
    }

    pub(super) fn server_key(&self) -> PathBuf {
        self.folder.join("server-key.pem")
    }

    pub(super) fn token_key(&self) -> PathBuf {
        self.folder.join("tokens-key.pem")
    }

    pub(super) fn token_public_key(&self) -> PathBuf {
        self.folder.join("tokens-public.pem")
    }

    /// Writes a kubeconfig with a client certificate for that user, in that group if there is one.
    pub(super) fn write_kubeconfig(&self, path: &Path, user: &str, group: Option<&str>) {
        let unnamed = CertificateParams::new(Vec::new()).expect("no names are valid");
        let (certificate, key) =
            self.sign(unnamed, user, group, ExtendedKeyUsagePurpose::ClientAuth);
        let text = format!(
            "apiVersion: v1\n\
             kind: Config\n\
             current-context: hubbub\n\
             contexts: [{{name: hubbub, context: {{cluster: hubbub, user: hubbub}}}}]\n\
             clusters:\n\
             - name: hubbub\n\
             \x20 cluster: {{server: \"{server}\", certificate-authority-data: {authority}}}\n\
             users:\n\
             - name: hubbub\n\
             \x20 user: {{client-certificate-data: {certificate}, client-key-data: {key}}}\n",
            server = self.server,
            authority = STANDARD.encode(self.authority.pem()),
            certificate = STANDARD.encode(certificate),
            key = STANDARD.encode(key),
        );
        write(path, &text);
    }

    /// A certificate and its key, in PEM.
    fn sign(
        &self,
        mut params: CertificateParams,
        name: &str,
        group: Option<&str>,
        usage: ExtendedKeyUsagePurpose,
    ) -> (String, String) {
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.authority).expect("a signed certificate");
        (certificate.pem(), key.serialize_pem())
    }
}
