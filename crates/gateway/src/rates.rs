//! Messages a second by room, taken every few seconds for people who look at the admin page.

use std::{collections::HashMap, time::Duration};

use arc_swap::ArcSwap;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::room::Rooms;

/// Over how long a rate is taken.
const SPAN: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Default)]
pub struct Rates {
    by_room: ArcSwap<HashMap<u64, f64>>,
}

impl Rates {
    /// Messages that reached the room here in a second, over the last whole span; in tenths.
    #[must_use]
    pub fn of(&self, room: u64) -> f64 {
        self.by_room.load().get(&room).copied().unwrap_or(0.0)
    }

    /// Counts until `stop`.
    pub async fn run(&self, rooms: &Rooms, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(SPAN);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut counts, mut at) = (HashMap::new(), Instant::now());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = Instant::now();
            let seconds = (now - at).as_secs_f64().max(f64::MIN_POSITIVE);
            let mut rates = HashMap::new();
            let mut next = HashMap::with_capacity(counts.len());
            for room in rooms.all() {
                let messages = room.messages();
                let before: u64 = counts.get(&room.id()).copied().unwrap_or(0);
                if messages > before {
                    let rate = messages.saturating_sub(before) as f64 / seconds;
                    rates.insert(room.id(), (rate * 10.0).round() / 10.0);
                }
                next.insert(room.id(), messages);
            }
            self.by_room.store(rates.into());
            (counts, at) = (next, now);
        }
    }
}
