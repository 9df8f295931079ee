//! A pool that grows with its members and shrinks when they go, the emptiest gateway first.

#![allow(clippy::unwrap_used, reason = "tests")]

use hubbub_e2e::{PAGE, Release, World, slowly};
use hubbub_testkit::{Member, Opcode};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_follow_the_members() {
    let world = World::enter().await;
    let values = json!({
        "operator": {"scaleDownAfter": "5s"},
        "pools": {"default": {"min": 1, "drain": {"settle": "1s", "window": "2s", "deadline": "5s"}}},
    });
    let release = Release::install(&world, "scale", values).await;
    release
        .room("crowd", json!({"gateways": {"min": 1, "max": 3, "connectionsPerGateway": 4}}))
        .await;
    assert_eq!(release.gateways().await.len(), 1);

    let mut members = Vec::new();
    join(&release, &mut members, 8).await;
    gateways_are(&release, 2).await;
    // Nobody is moved for a gateway that comes; whoever joins from now on may land there.
    assert!(members.iter().all(|(_, member)| !member.has_ended()));
    join(&release, &mut members, 4).await;
    gateways_are(&release, 3).await;
    join(&release, &mut members, 8).await;
    // A cluster under load may start one pod more and take it away again, and whoever it has led there has to move.
    there_are_only(&release, 3).await;
    members.retain(|(_, member)| !member.has_ended());
    let by_age = youngest_first(&release).await;
    // The youngest that is led to: it is the one that Kubernetes by itself would remove first. How soon a Service leads to a new
    // gateway is the cluster's affair.
    let full = loop {
        let fits = |gateway: &&String| {
            count(&members, gateway) >= 2 && count(&members, gateway) < members.len()
        };
        if let Some(full) = by_age.iter().find(fits) {
            break full.clone();
        }
        assert!(members.len() < 100, "the Service leads to one gateway alone");
        join(&release, &mut members, 1).await;
    };
    slowly("max holds", || async {
        let room = release.json(&["get", "chatroom", "crowd"]).await;
        let connections = room["status"]["connections"].as_u64().unwrap_or(0);
        let here = members.iter().filter(|(_, member)| !member.has_ended()).count();
        if connections == here as u64 { Ok(()) } else { Err(format!("{here}: {}", room["status"])) }
    })
    .await;
    // What the operator asks for.
    let deployment = release.json(&["get", "deployment", "hubbub-default"]).await;
    assert_eq!(deployment["spec"]["replicas"], 3, "no more than the room's max");
    there_are_only(&release, 3).await;
    members.retain(|(_, member)| !member.has_ended());

    // All go but two on that gateway and one on another: the third one is the emptiest.
    let (on_full, others): (Vec<_>, Vec<_>) =
        members.into_iter().partition(|(gateway, _)| *gateway == full);
    let (mut on_full, mut others) = (on_full.into_iter(), others.into_iter());
    let stay: Vec<_> = on_full.by_ref().take(2).map(|(_, member)| member).collect();
    let (_, moves) = others.next().unwrap();
    for (_, member) in on_full.chain(others) {
        member.send_frame(Opcode::Close, &1000_u16.to_be_bytes()).await;
    }

    // The pool goes down to one gateway, one at a time. Who need not move does not, and who has to is told.
    gateways_are(&release, 1).await;
    assert_eq!(release.gateways().await, [full].into(), "the fullest is the last");
    slowly("the drained gateways are gone", || async {
        let pods = release.json(&["get", "pods", "--selector=hubbub.dev/pool=default"]).await;
        let count = pods["items"].as_array().unwrap().len();
        if count == 1 { Ok(()) } else { Err(format!("{count} pods")) }
    })
    .await;
    assert_eq!(moves.ended().await, Some(1012), "who has to move is told");
    for (number, member) in stay.iter().enumerate() {
        member.send(&format!("still here {number}")).await;
        member.hears(&format!("still here {number}")).await;
        assert_eq!(member.close_code(), None, "nobody else has had to move");
    }
    let newcomer = release.join("crowd", PAGE).await;
    newcomer.send("one is enough").await;
    newcomer.hears("one is enough").await;
}

/// Lets so many join, and adds them with the names of their gateways.
async fn join(release: &Release<'_>, members: &mut Vec<(String, Member)>, number: usize) {
    for _ in 0..number {
        let before = release.members("crowd").await;
        let member = release.join("crowd", PAGE).await;
        let now = release.members("crowd").await;
        let more =
            |(name, count): &(&String, &u64)| **count > before.get(*name).copied().unwrap_or(0);
        let (gateway, _) = now.iter().find(more).unwrap();
        members.push((gateway.clone(), member));
    }
}

/// Waits until the pool has no more gateways than that, of which none is on its way out.
async fn there_are_only(release: &Release<'_>, count: usize) {
    slowly("there are as many as the operator asks for", || async {
        let gateways = release.members("crowd").await;
        if gateways.len() == count { Ok(()) } else { Err(format!("{gateways:?}")) }
    })
    .await;
}

fn count(members: &[(String, Member)], gateway: &str) -> usize {
    members.iter().filter(|(name, _)| name == gateway).count()
}

async fn youngest_first(release: &Release<'_>) -> Vec<String> {
    let pods = release.json(&["get", "pods", "--selector=hubbub.dev/pool=default"]).await;
    let mut pods = pods["items"].as_array().unwrap().clone();
    pods.sort_by_key(|pod| pod["metadata"]["creationTimestamp"].as_str().unwrap().to_owned());
    let names = pods.iter().rev().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned());
    names.collect()
}

/// Waits until the pool has so many gateways, all of them ready.
async fn gateways_are(release: &Release<'_>, count: u64) {
    slowly(&format!("there are {count} gateways"), || async {
        let deployment = release.json(&["get", "deployment", "hubbub-default"]).await;
        let (wanted, ready) = (
            deployment["spec"]["replicas"].as_u64(),
            deployment["status"]["readyReplicas"].as_u64(),
        );
        if (wanted, ready) == (Some(count), Some(count)) {
            Ok(())
        } else {
            Err(format!("{wanted:?} wanted, {ready:?} ready"))
        }
    })
    .await;
}
