//! Runs the gateways: without rights, without a token, with time to drain.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, ExecAction,
            HTTPGetAction, KeyToPath, Lifecycle, LifecycleHandler, LocalObjectReference,
            ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
            ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext,
            TopologySpreadConstraint, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity, apis::meta::v1::ObjectMeta, util::intstr::IntOrString,
    },
};

use super::{ADMIN_PORT, Blueprint, PUBLIC_PORT};
use crate::settings::Amount;

/// Seconds between the end of a drain and the moment that Kubernetes kills the pod: for flushing and for a busy node.
const GRACE_MARGIN: i64 = 10;

/// Seconds that a gateway may take to start, beside those that it has to be ready, before a rollout counts as stuck.
const PROGRESS_MARGIN: i32 = 600;

/// The user that the image runs as.
const USER: i64 = 65_532;

const CONTAINER: &str = "gateway";

/// Where secrets are mounted, each in a folder of its name.
const SECRETS: &str = "/etc/hubbub";

/// The keys in a secret of the type `kubernetes.io/tls`.
const CERTIFICATE: &str = "tls.crt";
const PRIVATE_KEY: &str = "tls.key";

pub(super) fn of(blueprint: &Blueprint<'_>) -> Deployment {
    let settings = blueprint.settings;
    let mut labels = settings.pod_labels.clone();
    labels.extend(blueprint.labels());
    let drain = seconds(*settings.drain.settle + *settings.drain.window);
    Deployment {
        metadata: blueprint.metadata(),
        spec: Some(DeploymentSpec {
            replicas: i32::try_from(blueprint.replicas).ok(),
            revision_history_limit: Some(3),
            // In a rolling restart the next gateway begins to drain only when the last one is about empty, so members come
            // back at the pace of one drain, however many gateways there are.
            min_ready_seconds: Some(drain),
            progress_deadline_seconds: Some(drain.saturating_add(PROGRESS_MARGIN)),
            selector: blueprint.selector(),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                // Members move to a gateway that is there before the old one goes, one gateway at a time.
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    annotations: filled(&settings.pod_annotations),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(blueprint)),
            },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> i32 {
    i32::try_from(time.as_millis().div_ceil(1000)).unwrap_or(i32::MAX)
}

fn pod(blueprint: &Blueprint<'_>) -> PodSpec {
    let settings = blueprint.settings;
    let secrets = settings.image_pull_secrets.iter().cloned();
    let secrets: Vec<_> = secrets.map(|name| LocalObjectReference { name }).collect();
    let grace = i64::from(seconds(*settings.drain.deadline)).saturating_add(GRACE_MARGIN);
    PodSpec {
        service_account_name: Some(blueprint.name()),
        automount_service_account_token: Some(false),
        // Their variables begin with the names of Services, and ours with HUBBUB.
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(grace),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        topology_spread_constraints: Some(vec![TopologySpreadConstraint {
            max_skew: 1,
            topology_key: "kubernetes.io/hostname".to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(blueprint.selector()),
            ..TopologySpreadConstraint::default()
        }]),
        image_pull_secrets: Some(secrets).filter(|secrets| !secrets.is_empty()),
        node_selector: filled(&settings.node_selector),
        tolerations: Some(settings.tolerations.clone()).filter(|all| !all.is_empty()),
        affinity: settings.affinity.clone(),
        priority_class_name: settings.priority_class_name.clone(),
        volumes: Some(volumes(blueprint)).filter(|volumes| !volumes.is_empty()),
        containers: vec![container(blueprint)],
        ..PodSpec::default()
    }
}

fn container(blueprint: &Blueprint<'_>) -> Container {
    let settings = blueprint.settings;
    let port = |name: &str, number: u16| ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let mounts: Vec<_> = secrets(blueprint)
        .into_iter()
        .map(|Mounted { volume, .. }| VolumeMount {
            name: volume.to_owned(),
            mount_path: format!("{SECRETS}/{volume}"),
            read_only: Some(true),
            ..VolumeMount::default()
        })
        .collect();
    Container {
        name: CONTAINER.to_owned(),
        image: Some(settings.image.clone()),
        image_pull_policy: settings.image_pull_policy.clone(),
        args: Some(settings.extra_args.clone()).filter(|args| !args.is_empty()),
        env: Some(environment(blueprint)),
        ports: Some(vec![port("http", PUBLIC_PORT), port("admin", ADMIN_PORT)]),
        liveness_probe: Some(Probe { initial_delay_seconds: Some(10), ..probe("/livez", 10, 3) }),
        readiness_probe: Some(probe("/readyz", 2, 1)),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                // The image has no shell.
                exec: Some(ExecAction {
                    command: Some(vec!["hubbub-gateway".to_owned(), "drain".to_owned()]),
                }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        resources: Some(ResourceRequirements {
            requests: amounts(&settings.resources.requests),
            limits: amounts(&settings.resources.limits),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                ..Capabilities::default()
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(mounts).filter(|mounts| !mounts.is_empty()),
        // So that `kubectl describe pod` shows the sentence with which it has ended.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("admin".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(2),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn environment(blueprint: &Blueprint<'_>) -> Vec<EnvVar> {
    let drain = blueprint.settings.drain;
    let value = |name: &str, value: String| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        value_from: None,
    };
    let field = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
    };
    let mut variables = vec![
        field("HUBBUB_GATEWAY_ID", "metadata.name"),
        // What traces tell of the pod.
        field("HUBBUB_POD_NAME", "metadata.name"),
        field("HUBBUB_POD_NAMESPACE", "metadata.namespace"),
        field("HUBBUB_NODE_NAME", "spec.nodeName"),
        value("HUBBUB_POOL", blueprint.pool.to_owned()),
        value("HUBBUB_POLICIES", "nats".to_owned()),
        value("HUBBUB_NATS", blueprint.nats.url.clone()),
        value("HUBBUB_LISTEN", format!(":{PUBLIC_PORT}")),
        value("HUBBUB_ADMIN_LISTEN", format!(":{ADMIN_PORT}")),
        value("HUBBUB_DRAIN_SETTLE", drain.settle.to_string()),
        value("HUBBUB_DRAIN_WINDOW", drain.window.to_string()),
        value("HUBBUB_DRAIN_DEADLINE", drain.deadline.to_string()),
        value("HUBBUB_LOG_FORMAT", "json".to_owned()),
    ];
    let limits = blueprint.settings.limits.variables();
    variables.extend(limits.map(|(name, limit)| value(name, limit)));
    if let Some(inbox) = &blueprint.nats.inbox {
        variables.push(value("HUBBUB_NATS_INBOX", inbox.clone()));
    }
    for Mounted { volume, files, .. } in secrets(blueprint) {
        for (name, file) in files {
            variables.push(value(name, format!("{SECRETS}/{volume}/{file}")));
        }
    }
    // What the settings say of a variable holds: the API server wants each name once.
    let extra = &blueprint.settings.extra_env;
    variables.retain(|own| extra.iter().all(|variable| variable.name != own.name));
    variables.extend(extra.iter().cloned());
    variables
}

/// A secret of which a gateway has files.
struct Mounted<'a> {
    volume: &'static str,
    secret: &'a str,
    /// The variable that names each file to the gateway, and its key in the secret.
    files: Vec<(&'static str, &'a str)>,
}

fn secrets<'a>(blueprint: &'a Blueprint<'_>) -> Vec<Mounted<'a>> {
    let (nats, tls) = (blueprint.nats, &blueprint.settings.tls);
    let mut all = Vec::new();
    for (volume, variable, secret) in [
        ("nats-credentials", "HUBBUB_NATS_CREDENTIALS", &nats.credentials_secret),
        ("nats-ca", "HUBBUB_NATS_CA", &nats.ca_secret),
    ] {
        if let Some(secret) = secret {
            let files = vec![(variable, secret.key.as_str())];
            all.push(Mounted { volume, secret: &secret.name, files });
        }
    }
    if let Some(secret) = &nats.client_certificate_secret {
        let files =
            vec![("HUBBUB_NATS_CERTIFICATE", CERTIFICATE), ("HUBBUB_NATS_KEY", PRIVATE_KEY)];
        all.push(Mounted { volume: "nats-certificate", secret: &secret.name, files });
    }
    if tls.is_on() {
        let files = vec![("HUBBUB_TLS_CERTIFICATE", CERTIFICATE), ("HUBBUB_TLS_KEY", PRIVATE_KEY)];
        all.push(Mounted { volume: "tls", secret: &tls.secret_name, files });
    }
    all
}

fn volumes(blueprint: &Blueprint<'_>) -> Vec<Volume> {
    let item =
        |key: &str| KeyToPath { key: key.to_owned(), path: key.to_owned(), ..KeyToPath::default() };
    secrets(blueprint)
        .into_iter()
        .map(|Mounted { volume, secret, files }| Volume {
            name: volume.to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(secret.to_owned()),
                items: Some(files.into_iter().map(|(_, key)| item(key)).collect()),
                default_mode: Some(0o440),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        })
        .collect()
}

fn amounts(amounts: &BTreeMap<String, Amount>) -> Option<BTreeMap<String, Quantity>> {
    let amounts = amounts.iter().map(|(name, Amount(text))| (name.clone(), Quantity(text.clone())));
    Some(amounts.collect()).filter(|amounts: &BTreeMap<_, _>| !amounts.is_empty())
}

fn filled(map: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    Some(map.clone()).filter(|map| !map.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LEAST, children};
    use super::*;

    fn spec(yaml: &str) -> PodSpec {
        children(yaml, "default", 3).deployment.spec.unwrap().template.spec.unwrap()
    }

    #[test]
    fn a_gateway_has_no_rights() {
        let spec = spec(LEAST);
        assert_eq!(spec.automount_service_account_token, Some(false));
        let pod = spec.security_context.unwrap();
        assert_eq!(pod.run_as_non_root, Some(true));
        assert_eq!(pod.seccomp_profile.unwrap().type_, "RuntimeDefault");
        let container = spec.containers[0].security_context.clone().unwrap();
        assert_eq!(container.allow_privilege_escalation, Some(false));
        assert_eq!(container.read_only_root_filesystem, Some(true));
        assert_eq!(container.capabilities.unwrap().drop.unwrap(), ["ALL"]);
    }

    #[test]
    fn the_sentence_with_which_it_ends_is_in_the_status_of_the_pod() {
        let policy = spec(LEAST).containers[0].termination_message_policy.clone();
        assert_eq!(policy.as_deref(), Some("FallbackToLogsOnError"));
    }

    #[test]
    fn the_grace_period_follows_from_the_drain() {
        assert_eq!(spec(LEAST).termination_grace_period_seconds, Some(40));
        let short = "nats: {url: x}\npools: {default: {image: a, drain: {settle: 1s, window: 2s, deadline: 3500ms}}}";
        let spec = spec(short);
        assert_eq!(spec.termination_grace_period_seconds, Some(14));
        let rollout = children(short, "default", 3).deployment.spec.unwrap();
        assert_eq!(rollout.min_ready_seconds, Some(3), "one drain after the other");
        assert!(rollout.progress_deadline_seconds > rollout.min_ready_seconds);
        let window =
            |v: &EnvVar| v.name == "HUBBUB_DRAIN_WINDOW" && v.value.as_deref() == Some("2s");
        assert!(spec.containers[0].env.as_ref().unwrap().iter().any(window));
        let hook = spec.containers[0].lifecycle.clone().unwrap().pre_stop.unwrap();
        assert_eq!(hook.exec.unwrap().command.unwrap(), ["hubbub-gateway", "drain"]);
    }

    #[test]
    fn limits_at_the_door_are_variables_and_what_is_not_limited_is_none() {
        let spec = spec(
            "
nats: {url: x}
pools: {default: {image: a, limits: {trustedProxies: [10.0.0.0/8, 'fd00::/8'], connectionsPerAddress: 50, requestsPerSecond: 0}}}
",
        );
        let variables = spec.containers[0].env.as_ref().unwrap();
        let value = |name: &str| {
            let found = variables.iter().find(|variable| variable.name == name);
            found.and_then(|variable| variable.value.as_deref())
        };
        assert_eq!(value("HUBBUB_TRUSTED_PROXIES"), Some("10.0.0.0/8,fd00::/8"));
        assert_eq!(value("HUBBUB_CONNECTIONS_PER_ADDRESS"), Some("50"));
        assert_eq!(value("HUBBUB_REQUESTS_PER_SECOND"), None);
        assert_eq!(value("HUBBUB_REQUESTS_PER_ADDRESS"), None);
    }

    #[test]
    fn traces_are_told_where_a_gateway_runs() {
        let spec = spec(LEAST);
        let variables = spec.containers[0].env.as_ref().unwrap();
        for (name, path) in [
            ("HUBBUB_POD_NAME", "metadata.name"),
            ("HUBBUB_POD_NAMESPACE", "metadata.namespace"),
            ("HUBBUB_NODE_NAME", "spec.nodeName"),
        ] {
            let variable = variables.iter().find(|variable| variable.name == name).unwrap();
            let source = variable.value_from.as_ref().unwrap();
            assert_eq!(source.field_ref.as_ref().unwrap().field_path, path);
        }
    }

    #[test]
    fn secrets_are_files_and_variables_come_once() {
        let spec = spec(
            "
nats: {url: 'tls://nats', credentialsSecret: {name: nats, key: gw.creds}, caSecret: {name: ca, key: ca.crt},
  clientCertificateSecret: {name: gateway-nats}, inbox: _INBOX_gw}
pools: {default: {image: a, tls: {secretName: chat}, extraEnv: [{name: HUBBUB_LOG_FORMAT, value: text}]}}
",
        );
        let container = &spec.containers[0];
        let variables = container.env.as_ref().unwrap();
        let value = |name: &str| {
            let mut found = variables.iter().filter(|variable| variable.name == name);
            let value = found.next().and_then(|variable| variable.value.clone());
            assert!(found.next().is_none(), "{name} stands once");
            value
        };
        assert_eq!(
            value("HUBBUB_NATS_CREDENTIALS").unwrap(),
            "/etc/hubbub/nats-credentials/gw.creds"
        );
        assert_eq!(value("HUBBUB_NATS_CA").unwrap(), "/etc/hubbub/nats-ca/ca.crt");
        assert_eq!(value("HUBBUB_NATS_INBOX").unwrap(), "_INBOX_gw");
        for (name, file) in [
            ("HUBBUB_NATS_CERTIFICATE", "nats-certificate/tls.crt"),
            ("HUBBUB_NATS_KEY", "nats-certificate/tls.key"),
            ("HUBBUB_TLS_CERTIFICATE", "tls/tls.crt"),
            ("HUBBUB_TLS_KEY", "tls/tls.key"),
        ] {
            assert_eq!(value(name).unwrap(), format!("/etc/hubbub/{file}"));
        }
        assert_eq!(value("HUBBUB_LOG_FORMAT").unwrap(), "text");
        let volumes = spec.volumes.unwrap();
        let secrets: Vec<_> = volumes
            .iter()
            .map(|volume| volume.secret.as_ref().unwrap())
            .map(|secret| (secret.secret_name.as_deref().unwrap(), secret.items.as_ref().unwrap()))
            .map(|(name, items)| (name, items.iter().map(|item| &*item.key).collect::<Vec<_>>()))
            .collect();
        assert_eq!(
            secrets,
            [
                ("nats", vec!["gw.creds"]),
                ("ca", vec!["ca.crt"]),
                ("gateway-nats", vec!["tls.crt", "tls.key"]),
                ("chat", vec!["tls.crt", "tls.key"]),
            ]
        );
        let mounts = container.volume_mounts.as_ref().unwrap();
        assert_eq!(mounts.len(), 4);
        for (mount, volume) in mounts.iter().zip(&volumes) {
            assert_eq!((&mount.name, mount.read_only), (&volume.name, Some(true)));
            assert_eq!(mount.sub_path, None, "what is mounted by its path is never renewed");
        }
    }
}
