//! The variables one by one: what each may say, and what is said of one that it may not.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderName, HeaderValue, Uri};

use super::{Protocol, SettingError};

/// How much of the messages is traced where nothing else is said.
const DEFAULT_RATIO: f64 = 0.01;

/// Room for the queue is taken at once, some hundred bytes a span.
const MOST_SPANS: u64 = 100_000;

/// A day: more is a slip of the keyboard.
const MOST_MILLIS: u64 = 86_400_000;

/// Instead of what may be a secret.
const HIDDEN: &str = "(not shown)";

const PAIRS: &str = "give name=value, several with commas between, special characters as %2C";

pub(super) struct Variables<'a>(pub(super) &'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    /// The first of these variables that is set to something, with its name.
    pub(super) fn first(&self, names: &[&str]) -> Option<(String, String)> {
        names.iter().find_map(|name| {
            let value = (self.0)(name)?.trim().to_owned();
            (!value.is_empty()).then(|| ((*name).to_owned(), value))
        })
    }

    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.first(&[name]).map(|(_, value)| value)
    }

    fn number(
        &self,
        names: &[&str],
        default: u64,
        most: u64,
        what: &str,
    ) -> Result<u64, SettingError> {
        let Some((variable, value)) = self.first(names) else { return Ok(default) };
        match value.parse() {
            Ok(number) if (1..=most).contains(&number) => Ok(number),
            _ => refuse(
                variable,
                value,
                format!("give a number of {what}, at least 1 and at most {most}"),
            ),
        }
    }

    pub(super) fn millis(&self, names: &[&str], default: u64) -> Result<Duration, SettingError> {
        self.number(names, default, MOST_MILLIS, "milliseconds").map(Duration::from_millis)
    }

    pub(super) fn size(&self, name: &str, default: u64) -> Result<usize, SettingError> {
        let number = self.number(&[name], default, MOST_SPANS, "spans")?;
        Ok(usize::try_from(number).unwrap_or(usize::MAX))
    }

    pub(super) fn is_disabled(&self) -> Result<bool, SettingError> {
        let name = "OTEL_SDK_DISABLED";
        match self.get(name) {
            None => Ok(false),
            Some(value) if value.eq_ignore_ascii_case("false") => Ok(false),
            Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
            Some(value) => refuse(name, value, "give true or false"),
        }
    }

    /// Whether traces leave at all; if so, whether that is said in so many words.
    pub(super) fn exports(&self) -> Result<Option<bool>, SettingError> {
        let name = "OTEL_TRACES_EXPORTER";
        match self.get(name).as_deref() {
            None => Ok(Some(false)),
            Some("otlp") => Ok(Some(true)),
            Some("none") => Ok(None),
            Some(other) => refuse(name, other, "give otlp or none: traces leave by OTLP alone"),
        }
    }

    /// The one form in which a trace goes from program to program here. Baggage is nowhere used, and none is sent on.
    pub(super) fn check_propagators(&self) -> Result<(), SettingError> {
        let name = "OTEL_PROPAGATORS";
        let Some(value) = self.get(name) else { return Ok(()) };
        let mut wanted = value.split(',').map(str::trim);
        match wanted.all(|one| matches!(one, "" | "tracecontext" | "baggage")) {
            true => Ok(()),
            false => {
                refuse(name, value, "give tracecontext: it is what the programs write and read")
            }
        }
    }

    pub(super) fn protocol(&self) -> Result<Protocol, SettingError> {
        let names = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
        match self.first(&names) {
            None => Ok(Protocol::Grpc),
            Some((_, value)) if value == "grpc" => Ok(Protocol::Grpc),
            Some((_, value)) if value == "http/protobuf" => Ok(Protocol::Http),
            Some((variable, value)) => refuse(variable, value, "give grpc or http/protobuf"),
        }
    }

    /// The collector's address for this protocol, if one is named; the usual one on this host if there shall be one.
    pub(super) fn endpoint(
        &self,
        protocol: Protocol,
        wanted: bool,
    ) -> Result<Option<String>, SettingError> {
        let (whole, base) = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT");
        let Some((variable, value)) = self.first(&[whole, base]) else {
            let usual = match protocol {
                Protocol::Grpc => "http://localhost:4317",
                Protocol::Http => "http://localhost:4318/v1/traces",
            };
            return Ok(wanted.then(|| usual.to_owned()));
        };
        // The address is logged. Where it is malformed, nobody can tell what of it is a password.
        if value.contains('@') {
            let right = "leave user and password out of it, and tell the collector who you are by \
                         OTEL_EXPORTER_OTLP_HEADERS, such as authorization=Basic%20…";
            return refuse(variable, HIDDEN, right);
        }
        let well_formed = !value.contains(['?', '#'])
            && value.parse::<Uri>().is_ok_and(|uri| {
                matches!(uri.scheme_str(), Some("http" | "https"))
                    && uri.host().is_some_and(|host| !host.is_empty())
            });
        if !well_formed {
            let example = match protocol {
                Protocol::Grpc => "http://jaeger:4317",
                Protocol::Http => "http://jaeger:4318",
            };
            let right = format!(
                "give the address of a collector, such as {example}, or https://…, without a query"
            );
            return refuse(variable, value, right);
        }
        Ok(Some(if protocol == Protocol::Http && variable == base {
            format!("{}/v1/traces", value.trim_end_matches('/'))
        } else {
            value
        }))
    }

    pub(super) fn check_headers(&self) -> Result<(), SettingError> {
        let names = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
        let Some((variable, value)) = self.first(&names) else { return Ok(()) };
        let well_formed = |pair: &str| {
            pair.split_once('=').is_some_and(|(name, value)| {
                // The library leaves out what has no value, and sends what it cannot decode as it is.
                let value = percent_decoded(value.trim()).filter(|value| !value.is_empty());
                name.trim().parse::<HeaderName>().is_ok()
                    && value.is_some_and(|value| HeaderValue::from_str(&value).is_ok())
            })
        };
        if value.split(',').map(str::trim).filter(|pair| !pair.is_empty()).all(well_formed) {
            return Ok(());
        }
        refuse(variable, HIDDEN, PAIRS)
    }

    /// What is asked for and cannot be done.
    pub(super) fn refuse_unsupported(&self) -> Result<(), SettingError> {
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
    pub(super) fn sampler(&self) -> Result<(f64, bool, bool), SettingError> {
        let (name, argument) = ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG");
        let sampler = self.get(name).unwrap_or_else(|| "parentbased_traceidratio".to_owned());
        let (parent_based, kind) = match sampler.strip_prefix("parentbased_") {
            Some(kind) => (true, kind),
            None => (false, sampler.as_str()),
        };
        // Also where it decides nothing, so that it does not lie in wait.
        let ratio = match self.get(argument).map(|value| (value.parse::<f64>(), value)) {
            None => DEFAULT_RATIO,
            Some((Ok(ratio), _)) if (0.0..=1.0).contains(&ratio) => ratio,
            Some((_, value)) => {
                return refuse(argument, value, "give a share from 0 to 1, such as 0.01");
            }
        };
        match kind {
            "always_on" => Ok((1.0, parent_based, true)),
            "always_off" => Ok((0.0, parent_based, false)),
            "traceidratio" => Ok((ratio, parent_based, true)),
            _ => refuse(
                name,
                sampler,
                "give always_on, always_off, traceidratio, or one of them after parentbased_",
            ),
        }
    }

    pub(super) fn resource(&self) -> Result<BTreeMap<String, String>, SettingError> {
        let name = "OTEL_RESOURCE_ATTRIBUTES";
        let Some(value) = self.get(name) else { return Ok(BTreeMap::new()) };
        let pairs = value.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (key, value) = pair.split_once('=')?;
            let (key, value) = (percent_decoded(key.trim())?, percent_decoded(value.trim())?);
            (!key.is_empty()).then_some((key, value))
        });
        match pairs.collect::<Option<_>>() {
            Some(pairs) => Ok(pairs),
            None => refuse(name, value.clone(), PAIRS),
        }
    }
}

pub(super) fn refuse<T>(
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
            // A sign is no digit, but a number for the standard library.
            let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.contains('+'))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}
