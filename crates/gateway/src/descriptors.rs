//! The limit of open files: each member needs a file descriptor, so it bounds how many there can be.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// File descriptors that are not for members: listeners, epoll, NATS, files, and handshakes under way.
const RESERVED: u64 = 256;

/// Of these, what sockets without a handshake cannot have: of 16 shards each has an epoll instance or two, one to be woken by and a
/// connection to NATS, and the listeners, the admin port and files take a few dozen more. At most half of the limit.
const KEPT: u64 = 192;

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

/// How many sockets a limit of open files carries at the public listener: those of members, and those without a handshake.
#[must_use]
pub fn sockets(limit: Option<u64>) -> usize {
    limit.map_or(usize::MAX, |files| {
        usize::try_from(files - KEPT.min(files / 2)).unwrap_or(usize::MAX)
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
        assert_eq!(sockets(Some(1024)), 832, "members, and 64 that may become one");
        assert_eq!(sockets(Some(100)), 50);
        assert_eq!(sockets(None), usize::MAX);
    }
}
