//! One `ChatRoom` document: from the tree of its text to a checked room, or to everything that is wrong with it.
//!
//! The shape of the document stands here once, as a table of fields. What does not fit it is reported and left out; the
//! rest is read by the serde types and judged by the rules, except those that would look at what was left out.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value as Json, json};

use crate::auth::Access;
use crate::chat_room::{API_VERSION, ChatRoom, KIND};
use crate::duration::WireDuration;
use crate::node::{Entry, Node, Place, Value};
use crate::rooms_file::Problem;
use crate::rules::{self, Candidate};
use crate::suggest;

/// The fields of an object. An open one tolerates others: Kubernetes, not Hubbub, says what may stand there.
struct Fields {
    open: bool,
    list: &'static [Field],
}

struct Field {
    name: &'static str,
    shape: Shape,
    /// What to say when it is not there, if it must be.
    missing: Option<&'static str>,
}

enum Shape {
    Text,
    Texts,
    Flag,
    /// A `u32`. What is beyond its ends is cut to them, because every bound excludes both ends and says it better.
    Count,
    /// An `i64`.
    Whole,
    Duration,
    /// One of these texts.
    Choice(&'static [&'static str]),
    Object(&'static Fields),
    Ignored,
}

const fn field(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, missing: None }
}

const fn required(name: &'static str, shape: Shape, missing: &'static str) -> Field {
    Field { name, shape, missing: Some(missing) }
}

static DOCUMENT: Fields = Fields {
    open: false,
    list: &[
        required("apiVersion", Shape::Text, "is missing: write apiVersion: hubbub.dev/v1alpha1"),
        required("kind", Shape::Text, "is missing: write kind: ChatRoom"),
        required("metadata", Shape::Object(&METADATA), "is missing: give the room a metadata.name"),
        required(
            "spec",
            Shape::Object(&SPEC),
            "is missing: a room needs at least spec.allowedOrigins",
        ),
        field("status", Shape::Ignored),
    ],
};

static METADATA: Fields = Fields {
    open: true,
    list: &[
        required("name", Shape::Text, "is missing: give the room a name, such as lobby"),
        field("namespace", Shape::Text),
        field("generation", Shape::Whole),
    ],
};

static SPEC: Fields = Fields {
    open: false,
    list: &[
        required(
            "allowedOrigins",
            Shape::Texts,
            "is missing: list the origins whose pages may join, such as [\"https://chat.example.com\"], or [\"*\"] for all",
        ),
        field("requireOrigin", Shape::Flag),
        field("auth", Shape::Object(&AUTH)),
        field("gateways", Shape::Object(&GATEWAYS)),
        field("limits", Shape::Object(&LIMITS)),
        field("heartbeat", Shape::Object(&HEARTBEAT)),
    ],
};

const ACCESS: Shape = Shape::Choice(&Access::NAMES);

static AUTH: Fields =
    Fields { open: false, list: &[field("anonymous", ACCESS), field("jwt", Shape::Object(&JWT))] };

static JWT: Fields = Fields {
    open: false,
    list: &[
        required(
            "issuer",
            Shape::Text,
            "is missing: say who signs the tokens, as their claim iss does",
        ),
        required(
            "audiences",
            Shape::Texts,
            "is missing: say for whom the tokens are, as their claim aud does, so that those for another service open nothing here",
        ),
        required(
            "jwks",
            Shape::Object(&JWKS),
            "is missing: say where the public keys stand, by inline, configMap or url",
        ),
        field("claim", Shape::Text),
        field("accessWithoutClaim", ACCESS),
        field("queryParameter", Shape::Text),
        field("leeway", Shape::Duration),
    ],
};

static JWKS: Fields = Fields {
    open: false,
    list: &[
        field("inline", Shape::Text),
        field("configMap", Shape::Object(&CONFIG_MAP)),
        field("url", Shape::Text),
    ],
};

static CONFIG_MAP: Fields = Fields {
    open: false,
    list: &[
        required("name", Shape::Text, "is missing: name the ConfigMap"),
        field("key", Shape::Text),
    ],
};

static GATEWAYS: Fields = Fields {
    open: false,
    list: &[
        field("pool", Shape::Text),
        field("min", Shape::Count),
        field("max", Shape::Count),
        field("connectionsPerGateway", Shape::Count),
    ],
};

static LIMITS: Fields = Fields {
    open: false,
    list: &[
        field("maxConnections", Shape::Count),
        field("maxMessageBytes", Shape::Count),
        field("sendQueue", Shape::Count),
        field("messagesPerSecond", Shape::Count),
        field("burst", Shape::Count),
        field("bytesPerSecond", Shape::Count),
        field("roomMessagesPerSecond", Shape::Count),
    ],
};

static HEARTBEAT: Fields = Fields {
    open: false,
    list: &[
        field("pongWait", Shape::Duration),
        field("pingPeriod", Shape::Duration),
        field("writeWait", Shape::Duration),
    ],
};

/// A room that was read, and where its name stands.
pub(crate) struct Declared {
    pub(crate) room: ChatRoom,
    pub(crate) place: Place,
}

/// Reads one document that is not a list. What is wrong goes to `problems`, and a room comes out as long as its name can
/// be compared with others; it is good only if there are no problems.
pub(crate) fn read(node: &Node, problems: &mut Vec<Problem>) -> Option<Declared> {
    let before = problems.len();
    let mut reader = Reader { problems, broken: HashSet::new(), places: HashMap::new() };
    let declared = reader.document(node);
    let room = declared.as_ref().and_then(|d| d.room.room_name().ok()).map(|name| name.to_string());
    for problem in problems.iter_mut().skip(before) {
        problem.room.clone_from(&room);
    }
    declared
}

/// The text of a field at the top of a document.
pub(crate) fn top_text<'a>(node: &'a Node, name: &str) -> Option<(&'a str, Place)> {
    match &top(node, name)?.node {
        Node { value: Value::Text(text), place } => Some((text, *place)),
        _ => None,
    }
}

/// A field at the top of a document.
pub(crate) fn top<'a>(node: &'a Node, name: &str) -> Option<&'a Entry> {
    match &node.value {
        Value::Map(entries) => entries.iter().find(|entry| entry.key == name),
        _ => None,
    }
}

/// Text from a file as it may be repeated in a message: on one line, in quotes, and not endless.
pub(crate) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    if short.len() < text.len() { format!("{short:?}…") } else { format!("{short:?}") }
}

struct Reader<'p> {
    problems: &'p mut Vec<Problem>,
    /// Paths of the fields that were left out.
    broken: HashSet<String>,
    /// Where each field that is there stands, by path.
    places: HashMap<String, Place>,
}

impl Reader<'_> {
    fn document(&mut self, node: &Node) -> Option<Declared> {
        let Value::Map(entries) = &node.value else {
            let message = format!("must be a ChatRoom document, not {}", node.value.describe());
            self.refuse(node.place, "", message);
            return None;
        };
        if let Some((kind, place)) = top_text(node, "kind").filter(|(kind, _)| *kind != KIND) {
            let Some(near) = suggest::nearest(kind, [KIND]) else {
                let message = format!(
                    "is {}, and only ChatRoom documents belong in this file: move this one to another",
                    quoted(kind)
                );
                self.refuse(place, "kind", message);
                return None;
            };
            self.refuse(place, "kind", format!("is {}: did you mean {near}?", quoted(kind)));
        }
        if let Some((version, place)) =
            top_text(node, "apiVersion").filter(|(version, _)| *version != API_VERSION)
        {
            let message = format!("is {}: write {API_VERSION}", quoted(version));
            self.refuse(place, "apiVersion", message);
        }
        // The message of what is missing points at the document's first line.
        let mut document = self.object(entries, &DOCUMENT, "", node.place);
        self.fill_in(&mut document);
        let room: ChatRoom = match serde_json::from_value(Json::Object(document)) {
            Ok(room) => room,
            Err(error) => {
                self.refuse(node.place, "", format!("cannot be read: {error}"));
                return None;
            }
        };
        for violation in rules::check(&Candidate::of_chat_room(&room)) {
            if violation.rule.fields.iter().any(|path| self.is_broken(path)) {
                continue;
            }
            let message = violation.rule.message.to_owned();
            self.refuse(
                self.place_of(&violation.field, violation.rule.fields, node.place),
                &violation.field,
                message,
            );
        }
        let place = self.place_of("metadata.name", &[], node.place);
        Some(Declared { room, place })
    }

    /// Gives what was left out a value of the right type, so that the rest can still be judged.
    fn fill_in(&mut self, document: &mut Map<String, Json>) {
        document.insert("apiVersion".to_owned(), json!(API_VERSION));
        document.insert("kind".to_owned(), json!(KIND));
        for (group, name, value) in
            [("metadata", "name", json!("")), ("spec", "allowedOrigins", json!([]))]
        {
            let group = document.entry(group).or_insert_with(|| json!({}));
            if let Json::Object(fields) = group {
                fields.entry(name).or_insert(value);
            }
        }
    }

    fn object(
        &mut self,
        entries: &[Entry],
        fields: &Fields,
        path: &str,
        place: Place,
    ) -> Map<String, Json> {
        let mut object = Map::new();
        let mut seen: HashMap<&str, Place> = HashMap::new();
        for entry in entries {
            let path = join(path, &entry.key);
            let Some(field) = fields.list.iter().find(|field| field.name == entry.key) else {
                if !fields.open {
                    self.unknown(entry, fields, &path);
                }
                continue;
            };
            if let Some(first) = seen.insert(field.name, entry.place) {
                let message = format!("is given twice, first on line {}: keep one", first.line);
                self.refuse(entry.place, &path, message);
                continue;
            }
            self.places.insert(path.clone(), entry.place);
            if matches!(entry.node.value, Value::Null) {
                // As for the API server, an empty field is as good as none.
                continue;
            }
            if let Some(value) = self.value(&entry.node, &field.shape, &path, entry.place) {
                object.insert(entry.key.clone(), value);
            }
        }
        for field in fields.list {
            let path = join(path, field.name);
            let Some(missing) = field.missing else { continue };
            if !object.contains_key(field.name) && !self.broken.contains(&path) {
                let place = seen.get(field.name).copied().unwrap_or(place);
                self.leave_out(place, &path, missing.to_owned());
            }
        }
        object
    }

    fn value(&mut self, node: &Node, shape: &Shape, path: &str, place: Place) -> Option<Json> {
        let expected = match (shape, &node.value) {
            (Shape::Text, Value::Text(text)) => return Some(json!(text)),
            (Shape::Flag, Value::Flag(flag)) => return Some(json!(flag)),
            (Shape::Whole, Value::Whole(number)) => return Some(json!(number)),
            (Shape::Count, Value::Whole(number)) => {
                let end = if *number < 0 { u32::MIN } else { u32::MAX };
                return Some(json!(u32::try_from(*number).unwrap_or(end)));
            }
            (Shape::Duration, Value::Text(text)) => match text.parse::<WireDuration>() {
                Ok(_) => return Some(json!(text)),
                Err(error) => {
                    let message = format!("{error}, not {}", quoted(text));
                    self.leave_out(place, path, message);
                    return None;
                }
            },
            (Shape::Choice(texts), Value::Text(text)) if texts.contains(&text.as_str()) => {
                return Some(json!(text));
            }
            (Shape::Choice(texts), _) => {
                let near = match &node.value {
                    Value::Text(text) => suggest::nearest(text, texts.iter().copied()),
                    _ => None,
                };
                let message = match near {
                    Some(near) => format!("is not a choice: did you mean {near}?"),
                    None => format!("must be one of {}", texts.join(", ")),
                };
                self.leave_out(place, path, message);
                return None;
            }
            (Shape::Object(fields), Value::Map(entries)) => {
                return Some(Json::Object(self.object(entries, fields, path, place)));
            }
            (Shape::Texts, Value::List(nodes)) => return self.texts(nodes, path),
            (Shape::Ignored, _) => return None,
            (Shape::Text, Value::Whole(_) | Value::Fraction | Value::Flag(_)) => {
                let message =
                    format!("must be text, not {}: put it in quotes", node.value.describe());
                self.leave_out(place, path, message);
                return None;
            }
            (Shape::Duration, Value::Whole(number)) => {
                let message =
                    format!("must be a duration with a unit, such as {number}s or {number}ms");
                self.leave_out(place, path, message);
                return None;
            }
            (Shape::Text, _) => "text",
            (Shape::Flag, _) => "true or false, without quotes",
            (Shape::Count | Shape::Whole, Value::Text(_)) => {
                "a whole number without quotes or unit"
            }
            (Shape::Count | Shape::Whole, _) => "a whole number",
            (Shape::Duration, _) => "a duration, such as 60s",
            (Shape::Object(_), _) => "a group of fields",
            (Shape::Texts, _) => "a list, such as [\"https://chat.example.com\"]",
        };
        let found = match &node.value {
            Value::Text(text) => quoted(text),
            other => other.describe().to_owned(),
        };
        self.leave_out(place, path, format!("must be {expected}, not {found}"));
        None
    }

    fn texts(&mut self, nodes: &[Node], path: &str) -> Option<Json> {
        let mut texts = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            let entry = format!("{path}[{index}]");
            self.places.insert(entry.clone(), node.place);
            match &node.value {
                Value::Text(text) => texts.push(json!(text)),
                // In YAML a bare `null` is no text, but in a list of origins it can only mean that one.
                Value::Null => self.leave_out(
                    node.place,
                    &entry,
                    "must be text: put null in quotes, \"null\", or remove the entry".to_owned(),
                ),
                other => {
                    let message =
                        format!("must be text, not {}: put it in quotes", other.describe());
                    self.leave_out(node.place, &entry, message);
                }
            }
        }
        if texts.len() < nodes.len() {
            // Positions have shifted, so the rules on entries would point at the wrong ones.
            self.broken.insert(path.to_owned());
            return None;
        }
        Some(Json::Array(texts))
    }

    fn unknown(&mut self, entry: &Entry, fields: &Fields, path: &str) {
        let names = || fields.list.iter().map(|field| field.name);
        let message = match suggest::nearest(&entry.key, names()) {
            Some(near) => format!("is not a field: did you mean {near}?"),
            None => {
                let names: Vec<&str> = names().collect();
                format!("is not a field: remove it (the fields here are {})", names.join(", "))
            }
        };
        self.refuse(entry.place, path, message);
    }

    fn refuse(&mut self, place: Place, field: &str, message: String) {
        self.problems.push(Problem {
            line: place.line,
            column: (place.column > 0).then_some(place.column),
            field: field.to_owned(),
            room: None,
            message,
        });
    }

    fn leave_out(&mut self, place: Place, path: &str, message: String) {
        self.broken.insert(path.to_owned());
        self.refuse(place, path, message);
    }

    /// Whether the field, or a group that holds it, was left out.
    fn is_broken(&self, path: &str) -> bool {
        ancestors(path).any(|path| self.broken.contains(path))
    }

    /// Where a field stands: itself, else another that its rule reads, else the group that would hold it.
    fn place_of(&self, field: &str, others: &[&str], document: Place) -> Place {
        let own = self.places.get(field);
        let other = || others.iter().find_map(|path| self.places.get(*path));
        let group = || ancestors(field).find_map(|path| self.places.get(path));
        own.or_else(other).or_else(group).copied().unwrap_or(document)
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The path itself, then the paths of the groups around it, the nearest first.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| path.rfind(['.', '[']).map(|end| &path[..end]))
}
