//! A pool that grows with its members and shrinks when they go, the emptiest gateway first.

#![allow(clippy::unwrap_used, reason = "tests")]

use hubbub_e2e::{PAGE, Release, World, slowly};
use hubbub_testkit::Member;
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

    let first = many(&release, 8).await;
    gateways_are(&release, 2).await;
    // Nobody is moved for a gateway that comes; whoever joins from now on may land there.
    assert!(first.iter().all(|member| !member.has_ended()));
    let second = many(&release, 4).await;
    gateways_are(&release, 3).await;
    let (all, beyond) = (release.members("crowd").await, many(&release, 8).await);
    assert_eq!(all.len(), 3);
    slowly("max holds", || async {
        let room = release.json(&["get", "chatroom", "crowd"]).await;
        let connections = room["status"]["connections"].as_u64().unwrap_or(0);
        if connections == 20 { Ok(()) } else { Err(room["status"].to_string()) }
    })
    .await;
    assert_eq!(release.gateways().await.len(), 3, "no more than the room's max");

    // All but two go. The pool goes down to one gateway, one at a time, and who has to move is told.
    drop((second, beyond));
    let (stay, go) = first.split_at(2);
    for member in go {
        member.send_frame(hubbub_testkit::Opcode::Close, &1000_u16.to_be_bytes()).await;
    }
    gateways_are(&release, 1).await;
    slowly("the drained gateways are gone", || async {
        let pods = release.json(&["get", "pods", "--selector=hubbub.dev/pool=default"]).await;
        let count = pods["items"].as_array().unwrap().len();
        if count == 1 { Ok(()) } else { Err(format!("{count} pods")) }
    })
    .await;
    for member in stay.iter().filter(|member| member.has_ended()) {
        assert_eq!(member.close_code(), Some(1012), "who has to move is told");
    }
    let newcomer = release.join("crowd", PAGE).await;
    newcomer.send("one is enough").await;
    newcomer.hears("one is enough").await;
}

async fn many(release: &Release<'_>, count: usize) -> Vec<Member> {
    let mut members = Vec::new();
    for _ in 0..count {
        members.push(release.join("crowd", PAGE).await);
    }
    members
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
