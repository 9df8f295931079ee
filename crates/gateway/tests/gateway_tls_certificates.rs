//! The certificate that members meet: replaced while the gateway runs, by whichever way files are replaced; and pairs that cannot
//! be used, at the start and later.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use hubbub_testkit::{
    Certificates, Client, GatewayProcess, OPEN, Received, RoomsFile, Trust, eventually, within,
};
use tempfile::TempDir;
use tokio::net::TcpStream;

const GATEWAY: &str = env!("CARGO_BIN_EXE_hubbub-gateway");
const LOBBY: &str = "/rooms/demo/lobby";
const TAKEN: &str = r#"hubbub_gateway_tls_reloads_total{outcome="taken"}"#;
const REFUSED: &str = r#"hubbub_gateway_tls_reloads_total{outcome="refused"}"#;
const EXPIRY: &str = "hubbub_gateway_tls_certificate_expiry_timestamp_seconds";

/// A folder with `tls.crt` and `tls.key`, as a Kubernetes secret is mounted: both are links into a folder that a link points to,
/// and that link alone is replaced.
struct Secret {
    directory: TempDir,
    versions: usize,
}

impl Secret {
    fn new(of: &Certificates) -> Self {
        let mut secret = Self { directory: tempfile::tempdir().unwrap(), versions: 0 };
        secret.swap(&of.server(), &of.server_key());
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), secret.path(name)).unwrap();
        }
        secret
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn swap(&mut self, certificate: &Path, key: &Path) {
        self.versions += 1;
        let version = format!("..{}", self.versions);
        std::fs::create_dir(self.path(&version)).unwrap();
        std::fs::copy(certificate, self.path(&version).join("tls.crt")).unwrap();
        std::fs::copy(key, self.path(&version).join("tls.key")).unwrap();
        symlink(&version, self.path("..next")).unwrap();
        std::fs::rename(self.path("..next"), self.path("..data")).unwrap();
    }

    fn flags(&self) -> Vec<String> {
        let path = |name| self.path(name).to_str().unwrap().to_owned();
        vec!["--tls-certificate".into(), path("tls.crt"), "--tls-key".into(), path("tls.key")]
    }
}

async fn gateway(rooms: &RoomsFile, secret: &Secret) -> GatewayProcess {
    let mut flags = rooms.arguments();
    flags.extend(secret.flags());
    GatewayProcess::start(GATEWAY, &flags).await
}

async fn join(gateway: &GatewayProcess, trust: &Trust) -> Client {
    Client::join_by_tls(gateway.listen(), LOBBY, None, trust).await.expect("an open room")
}

async fn is_trusted(gateway: &GatewayProcess, trust: &Trust) -> bool {
    let socket = TcpStream::connect(gateway.listen()).await.unwrap();
    trust.connect(socket).await.is_ok()
}

async fn talks(client: &mut Client, text: &str) {
    client.send(text).await.unwrap();
    assert_eq!(client.next_message().await, Received::Text(text.to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_certificate_is_met_by_who_comes_and_who_is_in_talks_on() {
    let rooms = RoomsFile::lobby(OPEN);
    let (first, second) = (Certificates::make(), Certificates::make());
    let mut secret = Secret::new(&first);
    let gateway = gateway(&rooms, &secret).await;
    assert!(gateway.metric(EXPIRY).await > 1.7e9, "in Unix time");
    let (old, new) =
        (Trust::in_authority(&first.authority()), Trust::in_authority(&second.authority()));
    let mut early = join(&gateway, &old).await;

    secret.swap(&second.server(), &second.server_key());
    gateway.metric_until(TAKEN, |count| count == 1.0).await;
    assert!(!is_trusted(&gateway, &old).await, "nobody sees the old one any more");
    let mut late = join(&gateway, &new).await;
    assert_ne!(early.certificate(), late.certificate());
    late.send("hello").await.unwrap();
    for client in [&mut early, &mut late] {
        assert_eq!(client.next_message().await, Received::Text("hello".to_owned()));
    }
    assert_eq!(gateway.metric(REFUSED).await, 0.0, "two files in one swap are never half a pair");
    let told = gateway.find("the certificate was replaced").expect("it is told");
    assert!(told["ends"].as_str().unwrap().contains('T'), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_that_cannot_be_used_changes_nothing_until_a_good_one_comes() {
    let rooms = RoomsFile::lobby(OPEN);
    let (first, second) = (Certificates::make(), Certificates::make());
    let mut secret = Secret::new(&first);
    let gateway = gateway(&rooms, &secret).await;
    let old = Trust::in_authority(&first.authority());
    let empty = secret.path("empty");
    std::fs::write(&empty, "").unwrap();
    let refusal = "the new certificate is refused; the old one stays";
    for (n, (certificate, key, words)) in [
        (second.server(), first.server_key(), "is not that of the certificate"),
        (empty.clone(), first.server_key(), "holds no certificate"),
        (first.server(), empty.clone(), "holds no key"),
    ]
    .into_iter()
    .enumerate()
    {
        secret.swap(&certificate, &key);
        gateway.metric_until(REFUSED, |count| count == n as f64 + 1.0).await;
        eventually("it is told", || gateway.find_all(refusal).len() == n + 1).await;
        let fault = gateway.find_all(refusal).pop().unwrap()["fault"].clone();
        assert!(fault.as_str().unwrap().contains(words), "{fault}");
        talks(&mut join(&gateway, &old).await, "as before").await;
    }
    // In place this time, one file after the other.
    let data = secret.path("..data");
    std::fs::copy(second.server(), data.join("tls.crt")).unwrap();
    std::fs::copy(second.server_key(), data.join("tls.key")).unwrap();
    gateway.metric_until(TAKEN, |count| count == 1.0).await;
    let new = Trust::in_authority(&second.authority());
    talks(&mut join(&gateway, &new).await, "anew").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_valid_certificate_stays_until_another_one_is_valid() {
    let rooms = RoomsFile::lobby(OPEN);
    let (now, day) = (SystemTime::now(), Duration::from_secs(24 * 60 * 60));
    let (first, over) = (Certificates::make(), Certificates::valid(now - 2 * day, now - day));
    let mut secret = Secret::new(&first);
    let gateway = gateway(&rooms, &secret).await;
    let old = Trust::in_authority(&first.authority());
    let refusal = "the new certificate is refused; the old one stays";
    let told = async |words: &str, times: usize| {
        gateway.metric_until(REFUSED, |count| count == times as f64).await;
        eventually("it is told", || gateway.find_all(refusal).len() == times).await;
        let fault = gateway.find_all(refusal).pop().unwrap()["fault"].clone();
        assert!(fault.as_str().unwrap().contains(words), "{fault}");
    };
    let ends = gateway.metric(EXPIRY).await;
    secret.swap(&over.server(), &over.server_key());
    told("was valid until 2", 1).await;
    talks(&mut join(&gateway, &old).await, "as before").await;

    // Far enough away for a busy machine to have judged it before.
    let later = SystemTime::now() + Duration::from_secs(15);
    let next = Certificates::valid(later, later + day);
    let new = Trust::in_authority(&next.authority());
    secret.swap(&next.server(), &next.server_key());
    told("is valid from 2", 2).await;
    talks(&mut join(&gateway, &old).await, "as before").await;
    assert_eq!(gateway.metric(EXPIRY).await, ends);
    assert_eq!(gateway.metric(TAKEN).await, 0.0);
    // Nothing changes but the time.
    gateway.metric_until(TAKEN, |count| count == 1.0).await;
    assert!(SystemTime::now() >= later - Duration::from_secs(1), "X.509 counts whole seconds");
    talks(&mut join(&gateway, &new).await, "anew").await;
    assert!(gateway.metric(EXPIRY).await < ends);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_starts_with_a_certificate_of_another_time_says_so_and_serves() {
    let rooms = RoomsFile::lobby(OPEN);
    let (now, day) = (SystemTime::now(), Duration::from_secs(24 * 60 * 60));
    let over = Certificates::valid(now - 2 * day, now - day);
    let early = Certificates::valid(now + day, now + 2 * day);
    for (certificates, words) in [
        (&over, "the certificate has ended: clients refuse it; renew it"),
        (&early, "the certificate is not valid yet"),
    ] {
        let mut secret = Secret::new(certificates);
        let gateway = gateway(&rooms, &secret).await;
        let warned = || gateway.log().iter().any(|line| line.contains(words));
        eventually("it is told", warned).await;
        // Nothing better is shown, so whatever comes is taken.
        secret.swap(&early.server(), &early.server_key());
        let good = Certificates::make();
        secret.swap(&good.server(), &good.server_key());
        gateway.metric_until(TAKEN, |count| count >= 1.0).await;
        let trust = Trust::in_authority(&good.authority());
        eventually_trusted(&gateway, &trust).await;
        assert_eq!(gateway.metric(REFUSED).await, 0.0);
    }
}

/// The certificate that this authority made is the one that is shown.
async fn eventually_trusted(gateway: &GatewayProcess, trust: &Trust) {
    within("the good certificate", async { while !is_trusted(gateway, trust).await {} }).await;
}

#[test]
fn what_cannot_be_used_at_the_start_is_told_with_its_remedy() {
    let rooms = RoomsFile::lobby(OPEN);
    let (one, other) = (Certificates::make(), Certificates::make());
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (missing, empty) = (directory.path().join("missing"), write("empty", ""));
    let junk = write("junk", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let cut = write("cut", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    let odd = write("odd", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    for (certificate, key, words) in [
        (&missing, &one.server_key(), "--tls-certificate: "),
        (&missing, &one.server_key(), "name a file that is there"),
        (&one.server(), &missing, "--tls-key: "),
        (&empty, &one.server_key(), "holds no certificate: it must hold"),
        (&one.server_key(), &one.server_key(), "holds no certificate: it must hold"),
        (&one.server(), &empty, "holds no key: it must hold"),
        (&one.server(), &one.server(), "holds no key: it must hold"),
        (&junk, &one.server_key(), "cannot be used"),
        (&cut, &one.server_key(), "cannot be used"),
        (&one.server(), &odd, "cannot be used"),
        (&one.server(), &odd, "RSA of 2,048 to 8,192 bits"),
        (&one.server(), &other.server_key(), "give the two that were issued together"),
    ] {
        let output = Command::new(GATEWAY)
            .env_clear()
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--rooms"])
            .arg(rooms.path())
            .arg("--tls-certificate")
            .arg(certificate)
            .arg("--tls-key")
            .arg(key)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words) && !said.contains("panicked"), "{words}: {said}");
    }
}
