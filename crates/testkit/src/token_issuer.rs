//! An issuer of tokens with a real key of its own: good ones, and any that a forger would try.

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
        RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// Seconds for which tokens of [`TokenIssuer::token`] are good.
const LIFE: u64 = 3600;

enum Key {
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// See the module.
pub struct TokenIssuer {
    name: String,
    kid: String,
    alg: String,
    key: Key,
    jwk: Value,
}

impl std::fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenIssuer")
            .field("kid", &self.kid)
            .field("alg", &self.alg)
            .finish_non_exhaustive()
    }
}

impl TokenIssuer {
    /// An issuer of that name with a new key for `ES256`, called `kid`.
    ///
    /// # Panics
    ///
    /// When no key can be made.
    #[must_use]
    pub fn new(name: &str, kid: &str) -> Self {
        Self::with_algorithm(name, kid, "ES256")
    }

    /// The same for another algorithm, by its name in tokens.
    ///
    /// # Panics
    ///
    /// When it is not known, or no key can be made.
    #[must_use]
    pub fn with_algorithm(name: &str, kid: &str, alg: &str) -> Self {
        let (key, mut jwk) = match alg {
            "ES256" => elliptic(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
            "ES384" => elliptic(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
            "EdDSA" => edwards(),
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "RS384" => rsa(&RSA_PKCS1_SHA384),
            "RS512" => rsa(&RSA_PKCS1_SHA512),
            "PS256" => rsa(&RSA_PSS_SHA256),
            "PS384" => rsa(&RSA_PSS_SHA384),
            "PS512" => rsa(&RSA_PSS_SHA512),
            other => panic!("no key is made for {other}"),
        };
        jwk["kid"] = json!(kid);
        jwk["alg"] = json!(alg);
        jwk["use"] = json!("sig");
        Self { name: name.to_owned(), kid: kid.to_owned(), alg: alg.to_owned(), key, jwk }
    }

    /// The public key, as an entry of a key set.
    #[must_use]
    pub fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// The key set with this key alone.
    #[must_use]
    pub fn jwks(&self) -> String {
        key_set(&[self])
    }

    /// Claims that are good for an hour for this audience.
    #[must_use]
    pub fn claims(&self, audience: &str) -> Value {
        let now = now();
        json!({"iss": self.name, "aud": audience, "sub": "somebody", "iat": now, "exp": now + LIFE})
    }

    /// A token that is good for an hour for this audience.
    #[must_use]
    pub fn token(&self, audience: &str) -> String {
        self.sign(&self.claims(audience))
    }

    /// The same with other or further claims; one that is null is left out.
    ///
    /// # Panics
    ///
    /// When `more` is no object.
    #[must_use]
    pub fn token_with(&self, audience: &str, more: &Value) -> String {
        let mut claims = self.claims(audience);
        let fields = claims.as_object_mut().expect("claims are an object");
        for (name, value) in more.as_object().expect("further claims are an object") {
            match value {
                Value::Null => fields.remove(name),
                value => fields.insert(name.clone(), value.clone()),
            };
        }
        self.sign(&claims)
    }

    /// A token with these claims.
    #[must_use]
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_headed(&json!({"typ": "JWT", "alg": self.alg, "kid": self.kid}), claims)
    }

    /// A token with this header and these claims, signed with the issuer's key whatever the header says.
    ///
    /// # Panics
    ///
    /// When it cannot be signed.
    #[must_use]
    pub fn sign_headed(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let random = SystemRandom::new();
        let signature = match &self.key {
            Key::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(*encoding, &random, message.as_bytes(), &mut signature)
                    .expect("an RSA key signs");
                signature
            }
            Key::Ec(key) => {
                key.sign(&random, message.as_bytes()).expect("an EC key signs").as_ref().to_vec()
            }
            Key::Ed(key) => key.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// The key set of several issuers, or of several keys of one.
#[must_use]
pub fn key_set(issuers: &[&TokenIssuer]) -> String {
    let keys: Vec<_> = issuers.iter().map(|issuer| issuer.jwk()).collect();
    json!({"keys": keys}).to_string()
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("it is after 1970").as_secs()
}

fn number(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn elliptic(algorithm: &'static EcdsaSigningAlgorithm, curve: &str) -> (Key, Value) {
    let key = EcdsaKeyPair::generate(algorithm).expect("a key can be made");
    // Uncompressed: a byte that says so, then both coordinates.
    let (x, y) = {
        let point = &key.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        (number(x), number(y))
    };
    (Key::Ec(key), json!({"kty": "EC", "crv": curve, "x": x, "y": y}))
}

fn edwards() -> (Key, Value) {
    let key = Ed25519KeyPair::generate().expect("a key can be made");
    let x = number(key.public_key().as_ref());
    (Key::Ed(key), json!({"kty": "OKP", "crv": "Ed25519", "x": x}))
}

fn rsa(encoding: &'static dyn RsaEncoding) -> (Key, Value) {
    let key = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key can be made");
    let (n, e) = {
        let public = key.public_key();
        let modulus = public.modulus().big_endian_without_leading_zero().to_vec();
        let exponent = public.exponent().big_endian_without_leading_zero().to_vec();
        (number(&modulus), number(&exponent))
    };
    (Key::Rsa(key, encoding), json!({"kty": "RSA", "n": n, "e": e}))
}
