//! The resource's definition: shapes and defaults from the Rust types, rules from the one table, bounds from here.

use serde_json::{Value, json};

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::resource::{ChatRoomStatus, PLURAL};
use crate::auth::Access;
use crate::chat_room::{API_GROUP, ChatRoomSpec, KIND};
use crate::duration::WireDuration;
use crate::rules::RULES;

/// The version that is served and stored.
pub(super) const VERSION: &str = "v1alpha1";

/// `kubectl get room` finds rooms.
pub const SHORT_NAME: &str = "room";

/// `kubectl get hubbub` finds everything of Hubbub's.
pub const CATEGORY: &str = "hubbub";

/// Sizes beyond which the API server does not look. They bound what the rules may cost, and lie above the rules' own
/// bounds, so that it is the rule, which says how to mend it, that speaks first.
const BOUNDS: &[(&str, &str, u64)] = &[
    ("spec.allowedOrigins", "maxItems", 96),
    ("spec.allowedOrigins[]", "maxLength", 512),
    ("spec.auth.jwt.issuer", "maxLength", 512),
    ("spec.auth.jwt.audiences", "maxItems", 32),
    ("spec.auth.jwt.audiences[]", "maxLength", 512),
    ("spec.auth.jwt.claim", "maxLength", 512),
    ("spec.auth.jwt.queryParameter", "maxLength", 128),
    ("spec.auth.jwt.jwks.inline", "maxLength", 131_072),
    ("spec.auth.jwt.jwks.configMap.name", "maxLength", 512),
    ("spec.auth.jwt.jwks.configMap.key", "maxLength", 512),
    ("spec.auth.jwt.jwks.url", "maxLength", 2048),
    ("spec.gateways.pool", "maxLength", 253),
    // Two DNS labels and the slash between them.
    ("status.operator", "maxLength", 127),
    // `/rooms/`, two DNS labels and the slash between them.
    ("status.path", "maxLength", 134),
];

/// The most characters that four pairs of five digits and a unit can have.
const MAX_DURATION_CHARACTERS: u64 = 28;

/// The `CustomResourceDefinition` of a `ChatRoom`, as JSON.
#[must_use]
pub fn custom_resource_definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{PLURAL}.{API_GROUP}"),
            "labels": {"app.kubernetes.io/part-of": "hubbub"},
        },
        "spec": {
            "group": API_GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": format!("{KIND}List"),
                "singular": KIND.to_lowercase(),
                "plural": PLURAL,
                "shortNames": [SHORT_NAME],
                "categories": [CATEGORY],
            },
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns(),
                "schema": {"openAPIV3Schema": schema()},
            }],
        },
    })
}

fn columns() -> Value {
    let ready = |field: &str| format!(".status.conditions[?(@.type==\"Ready\")].{field}");
    json!([
        {"name": "Ready", "type": "string", "jsonPath": ready("status"), "description": "Whether the room serves members as declared"},
        {"name": "Reason", "type": "string", "jsonPath": ready("reason"), "priority": 1, "description": "Why it does, or does not"},
        {"name": "Pool", "type": "string", "jsonPath": ".spec.gateways.pool", "description": "The pool of gateways that serves it"},
        {"name": "Gateways", "type": "integer", "jsonPath": ".status.gateways.ready", "description": "Gateways of the pool that serve"},
        {"name": "Connections", "type": "integer", "jsonPath": ".status.connections", "description": "Members, over all gateways"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ])
}

fn schema() -> Value {
    let mut status = schema_of::<ChatRoomStatus>();
    remove_defaults(&mut status);
    let mut root = json!({
        "type": "object",
        "description": "One chat room: who may enter it, how much it may carry, and how many gateways serve it.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "hubbub.dev/v1alpha1"},
            "kind": {"type": "string", "description": "ChatRoom"},
            // The name stands here only so that its rule can point at it; the API server has its own schema for the rest.
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 253}}},
            "spec": schema_of::<ChatRoomSpec>(),
            "status": status,
        },
    });
    for (path, keyword, value) in BOUNDS {
        at(&mut root, path)[*keyword] = json!(value);
    }
    for list in ["spec.allowedOrigins", "spec.auth.jwt.audiences"] {
        at(&mut root, list)["x-kubernetes-list-type"] = json!("set");
    }
    for rule in RULES.iter().filter(|rule| !rule.cel.is_empty()) {
        let mut validation = json!({"rule": rule.cel, "message": rule.message});
        // The API server then tells the field itself, not the group that holds it.
        let inner = rule.fields.first().and_then(|field| field.strip_prefix(rule.scope));
        if let Some(inner) = inner.filter(|inner| !inner.is_empty()) {
            validation["fieldPath"] = json!(format!(".{}", inner.trim_start_matches('.')));
        }
        let rules = &mut at(&mut root, rule.scope)["x-kubernetes-validations"];
        match rules.as_array_mut() {
            Some(rules) => rules.push(validation),
            None => *rules = json!([validation]),
        }
    }
    root
}

/// The schema of a field by its path; `[]` stands for the entries of a list.
fn at<'a>(root: &'a mut Value, path: &str) -> &'a mut Value {
    let (path, entries) = match path.strip_suffix("[]") {
        Some(path) => (path, true),
        None => (path, false),
    };
    let names = path.split('.').filter(|name| !name.is_empty());
    let field = names.fold(root, |schema, name| &mut schema["properties"][name]);
    if entries { &mut field["items"] } else { field }
}

fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.meta_schema = None;
        settings.inline_subschemas = true;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    to_structural(&mut schema);
    schema
}

/// From what schemars writes to what the API server takes: no titles, nothing nullable, integers of 64 bits whose bounds are
/// the rules', because those say how to mend them.
fn to_structural(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else { return };
    schema.remove("title");
    schema.remove("nullable");
    if schema.get("type") == Some(&json!("integer")) {
        schema.insert("format".to_owned(), json!("int64"));
        schema.remove("minimum");
        schema.remove("maximum");
    }
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.values_mut().for_each(to_structural);
    }
    if let Some(items) = schema.get_mut("items") {
        to_structural(items);
    }
}

/// A status tells what was seen; the API server must not make any of it up.
fn remove_defaults(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else { return };
    schema.remove("default");
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.values_mut().for_each(remove_defaults);
    }
}

/// Kubernetes' own conditions, merged by type, with the bounds of its API.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "description": "Accepted, Programmed and Ready; KeysResolved if the keys of its tokens stand elsewhere; and Paused while the room is.",
        "type": "array",
        "maxItems": 8,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {"type": "string", "maxLength": 316},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "reason": {"type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
                "message": {"type": "string", "maxLength": 32_768},
                "observedGeneration": {"type": "integer"},
                "lastTransitionTime": {"type": "string", "format": "date-time"},
            },
        },
    })
}

impl JsonSchema for Access {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Access".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({"type": "string", "enum": Self::NAMES})
    }
}

impl JsonSchema for WireDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": Self::PATTERN,
            "maxLength": MAX_DURATION_CHARACTERS,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Rule;

    /// Every schema with its path, the root's being empty.
    fn walk<'a>(schema: &'a Value, path: String, found: &mut Vec<(String, &'a Value)>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(property, format!("{path}.{name}"), found);
        }
        if schema["items"].is_object() {
            walk(&schema["items"], format!("{path}[]"), found);
        }
        found.push((path, schema));
    }

    fn all(schema: &Value) -> Vec<(String, &Value)> {
        let mut found = Vec::new();
        walk(schema, String::new(), &mut found);
        found
    }

    #[test]
    fn every_rule_with_a_cel_twin_stands_at_its_scope_and_names_a_field_that_exists() {
        let schema = schema();
        let mut shown = 0;
        for (path, part) in all(&schema) {
            for validation in part["x-kubernetes-validations"].as_array().into_iter().flatten() {
                let here = |rule: &&Rule| rule.scope == path.trim_start_matches('.');
                let same = |rule: &Rule| json!(rule.cel) == validation["rule"];
                let rule = RULES.iter().filter(here).find(|rule| same(rule));
                let rule = rule.unwrap_or_else(|| panic!("{path}: {validation} is no rule"));
                assert_eq!(validation["message"], rule.message);
                if let Some(field) = validation["fieldPath"].as_str() {
                    let pointer = field.replace('.', "/properties/");
                    assert!(part.pointer(&pointer).is_some(), "{field} in {path}");
                }
                shown += 1;
            }
        }
        assert_eq!(shown, RULES.iter().filter(|rule| !rule.cel.is_empty()).count());
    }

    #[test]
    fn everything_is_bounded_and_of_a_kind_that_the_api_server_takes() {
        let schema = schema();
        for (path, part) in all(&schema) {
            let kind =
                part["type"].as_str().unwrap_or_else(|| panic!("{path} has one type: {part}"));
            let free = [".apiVersion", ".kind"].contains(&path.as_str()) || part["enum"].is_array();
            match kind {
                "string" if !free && part["format"] != "date-time" => {
                    assert!(part["maxLength"].is_u64(), "{path} needs maxLength");
                }
                "array" => {
                    assert!(part["maxItems"].is_u64(), "{path} needs maxItems");
                    assert!(part["x-kubernetes-list-type"].is_string(), "{path} needs a list type");
                }
                "string" | "integer" | "boolean" | "object" => {}
                other => panic!("{path} is a {other}"),
            }
            for banned in ["nullable", "anyOf", "oneOf", "$ref", "additionalProperties"] {
                assert!(part.get(banned).is_none(), "{path} has {banned}");
            }
            assert_ne!(path, ".status.phase", "conditions tell it");
        }
    }

    #[test]
    fn defaults_are_those_of_the_types() {
        let schema = schema();
        let spec = &schema["properties"]["spec"]["properties"];
        let made = serde_json::to_value(ChatRoomSpec::new(Vec::new())).unwrap();
        assert_eq!(spec["auth"]["default"], json!({"anonymous": "ReadWrite"}));
        assert_eq!(spec["auth"]["properties"]["anonymous"]["default"], "None");
        for field in ["requireOrigin", "gateways", "limits", "heartbeat"] {
            assert_eq!(spec[field]["default"], made[field], "{field}");
            for (name, value) in made[field].as_object().into_iter().flatten() {
                assert_eq!(&spec[field]["properties"][name]["default"], value, "{field}.{name}");
            }
        }
        assert_eq!(schema["properties"]["spec"]["required"], json!(["allowedOrigins"]));
        assert!(
            all(&schema["properties"]["status"])
                .iter()
                .all(|(_, part)| part.get("default").is_none())
        );
    }
}
