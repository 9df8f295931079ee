//! TLS: what the operator is told, and all that reaches a pool's gateways from outside.

use hubbub_operator::settings::Settings;
use serde_json::{Value, json};

use crate::{cases, find, objects, render};

fn settings(objects: &[Value]) -> Settings {
    let settings = &find(objects, "ConfigMap", "hubbub-operator")["data"]["settings.yaml"];
    Settings::parse(settings.as_str().unwrap()).unwrap()
}

fn of_test(objects: &[Value]) -> Vec<String> {
    let arguments = &find(objects, "Pod", "hubbub-test")["spec"]["containers"][0]["args"];
    let arguments = arguments.as_array().unwrap().iter();
    arguments.map(|argument| argument.as_str().unwrap().to_owned()).collect()
}

const BACKEND: &str = "nginx.ingress.kubernetes.io/backend-protocol";

fn of_ingress(values: &Value) -> Value {
    let objects = objects(&render(values));
    find(&objects, "Ingress", "hubbub")["metadata"]["annotations"].clone()
}

#[test]
fn the_operator_the_proxy_and_the_test_know_which_pool_speaks_tls() {
    let objects = objects(&render(&cases()["TLS"]));
    let settings = settings(&objects);
    for (pool, secret) in
        [("default", "chat-tls"), ("vip", "chat-tls"), ("other", "chat-tls"), ("inner", "")]
    {
        assert_eq!(settings.pool(pool).tls.secret_name, secret, "{pool}");
    }
    let arguments = of_test(&objects);
    assert!(arguments[0].starts_with("wss://hubbub-default."), "{arguments:?}");
    assert!(arguments.iter().any(|argument| argument == "--tls-insecure"), "{arguments:?}");

    let host = json!(["chat.example.com"]);
    let encrypted = json!({"tls": {"secretName": "chat-tls"}});
    let ingress = |more: Value| {
        let mut ingress = json!({"enabled": true, "hosts": host});
        for (key, value) in more.as_object().unwrap() {
            ingress[key] = value.clone();
        }
        json!({"pools": {"default": encrypted, "inner": {"tls": {"secretName": ""}}}, "ingress": ingress})
    };
    let annotations = of_ingress(&ingress(json!({})));
    assert_eq!(annotations[BACKEND], "HTTPS");
    assert_eq!(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"], "3600", "beside it");
    assert_eq!(of_ingress(&ingress(json!({"annotations": {BACKEND: "GRPCS"}})))[BACKEND], "GRPCS");
    assert_eq!(of_ingress(&ingress(json!({"pool": "inner"})))[BACKEND], Value::Null);
}

#[test]
fn without_a_certificate_nothing_speaks_tls() {
    let values = json!({"ingress": {"enabled": true, "hosts": ["chat.example.com"]}});
    let objects = objects(&render(&values));
    assert!(!settings(&objects).pool("default").tls.is_on());
    let arguments = of_test(&objects);
    assert!(arguments[0].starts_with("ws://"), "{arguments:?}");
    assert!(!arguments.iter().any(|argument| argument == "--tls-insecure"), "{arguments:?}");
    assert_eq!(of_ingress(&values)[BACKEND], Value::Null);
}

#[test]
fn gateways_and_operator_show_nats_certificates_of_their_own() {
    let objects = objects(&render(&cases()["a NATS of one's own"]));
    let gateways = settings(&objects).nats.client_certificate_secret.unwrap();
    assert_eq!(gateways.name, "gateway-nats");
    let pod = &find(&objects, "Deployment", "hubbub-operator")["spec"]["template"]["spec"];
    let list = |value: &Value| value.as_array().unwrap().clone();
    let container = &pod["containers"][0];
    for (name, file) in [("HUBBUB_NATS_CERTIFICATE", "tls.crt"), ("HUBBUB_NATS_KEY", "tls.key")] {
        let value = json!({"name": name, "value": format!("/etc/hubbub/nats-certificate/{file}")});
        assert!(list(&container["env"]).contains(&value), "{name}");
    }
    let mount = json!({"name": "nats-certificate", "mountPath": "/etc/hubbub/nats-certificate", "readOnly": true});
    assert!(list(&container["volumeMounts"]).contains(&mount));
    let volume = |volume: &&Value| volume["name"] == "nats-certificate";
    let volumes = list(&pod["volumes"]);
    assert_eq!(volumes.iter().find(volume).unwrap()["secret"]["secretName"], "operator-nats");
}
