//! Who owns which fields of an object, by what the API server keeps in `metadata.managedFields`. Pure.
//!
//! An apply takes away only what its own manager had applied before. What somebody else has added inside an object of a
//! pool, a container or a port, would stay for ever; so it is made ours first, and the apply that follows takes it away.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use serde_json::{Map, Value};

use crate::context::FIELD_MANAGER;

/// What others may say of an object. All else in it is the operator's.
const OTHERS_MAY: [&[&str]; 7] = [
    // Labels, annotations and finalizers, where controllers and people keep their notes: a Deployment's revision, a load
    // balancer's clean-up. What the operator has put there itself is compared by its value.
    &["f:metadata"],
    &["f:status"],
    // How `kubectl rollout restart` asks for new pods.
    &["f:spec", "f:template", "f:metadata", "f:annotations", "f:kubectl.kubernetes.io/restartedAt"],
    // Load balancers of some makers keep here who they are, which cannot be taken back, and the address they gave.
    &["f:spec", "f:loadBalancerClass"],
    &["f:spec", "f:loadBalancerIP"],
    // Some distributions give every ServiceAccount secrets of their own, again and again.
    &["f:secrets"],
    &["f:imagePullSecrets"],
];

/// Stands for the map or the entry itself.
const ITSELF: &str = ".";

type Fields = Map<String, Value>;

/// What others own of an object although it is not theirs to say.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Additions {
    /// As `managedFields` writes them.
    fields: Fields,
    /// The field managers, in order and each once.
    managers: Vec<String>,
}

impl Additions {
    /// Those in an object with these entries.
    pub(super) fn of(entries: &[ManagedFieldsEntry]) -> Self {
        let own = own(entries);
        let mut found = Self::default();
        for entry in entries.iter().filter(|entry| !is_own(entry)) {
            let (_, taken) = split(&fields(entry), &OTHERS_MAY);
            let added = without(&taken, &own);
            if !added.is_empty() {
                merge(&mut found.fields, &added);
                found.managers.extend(entry.manager.clone());
            }
        }
        found.managers.sort();
        found.managers.dedup();
        found
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The field managers, for people.
    pub(super) fn managers(&self) -> String {
        self.managers.join(", ")
    }
}

/// The entries by which everything that is not for others to say is the operator's. `version` is the object's
/// `apiVersion`.
pub(super) fn adopted(entries: &[ManagedFieldsEntry], version: &str) -> Vec<ManagedFieldsEntry> {
    let mut own = own(entries);
    let mut others = Vec::new();
    for entry in entries.iter().filter(|entry| !is_own(entry)) {
        let (kept, taken) = split(&fields(entry), &OTHERS_MAY);
        merge(&mut own, &taken);
        if !kept.is_empty() {
            let fields_v1 = Some(FieldsV1(Value::Object(kept)));
            others.push(ManagedFieldsEntry { fields_v1, ..entry.clone() });
        }
    }
    let before = entries.iter().find(|entry| is_own(entry)).cloned();
    let before = before.unwrap_or_else(|| ManagedFieldsEntry {
        manager: Some(FIELD_MANAGER.to_owned()),
        operation: Some("Apply".to_owned()),
        api_version: Some(version.to_owned()),
        fields_type: Some("FieldsV1".to_owned()),
        ..ManagedFieldsEntry::default()
    });
    others.push(ManagedFieldsEntry { fields_v1: Some(FieldsV1(Value::Object(own))), ..before });
    others
}

fn is_own(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(FIELD_MANAGER)
        && entry.operation.as_deref() == Some("Apply")
        && entry.subresource.is_none()
}

fn own(entries: &[ManagedFieldsEntry]) -> Fields {
    entries.iter().find(|entry| is_own(entry)).map(fields).unwrap_or_default()
}

fn fields(entry: &ManagedFieldsEntry) -> Fields {
    match &entry.fields_v1 {
        Some(FieldsV1(Value::Object(fields))) => fields.clone(),
        _ => Fields::new(),
    }
}

/// The fields under these paths, and all others.
fn split(fields: &Fields, paths: &[&[&str]]) -> (Fields, Fields) {
    let (mut under, mut beside) = (Fields::new(), Fields::new());
    for (key, value) in fields {
        let tails: Vec<&[&str]> = paths
            .iter()
            .filter_map(|path| path.split_first())
            .filter(|(head, _)| **head == key.as_str())
            .map(|(_, tail)| tail)
            .collect();
        let whole = key == ITSELF || tails.iter().any(|tail| tail.is_empty());
        match value {
            _ if whole => {
                under.insert(key.clone(), value.clone());
            }
            Value::Object(inner) if !tails.is_empty() => {
                let (one, other) = split(inner, &tails);
                for (side, part) in [(&mut under, one), (&mut beside, other)] {
                    if !part.is_empty() {
                        side.insert(key.clone(), Value::Object(part));
                    }
                }
            }
            _ => {
                beside.insert(key.clone(), value.clone());
            }
        }
    }
    (under, beside)
}

/// Adds `more` to `fields`.
fn merge(fields: &mut Fields, more: &Fields) {
    for (key, value) in more {
        match (fields.get_mut(key), value) {
            (Some(Value::Object(there)), Value::Object(value)) => merge(there, value),
            (Some(_), _) => {}
            (None, value) => {
                fields.insert(key.clone(), value.clone());
            }
        }
    }
}

/// `fields`, but for what `others` have too.
fn without(fields: &Fields, others: &Fields) -> Fields {
    let rest = fields.iter().filter_map(|(key, value)| match (value, others.get(key)) {
        (value, None) => Some((key.clone(), value.clone())),
        (Value::Object(value), Some(Value::Object(other)))
            if !value.is_empty() && !other.is_empty() =>
        {
            let rest = without(value, other);
            (!rest.is_empty()).then(|| (key.clone(), Value::Object(rest)))
        }
        // A list or map that is owned as a whole.
        _ => None,
    });
    rest.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(manager: &str, operation: &str, fields: Value) -> ManagedFieldsEntry {
        ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            operation: Some(operation.to_owned()),
            api_version: Some("apps/v1".to_owned()),
            fields_v1: Some(FieldsV1(fields)),
            ..ManagedFieldsEntry::default()
        }
    }

    fn ours() -> ManagedFieldsEntry {
        entry(
            FIELD_MANAGER,
            "Apply",
            json!({"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
                "k:{\"name\":\"gateway\"}": {".": {}, "f:image": {}}
            }}}}}),
        )
    }

    fn sidecar() -> ManagedFieldsEntry {
        entry(
            "kubectl-edit",
            "Update",
            json!({"f:metadata": {"f:annotations": {"f:note": {}}}, "f:spec": {"f:template": {"f:spec": {
                "f:containers": {
                    "k:{\"name\":\"gateway\"}": {"f:args": {}},
                    "k:{\"name\":\"sidecar\"}": {".": {}, "f:image": {}}
                }
            }}}}),
        )
    }

    #[test]
    fn what_others_add_inside_is_found_and_made_ours() {
        let entries = [sidecar(), ours()];
        let additions = Additions::of(&entries);
        assert_eq!(additions.managers(), "kubectl-edit");
        let adopted = adopted(&entries, "apps/v1");
        assert_eq!(adopted.len(), 2);
        let notes = json!({"f:metadata": {"f:annotations": {"f:note": {}}}});
        assert_eq!(adopted[0].fields_v1, Some(FieldsV1(notes)), "their notes stay theirs");
        let containers = json!({
            "k:{\"name\":\"gateway\"}": {".": {}, "f:image": {}, "f:args": {}},
            "k:{\"name\":\"sidecar\"}": {".": {}, "f:image": {}}
        });
        let own = adopted[1].fields_v1.clone().unwrap().0;
        assert_eq!(own["f:spec"]["f:template"]["f:spec"]["f:containers"], containers);
        assert_eq!(own["f:spec"]["f:replicas"], json!({}));
        assert!(Additions::of(&adopted).is_empty());
    }

    #[test]
    fn an_object_that_was_never_ours_becomes_so() {
        let adopted = adopted(&[sidecar()], "apps/v1");
        let own = adopted.iter().find(|entry| is_own(entry)).unwrap();
        assert_eq!(own.api_version.as_deref(), Some("apps/v1"));
        assert!(Additions::of(&adopted).is_empty());
    }

    #[test]
    fn what_others_may_say_is_no_addition() {
        let restarted = json!({"f:spec": {"f:template": {"f:metadata": {"f:annotations": {
            ".": {}, "f:kubectl.kubernetes.io/restartedAt": {}
        }}}}});
        let revision = json!({
            "f:metadata": {"f:annotations": {".": {}, "f:deployment.kubernetes.io/revision": {}}},
            "f:status": {"f:replicas": {}}
        });
        let same = json!({"f:spec": {"f:replicas": {}}});
        let secrets = json!({"f:secrets": {"k:{\"name\":\"pull\"}": {".": {}}}});
        let balancer = json!({"f:spec": {"f:loadBalancerClass": {}, "f:loadBalancerIP": {}}});
        for fields in [restarted, revision, same, secrets, balancer] {
            let entries = [entry("kubectl", "Update", fields.clone()), ours()];
            assert!(Additions::of(&entries).is_empty(), "{fields}");
        }
        let label = json!({"f:spec": {"f:template": {"f:metadata": {"f:labels": {"f:x": {}}}}}});
        assert!(!Additions::of(&[entry("kubectl", "Update", label), ours()]).is_empty());
    }

    #[test]
    fn a_map_that_is_owned_as_a_whole_is_lost_as_a_whole() {
        let selector = json!({"f:spec": {"f:selector": {}}});
        let theirs = entry("kubectl-patch", "Update", selector.clone());
        assert!(!Additions::of(&[theirs.clone(), ours()]).is_empty());
        let both = [theirs, entry(FIELD_MANAGER, "Apply", selector)];
        assert!(Additions::of(&both).is_empty());
    }
}
