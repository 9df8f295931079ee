//! Members that are sent away for want of memory: those first for whom most is held, wherever on the gateway they are.

use std::cmp::Reverse;

use tokio::sync::oneshot;

use super::{
    Ending, Engine,
    inbox::Command,
    member::{Member, State},
    shard::Shard,
};

/// Bytes that must wait for a member before it is sent away for their sake: less waits for any healthy member now and then.
const WORTH_SHEDDING: usize = 4 * 1024;

/// Of so many members one is sent away for want of memory where nothing waits for any of them.
const SHED_ONE_IN: usize = 100;

impl Engine {
    /// Lets so many bytes more of members' messages be kept, until this is called again. Without a call there is no end to it.
    pub fn allow(&self, bytes: u64) {
        self.shared.allowance.set(bytes);
    }

    /// Whether members were held back for want of that since this was asked last.
    #[must_use]
    pub fn has_held_back(&self) -> bool {
        self.shared.allowance.has_held_back()
    }

    /// Sends members away until about so many bytes are free: those first for whom most is held, and where that is not enough one of
    /// a hundred of the others, by chance.
    pub async fn shed(&self, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut held = Vec::with_capacity(self.inboxes.len());
        for inbox in &self.inboxes {
            let (answer, answered) = oneshot::channel();
            inbox.push(Command::Weigh { answer });
            // A shard that has ended has no members.
            held.push(answered.await.unwrap_or_default());
        }
        let shares = shares(&held, bytes);
        let is_enough = shares.iter().sum::<usize>() >= bytes;
        for (inbox, bytes) in self.inboxes.iter().zip(shares) {
            inbox.push(Command::Shed { bytes, others: !is_enough });
        }
    }
}

/// How many of those bytes each shard is to free, of what it holds for its members, so that on all of them together those are sent away for
/// whom most is held.
fn shares(held: &[Vec<usize>], bytes: usize) -> Vec<usize> {
    let of_shards = held.iter().enumerate();
    let mut all: Vec<_> =
        of_shards.flat_map(|(shard, held)| held.iter().map(move |held| (*held, shard))).collect();
    all.sort_unstable_by_key(|(held, _)| Reverse(*held));
    let mut shares = vec![0_usize; held.len()];
    let mut freed = 0_usize;
    for (held, shard) in all {
        if freed >= bytes {
            break;
        }
        freed = freed.saturating_add(held);
        shares[shard] = shares[shard].saturating_add(held);
    }
    shares
}

impl Shard {
    /// The bytes that are held for each member for whom it would be worth to send it away.
    pub(super) fn weigh(&self) -> Vec<usize> {
        self.members
            .iter()
            .filter(|(_, member)| can_be_shed(member))
            .map(|(_, member)| member.held_bytes())
            .filter(|held| *held >= WORTH_SHEDDING)
            .collect()
    }

    /// Sends members away until so many bytes are free, those first for whom most is held; and one of a hundred of the others as well, if
    /// that is wanted.
    pub(super) fn shed(&mut self, bytes: usize, others: bool) {
        let open = self.members.iter().filter(|(_, member)| can_be_shed(member));
        let weighed = open.map(|(key, member)| (member.held_bytes(), key as u32));
        let (mut holding, idle): (Vec<_>, Vec<_>) =
            weighed.partition(|(held, _)| *held >= WORTH_SHEDDING);
        holding.sort_unstable_by_key(|(held, _)| Reverse(*held));
        let mut freed = 0_usize;
        for (held, key) in holding {
            if freed >= bytes {
                break;
            }
            freed = freed.saturating_add(held);
            self.close(key, Ending::Shed);
        }
        if others {
            for (_, key) in idle {
                if self.random.usize(..SHED_ONE_IN) == 0 {
                    self.close(key, Ending::Shed);
                }
            }
        }
    }
}

fn can_be_shed(member: &Member) -> bool {
    member.state == State::Open && member.socket.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_for_whom_most_is_held_go_wherever_they_are() {
        let held = [vec![10, 500, 20], vec![], vec![400, 30]];
        assert_eq!(shares(&held, 0), [0, 0, 0]);
        assert_eq!(shares(&held, 1), [500, 0, 0]);
        assert_eq!(shares(&held, 501), [500, 0, 400]);
        assert_eq!(shares(&held, 910), [500, 0, 430]);
        assert_eq!(shares(&held, 10_000), [530, 0, 430], "all that there is");
        assert_eq!(shares(&[], 1), [0_usize; 0]);
    }
}
