//! The in-process bus: a message goes straight to the members of this gateway. Nothing can be away or lost.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, FutureExt as _, ready};
use hubbub_telemetry::SpanRef;
use hubbub_websocket::Kind;

use super::{Bus, BusState, PublishError, Sink};
use crate::room::Room;

/// See the module.
pub struct LocalBus {
    sink: Arc<dyn Sink>,
}

impl std::fmt::Debug for LocalBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalBus").finish_non_exhaustive()
    }
}

impl LocalBus {
    /// A bus that hands everything to `sink`.
    #[must_use]
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self { sink }
    }
}

impl Bus for LocalBus {
    fn publish(
        &self,
        room: &Arc<Room>,
        kind: Kind,
        payload: &[u8],
        span: Option<SpanRef>,
    ) -> Result<(), PublishError> {
        if !self.sink.has_room_for(room) {
            return Err(PublishError::Full);
        }
        self.sink.deliver(room, kind, payload, span, Instant::now());
        Ok(())
    }

    fn join<'a>(&'a self, _room: &'a Arc<Room>) -> BoxFuture<'a, ()> {
        ready(()).boxed()
    }

    fn leave(&self, _room: &Arc<Room>) {}

    fn flush(&self, _limit: Duration) -> BoxFuture<'_, bool> {
        ready(true).boxed()
    }

    fn state(&self) -> BusState {
        BusState::Connected
    }

    fn system(&self) -> &'static str {
        "hubbub"
    }
}
