//! The control plane that other tests build on does what they take for granted.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use hubbub_testkit::{Cluster, ControlPlane, Controllers, Kubectl, eventually, within};
use serde_json::Value;
use tokio::net::TcpStream;

/// `kubectl` with another kubeconfig. The last `--kubeconfig` wins.
fn with_kubeconfig<'a>(path: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--kubeconfig", path]].concat()
}

async fn resource_version(kubectl: &Kubectl, object: &str) -> String {
    let object = kubectl.json(&["get", object]).await;
    object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

/// The processes that have this folder in their command line.
fn processes_of(folder: &Path) -> Vec<PathBuf> {
    let folder = folder.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let is_of = |process: &PathBuf| {
        let command = std::fs::read(process.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(folder)
    };
    processes.filter(is_of).collect()
}

#[tokio::test]
async fn a_service_account_may_do_what_a_role_grants_and_no_more() {
    let cluster = Cluster::shared().await;
    let kubectl = cluster.kubectl();
    let namespace = cluster.namespace("grants").await;
    let in_namespace = format!("--namespace={}", namespace.name());
    kubectl.run(&["create", "serviceaccount", "robot", &in_namespace]).await;
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let text = kubectl.service_account_kubeconfig(namespace.name(), "robot").await;
    std::fs::write(&kubeconfig, text).unwrap();
    let kubeconfig = kubeconfig.to_str().unwrap();
    let list = with_kubeconfig(kubeconfig, &["get", "configmaps", &in_namespace]);

    let refused = kubectl.try_run(&list).await.unwrap_err();
    let robot = format!("system:serviceaccount:{}:robot", namespace.name());
    assert!(refused.contains("is forbidden") && refused.contains(&robot), "{refused}");

    let reader = ["create", "role", "reader", "--verb=get,list", "--resource=configmaps"];
    kubectl.run(&[&reader[..], &[&in_namespace]].concat()).await;
    let subject = format!("--serviceaccount={}:robot", namespace.name());
    let binding = ["create", "rolebinding", "reader", "--role=reader", &subject, &in_namespace];
    kubectl.run(&binding).await;
    // The API server's own view of roles follows the store with a delay.
    let can = with_kubeconfig(kubeconfig, &["auth", "can-i", "list", "configmaps", &in_namespace]);
    within("the role is in force", async { while kubectl.try_run(&can).await.is_err() {} }).await;
    kubectl.run(&list).await;

    let create = ["create", "configmap", "mine", &in_namespace];
    let refused = kubectl.try_run(&with_kubeconfig(kubeconfig, &create)).await.unwrap_err();
    assert!(refused.contains("is forbidden"), "{refused}");
}

#[tokio::test]
async fn the_audit_log_tells_who_changed_what() {
    let plane = ControlPlane::start().await;
    let kubectl = plane.kubectl();
    kubectl.run(&["create", "configmap", "first", "--from-literal=key=value"]).await;
    kubectl.try_run(&["get", "configmap", "none"]).await.unwrap_err();
    kubectl.try_run(&["create", "configmap", "first"]).await.unwrap_err();
    let applied = "{apiVersion: v1, kind: ConfigMap, metadata: {name: second}}";
    kubectl.apply(applied).await;

    let told = |verb: &str, name: &str, status: u16| {
        let log = plane.audit_log();
        let found = log.into_iter().find(|event| {
            (event.verb.as_str(), event.name.as_str(), event.status) == (verb, name, status)
        });
        found.filter(|event| event.user == "admin" && event.resource == "configmaps")
    };
    eventually("the last request is in the log", || told("patch", "second", 201).is_some()).await;
    let created = told("create", "first", 201).unwrap();
    assert!(created.is_write());
    assert_eq!((created.namespace.as_str(), created.group.as_str()), ("default", ""));
    assert!(!told("get", "none", 404).unwrap().is_write());
    assert!(told("create", "first", 409).is_some());
    assert!(told("patch", "second", 201).unwrap().uri.contains("fieldManager=kubectl"));
    let others: Vec<_> = plane.audit_log().into_iter().filter(|e| e.user != "admin").collect();
    assert_eq!(others, [], "the control plane's own requests are left out");
}

#[tokio::test]
async fn an_api_server_comes_back_where_it_was_with_what_it_had() {
    let mut plane = ControlPlane::start().await;
    plane.kubectl().run(&["create", "configmap", "kept"]).await;
    let address = plane.address();

    plane.kill9();
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
    plane.start_again().await;
    assert_eq!(plane.address(), address);
    plane.kubectl().run(&["get", "configmap", "kept"]).await;

    plane.pause();
    let get = ["get", "configmap", "kept", "--request-timeout=1s"];
    plane.kubectl().try_run(&get).await.unwrap_err();
    assert!(TcpStream::connect(address).await.is_ok(), "the port is open");
    plane.resume();
    plane.kubectl().run(&["get", "configmap", "kept"]).await;
}

#[tokio::test]
async fn what_is_expired_is_gone_for_watches_and_lists() {
    let mut plane = ControlPlane::start().await;
    for name in ["seen", "too"] {
        plane.kubectl().run(&["create", "configmap", name]).await;
    }
    let version = resource_version(plane.kubectl(), "configmap/seen").await;
    let configmaps = "/api/v1/namespaces/default/configmaps";
    let watch = format!("--raw={configmaps}?watch=1&timeoutSeconds=1&resourceVersion={version}");
    let watched = plane.kubectl().run(&["get", &watch]).await;
    assert!(!watched.contains("ERROR"), "{watched}");
    let list = format!("--raw={configmaps}?limit=1");
    let page: Value = serde_json::from_str(&plane.kubectl().run(&["get", &list]).await).unwrap();
    let token = page["metadata"]["continue"].as_str().unwrap();
    let next = format!("{list}&continue={token}");
    plane.kubectl().run(&["get", &next]).await;

    plane.expire_watches().await;

    let watched = plane.kubectl().run(&["get", &watch]).await;
    let event: Value = serde_json::from_str(watched.lines().next().unwrap()).unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&"ERROR".into(), &410.into()));
    let refused = plane.kubectl().try_run(&["get", &next]).await.unwrap_err();
    assert!(refused.contains("too old") || refused.contains("Expired"), "{refused}");
    plane.kubectl().run(&["get", "configmap", "seen"]).await;
}

#[tokio::test]
async fn controllers_make_pods_of_deployments_and_collect_what_lost_its_owner() {
    let plane = ControlPlane::start_with(Controllers::On).await;
    let kubectl = plane.kubectl();
    kubectl.run(&["create", "deployment", "web", "--image=none", "--replicas=2"]).await;
    let pods = ["wait", "--for=create", "pod", "--selector=app=web", "--timeout=120s"];
    kubectl.run(&pods).await;
    kubectl.run(&["delete", "deployment", "web"]).await;
    let gone = ["wait", "--for=delete", "pod", "--selector=app=web", "--timeout=120s"];
    kubectl.run(&gone).await;
}

#[tokio::test]
async fn nothing_is_left_of_it() {
    let plane = ControlPlane::start().await;
    let (folder, address) = (plane.kubeconfig().parent().unwrap().to_owned(), plane.address());
    assert_eq!(processes_of(&folder).len(), 3, "etcd, the API server and the watchdog");
    drop(plane);
    assert_eq!(processes_of(&folder), [] as [PathBuf; 0]);
    assert!(!folder.exists());
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
#[ignore = "the test below runs it, to kill it"]
async fn starts_and_waits_to_be_killed() {
    let plane = ControlPlane::start().await;
    println!("\nfolder {}", plane.kubeconfig().parent().unwrap().display());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn nothing_is_left_of_it_when_the_test_is_killed() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "--nocapture", "starts_and_waits_to_be_killed"]);
    let mut test = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(test.stdout.take().unwrap()).lines().map(Result::unwrap);
    let folder = lines.find_map(|line| line.strip_prefix("folder ").map(PathBuf::from)).unwrap();
    test.kill().unwrap();
    test.wait().unwrap();
    eventually("its processes and its folder are gone", || {
        processes_of(&folder).is_empty() && !folder.exists()
    })
    .await;
}
