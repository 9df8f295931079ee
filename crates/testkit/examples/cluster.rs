//! Starts a control plane with its controllers in a folder and leaves it running: what `make cluster` does.

#![allow(clippy::expect_used, reason = "a tool of the tests, for a person")]

use std::path::PathBuf;

use hubbub_testkit::{ControlPlane, Controllers};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).expect("one argument: the folder");
    ControlPlane::start_in(&folder, Controllers::On).await.leave();
}
