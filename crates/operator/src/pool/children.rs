//! The objects of a pool, each made anew from the settings whenever it is looked at. One file for each.

mod deployment;
mod network_policy;
mod pod_disruption_budget;
mod service;
mod service_account;

use std::collections::BTreeMap;

use hubbub_api::kubernetes::POOL_LABEL;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use sha2::{Digest as _, Sha256};

use crate::settings::{GatewayNats, PoolSettings};

/// Who manages what carries this in the label `app.kubernetes.io/managed-by`.
pub const MANAGER: &str = "hubbub-operator";

/// The longest name of a pool's objects. A Service's may have 63 characters, and pods add 11.
const MAX_NAME: usize = 52;

/// The port for members, in the pod.
const PUBLIC_PORT: u16 = 8080;

/// The port for probes, metrics and the drain hook.
const ADMIN_PORT: u16 = 9090;

/// What the objects of a pool are made of.
#[derive(Debug, Clone)]
pub(super) struct Blueprint<'a> {
    /// The release that the pool belongs to.
    pub(super) instance: &'a str,
    /// The namespace of the release.
    pub(super) namespace: &'a str,
    /// The pool.
    pub(super) pool: &'a str,
    /// How it is built.
    pub(super) settings: &'a PoolSettings,
    /// How its gateways reach NATS.
    pub(super) nats: &'a GatewayNats,
    /// How many gateways it has.
    pub(super) replicas: u32,
}

/// All objects of a pool.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Children {
    /// Runs the gateways.
    pub(super) deployment: Deployment,
    /// Leads members to them.
    pub(super) service: Service,
    /// Lets nodes be drained one gateway at a time.
    pub(super) pod_disruption_budget: PodDisruptionBudget,
    /// An account with no rights and no token.
    pub(super) service_account: ServiceAccount,
    /// Says who may talk to them, if there is to be one.
    pub(super) network_policy: Option<NetworkPolicy>,
}

impl Children {
    /// All objects of the pool, as they should be.
    #[must_use]
    pub(super) fn of(blueprint: &Blueprint<'_>) -> Self {
        Self {
            deployment: deployment::of(blueprint),
            service: service::of(blueprint),
            pod_disruption_budget: pod_disruption_budget::of(blueprint),
            service_account: service_account::of(blueprint),
            network_policy: network_policy::of(blueprint),
        }
    }
}

impl Blueprint<'_> {
    /// The name of all objects of the pool.
    #[must_use]
    pub(super) fn name(&self) -> String {
        name(self.instance, self.pool)
    }

    fn metadata(&self) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.name()),
            namespace: Some(self.namespace.to_owned()),
            labels: Some(self.labels()),
            ..ObjectMeta::default()
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.selected();
        for (key, value) in
            [("component", "gateway"), ("part-of", "hubbub"), ("managed-by", MANAGER)]
        {
            labels.insert(format!("app.kubernetes.io/{key}"), value.to_owned());
        }
        labels
    }

    /// The labels by which the pool's pods are found. They never change: a Deployment's selector cannot.
    fn selected(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("app.kubernetes.io/name".to_owned(), "hubbub-gateway".to_owned()),
            ("app.kubernetes.io/instance".to_owned(), self.instance.to_owned()),
            (POOL_LABEL.to_owned(), self.pool.to_owned()),
        ])
    }

    fn selector(&self) -> LabelSelector {
        LabelSelector { match_labels: Some(self.selected()), ..LabelSelector::default() }
    }
}

/// The selector, as the API server takes it, of everything that belongs to pools of this release.
#[must_use]
pub fn owned_by(instance: &str) -> String {
    format!("app.kubernetes.io/managed-by={MANAGER},app.kubernetes.io/instance={instance}")
}

/// The name of a pool's objects: release and pool, shortened with a hash if that is too long.
#[must_use]
pub fn name(instance: &str, pool: &str) -> String {
    let name = format!("{instance}-{pool}");
    if name.len() <= MAX_NAME {
        return name;
    }
    let hash: String =
        Sha256::digest(&name).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let kept = name.get(..MAX_NAME - 1 - hash.len()).unwrap_or_default();
    format!("{}-{hash}", kept.trim_end_matches('-'))
}

#[cfg(test)]
pub(crate) mod tests {
    use hubbub_api::is_dns_label;

    use super::*;
    use crate::settings::Settings;

    /// Makes the objects of a pool from a settings file.
    pub(crate) fn children(yaml: &str, pool: &str, replicas: u32) -> Children {
        let settings = Settings::parse(yaml).unwrap();
        let pool_settings = settings.pool(pool);
        Children::of(&Blueprint {
            instance: "hubbub",
            namespace: "chat",
            pool,
            settings: &pool_settings,
            nats: &settings.nats,
            replicas,
        })
    }

    pub(crate) const LEAST: &str =
        "nats: {url: 'nats://nats:4222'}\npools: {default: {image: 'hubbub:1'}}\n";

    #[test]
    fn names_are_readable_where_they_can_be_and_never_the_same() {
        assert_eq!(name("hubbub", "default"), "hubbub-default");
        let long = |end: char| name("hubbub", &format!("{}{end}", "a".repeat(62)));
        assert_ne!(long('x'), long('y'));
        assert!(is_dns_label(&long('x')) && long('x').len() <= MAX_NAME, "{}", long('x'));
        assert!(is_dns_label(&name("hubbub", &format!("{}-b", "a-".repeat(30)))));
    }

    #[test]
    fn everything_carries_the_labels_by_which_it_is_found_and_swept() {
        let Children {
            deployment,
            service,
            pod_disruption_budget,
            service_account,
            network_policy,
        } = children(LEAST, "vip", 3);
        let all = [
            &deployment.metadata,
            &service.metadata,
            &pod_disruption_budget.metadata,
            &service_account.metadata,
            &network_policy.unwrap().metadata,
        ];
        for metadata in all {
            assert_eq!(metadata.name.as_deref(), Some("hubbub-vip"));
            let labels = metadata.labels.as_ref().unwrap();
            assert_eq!(labels[POOL_LABEL], "vip");
            assert_eq!(labels["app.kubernetes.io/managed-by"], MANAGER);
            assert_eq!(labels["app.kubernetes.io/instance"], "hubbub");
        }
        let spec = deployment.spec.unwrap();
        let pod = spec.template.metadata.unwrap().labels.unwrap();
        for selected in [
            spec.selector.match_labels.unwrap(),
            service.spec.unwrap().selector.unwrap(),
            pod_disruption_budget.spec.unwrap().selector.unwrap().match_labels.unwrap(),
        ] {
            assert!(selected.iter().all(|(key, value)| pod.get(key) == Some(value)));
        }
        assert_eq!(pod["app.kubernetes.io/managed-by"], MANAGER, "the operator watches its pods");
    }
}
