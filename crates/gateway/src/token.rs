//! Tokens: signed statements of who comes and what that one may do (JSON Web Tokens, RFC 7519, used as RFC 8725 advises).
//!
//! A room's policy brings the keys; nothing is fetched here. A token is verified once and then known again by its hash
//! ([`TokenCache`]). What it says is kept with the connection ([`Bearer`]), so that a changed policy can be held against it: a key that is
//! taken out of the set ends the connections of all tokens that were signed with it.

mod cache;
mod carrier;
mod grants;
mod verifier;

pub use cache::TokenCache;
pub use carrier::{BEARER_PREFIX, Carried, CarrierFault, PROTOCOL, carried, offers_protocol};
pub use grants::{Grants, GrantsFault};
pub(crate) use verifier::MAX_TOKEN_BYTES;
pub use verifier::{Bearer, TokenFault, Verifier};
