//! Tokens that were verified lately. A client that comes back with the same token costs a hash instead of a signature.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use sha2::{Digest as _, Sha256};

use super::{Bearer, TokenFault, Verifier};

/// Tokens in each of the two halves. One takes about half a kilobyte.
const HALF: usize = 4096;

/// See the module. Holds hashes of tokens, never tokens.
#[derive(Debug, Default)]
pub struct TokenCache {
    halves: Mutex<Halves>,
}

/// When the newer half is full it becomes the older one, whose tokens are forgotten: so a token that is in use stays.
#[derive(Debug, Default)]
struct Halves {
    newer: HashMap<[u8; 32], Arc<Bearer>>,
    older: HashMap<[u8; 32], Arc<Bearer>>,
}

impl TokenCache {
    /// What the token says, if it is good by these keys at that time.
    ///
    /// # Errors
    ///
    /// What is wrong with it. A bad token is not remembered: there is no end of them.
    pub fn verify(
        &self,
        verifier: &Verifier,
        token: &str,
        now: u64,
    ) -> Result<Arc<Bearer>, TokenFault> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(bearer) = self.get(&hash)
            && verifier.signed(&bearer)
        {
            verifier.check(&bearer, now)?;
            return Ok(bearer);
        }
        let bearer = Arc::new(verifier.verify(token, now)?);
        self.halves.lock().unwrap_or_else(PoisonError::into_inner).put(hash, Arc::clone(&bearer));
        Ok(bearer)
    }

    fn get(&self, hash: &[u8; 32]) -> Option<Arc<Bearer>> {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bearer) = halves.newer.get(hash) {
            return Some(Arc::clone(bearer));
        }
        let bearer = halves.older.remove(hash)?;
        halves.put(*hash, Arc::clone(&bearer));
        Some(bearer)
    }
}

impl Halves {
    fn put(&mut self, hash: [u8; 32], bearer: Arc<Bearer>) {
        if self.newer.len() >= HALF {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(hash, bearer);
    }
}
