//! Files that are read again and again: what they hold counts once it is another content, and stands still.
//!
//! So a file that is being written is not taken for a whole one, nor a certificate for that of the key that comes a moment later.

use std::time::Duration;

use tokio::{task::spawn_blocking, time::sleep};

/// What files held at one moment; nothing, if the reading was given up.
pub(crate) trait Contents: Default + Send + 'static {
    /// Sets it apart from other contents.
    fn digest(&self) -> u64;
}

/// What the files hold, if that is not what was `judged` last; read until it has been the same for so long.
pub(crate) async fn settled<C: Contents>(
    judged: Option<u64>,
    still: Duration,
    read: impl Fn() -> C + Clone + Send + 'static,
) -> Option<C> {
    let is_known = |contents: &C| judged == Some(contents.digest());
    let mut contents = read_aside(read.clone()).await;
    if is_known(&contents) {
        return None;
    }
    loop {
        sleep(still).await;
        let again = read_aside(read.clone()).await;
        if again.digest() == contents.digest() {
            break;
        }
        contents = again;
    }
    (!is_known(&contents)).then_some(contents)
}

/// Reads without holding up the runtime: a file may lie on a slow disk.
async fn read_aside<C: Contents>(read: impl Fn() -> C + Send + 'static) -> C {
    spawn_blocking(read).await.unwrap_or_default()
}
