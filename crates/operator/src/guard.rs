//! A room as the API server has it, readable or not, so that one that cannot be read keeps no other from being read.
//!
//! kube has such a guard, but its error does not say which field is wrong.

use std::{borrow::Cow, sync::Arc};

use hubbub_api::kubernetes::ChatRoomResource;
use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

/// A room, or what is known of one that cannot be read.
#[derive(Debug, Clone)]
pub struct GuardedRoom(pub Result<Arc<ChatRoomResource>, Unreadable>);

/// A room that cannot be read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Unreadable {
    /// Its metadata, which can.
    pub metadata: ObjectMeta,
    /// The operator that its status names.
    pub operator: Option<String>,
    /// The field that is wrong, and why.
    pub error: String,
}

impl<'de> Deserialize<'de> for GuardedRoom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Value::deserialize(deserializer)?;
        let read: Result<ChatRoomResource, _> = serde_path_to_error::deserialize(&object);
        Ok(Self(match read {
            Ok(room) => Ok(Arc::new(room)),
            Err(error) => {
                let metadata =
                    ObjectMeta::deserialize(object.get("metadata").unwrap_or(&Value::Null))
                        .map_err(D::Error::custom)?;
                // Of what is missing at the top there is no path.
                let field = match error.path().to_string().as_str() {
                    "." => String::new(),
                    path => format!("{path}: "),
                };
                let operator = object.pointer("/status/operator").and_then(Value::as_str);
                let operator = operator.map(str::to_owned);
                Err(Unreadable {
                    metadata,
                    operator,
                    error: format!("{field}{}", error.into_inner()),
                })
            }
        }))
    }
}

impl GuardedRoom {
    /// The operator that its status names, as `namespace/instance`.
    #[must_use]
    pub fn operator(&self) -> Option<&str> {
        match &self.0 {
            Ok(room) => room.status.as_ref()?.operator.as_deref(),
            Err(unreadable) => unreadable.operator.as_deref(),
        }
    }

    /// Whether its condition `Ready` is true.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let status = self.0.as_ref().ok().and_then(|room| room.status.as_ref());
        let conditions = status.map_or(&[][..], |status| &status.conditions);
        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    }
}

impl Resource for GuardedRoom {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(dynamic: &()) -> Cow<'_, str> {
        ChatRoomResource::kind(dynamic)
    }

    fn group(dynamic: &()) -> Cow<'_, str> {
        ChatRoomResource::group(dynamic)
    }

    fn version(dynamic: &()) -> Cow<'_, str> {
        ChatRoomResource::version(dynamic)
    }

    fn plural(dynamic: &()) -> Cow<'_, str> {
        ChatRoomResource::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.0 {
            Ok(room) => &room.metadata,
            Err(unreadable) => &unreadable.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(room) => &mut Arc::make_mut(room).metadata,
            Err(unreadable) => &mut unreadable.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_field_that_is_wrong_is_named() {
        for (spec, words) in [
            (
                json!({"allowedOrigins": {"not": "a list"}}),
                "spec.allowedOrigins: invalid type: map",
            ),
            (json!({"allowedOrigins": ["*", 5]}), "spec.allowedOrigins[1]: invalid type"),
            (
                json!({"allowedOrigins": ["*"], "limits": {"burst": "many"}}),
                "spec.limits.burst: invalid type: string",
            ),
            (
                json!({"allowedOrigins": ["*"], "heartbeat": {"pingPeriod": 7}}),
                "spec.heartbeat.pingPeriod: ",
            ),
            (json!({}), "spec: missing field `allowedOrigins`"),
        ] {
            let object = json!({"metadata": {"name": "a", "finalizers": ["b"]}, "spec": spec,
                "status": {"operator": "c/d"}});
            let room: GuardedRoom = serde_json::from_value(object).unwrap();
            assert_eq!(room.operator(), Some("c/d"));
            let unreadable = room.0.unwrap_err();
            assert!(unreadable.error.contains(words), "{}", unreadable.error);
            assert_eq!(unreadable.metadata.finalizers, Some(vec!["b".to_owned()]));
        }
        let without = json!({"metadata": {"name": "a"}});
        let room: GuardedRoom = serde_json::from_value(without).unwrap();
        assert_eq!(room.0.unwrap_err().error, "missing field `spec`");
        let good = json!({"metadata": {"name": "a"}, "spec": {"allowedOrigins": ["*"]}});
        let room: GuardedRoom = serde_json::from_value(good).unwrap();
        assert_eq!(room.meta().name.as_deref(), Some("a"));
        assert!(room.0.is_ok());
    }
}
