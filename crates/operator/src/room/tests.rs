//! The pure steps together, over simulated time: what is written, what is told, and that nothing is when nothing happens.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hubbub_api::{
    ChatRoomSpec, RoomName, RoomPolicy,
    kubernetes::{ChatRoomResource, ChatRoomStatus, FINALIZER, PAUSED},
};
use k8s_openapi::jiff::Timestamp;

use super::{
    Memory, Observed, RoomKey, Seen,
    apply::{Applied, Published},
    conditions::{Finding, Truth, ready},
    plan::{Finalizer, Plan, Policy, plan},
    status::{When, status},
    validate::validate,
};
use crate::{
    bucket::{BucketError, Entry},
    guard::Unreadable,
    keys::Known,
    reports::{Hearing, PERIOD},
};

/// A room that has its finalizer, is published at revision 7, and is served by two gateways.
fn published() -> Observed {
    let name = RoomName::new("demo", "lobby").unwrap();
    let mut room = ChatRoomResource::new(&name, ChatRoomSpec::new(vec!["*".to_owned()]));
    room.metadata.generation = Some(3);
    room.metadata.resource_version = Some("11".to_owned());
    room.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    let policy = RoomPolicy::from_chat_room(&room.declared()).unwrap();
    Observed {
        key: RoomKey { namespace: "demo".to_owned(), name: "lobby".to_owned() },
        seen: Seen::Room(Arc::new(room)),
        operator: "chat/hubbub".to_owned(),
        entry: Entry { revision: 7, policy: Some(Arc::new(policy)), present: true, stray: false },
        bucket_read: true,
        nats_trouble: None,
        keys: Known::default(),
        hearing: Hearing::Clear,
        connections: 5,
        serving: vec![7, 9],
        loading: 0,
        pool_fault: None,
        memory: Memory::default(),
        now: Instant::now(),
        wall: Timestamp::UNIX_EPOCH,
    }
}

fn edit(observed: &mut Observed, change: impl FnOnce(&mut ChatRoomResource)) {
    let Seen::Room(room) = &observed.seen else { panic!("a room") };
    let mut room = ChatRoomResource::clone(room);
    change(&mut room);
    observed.seen = Seen::Room(Arc::new(room));
}

fn planned(observed: &Observed) -> Plan {
    plan(validate(observed.clone()))
}

/// What is told when all that was planned has been written: a new policy at revision 12.
fn told(observed: &Observed) -> (ChatRoomStatus, When) {
    let Plan { observed, verdict, policy, .. } = planned(observed);
    let published = match policy {
        Policy::Keep => Published::At(observed.entry.revision),
        Policy::Put(_) => Published::At(12),
        Policy::Hold => Published::Moving,
        Policy::Unknown => Published::Failed(BucketError::Away),
        Policy::Remove => Published::Not,
    };
    let telling = status(Applied { observed, verdict, published }).expect("there is a room");
    (telling.status, telling.when)
}

/// The room with the status that was told, as if it had been written.
fn settled() -> Observed {
    let mut observed = published();
    let (status, when) = told(&observed);
    assert_eq!(when, When::Now);
    observed.memory.written_at = Some(observed.now);
    edit(&mut observed, |room| room.status = Some(status));
    observed
}

fn reason(status: &ChatRoomStatus, kind: &str) -> (String, String) {
    let condition = status.conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    (condition.status.clone(), condition.reason.clone())
}

fn pair(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn an_idle_hour_makes_no_write() {
    let mut observed = settled();
    let begun = observed.now;
    while observed.now - begun < Duration::from_secs(3600) {
        observed.now += PERIOD;
        observed.wall += PERIOD;
        let plan = planned(&observed);
        assert_eq!((plan.finalizer, plan.policy), (Finalizer::Keep, Policy::Keep));
        assert_eq!(told(&observed).1, When::Never);
    }
}

#[test]
fn counters_alone_are_written_at_most_every_half_minute() {
    let mut observed = settled();
    let begun = observed.now;
    let mut writes = 0;
    while observed.now - begun < Duration::from_secs(600) {
        observed.now += PERIOD;
        observed.connections += 1;
        let (status, when) = told(&observed);
        match when {
            When::Now => {
                writes += 1;
                observed.memory.written_at = Some(observed.now);
                edit(&mut observed, |room| room.status = Some(status));
            }
            When::In(wait) => assert!(wait <= Duration::from_secs(30)),
            When::Never => panic!("the counters differ"),
        }
    }
    assert_eq!(writes, 20);
}

#[test]
fn a_new_room_gets_its_finalizer_then_its_policy() {
    let mut observed = published();
    edit(&mut observed, |room| room.metadata.finalizers = Some(vec!["other/one".to_owned()]));
    observed.entry = Entry::default();
    let plan = planned(&observed);
    let both = vec!["other/one".to_owned(), FINALIZER.to_owned()];
    assert_eq!(plan.finalizer, Finalizer::Add(both));
    assert!(matches!(plan.policy, Policy::Put(policy) if policy.generation == 3));
}

#[test]
fn a_room_that_goes_takes_its_policy_along_even_when_paused() {
    let mut observed = published();
    leave(&mut observed);
    edit(&mut observed, |room| {
        room.metadata.annotations = Some([(PAUSED.to_owned(), "true".to_owned())].into());
    });
    let plan = planned(&observed);
    assert_eq!((plan.finalizer, plan.policy), (Finalizer::Remove(Vec::new()), Policy::Remove));
    let gone = Observed { seen: Seen::Gone, ..published() };
    assert_eq!(planned(&gone).policy, Policy::Remove, "and what was left behind is swept");
    let unread = Observed { seen: Seen::Gone, bucket_read: false, ..published() };
    assert_eq!(planned(&unread).policy, Policy::Unknown, "but not blindly");
}

#[test]
fn a_move_waits_for_somebody_who_serves_the_new_pool() {
    let mut observed = settled();
    edit(&mut observed, |room| room.spec.gateways.pool = "vip".to_owned());
    observed.serving.clear();
    assert_eq!(planned(&observed).policy, Policy::Hold);
    assert_eq!(reason(&told(&observed).0, "Programmed"), pair("False", "PoolStarting"));
    observed.serving.push(9);
    assert!(matches!(planned(&observed).policy, Policy::Put(policy) if policy.pool == "vip"));
}

#[test]
fn conditions_tell_what_is() {
    type Change = fn(&mut Observed);
    let table: Vec<(&str, Change, (&str, &str))> = vec![
        ("all run it", |_| {}, ("True", "Programmed")),
        ("one does not", |o| o.serving[0] = 6, ("False", "Propagating")),
        ("nobody serves", |o| o.serving.clear(), ("False", "NoGateways")),
        (
            "nobody serves, for a reason",
            |o| {
                o.serving.clear();
                o.pool_fault = Some("quota".to_owned());
            },
            ("False", "PoolFailed"),
        ),
        (
            "NATS is away for long",
            |o| o.hearing = Hearing::Away(Duration::from_secs(15)),
            ("Unknown", "NatsUnavailable"),
        ),
        (
            "NATS is away for a moment",
            |o| o.hearing = Hearing::Away(Duration::from_secs(1)),
            ("True", "Programmed"),
        ),
        (
            "the operator has just begun to listen",
            |o| {
                o.hearing = Hearing::Listening(Duration::ZERO);
                o.serving.clear();
            },
            ("True", "Programmed"),
        ),
    ];
    for (what, change, (status, because)) in table {
        let mut observed = settled();
        change(&mut observed);
        let told = told(&observed).0;
        assert_eq!(reason(&told, "Programmed"), pair(status, because), "{what}");
        assert_eq!(reason(&told, "Accepted"), pair("True", "Accepted"), "{what}");
        let ready = if status == "True" { "Ready" } else { because };
        assert_eq!(reason(&told, "Ready"), pair(status, ready), "{what}");
        assert_eq!(told.conditions.len(), 3, "{what}: all of them, each once");
    }
}

#[test]
fn counters_that_are_not_known_are_not_told() {
    let mut observed = settled();
    let counts = |observed: &Observed| {
        let status = told(observed).0;
        (status.gateways.map(|counts| counts.ready), status.connections)
    };
    assert_eq!(counts(&observed), (Some(2), Some(5)));
    // A new leader, or NATS back after an outage: one gateway of two has been heard.
    observed.hearing = Hearing::Listening(Duration::ZERO);
    (observed.serving, observed.connections) = (Vec::new(), 0);
    assert_eq!(counts(&observed), (Some(2), Some(5)), "as it was told last");
    assert_eq!(told(&observed).1, When::Never);
    observed.serving.push(6);
    assert_eq!(counts(&observed), (Some(2), Some(5)));
    assert_eq!(reason(&told(&observed).0, "Programmed"), pair("True", "Programmed"));
    observed.serving.extend([7, 8]);
    assert_eq!(counts(&observed).0, Some(3), "more than that may be told at once");
    observed.hearing = Hearing::Away(Duration::from_secs(14));
    observed.serving.clear();
    assert_eq!(counts(&observed), (Some(2), Some(5)));
    observed.hearing = Hearing::Away(Duration::from_secs(15));
    assert_eq!(counts(&observed), (None, None), "away for long");
    let (status, _) = told(&observed);
    edit(&mut observed, |room| room.status = Some(status));
    observed.hearing = Hearing::Listening(Duration::ZERO);
    assert_eq!(counts(&observed), (None, None), "back, and nobody heard yet");
    observed.hearing = Hearing::Clear;
    assert_eq!(counts(&observed), (Some(0), Some(0)), "nobody is there");
}

#[test]
fn without_a_status_before_every_gateway_gets_its_turn_first() {
    let mut observed = published();
    observed.serving = vec![7];
    observed.hearing = Hearing::Listening(Duration::from_millis(2400));
    let (status, _) = told(&observed);
    assert_eq!((status.gateways, status.connections), (None, None), "another may report yet");
    assert_eq!(reason(&status, "Programmed"), pair("Unknown", "Pending"));
    observed.hearing = Hearing::Listening(Duration::from_millis(2500));
    observed.serving.push(7);
    let (status, _) = told(&observed);
    assert_eq!(status.gateways.map(|counts| counts.ready), Some(2));
    assert_eq!(reason(&status, "Programmed"), pair("True", "Programmed"));
}

#[test]
fn fewer_gateways_are_told_sooner_than_other_counters_and_bounded_all_the_same() {
    let mut observed = settled();
    observed.serving = vec![7];
    observed.now += Duration::from_secs(1);
    assert_eq!(told(&observed).1, When::In(Duration::from_secs(4)), "written a second ago");
    let begun = observed.now;
    let mut writes = 0;
    // Gateways that come and go with each report.
    while observed.now - begun < Duration::from_secs(600) {
        observed.now += PERIOD;
        observed.serving = if observed.serving.len() == 1 { vec![7, 7] } else { vec![7] };
        let (status, when) = told(&observed);
        if when == When::Now {
            writes += 1;
            observed.memory.written_at = Some(observed.now);
            edit(&mut observed, |room| room.status = Some(status));
        }
    }
    assert!((20..=40).contains(&writes), "a fall after 5 s and a rise after 30 s: {writes}");
}

#[test]
fn gateways_that_load_their_first_policy_are_not_missing() {
    let mut observed = settled();
    observed.memory.published_at = Some(observed.now);
    (observed.serving, observed.loading) = (Vec::new(), 2);
    let (status, when) = told(&observed);
    assert_eq!(reason(&status, "Programmed"), pair("False", "Propagating"));
    assert_eq!(when, When::In(Duration::from_secs(1)), "they get a moment for it");
    let first = Observed { serving: vec![7], loading: 1, ..published() };
    let mut first = Observed { memory: observed.memory.clone(), now: observed.now, ..first };
    assert_eq!(told(&first).1, When::In(Duration::from_secs(1)), "one of two is through");
    first.loading = 0;
    assert_eq!(told(&first).1, When::Now);
    (observed.serving, observed.loading) = (Vec::new(), 0);
    assert_eq!(reason(&told(&observed).0, "Programmed"), pair("False", "NoGateways"));
    assert_eq!(told(&observed).1, When::Now);
}

#[test]
fn why_nats_is_away_is_told() {
    let mut observed = settled();
    observed.hearing = Hearing::Away(Duration::from_secs(15));
    observed.nats_trouble = Some("nats:4222: authorization violation".to_owned());
    let (status, _) = told(&observed);
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    let words = "does not reach NATS (nats:4222: authorization violation), so";
    assert!(ready.message.contains(words), "{}", ready.message);
}

#[test]
fn part_of_the_gateways_does_not_speak_for_all() {
    let mut observed = settled();
    observed.serving = vec![7, 6];
    let (status, _) = told(&observed);
    assert_eq!(reason(&status, "Programmed"), pair("False", "Propagating"));
    edit(&mut observed, |room| room.status = Some(status));
    observed.hearing = Hearing::Listening(Duration::ZERO);
    observed.serving = vec![7];
    assert_eq!(reason(&told(&observed).0, "Programmed"), pair("False", "Propagating"));
    observed.serving = vec![7, 7];
    assert_eq!(reason(&told(&observed).0, "Programmed"), pair("True", "Programmed"));
}

#[test]
fn a_new_room_is_told_early_that_nats_is_away() {
    let mut observed = Observed { bucket_read: false, ..published() };
    observed.entry = Entry::default();
    observed.hearing = Hearing::Away(Duration::from_secs(1));
    assert_eq!(reason(&told(&observed).0, "Programmed"), pair("Unknown", "Pending"));
    observed.hearing = Hearing::Away(Duration::from_secs(3));
    assert_eq!(reason(&told(&observed).0, "Programmed"), pair("Unknown", "NatsUnavailable"));
}

#[test]
fn a_bucket_that_cannot_be_used_is_told_with_its_cause() {
    let Plan { observed, verdict, .. } = planned(&settled());
    let published = Published::Failed(BucketError::Unusable("no responders".to_owned()));
    let told = status(Applied { observed, verdict, published }).unwrap().status;
    assert_eq!(reason(&told, "Ready"), pair("Unknown", "NatsUnavailable"));
    let ready = told.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert!(ready.message.contains("(no responders): JetStream must be on"), "{}", ready.message);
}

fn leave(observed: &mut Observed) {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    edit(observed, |room| {
        room.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    });
}

#[test]
fn a_deletion_that_waits_says_what_for_and_once() {
    let mut observed = Observed { bucket_read: false, ..settled() };
    leave(&mut observed);
    assert_eq!(planned(&observed).policy, Policy::Unknown);
    let (status, when) = told(&observed);
    assert_eq!(when, When::Now);
    assert_eq!(reason(&status, "Ready"), pair("Unknown", "NatsUnavailable"));
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert!(ready.message.starts_with("the room is being deleted, and waits"), "{}", ready.message);
    edit(&mut observed, |room| room.status = Some(status));
    assert_eq!(told(&observed).1, When::Never);
}

#[test]
fn a_room_that_cannot_be_read_can_go() {
    let mut observed = settled();
    leave(&mut observed);
    let metadata = observed.seen.metadata().unwrap().clone();
    observed.seen = Seen::Unreadable(Unreadable { metadata, ..Unreadable::default() }.into());
    let plan = planned(&observed);
    assert_eq!((plan.finalizer, plan.policy), (Finalizer::Remove(Vec::new()), Policy::Remove));
}

#[test]
fn a_broken_rule_is_told_and_what_was_in_force_stays() {
    let mut observed = settled();
    edit(&mut observed, |room| {
        room.spec.allowed_origins = vec!["https://a:65536".to_owned()];
        room.metadata.generation = Some(4);
    });
    let plan = planned(&observed);
    assert_eq!((plan.finalizer, plan.policy), (Finalizer::Keep, Policy::Keep));
    let (status, when) = told(&observed);
    assert_eq!(when, When::Now);
    assert_eq!(reason(&status, "Accepted"), pair("False", "Invalid"));
    assert_eq!(reason(&status, "Programmed"), pair("False", "NotAccepted"));
    assert_eq!(reason(&status, "Ready"), pair("False", "Invalid"));
}

#[test]
fn times_change_only_with_the_status_of_a_condition() {
    let mut observed = settled();
    observed.wall += Duration::from_secs(60);
    observed.serving[0] = 6;
    let (status, _) = told(&observed);
    let time = |kind: &str| {
        let condition = status.conditions.iter().find(|condition| condition.type_ == kind);
        condition.unwrap().last_transition_time.0
    };
    assert_eq!(time("Accepted"), Timestamp::UNIX_EPOCH);
    assert_eq!(time("Programmed"), observed.wall);
}

#[test]
fn a_policy_published_a_moment_ago_is_not_told_to_be_half_done() {
    let mut observed = settled();
    edit(&mut observed, |room| room.metadata.generation = Some(4));
    observed.memory.published_at = Some(observed.now);
    assert!(matches!(told(&observed).1, When::In(_)));
    observed.now += Duration::from_secs(1);
    let (status, when) = told(&observed);
    assert_eq!(when, When::Now);
    assert_eq!(reason(&status, "Programmed"), pair("False", "Propagating"));
}

#[test]
fn the_object_from_before_the_last_write_is_not_taken_for_the_newest() {
    let mut observed = settled();
    let Seen::Room(room) = &observed.seen else { panic!("a room") };
    let status = room.status.clone().unwrap();
    let version = room.metadata.resource_version.clone();
    edit(&mut observed, |room| room.status = None);
    observed.memory.written = Some((status, version));
    assert_eq!(told(&observed).1, When::Never);
    edit(&mut observed, |room| room.metadata.resource_version = Some("12".to_owned()));
    assert_eq!(told(&observed).1, When::Now, "somebody took the status away");
}

#[test]
fn ready_is_what_the_others_come_to() {
    use hubbub_api::kubernetes::{ConditionType, Reason};
    let truths = [Truth::True, Truth::False, Truth::Unknown];
    for accepted in truths {
        for programmed in truths {
            let one = Finding::new(ConditionType::Accepted, accepted, Reason::Invalid, "");
            let two = Finding::new(ConditionType::Programmed, programmed, Reason::NoGateways, "");
            let wanted = match (accepted, programmed) {
                (Truth::True, Truth::True) => Truth::True,
                (Truth::False, _) | (_, Truth::False) => Truth::False,
                _ => Truth::Unknown,
            };
            assert_eq!(ready(&one, &two).truth, wanted);
        }
    }
}
