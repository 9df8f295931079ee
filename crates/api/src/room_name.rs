//! A room's name: a namespace and a name, each a DNS label.
//!
//! It is a path segment, a NATS subject token and a key of a bucket, and only a DNS label is harmless as all three: no
//! dot, no `*`, no `>`, no white space, no `%`, and one spelling only. So a value of this type needs no escaping anywhere.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::names::SUBJECT_ROOM_PREFIX;

/// The most bytes of one DNS label (RFC 1035, section 2.3.4).
const MAX_LABEL_BYTES: usize = 63;

/// Whether `text` is a DNS label as Kubernetes means it (RFC 1123, lower case): 1 to 63 bytes of `a-z`, `0-9` and `-`,
/// beginning and ending with a letter or digit.
#[must_use]
pub fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.len() <= MAX_LABEL_BYTES
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
}

/// Why a text is not the name of a room. It never repeats the text, which may come from a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The namespace is not a DNS label.
    #[error(
        "the namespace must be a DNS label: 1 to 63 lower-case letters, digits or hyphens, with a letter or digit at both ends"
    )]
    Namespace,
    /// The name is not a DNS label.
    #[error(
        "the room's name must be a DNS label: 1 to 63 lower-case letters, digits or hyphens, with a letter or digit at both ends"
    )]
    Name,
    /// The two are not joined by exactly the separator that this spelling takes.
    #[error("a room is written namespace{0}name, such as demo{0}lobby")]
    Shape(char),
}

/// The name of a room: namespace and name, both DNS labels. Cloning copies a pointer.
///
/// Ordered by namespace, then by name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RoomName {
    /// `namespace/name`.
    text: Arc<str>,
    /// The position of the slash; a label has at most 63 bytes.
    slash: u8,
}

impl RoomName {
    /// Joins a namespace and a name.
    ///
    /// # Errors
    /// When either is not a DNS label.
    pub fn new(namespace: &str, name: &str) -> Result<Self, NameError> {
        if !is_dns_label(namespace) {
            return Err(NameError::Namespace);
        }
        if !is_dns_label(name) {
            return Err(NameError::Name);
        }
        let slash = u8::try_from(namespace.len()).map_err(|_| NameError::Namespace)?;
        Ok(Self { text: format!("{namespace}/{name}").into(), slash })
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.text[..usize::from(self.slash)]
    }

    /// The name within its namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.text[usize::from(self.slash) + 1..]
    }

    /// `namespace/name`, as [`Display`](fmt::Display) writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path that members join: `/rooms/namespace/name`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/rooms/{}", self.text)
    }

    /// The NATS subject of its messages: `hubbub.room.namespace.name`.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("{SUBJECT_ROOM_PREFIX}{}", self.policy_key())
    }

    /// The key of its policy in the bucket: `namespace.name`.
    #[must_use]
    pub fn policy_key(&self) -> String {
        format!("{}.{}", self.namespace(), self.name())
    }

    /// Reads a key of the policy bucket.
    ///
    /// # Errors
    /// When the key is not two DNS labels joined by one dot.
    pub fn from_policy_key(key: &str) -> Result<Self, NameError> {
        Self::split(key, '.')
    }

    fn split(text: &str, separator: char) -> Result<Self, NameError> {
        let (namespace, name) = text.split_once(separator).ok_or(NameError::Shape(separator))?;
        Self::new(namespace, name)
    }
}

impl FromStr for RoomName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::split(text, '/')
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoomName({})", self.text)
    }
}

impl Ord for RoomName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.namespace(), self.name()).cmp(&(other.namespace(), other.name()))
    }
}

impl PartialOrd for RoomName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// As the string `namespace/name`.
impl Serialize for RoomName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for RoomName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
