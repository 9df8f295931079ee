//! What is to be reconciled, and when: each key at most once, never twice at the same time, with a growing wait after failures.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// The wait after the first failure; it doubles.
const FIRST_RETRY: Duration = Duration::from_millis(200);

/// The longest wait: an API server that is back after a minute is used again soon.
const LONGEST_RETRY: Duration = Duration::from_secs(15);

/// See the module.
#[derive(Debug)]
pub struct Queue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

#[derive(Debug)]
struct State<K> {
    /// By time, then in the order they came.
    due: BTreeMap<(Instant, u64), K>,
    places: HashMap<K, (Instant, u64)>,
    running: HashSet<K>,
    failures: HashMap<K, u32>,
    count: u64,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        let state = State {
            due: BTreeMap::new(),
            places: HashMap::new(),
            running: HashSet::new(),
            failures: HashMap::new(),
            count: 0,
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// Asks for a key now.
    pub fn add(&self, key: K) {
        self.add_after(key, Duration::ZERO);
    }

    /// Asks for a key after a while; the earlier of two wishes holds.
    pub fn add_after(&self, key: K, after: Duration) {
        self.state().place(key, Instant::now() + after);
        self.changed.notify_one();
    }

    /// The next key whose time has come. It is not handed out again before [`done`](Self::done).
    pub async fn next(&self) -> K {
        loop {
            let changed = self.changed.notified();
            let wait = {
                let mut state = self.state();
                let now = Instant::now();
                let ready = state.due.iter().take_while(|((at, _), _)| *at <= now);
                let ready = ready.map(|(place, key)| (*place, key.clone()));
                let free: Option<((Instant, u64), K)> =
                    { ready }.find(|(_, key)| !state.running.contains(key));
                if let Some((place, key)) = free {
                    state.due.remove(&place);
                    state.places.remove(&key);
                    state.running.insert(key.clone());
                    drop(state);
                    // Another waiting worker may take what is next.
                    self.changed.notify_one();
                    return key;
                }
                // What runs now wakes us by `done`.
                state.due.keys().map(|(at, _)| *at).find(|at| *at > now)
            };
            match wait {
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Gives a key back, to be handed out again after `again`, if given.
    pub fn done(&self, key: &K, again: Option<Duration>) {
        let mut state = self.state();
        state.running.remove(key);
        state.failures.remove(key);
        if let Some(after) = again {
            state.place(key.clone(), Instant::now() + after);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Gives a key back that failed. It comes again after a wait that doubles with each failure in a row.
    pub fn failed(&self, key: &K) {
        let mut state = self.state();
        state.running.remove(key);
        let failures = state.failures.entry(key.clone()).or_default();
        let doubled = FIRST_RETRY.saturating_mul(1 << (*failures).min(10)).min(LONGEST_RETRY);
        *failures += 1;
        // What asked meanwhile must not shorten the wait, or a storm of events would be a storm of tries.
        state.remove(key);
        state.place(key.clone(), Instant::now() + doubled);
        drop(state);
        self.changed.notify_one();
    }

    /// Forgets all failures, and asks for every key that waits after one: what they failed for is there again.
    pub fn retry_now(&self) {
        let mut state = self.state();
        let failed: Vec<K> = state.failures.drain().map(|(key, _)| key).collect();
        let now = Instant::now();
        for key in failed {
            // One that runs comes again as well: it may have begun before.
            state.place(key, now);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Keys whose time has come, and that no worker has taken.
    pub fn depth(&self) -> usize {
        let now = Instant::now();
        self.state().due.range(..=(now, u64::MAX)).count()
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn place(&mut self, key: K, at: Instant) {
        match self.places.get(&key) {
            Some((earlier, _)) if *earlier <= at => return,
            // A wait after a failure holds.
            Some(_) if self.failures.contains_key(&key) => return,
            Some(_) => self.remove(&key),
            None => {}
        }
        self.count += 1;
        let place = (at, self.count);
        self.due.insert(place, key.clone());
        self.places.insert(key, place);
    }

    fn remove(&mut self, key: &K) {
        if let Some(place) = self.places.remove(key) {
            self.due.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_empty(queue: &Queue<&str>) -> bool {
        tokio::time::timeout(Duration::ZERO, queue.next()).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_the_earliest_wish_holds() {
        let queue = Queue::default();
        queue.add_after("a", Duration::from_secs(9));
        queue.add_after("a", Duration::from_secs(3));
        queue.add_after("a", Duration::from_secs(5));
        let begun = Instant::now();
        assert_eq!(queue.depth(), 0);
        assert_eq!(queue.next().await, "a");
        assert_eq!(begun.elapsed().as_secs(), 3);
        queue.done(&"a", None);
        assert!(is_empty(&queue).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_never_runs_twice_at_once() {
        let queue = Queue::default();
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "b");
        assert_eq!(queue.depth(), 1);
        assert!(is_empty(&queue).await, "a still runs");
        queue.done(&"a", None);
        assert_eq!(queue.next().await, "a", "what asked meanwhile is not lost");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_and_longer_whatever_asks_meanwhile() {
        let queue = Queue::default();
        queue.add("a");
        let mut waits = Vec::new();
        for _ in 0..9 {
            let begun = Instant::now();
            let key = queue.next().await;
            waits.push(begun.elapsed().as_millis());
            queue.add("a");
            queue.failed(&key);
            queue.add("a");
        }
        assert_eq!(waits, [0, 200, 400, 800, 1600, 3200, 6400, 12_800, 15_000]);
        queue.next().await;
        queue.done(&"a", Some(Duration::from_secs(1)));
        let begun = Instant::now();
        queue.next().await;
        assert_eq!(begun.elapsed().as_secs(), 1, "a success forgets the failures");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_after_failures_comes_at_once_when_told_so() {
        let queue = Queue::default();
        for key in ["a", "b"] {
            queue.add(key);
            for _ in 0..9 {
                let key = queue.next().await;
                queue.failed(&key);
            }
        }
        queue.add_after("later", Duration::from_secs(60));
        let begun = Instant::now();
        queue.retry_now();
        assert_eq!(queue.depth(), 2, "and no others");
        let mut both = [queue.next().await, queue.next().await];
        both.sort_unstable();
        assert_eq!((both, begun.elapsed()), (["a", "b"], Duration::ZERO));
        queue.failed(&"a");
        queue.next().await;
        assert_eq!(begun.elapsed(), FIRST_RETRY, "as after a first failure");
    }

    #[tokio::test(start_paused = true)]
    async fn two_waiting_workers_both_wake() {
        let queue = Queue::default();
        let (one, two) = tokio::join!(async { (queue.next().await, queue.next().await) }, async {
            queue.add("a");
            queue.add_after("b", Duration::from_secs(1));
        });
        assert_eq!(one, ("a", "b"));
        let () = two;
    }
}
