//! Checks of single values, each with its remedy.

use hubbub_api::nearest;
use hubbub_nats::NatsOptions;

use super::{Amount, GatewayNats, Resources, SettingsError, quantity, wrong};

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
    match NatsOptions::new(&nats.url, "gateway").prepare() {
        Ok(_) => Ok(()),
        Err(error) => Err(wrong("nats.url", &error.to_string())),
    }
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
