//! Connections that have sent nothing yet when they are first looked at.
//!
//! The first packet of a request follows the last one of its connection's opening closely, unless the client is slow. So a
//! connection is looked at a few times more, each time after twice as long, before the runtime is made to watch it: that
//! costs more than all of these looks.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::short_way::Fresh;

/// How long after the first look the second one comes.
const FIRST: Duration = Duration::from_millis(1);

/// Looks that are put off: the last comes 31 ms after the connection, and whatever comes between two of them waits no
/// longer than it took to come.
const LOOKS: usize = 5;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Silent {
    /// By the number of looks that were put off before; each in the order in which they are due.
    queues: [VecDeque<(Instant, Fresh)>; LOOKS],
}

impl Silent {
    /// Puts a look off, after so many that were. A connection for which that is too often is given back.
    pub(super) fn put_off(&mut self, looks: usize, fresh: Fresh) -> Option<Fresh> {
        let Some(queue) = self.queues.get_mut(looks) else { return Some(fresh) };
        queue.push_back((Instant::now() + FIRST * (1 << looks), fresh));
        None
    }

    /// When the next look is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.queues.iter().filter_map(VecDeque::front).map(|(at, _)| *at).min()
    }

    /// The next connection to be looked at now, and how often its look has been put off.
    pub(super) fn next(&mut self, now: Instant) -> Option<(usize, Fresh)> {
        self.queues.iter_mut().enumerate().find_map(|(looks, queue)| {
            queue.pop_front_if(|(at, _)| *at <= now).map(|(_, fresh)| (looks + 1, fresh))
        })
    }
}
