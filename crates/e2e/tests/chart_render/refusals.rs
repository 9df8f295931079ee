//! Values that cannot work: each is refused before anything of a release changes.

use hubbub_operator::settings::Settings;
use serde_json::json;

use crate::{find, objects, render, render_with};

#[test]
fn what_is_wrong_is_refused_with_its_place() {
    for (values, words) in [
        (json!({"oprator": {}}), "additional properties 'oprator' not allowed"),
        (json!({"operator": {"replica": 2}}), "additional properties 'replica' not allowed"),
        (json!({"operator": {"replicas": 0}}), "/operator/replicas"),
        (json!({"operator": {"roomNamespaces": ["Demo"]}}), "/operator/roomNamespaces/0"),
        (json!({"pools": {"default": {"drian": {}}}}), "additional properties 'drian' not allowed"),
        (json!({"pools": {"default": {"drain": {"window": "20"}}}}), "/pools/default/drain/window"),
        (
            json!({"pools": {"default": {"limits": {"trustedProxies": ["proxy"]}}}}),
            "/pools/default/limits/trustedProxies/0",
        ),
        (
            json!({"pools": {"default": {"limits": {"connectionsPerAddress": -1}}}}),
            "/pools/default/limits/connectionsPerAddress",
        ),
        (json!({"pools": {"VIP": {}}}), "VIP"),
        (
            json!({"pools": {"default": {"service": {"type": "ExternalName"}}}}),
            "/pools/default/service/type",
        ),
        (json!({"nats": {"server": {"replicas": 2}}}), "/nats/server/replicas"),
        (json!({"image": {"pullPolicy": "Sometimes"}}), "/image/pullPolicy"),
        (json!({"nats": {"caSecret": {"name": "ca"}}}), "/nats/caSecret"),
        (
            json!({"nats": {"server": {"enabled": false}}}),
            "name yours in nats.url, or let the chart run one",
        ),
        (
            json!({"nats": {"gatewayCredentialsSecret": {"name": "nats", "key": "gw.creds"}}}),
            "nats.gatewayCredentialsSecret is for a NATS of your own",
        ),
        (
            json!({"nats": {"caSecret": {"name": "ca", "key": "ca.crt"}}}),
            "nats.caSecret is for a NATS of your own",
        ),
        (
            json!({"nats": {"gatewayClientCertificateSecret": {"name": "gateway-nats"}}}),
            "nats.gatewayClientCertificateSecret is for a NATS of your own",
        ),
        (
            json!({"nats": {"operatorClientCertificateSecret": {"name": "a", "key": "b"}}}),
            "additional properties 'key' not allowed",
        ),
        (
            json!({"pools": {"vip": {"tls": {"secretName": "Chat_TLS"}}}}),
            "/pools/vip/tls/secretName",
        ),
        (
            json!({"pools": {"vip": {"tls": {"secret": "chat"}}}}),
            "additional properties 'secret' not allowed",
        ),
        (
            json!({"nats": {
                "url": "nats://user:password@nats",
                "operatorCredentialsSecret": {"name": "nats", "key": "operator.creds"},
            }}),
            "nats.url holds a login, and nats.operatorCredentialsSecret another",
        ),
        (
            json!({"nats": {
                "url": "nats://nats",
                "gatewayCredentialsSecret": {"name": "nats", "key": "a.creds"},
                "operatorCredentialsSecret": {"name": "nats", "key": "a.creds"},
            }}),
            "nats.gatewayCredentialsSecret and nats.operatorCredentialsSecret are the same secret",
        ),
        (
            json!({"nats": {
                "url": "tls://nats",
                "gatewayClientCertificateSecret": {"name": "nats"},
                "operatorClientCertificateSecret": {"name": "nats"},
            }}),
            "nats.gatewayClientCertificateSecret and nats.operatorClientCertificateSecret are the same secret",
        ),
        (
            json!({"pools": {"vip": {"drain": {"settle": "10s", "window": "20s", "deadline": "29999ms"}}}}),
            "pools.vip.drain.deadline: 29999ms is before the members are away",
        ),
        (
            json!({"pools": {"default": {"drain": {"window": "1m30s"}}}}),
            "make it at least settle plus window, 5s and 1m30s",
        ),
        (json!({"operator": {"resources": {"limits": {"memroy": "1Gi"}}}}), "'memroy'"),
        (json!({"pools": {"vip": {"resources": {"requests": {"cpus": 1}}}}}), "'cpus'"),
        (
            json!({"ingress": {"enabled": true, "hosts": ["a.example"], "tls": [{"secret": "a"}]}}),
            "additional properties 'secret' not allowed",
        ),
        (json!({"traces": {"endpoint": "jaeger:4317"}}), "/traces/endpoint"),
        (json!({"traces": {"protocol": "http/json"}}), "/traces/protocol"),
        (json!({"traces": {"messageRatio": 2}}), "/traces/messageRatio"),
        (json!({"ingress": {"enabled": true}}), "ingress.hosts is empty: name the hosts"),
        (
            json!({"httpRoute": {"enabled": true}}),
            "httpRoute.parentRefs is empty: name the Gateway",
        ),
    ] {
        let error = render_with("HUBBUB_HELM", "hubbub", &values).expect_err(&values.to_string());
        assert!(error.contains(words), "{values}: {error}");
    }
}

/// Each alone: nothing else in the values is wrong.
#[test]
fn an_address_of_nats_that_cannot_work_is_refused() {
    for url in [
        "foo",
        "foo:4222",
        "http://foo",
        "ws://foo",
        "nats//foo",
        "nats:/foo",
        "nats:foo",
        "nats://",
        "nats://:4222",
        "nats://a:99999",
        "nats://a:65536",
        "nats://a:0",
        "nats://a:",
        "nats://a:4222x",
        "nats://a b",
        "nats://a/b",
        "nats://a?b",
        "nats://a#b",
        "nats://a,",
        "nats://a,,nats://b",
        "nats://a,foo",
        "nats://a nats://b",
        ",",
        " ",
    ] {
        let values = json!({"nats": {"url": url}});
        let refused = render_with("HUBBUB_HELM", "hubbub", &values).err();
        let refused = refused.unwrap_or_else(|| panic!("{url:?} is taken"));
        let by_schema = refused.contains("at '/nats/url'");
        assert!(by_schema || refused.contains("nats.url: there is no port"), "{url:?}: {refused}");
        let others = refused.lines().filter(|line| line.contains("- at '")).count();
        assert_eq!(others, usize::from(by_schema), "something else is wrong: {refused}");
    }
}

#[test]
fn an_address_of_nats_that_can_work_is_taken_by_chart_and_operator() {
    for url in [
        "nats://a",
        "nats://a/",
        "tls://nats-0.example.com:4222",
        "nats://10.0.0.1:1,nats://a_b:65535",
        "nats://[fd00::1]:4222",
        "nats://user:p%40ss@a:4222",
        " nats://a , tls://b ",
    ] {
        let objects = objects(&render(&json!({"nats": {"url": url}})));
        let settings = &find(&objects, "ConfigMap", "hubbub-operator")["data"]["settings.yaml"];
        let settings = Settings::parse(settings.as_str().unwrap());
        let settings = settings.unwrap_or_else(|error| panic!("{url:?}: {error}"));
        assert_eq!(settings.nats.url.trim(), url.trim());
    }
}

/// To the millisecond, and by the same words.
#[test]
fn chart_and_operator_refuse_the_same_drains() {
    for (settle, window, deadline, works) in [
        ("5s", "20s", "25s", true),
        ("5s", "20s", "24999ms", false),
        ("500ms", "1m30s", "90500ms", true),
        ("500ms", "1m30s", "1m30s499ms", false),
        ("0s", "1h1m", "3660s", true),
        ("08s", "1s", "9s", true),
        ("08s", "1s", "8s", false),
    ] {
        let drain = json!({"settle": settle, "window": window, "deadline": deadline});
        let values = json!({"pools": {"vip": {"drain": drain}}});
        let rendered = render_with("HUBBUB_HELM", "hubbub", &values);
        assert_eq!(rendered.is_ok(), works, "{drain}: {rendered:?}");
        let settings =
            format!("nats: {{url: a}}\npools: {{default: {{image: a}}, vip: {{drain: {drain}}}}}");
        let taken = Settings::parse(&settings);
        assert_eq!(taken.is_ok(), works, "{drain}: {taken:?}");
        if let (Err(chart), Err(operator)) = (rendered, taken) {
            let words = "pools.vip.drain.deadline: ";
            let same = "is before the members are away: make it at least settle plus window, ";
            let operator = operator.to_string();
            for said in [&chart, &operator] {
                assert!(said.contains(words) && said.contains(same), "{said}");
            }
        }
    }
}
