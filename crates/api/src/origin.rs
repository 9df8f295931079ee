//! Web origins (RFC 6454): the value of the `Origin` header, parsed strictly into scheme, host and port.
//!
//! Browsers write an origin in exactly one form, so whatever departs from it is a mistake or an attack and is refused
//! rather than repaired. The exceptions are case of scheme and host and an explicit default port, which are folded.
//! Origins are compared as parsed, never as text. Nothing is resolved, and internationalised names count only in punycode.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The most bytes of an origin: a host of 253 (RFC 1035) with a scheme and a port.
pub(crate) const MAX_ORIGIN_BYTES: usize = 280;

/// The most bytes of a host name (RFC 1035, section 2.3.4, without the trailing dot).
const MAX_HOST_BYTES: usize = 253;

/// The most bytes of one label of a host name.
const MAX_LABEL_BYTES: usize = 63;

/// Schemes that are never an origin of a page: browsers say `null` for documents of the first row, and the second row is
/// the socket's own.
const REFUSED_SCHEMES: [&str; 8] =
    ["file", "data", "blob", "about", "javascript", "filesystem", "ws", "wss"];

/// Why a text is not an origin. It never repeats the text, which may come from a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Nothing is there.
    #[error("the origin is empty")]
    Empty,
    /// More than any origin needs.
    #[error("the origin is longer than {MAX_ORIGIN_BYTES} bytes")]
    TooLong,
    /// White space, a control character, or something outside ASCII.
    #[error(
        "the origin holds white space or a character outside ASCII (write such hosts in punycode)"
    )]
    Character,
    /// A comma: several origins in one.
    #[error("the origin is a list, and only one is allowed")]
    List,
    /// No scheme, a malformed one, or one that pages do not have.
    #[error("the origin must begin with the scheme of a page, such as https://")]
    Scheme,
    /// A user before the host.
    #[error("the origin holds a user")]
    UserInfo,
    /// A slash, `?` or `#` after the host.
    #[error("the origin must end after host and port, without a path or trailing slash")]
    Path,
    /// The host is neither a name nor an address.
    #[error("the host of the origin is neither a host name nor an IP address")]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("the port of the origin is not a number from 1 to 65535")]
    Port,
}

/// A parsed origin: `null`, or scheme, host and port with case folded and the default port filled in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin(Option<Tuple>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Tuple {
    scheme: Box<str>,
    host: Box<str>,
    port: Option<u16>,
}

impl Origin {
    /// The origin that browsers write as `null`: a sandboxed frame, a file, a redirect between origins.
    pub const NULL: Self = Self(None);

    /// Reads the value of an `Origin` header, or an entry of an allowlist.
    ///
    /// `http` and `https` have the default ports 80 and 443. Other schemes (`chrome-extension://id`,
    /// `capacitor://localhost`) are origins too and have none. The host is a name of labels of letters, digits, `-` and
    /// `_`, an IPv4 address in its usual form, or an IPv6 address in brackets.
    ///
    /// # Errors
    /// When the text is not an origin as a browser would write it, case and default port apart.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        if text.is_empty() {
            return Err(OriginError::Empty);
        }
        if text.len() > MAX_ORIGIN_BYTES {
            return Err(OriginError::TooLong);
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(OriginError::Character);
        }
        if text == "null" {
            return Ok(Self::NULL);
        }
        if text.contains(',') {
            return Err(OriginError::List);
        }
        let text = text.to_ascii_lowercase();
        let (scheme, authority) = text.split_once("://").ok_or(OriginError::Scheme)?;
        if !is_scheme(scheme) || REFUSED_SCHEMES.contains(&scheme) {
            return Err(OriginError::Scheme);
        }
        if authority.contains('@') {
            return Err(OriginError::UserInfo);
        }
        if authority.contains(['/', '\\', '?', '#']) {
            return Err(OriginError::Path);
        }
        let (host, port) = split_port(authority)?;
        let port = match port {
            Some(digits) => Some(parse_port(digits)?),
            None => default_port(scheme),
        };
        Ok(Self(Some(Tuple { scheme: scheme.into(), host: parse_host(host)?.into(), port })))
    }

    /// The scheme in lower case, such as `https`; none for `null`.
    #[must_use]
    pub fn scheme(&self) -> Option<&str> {
        self.0.as_ref().map(|tuple| &*tuple.scheme)
    }

    /// The host in lower case, an IPv6 address in brackets; none for `null`.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.0.as_ref().map(|tuple| &*tuple.host)
    }

    /// The port, with the scheme's default filled in; none for `null` and for a scheme without default.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.0.as_ref().and_then(|tuple| tuple.port)
    }

    /// Whether the host is an IP address, under which there are no further labels.
    pub(crate) fn is_address(&self) -> bool {
        self.host().is_some_and(|host| host.starts_with('[') || host.parse::<Ipv4Addr>().is_ok())
    }
}

fn is_scheme(text: &str) -> bool {
    // RFC 3986, section 3.1, in lower case.
    text.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.'))
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Splits `host` or `host:port`; the host keeps its brackets.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), OriginError> {
    let (host, rest) = if authority.starts_with('[') {
        let end = authority.find(']').ok_or(OriginError::Host)? + 1;
        authority.split_at(end)
    } else {
        authority.split_at(authority.find(':').unwrap_or(authority.len()))
    };
    match rest.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if rest.is_empty() => Ok((host, None)),
        None => Err(OriginError::Host),
    }
}

fn parse_port(digits: &str) -> Result<u16, OriginError> {
    // A sign would pass `parse`, and a leading zero would be a second spelling of the same port.
    if digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(OriginError::Port);
    }
    digits.parse().map_err(|_| OriginError::Port)
}

/// Checks a host in lower case and gives its canonical text.
fn parse_host(host: &str) -> Result<String, OriginError> {
    if let Some(address) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        let address: Ipv6Addr = address.parse().map_err(|_| OriginError::Host)?;
        return Ok(format!("[{address}]"));
    }
    let label_is_sound = |label: &str| {
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
    };
    if host.len() > MAX_HOST_BYTES || !host.split('.').all(label_is_sound) {
        return Err(OriginError::Host);
    }
    // A browser takes a host whose last label is a number for an IPv4 address, in whatever spelling (`0x7f.1`), and
    // writes it as four numbers; only that form can arrive.
    let last = host.rsplit('.').next().unwrap_or(host);
    let hexadecimal = |digits: &str| digits.bytes().all(|b| b.is_ascii_hexdigit());
    if last.bytes().all(|b| b.is_ascii_digit()) || last.strip_prefix("0x").is_some_and(hexadecimal)
    {
        host.parse::<Ipv4Addr>().map_err(|_| OriginError::Host)?;
    }
    Ok(host.to_owned())
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        Self::parse(text)
    }
}

/// As a browser writes it: the default port is left out.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Tuple { scheme, host, port }) = &self.0 else {
            return f.write_str("null");
        };
        write!(f, "{scheme}://{host}")?;
        match port {
            Some(port) if Some(*port) != default_port(scheme) => write!(f, ":{port}"),
            _ => Ok(()),
        }
    }
}
