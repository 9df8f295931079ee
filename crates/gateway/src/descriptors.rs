//! The limit of open files: each member needs a file descriptor, so it bounds how many there can be.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// File descriptors that are not for members: listeners, epoll, NATS, files, and handshakes under way.
const RESERVED: u64 = 256;

/// Raises this process's limit of open files as far as it may, and gives what it is then; none for no limit.
#[must_use]
pub fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

/// How many connections a limit of open files carries; at least one.
#[must_use]
pub fn connections(limit: Option<u64>) -> usize {
    limit.map_or(usize::MAX, |files| {
        usize::try_from(files.saturating_sub(RESERVED).max(1)).unwrap_or(usize::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_files_are_kept_for_what_is_no_member() {
        assert_eq!(connections(Some(1024)), 768);
        assert_eq!(connections(Some(100)), 1);
        assert_eq!(connections(None), usize::MAX);
    }
}
