//! The keys of one room, ready for use, and what a token says that was signed with one of them.

use hubbub_api::{Access, Algorithm, JwtPolicy, KeyMaterial, RoomName, VerificationKey};
use jsonwebtoken::{DecodingKey, Validation, errors::ErrorKind};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::{Grants, GrantsFault};

/// The most bytes of a token. Those of identity providers with many groups in them have a few thousand, and heads end at 16 KiB.
pub(crate) const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Keys that a token without a `kid` is tried with at most.
const TRIES: usize = 4;

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Not three parts of base64url and JSON, or too long, or of a kind that is not known.
    #[error("the token is not a JSON Web Token of at most 8 KiB that is understood here")]
    Malformed,
    /// No key of the room has its name and its algorithm.
    #[error("the token was signed with a key that this room does not know")]
    UnknownKey,
    /// The signature is not that of the key.
    #[error("the token's signature is not right")]
    Signature,
    /// Its time is over.
    #[error("the token has expired: get a new one")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    NotYet,
    /// It has no `exp`, so it would be good for ever.
    #[error("the token does not say when it expires (claim exp)")]
    NoExpiry,
    /// Somebody else made it.
    #[error("the token is of another issuer (claim iss)")]
    Issuer,
    /// It is for another service.
    #[error("the token is for another audience (claim aud)")]
    Audience,
    /// What it says of rooms cannot be read.
    #[error(transparent)]
    Grants(#[from] GrantsFault),
}

impl TokenFault {
    /// All, for metrics that read 0 from the start.
    pub(crate) const ALL: [Self; 9] = [
        Self::Malformed,
        Self::UnknownKey,
        Self::Signature,
        Self::Expired,
        Self::NotYet,
        Self::NoExpiry,
        Self::Issuer,
        Self::Audience,
        Self::Grants(GrantsFault),
    ];

    /// A stable name, for metrics and programs.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "token_malformed",
            Self::UnknownKey => "token_key_unknown",
            Self::Signature => "token_signature",
            Self::Expired => "token_expired",
            Self::NotYet => "token_not_yet_valid",
            Self::NoExpiry => "token_no_expiry",
            Self::Issuer => "token_issuer",
            Self::Audience => "token_audience",
            Self::Grants(_) => "token_claim",
        }
    }
}

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    issuer: String,
    audiences: Vec<String>,
    subject: Option<String>,
    /// What the claims say of rooms, by the name of the claim: another policy may look at another one.
    grants: Option<Grants>,
    claim: String,
    key: KeyPrint,
    not_before: Option<u64>,
    expires: u64,
}

/// Sets a key apart from others: its numbers and its algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct KeyPrint([u8; 32]);

impl Bearer {
    /// Whom the token is about, if it says so.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// Who signed it.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// When it expires, in seconds since 1970.
    #[must_use]
    pub fn expires(&self) -> u64 {
        self.expires
    }
}

/// See the module.
#[derive(Debug)]
pub struct Verifier {
    policy: JwtPolicy,
    keys: Vec<Key>,
}

struct Key {
    kid: Option<String>,
    alg: jsonwebtoken::Algorithm,
    print: KeyPrint,
    key: DecodingKey,
    validation: Validation,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("kid", &self.kid)
            .field("alg", &self.alg)
            .finish_non_exhaustive()
    }
}

impl Verifier {
    /// Makes the policy's keys ready. Those that are not sound are left out; a policy from the wire has none.
    #[must_use]
    pub fn new(policy: &JwtPolicy) -> Self {
        let ready = |key: &VerificationKey| {
            let alg = algorithm(key.alg);
            Some(Key {
                kid: key.kid.clone(),
                alg,
                print: print(key),
                key: decoding_key(&key.material)?,
                validation: validation(alg, policy),
            })
        };
        let keys = policy.keys.iter().filter_map(ready).collect();
        Self { policy: policy.clone(), keys }
    }

    /// The parameter of the query in which a token may come.
    #[must_use]
    pub fn query_parameter(&self) -> Option<&str> {
        self.policy.query_parameter.as_deref()
    }

    /// By how many seconds the clocks of signers may differ from ours.
    #[must_use]
    pub fn leeway(&self) -> u64 {
        self.policy.leeway.as_secs()
    }

    /// Reads a token and holds it against all that the room asks of one, at that time in seconds since 1970.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn verify(&self, token: &str, now: u64) -> Result<Bearer, TokenFault> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenFault::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|error| fault(error.kind()))?;
        if header.crit.is_some() {
            return Err(TokenFault::Malformed); // RFC 7515, section 4.1.11: what we do not understand must not be passed over
        }
        // The key says for which algorithm it is, never the token.
        let fits = |key: &&Key| {
            let named = match (&key.kid, &header.kid) {
                (Some(ours), Some(theirs)) => ours == theirs,
                _ => true,
            };
            named && key.alg == header.alg
        };
        let mut found = Err(TokenFault::UnknownKey);
        for key in self.keys.iter().filter(fits).take(TRIES) {
            let claims =
                jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &key.validation);
            found = match claims {
                Ok(token) => self.read(token.claims, key.print),
                Err(error) => Err(fault(error.kind())),
            };
            if found != Err(TokenFault::Signature) {
                break;
            }
        }
        let bearer = found?;
        self.check(&bearer, now)?;
        Ok(bearer)
    }

    /// Takes from verified claims what is needed.
    fn read(&self, mut claims: Map<String, Value>, key: KeyPrint) -> Result<Bearer, TokenFault> {
        let text = |value: Option<Value>| match value {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let audiences = match claims.remove("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(all)) => all.into_iter().filter_map(|one| text(Some(one))).collect(),
            _ => return Err(TokenFault::Audience),
        };
        let grants = claims.get(&self.policy.claim).map(Grants::parse).transpose()?;
        Ok(Bearer {
            issuer: text(claims.remove("iss")).ok_or(TokenFault::Issuer)?,
            audiences,
            subject: text(claims.remove("sub")),
            grants,
            claim: self.policy.claim.clone(),
            key,
            // What is no time cannot be waited for.
            not_before: match claims.get("nbf") {
                Some(begins) => Some(seconds(begins).ok_or(TokenFault::NotYet)?),
                None => None,
            },
            expires: claims.get("exp").and_then(seconds).ok_or(TokenFault::NoExpiry)?,
        })
    }

    /// Whether one of these keys has signed it, and nothing has to be read from it anew.
    #[must_use]
    pub fn signed(&self, bearer: &Bearer) -> bool {
        self.keys.iter().any(|key| key.print == bearer.key) && self.policy.claim == bearer.claim
    }

    /// Holds what a token says against all that the room asks of one, but for the signature.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(&self, bearer: &Bearer, now: u64) -> Result<(), TokenFault> {
        if !self.signed(bearer) {
            return Err(TokenFault::UnknownKey);
        }
        if bearer.issuer != self.policy.issuer {
            return Err(TokenFault::Issuer);
        }
        if !bearer.audiences.iter().any(|audience| self.policy.audiences.contains(audience)) {
            return Err(TokenFault::Audience);
        }
        if bearer.not_before.is_some_and(|time| time > now.saturating_add(self.leeway())) {
            return Err(TokenFault::NotYet);
        }
        if bearer.expires.saturating_add(self.leeway()) <= now {
            return Err(TokenFault::Expired);
        }
        Ok(())
    }

    /// What the bearer may do in this room.
    #[must_use]
    pub fn access(&self, bearer: &Bearer, room: &RoomName) -> Access {
        match &bearer.grants {
            Some(grants) => grants.access(room),
            None => self.policy.access_without_claim,
        }
    }
}

/// Times are checked by [`Verifier::check`] with a clock that is given, the rest by the library.
fn validation(alg: jsonwebtoken::Algorithm, policy: &JwtPolicy) -> Validation {
    let mut validation = Validation::new(alg);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.set_issuer(&[&policy.issuer]);
    validation.set_audience(&policy.audiences);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation
}

fn algorithm(alg: Algorithm) -> jsonwebtoken::Algorithm {
    match alg {
        Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::Rs384 => jsonwebtoken::Algorithm::RS384,
        Algorithm::Rs512 => jsonwebtoken::Algorithm::RS512,
        Algorithm::Ps256 => jsonwebtoken::Algorithm::PS256,
        Algorithm::Ps384 => jsonwebtoken::Algorithm::PS384,
        Algorithm::Ps512 => jsonwebtoken::Algorithm::PS512,
        Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::Es384 => jsonwebtoken::Algorithm::ES384,
        Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
    }
}

fn decoding_key(material: &KeyMaterial) -> Option<DecodingKey> {
    match material {
        KeyMaterial::Rsa { n, e } => DecodingKey::from_rsa_components(n, e),
        KeyMaterial::Ec { x, y, .. } => DecodingKey::from_ec_components(x, y),
        KeyMaterial::Okp { x, .. } => DecodingKey::from_ed_components(x),
    }
    .ok()
}

fn print(key: &VerificationKey) -> KeyPrint {
    let parts: [&str; 3] = match &key.material {
        KeyMaterial::Rsa { n, e } => ["RSA", n, e],
        KeyMaterial::Ec { x, y, .. } => ["EC", x, y],
        KeyMaterial::Okp { crv, x } => [crv, x, ""],
    };
    // None of the parts can hold the separator, as all are base64url or names.
    let text = format!("{:?} {}", key.alg, parts.join(" "));
    KeyPrint(Sha256::digest(text.as_bytes()).into())
}

/// A time of a token (RFC 7519, section 2: a number of seconds, maybe with a fraction).
fn seconds(value: &Value) -> Option<u64> {
    let whole = |seconds: f64| {
        // Cut to the ends of the type on purpose: year 292 277 026 596 is as good as never.
        (seconds.is_finite() && seconds >= 0.0).then_some(seconds as u64)
    };
    value.as_u64().or_else(|| value.as_f64().and_then(whole))
}

fn fault(kind: &ErrorKind) -> TokenFault {
    match kind {
        ErrorKind::InvalidSignature => TokenFault::Signature,
        ErrorKind::InvalidIssuer => TokenFault::Issuer,
        ErrorKind::InvalidAudience => TokenFault::Audience,
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "iss" => TokenFault::Issuer,
            "aud" => TokenFault::Audience,
            _ => TokenFault::NoExpiry,
        },
        ErrorKind::InvalidAlgorithm => TokenFault::UnknownKey,
        _ => TokenFault::Malformed,
    }
}
