//! From where a request comes that proxies have passed on.
//!
//! Each proxy appends the address of its own peer to `X-Forwarded-For`, so the list is believed from its end for as long as the
//! addresses in it are those of trusted proxies; the first other one is the client's. What stands before that, the client may
//! have written itself.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

const FORWARDED: &str = "x-forwarded-for";

/// The client of a request whose peer is a trusted proxy; none if the proxy does not say.
pub(super) fn client(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let mut client = None;
    for line in headers.get_all(FORWARDED).iter().rev() {
        // What is not even text is no address: the last proxy that was believed is as near as it gets.
        let Ok(line) = line.to_str() else { return client };
        for entry in line.rsplit(',') {
            let Some(address) = address(entry.trim()) else { return client };
            client = Some(address);
            if !is_trusted(address) {
                return client;
            }
        }
    }
    client
}

/// An entry as proxies write it: an address, also in brackets, also with a port.
fn address(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|entry| entry.strip_suffix(']')).unwrap_or(entry);
    let parsed = bare.parse().ok();
    let parsed = parsed.or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()));
    parsed.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client_of(lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        let trusted = |address: IpAddr| address.to_string().starts_with("10.");
        client(&headers, trusted).map(|address| address.to_string())
    }

    #[test]
    fn the_list_is_believed_from_its_end() {
        for (lines, expected) in [
            (&["198.51.100.7"][..], Some("198.51.100.7")),
            (&["203.0.113.9, 198.51.100.7"], Some("198.51.100.7")),
            (&["203.0.113.9, 198.51.100.7, 10.0.0.1"], Some("198.51.100.7")),
            (&["203.0.113.9", "198.51.100.7", "10.0.0.1, 10.0.0.2"], Some("198.51.100.7")),
            (&["10.0.0.3, 10.0.0.2"], Some("10.0.0.3")),
            (&["2001:db8::1"], Some("2001:db8::1")),
            (&["[2001:db8::1]:4711"], Some("2001:db8::1")),
            (&["[2001:db8::1]"], Some("2001:db8::1")),
            (&["198.51.100.7:4711"], Some("198.51.100.7")),
            (&["::ffff:198.51.100.7"], Some("198.51.100.7")),
            (&[" 198.51.100.7 ,10.0.0.1"], Some("198.51.100.7")),
            (&["198.51.100.7, unknown"], None),
            (&["198.51.100.7, _hidden, 10.0.0.1"], Some("10.0.0.1")),
            (&["198.51.100.7,"], None),
            (&[""], None),
            (&["198.51.100.7, \u{e4}"], None),
            (&[], None),
        ] {
            assert_eq!(client_of(lines).as_deref(), expected, "{lines:?}");
        }
    }
}
