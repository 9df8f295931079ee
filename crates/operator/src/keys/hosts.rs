//! Which hosts are asked for keys. Whoever may create rooms names the address, and the operator stands where they may not: so it asks no host
//! that is only there for its own machine, unless whoever runs it has said so.
//!
//! Addresses are judged as they are resolved for the very connection, so that no second look at the name can bring another.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    task::{self, Poll},
    vec::IntoIter,
};

use futures_util::future::{BoxFuture, FutureExt as _};
use hyper_util::client::legacy::connect::dns::Name;
use tower::Service;

/// The addresses into which a network without IPv4 puts those of IPv4 (RFC 6052, section 2.1).
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// A host, or all hosts under one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    host: String,
    under: bool,
}

/// The text names no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "is no host: write such as id.example.com, *.example.com for all hosts under it, 192.0.2.7 or [2001:db8::7], without scheme and port"
)]
pub struct HostPatternError;

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<Self, HostPatternError> {
        let (under, host) = match text.strip_prefix("*.") {
            Some(host) => (true, host),
            None => (false, text),
        };
        let is_label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        let is_sound = match literal(host) {
            Some(_) => !under,
            None => host.split('.').all(is_label),
        };
        if !is_sound {
            return Err(HostPatternError);
        }
        Ok(Self { host: normal(host), under })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.under { "*." } else { "" }, self.host)
    }
}

impl HostPattern {
    /// `host` is as [`normal`] gives it.
    fn names(&self, host: &str) -> bool {
        if self.under {
            let labels = host.strip_suffix(&self.host).and_then(|rest| rest.strip_suffix('.'));
            labels.is_some_and(|labels| !labels.is_empty())
        } else {
            host == self.host
        }
    }
}

/// The hosts that may be asked; none means any that is not special.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<HostPattern>);

impl From<Vec<HostPattern>> for AllowedHosts {
    fn from(patterns: Vec<HostPattern>) -> Self {
        Self(patterns)
    }
}

/// Why a host is not asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is a list, and it is not on it.
    #[error(
        "is not asked: {0} is none of the hosts that the operator may ask for keys (--keys-allow, operator.keys.allow in the chart)"
    )]
    NotListed(String),
    /// It is at an address that only its own machine or network should see.
    #[error(
        "is not asked: {host} is at {address}, {what}; if that is meant, name the host in --keys-allow (operator.keys.allow in the chart)"
    )]
    Special {
        /// The host.
        host: String,
        /// Its address.
        address: IpAddr,
        /// What kind of address that is.
        what: &'static str,
    },
}

impl AllowedHosts {
    /// Whether the host may be asked, as far as its name tells; of a name that is an address that is all.
    ///
    /// # Errors
    ///
    /// [`Refused`], with the remedy.
    pub fn check_name(&self, host: &str) -> Result<(), Refused> {
        if self.0.is_empty() {
            return literal(host).map_or(Ok(()), |address| check_address(host, address));
        }
        let host = normal(host);
        if self.0.iter().any(|pattern| pattern.names(&host)) {
            Ok(())
        } else {
            Err(Refused::NotListed(host))
        }
    }

    /// Of a host's addresses those that may be asked. A host that is listed may be anywhere.
    ///
    /// # Errors
    ///
    /// [`Refused`] if none is left because of what they are.
    pub fn check_addresses(
        &self,
        host: &str,
        addresses: Vec<SocketAddr>,
    ) -> Result<Vec<SocketAddr>, Refused> {
        if !self.0.is_empty() {
            return Ok(addresses);
        }
        let mut refused = None;
        let fit: Vec<_> = addresses
            .into_iter()
            .filter(|address| match check_address(host, address.ip()) {
                Ok(()) => true,
                Err(why) => {
                    refused.get_or_insert(why);
                    false
                }
            })
            .collect();
        match refused {
            Some(why) if fit.is_empty() => Err(why),
            _ => Ok(fit),
        }
    }
}

fn check_address(host: &str, address: IpAddr) -> Result<(), Refused> {
    match special(address) {
        None => Ok(()),
        Some(what) => Err(Refused::Special { host: normal(host), address, what }),
    }
}

/// What kind of address it is, if it is none of a host that others reach, too. Private networks are not among them: identity providers
/// of a cluster are there.
fn special(address: IpAddr) -> Option<&'static str> {
    let (loopback, link_local, unspecified, multicast) = match embedded(address) {
        IpAddr::V4(v4) => {
            // All of 0.0.0.0/8 is "this host on this network" (RFC 1122, section 3.2.1.3).
            (v4.is_loopback(), v4.is_link_local(), v4.octets()[0] == 0, v4.is_multicast())
        }
        IpAddr::V6(v6) => {
            (v6.is_loopback(), v6.is_unicast_link_local(), v6.is_unspecified(), v6.is_multicast())
        }
    };
    let kinds = [
        (loopback, "the operator's own machine"),
        (link_local, "a link-local address, such as that of a cloud's metadata"),
        (unspecified, "an address of no host"),
        (multicast, "a multicast address"),
    ];
    kinds.into_iter().find_map(|(is, what)| is.then_some(what))
}

/// The address of IPv4 that one of IPv6 stands for, if it does.
fn embedded(address: IpAddr) -> IpAddr {
    let canonical = address.to_canonical();
    if let IpAddr::V6(v6) = canonical
        && v6.segments()[..6] == NAT64
    {
        let [.., a, b, c, d] = v6.octets();
        return Ipv4Addr::new(a, b, c, d).into();
    }
    canonical
}

/// A host that is an address; one of IPv6 stands in brackets.
fn literal(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// One spelling of a host: in lower case, without the dot at the end, and an address in its shortest form.
fn normal(host: &str) -> String {
    match literal(host) {
        Some(IpAddr::V6(v6)) => format!("[{v6}]"),
        Some(IpAddr::V4(v4)) => v4.to_string(),
        None => host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase(),
    }
}

/// Resolves names as the system does, to addresses that may be asked.
#[derive(Debug, Clone)]
pub(super) struct Resolver(pub(super) AllowedHosts);

impl Service<Name> for Resolver {
    type Response = IntoIter<SocketAddr>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let allowed = self.0.clone();
        async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(allowed.check_addresses(name.as_str(), found.collect())?.into_iter())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(patterns: &[&str]) -> AllowedHosts {
        let parsed: Vec<_> = patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
        parsed.into()
    }

    fn at(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0)).collect()
    }

    #[test]
    fn addresses_of_one_machine_or_link_are_refused_and_private_ones_are_not() {
        let any = AllowedHosts::default();
        for address in [
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.251",
            "239.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
        ] {
            let refused = any.check_addresses("id.example.com", at(&[address])).unwrap_err();
            let told = refused.to_string();
            assert!(told.contains("--keys-allow") && told.contains("id.example.com"), "{told}");
            let ip: IpAddr = address.parse().unwrap();
            let host = if ip.is_ipv6() { format!("[{address}]") } else { address.to_owned() };
            assert!(any.check_name(&host).is_err(), "{host} itself");
        }
        for address in [
            "10.0.0.7",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "192.0.2.7",
            "2001:db8::7",
            "fd00::7",
            "64:ff9b::c000:207",
        ] {
            assert_eq!(any.check_addresses("a", at(&[address])), Ok(at(&[address])));
        }
        let mixed = at(&["127.0.0.1", "192.0.2.7", "::1"]);
        assert_eq!(any.check_addresses("a", mixed), Ok(at(&["192.0.2.7"])));
        assert_eq!(
            any.check_addresses("a", Vec::new()),
            Ok(Vec::new()),
            "nowhere is another fault"
        );
        assert_eq!(any.check_name("localhost"), Ok(()), "its addresses tell");
    }

    #[test]
    fn a_list_is_of_hosts_and_whole_labels_under_hosts() {
        let list =
            listed(&["id.example.com", "*.Example.org", "127.0.0.1", "[0:0::1]", "localhost"]);
        for host in [
            "id.example.com",
            "ID.example.com.",
            "a.example.org",
            "a.b.example.org",
            "127.0.0.1",
            "[::1]",
            "localhost",
        ] {
            assert_eq!(list.check_name(host), Ok(()), "{host}");
            assert_eq!(list.check_addresses(host, at(&["::1"])), Ok(at(&["::1"])), "{host}");
        }
        for host in [
            "example.com",
            "a.id.example.com",
            "id.example.com.evil.com",
            "example.org",
            "evilexample.org",
            ".example.org",
            "127.0.0.2",
            "2130706433",
            "[::2]",
            "",
        ] {
            let refused = list.check_name(host).unwrap_err().to_string();
            assert!(refused.contains("none of the hosts"), "{host}: {refused}");
        }
    }

    #[test]
    fn what_is_no_host_is_told() {
        for text in [
            "",
            "*",
            "*.",
            "a.*",
            "*.*.a",
            "https://a",
            "a:443",
            "a/b",
            "a..b",
            "a b",
            "u@a",
            "*.127.0.0.1",
            "[::1",
            "::1",
            "*.[::1]",
        ] {
            assert_eq!(text.parse::<HostPattern>(), Err(HostPatternError), "{text:?}");
        }
        for text in ["a", "*.a", "id-1.example.com", "192.0.2.7", "[2001:db8::7]"] {
            assert_eq!(text.parse::<HostPattern>().unwrap().to_string(), text);
        }
    }
}
