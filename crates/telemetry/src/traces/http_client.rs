//! HTTP for OTLP over it: with the libraries that serve and reach everything else already, and no client more.
//!
//! The exporter runs on a thread of its own, outside any runtime; requests are made in the program's.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_http::{HttpClient, HttpError};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::CertificateDer};
use tokio::{runtime::Handle, time::timeout};

use super::answers::Answers;

/// The most that a collector may answer.
const MAX_ANSWER: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct RuntimeClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
    limit: Duration,
    answers: Answers,
}

impl RuntimeClient {
    /// A client in this runtime that trusts these authorities, or those that the system trusts.
    pub(super) fn new(
        authorities: Option<Vec<CertificateDer<'static>>>,
        limit: Duration,
        answers: Answers,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let provider = std::sync::Arc::new(aws_lc_rs::default_provider());
        let tls =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let tls = match authorities {
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                for authority in authorities {
                    roots.add(authority)?;
                }
                tls.with_root_certificates(roots)
            }
            None => tls.with_native_roots()?,
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.with_no_client_auth())
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, runtime: Handle::current(), limit, answers })
    }
}

impl RuntimeClient {
    async fn ask(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let asked = self.client.request(request.map(Full::new));
        let exchange = async move {
            let (parts, body) = asked.await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(parts, body))
        };
        let limit = self.limit;
        match self.runtime.spawn(async move { timeout(limit, exchange).await }).await? {
            Ok(answered) => answered,
            Err(_) => Err(format!("no answer within {limit:?}").into()),
        }
    }
}

#[async_trait::async_trait]
impl HttpClient for RuntimeClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answered = self.ask(request).await;
        match &answered {
            Ok(answer) if answer.status().is_success() => self.answers.taken(answer.body()),
            Ok(_) => {} // the library tells the status
            Err(error) => self.answers.failed(error.as_ref()),
        }
        answered
    }
}
