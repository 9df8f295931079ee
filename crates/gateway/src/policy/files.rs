//! Rooms from files: YAML of `ChatRoom` documents, the same that `kubectl apply` takes, in one file or several.
//!
//! The files are read again and again, and compared by content, so an edit in place, an atomic rename and a ConfigMap's
//! swapped symlink all look the same. All files together are good as a whole or refused as a whole: then what was in
//! force stays, and the faults are told once. A content is only believed when it stands still for a moment, so that a
//! file that is being written does not close rooms that its second half declares.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _};
use hubbub_api::{MAX_ROOMS_BYTES, Problem, RoomName, RoomPolicy, parse_rooms_with_lines};
use tokio_util::sync::CancellationToken;

use super::{PolicyHealth, PolicySource};
use crate::{
    events::policy::PolicyEvents,
    room::{Applied, Changes, Policy, Rooms},
    settled::{self, Contents as _, settled},
};

/// How often the files are looked at.
const PERIOD: Duration = Duration::from_millis(500);

/// How long a new content must stand still before it is believed.
const SETTLE: Duration = Duration::from_millis(100);

/// One thing that is wrong with the files, displayed as `file:line: field: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblem {
    /// Which file.
    pub file: PathBuf,
    /// The line, from 1; none when it is the file itself that cannot be read.
    pub line: Option<usize>,
    /// The path of the field, such as `spec.limits.burst`; may be empty.
    pub field: String,
    /// The room, `namespace/name`, where it is known.
    pub room: Option<String>,
    /// What is wrong, and how to mend it.
    pub message: String,
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.field.is_empty() {
            write!(f, " {}:", self.field)?;
        }
        write!(f, " {}", self.message)
    }
}

impl FileProblem {
    fn of_file(file: &Path, message: String) -> Self {
        Self { file: file.to_owned(), line: None, field: String::new(), room: None, message }
    }

    fn of_text(file: &Path, problem: Problem) -> Self {
        let Problem { line, column: _, field, room, message } = problem;
        Self { file: file.to_owned(), line: Some(line), field, room, message }
    }
}

/// Everything that is wrong with the files, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesError(pub Vec<FileProblem>);

impl fmt::Display for FilesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            let between = if n == 0 { "" } else { "\n" };
            write!(f, "{between}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for FilesError {}

/// Reads and checks files, and returns the rooms that all of them declare.
///
/// # Errors
///
/// Everything that is wrong with them, in the order of files and lines.
pub fn check(paths: &[PathBuf]) -> Result<Vec<RoomPolicy>, FilesError> {
    read(paths).policies()
}

/// See the module.
#[derive(Debug)]
pub struct FilesSource {
    paths: Vec<PathBuf>,
    events: Arc<PolicyEvents>,
    health: Arc<PolicyHealth>,
    /// The content that was judged last, good or bad.
    judged: Option<u64>,
}

impl FilesSource {
    /// Rooms from these files; what is wrong with them later is shown in `health`.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>, events: Arc<PolicyEvents>, health: Arc<PolicyHealth>) -> Self {
        Self { paths, events, health, judged: None }
    }

    /// Fills the table, for the start of a gateway, where a bad file is an error and not something to wait out.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the files; then the table is as it was.
    pub fn load_once(&mut self, rooms: &Rooms) -> Result<Changes, FilesError> {
        let contents = read(&self.paths);
        self.apply(&contents, rooms)
    }

    fn apply(&mut self, contents: &Contents, rooms: &Rooms) -> Result<Changes, FilesError> {
        self.judged = Some(contents.digest());
        let policies = contents.policies().and_then(|declared| compile(declared, &self.paths))?;
        let changes = rooms.replace(policies);
        rooms.set_applied(Applied::default());
        self.health.refused(Vec::new(), &self.events);
        self.events.applied(rooms.len(), changes);
        Ok(changes)
    }

    /// Looks at the files once, and applies what has changed and stands still.
    async fn look(&mut self, rooms: &Rooms) {
        let paths = self.paths.clone();
        let Some(contents) = settled(self.judged, SETTLE, move || read(&paths)).await else {
            return;
        };
        if let Err(FilesError(problems)) = self.apply(&contents, rooms) {
            let faults: Vec<String> = problems.iter().map(ToString::to_string).collect();
            self.events.files_refused(&faults);
            self.health.refused(faults, &self.events);
        }
    }
}

impl PolicySource for FilesSource {
    fn run(
        mut self: Box<Self>,
        rooms: Arc<Rooms>,
        stop: CancellationToken,
    ) -> BoxFuture<'static, ()> {
        async move {
            let mut period = tokio::time::interval(PERIOD);
            period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = period.tick() => {}
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.look(&rooms) => {}
                }
            }
        }
        .boxed()
    }
}

/// What all files held at one moment.
#[derive(Debug, Default)]
struct Contents(Vec<(PathBuf, Result<Vec<u8>, io::Error>)>);

fn read(paths: &[PathBuf]) -> Contents {
    Contents(paths.iter().map(|path| (path.clone(), read_file(path))).collect())
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One more than allowed is enough to be refused as too large.
    let limit = MAX_ROOMS_BYTES as u64 + 1;
    std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl settled::Contents for Contents {
    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (path, content) in &self.0 {
            path.hash(&mut hasher);
            content.as_ref().map_err(io::Error::kind).hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl Contents {
    /// The rooms of all files, or everything that is wrong.
    fn policies(&self) -> Result<Vec<RoomPolicy>, FilesError> {
        let mut policies = Vec::new();
        let mut problems = Vec::new();
        let mut first: HashMap<RoomName, (&Path, usize)> = HashMap::new();
        for (path, content) in &self.0 {
            let text = match content.as_ref().map(|bytes| std::str::from_utf8(bytes)) {
                Ok(Ok(text)) => text,
                Ok(Err(_)) => {
                    let message = "the file is not text in UTF-8".to_owned();
                    problems.push(FileProblem::of_file(path, message));
                    continue;
                }
                Err(error) => {
                    let message = format!("the file cannot be read: {error}");
                    problems.push(FileProblem::of_file(path, message));
                    continue;
                }
            };
            let declared = match parse_rooms_with_lines(text) {
                Ok(declared) => declared,
                Err(found) => {
                    let of_text = |problem| FileProblem::of_text(path, problem);
                    problems.extend(found.into_iter().map(of_text));
                    continue;
                }
            };
            for (room, line) in declared {
                let wrong = |field: &str, room: Option<String>, message: String| FileProblem {
                    file: path.clone(),
                    line: Some(line),
                    field: field.to_owned(),
                    room,
                    message,
                };
                let policy = match RoomPolicy::from_chat_room(&room) {
                    Ok(policy) => policy,
                    Err(error) => {
                        problems.push(wrong("", None, error.to_string()));
                        continue;
                    }
                };
                match first.entry(policy.room.clone()) {
                    Entry::Vacant(free) => {
                        free.insert((path, line));
                        policies.push(policy);
                    }
                    Entry::Occupied(taken) => {
                        let (other, other_line) = *taken.get();
                        let name = taken.key().to_string();
                        let message = format!(
                            "declares the room {name} a second time, first at {}:{other_line}: rename or remove one",
                            other.display(),
                        );
                        problems.push(wrong("metadata.name", Some(name), message));
                    }
                }
            }
        }
        if problems.is_empty() { Ok(policies) } else { Err(FilesError(problems)) }
    }
}

/// Compiles the allowlists. They were checked with the rest, so this fails only if that check missed something.
fn compile(declared: Vec<RoomPolicy>, paths: &[PathBuf]) -> Result<Vec<Policy>, FilesError> {
    let mut policies = Vec::with_capacity(declared.len());
    for policy in declared {
        let room = policy.room.to_string();
        policies.push(Policy::compile(policy).map_err(|faults| {
            let file = paths.first().cloned().unwrap_or_default();
            let problem = |fault: &hubbub_api::PatternError| FileProblem {
                file: file.clone(),
                line: None,
                field: "spec.allowedOrigins".to_owned(),
                room: Some(room.clone()),
                message: fault.to_string(),
            };
            FilesError(faults.iter().map(problem).collect())
        })?);
    }
    Ok(policies)
}
