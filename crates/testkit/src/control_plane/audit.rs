//! The API server's audit log: who asked for what, and what came of it.

use std::path::Path;

use serde::Deserialize;

/// One request that was answered. A watch is told when it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// Who asked, such as `system:serviceaccount:hubbub:operator`.
    pub user: String,
    /// What was asked: `create`, `update`, `patch`, `delete`, `deletecollection`, `get`, `list` or `watch`.
    pub verb: String,
    /// The API group, empty for the core.
    pub group: String,
    /// The kind of resource in plural, with its subresource if one was asked for: `pods`, `chatrooms/status`.
    pub resource: String,
    /// The namespace, empty if there is none.
    pub namespace: String,
    /// The name, empty for a list and where the server was to make one up.
    pub name: String,
    /// The path and query, in which server-side apply names its field manager.
    pub uri: String,
    /// The HTTP status of the answer.
    pub status: u16,
}

impl AuditEvent {
    /// Whether it was to change something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

/// The parts of `audit.k8s.io/v1` Event that are read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    user: User,
    verb: String,
    #[serde(rename = "requestURI")]
    uri: String,
    #[serde(default)]
    object_ref: Object,
    #[serde(default)]
    response_status: Status,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    code: u16,
}

/// All whole lines of the log.
pub(super) fn read(log: &Path) -> Vec<AuditEvent> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(parse).collect()
}

fn parse(line: &str) -> AuditEvent {
    let line: Line = serde_json::from_str(line).expect("an audit event");
    let Object { api_group: group, mut resource, subresource, namespace, name } = line.object_ref;
    if !subresource.is_empty() {
        resource = format!("{resource}/{subresource}");
    }
    let (user, status) = (line.user.username, line.response_status.code);
    AuditEvent { user, verb: line.verb, group, resource, namespace, name, uri: line.uri, status }
}
