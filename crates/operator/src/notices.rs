//! Events of Kubernetes: what people are told beside an object, on transitions only.

use hubbub_api::{API_VERSION, KIND, kubernetes::ConditionType};
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::{error::in_words, events::OperatorEvents, room::RoomKey};

/// The longest note that the API server takes.
const MAX_NOTE: usize = 1024;

/// How long telling may take: it must not hold up work.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(3);

/// One thing to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whether nothing is wrong.
    pub normal: bool,
    /// As in the condition.
    pub reason: String,
    /// As in the condition.
    pub note: String,
}

impl Notice {
    /// What has changed between two sets of conditions that is worth telling: whether the room is ready, and whether it
    /// is paused.
    #[must_use]
    pub fn between(before: &[Condition], after: &[Condition]) -> Vec<Self> {
        let of = |conditions: &[Condition], kind: ConditionType| {
            conditions.iter().find(|condition| condition.type_ == kind.as_str()).cloned()
        };
        let status = |condition: &Option<Condition>| {
            condition.as_ref().map_or("Unknown".to_owned(), |condition| condition.status.clone())
        };
        let mut notices = Vec::new();
        let (was, is) = (of(before, ConditionType::Ready), of(after, ConditionType::Ready));
        if let Some(ready) = is.filter(|is| is.status != "Unknown" && is.status != status(&was)) {
            let Condition { reason, message: note, status, .. } = ready;
            notices.push(Self { normal: status == "True", reason, note });
        }
        let (was, is) = (of(before, ConditionType::Paused), of(after, ConditionType::Paused));
        match (was, is) {
            (None, Some(paused)) => {
                notices.push(Self { normal: true, reason: paused.reason, note: paused.message })
            }
            (Some(_), None) => notices.push(Self {
                normal: true,
                reason: "Resumed".to_owned(),
                note: "the room is no longer paused".to_owned(),
            }),
            _ => {}
        }
        notices
    }
}

/// See the module.
pub struct Notices {
    recorder: Recorder,
    events: std::sync::Arc<OperatorEvents>,
}

impl std::fmt::Debug for Notices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Notices")
    }
}

impl Notices {
    /// Tells in the name of that replica. `client` must be fenced.
    #[must_use]
    pub fn new(client: Client, identity: &str, events: std::sync::Arc<OperatorEvents>) -> Self {
        let reporter = Reporter {
            controller: "hubbub.dev/operator".to_owned(),
            instance: Some(identity.to_owned()),
        };
        Self { recorder: Recorder::new(client, reporter), events }
    }

    /// Tells something of a room. That it could not be told is no reason to do anything again.
    pub async fn publish(&self, room: &RoomKey, uid: Option<String>, notice: Notice) {
        let Notice { normal, reason, note } = notice;
        let event = Event {
            type_: if normal { EventType::Normal } else { EventType::Warning },
            reason,
            note: Some(shortened(note)),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        let reference = ObjectReference {
            api_version: Some(API_VERSION.to_owned()),
            kind: Some(KIND.to_owned()),
            namespace: Some(room.namespace.clone()),
            name: Some(room.name.clone()),
            uid,
            ..ObjectReference::default()
        };
        match tokio::time::timeout(LIMIT, self.recorder.publish(&event, &reference)).await {
            Ok(Ok(())) => self.events.wrote("event"),
            Ok(Err(error)) => self.events.notice_failed(&room.path(), &in_words(&error)),
            Err(_) => self.events.notice_failed(&room.path(), "no answer in time"),
        }
    }
}

fn shortened(mut note: String) -> String {
    if note.len() > MAX_NOTE {
        let mut end = MAX_NOTE - '…'.len_utf8();
        while !note.is_char_boundary(end) {
            end -= 1;
        }
        note.truncate(end);
        note.push('…');
    }
    note
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

    use super::*;

    fn condition(kind: ConditionType, status: &str, reason: &str) -> Condition {
        Condition {
            type_: kind.as_str().to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: "why".to_owned(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        }
    }

    #[test]
    fn only_transitions_are_told() {
        let ready =
            |status: &str, reason: &str| vec![condition(ConditionType::Ready, status, reason)];
        let told = |before: &[Condition], after: &[Condition]| {
            let notices = Notice::between(before, after);
            notices.into_iter().map(|n| (n.normal, n.reason)).collect::<Vec<_>>()
        };
        let yes = |reason: &str| vec![(true, reason.to_owned())];
        let no = |reason: &str| vec![(false, reason.to_owned())];
        assert_eq!(told(&[], &ready("True", "Ready")), yes("Ready"));
        assert_eq!(told(&ready("True", "Ready"), &ready("True", "Ready")), []);
        assert_eq!(told(&ready("True", "Ready"), &ready("False", "Invalid")), no("Invalid"));
        assert_eq!(told(&ready("False", "NoGateways"), &ready("False", "Propagating")), []);
        assert_eq!(told(&ready("True", "Ready"), &ready("Unknown", "NatsUnavailable")), []);
        assert_eq!(told(&[], &ready("Unknown", "Pending")), []);
        let paused = vec![condition(ConditionType::Paused, "True", "Paused")];
        assert_eq!(told(&[], &paused), yes("Paused"));
        assert_eq!(told(&paused, &paused), []);
        assert_eq!(told(&paused, &[]), yes("Resumed"));
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let note = shortened("ü".repeat(1000));
        assert!(note.len() <= MAX_NOTE && note.ends_with("ü…"));
        assert_eq!(shortened("short".to_owned()), "short");
    }
}
