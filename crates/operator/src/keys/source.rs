//! Where key sets stand, and how they are fetched.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hubbub_api::{ConfigMapKey, KeySource, MAX_JWKS_BYTES};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::time::timeout;

use super::hosts::{AllowedHosts, Refused, Resolver};
use crate::{context::Context, room::RoomKey};

/// How long a source may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// One place at which a key set stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Source {
    ConfigMap { namespace: String, set: ConfigMapKey },
    Url(String),
}

impl Source {
    /// The place that the room names, if the keys are not in the room itself.
    pub(super) fn of(room: &RoomKey, keys: &KeySource) -> Option<Self> {
        if let Some(url) = &keys.url {
            return Some(Self::Url(url.clone()));
        }
        let config_map = keys.config_map.as_ref()?;
        Some(Self::ConfigMap { namespace: room.namespace.clone(), set: config_map.clone() })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfigMap { namespace, set } => f.write_str(&set.place(namespace)),
            Self::Url(url) => f.write_str(url),
        }
    }
}

/// Why nothing can be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetcherError {
    /// The file of authorities cannot be read.
    #[error("--keys-ca: {path} cannot be read as certificates in PEM")]
    Authorities {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// An authority in it cannot be trusted, or there is none.
    #[error("--keys-ca: {path} has no certificate authority that can be trusted: {fault}")]
    Trust {
        /// The file.
        path: String,
        /// What is wrong with it.
        fault: String,
    },
}

/// Fetches key sets.
pub struct Fetcher {
    /// None where the system trusts nobody: ConfigMaps can be read all the same.
    client: Result<Client<HttpsConnector<HttpConnector<Resolver>>, Empty<Bytes>>, String>,
    allowed: AllowedHosts,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").finish_non_exhaustive()
    }
}

impl Fetcher {
    /// One that trusts the authorities in this file of PEM, or those that the system trusts, and asks these hosts alone.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or names nobody who can be trusted.
    pub fn new(authorities: Option<&Path>, allowed: AllowedHosts) -> Result<Self, FetcherError> {
        let roots = authorities.map(roots).transpose()?;
        let client = trusting(roots).map(|tls| {
            let mut tcp = HttpConnector::new_with_resolver(Resolver(allowed.clone()));
            // What is not https is refused by what is put around it.
            tcp.enforce_http(false);
            let connector = HttpsConnectorBuilder::new()
                .with_tls_config(tls)
                .https_only()
                .enable_http1()
                .wrap_connector(tcp);
            Client::builder(TokioExecutor::new()).build(connector)
        });
        Ok(Self { client, allowed })
    }

    /// The text of a key set.
    pub(super) async fn fetch(&self, context: &Context, source: &Source) -> Result<String, String> {
        match source {
            Source::ConfigMap { namespace, set } => {
                config_map(context, namespace, &set.name, &set.key).await
            }
            Source::Url(url) => match timeout(LIMIT, self.get(url)).await {
                Ok(answer) => answer.map_err(|fault| format!("{url} {fault}")),
                Err(_) => Err(format!("{url} did not answer within {} s", LIMIT.as_secs())),
            },
        }
    }

    async fn get(&self, url: &str) -> Result<String, String> {
        let uri: Uri = url.parse().map_err(|error| format!("is no address: {error}"))?;
        // A host that is an address is not resolved.
        self.allowed
            .check_name(uri.host().unwrap_or_default())
            .map_err(|refused| refused.to_string())?;
        let request = Request::get(uri)
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .header(header::USER_AGENT, concat!("hubbub-operator/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|error| format!("is no address: {error}"))?;
        let client = self.client.as_ref().map_err(|fault| {
            format!(
                "cannot be trusted: this system has no certificate authorities ({fault}); name a file of them by --keys-ca"
            )
        })?;
        let answer = client.request(request).await.map_err(|error| {
            // The library says no more than that it could not connect; why stands below.
            let causes = std::iter::successors(
                Some(&error as &(dyn std::error::Error + 'static)),
                |error| error.source(),
            );
            if let Some(refused) = causes.clone().find_map(|error| error.downcast_ref::<Refused>())
            {
                return refused.to_string();
            }
            let causes: Vec<String> = causes.map(ToString::to_string).collect();
            format!("cannot be reached: {}", causes.join(": "))
        })?;
        if answer.status() != StatusCode::OK {
            // A redirect is not followed: it could lead anywhere.
            return Err(format!("answered {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), MAX_JWKS_BYTES).collect().await;
        let body = body
            .map_err(|_| format!("answered with more than {MAX_JWKS_BYTES} bytes, or broke off"))?;
        String::from_utf8(body.to_bytes().to_vec()).map_err(|_| "answered with no text".to_owned())
    }
}

/// TLS that trusts these authorities, or those of the system.
fn trusting(roots: Option<RootCertStore>) -> Result<ClientConfig, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let tls = match roots {
        Some(roots) => tls.with_root_certificates(roots),
        None => tls.with_native_roots().map_err(|error| error.to_string())?,
    };
    Ok(tls.with_no_client_auth())
}

/// The authorities in a file.
fn roots(path: &Path) -> Result<RootCertStore, FetcherError> {
    let name = || path.display().to_string();
    let unreadable = |source| FetcherError::Authorities { path: name(), source };
    let trust = |fault: String| FetcherError::Trust { path: name(), fault };
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        roots.add(authority.map_err(unreadable)?).map_err(|error| trust(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(trust("it holds no certificate".to_owned()));
    }
    Ok(roots)
}

async fn config_map(
    context: &Context,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<String, String> {
    let maps: Api<ConfigMap> = Api::namespaced(context.client(), namespace);
    let map = match context.in_time(maps.get_opt(name)).await {
        Ok(Some(map)) => map,
        Ok(None) => {
            return Err(format!("there is no ConfigMap {name} in the namespace {namespace}"));
        }
        Err(error) => {
            return Err(format!("the ConfigMap {namespace}/{name} cannot be read: {error}"));
        }
    };
    let text = map.data.and_then(|mut data| data.remove(key));
    text.ok_or_else(|| format!("the ConfigMap {namespace}/{name} has no key {key}"))
}
