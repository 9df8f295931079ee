//! What the variables `OTEL_…` ask for. One that makes no sense is refused, with what is right; none is ignored in
//! silence, because what is missing in a collector is hard to notice.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderName, HeaderValue, Uri};

/// How much of the messages is traced where nothing else is said.
const DEFAULT_RATIO: f64 = 0.01;

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

struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    /// The first of these variables that is set to something, with its name.
    fn first(&self, names: &[&str]) -> Option<(String, String)> {
        names.iter().find_map(|name| {
            let value = (self.0)(name)?.trim().to_owned();
            (!value.is_empty()).then(|| ((*name).to_owned(), value))
        })
    }

    fn get(&self, name: &str) -> Option<String> {
        self.first(&[name]).map(|(_, value)| value)
    }

    fn number(&self, names: &[&str], default: u64, right: &str) -> Result<u64, SettingError> {
        let Some((variable, value)) = self.first(names) else { return Ok(default) };
        match value.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => refuse(variable, value, right),
        }
    }

    fn millis(&self, names: &[&str], default: u64) -> Result<Duration, SettingError> {
        let right = "give a number of milliseconds, at least 1";
        self.number(names, default, right).map(Duration::from_millis)
    }

    fn size(&self, name: &str, default: u64) -> Result<usize, SettingError> {
        let number = self.number(&[name], default, "give a number of spans, at least 1")?;
        Ok(usize::try_from(number).unwrap_or(usize::MAX))
    }

    fn is_disabled(&self) -> Result<bool, SettingError> {
        let name = "OTEL_SDK_DISABLED";
        match self.get(name) {
            None => Ok(false),
            Some(value) if value.eq_ignore_ascii_case("false") => Ok(false),
            Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
            Some(value) => refuse(name, value, "give true or false"),
        }
    }

    fn exports(&self) -> Result<bool, SettingError> {
        let name = "OTEL_TRACES_EXPORTER";
        match self.get(name).as_deref() {
            None | Some("otlp") => Ok(true),
            Some("none") => Ok(false),
            Some(other) => refuse(name, other, "give otlp or none: traces leave by OTLP alone"),
        }
    }

    fn protocol(&self) -> Result<Protocol, SettingError> {
        let names = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
        match self.first(&names) {
            None => Ok(Protocol::Grpc),
            Some((_, value)) if value == "grpc" => Ok(Protocol::Grpc),
            Some((_, value)) if value == "http/protobuf" => Ok(Protocol::Http),
            Some((variable, value)) => refuse(variable, value, "give grpc or http/protobuf"),
        }
    }

    /// The collector's address for this protocol, if one is named.
    fn endpoint(&self, protocol: Protocol) -> Result<Option<String>, SettingError> {
        let (whole, base) = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT");
        let Some((variable, value)) = self.first(&[whole, base]) else { return Ok(None) };
        let well_formed = value.parse::<Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
        });
        if !well_formed {
            let example = match protocol {
                Protocol::Grpc => "http://jaeger:4317",
                Protocol::Http => "http://jaeger:4318",
            };
            let right = format!("give the address of a collector, such as {example}, or https://…");
            return refuse(variable, value, right);
        }
        Ok(Some(if protocol == Protocol::Http && variable == base {
            format!("{}/v1/traces", value.trim_end_matches('/'))
        } else {
            value
        }))
    }

    fn check_headers(&self) -> Result<(), SettingError> {
        let names = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
        let Some((variable, value)) = self.first(&names) else { return Ok(()) };
        let well_formed = |pair: &str| {
            pair.split_once('=').is_some_and(|(name, value)| {
                name.trim().parse::<HeaderName>().is_ok()
                    && HeaderValue::from_str(value.trim()).is_ok()
            })
        };
        if value.split(',').map(str::trim).filter(|pair| !pair.is_empty()).all(well_formed) {
            return Ok(());
        }
        let right = "give name=value, several with commas between, special characters as %2C";
        refuse(variable, "(not shown)", right)
    }

    /// What is asked for and cannot be done.
    fn refuse_unsupported(&self) -> Result<(), SettingError> {
        let compression =
            ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"];
        if let Some((variable, value)) = self.first(&compression)
            && value != "none"
        {
            return refuse(variable, value, "give none: batches are sent as they are");
        }
        let client = [
            "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
            "OTEL_EXPORTER_OTLP_CLIENT_KEY",
            "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
        ];
        if let Some((variable, value)) = self.first(&client) {
            let right =
                "leave it out, and tell the collector who you are by OTEL_EXPORTER_OTLP_HEADERS";
            return refuse(variable, value, right);
        }
        Ok(())
    }

    /// The share of messages, whether parents decide, and whether roots are kept.
    fn sampler(&self) -> Result<(f64, bool, bool), SettingError> {
        let (name, argument) = ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG");
        let sampler = self.get(name).unwrap_or_else(|| "parentbased_traceidratio".to_owned());
        let (parent_based, kind) = match sampler.strip_prefix("parentbased_") {
            Some(kind) => (true, kind),
            None => (false, sampler.as_str()),
        };
        match kind {
            "always_on" => Ok((1.0, parent_based, true)),
            "always_off" => Ok((0.0, parent_based, false)),
            "traceidratio" => {
                let ratio = match self.get(argument) {
                    None => DEFAULT_RATIO,
                    Some(value) => match value.parse::<f64>() {
                        Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
                        _ => {
                            return refuse(
                                argument,
                                value,
                                "give a share from 0 to 1, such as 0.01",
                            );
                        }
                    },
                };
                Ok((ratio, parent_based, true))
            }
            _ => refuse(
                name,
                sampler,
                "give always_on, always_off, traceidratio, or one of them after parentbased_",
            ),
        }
    }

    fn resource(&self) -> Result<BTreeMap<String, String>, SettingError> {
        let name = "OTEL_RESOURCE_ATTRIBUTES";
        let Some(value) = self.get(name) else { return Ok(BTreeMap::new()) };
        let pairs = value.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (key, value) = pair.split_once('=')?;
            let (key, value) = (percent_decoded(key.trim())?, percent_decoded(value.trim())?);
            (!key.is_empty()).then_some((key, value))
        });
        let right = "give name=value, several with commas between, special characters as %2C";
        match pairs.collect::<Option<_>>() {
            Some(pairs) => Ok(pairs),
            None => refuse(name, value.clone(), right),
        }
    }
}

fn refuse<T>(
    variable: impl Into<String>,
    value: impl Into<String>,
    right: impl Into<String>,
) -> Result<T, SettingError> {
    Err(SettingError { variable: variable.into(), value: value.into(), right: right.into() })
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

impl Settings {
    /// What these variables ask for; none if nothing is to be traced. A variable that is set to nothing is not set.
    ///
    /// # Errors
    ///
    /// [`SettingError`] for the first that makes no sense.
    pub fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, SettingError> {
        let variables = Variables(variable);
        if variables.is_disabled()? || !variables.exports()? {
            return Ok(None);
        }
        let protocol = variables.protocol()?;
        let Some(endpoint) = variables.endpoint(protocol)? else { return Ok(None) };
        variables.check_headers()?;
        variables.refuse_unsupported()?;
        let (ratio, parent_based, roots) = variables.sampler()?;
        if !roots && !parent_based {
            return Ok(None);
        }
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
        Ok(Some(Self {
            endpoint,
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
        }))
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
        assert_eq!(read(&[("OTEL_TRACES_EXPORTER", "otlp")]), Ok(None));
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
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip", "none"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem", "OTEL_EXPORTER_OTLP_HEADERS"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote", "always_on"),
            ("OTEL_TRACES_SAMPLER", "parentbased_xray", "always_on"),
            ("OTEL_TRACES_SAMPLER_ARG", "1.1", "from 0 to 1"),
            ("OTEL_TRACES_SAMPLER_ARG", "nan", "from 0 to 1"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team", "name=value"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team=%zz", "name=value"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "number of spans"),
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
    fn headers_are_not_told() {
        let error = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://jaeger:4317"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization: Bearer secret"),
        ]);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("name=value") && !error.contains("secret"), "{error}");
        on(&[("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20secret,x-a=b")]);
    }
}
