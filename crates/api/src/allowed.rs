//! A room's allowlist of origins, compiled once and asked at every handshake.
//!
//! An entry is an origin, `null`, a wildcard such as `https://*.example.com`, or `*`. A wildcard reaches one label or more
//! under its host, with the same scheme and port, and never the host itself. `null` is matched by its own entry and by `*`.

use std::fmt;

use crate::origin::{Origin, OriginError};

/// One compiled entry of an allowlist. Two that allow the same origins are equal, however they were spelled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct OriginPattern(Pattern);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Pattern {
    Any,
    Exact(Origin),
    /// Everything under the host of this origin.
    Under(Origin),
}

/// Why an entry cannot be compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternFault {
    /// A `*` that is neither alone nor the first label of a host name.
    #[error(
        "a wildcard stands only for whole labels in front of a host name, as in https://*.example.com, and never for a port"
    )]
    Wildcard,
    /// `*` beside other entries, which then mean nothing.
    #[error("* allows every origin and must stand alone")]
    AnyNotAlone,
    /// Not an origin.
    #[error(transparent)]
    Origin(#[from] OriginError),
}

/// An entry that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError {
    /// Its position in the list, from 0.
    pub index: usize,
    /// What is wrong with it.
    pub fault: PatternFault,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "allowedOrigins[{}]: {}", self.index, self.fault)
    }
}

impl std::error::Error for PatternError {}

impl OriginPattern {
    /// Reads one entry.
    ///
    /// # Errors
    /// When it is neither an origin, nor `null`, nor a wildcard before a host name, nor `*`.
    pub(crate) fn parse(text: &str) -> Result<Self, PatternFault> {
        if text == "*" {
            return Ok(Self(Pattern::Any));
        }
        if !text.contains('*') {
            return Ok(Self(Pattern::Exact(Origin::parse(text)?)));
        }
        let (scheme, rest) = text.split_once("://*.").ok_or(PatternFault::Wildcard)?;
        if scheme.contains('*') || rest.contains('*') {
            return Err(PatternFault::Wildcard);
        }
        let origin = Origin::parse(&format!("{scheme}://{rest}"))?;
        if origin.is_address() {
            Err(PatternFault::Wildcard)
        } else {
            Ok(Self(Pattern::Under(origin)))
        }
    }

    /// Whether the origin is allowed by this entry.
    fn matches(&self, origin: &Origin) -> bool {
        match &self.0 {
            Pattern::Any => true,
            Pattern::Exact(allowed) => allowed == origin,
            Pattern::Under(parent) => {
                let (Some(host), Some(parent_host)) = (origin.host(), parent.host()) else {
                    return false;
                };
                // A parsed host has no empty label, so whatever stands before the dot is one label or more.
                origin.scheme() == parent.scheme()
                    && origin.port() == parent.port()
                    && host.strip_suffix(parent_host).is_some_and(|labels| labels.ends_with('.'))
            }
        }
    }
}

/// Why a handshake's origin keeps it out of a room. It never repeats what the client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OriginRefusal {
    /// The room requires an Origin header, and none came.
    #[error("this room takes only connections with an Origin header, as browsers send it")]
    Missing,
    /// More than one Origin header came.
    #[error("the request has more than one Origin header")]
    Repeated,
    /// The header is not an origin.
    #[error("{0}")]
    Malformed(#[from] OriginError),
    /// The origin is on nobody's list.
    #[error("this room does not allow pages of this origin")]
    NotAllowed,
}

/// A compiled allowlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigins(Vec<OriginPattern>);

impl AllowedOrigins {
    /// Compiles `spec.allowedOrigins`.
    ///
    /// # Errors
    /// Every entry that is malformed, and `*` when it does not stand alone.
    pub fn compile<S: AsRef<str>>(entries: &[S]) -> Result<Self, Vec<PatternError>> {
        let mut patterns = Vec::with_capacity(entries.len());
        let mut errors = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            match OriginPattern::parse(entry.as_ref()) {
                Ok(OriginPattern(Pattern::Any)) if entries.len() > 1 => {
                    errors.push(PatternError { index, fault: PatternFault::AnyNotAlone });
                }
                Ok(pattern) => patterns.push(pattern),
                Err(fault) => errors.push(PatternError { index, fault }),
            }
        }
        if errors.is_empty() { Ok(Self(patterns)) } else { Err(errors) }
    }

    /// Whether the origin is on the list.
    #[must_use]
    pub fn matches(&self, origin: &Origin) -> bool {
        // At most 64 entries, so looking at each is cheaper than a map of three kinds of them.
        self.0.iter().any(|pattern| pattern.matches(origin))
    }

    /// The whole verdict on a handshake: the values of all its Origin headers go in, the origin comes out, none if there
    /// was no header and the room does not require one.
    ///
    /// # Errors
    /// Why the handshake must be refused.
    pub fn admit<'a>(
        &self,
        headers: impl IntoIterator<Item = &'a [u8]>,
        require_origin: bool,
    ) -> Result<Option<Origin>, OriginRefusal> {
        let mut headers = headers.into_iter();
        let Some(value) = headers.next() else {
            return if require_origin { Err(OriginRefusal::Missing) } else { Ok(None) };
        };
        if headers.next().is_some() {
            return Err(OriginRefusal::Repeated);
        }
        let value = std::str::from_utf8(value).map_err(|_| OriginError::Character)?;
        let origin = Origin::parse(value)?;
        if self.matches(&origin) { Ok(Some(origin)) } else { Err(OriginRefusal::NotAllowed) }
    }
}
