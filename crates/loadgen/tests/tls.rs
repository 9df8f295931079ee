//! The load generator and a gateway that speaks TLS: every delivery is verified as without, and whom it does not trust it tells.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::{
    ffi::OsString,
    process::{Output, Stdio},
};

use hubbub_testkit::{Certificates, GatewayProcess, OPEN, RoomsFile, gateway_program, within};
use serde_json::Value;
use tokio::process::Command;

async fn load(gateway: &GatewayProcess, more: &[&str]) -> Output {
    let run = Command::new(env!("CARGO_BIN_EXE_hubbub-load"))
        .arg(format!("wss://{}/rooms/demo/lobby", gateway.listen()))
        .args(["--members", "5", "--publishers", "2", "--rate", "20", "--size", "40000"])
        .args(["--warmup", "100ms", "--duration", "1s", "--quiet", "--json", "-"])
        .args(more)
        .stdin(Stdio::null())
        .output();
    within("the run ends", run).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_by_tls_are_verified_and_strangers_are_told() {
    let (rooms, certificates) = (RoomsFile::lobby(OPEN), Certificates::make());
    let mut flags = rooms.flags(&[]);
    let (certificate, key) = (certificates.server(), certificates.server_key());
    flags.extend(["--tls-certificate".into(), OsString::from(certificate)]);
    flags.extend(["--tls-key".into(), OsString::from(key)]);
    let gateway = GatewayProcess::start(gateway_program(), &flags).await;
    let authority = certificates.authority();
    let trusting = ["--tls-ca", authority.to_str().unwrap()];
    for more in [&trusting[..], &["--tls-insecure"]] {
        let output = load(&gateway, more).await;
        assert!(output.status.success(), "{more:?}: {output:?}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["connecting"]["connected"], 5, "{report}");
        assert_eq!(report["verification"]["passed"], true, "{report}");
        assert!(report["verification"]["deliveries"].as_u64().unwrap() >= 100, "{report}");
    }
    let stranger = Certificates::make();
    let authority = stranger.authority();
    let output = load(&gateway, &["--tls-ca", authority.to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("TLS with the server failed: invalid peer certificate"), "{said}");
}
