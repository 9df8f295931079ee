//! Rooms from files, in the ways that files are changed: in place, by rename, by a swapped symlink, half-written.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod support;

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
};

use hubbub_gateway::{
    events::policy::PolicyEvents,
    policy::{
        PolicyHealth, PolicySource as _,
        files::{FilesSource, check},
    },
    room::Rooms,
};
use hubbub_testkit::eventually;
use support::policy_events;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

fn document(name: &str) -> String {
    format!(
        "---\napiVersion: hubbub.dev/v1alpha1\nkind: ChatRoom\nmetadata: {{name: {name}, namespace: demo}}\n\
         spec:\n  allowedOrigins: [\"https://chat.example.com\"]\n"
    )
}

fn documents(names: &[&str]) -> String {
    names.iter().map(|name| document(name)).collect()
}

struct Watched {
    rooms: Arc<Rooms>,
    events: Arc<PolicyEvents>,
    health: Arc<PolicyHealth>,
    // Ends the source with the test.
    _tasks: JoinSet<()>,
}

/// Loads the files as a gateway does at its start, and goes on watching them.
fn watch(paths: &[&Path]) -> Watched {
    let (rooms, events) = (Arc::new(Rooms::new(1)), policy_events());
    let health = Arc::new(PolicyHealth::default());
    let paths = paths.iter().map(|path| path.to_path_buf()).collect();
    let mut source = FilesSource::new(paths, events.clone(), health.clone());
    source.load_once(&rooms).unwrap();
    assert!(rooms.is_loaded());
    let mut tasks = JoinSet::new();
    tasks.spawn(Box::new(source).run(rooms.clone(), CancellationToken::new()));
    Watched { rooms, events, health, _tasks: tasks }
}

impl Watched {
    async fn serves(&self, names: &[&str]) {
        let now =
            || self.rooms.all().iter().map(|r| r.name().name().to_owned()).collect::<Vec<_>>();
        eventually(&format!("the rooms are {names:?}"), || now() == names).await;
    }

    async fn refuses(&self, fault: &str) {
        let told = || self.health.faults().join("\n").contains(fault);
        eventually(&format!("{fault} is told, not {:?}", self.health.faults()), told).await;
    }
}

#[tokio::test]
async fn a_file_replaced_by_rename_takes_effect() {
    let directory = tempfile::tempdir().unwrap();
    let (path, new) = (directory.path().join("rooms.yaml"), directory.path().join("new.yaml"));
    std::fs::write(&path, documents(&["lobby"])).unwrap();
    let watched = watch(&[&path]);
    std::fs::write(&new, documents(&["lobby", "side"])).unwrap();
    std::fs::rename(&new, &path).unwrap();
    watched.serves(&["lobby", "side"]).await;
}

#[tokio::test]
async fn a_config_maps_swapped_symlink_takes_effect() {
    // As the kubelet does it: rooms.yaml -> ..data/rooms.yaml, ..data -> a directory; the second link is swapped.
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for (version, names) in [("..v1", &["lobby"][..]), ("..v2", &["lobby", "side"][..])] {
        std::fs::create_dir(at(version)).unwrap();
        std::fs::write(at(version).join("rooms.yaml"), documents(names)).unwrap();
    }
    symlink("..v1", at("..data")).unwrap();
    symlink("..data/rooms.yaml", at("rooms.yaml")).unwrap();
    let watched = watch(&[&at("rooms.yaml")]);
    symlink("..v2", at("..data_tmp")).unwrap();
    std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
    watched.serves(&["lobby", "side"]).await;
    std::fs::remove_dir_all(at("..v1")).unwrap();
}

#[tokio::test]
async fn a_half_written_file_closes_no_room() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rooms.yaml");
    let whole = documents(&["lobby", "side"]);
    std::fs::write(&path, &whole).unwrap();
    let watched = watch(&[&path]);
    for cut in [0, 3, whole.len() / 4, whole.len() - 10] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        watched.refuses("rooms.yaml:").await;
        watched.serves(&["lobby", "side"]).await;
        std::fs::write(&path, &whole).unwrap();
        eventually("it is mended", || watched.health.faults().is_empty()).await;
    }
    watched.serves(&["lobby", "side"]).await;
}

#[tokio::test]
async fn a_bad_content_is_told_once_and_a_vanished_file_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rooms.yaml");
    std::fs::write(&path, documents(&["lobby"])).unwrap();
    let watched = watch(&[&path]);
    std::fs::write(&path, documents(&["lobby"]).replace("spec:", "spce:")).unwrap();
    watched.refuses("spce").await;
    assert_eq!(watched.events.refusal_count(), 1);
    // The same content once more is no news.
    std::fs::write(&path, documents(&["lobby"]).replace("spec:", "spce:")).unwrap();
    std::fs::remove_file(&path).unwrap();
    watched.refuses("cannot be read").await;
    assert_eq!(watched.events.refusal_count(), 2);
    watched.serves(&["lobby"]).await;
    std::fs::write(&path, documents(&["side"])).unwrap();
    watched.serves(&["side"]).await;
    assert_eq!(watched.health.faults(), [""; 0]);
}

#[tokio::test]
async fn several_files_are_one_declaration() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (directory.path().join("a.yaml"), directory.path().join("b.yaml"));
    std::fs::write(&a, documents(&["lobby"])).unwrap();
    std::fs::write(&b, documents(&["side"])).unwrap();
    let watched = watch(&[&a, &b]);
    watched.serves(&["lobby", "side"]).await;
    // Bad in one file: nothing of the other is applied either.
    std::fs::write(&a, documents(&["lobby", "new"])).unwrap();
    std::fs::write(&b, documents(&["other", "lobby"])).unwrap();
    watched.refuses("a second time").await;
    watched.serves(&["lobby", "side"]).await;
    std::fs::write(&b, documents(&["other"])).unwrap();
    watched.serves(&["lobby", "new", "other"]).await;
}

#[test]
fn the_same_room_in_two_files_is_told_with_both_places() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (directory.path().join("a.yaml"), directory.path().join("b.yaml"));
    std::fs::write(&a, documents(&["one", "lobby"])).unwrap();
    std::fs::write(&b, documents(&["lobby"])).unwrap();
    let told = check(&[a.clone(), b.clone()]).unwrap_err().to_string();
    let line = |text: &str| text.rsplit(':').next().unwrap().parse::<usize>().unwrap();
    let (place, message) = told.split_once(": metadata.name: ").unwrap();
    assert!(place.starts_with(&*b.to_string_lossy()), "{told}");
    assert!(line(place) < 6, "{told}");
    let (_, first) = message.split_once("first at ").unwrap();
    let (first, remedy) = first.split_once(": ").unwrap();
    assert!(first.starts_with(&*a.to_string_lossy()), "{told}");
    assert!((6..12).contains(&line(first)), "{told}");
    assert_eq!(remedy, "rename or remove one");
}

#[test]
fn everything_that_is_wrong_is_told_with_file_line_and_field() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (directory.path().join("a.yaml"), directory.path().join("b.yaml"));
    std::fs::write(&a, documents(&["Lobby"]) + "  limits: {burst: 0}\n").unwrap();
    std::fs::write(&b, b"\xff\xfe").unwrap();
    let missing = PathBuf::from("/nonexistent/rooms.yaml");
    let problems = check(&[a.clone(), b.clone(), missing.clone()]).unwrap_err().0;
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 4, "{told:#?}");
    assert!(told[0].starts_with(&format!("{}:4: metadata.name: ", a.display())), "{told:#?}");
    assert!(told[1].starts_with(&format!("{}:7: spec.limits.burst: ", a.display())), "{told:#?}");
    assert!(told[2].starts_with(&format!("{}: the file is not text", b.display())), "{told:#?}");
    assert!(told[3].starts_with("/nonexistent/rooms.yaml: the file cannot be read"), "{told:#?}");
}

#[test]
fn a_bad_file_ends_the_start_and_leaves_the_table_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rooms.yaml");
    std::fs::write(&path, "hello").unwrap();
    let rooms = Rooms::new(1);
    let mut source = FilesSource::new(vec![path], policy_events(), Arc::default());
    assert!(source.load_once(&rooms).is_err());
    assert!(!rooms.is_loaded() && rooms.is_empty());
}
