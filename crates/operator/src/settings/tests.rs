//! What settings are read as, and what is said of those that cannot work.

use super::*;

const LEAST: &str = "nats: {url: 'nats://nats:4222'}\npools: {default: {image: 'hubbub:1'}}\n";

#[test]
fn the_least_is_enough() {
    let settings = Settings::parse(LEAST).unwrap();
    assert_eq!(settings.pool("default").min, 2);
    assert_eq!(settings.pool("default").image, "hubbub:1");
    assert_eq!(settings.pool("vip").min, 0, "only rooms ask for others");
    assert_eq!(settings.pool("vip").image, "hubbub:1");
}

#[test]
fn labels_and_flags_that_work_are_taken() {
    let text = "nats: {url: x}
pools: {default: {image: a, extraArgs: [--shards, '2', --log-format=text], extraEnv: [{name: HUBBUB_LOG, value: debug}],
  podLabels: {tier: '', example.com/x.1: A-b_c.9}, nodeSelector: {kubernetes.io/arch: amd64},
  podAnnotations: {example.com/note: any thing}}}";
    assert_eq!(Settings::parse(text).unwrap().pool("default").pod_labels.len(), 2);
}

#[test]
fn a_pool_takes_from_default_what_it_does_not_say() {
    let settings = Settings::parse(
        "
nats: {url: 'nats://nats:4222', credentialsSecret: {name: nats, key: gateway.creds}}
pools:
  default:
    min: 3
    image: hubbub:1
    resources: {requests: {cpu: 1, memory: 64Mi}}
    drain: {window: 10s}
    tls: {secretName: chat-tls}
  inner:
    tls: {secretName: ''}
  vip:
    image: hubbub:2
    extraArgs: [--log, debug]
",
    )
    .unwrap();
    let vip = settings.pool("vip");
    assert_eq!(vip.tls.secret_name, "chat-tls");
    assert!(!settings.pool("inner").tls.is_on(), "a pool behind a proxy");
    assert_eq!((vip.min, vip.image.as_str()), (0, "hubbub:2"));
    assert_eq!(vip.resources.requests["cpu"], Amount("1".to_owned()));
    assert_eq!(vip.drain.window, WireDuration::from_secs(10));
    assert_eq!(vip.drain.deadline, WireDuration::from_secs(30));
    assert_eq!(settings.pool("default").min, 3);
    assert!(settings.pool("default").extra_args.is_empty());
}

#[test]
fn what_cannot_work_is_told_with_its_place_and_remedy() {
    for (text, words) in [
        (
            "nats: {url: 'nats://n'}\npools: {default: {imge: a}}",
            "line 2: imge is not a setting: did you mean image?",
        ),
        ("nats: {uri: x}", "did you mean url?"),
        (
            "colour: red\nnats: {url: x}",
            "colour is not a setting: remove it (the settings here are nats, pools)",
        ),
        ("pools: {}", "missing field `nats`"),
        ("nats: {url: ''}", "nats.url: name the NATS servers"),
        ("nats: {url: x, inbox: '_INBOX.>'}", "nats.inbox: _INBOX.> cannot stand before"),
        ("nats: {url: ' , '}", "nats.url: no NATS server is named"),
        ("nats: {url: 'http://nats'}", "nats.url: http://nats is not a NATS URL"),
        ("nats: {url: 'nats://nats:70000'}", "write nats://host:port"),
        ("nats: {url: 'nats//nats:4222'}", "write nats://host:port"),
        (
            "nats: {url: 'nats://u:p@n', credentialsSecret: {name: a, key: b}}",
            "nats.url: the URL holds a login",
        ),
        (
            "nats: {url: x}\npools: {default: {image: a, resources: {requests: {memory: 64MB}}}}",
            "pools.default.resources.requests.memory: \"64MB\" is not a quantity: write such as 500m, 2, 64Mi",
        ),
        (
            "nats: {url: x}\npools: {default: {image: a}, vip: {resources: {limits: {cpu: -1}}}}",
            "pools.vip.resources.limits.cpu: \"-1\" is not a quantity",
        ),
        (
            "nats: {url: x}\npools: {default: {image: a, resources: {limits: {memroy: 1Gi}}}}",
            "pools.default.resources.limits.memroy: is not a resource: did you mean memory?",
        ),
        (
            "nats: {url: x}\npools: {default: {image: a, resources: {requests: {cpu: 2}, limits: {cpu: 500m}}}}",
            "resources.requests.cpu: 2 is more than the limit, 500m",
        ),
        (
            "nats: {url: x}\npools: {default: {image: 'a b'}}",
            "pools.default.image: \"a b\" is not the name of an image",
        ),
        (
            "nats: {url: x}\npools: {default: {image: a, service: {port: 0}}}",
            "pools.default.service.port: must be 1 to 65535",
        ),
        ("nats: {url: x}", "pools.default.image: is missing"),
        (
            "nats: {url: x}\npools: {default: {image: a, min: 501}}",
            "pools.default.min: must be at most 500",
        ),
        (
            "nats: {url: x}\npools: {A_b: {image: a}, default: {image: a}}",
            "pools.A_b: the pool's name must be a DNS label",
        ),
        (
            "nats: {url: x}\npools: {default: {image: a, drain: {deadline: 10s}}}",
            "make it at least settle plus window, 25s",
        ),
        ("nats: {url: x}\npools: {default: {image: a, drain: {window: 10}}}", "such as 60s"),
        (
            "nats: {url: x}\npools: {default: {image: a, limits: {trustedProxies: [10.0.0.0/8, proxy]}}}",
            "pools.default.limits.trustedProxies[1]: \"proxy\" must be an address or a network",
        ),
        (
            "nats: {url: x}\npools: {default: {image: a, limits: {trustedProxies: [10.1.0.0/8]}}}",
            "write 10.0.0.0/8",
        ),
        (
            "nats: {url: x}\npools: {default: {image: a, limits: {connectionsPerAdress: 5}}}",
            "did you mean connectionsPerAddress?",
        ),
        (
            "nats: {url: x}\npools: {default: {image: a, imagePullPolicy: Sometimes}}",
            "must be one of Always, IfNotPresent, Never",
        ),
        (
            "nats: {url: x}\npools: {default: {image: a, service: {type: Big}}}",
            "pools.default.service.type: must be one of ClusterIP",
        ),
        (
            "nats: {url: x}\npools: {default: {image: a, podLabels: {'a b': c}}}",
            "pools.default.podLabels: \"a b\" is no key: write such as tier",
        ),
        (
            "nats: {url: x}\npools: {default: {image: a, podLabels: {'/b': c}}}",
            "pools.default.podLabels: \"/b\" is no key",
        ),
        (
            "nats: {url: x}\npools: {default: {image: a, nodeSelector: {disk: 'very fast'}}}",
            "pools.default.nodeSelector.disk: \"very fast\" is no value of a label: at most 63",
        ),
        (
            "nats: {url: x}\npools: {default: {image: a, podAnnotations: {'-a': any thing}}}",
            "pools.default.podAnnotations: \"-a\" is no key",
        ),
        (
            "nats: {url: x}\npools: {default: {image: a}, vip: {extraArgs: [--log, debug, --pool=x]}}",
            "pools.vip.extraArgs[2]: --pool is set by the operator: remove it (a room names its pool",
        ),
        (
            "nats: {url: x}\npools: {default: {image: a, extraArgs: [--nats, y]}}",
            "pools.default.extraArgs[0]: --nats is set by the operator: remove it (set nats.url)",
        ),
        (
            "nats: {url: x}\npools: {default: {image: a, extraEnv: [{name: HUBBUB_DRAIN_WINDOW, value: 1s}]}}",
            "pools.default.extraEnv[0]: HUBBUB_DRAIN_WINDOW is set by the operator: remove it (set drain.window)",
        ),
        (
            "nats: {url: x, clientCertificateSecret: {name: 'A b'}}",
            "nats.clientCertificateSecret.name: \"A b\" is not the name of a secret",
        ),
        (
            "nats: {url: x, clientCertificateSecret: {name: ''}}",
            "nats.clientCertificateSecret.name: is empty: name a secret of the type kubernetes.io/tls",
        ),
        (
            "nats: {url: x}\npools: {default: {image: a}, vip: {tls: {secretName: Chat_TLS}}}",
            "pools.vip.tls.secretName: \"Chat_TLS\" is not the name of a secret: name one in",
        ),
        (
            "nats: {url: x}\npools: {default: {image: a, tls: {secret: chat}}}",
            "secret is not a setting: ",
        ),
        (
            "nats: {url: x}\npools: {default: {image: a, extraArgs: [--tls-key=a]}}",
            "pools.default.extraArgs[0]: --tls-key is set by the operator: remove it (set tls.secretName)",
        ),
        ("nats: [", "line"),
    ] {
        let error = Settings::parse(text).expect_err(text).to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
    let missing = Settings::read(Path::new("/nonexistent/settings.yaml")).unwrap_err();
    assert!(missing.to_string().contains("/nonexistent/settings.yaml"));
}
