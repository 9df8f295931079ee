//! What happens to an operator: killed at each write, the API server gone, forgetting or frozen, NATS gone, its bucket
//! gone. It ends where it would have ended anyway, and rooms are served all the while.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Instant;

use hubbub_api::{kubernetes::FINALIZER, names::BUCKET};
use hubbub_testkit::{Auth, JetStream, Member, NatsConfig, NatsServer, eventually};
use serde_json::json;
use support::{DEMO, World, because, condition, dying, is, process::OperatorProcess, run, until};

/// More than the writes of one room with a pool of its own, from its beginning to its end.
const MOST_WRITES: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_write_it_ends_where_it_would_have_ended() {
    let world = World::start().await;
    let (mut deaths, mut mended) = (0, Vec::new());
    for answered in [true, false] {
        for nth in 0..MOST_WRITES {
            let name = format!("room-{nth}-{answered}");
            let (client, death) = dying::client(&world.client, nth, answered);
            let operator = run(world.config(client)).await;
            world.room(&name, &name).await;
            let whole = async || {
                let status = world.status(&name).await;
                world.objects(&name).await.len() == 5 && is(&status, "Accepted", "True")
            };
            until("it is dead or done", async || death.has_come() || whole().await).await;
            if !death.has_come() {
                // It had fewer writes to make; the rest of them is to take everything away again.
                world.delete_room(&name).await;
                let gone = async || {
                    world.rooms().get_opt(&name).await.unwrap().is_none()
                        && world.objects(&name).await.is_empty()
                };
                until("it is dead or done", async || death.has_come() || gone().await).await;
                operator.kill().await;
                if !death.has_come() {
                    break;
                }
                deaths += 1;
                let begun = Instant::now();
                let operator = world.operator().await;
                until("the room is gone", async || {
                    gone().await && world.policy(&name).await.is_none()
                })
                .await;
                mended.push(begun.elapsed());
                operator.stop().await;
                continue;
            }
            deaths += 1;
            operator.kill().await;
            let begun = Instant::now();
            let operator = world.operator().await;
            until("it is as it should be", async || {
                let room = world.rooms().get(&name).await.unwrap();
                let finalizers = room.metadata.finalizers.unwrap_or_default();
                whole().await && finalizers == [FINALIZER] && world.policy(&name).await.is_some()
            })
            .await;
            mended.push(begun.elapsed());
            world.delete_room(&name).await;
            until("everything of it is gone", async || {
                world.rooms().get_opt(&name).await.unwrap().is_none()
                    && world.objects(&name).await.is_empty()
                    && world.policy(&name).await.is_none()
            })
            .await;
            operator.stop().await;
        }
    }
    // Five objects, finalizer and status, the finalizer again and five objects: each before it is sent and after it was
    // answered.
    assert!(deaths >= 2 * 13, "only {deaths} deaths");
    mended.sort();
    let (middle, longest) = (mended[mended.len() / 2], mended[mended.len() - 1]);
    println!(
        "{deaths} deaths, each mended by the next start: after {middle:.1?} in the median, {longest:.1?} at most"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_api_server_goes_through_rooms_go_on_and_changes_arrive() {
    let mut world = World::start().await;
    let operator = world.operator().await;
    let gateway = world.gateway("first", "default").await;
    world.room("lobby", "default").await;
    world.ready("lobby").await;
    let member = Member::join(gateway.listen(), "/rooms/demo/lobby", None).await.unwrap();
    let mut generation = 1;
    let mut change = async |world: &World, what: &str| {
        generation += 1;
        world.patch_room("lobby", json!({"spec": {"limits": {"burst": generation}}})).await;
        let told = |s: &hubbub_api::kubernetes::ChatRoomStatus| {
            s.observed_generation == Some(generation) && is(s, "Ready", "True")
        };
        world.status_until("lobby", &format!("the change after {what} is programmed"), told).await;
        member.send(what).await;
        eventually("the member is still there", || member.texts().contains(&what.to_owned())).await;
    };
    change(&world, "nothing").await;
    world.plane.restart().await;
    change(&world, "a restart").await;
    world.plane.expire_watches().await;
    change(&world, "expired watches").await;
    world.plane.kill9();
    // Meanwhile the operator tries in vain, which must not end it.
    member.send("alone").await;
    eventually("the room goes on without", || member.texts().contains(&"alone".to_owned())).await;
    world.plane.start_again().await;
    // What somebody did while nobody watched is seen too.
    let objects = world.objects("default").await;
    world.kubectl().run(&["delete", &objects[0], "-n", support::HOME]).await;
    until("the object comes back", async || world.objects("default").await.len() == 5).await;
    change(&world, "an outage").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nats_is_away_rooms_are_told_to_be_unknown_and_changes_wait() {
    let mut world = World::start().await;
    let operator = world.operator().await;
    let _gateway = world.gateway("first", "default").await;
    world.room("lobby", "default").await;
    world.ready("lobby").await;
    world.nats.kill9();
    let status = world
        .status_until("lobby", "it is unknown", |s| because(s, "Programmed", "NatsUnavailable"))
        .await;
    assert!(is(&status, "Ready", "Unknown") && is(&status, "Accepted", "True"), "{status:#?}");
    assert_eq!((status.gateways, status.connections), (None, None), "nobody can tell");
    world.patch_room("lobby", json!({"spec": {"limits": {"burst": 7}}})).await;
    world.nats.start_again().await;
    let told = |s: &hubbub_api::kubernetes::ChatRoomStatus| {
        s.observed_generation == Some(2) && is(s, "Ready", "True")
    };
    let status = world.status_until("lobby", "the change is programmed", told).await;
    assert_eq!(status.gateways.map(|counts| counts.ready), Some(1), "{status:#?}");
    assert_eq!(world.policy("lobby").await.unwrap().limits.burst, 7);

    let context = nats::jetstream::new(world.nats.client().await);
    context.delete_key_value(BUCKET).await.unwrap();
    until("the bucket and the policy are there again", async || {
        world.policy("lobby").await.is_some()
    })
    .await;
    world.ready("lobby").await;
    // A room that went while NATS was away takes its policy along when it is back.
    world.nats.kill9();
    world.delete_room("lobby").await;
    let status = world
        .status_until("lobby", "it waits for its policy to leave", |s| {
            because(s, "Ready", "NatsUnavailable")
        })
        .await;
    let told = &condition(&status, "Ready").unwrap().message;
    assert!(told.starts_with("the room is being deleted, and waits"), "{told}");
    until("an Event says so too", async || {
        let events = world.kubectl().run(&["get", "events", "-n", DEMO]).await;
        events.contains("DeletionWaits")
    })
    .await;
    world.nats.start_again().await;
    until("the room is gone", async || world.rooms().get_opt("lobby").await.unwrap().is_none())
        .await;
    assert!(world.policy("lobby").await.is_none(), "{DEMO}.lobby has left NATS");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_lost_everything_is_filled_again_and_no_member_is_sent_away() {
    let mut world = World::start().await;
    let operator = world.operator().await;
    let gateway = world.gateway("first", "default").await;
    let names = ["deleted", "lobby", "paused"];
    for name in names {
        world.room(name, "default").await;
    }
    for name in names {
        world.ready(name).await;
    }
    world.patch_room("paused", support::pausing(Some("true"))).await;
    world.status_until("paused", "it is paused", |s| is(s, "Paused", "True")).await;
    let mut members = Vec::new();
    for name in names {
        let path = format!("/rooms/demo/{name}");
        members.push(Member::join(gateway.listen(), &path, None).await.unwrap());
    }
    let mut deleted = true;
    for loss in ["purged", "wiped"] {
        let said = operator.events.writes("statement");
        if loss == "purged" {
            let context = nats::jetstream::new(world.nats.client().await);
            let stream = context.get_stream(format!("KV_{BUCKET}")).await.unwrap();
            stream.purge().await.unwrap();
        } else {
            world.nats.kill9_and_wipe();
            if std::mem::take(&mut deleted) {
                // Its policy is lost already, so that nothing of its end is written.
                world.patch_room("deleted", json!({"metadata": {"finalizers": null}})).await;
                world.delete_room("deleted").await;
            }
            world.nats.start_again().await;
        }
        until(&format!("the lobby is published again when all was {loss}"), async || {
            operator.events.writes("statement") > said && world.policy("lobby").await.is_some()
        })
        .await;
        world.ready("lobby").await;
        for (name, member) in names.iter().zip(&members).skip(1) {
            let text = format!("{loss} {name}");
            member.send(&text).await;
            member.hears(&text).await;
            assert_eq!(member.close_code(), None, "{name} is served all the while");
        }
    }
    assert_eq!(members[0].ended().await, Some(4404), "a room that was deleted meanwhile goes");
    assert!(world.policy("deleted").await.is_none());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_jetstream_rooms_are_told_why_they_wait() {
    let mut world = World::start().await;
    let config = NatsConfig { jetstream: JetStream::Off, ..NatsConfig::default() };
    world.nats = NatsServer::start_with(config).await;
    let operator = world.operator().await;
    world.room("lobby", "default").await;
    let status = world
        .status_until("lobby", "it is unknown", |s| {
            let ready = condition(s, "Ready").is_some_and(|c| c.message.contains("JetStream must"));
            ready && because(s, "Programmed", "NatsUnavailable")
        })
        .await;
    assert!(is(&status, "Ready", "Unknown") && is(&status, "Accepted", "True"), "{status:#?}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_while_the_history_of_watches_was_lost_is_seen() {
    let mut world = World::start().await;
    world.kubectl().apply(include_str!("../../../manifests/operator/rbac.yaml")).await;
    let alone = ["--leader-election", "false", "--log", "info,hubbub_operator=debug"];
    let operator = OperatorProcess::start_with(&world, "hubbub-operator", "only", &alone).await;
    operator.says("leading").await;
    let _gateway = world.gateway("first", "default").await;
    for name in ["changed", "deleted", "gone", "kept"] {
        world.room(name, "default").await;
    }
    for name in ["changed", "deleted", "gone", "kept"] {
        world.ready(name).await;
    }
    let objects = world.objects("default").await;
    // It sleeps, its watches break, and what they would be resumed from is no more.
    operator.pause();
    world.patch_room("changed", json!({"spec": {"limits": {"burst": 7}}})).await;
    world.delete_room("deleted").await;
    world.patch_room("gone", json!({"metadata": {"finalizers": null}})).await;
    world.delete_room("gone").await;
    assert!(world.rooms().get_opt("gone").await.unwrap().is_none());
    world.kubectl().run(&["delete", &objects[0], "-n", support::HOME]).await;
    world.room("new", "default").await;
    world.plane.expire_watches().await;
    operator.resume();
    let begun = Instant::now();
    world
        .status_until("changed", "the change is programmed", |s| {
            s.observed_generation == Some(2) && is(s, "Ready", "True")
        })
        .await;
    world.ready("new").await;
    until("the deleted room is gone", async || {
        world.rooms().get_opt("deleted").await.unwrap().is_none()
    })
    .await;
    for name in ["deleted", "gone"] {
        until("its policy is gone", async || world.policy(name).await.is_none()).await;
    }
    until("the object comes back", async || world.objects("default").await == objects).await;
    println!(
        "{:.1?} after watches that were answered with 410 all was as declared",
        begun.elapsed()
    );
    assert_eq!(world.policy("changed").await.unwrap().limits.burst, 7);
    assert!(world.policy("kept").await.is_some() && world.policy("new").await.is_some());
    assert!(operator.log().contains("(410)"), "{}", operator.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_in_the_status_and_once_in_the_log() {
    let mut world = World::start().await;
    world.kubectl().apply(include_str!("../../../manifests/operator/rbac.yaml")).await;
    let auth = Auth::User { user: "operator".to_owned(), password: "right".to_owned() };
    world.nats = NatsServer::start_with(NatsConfig { auth, ..NatsConfig::default() }).await;
    let login =
        ["--nats-user", "operator", "--nats-password", "wrong", "--leader-election", "false"];
    let operator = OperatorProcess::start_with(&world, "hubbub-operator", "only", &login).await;
    operator.says("leading").await;
    world.room("lobby", "default").await;
    world
        .status_until("lobby", "it is unknown, and why", |s| {
            let told = condition(s, "Programmed");
            told.is_some_and(|c| {
                c.reason == "NatsUnavailable" && c.message.contains("authorization violation")
            })
        })
        .await;
    let log = operator.log();
    let told = log.lines().filter(|line| line.contains("authorization violation")).count();
    assert!((1..=2).contains(&told), "{log}");
    assert!(!log.contains("wrong") && !log.contains("async_nats"), "{log}");
}
