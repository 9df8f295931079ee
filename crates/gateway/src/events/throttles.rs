//! Members who are held back because too much is said.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// The limit that holds a member back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Throttle {
    /// Its own messages a second.
    Messages,
    /// Its own bytes a second.
    Bytes,
    /// The messages a second of its room.
    Room,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    limit: &'static str,
}

/// How often that happened. A clone is the same.
#[derive(Debug, Clone)]
pub(super) struct Throttles {
    messages: Counter,
    bytes: Counter,
    room: Counter,
}

impl Throttles {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let family = Family::<Labels, Counter>::default();
        let counter = |limit| family.get_or_create_owned(&Labels { limit });
        let throttles =
            Self { messages: counter("messages"), bytes: counter("bytes"), room: counter("room") };
        registry.register(
            "throttles",
            "Times a member was not read from because too much was said, by the limit that held it back: its messages a second, its bytes, or the messages of its room",
            family,
        );
        throttles
    }

    pub(super) fn count(&self, throttle: Throttle) {
        match throttle {
            Throttle::Messages => &self.messages,
            Throttle::Bytes => &self.bytes,
            Throttle::Room => &self.room,
        }
        .inc();
    }
}
