//! All names of spans and of their attributes. They follow OpenTelemetry's semantic conventions for HTTP and messaging
//! where those have one; ours begin with `hubbub.`.

/// The target of what is traced rather than logged: see [`init`](crate::init).
pub const TARGET: &str = "hubbub_trace";

/// The header that carries a span from one program to another (W3C Trace Context). NATS keeps the case of headers.
pub const TRACEPARENT: &str = "traceparent";

/// Set on a span that is not to be sent, because there are too many of its kind; no collector sees it.
pub const LIMITED: &str = "hubbub.limited";

/// Names of spans. Rooms are attributes, so that each name stands for one operation.
pub mod span {
    /// A handshake at a room's address.
    pub const HANDSHAKE: &str = "GET /rooms/{namespace}/{name}";
    /// A handshake at `/ws`.
    pub const HANDSHAKE_DEFAULT: &str = "GET /ws";
    /// A handshake at an address where nothing is: its method alone, as conventions have it for no route.
    pub const HANDSHAKE_NOWHERE: &str = "GET";
    /// A member's message on its way to the bus.
    pub const PUBLISH: &str = "publish hubbub.room.{namespace}.{name}";
    /// A message on its way from the bus to one gateway's members.
    pub const PROCESS: &str = "process hubbub.room.{namespace}.{name}";
    /// The end of a connection.
    pub const CONNECTION_END: &str = "connection end";
    /// A gateway's way down.
    pub const DRAIN: &str = "drain";
    /// One look of the operator at a room or a pool.
    pub const RECONCILE: &str = "reconcile";
    /// A handshake as the load generator sees it.
    pub const CLIENT_HANDSHAKE: &str = "GET";
}

/// Attributes of HTTP and of the network.
pub mod http {
    /// The request's method.
    pub const METHOD: &str = "http.request.method";
    /// The route, with its variables by name.
    pub const ROUTE: &str = "http.route";
    /// The answer's status, a number.
    pub const STATUS: &str = "http.response.status_code";
    /// The path as it was asked for, never with its query.
    pub const PATH: &str = "url.path";
    /// `http`: TLS ends before the gateway.
    pub const SCHEME: &str = "url.scheme";
    /// The peer's address.
    pub const PEER: &str = "network.peer.address";
    /// The peer's port.
    pub const PEER_PORT: &str = "network.peer.port";
    /// `http`.
    pub const PROTOCOL: &str = "network.protocol.name";
    /// The browser or program, as it calls itself.
    pub const USER_AGENT: &str = "user_agent.original";
    /// The host that a client asked.
    pub const SERVER: &str = "server.address";
    /// Its port.
    pub const SERVER_PORT: &str = "server.port";
}

/// Attributes of messages.
pub mod messaging {
    /// `nats`, or `hubbub` for the in-process bus.
    pub const SYSTEM: &str = "messaging.system";
    /// `publish` or `process`.
    pub const OPERATION: &str = "messaging.operation.name";
    /// `send` or `process`.
    pub const OPERATION_TYPE: &str = "messaging.operation.type";
    /// The room's subject.
    pub const DESTINATION: &str = "messaging.destination.name";
    /// The subject with namespace and name by name.
    pub const TEMPLATE: &str = "messaging.destination.template";
    /// Bytes of the message.
    pub const BODY_SIZE: &str = "messaging.message.body.size";
    /// The value of [`TEMPLATE`].
    pub const ROOM_TEMPLATE: &str = "hubbub.room.{namespace}.{name}";
}

/// Why something failed: a word of a closed set.
pub const ERROR_TYPE: &str = "error.type";

/// The room, as `namespace/name`.
pub const ROOM: &str = "hubbub.room";
/// The connection, as 16 hexadecimal digits.
pub const CONNECTION: &str = "hubbub.connection.id";
/// What became of the handshake's origin: `allowed`, `not_required`, or why it was refused.
pub const ORIGIN_VERDICT: &str = "hubbub.origin.verdict";
/// Why a handshake was refused.
pub const REFUSAL: &str = "hubbub.refusal.reason";
/// Members whose socket took the message at once.
pub const DELIVERED: &str = "hubbub.delivered";
/// Members for whom it was queued.
pub const QUEUED: &str = "hubbub.queued";
/// Members who were too slow for it, or gone.
pub const DROPPED: &str = "hubbub.dropped";
/// How long a connection was open, in seconds.
pub const DURATION: &str = "hubbub.connection.duration";
/// The close code, a number; not there when none was said.
pub const CLOSE_CODE: &str = "hubbub.close.code";
/// Why the connection ended.
pub const CLOSE_REASON: &str = "hubbub.close.reason";
/// Who ended it: `peer` or `gateway`.
pub const CLOSED_BY: &str = "hubbub.close.by";
/// Messages from the member.
pub const MESSAGES_IN: &str = "hubbub.messages.in";
/// Messages to the member.
pub const MESSAGES_OUT: &str = "hubbub.messages.out";
/// Payload bytes from the member.
pub const BYTES_IN: &str = "hubbub.bytes.in";
/// Bytes to the member, frame headers included.
pub const BYTES_OUT: &str = "hubbub.bytes.out";
/// Who asked for a drain.
pub const DRAIN_BY: &str = "hubbub.drain.by";
/// Connections when it began.
pub const DRAIN_CONNECTIONS: &str = "hubbub.drain.connections";
/// Members sent away in good order.
pub const DRAIN_MOVED: &str = "hubbub.drain.moved";
/// Members dropped.
pub const DRAIN_CUT: &str = "hubbub.drain.cut";
/// Whether the bus was flushed.
pub const DRAIN_FLUSHED: &str = "hubbub.drain.bus_flushed";
/// How long it took, in seconds.
pub const DRAIN_SECONDS: &str = "hubbub.drain.seconds";
/// The pool that was looked at.
pub const POOL: &str = "hubbub.pool";
/// The generation of the object that was looked at.
pub const GENERATION: &str = "hubbub.generation";
/// What a look of the operator came to.
pub const OUTCOME: &str = "hubbub.outcome";
/// Requests and bucket entries that it wrote.
pub const WRITES: &str = "hubbub.writes";

/// Attributes of the program itself.
pub mod resource {
    /// Its version.
    pub const VERSION: &str = "service.version";
    /// Its id: the gateway's, or the replica's.
    pub const INSTANCE: &str = "service.instance.id";
    /// The service's name.
    pub const NAME: &str = "service.name";
    /// Its pod.
    pub const POD: &str = "k8s.pod.name";
    /// The pod's namespace.
    pub const NAMESPACE: &str = "k8s.namespace.name";
    /// The pod's node.
    pub const NODE: &str = "k8s.node.name";
}
