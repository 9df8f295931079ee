//! Members come in from anywhere; out goes only what a gateway needs: names, NATS, and what the settings add.

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPort,
        NetworkPolicySpec,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{ADMIN_PORT, Blueprint, PUBLIC_PORT};

/// The port of a NATS URL that names none.
const NATS_PORT: u16 = 4222;

pub(super) fn of(blueprint: &Blueprint<'_>) -> Option<NetworkPolicy> {
    let settings = &blueprint.settings.network_policy;
    if !settings.enabled {
        return None;
    }
    let mut ingress = vec![NetworkPolicyIngressRule {
        ports: Some(vec![port("TCP", PUBLIC_PORT)]),
        ..NetworkPolicyIngressRule::default()
    }];
    if !settings.admin_from.is_empty() {
        ingress.push(NetworkPolicyIngressRule {
            from: Some(settings.admin_from.clone()),
            ports: Some(vec![port("TCP", ADMIN_PORT)]),
        });
    }
    let names = vec![port("UDP", 53), port("TCP", 53)];
    let nats = nats_ports(&blueprint.nats.url).into_iter().map(|number| port("TCP", number));
    let mut egress: Vec<NetworkPolicyEgressRule> = [names, nats.collect()]
        .into_iter()
        .map(|ports| NetworkPolicyEgressRule {
            ports: Some(ports),
            ..NetworkPolicyEgressRule::default()
        })
        .collect();
    egress.extend(settings.extra_egress.iter().cloned());
    Some(NetworkPolicy {
        metadata: blueprint.metadata(),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(blueprint.selector()),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(ingress),
            egress: Some(egress),
        }),
    })
}

fn port(protocol: &str, number: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(i32::from(number))),
        protocol: Some(protocol.to_owned()),
        ..NetworkPolicyPort::default()
    }
}

/// The ports of all servers, each once.
fn nats_ports(urls: &str) -> Vec<u16> {
    let port = |url: &str| {
        let host = url.rsplit_once('@').map_or(url, |(_, host)| host);
        host.trim_end_matches('/').rsplit_once(':').and_then(|(_, port)| port.parse().ok())
    };
    let urls = urls.split(',').map(str::trim).filter(|url| !url.is_empty());
    let mut ports: Vec<u16> = urls.map(|url| port(url).unwrap_or(NATS_PORT)).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_of_nats_are_read_from_its_urls() {
        for (urls, ports) in [
            ("nats://nats:4222", vec![4222]),
            ("nats://a, tls://u:p@b:5222/,c:4333", vec![4222, 4333, 5222]),
            ("nats://[::1]:4999", vec![4999]),
            ("nats://nats.chat.svc", vec![4222]),
        ] {
            assert_eq!(nats_ports(urls), ports, "{urls}");
        }
    }
}
