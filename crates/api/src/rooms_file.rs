//! A file of rooms: YAML of one or more `ChatRoom` documents, just as `kubectl apply` takes them.
//!
//! A file is good as a whole or refused as a whole, with everything that is wrong with it, each with its line. Lists, as
//! `kubectl get -o yaml` writes them, count as their items.

use std::collections::HashMap;
use std::fmt;
use std::io::Cursor;

use crate::chat_room::ChatRoom;
use crate::document::{self, Declared, quoted, top, top_text};
use crate::node::{Node, Place, Value};
use crate::room_name::RoomName;

/// The most bytes of a file of rooms: 4 MiB, far more than the rooms of one process need.
pub const MAX_ROOMS_BYTES: usize = 4 * 1024 * 1024;

/// The most events that aliases of one file may replay, against small files that unfold to gigabytes.
const MAX_REPLAYED_EVENTS: usize = 50_000;

/// The deepest nesting of one document. A room needs 4 levels, a list of rooms with the API server's records of managed
/// fields about 12. Reading recurses, so this also bounds the stack: about 40 KiB a level in a debug build.
const MAX_DEPTH: usize = 20;

/// The most problems that are told of one file; nobody reads more, and a file of another kind has one on every line.
const MAX_PROBLEMS: usize = 100;

/// One thing that is wrong with a file of rooms.
///
/// It is displayed as `12: spec.heartbeat.pingPeriod: must be …`, so that a caller can put the file's name before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, where it is known.
    pub column: Option<usize>,
    /// The path of the field, such as `spec.limits.burst`; empty when it is the text itself that is wrong.
    pub field: String,
    /// The room, `namespace/name`, where it is known.
    pub room: Option<String>,
    /// What is wrong, and how to mend it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.line)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

/// Reads and checks a file of rooms. The namespace defaults to `default`.
///
/// # Errors
/// Everything that is wrong with the file, in the order of its lines and columns, up to a hundred problems. After an error
/// of syntax, or a document that nests too deep, the rest of the file is not looked at.
pub fn parse_rooms(text: &str) -> Result<Vec<ChatRoom>, Vec<Problem>> {
    Ok(parse_rooms_with_lines(text)?.into_iter().map(|(room, _)| room).collect())
}

/// As [`parse_rooms`], each room with the line that its document begins on, for who compares several files.
///
/// # Errors
/// As [`parse_rooms`].
pub fn parse_rooms_with_lines(text: &str) -> Result<Vec<(ChatRoom, usize)>, Vec<Problem>> {
    if text.len() > MAX_ROOMS_BYTES {
        let size = MAX_ROOMS_BYTES / 1024 / 1024;
        let message = format!("the file is larger than {size} MiB: split it into several files");
        return Err(vec![whole_file(1, message)]);
    }
    let mut problems = Vec::new();
    let mut declared = Vec::new();
    let mut documents = 0;
    let mut reader = Cursor::new(text.as_bytes());
    for document in serde_yaml::read_with_options::<_, Node>(&mut reader, options()) {
        documents += 1;
        match document {
            Ok(node) => read_document(&node, &mut declared, &mut problems),
            // The reader goes on with the next document where it can tell where that begins.
            Err(error) => problems.push(syntax_problem(text, &error)),
        }
        if problems.len() > MAX_PROBLEMS {
            break;
        }
    }
    if documents == 0 {
        // Not an empty list of rooms: a file that is being written is empty for a moment.
        let message = "the file holds no ChatRoom document: declare at least one room";
        problems.push(whole_file(1, message.to_owned()));
    }
    find_repeated(&declared, &mut problems);
    if problems.is_empty() {
        let placed = declared.into_iter().map(|Declared { room, place }| (room, place.line));
        return Ok(placed.collect());
    }
    problems.sort_by_key(|problem| (problem.line, problem.column));
    if problems.len() > MAX_PROBLEMS {
        problems.truncate(MAX_PROBLEMS);
        let line = problems.last().map_or(1, |problem| problem.line);
        problems.push(whole_file(line, "there is more: mend these first".to_owned()));
    }
    Err(problems)
}

fn options() -> serde_yaml::Options {
    let mut options = serde_yaml::Options::default();
    // Repeated keys are reported with the field's path by the reader of documents.
    options.duplicate_keys = serde_yaml::DuplicateKeyPolicy::PassThrough;
    options.alias_limits.max_total_replayed_events = MAX_REPLAYED_EVENTS;
    options.with_snippet = false;
    let mut budget = serde_yaml::Budget::default();
    budget.max_depth = MAX_DEPTH;
    options.budget = Some(budget);
    options
}

fn whole_file(line: usize, message: String) -> Problem {
    Problem { line, column: None, field: String::new(), room: None, message }
}

fn read_document(node: &Node, declared: &mut Vec<Declared>, problems: &mut Vec<Problem>) {
    if !matches!(top_text(node, "kind"), Some(("List" | "ChatRoomList", _))) {
        declared.extend(document::read(node, problems));
        return;
    }
    match top(node, "items").map(|entry| &entry.node.value) {
        Some(Value::List(items)) => {
            declared.extend(items.iter().filter_map(|item| document::read(item, problems)));
        }
        _ => problems.push(Problem {
            line: node.place.line,
            column: Some(node.place.column),
            field: "items".to_owned(),
            room: None,
            message: "must be a list of ChatRoom objects".to_owned(),
        }),
    }
}

fn find_repeated(declared: &[Declared], problems: &mut Vec<Problem>) {
    let mut first: HashMap<RoomName, usize> = HashMap::new();
    for Declared { room, place } in declared {
        let Ok(name) = room.room_name() else { continue };
        if let Some(line) = first.get(&name) {
            problems.push(Problem {
                line: place.line,
                column: Some(place.column),
                field: "metadata.name".to_owned(),
                room: Some(name.to_string()),
                message: format!(
                    "declares the room {name} a second time, first on line {line}: rename or remove one"
                ),
            });
        } else {
            first.insert(name, place.line);
        }
    }
}

/// Says what the YAML library stumbled over, in words that mend the usual mistakes.
fn syntax_problem(text: &str, error: &serde_yaml::Error) -> Problem {
    let error = error.without_snippet();
    let place = error.location().map(Place::from).unwrap_or_default();
    let line = place.line.max(1);
    let source = text.lines().nth(line - 1).unwrap_or_default();
    let indentation = &source[..source.len() - source.trim_start().len()];
    let message = if is_limit(error) {
        "the document nests deeper, or unfolds to more, than rooms need: write its aliases (*name) out"
            .to_owned()
    } else if indentation.contains('\t') {
        "a tab stands in the indentation: YAML takes only spaces".to_owned()
    } else if let Some(word) = bare_star(source) {
        format!("a word that begins with * must stand in quotes: write {}", quoted(word))
    } else {
        let rendered = error.render();
        // The place is told by the fields of the problem.
        let what = rendered.rsplit_once(" at line ").map_or(rendered.as_str(), |(what, _)| what);
        format!("this is not YAML: {what}")
    };
    let column = (place.column > 0).then_some(place.column);
    Problem { line, column, field: String::new(), room: None, message }
}

/// Whether the text is sound but more than we are willing to hold.
fn is_limit(error: &serde_yaml::Error) -> bool {
    use serde_yaml::Error;

    match error {
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::Budget { .. } => true,
        Error::AliasError { error, .. } => is_limit(error),
        other => other.render().contains("recursion limit exceeded"),
    }
}

/// A word in the line that begins with `*` outside quotes, which YAML takes for an alias.
fn bare_star(line: &str) -> Option<&str> {
    let mut words = line.split([' ', ',', '[', ']', '\t']);
    words.find(|word| word.starts_with('*'))
}
