//! What the variables `OTEL_…` ask for. One that makes no sense is refused, with what is right; none is ignored in
//! silence, because what is missing in a collector is hard to notice.

use std::{collections::BTreeMap, ffi::OsString, time::Duration};

mod variables;

use variables::{Variables, refuse};

/// Which of its protocols OTLP speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC, usually on port 4317.
    Grpc,
    /// Protocol buffers over HTTP, usually on port 4318.
    Http,
}

/// A variable that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable} is {value:?}: {right}")]
pub struct SettingError {
    /// Its name.
    pub variable: String,
    /// What it says. Headers may be secrets, so theirs is not told.
    pub value: String,
    /// What would be right.
    pub right: String,
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where spans go: the whole address, for HTTP with its path.
    pub endpoint: String,
    /// How they get there.
    pub protocol: Protocol,
    /// How long one batch may take.
    pub timeout: Duration,
    /// The certificate authority of the collector, if it is not one that the system trusts.
    pub certificate: Option<String>,
    /// The share of messages that is traced, 0 to 1.
    pub ratio: f64,
    /// Whether what another program keeps or does not keep decides, where it is trusted.
    pub parent_based: bool,
    /// Whether spans without a parent are kept.
    pub roots: bool,
    /// The service's name, if another than the program's is wanted.
    pub service: Option<String>,
    /// Attributes of the resource.
    pub resource: BTreeMap<String, String>,
    /// The longest that a span waits for its batch.
    pub delay: Duration,
    /// Spans that may wait.
    pub queue: usize,
    /// Spans in one batch.
    pub batch: usize,
}

impl Settings {
    /// What these variables ask for; none if nothing is to be traced. A variable that is set to nothing is not set.
    ///
    /// # Errors
    ///
    /// [`SettingError`] for the first that makes no sense.
    pub fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, SettingError> {
        let variables = Variables(variable);
        if variables.is_disabled()? {
            return Ok(None);
        }
        let Some(wanted) = variables.exports()? else { return Ok(None) };
        // All are looked at, also where nothing is traced: a mistake shows where it is made.
        let protocol = variables.protocol()?;
        let endpoint = variables.endpoint(protocol, wanted)?;
        variables.check_headers()?;
        variables.check_propagators()?;
        variables.refuse_unsupported()?;
        let (ratio, parent_based, roots) = variables.sampler()?;
        let certificate =
            ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
        let timeout = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
        let queue = variables.size("OTEL_BSP_MAX_QUEUE_SIZE", 2048)?;
        let batch = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";
        let batch_size = variables.size(batch, 512.min(queue as u64))?;
        if batch_size > queue {
            let right = format!("give at most OTEL_BSP_MAX_QUEUE_SIZE, which is {queue}");
            return refuse(batch, batch_size.to_string(), right);
        }
        // The specification's two limits of one batch: the smaller holds.
        let limit = variables.millis(&["OTEL_BSP_EXPORT_TIMEOUT"], 30_000)?;
        let settings = Self {
            endpoint: endpoint.clone().unwrap_or_default(),
            protocol,
            timeout: variables.millis(&timeout, 10_000)?.min(limit),
            certificate: variables.first(&certificate).map(|(_, path)| path),
            ratio,
            parent_based,
            roots,
            service: variables.get("OTEL_SERVICE_NAME"),
            resource: variables.resource()?,
            delay: variables.millis(&["OTEL_BSP_SCHEDULE_DELAY"], 5_000)?,
            queue,
            batch: batch_size,
        };
        Ok((endpoint.is_some() && (roots || parent_based)).then_some(settings))
    }

    /// Refuses variables of the environment that are no text: to the reader of one they would be as good as not set.
    ///
    /// # Errors
    ///
    /// [`SettingError`] for the first.
    pub fn refuse_what_is_no_text(
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<(), SettingError> {
        for (name, value) in environment {
            if name.as_encoded_bytes().starts_with(b"OTEL_") && value.to_str().is_none() {
                let name = name.to_string_lossy();
                // What it is may be a secret, and cannot be shown as it is anyway.
                return refuse(name, "(not shown)", "give text in UTF-8");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Option<Settings>, SettingError> {
        let set: BTreeMap<_, _> = set.iter().copied().collect();
        Settings::read(&|name| set.get(name).map(|value| (*value).to_owned()))
    }

    fn on(set: &[(&str, &str)]) -> Settings {
        let endpoint = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://jaeger:4317")];
        read(&[&endpoint, set].concat()).unwrap().expect("tracing is on")
    }

    #[test]
    fn nothing_is_traced_unless_a_collector_is_named() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(None));
        let endpoint = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://jaeger:4317");
        assert!(read(&[endpoint]).unwrap().is_some());
        for (name, value) in [
            ("OTEL_SDK_DISABLED", "true"),
            ("OTEL_SDK_DISABLED", "TRUE"),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_TRACES_SAMPLER", "always_off"),
        ] {
            assert_eq!(read(&[endpoint, (name, value)]), Ok(None), "{name}={value}");
        }
    }

    #[test]
    fn the_defaults() {
        let settings = on(&[]);
        assert_eq!(settings.endpoint, "http://jaeger:4317");
        assert_eq!(settings.protocol, Protocol::Grpc);
        assert_eq!((settings.ratio, settings.parent_based, settings.roots), (0.01, true, true));
        assert_eq!((settings.queue, settings.batch), (2048, 512));
        assert_eq!(settings.timeout, Duration::from_secs(10));
    }

    #[test]
    fn what_is_for_traces_alone_comes_first() {
        let settings = on(&[
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces.example.com/otlp/traces"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "500"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "700"),
        ]);
        assert_eq!(settings.endpoint, "https://traces.example.com/otlp/traces");
        assert_eq!(settings.protocol, Protocol::Http);
        assert_eq!(settings.timeout, Duration::from_millis(500));
        let settings = on(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")]);
        assert_eq!(settings.endpoint, "http://jaeger:4317/v1/traces");
    }

    #[test]
    fn samplers() {
        for (sampler, argument, want) in [
            ("always_on", "", (1.0, false, true)),
            ("parentbased_always_on", "", (1.0, true, true)),
            ("parentbased_always_off", "", (0.0, true, false)),
            ("traceidratio", "0.5", (0.5, false, true)),
            ("traceidratio", "", (0.01, false, true)),
            ("parentbased_traceidratio", "1", (1.0, true, true)),
            ("", "0", (0.0, true, true)),
        ] {
            let settings =
                on(&[("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", argument)]);
            let got = (settings.ratio, settings.parent_based, settings.roots);
            assert_eq!(got, want, "{sampler} {argument}");
        }
    }

    #[test]
    fn attributes_of_the_resource() {
        let settings = on(&[
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test, team = a%2Cb%20c ,"),
            ("OTEL_SERVICE_NAME", "chat"),
        ]);
        assert_eq!(settings.resource["deployment.environment.name"], "test");
        assert_eq!(settings.resource["team"], "a,b c");
        assert_eq!(settings.service.as_deref(), Some("chat"));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_is_right() {
        for (name, value, words) in [
            ("OTEL_SDK_DISABLED", "yes", "true or false"),
            ("OTEL_TRACES_EXPORTER", "jaeger", "otlp or none"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "jaeger:4317", "http://jaeger:4317"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://", "http://jaeger:4317"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://jaeger", "http://jaeger:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "grpc or http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "milliseconds"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "at least 1"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "99999999999999", "at most 86400000"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://jaeger:4317?key=1", "without a query"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://jaeger:4317/#a", "without a query"),
            ("OTEL_PROPAGATORS", "tracecontext,b3", "give tracecontext"),
            ("OTEL_PROPAGATORS", "none", "give tracecontext"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip", "none"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem", "OTEL_EXPORTER_OTLP_HEADERS"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote", "always_on"),
            ("OTEL_TRACES_SAMPLER", "parentbased_xray", "always_on"),
            ("OTEL_TRACES_SAMPLER_ARG", "1.1", "from 0 to 1"),
            ("OTEL_TRACES_SAMPLER_ARG", "nan", "from 0 to 1"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team", "name=value"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team=%zz", "name=value"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team=%+a", "name=value"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "number of spans"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "99999999999999", "at most 100000"),
            ("OTEL_TRACES_SAMPLER", "nonsense", "always_on"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096", "which is 2048"),
            ("OTEL_BSP_SCHEDULE_DELAY", "soon", "milliseconds"),
        ] {
            let mut set = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://jaeger:4317")];
            set.retain(|(other, _)| *other != name);
            set.push((name, value));
            let error = read(&set).expect_err(name).to_string();
            assert!(error.starts_with(&format!("{name} is {value:?}: ")), "{error}");
            assert!(error.contains(words), "{name}={value}: {error}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_where_nothing_is_traced_too() {
        for set in [
            [("OTEL_TRACES_SAMPLER", "nonsense"), ("", "")],
            [("OTEL_TRACES_SAMPLER_ARG", "2"), ("", "")],
            [("OTEL_TRACES_SAMPLER_ARG", "much"), ("OTEL_TRACES_SAMPLER", "always_on")],
            [("OTEL_TRACES_SAMPLER_ARG", "much"), ("OTEL_TRACES_SAMPLER", "always_off")],
            [("OTEL_BSP_MAX_QUEUE_SIZE", "0"), ("", "")],
        ] {
            let error = read(&set).expect_err("refused");
            assert_eq!(error.variable, set[0].0, "{error}");
        }
        // Who switches tracing off need not mend the rest.
        for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert_eq!(read(&[off, ("OTEL_TRACES_SAMPLER", "nonsense")]), Ok(None));
        }
    }

    #[test]
    fn who_asks_for_otlp_alone_gets_the_usual_collector() {
        let otlp = ("OTEL_TRACES_EXPORTER", "otlp");
        let endpoint = |set: &[_]| read(set).unwrap().expect("tracing is on").endpoint;
        assert_eq!(endpoint(&[otlp]), "http://localhost:4317");
        let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        assert_eq!(endpoint(&[otlp, http]), "http://localhost:4318/v1/traces");
        let named = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://jaeger:4317");
        assert_eq!(endpoint(&[otlp, named]), "http://jaeger:4317");
    }

    #[test]
    fn propagators_that_are_there_already() {
        for value in ["tracecontext", "tracecontext,baggage", "baggage, tracecontext"] {
            on(&[("OTEL_PROPAGATORS", value)]);
        }
    }

    #[test]
    fn a_password_in_the_address_is_not_told() {
        for address in ["http://me:secret@jaeger:4317", "me:secret@jaeger", "http://secret@jaeger"]
        {
            let error = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", address)]).unwrap_err().to_string();
            assert!(error.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT is "), "{error}");
            assert!(error.contains("OTEL_EXPORTER_OTLP_HEADERS"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn what_is_no_text_is_refused() {
        use std::os::unix::ffi::OsStringExt as _;
        let check = |name: &str, value: &[u8]| {
            let set = (OsString::from(name), OsString::from_vec(value.to_vec()));
            Settings::refuse_what_is_no_text([set].into_iter())
        };
        let error = check("OTEL_EXPORTER_OTLP_HEADERS", b"a=secret\xff").unwrap_err().to_string();
        assert!(error.starts_with("OTEL_EXPORTER_OTLP_HEADERS is "), "{error}");
        assert!(error.contains("UTF-8") && !error.contains("secret"), "{error}");
        assert_eq!(check("OTEL_SERVICE_NAME", "chät".as_bytes()), Ok(()));
        assert_eq!(check("LANG", b"\xff"), Ok(()));
    }

    #[test]
    fn headers_are_not_told() {
        for headers in
            ["authorization: Bearer secret", "authorization=secret%2", "a=secret%zz", "secret="]
        {
            let error = read(&[("OTEL_EXPORTER_OTLP_HEADERS", headers)]).unwrap_err().to_string();
            assert!(error.contains("name=value") && !error.contains("secret"), "{error}");
        }
        on(&[("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20secret,x-a=b")]);
    }
}
