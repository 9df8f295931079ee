//! The public keys that tokens are verified with: a JSON Web Key Set (RFC 7517), of which only what verifies is kept.
//!
//! A set with a symmetric or a private key in it is refused as a whole: what is handed to every gateway must not be good for
//! signing. Keys of kinds that are not known are passed over, as RFC 7517 (section 5) asks, so that a provider may offer
//! newer ones beside those that we know.

use std::collections::HashSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The most bytes of a key set. Those of the large identity providers have less than 10 KiB.
pub const MAX_JWKS_BYTES: usize = 64 * 1024;

/// The most keys of a set that are kept: a token without the name of its key is tried with each that fits.
pub const MAX_KEYS: usize = 32;

/// RSA keys shorter than that are not safe any more (NIST SP 800-131A).
const MIN_RSA_BITS: usize = 2048;

/// Longer RSA keys would make one verification cost milliseconds.
const MAX_RSA_BITS: usize = 8192;

/// Members of a JWK that only a private key has (RFC 7518, sections 6.2.2 and 6.3.2; RFC 8037, section 2).
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// The signatures that are verified. Each key is for one of them, so a token cannot choose (RFC 8725, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Algorithm {
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// RSA PKCS #1 v1.5 with SHA-384.
    Rs384,
    /// RSA PKCS #1 v1.5 with SHA-512.
    Rs512,
    /// RSA-PSS with SHA-256.
    Ps256,
    /// RSA-PSS with SHA-384.
    Ps384,
    /// RSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519. Its newer name (RFC 9864) is read, too.
    #[serde(rename = "EdDSA", alias = "Ed25519")]
    EdDsa,
}

/// A public key, as a JSON Web Key with nothing but what verifying needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerificationKey {
    /// What tokens call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// What it is for, and nothing else.
    pub alg: Algorithm,
    /// The key itself.
    #[serde(flatten)]
    pub material: KeyMaterial,
}

/// The numbers of a key, in base64url as in the set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kty")]
pub enum KeyMaterial {
    /// An RSA key.
    #[serde(rename = "RSA")]
    Rsa {
        /// The modulus.
        n: String,
        /// The exponent.
        e: String,
    },
    /// A point on an elliptic curve.
    #[serde(rename = "EC")]
    Ec {
        /// Which curve: `P-256` or `P-384`.
        crv: String,
        /// Its first coordinate.
        x: String,
        /// Its second coordinate.
        y: String,
    },
    /// An Edwards curve's point.
    #[serde(rename = "OKP")]
    Okp {
        /// Which curve: `Ed25519`.
        crv: String,
        /// The point.
        x: String,
    },
}

/// What is wrong with a key set, and how to mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum JwksError {
    /// More bytes than [`MAX_JWKS_BYTES`].
    #[error(
        "has more than 65536 bytes: keep the keys that sign tokens now, and those that are next"
    )]
    TooLong,
    /// Not JSON, or not of that shape.
    #[error(
        "is not a JSON Web Key Set: it must be JSON such as {{\"keys\": [{{\"kty\": \"EC\", …}}]}}, as the jwks_uri of your identity provider gives it"
    )]
    Shape,
    /// A key for HMAC.
    #[error(
        "holds a symmetric key (kty oct), with which whoever verifies tokens can also make them: sign with RS, PS, ES or EdDSA, and give the public key"
    )]
    Symmetric,
    /// A key with its private half.
    #[error(
        "holds a private key: give the public half alone, and replace the key, because it was seen here"
    )]
    Private,
    /// No key of any kind.
    #[error(
        "holds no key: give the public keys with which tokens are signed, as the jwks_uri of your identity provider does"
    )]
    Empty,
    /// Nothing with which a token could be verified.
    #[error(
        "holds no key that verifies: RSA of 2048 to 8192 bits, EC on P-256 or P-384, or Ed25519, and not for encryption"
    )]
    NoneUsable,
    /// More usable keys than [`MAX_KEYS`].
    #[error("holds more than 32 keys: keep those that sign tokens now, and those that are next")]
    TooMany,
    /// Two usable keys with the same name for the same algorithm.
    #[error(
        "holds two keys with the same kid and alg, so that a token cannot say which is its own: give each a kid of its own"
    )]
    Repeated,
}

/// The keys of a set that verify, in their order.
///
/// # Errors
///
/// What is wrong with the set; of several things the gravest.
pub fn parse_jwks(text: &str) -> Result<Vec<VerificationKey>, JwksError> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Map<String, Value>>,
    }
    if text.len() > MAX_JWKS_BYTES {
        return Err(JwksError::TooLong);
    }
    let Set { keys } = serde_json::from_str(text).map_err(|_| JwksError::Shape)?;
    if keys.is_empty() {
        return Err(JwksError::Empty);
    }
    let is_symmetric = |key: &Map<String, Value>| {
        key.get("kty").is_some_and(|kty| kty == "oct") || key.contains_key("k")
    };
    if keys.iter().any(is_symmetric) {
        return Err(JwksError::Symmetric);
    }
    if keys.iter().any(|key| PRIVATE.iter().any(|member| key.contains_key(*member))) {
        return Err(JwksError::Private);
    }
    let usable: Vec<_> = keys.into_iter().filter_map(usable).collect();
    match usable.len() {
        0 => Err(JwksError::NoneUsable),
        1..=MAX_KEYS if names_are_unique(&usable) => Ok(usable),
        1..=MAX_KEYS => Err(JwksError::Repeated),
        _ => Err(JwksError::TooMany),
    }
}

impl VerificationKey {
    /// Whether its numbers are of a length that its algorithm has.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        use Algorithm::{EdDsa, Es256, Es384, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        match (&self.material, self.alg) {
            (KeyMaterial::Rsa { n, e }, Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512) => {
                bits(n).is_some_and(|bits| (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits))
                    && bits(e).is_some_and(|bits| (2..=64).contains(&bits))
            }
            (KeyMaterial::Ec { crv, x, y }, Es256) => {
                crv == "P-256" && [x, y].iter().all(|number| bytes(number) == Some(32))
            }
            (KeyMaterial::Ec { crv, x, y }, Es384) => {
                crv == "P-384" && [x, y].iter().all(|number| bytes(number) == Some(48))
            }
            (KeyMaterial::Okp { crv, x }, EdDsa) => crv == "Ed25519" && bytes(x) == Some(32),
            _ => false,
        }
    }
}

/// The key, if it is one that verifies.
fn usable(mut key: Map<String, Value>) -> Option<VerificationKey> {
    if key.get("use").is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    if let Some(Value::Array(purposes)) = key.get("key_ops")
        && !purposes.iter().any(|purpose| purpose == "verify")
    {
        return None;
    }
    if !key.contains_key("alg") {
        // Of RSA keys without one, this is what providers sign with.
        let alg = match (key.get("kty")?.as_str()?, key.get("crv").and_then(Value::as_str)) {
            ("RSA", _) => "RS256",
            ("EC", Some("P-256")) => "ES256",
            ("EC", Some("P-384")) => "ES384",
            ("OKP", Some("Ed25519")) => "EdDSA",
            _ => return None,
        };
        key.insert("alg".to_owned(), alg.into());
    }
    let key: VerificationKey = serde_json::from_value(Value::Object(key)).ok()?;
    key.is_sound().then_some(key)
}

fn decoded(number: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(number).ok()
}

fn bytes(number: &str) -> Option<usize> {
    decoded(number).map(|bytes| bytes.len())
}

/// The bits of a number, without leading zeros.
fn bits(number: &str) -> Option<usize> {
    let number = decoded(number)?;
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let first = number.get(zeros)?;
    Some((number.len() - zeros) * 8 - first.leading_zeros() as usize)
}

/// Whether no two keys have the same name: a token's `kid` must lead to one key for each algorithm.
#[must_use]
pub(crate) fn names_are_unique(keys: &[VerificationKey]) -> bool {
    let mut seen = HashSet::new();
    keys.iter().all(|key| key.kid.is_none() || seen.insert((&key.kid, key.alg)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn number(bytes: usize) -> String {
        let mut number = vec![0xff; bytes];
        number[bytes - 1] = 1;
        URL_SAFE_NO_PAD.encode(number)
    }

    fn rsa(bytes: usize) -> Value {
        json!({"kty": "RSA", "kid": "r", "n": number(bytes), "e": "AQAB"})
    }

    fn ec(crv: &str, bytes: usize) -> Value {
        json!({"kty": "EC", "kid": "e", "crv": crv, "x": number(bytes), "y": number(bytes)})
    }

    fn with(mut key: Value, more: &Value) -> Value {
        let (key_fields, more) = (key.as_object_mut().unwrap(), more.as_object().unwrap());
        key_fields.extend(more.clone());
        key
    }

    fn parse(keys: &[Value]) -> Result<Vec<VerificationKey>, JwksError> {
        parse_jwks(&json!({"keys": keys, "issued": "today"}).to_string())
    }

    #[test]
    fn each_key_is_for_one_algorithm() {
        let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": number(32)});
        for (key, alg) in [
            (rsa(256), Algorithm::Rs256),
            (with(rsa(512), &json!({"alg": "PS512", "use": "sig"})), Algorithm::Ps512),
            (ec("P-256", 32), Algorithm::Es256),
            (ec("P-384", 48), Algorithm::Es384),
            (ed.clone(), Algorithm::EdDsa),
            (with(ed.clone(), &json!({"alg": "Ed25519"})), Algorithm::EdDsa),
            (with(ed, &json!({"key_ops": ["verify"]})), Algorithm::EdDsa),
        ] {
            let keys = parse(std::slice::from_ref(&key)).unwrap();
            assert_eq!(keys.iter().map(|key| key.alg).collect::<Vec<_>>(), [alg], "{key}");
            let written = serde_json::to_string(&keys[0]).unwrap();
            assert_eq!(serde_json::from_str::<VerificationKey>(&written).unwrap(), keys[0]);
        }
    }

    #[test]
    fn what_could_sign_is_refused_whatever_stands_beside_it() {
        let oct = json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"});
        assert_eq!(parse(&[rsa(256), oct]), Err(JwksError::Symmetric));
        assert_eq!(parse(&[json!({"kty": "OCT", "k": "c2VjcmV0"})]), Err(JwksError::Symmetric));
        for member in PRIVATE {
            let private = with(ec("P-256", 32), &json!({member: number(32)}));
            assert_eq!(parse(&[rsa(256), private]), Err(JwksError::Private), "{member}");
        }
    }

    #[test]
    fn what_is_not_known_is_passed_over_and_something_must_be_left() {
        let useless = [
            rsa(255),
            rsa(1025),
            with(rsa(256), &json!({"use": "enc"})),
            with(rsa(256), &json!({"key_ops": ["encrypt"]})),
            with(rsa(256), &json!({"alg": "RSA-OAEP"})),
            with(rsa(256), &json!({"alg": "ES256"})),
            with(rsa(256), &json!({"alg": "HS256"})),
            with(rsa(256), &json!({"alg": "none"})),
            with(rsa(256), &json!({"e": "AQ"})),
            with(rsa(256), &json!({"n": "not base64url!"})),
            ec("P-256", 31),
            ec("P-521", 66),
            ec("secp256k1", 32),
            json!({"kty": "OKP", "crv": "Ed448", "x": number(57)}),
            json!({"kty": "ML-DSA", "alg": "ML-DSA-44", "pub": "AAAA"}),
            json!({}),
        ];
        for key in &useless {
            assert_eq!(parse(std::slice::from_ref(key)), Err(JwksError::NoneUsable), "{key}");
        }
        let mut keys = useless.to_vec();
        keys.push(ec("P-256", 32));
        assert_eq!(parse(&keys).unwrap().len(), 1);
        assert_eq!(parse(&[]), Err(JwksError::Empty));
        assert_eq!(parse(&vec![rsa(256); MAX_KEYS + 1]), Err(JwksError::TooMany));
    }

    #[test]
    fn what_is_no_set_is_said_to_be_none() {
        for text in ["", "{}", "[]", "null", r#"{"keys": {}}"#, r#"{"keys": [1]}"#, "-----BEGIN"] {
            assert_eq!(parse_jwks(text), Err(JwksError::Shape), "{text}");
        }
        assert_eq!(parse_jwks(&" ".repeat(MAX_JWKS_BYTES + 1)), Err(JwksError::TooLong));
    }

    #[test]
    fn two_keys_of_one_name_are_told() {
        let keys = parse(&[rsa(256), ec("P-256", 32), ec("P-384", 48)]).unwrap();
        assert!(names_are_unique(&keys), "the name may serve several algorithms");
        assert_eq!(parse(&[rsa(256), rsa(512)]), Err(JwksError::Repeated));
        let nameless = with(rsa(256), &json!({"kid": null}));
        assert_eq!(parse(&[nameless.clone(), nameless]).unwrap().len(), 2, "each is tried");
    }
}
