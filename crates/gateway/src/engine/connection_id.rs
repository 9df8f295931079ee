//! What a connection is called, wherever it is told of: in logs, in traces, on the room's page.

use std::fmt;

use serde::{Serialize, Serializer};

/// A connection: 64 random bits, so that no two gateways use the same for two, written as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

/// The text is no connection id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a connection is named by 16 lower-case hexadecimal digits, such as 00c0ffee12345678")]
pub struct MalformedConnectionId;

impl ConnectionId {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(fastrand::u64(..))
    }
}

impl std::str::FromStr for ConnectionId {
    type Err = MalformedConnectionId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 16 || !text.bytes().all(is_digit) {
            return Err(MalformedConnectionId);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| MalformedConnectionId)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for ConnectionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for id in [ConnectionId(0), ConnectionId(0xabc), ConnectionId(u64::MAX)] {
            let text = id.to_string();
            assert_eq!(text.len(), 16);
            assert_eq!(text.parse(), Ok(id));
        }
        assert_ne!(ConnectionId::random(), ConnectionId::random());
    }

    #[test]
    fn anything_else_is_refused() {
        for wrong in [
            "",
            "abc",
            "00C0FFEE12345678",
            "00c0ffee123456789",
            "+0c0ffee12345678",
            "é0c0ffee1234567",
        ] {
            assert_eq!(wrong.parse::<ConnectionId>(), Err(MalformedConnectionId), "{wrong}");
        }
    }
}
