//! Leads members to the gateways of the pool. The admin port is never behind it.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use super::Blueprint;

pub(super) fn of(blueprint: &Blueprint<'_>) -> Service {
    let settings = &blueprint.settings.service;
    let encrypted = blueprint.settings.tls.is_on();
    let annotations = Some(settings.annotations.clone()).filter(|all| !all.is_empty());
    Service {
        metadata: ObjectMeta { annotations, ..blueprint.metadata() },
        spec: Some(ServiceSpec {
            type_: Some(settings.kind.clone()),
            selector: Some(blueprint.selected()),
            ports: Some(vec![ServicePort {
                name: Some(if encrypted { "https" } else { "http" }.to_owned()),
                // Tells proxies that connections are upgraded, and whether by TLS (KEP-3726).
                app_protocol: Some(
                    if encrypted { "kubernetes.io/wss" } else { "kubernetes.io/ws" }.to_owned(),
                ),
                port: i32::from(settings.port),
                target_port: Some(IntOrString::String("http".to_owned())),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LEAST, children};

    #[test]
    fn proxies_are_told_whether_members_come_by_tls() {
        let encrypted = "nats: {url: x}\npools: {default: {image: a, tls: {secretName: chat}}}";
        for (yaml, name, protocol) in
            [(LEAST, "http", "kubernetes.io/ws"), (encrypted, "https", "kubernetes.io/wss")]
        {
            let port = children(yaml, "default", 1).service.spec.unwrap().ports.unwrap().remove(0);
            assert_eq!(
                (port.name.as_deref(), port.app_protocol.as_deref()),
                (Some(name), Some(protocol))
            );
        }
    }
}
