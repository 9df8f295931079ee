//! What a good client does after a connection ended: come back at once, later, or not at all.

use std::time::Duration;

/// The code noted for a connection that ended without a close frame (RFC 6455, section 7.1.5).
pub const ABNORMAL: u16 = 1006;

/// Longest wait of a member whose gateway restarts: they must not all return in one instant.
const RESTART_SPREAD: Duration = Duration::from_secs(2);

/// First and longest wait of the growing ones.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Why a member is not connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The connection was open and ended with this close code.
    Closed(u16),

    /// The handshake was answered with this HTTP status.
    Refused(u16),

    /// No connection, or no answer.
    Unreachable,

    /// The server says in its own protocol that a try again would end the same way.
    Denied,
}

/// How long to wait before coming back, or `None` to stay away.
///
/// `attempt` counts failures since the last good connection, from 0; `random` is uniform in 0..1
/// and spreads the members. 1012 asks for a short random wait; 1013, 1011, an abnormal end and
/// refusals for lack of room for a growing one; the rest says that a try again would end the same way.
pub fn delay(cause: Cause, attempt: u32, random: f64) -> Option<Duration> {
    match cause {
        Cause::Closed(1012) if attempt == 0 => Some(RESTART_SPREAD.mul_f64(random)),
        Cause::Closed(1001 | ABNORMAL | 1011 | 1012 | 1013 | 1014)
        | Cause::Refused(429 | 500..)
        | Cause::Unreachable => {
            let ceiling = BACKOFF.0.saturating_mul(1 << attempt.min(16)).min(BACKOFF.1);
            Some(ceiling.mul_f64(0.5 + random / 2.0))
        }
        Cause::Closed(_) | Cause::Refused(_) | Cause::Denied => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_answered_within_two_seconds_at_random() {
        assert_eq!(delay(Cause::Closed(1012), 0, 0.0), Some(Duration::ZERO));
        assert_eq!(delay(Cause::Closed(1012), 0, 0.5), Some(Duration::from_secs(1)));
    }

    #[test]
    fn trouble_is_answered_with_backoff_and_jitter() {
        for cause in [Cause::Closed(1013), Cause::Closed(1011), Cause::Closed(ABNORMAL)] {
            assert_eq!(delay(cause, 0, 0.0), Some(Duration::from_millis(250)));
            assert_eq!(delay(cause, 0, 1.0), Some(Duration::from_millis(500)));
            assert_eq!(delay(cause, 2, 1.0), Some(Duration::from_secs(2)));
            assert_eq!(delay(cause, 1_000, 1.0), Some(Duration::from_secs(30)));
        }
        assert!(delay(Cause::Refused(503), 0, 0.0).is_some());
        assert!(delay(Cause::Refused(429), 0, 0.0).is_some());
        assert!(delay(Cause::Unreachable, 3, 0.0).is_some());
    }

    #[test]
    fn what_would_end_the_same_way_is_not_tried_again() {
        for code in [1000, 1002, 1003, 1007, 1008, 1009, 4403, 4404] {
            assert_eq!(delay(Cause::Closed(code), 0, 0.5), None, "{code}");
        }
        assert_eq!(delay(Cause::Denied, 0, 0.5), None);
        for status in [400, 403, 404, 421, 426] {
            assert_eq!(delay(Cause::Refused(status), 0, 0.5), None, "{status}");
        }
    }
}
