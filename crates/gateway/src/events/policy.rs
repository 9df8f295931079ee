//! What happens to the declarations of rooms.

use hubbub_api::RoomName;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tracing::{error, info, warn};

use crate::room::Changes;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChangeLabel {
    change: &'static str,
}

/// One method a happening: its log line and its metrics.
#[derive(Debug)]
pub struct PolicyEvents {
    rooms: Gauge,
    changes: Family<ChangeLabel, Counter>,
    refusals: Counter,
    faults: Gauge,
    source_errors: Counter,
    source_follows: Counter,
    default_room_missing: Counter,
}

impl PolicyEvents {
    /// Registers the metrics; `registry` gives them their prefix.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let new = Self {
            rooms: Gauge::default(),
            changes: Family::default(),
            refusals: Counter::default(),
            faults: Gauge::default(),
            source_errors: Counter::default(),
            source_follows: Counter::default(),
            default_room_missing: Counter::default(),
        };
        registry.register("policy_rooms", "Rooms declared", new.rooms.clone());
        registry.register(
            "policy_changes",
            "Rooms added, changed and removed",
            new.changes.clone(),
        );
        registry.register(
            "policy_refusals",
            "Contents of the files, or values of the bucket, that were refused",
            new.refusals.clone(),
        );
        registry.register(
            "policy_faults",
            "Declarations that are not in force because they are refused",
            new.faults.clone(),
        );
        registry.register(
            "policy_source_errors",
            "Times that the source of the declarations could not be read",
            new.source_errors.clone(),
        );
        registry.register(
            "policy_source_follows",
            "Times that the bucket of policies was read whole and is followed from then on",
            new.source_follows.clone(),
        );
        registry.register(
            "policy_default_room_missing",
            "Times that rooms were known at the start and the one of --default-room was not among them",
            new.default_room_missing.clone(),
        );
        // What has not happened yet reads 0, so that a rate over it works from the first time on.
        for change in ["added", "changed", "removed"] {
            drop(new.changes.get_or_create(&ChangeLabel { change }));
        }
        new
    }

    /// The declarations were read and are in force; `rooms` is how many there are now.
    pub fn applied(&self, rooms: usize, changes: Changes) {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let add = |change, number| {
            self.changes.get_or_create(&ChangeLabel { change }).inc_by(count(number));
        };
        add("added", changes.added);
        add("changed", changes.changed);
        add("removed", changes.removed);
        self.rooms.set(i64::try_from(rooms).unwrap_or(i64::MAX));
        if !changes.is_empty() {
            let Changes { added, changed, removed } = changes;
            info!(rooms, added, changed, removed, "rooms declared");
        }
    }

    /// The files as they are now are refused; what was in force stays.
    pub fn files_refused(&self, faults: &[String]) {
        self.refusals.inc();
        for fault in faults {
            error!("{fault}");
        }
        let problems = faults.len();
        error!(problems, "the files of rooms are refused; the rooms stay as they were");
    }

    /// A value of the bucket is refused; what was in force for that room stays.
    pub fn value_refused(&self, key: &str, revision: u64, fault: &str) {
        self.refusals.inc();
        error!(key, revision, fault, "a room's policy is refused; the room stays as it was");
    }

    /// This many declarations are refused right now.
    pub fn faults(&self, number: usize) {
        self.faults.set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// The bucket cannot be followed; the rooms stay as they are.
    pub fn source_away(&self, cause: &str) {
        self.source_errors.inc();
        warn!(cause, "the policies cannot be followed; the rooms stay as they are");
    }

    /// The bucket is followed.
    pub fn source_followed(&self, rooms: usize, revision: u64) {
        self.source_follows.inc();
        info!(rooms, revision, "following the policies");
    }

    /// The rooms are known, and the one that `/ws` should lead to is not among them.
    pub fn default_room_missing(&self, room: &RoomName) {
        self.default_room_missing.inc();
        warn!(
            %room,
            "the room of --default-room is not declared: /ws answers 404 until it is"
        );
    }

    /// How often the bucket was read whole.
    #[must_use]
    pub fn follow_count(&self) -> u64 {
        self.source_follows.get()
    }

    /// How many contents or values were refused.
    #[must_use]
    pub fn refusal_count(&self) -> u64 {
        self.refusals.get()
    }
}
