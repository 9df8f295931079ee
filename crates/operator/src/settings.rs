//! The file of settings: how gateways of each pool are built. The chart renders it from its values.
//!
//! What a pool does not say it takes from the pool `default`, and what that does not say from here. A room may name a pool
//! that the file does not; it is built as `default` is. Keys that are not known are refused, with the nearest that is.

mod check;
mod door;
mod quantity;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use hubbub_api::{WireDuration, is_dns_label, names::DEFAULT_POOL, nearest, rules::MAX_GATEWAYS};
use k8s_openapi::api::{
    core::v1::{Affinity, EnvVar, Toleration},
    networking::v1::{NetworkPolicyEgressRule, NetworkPolicyPeer},
};
use serde::Deserialize;

pub use door::DoorLimits;

/// Gateways of the pool `default` when no room asks for more and the file does not say.
const DEFAULT_MIN: u32 = 2;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("the settings {} cannot be read", file.display())]
    File {
        /// Its name.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// What it says cannot be used.
    #[error("the settings {} are not in order", file.display())]
    Content {
        /// Its name.
        file: PathBuf,
        /// What is wrong.
        source: Box<SettingsError>,
    },
    /// The text is not of this shape.
    #[error("line {line}: {fault}")]
    Shape {
        /// The line, from 1; 0 if it is not known.
        line: u64,
        /// What is wrong, and what is right.
        fault: String,
    },
    /// A value cannot work.
    #[error("{field}: {fault}")]
    Value {
        /// The path of the field.
        field: String,
        /// What is wrong, and how to mend it.
        fault: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct File {
    nats: GatewayNats,
    #[serde(default)]
    pools: BTreeMap<String, PoolFile>,
}

/// How gateways reach NATS; the operator's own way is on its command line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GatewayNats {
    /// Servers, with commas between.
    pub url: String,
    /// A secret with a credentials file.
    pub credentials_secret: Option<SecretKey>,
    /// A secret with PEM certificates to trust.
    pub ca_secret: Option<SecretKey>,
    /// What stands before the names of gateways' inboxes.
    pub inbox: Option<String>,
    /// A secret of the type `kubernetes.io/tls` with a certificate to show.
    pub client_certificate_secret: Option<TlsSecret>,
}

/// One key of a secret in the release's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SecretKey {
    /// The secret's name.
    pub name: String,
    /// The key in it.
    pub key: String,
}

/// A secret in the release's namespace with the keys `tls.crt` and `tls.key`, as those of the type `kubernetes.io/tls` have.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TlsSecret {
    /// The secret's name.
    pub name: String,
}

/// How members come in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct TlsSettings {
    /// The secret of the type `kubernetes.io/tls` with the certificate that gateways show; empty for plain sockets.
    pub secret_name: String,
}

impl TlsSettings {
    /// Whether members come in by TLS.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.secret_name.is_empty()
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct PoolFile {
    min: Option<u32>,
    image: Option<String>,
    image_pull_policy: Option<String>,
    image_pull_secrets: Option<Vec<String>>,
    resources: Option<Resources>,
    extra_args: Option<Vec<String>>,
    extra_env: Option<Vec<EnvVar>>,
    drain: Option<Drain>,
    limits: Option<DoorLimits>,
    service: Option<ServiceSettings>,
    tls: Option<TlsSettings>,
    network_policy: Option<NetworkPolicySettings>,
    pod_labels: Option<BTreeMap<String, String>>,
    pod_annotations: Option<BTreeMap<String, String>>,
    node_selector: Option<BTreeMap<String, String>>,
    tolerations: Option<Vec<Toleration>>,
    affinity: Option<Affinity>,
    priority_class_name: Option<String>,
}

/// What a gateway may use, as Kubernetes writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Resources {
    /// What it is sure to get.
    pub requests: BTreeMap<String, Amount>,
    /// What it never gets more of.
    pub limits: BTreeMap<String, Amount>,
}

/// A quantity such as `500m` or `1Gi`; a bare number is one too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amount(pub String);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Whole(u64),
            Fraction(f64),
            Text(String),
        }
        Ok(Self(match Written::deserialize(deserializer)? {
            Written::Whole(number) => number.to_string(),
            Written::Fraction(number) => number.to_string(),
            Written::Text(text) => text,
        }))
    }
}

/// The times of a drain, as the gateway's flags of the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Drain {
    /// How long handshakes are still served.
    pub settle: WireDuration,
    /// Over how long members are then sent away.
    pub window: WireDuration,
    /// When whoever is still there is cut off.
    pub deadline: WireDuration,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            settle: WireDuration::from_secs(5),
            window: WireDuration::from_secs(20),
            deadline: WireDuration::from_secs(30),
        }
    }
}

/// The Service in front of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ServiceSettings {
    /// `ClusterIP`, `NodePort` or `LoadBalancer`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The port for members.
    pub port: u16,
    /// For load balancers of clouds.
    pub annotations: BTreeMap<String, String>,
}

impl Default for ServiceSettings {
    fn default() -> Self {
        Self { kind: "ClusterIP".to_owned(), port: 80, annotations: BTreeMap::new() }
    }
}

/// Who may talk to gateways, and to whom they may.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct NetworkPolicySettings {
    /// Whether there is a policy at all.
    pub enabled: bool,
    /// Who may read metrics on the admin port, beside the node's own probes.
    pub admin_from: Vec<NetworkPolicyPeer>,
    /// Further ways out, such as to a collector of traces.
    pub extra_egress: Vec<NetworkPolicyEgressRule>,
}

impl Default for NetworkPolicySettings {
    fn default() -> Self {
        Self { enabled: true, admin_from: Vec::new(), extra_egress: Vec::new() }
    }
}

/// Everything that is known of how to build a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSettings {
    /// The fewest gateways while the pool exists.
    pub min: u32,
    /// The gateway's image.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`; none leaves it to Kubernetes.
    pub image_pull_policy: Option<String>,
    /// Secrets in the release's namespace.
    pub image_pull_secrets: Vec<String>,
    /// What a gateway may use.
    pub resources: Resources,
    /// Further flags of the gateway.
    pub extra_args: Vec<String>,
    /// Further environment variables of the gateway.
    pub extra_env: Vec<EnvVar>,
    /// The times of the drain.
    pub drain: Drain,
    /// What is limited at the door.
    pub limits: DoorLimits,
    /// The Service.
    pub service: ServiceSettings,
    /// Whether members come in by TLS.
    pub tls: TlsSettings,
    /// The NetworkPolicy.
    pub network_policy: NetworkPolicySettings,
    /// Further labels of pods.
    pub pod_labels: BTreeMap<String, String>,
    /// Annotations of pods.
    pub pod_annotations: BTreeMap<String, String>,
    /// Labels that nodes must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that are tolerated.
    pub tolerations: Vec<Toleration>,
    /// Where pods would rather be.
    pub affinity: Option<Affinity>,
    /// Their priority.
    pub priority_class_name: Option<String>,
}

/// The settings, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How gateways reach NATS.
    pub nats: GatewayNats,
    pools: BTreeMap<String, PoolSettings>,
    default: PoolSettings,
}

impl Settings {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// [`SettingsError`], each with its remedy.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let file = || path.to_owned();
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::File { file: file(), source })?;
        Self::parse(&text)
            .map_err(|source| SettingsError::Content { file: file(), source: source.into() })
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// [`SettingsError`], each with its remedy.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let file: File = serde_yaml::from_str(text).map_err(|error| shape(&error))?;
        check::nats(&file.nats)?;
        let base = file.pools.get(DEFAULT_POOL).cloned().unwrap_or_default();
        let default = resolve(DEFAULT_POOL, PoolFile::default(), &base)?;
        let default = PoolSettings { min: base.min.unwrap_or(DEFAULT_MIN), ..default };
        let mut pools = BTreeMap::new();
        for (name, pool) in file.pools {
            if !is_dns_label(&name) {
                let fault = "the pool's name must be a DNS label: lower-case letters, digits and hyphens, at most 63";
                return Err(wrong(&format!("pools.{name}"), fault));
            }
            if name != DEFAULT_POOL {
                let settings = resolve(&name, pool, &base)?;
                pools.insert(name, settings);
            }
        }
        Ok(Self { nats: file.nats, default, pools })
    }

    /// The settings of a pool; those of `default`, but for its `min`, if the file does not name it.
    #[must_use]
    pub fn pool(&self, name: &str) -> PoolSettings {
        match self.pools.get(name) {
            Some(pool) => pool.clone(),
            None if name == DEFAULT_POOL => self.default.clone(),
            None => PoolSettings { min: 0, ..self.default.clone() },
        }
    }
}

fn resolve(name: &str, pool: PoolFile, base: &PoolFile) -> Result<PoolSettings, SettingsError> {
    let base = base.clone();
    let field = |field: &str| format!("pools.{name}.{field}");
    let Some(image) = pool.image.or(base.image).filter(|image| !image.trim().is_empty()) else {
        let fault =
            "is missing: name the gateway's image, here or for all pools at pools.default.image";
        return Err(wrong(&field("image"), fault));
    };
    let settings = PoolSettings {
        min: pool.min.unwrap_or_default(),
        image,
        image_pull_policy: pool.image_pull_policy.or(base.image_pull_policy),
        image_pull_secrets: pool.image_pull_secrets.or(base.image_pull_secrets).unwrap_or_default(),
        resources: pool.resources.or(base.resources).unwrap_or_default(),
        extra_args: pool.extra_args.or(base.extra_args).unwrap_or_default(),
        extra_env: pool.extra_env.or(base.extra_env).unwrap_or_default(),
        drain: pool.drain.or(base.drain).unwrap_or_default(),
        limits: pool.limits.or(base.limits).unwrap_or_default(),
        service: pool.service.or(base.service).unwrap_or_default(),
        tls: pool.tls.or(base.tls).unwrap_or_default(),
        network_policy: pool.network_policy.or(base.network_policy).unwrap_or_default(),
        pod_labels: pool.pod_labels.or(base.pod_labels).unwrap_or_default(),
        pod_annotations: pool.pod_annotations.or(base.pod_annotations).unwrap_or_default(),
        node_selector: pool.node_selector.or(base.node_selector).unwrap_or_default(),
        tolerations: pool.tolerations.or(base.tolerations).unwrap_or_default(),
        affinity: pool.affinity.or(base.affinity),
        priority_class_name: pool.priority_class_name.or(base.priority_class_name),
    };
    for (name, min) in [("min", Some(settings.min)), ("min", base.min)] {
        if min.is_some_and(|min| min > MAX_GATEWAYS) {
            return Err(wrong(&field(name), &format!("must be at most {MAX_GATEWAYS} gateways")));
        }
    }
    check::resources(&field("resources"), &settings.resources)?;
    check::labels(&field("podLabels"), &settings.pod_labels)?;
    check::labels(&field("nodeSelector"), &settings.node_selector)?;
    check::label_keys(&field("podAnnotations"), &settings.pod_annotations)?;
    check::label_keys(&field("service.annotations"), &settings.service.annotations)?;
    settings.limits.check(&field("limits"))?;
    check::secret_name(&field("tls.secretName"), &settings.tls.secret_name)?;
    check::extra(name, &settings.extra_args, &settings.extra_env)?;
    if settings.image.contains(char::is_whitespace) {
        let fault =
            format!("{:?} is not the name of an image: it has white space in it", settings.image);
        return Err(wrong(&field("image"), &fault));
    }
    if settings.service.port == 0 {
        return Err(wrong(&field("service.port"), "must be 1 to 65535, such as 80"));
    }
    let Drain { settle, window, deadline } = settings.drain;
    let least = WireDuration::from(*settle + *window);
    if deadline < least {
        let fault = format!(
            "{deadline} is before the members are away: make it at least settle plus window, {least}"
        );
        return Err(wrong(&field("drain.deadline"), &fault));
    }
    check::one_of(
        &field("imagePullPolicy"),
        settings.image_pull_policy.as_deref(),
        &["Always", "IfNotPresent", "Never"],
    )?;
    check::one_of(
        &field("service.type"),
        Some(&settings.service.kind),
        &["ClusterIP", "NodePort", "LoadBalancer"],
    )?;
    Ok(settings)
}

fn wrong(field: &str, fault: &str) -> SettingsError {
    SettingsError::Value { field: field.to_owned(), fault: fault.to_owned() }
}

/// The YAML library's error, in words that mend it.
fn shape(error: &serde_yaml::Error) -> SettingsError {
    let error = error.without_snippet();
    let line = error.location().map_or(0, |location| location.line());
    let fault = match error {
        serde_yaml::Error::SerdeUnknownField { field, expected, .. } => {
            match nearest(field, expected.iter().copied()) {
                Some(near) => format!("{field} is not a setting: did you mean {near}?"),
                None => format!(
                    "{field} is not a setting: remove it (the settings here are {})",
                    expected.join(", ")
                ),
            }
        }
        error => error.render(),
    };
    SettingsError::Shape { line, fault }
}
