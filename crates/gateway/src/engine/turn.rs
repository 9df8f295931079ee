//! A room's turn at writing: what waits for the room goes to its members, slice by slice.
//!
//! Between two slices other rooms have theirs, and sockets are read, so that nobody waits until a room of thousands is written
//! to. Messages that come meanwhile wait for the next turn, so each member gets all in order.

use std::time::Duration;

use super::{outbox::Chunk, shard::Pending, writing::batch};

/// Members that are written to in a slice. It takes a fraction of a millisecond, beside which what comes between two is little.
pub(super) const SLICE: usize = 64;

/// How messages were handed on to members, each counted for each member.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HandedOn {
    /// Straight to the socket.
    pub(super) written: usize,
    /// Behind what waits for it.
    pub(super) queued: usize,
    /// Members that were lost by it.
    pub(super) lost: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct RoomTurn {
    /// What is to be written, in order.
    messages: Vec<Pending>,
    /// So many of them are with all members.
    done: usize,
    /// So many after those are being written now, as one chunk.
    count: usize,
    chunk: Chunk,
    /// So many members, from the beginning of the room's list, have that.
    pub(super) served: usize,
    pub(super) handed_on: HandedOn,
    /// How long the slices took.
    pub(super) took: Duration,
}

impl RoomTurn {
    /// A turn with these messages, of which at most so many are joined; none without messages.
    pub(super) fn begin(messages: Vec<Pending>, queue: usize) -> Option<Box<Self>> {
        let count = batch(&messages, queue);
        let chunk = joined(messages.get(..count)?)?;
        Some(Box::new(Self {
            messages,
            done: 0,
            count,
            chunk,
            served: 0,
            handed_on: HandedOn::default(),
            took: Duration::ZERO,
        }))
    }

    /// What is being written, and how many messages it has.
    pub(super) fn chunk(&self) -> (&Chunk, usize) {
        (&self.chunk, self.count)
    }

    /// The messages of that.
    pub(super) fn under_way(&self) -> &[Pending] {
        self.messages.get(self.done..self.done + self.count).unwrap_or_default()
    }

    /// All messages that not every member has.
    pub(super) fn left(&self) -> &[Pending] {
        self.messages.get(self.done..).unwrap_or_default()
    }

    /// Goes on to what is to be written next; says whether there is anything.
    pub(super) fn next(&mut self, queue: usize) -> bool {
        self.done += self.count;
        self.served = 0;
        self.handed_on = HandedOn::default();
        self.count = batch(self.left(), queue);
        match joined(self.under_way()) {
            Some(chunk) => {
                self.chunk = chunk;
                true
            }
            None => false,
        }
    }
}

fn joined(messages: &[Pending]) -> Option<Chunk> {
    let frames = messages.iter().map(|message| &message.frame);
    (!messages.is_empty()).then(|| Chunk::join(frames))
}

/// Takes the member at this place off a list of which the first so many have what is being written; they stay the first. Gives
/// the members that stand at another place for that, with it.
pub(super) fn take_off(
    list: &mut Vec<u32>,
    served: Option<&mut usize>,
    place: u32,
) -> [Option<(u32, u32)>; 2] {
    let mut hole = place as usize;
    let mut moved = [None, None];
    if let Some(served) = served
        && hole < *served
    {
        *served -= 1;
        if hole < *served {
            list.swap(hole, *served);
            moved[0] = list.get(hole).map(|key| (*key, hole as u32));
            hole = *served;
        }
    }
    list.swap_remove(hole);
    moved[1] = list.get(hole).map(|key| (*key, hole as u32));
    moved
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;

    use super::{super::Trip, *};

    fn messages(lengths: &[usize]) -> Vec<Pending> {
        let message = |length: &usize| Pending {
            frame: Bytes::from(vec![b'x'; *length]),
            trip: Trip::Short(std::time::Instant::now()),
        };
        lengths.iter().map(message).collect()
    }

    fn chunks(lengths: &[usize], queue: usize) -> Vec<(usize, usize)> {
        let mut chunks = Vec::new();
        let Some(mut turn) = RoomTurn::begin(messages(lengths), queue) else { return chunks };
        loop {
            let (chunk, count) = turn.chunk();
            assert_eq!(turn.under_way().len(), count);
            chunks.push((count, chunk.bytes().len()));
            if !turn.next(queue) {
                assert!(turn.left().is_empty());
                return chunks;
            }
        }
    }

    #[test]
    fn messages_are_joined_up_to_the_queue_and_up_to_what_a_socket_takes() {
        assert_eq!(chunks(&[], 4), []);
        assert_eq!(chunks(&[10], 4), [(1, 10)]);
        assert_eq!(chunks(&[10; 10], 4), [(4, 40), (4, 40), (2, 20)]);
        assert_eq!(chunks(&[40_000; 3], 100), [(1, 40_000), (1, 40_000), (1, 40_000)]);
        assert_eq!(chunks(&[30_000, 30_000, 30_000], 100), [(2, 60_000), (1, 30_000)]);
        assert_eq!(chunks(&[100_000, 10, 10], 100), [(1, 100_000), (2, 20)]);
    }

    #[test]
    fn who_leaves_in_the_middle_of_a_turn_takes_nobody_along_and_brings_nobody_back() {
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..2_000 {
            let members = random.u32(1..40);
            let mut list: Vec<u32> = (0..members).collect();
            let mut places: Vec<u32> = list.clone();
            let mut served = random.usize(0..=list.len());
            let mut has: BTreeSet<u32> = list.iter().take(served).copied().collect();
            let mut waits: BTreeSet<u32> = list.iter().skip(served).copied().collect();
            while !list.is_empty() {
                let leaver = list[random.usize(..list.len())];
                let moved = take_off(&mut list, Some(&mut served), places[leaver as usize]);
                for (key, place) in moved.into_iter().flatten() {
                    assert_ne!(key, leaver, "round {round}");
                    places[key as usize] = place;
                }
                has.remove(&leaver);
                waits.remove(&leaver);
                assert_eq!(list.iter().take(served).copied().collect::<BTreeSet<_>>(), has);
                assert_eq!(list.iter().skip(served).copied().collect::<BTreeSet<_>>(), waits);
                for (place, key) in list.iter().enumerate() {
                    assert_eq!(places[*key as usize] as usize, place, "round {round}");
                }
                // Now and then the next slice is written.
                if random.bool() && served < list.len() {
                    waits.remove(&list[served]);
                    has.insert(list[served]);
                    served += 1;
                }
            }
        }
    }
}
