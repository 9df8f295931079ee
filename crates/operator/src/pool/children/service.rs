//! Leads members to the gateways of the pool. The admin port is never behind it.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use super::Blueprint;

pub(super) fn of(blueprint: &Blueprint<'_>) -> Service {
    let settings = &blueprint.settings.service;
    let annotations = Some(settings.annotations.clone()).filter(|all| !all.is_empty());
    Service {
        metadata: ObjectMeta { annotations, ..blueprint.metadata() },
        spec: Some(ServiceSpec {
            type_: Some(settings.kind.clone()),
            selector: Some(blueprint.selected()),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                // Tells proxies that connections are upgraded (KEP-3726).
                app_protocol: Some("kubernetes.io/ws".to_owned()),
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
