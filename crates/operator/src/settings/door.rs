//! What is limited at the door of a pool's gateways.

use hubbub_program::network;
use serde::Deserialize;

use super::{SettingsError, wrong};

/// What one address, one subject of tokens and all together may ask of each gateway, as its flags of the same names. 0 is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct DoorLimits {
    /// Peers whose `X-Forwarded-For` is believed, as addresses or networks.
    pub trusted_proxies: Vec<String>,
    /// Requests in a second, from everybody.
    pub requests_per_second: u32,
    /// Requests in a second, from one address.
    pub requests_per_address: u32,
    /// Connections of one address.
    pub connections_per_address: u32,
    /// Connections of one subject.
    pub connections_per_subject: u32,
}

impl DoorLimits {
    /// Whether gateways would take it.
    pub(super) fn check(&self, field: &str) -> Result<(), SettingsError> {
        for (index, proxy) in self.trusted_proxies.iter().enumerate() {
            network(proxy).map_err(|fault| {
                wrong(&format!("{field}.trustedProxies[{index}]"), &format!("{proxy:?} {fault}"))
            })?;
        }
        Ok(())
    }

    /// The variables that tell it to a gateway.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, String)> {
        let numbers = [
            ("HUBBUB_REQUESTS_PER_SECOND", self.requests_per_second),
            ("HUBBUB_REQUESTS_PER_ADDRESS", self.requests_per_address),
            ("HUBBUB_CONNECTIONS_PER_ADDRESS", self.connections_per_address),
            ("HUBBUB_CONNECTIONS_PER_SUBJECT", self.connections_per_subject),
        ];
        let proxies = Some(self.trusted_proxies.join(",")).filter(|proxies| !proxies.is_empty());
        let numbers = numbers.into_iter().filter(|(_, number)| *number > 0);
        let proxies = proxies.map(|proxies| ("HUBBUB_TRUSTED_PROXIES", proxies));
        numbers.map(|(name, number)| (name, number.to_string())).chain(proxies)
    }
}
