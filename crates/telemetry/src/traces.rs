//! Traces by OTLP, if the environment names a collector.
//!
//! Handshakes, ends of connections, drains and reconciles are rare and all kept. Messages are many: which of them is
//! kept is decided once, when it is published, before anything is made for it; all that follows from it is kept then.

use std::{
    fs, io,
    sync::Arc,
    time::{Duration, Instant},
};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{
    ExporterBuildError, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
    WithTonicConfig as _,
    tonic_types::transport::{Certificate, ClientTlsConfig},
};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider},
};
use prometheus_client::registry::Registry;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

use crate::names;

mod answers;
mod export;
mod http_client;
mod per_second;
mod settings;

use answers::Answers;
use export::{Counted, Counts, Load, Queue};
use http_client::RuntimeClient;
use per_second::PerSecond;
pub use settings::{Protocol, SettingError, Settings};

/// How long the last spans may take at the end of the program.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Refused handshakes that are traced in a second: whoever knows the address can make as many as they like, and nobody
/// needs more of them to see what is wrong.
const REFUSALS_PER_SECOND: u32 = 10;

/// Who sends the spans.
#[derive(Debug, Clone)]
pub struct Program {
    /// The service, as a collector shows it.
    pub service: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Which of its instances this is: the gateway's id, or the replica's name.
    pub instance: String,
}

/// Variables that the chart and the operator set by the downward API, and the attributes that they become.
const DOWNWARD: [(&str, &str); 3] = [
    ("HUBBUB_POD_NAME", names::resource::POD),
    ("HUBBUB_POD_NAMESPACE", names::resource::NAMESPACE),
    ("HUBBUB_NODE_NAME", names::resource::NODE),
];

/// Why traces cannot be sent as asked for.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// A variable makes no sense.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The collector's certificate authority cannot be read.
    #[error(
        "OTEL_EXPORTER_OTLP_CERTIFICATE is {path:?}: give a file of certificates in PEM that this program may read ({source})"
    )]
    Certificate {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The way to the collector cannot be prepared.
    #[error(
        "traces cannot be sent to {endpoint}: {source}; OTEL_EXPORTER_OTLP_CERTIFICATE names the authority of its certificate where the system knows none"
    )]
    Exporter {
        /// Where to.
        endpoint: String,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

#[derive(Debug)]
struct On {
    settings: Settings,
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    counts: Counts,
    load: Arc<Load>,
    refusals: PerSecond,
    /// A message is kept if a random number is at most this; none is if there is none.
    threshold: Option<u64>,
}

/// Whether spans are collected, and which. A clone is the same.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<Arc<On>>);

impl Traces {
    /// Nothing is traced.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// What the environment asks for; see [`Settings`].
    pub(crate) fn from_environment(program: &Program) -> Result<Self, TracesError> {
        Settings::refuse_what_is_no_text(std::env::vars_os())?;
        Self::start(program, &|name| std::env::var(name).ok())
    }

    /// What these variables ask for. To be called in the tokio runtime that is to carry the spans.
    ///
    /// # Errors
    ///
    /// [`TracesError`], for a variable that makes no sense, or a way to the collector that cannot be prepared.
    pub fn start(
        program: &Program,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, TracesError> {
        let Some(settings) = Settings::read(variable)? else { return Ok(Self::off()) };
        let resource = resource(program, &settings, variable);
        let (load, counts, answers) =
            (Arc::<Load>::default(), Counts::default(), Answers::default());
        let exporter = Counted::new(
            exporter(&settings, &answers)?,
            (settings.endpoint.clone(), settings.protocol),
            answers,
            Arc::clone(&load),
            counts.clone(),
        );
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(settings.queue)
            .with_max_export_batch_size(settings.batch)
            .with_scheduled_delay(settings.delay)
            .build();
        let batches = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
        let roots = if settings.roots { Sampler::AlwaysOn } else { Sampler::AlwaysOff };
        let sampler = match settings.parent_based {
            true => Sampler::ParentBased(Box::new(roots)),
            false => roots,
        };
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Queue::new(
                batches,
                Arc::clone(&load),
                settings.queue,
                counts.clone(),
            ))
            .with_sampler(sampler)
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("hubbub");
        let threshold = threshold(settings.ratio);
        let refusals = PerSecond::new(REFUSALS_PER_SECOND);
        Ok(Self(Some(Arc::new(On {
            settings,
            provider,
            tracer,
            counts,
            load,
            refusals,
            threshold,
        }))))
    }

    /// Whether spans are collected at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Decides whether the next message is traced: at random, by the ratio that was asked for. To be asked once for each
    /// message; it costs a random number of the thread's own generator, and nothing where nothing is traced.
    #[must_use]
    pub fn samples_message(&self) -> bool {
        let threshold = self.0.as_ref().and_then(|on| on.threshold);
        threshold.is_some_and(|threshold| fastrand::u64(..) <= threshold)
    }

    /// Whether the span of a refused handshake is kept: ten in a second are. One that is not is to be told so, by
    /// [`OpenSpan::limit`](crate::OpenSpan::limit).
    #[must_use]
    pub fn keeps_refusal(&self) -> bool {
        self.0.as_ref().is_some_and(|on| on.refusals.allows(Instant::now()))
    }

    /// Registers the metrics of the exporter; there are none where nothing is traced.
    pub fn register(&self, registry: &mut Registry) {
        if let Some(on) = &self.0 {
            on.counts.register(registry);
        }
    }

    /// Sends what still waits, for at most two seconds, and collects no more.
    pub async fn shutdown(&self) {
        let Some(on) = self.0.clone() else { return };
        let failed_before = on.load.failed();
        let provider = on.provider.clone();
        // It blocks, and the exporter needs the runtime meanwhile.
        let ended =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_LIMIT));
        let error = match ended.await {
            Ok(Err(error)) => Some(error.to_string()),
            // A batch that fails in time is no error to the library.
            _ => on.load.why(),
        };
        let spans = on.load.not_arrived() - failed_before;
        if spans > 0 {
            let (endpoint, error) = (&on.settings.endpoint, error.unwrap_or_default());
            tracing::warn!(spans, endpoint, error, "the last spans did not reach the collector");
        }
    }

    pub(crate) fn layer<S>(&self) -> Option<OpenTelemetryLayer<S, SdkTracer>>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let on = self.0.as_ref()?;
        let layer = tracing_opentelemetry::layer().with_tracer(on.tracer.clone());
        // Where in the source, on which thread and how busy: that is for whoever profiles.
        let layer = layer.with_location(false).with_threads(false).with_tracked_inactivity(false);
        Some(layer.with_level(false).with_target(false).with_context_activation(false))
    }

    /// Logs where traces go.
    pub(crate) fn tell(&self) {
        if let Some(on) = &self.0 {
            let Settings { endpoint, ratio, .. } = &on.settings;
            tracing::info!(endpoint, message_ratio = ratio, "traces are sent by OTLP");
        }
    }
}

/// The largest random number of 64 bits that lets a message through.
fn threshold(ratio: f64) -> Option<u64> {
    // Rounded on purpose, and at most the largest number there is.
    (ratio > 0.0).then_some((ratio * u64::MAX as f64) as u64)
}

fn resource(
    program: &Program,
    settings: &Settings,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Resource {
    let mut attributes = vec![
        KeyValue::new(names::resource::VERSION, program.version),
        KeyValue::new(names::resource::INSTANCE, program.instance.clone()),
    ];
    for (name, attribute) in DOWNWARD {
        if let Some(value) = variable(name).filter(|value| !value.is_empty()) {
            attributes.push(KeyValue::new(attribute, value));
        }
    }
    // What the user says comes later, and holds.
    for (name, value) in &settings.resource {
        attributes.push(KeyValue::new(name.clone(), value.clone()));
    }
    let named = settings.resource.get(names::resource::NAME);
    let service = settings.service.clone().or_else(|| named.cloned());
    let service = service.unwrap_or_else(|| program.service.to_owned());
    Resource::builder_empty().with_attributes(attributes).with_service_name(service).build()
}

fn exporter(settings: &Settings, answers: &Answers) -> Result<SpanExporter, TracesError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| TracesError::Exporter {
        endpoint: settings.endpoint.clone(),
        source,
    };
    let authority = settings.certificate.as_ref().map(|path| authority(path)).transpose()?;
    let built: Result<SpanExporter, ExporterBuildError> = match settings.protocol {
        Protocol::Grpc => {
            let mut exporter = SpanExporter::builder()
                .with_tonic()
                .with_endpoint(&settings.endpoint)
                .with_timeout(settings.timeout);
            if settings.endpoint.starts_with("https:") {
                let tls = match authority {
                    Some((pem, _)) => {
                        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
                    }
                    None => ClientTlsConfig::new().with_native_roots(),
                };
                exporter = exporter.with_tls_config(tls);
            }
            exporter.build()
        }
        Protocol::Http => {
            let authorities = authority.map(|(_, authorities)| authorities);
            let client = RuntimeClient::new(authorities, settings.timeout, answers.clone());
            let client = client.map_err(failed)?;
            SpanExporter::builder()
                .with_http()
                .with_http_client(client)
                .with_endpoint(&settings.endpoint)
                .with_timeout(settings.timeout)
                .build()
        }
    };
    built.map_err(|error| failed(error.into()))
}

/// Certificates in a file: as they are, and parsed.
fn authority(path: &str) -> Result<(Vec<u8>, Vec<CertificateDer<'static>>), TracesError> {
    let failed = |source| TracesError::Certificate { path: path.to_owned(), source };
    let pem = fs::read(path).map_err(failed)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match parsed {
        Ok(parsed) if !parsed.is_empty() => Ok((pem, parsed)),
        Ok(_) => Err(failed(io::Error::other("there is no certificate in it"))),
        Err(error) => Err(failed(io::Error::other(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_a_share_of_all_numbers() {
        assert_eq!(threshold(0.0), None);
        assert_eq!(threshold(1.0), Some(u64::MAX));
        let half = threshold(0.5).unwrap();
        assert!(half.abs_diff(u64::MAX / 2) <= 1);
        assert!(threshold(f64::MIN_POSITIVE).is_some());
    }

    #[test]
    fn nothing_is_sampled_while_nothing_is_traced() {
        assert!((0..1000).all(|_| !Traces::off().samples_message()));
        assert!(!Traces::off().is_on());
    }

    #[test]
    fn what_the_user_says_of_the_resource_holds() {
        let program =
            Program { service: "hubbub-gateway", version: "1.2.3", instance: "gw-1".to_owned() };
        let set = |extra: &'static [(&str, &str)]| {
            move |name: &str| {
                let base = [
                    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://jaeger:4317"),
                    ("HUBBUB_POD_NAME", "pod-1"),
                    ("HUBBUB_NODE_NAME", ""),
                ];
                let found = base.iter().chain(extra).find(|(other, _)| *other == name);
                found.map(|(_, value)| (*value).to_owned())
            }
        };
        let told = |variable: &dyn Fn(&str) -> Option<String>| {
            let settings = Settings::read(variable).unwrap().unwrap();
            let resource = resource(&program, &settings, variable);
            move |name: &str| {
                resource
                    .get(&opentelemetry::Key::from(name.to_owned()))
                    .map(|value| value.to_string())
            }
        };
        let get = told(&set(&[]));
        assert_eq!(get("service.name").as_deref(), Some("hubbub-gateway"));
        assert_eq!(get("service.instance.id").as_deref(), Some("gw-1"));
        assert_eq!(get("k8s.pod.name").as_deref(), Some("pod-1"));
        assert_eq!(get("k8s.node.name"), None);
        let get = told(&set(&[("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,k8s.pod.name=b")]));
        assert_eq!(get("service.name").as_deref(), Some("a"));
        assert_eq!(get("k8s.pod.name").as_deref(), Some("b"));
        let get = told(&set(&[
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a"),
            ("OTEL_SERVICE_NAME", "c"),
        ]));
        assert_eq!(get("service.name").as_deref(), Some("c"));
    }
}
