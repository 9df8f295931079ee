//! Checks of single values, each with its remedy.

use std::collections::BTreeMap;

use hubbub_api::{is_dns_label, nearest};
use hubbub_nats::{NatsOptions, NatsOptionsError};
use k8s_openapi::api::core::v1::EnvVar;

use super::{Amount, GatewayNats, Resources, SettingsError, TlsSecret, quantity, wrong};

/// What any container may use; beside them there are huge pages, and devices with a domain in their name.
const RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Gateways read the URLs as the operator does its own.
pub(super) fn nats(nats: &GatewayNats) -> Result<(), SettingsError> {
    if nats.url.trim().is_empty() {
        return Err(wrong("nats.url", "name the NATS servers, such as nats://nats:4222"));
    }
    if nats.credentials_secret.is_some() && nats.url.contains('@') {
        let fault = "the URL holds a login, and nats.credentialsSecret is another: give one";
        return Err(wrong("nats.url", fault));
    }
    if let Some(TlsSecret { name }) = &nats.client_certificate_secret {
        secret_name("nats.clientCertificateSecret.name", name)?;
        if name.is_empty() {
            let fault = "is empty: name a secret of the type kubernetes.io/tls, or leave it out";
            return Err(wrong("nats.clientCertificateSecret.name", fault));
        }
    }
    let options =
        NatsOptions { inbox: nats.inbox.clone(), ..NatsOptions::new(&nats.url, "gateway") };
    match options.prepare() {
        Ok(_) => Ok(()),
        Err(error @ NatsOptionsError::Inbox { .. }) => Err(wrong("nats.inbox", &error.to_string())),
        Err(error) => Err(wrong("nats.url", &error.to_string())),
    }
}

/// A secret's name is one that the API server takes, which would otherwise refuse the Deployment each time anew.
pub(super) fn secret_name(field: &str, name: &str) -> Result<(), SettingsError> {
    if name.is_empty() || (name.len() <= MAX_DOMAIN && name.split('.').all(is_dns_label)) {
        return Ok(());
    }
    let fault = format!(
        "{name:?} is not the name of a secret: name one in the release's namespace, such as chat-tls"
    );
    Err(wrong(field, &fault))
}

/// What a container may use is what the API server takes, which would otherwise refuse the Deployment each time anew.
pub(super) fn resources(field: &str, resources: &Resources) -> Result<(), SettingsError> {
    for (group, amounts) in [("requests", &resources.requests), ("limits", &resources.limits)] {
        for (name, Amount(text)) in amounts {
            let field = format!("{field}.{group}.{name}");
            if !(RESOURCES.contains(&name.as_str())
                || name.starts_with("hugepages-")
                || name.contains('/'))
            {
                let near = nearest(name, RESOURCES.iter().copied());
                let near = near.map(|near| format!(": did you mean {near}?")).unwrap_or_default();
                return Err(wrong(&field, &format!("is not a resource{near}")));
            }
            let Some(amount) = quantity::parse(text) else {
                let fault =
                    format!("{text:?} is not a quantity: write such as 500m, 2, 64Mi or 1Gi");
                return Err(wrong(&field, &fault));
            };
            let limit = resources.limits.get(name);
            let most = limit.and_then(|Amount(limit)| quantity::parse(limit));
            if let (Some(Amount(limit)), Some(most)) = (limit, most)
                && amount > most
            {
                let fault = format!("{text} is more than the limit, {limit}: raise the limit");
                return Err(wrong(&field, &fault));
            }
        }
    }
    Ok(())
}

pub(super) fn one_of(
    field: &str,
    value: Option<&str>,
    allowed: &[&str],
) -> Result<(), SettingsError> {
    match value {
        Some(value) if !allowed.contains(&value) => {
            Err(wrong(field, &format!("must be one of {}, not {value:?}", allowed.join(", "))))
        }
        _ => Ok(()),
    }
}

/// The longest name in a label, and the longest value of one.
const MAX_LABEL: usize = 63;

/// The longest domain before the name in a label.
const MAX_DOMAIN: usize = 253;

/// Keys and values of labels are what the API server takes, which would otherwise refuse the Deployment each time anew.
pub(super) fn labels(field: &str, labels: &BTreeMap<String, String>) -> Result<(), SettingsError> {
    label_keys(field, labels)?;
    for (key, value) in labels {
        if !(value.is_empty() || is_label_word(value)) {
            let fault = format!(
                "{value:?} is no value of a label: at most {MAX_LABEL} letters, digits, dots, hyphens and underscores, with a letter or digit at both ends"
            );
            return Err(wrong(&format!("{field}.{key}"), &fault));
        }
    }
    Ok(())
}

/// The keys of labels and of annotations.
pub(super) fn label_keys(
    field: &str,
    labels: &BTreeMap<String, String>,
) -> Result<(), SettingsError> {
    let is_domain =
        |domain: &str| domain.len() <= MAX_DOMAIN && domain.split('.').all(is_dns_label);
    for key in labels.keys() {
        let (domain, name) =
            key.split_once('/').map_or((None, &**key), |(domain, name)| (Some(domain), name));
        if !(is_label_word(name) && domain.is_none_or(is_domain)) {
            let fault = format!(
                "{key:?} is no key: write such as tier or example.com/tier, whose name has at most {MAX_LABEL} letters, digits, dots, hyphens and underscores, with a letter or digit at both ends"
            );
            return Err(wrong(field, &fault));
        }
    }
    Ok(())
}

fn is_label_word(word: &str) -> bool {
    let ends = [word.chars().next(), word.chars().next_back()];
    word.len() <= MAX_LABEL
        && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && ends.iter().all(|end| end.is_some_and(|c| c.is_ascii_alphanumeric()))
}

/// Flags of the gateway that the operator sets, and what to set instead. With others the gateway would not be what the operator
/// takes it for, and be waited for in vain.
const OWN_FLAGS: [(&str, &str); 11] = [
    ("pool", "a room names its pool in spec.gateways.pool"),
    ("gateway-id", "it is the pod's name"),
    ("policies", "they come from NATS"),
    ("rooms", "policies come from NATS"),
    ("listen", "set service.port"),
    ("tls-certificate", "set tls.secretName"),
    ("tls-key", "set tls.secretName"),
    ("admin-listen", "probes and metrics need it as it is"),
    ("drain-settle", "set drain.settle"),
    ("drain-window", "set drain.window"),
    ("drain-deadline", "set drain.deadline"),
];

/// Further flags and variables of the gateway are not those that the operator sets.
pub(super) fn extra(pool: &str, args: &[String], env: &[EnvVar]) -> Result<(), SettingsError> {
    let refuse = |field: String, given: &str, instead: &str| {
        let fault = format!("{given} is set by the operator: remove it ({instead})");
        Err(wrong(&field, &fault))
    };
    for (number, argument) in args.iter().enumerate() {
        let Some(flag) = argument.strip_prefix("--") else { continue };
        let flag = flag.split('=').next().unwrap_or_default();
        let field = format!("pools.{pool}.extraArgs[{number}]");
        if let Some((_, instead)) = OWN_FLAGS.iter().find(|(own, _)| *own == flag) {
            return refuse(field, &format!("--{flag}"), instead);
        }
        if flag == "nats" {
            return refuse(field, "--nats", "set nats.url");
        }
    }
    for (number, variable) in env.iter().enumerate() {
        let flag = variable.name.strip_prefix("HUBBUB_").unwrap_or_default();
        let flag = flag.to_ascii_lowercase().replace('_', "-");
        if let Some((_, instead)) = OWN_FLAGS.iter().find(|(own, _)| *own == flag) {
            return refuse(format!("pools.{pool}.extraEnv[{number}]"), &variable.name, instead);
        }
    }
    Ok(())
}
