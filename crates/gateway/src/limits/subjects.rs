//! How many connections each subject of a token has here.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Issuer and subject: two issuers may give the same name to two people.
type Subject = Arc<(Box<str>, Box<str>)>;

/// See the module.
#[derive(Debug)]
pub(super) struct Subjects {
    most: NonZeroU32,
    connections: Mutex<HashMap<Subject, u32>>,
}

impl Subjects {
    pub(super) fn new(most: NonZeroU32) -> Self {
        Self { most, connections: Mutex::default() }
    }

    /// Takes a place, if one is left.
    pub(super) fn enter(self: &Arc<Self>, issuer: &str, subject: &str) -> Option<SubjectPlace> {
        let subject: Subject = Arc::new((issuer.into(), subject.into()));
        let mut connections = self.lock();
        let count = connections.entry(Arc::clone(&subject)).or_default();
        if *count >= self.most.get() {
            return None;
        }
        *count += 1;
        Some(SubjectPlace { subjects: Arc::clone(self), subject })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Subject, u32>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place of a connection; dropped, it is given back.
#[derive(Debug)]
pub struct SubjectPlace {
    subjects: Arc<Subjects>,
    subject: Subject,
}

impl Drop for SubjectPlace {
    fn drop(&mut self) {
        let mut connections = self.subjects.lock();
        let left = connections.get_mut(&self.subject).map(|count| {
            *count -= 1;
            *count
        });
        if left == Some(0) {
            connections.remove(&self.subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_one_of_its_issuer_and_is_forgotten_when_it_has_left() {
        let subjects = Arc::new(Subjects::new(NonZeroU32::MIN));
        let place = subjects.enter("https://a", "ada").unwrap();
        assert!(subjects.enter("https://a", "ada").is_none());
        let other = subjects.enter("https://b", "ada").unwrap();
        drop(place);
        assert!(subjects.enter("https://a", "ada").is_some());
        drop(other);
        assert!(subjects.lock().is_empty());
    }
}
