//! How a token comes with a handshake: in the `Authorization` header, in `Sec-WebSocket-Protocol` (a browser can set no other), or, if
//! the room allows it, in the query.

use http::{HeaderMap, header};

/// The subprotocol that is accepted for who offers it: messages as they are without it, and tokens renewed over the connection.
pub const PROTOCOL: &str = "hubbub.v1";

/// What stands before a token in `Sec-WebSocket-Protocol`.
pub const BEARER_PREFIX: &str = "hubbub.bearer.";

/// What a handshake brings of tokens and subprotocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried<'a> {
    /// The token.
    pub token: Option<&'a str>,
    /// Whether [`PROTOCOL`] is offered.
    pub protocol: bool,
}

/// The handshake cannot be understood as bringing one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CarrierFault {
    /// More than one token (RFC 6750, section 2, allows one).
    #[error("a handshake may carry one token, in one place")]
    Repeated,
    /// A token in a subprotocol's name needs [`PROTOCOL`] beside it, because a browser ends a connection for which none of its
    /// subprotocols was accepted.
    #[error("offer the subprotocol hubbub.v1 beside the token")]
    Protocol,
}

/// Finds the token. `parameter` is that of the query in which the room allows one. An `Authorization` of another scheme is not ours: a proxy
/// in front may ask for it.
///
/// # Errors
///
/// See [`CarrierFault`].
pub fn carried<'a>(
    headers: &'a HeaderMap,
    query: Option<&'a str>,
    parameter: Option<&str>,
) -> Result<Carried<'a>, CarrierFault> {
    let mut found = None;
    let mut take = |token: &'a str| match found.replace(token) {
        None => Ok(()),
        Some(_) => Err(CarrierFault::Repeated),
    };
    for value in headers.get_all(header::AUTHORIZATION) {
        let Some((scheme, token)) = value.to_str().ok().and_then(|value| value.split_once(' '))
        else {
            continue;
        };
        if scheme.eq_ignore_ascii_case("bearer") {
            take(token.trim())?;
        }
    }
    let (mut protocol, mut in_protocol) = (false, false);
    for value in headers.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
        // What is not text names no subprotocol of ours.
        let names = value.to_str().unwrap_or_default().split(',').map(str::trim);
        for name in names {
            protocol |= name == PROTOCOL;
            if let Some(token) = name.strip_prefix(BEARER_PREFIX) {
                take(token)?;
                in_protocol = true;
            }
        }
    }
    if in_protocol && !protocol {
        return Err(CarrierFault::Protocol);
    }
    if let Some(parameter) = parameter {
        let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        for (_, token) in pairs.filter(|(name, _)| *name == parameter) {
            take(token)?;
        }
    }
    Ok(Carried { token: found, protocol })
}

/// Whether the subprotocol is offered, all else that a handshake brings being of no interest.
#[must_use]
pub fn offers_protocol(headers: &HeaderMap) -> bool {
    headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().any(|value| {
        value.to_str().is_ok_and(|names| names.split(',').any(|name| name.trim() == PROTOCOL))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(fields: &[(header::HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_token_comes_in_one_of_three_places() {
        let authorization = (header::AUTHORIZATION, "bearer a.b.c");
        let protocols = (header::SEC_WEBSOCKET_PROTOCOL, "chat, hubbub.v1 , hubbub.bearer.a.b.c");
        let query = Some("connection=x&token=a.b.c");
        let find = |fields: &[_], query, parameter| {
            let headers = headers(fields);
            carried(&headers, query, parameter)
                .map(|carried| (carried.token.map(str::to_owned), carried.protocol))
        };
        let token = Some("a.b.c".to_owned());
        assert_eq!(
            find(std::slice::from_ref(&authorization), None, None),
            Ok((token.clone(), false))
        );
        assert_eq!(find(std::slice::from_ref(&protocols), None, None), Ok((token.clone(), true)));
        assert_eq!(find(&[], query, Some("token")), Ok((token, false)));
        assert_eq!(
            find(&[], query, None),
            Ok((None, false)),
            "not where the room does not allow it"
        );
        assert_eq!(find(&[], None, Some("token")), Ok((None, false)));
        let only = (header::SEC_WEBSOCKET_PROTOCOL, "hubbub.v1");
        assert_eq!(find(&[only], None, None), Ok((None, true)));

        let twice: [(&[_], _); 4] = [
            (&[authorization.clone(), authorization.clone()], None),
            (&[authorization.clone(), protocols.clone()], None),
            (&[protocols], query),
            (&[], Some("token=a.b.c&token=a.b.c")),
        ];
        for (fields, query) in twice {
            assert_eq!(
                find(fields, query, Some("token")),
                Err(CarrierFault::Repeated),
                "{fields:?}"
            );
        }
        for other in ["Basic YTpi", "Bearer", "Digest a=b, c=d", ""] {
            let field = [(header::AUTHORIZATION, other)];
            assert_eq!(find(&field, None, None), Ok((None, false)), "{other}");
        }
        let alone = [(header::SEC_WEBSOCKET_PROTOCOL, "hubbub.bearer.a.b.c")];
        assert_eq!(find(&alone, None, None), Err(CarrierFault::Protocol));
    }
}
