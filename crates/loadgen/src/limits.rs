//! The limit on open files: every member is a socket.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

/// Files besides the sockets: standard streams, epoll, timers, `/proc`, and some to spare.
const RESERVE: u64 = 64;

/// More members than this process may have sockets.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "{members} members need {needed} open files, and this process may have {allowed} at most: \
     take fewer members, raise the hard limit (`ulimit -Hn {needed}` as root), \
     or spread the members over several machines"
)]
pub struct TooFewFiles {
    members: u64,
    needed: u64,
    allowed: u64,
}

/// Raises the soft limit on open files, if need be, as far as `members` sockets ask for.
///
/// # Errors
/// When the hard limit, which is not ours to raise, does not suffice.
pub fn allow_sockets(members: u64) -> Result<(), TooFewFiles> {
    let limit = getrlimit(Resource::Nofile);
    let needed = members + RESERVE;
    // `None` is "unlimited".
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let allowed = limit.maximum.unwrap_or(u64::MAX);
    let raised = Rlimit { current: Some(needed), maximum: limit.maximum };
    if allowed < needed || setrlimit(Resource::Nofile, raised).is_err() {
        return Err(TooFewFiles { members, needed, allowed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modest_number_is_allowed() {
        assert_eq!(allow_sockets(100), Ok(()));
    }

    #[test]
    fn the_refusal_says_how_to_mend_it() {
        let error = TooFewFiles { members: 50_000, needed: 50_064, allowed: 20_000 };
        let text = error.to_string();
        assert!(text.contains("50000 members need 50064 open files"), "{text}");
        assert!(text.contains("ulimit -Hn 50064"), "{text}");
    }
}
