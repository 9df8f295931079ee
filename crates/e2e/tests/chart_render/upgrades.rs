//! What an upgrade restarts: a workload whose pods' template changes.

use std::collections::BTreeMap;

use hubbub_e2e::chart_of_version;
use serde_json::{Value, json};

use crate::{cases, objects, render, render_chart};

/// The templates of pods by workload, and the labels of the workload itself.
fn workloads(rendered: &str) -> BTreeMap<String, (Value, Value)> {
    let objects = objects(rendered);
    let with_pods = objects.iter().filter(|object| object["spec"]["template"].is_object());
    with_pods
        .map(|object| {
            let metadata = &object["metadata"];
            let name = format!("{}/{}", object["kind"], metadata["name"]).replace('"', "");
            (name, (object["spec"]["template"].clone(), metadata["labels"].clone()))
        })
        .collect()
}

/// The values, with an image that does not come from the chart's version.
fn with_image(values: &Value) -> Value {
    let mut values = values.clone();
    values["image"]["tag"] = json!("1.2.3");
    values
}

#[test]
fn a_new_version_of_the_chart_alone_restarts_nothing() {
    let other = chart_of_version("0.0.9");
    for (case, values) in cases() {
        let values = with_image(&values);
        let now = workloads(&render(&values));
        let before = render_chart("HUBBUB_HELM", other.path(), "hubbub", &values).unwrap();
        let before = workloads(&before);
        assert!(now.contains_key("Deployment/hubbub-operator"), "{case}: {:?}", now.keys());
        assert!(now.contains_key("Job/hubbub-uninstall"), "{case}: {:?}", now.keys());
        assert_eq!(
            now.contains_key("StatefulSet/hubbub-nats"),
            case != "a NATS of one's own",
            "{case}"
        );
        assert_eq!(now.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>(), "{case}");
        for (name, (template, labels)) in &now {
            let (old_template, old_labels) = &before[name];
            assert_eq!(template.to_string(), old_template.to_string(), "{case}: {name}");
            assert_ne!(labels, old_labels, "{case}: {name} tells its version");
        }
    }
}

#[test]
fn labels_of_users_are_on_pods_too() {
    for (name, (template, _)) in workloads(&render(&json!({"commonLabels": {"team": "chat"}}))) {
        assert_eq!(template["metadata"]["labels"]["team"], "chat", "{name}");
    }
}

/// Of each value, the workloads that it restarts. What gateways are made of is in the operator's settings.
#[test]
fn a_value_restarts_what_reads_it_and_nothing_else() {
    let (operator, nats) = ("Deployment/hubbub-operator", "StatefulSet/hubbub-nats");
    let before = workloads(&render(&with_image(&json!({}))));
    for (values, restarts) in [
        (json!({"operator": {"log": "debug"}}), vec![operator]),
        (json!({"operator": {"replicas": 3}}), vec![]),
        (json!({"operator": {"networkPolicy": {"enabled": false}}}), vec![]),
        (json!({"monitoring": {"podMonitor": {"enabled": true}}}), vec![]),
        (json!({"pools": {"default": {"podAnnotations": {"a": "b"}}}}), vec![operator]),
        (json!({"pools": {"default": {"min": 3}}}), vec![operator]),
        (json!({"pools": {"default": {"tls": {"secretName": "chat-tls"}}}}), vec![operator]),
        (json!({"nats": {"server": {"podAnnotations": {"a": "b"}}}}), vec![nats]),
        (json!({"nats": {"server": {"replicas": 3}}}), vec![operator, nats]),
    ] {
        let after = workloads(&render(&with_image(&values)));
        let restarted =
            [operator, nats].into_iter().filter(|name| before[*name].0 != after[*name].0);
        assert_eq!(restarted.collect::<Vec<_>>(), restarts, "{values}");
    }
}

#[test]
fn every_container_leaves_its_last_words_in_the_status_of_its_pod() {
    for object in objects(&render(&json!({}))) {
        let pod = if object["kind"] == "Pod" {
            &object["spec"]
        } else {
            &object["spec"]["template"]["spec"]
        };
        for container in pod["containers"].as_array().into_iter().flatten() {
            let policy = &container["terminationMessagePolicy"];
            assert_eq!(policy, "FallbackToLogsOnError", "{}", container["name"]);
        }
    }
}
