//! The state of the connection, fed by the client's events.
//!
//! The client drops events when many come at once, so its own state is looked at from time to time as well.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nats::{ClientError, Event, Server, ServerError, connection::State};
use tokio::sync::watch;

use super::{BusState, hold::Hold, outbox::Outbox, roll_call::RollCall};
use crate::events::bus::{BusEvents, DroppedBecause, LostBecause};

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    /// Since when the connection is away; none while it stands.
    away: watch::Sender<Option<Instant>>,
    /// Whether the connection has ever stood.
    stood: AtomicBool,
    last_error: Mutex<Option<String>>,
    outbox: Arc<Outbox>,
    hold: Arc<Hold>,
    roll_call: Arc<RollCall>,
    events: Arc<BusEvents>,
}

impl Link {
    /// A link that has never stood.
    pub(super) fn new(
        outbox: Arc<Outbox>,
        hold: Arc<Hold>,
        roll_call: Arc<RollCall>,
        events: Arc<BusEvents>,
    ) -> Self {
        Self {
            away: watch::Sender::new(Some(Instant::now())),
            stood: AtomicBool::new(false),
            last_error: Mutex::default(),
            outbox,
            hold,
            roll_call,
            events,
        }
    }

    /// The state right now.
    pub(super) fn state(&self) -> BusState {
        match *self.away.borrow() {
            None => BusState::Connected,
            Some(_) if !self.stood.load(Ordering::Acquire) => BusState::Connecting,
            Some(since) => BusState::Away(since.elapsed()),
        }
    }

    /// Whether the connection stands.
    pub(super) fn is_connected(&self) -> bool {
        self.away.borrow().is_none()
    }

    /// Waits until the connection stands.
    pub(super) async fn stands(&self) {
        // The sender lives as long as this value.
        let _ = self.away.subscribe().wait_for(Option::is_none).await;
    }

    /// Waits until the connection is away.
    pub(super) async fn broken(&self) {
        // The sender lives as long as this value.
        let _ = self.away.subscribe().wait_for(Option::is_some).await;
    }

    /// Why the last try failed, for people; none while the connection stands.
    pub(super) fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes an event of the client.
    pub(super) fn event(&self, event: &Event) {
        match event {
            Event::Connected => self.connected(),
            Event::Disconnected | Event::Closed => self.disconnected(),
            Event::LameDuckMode => self.events.lame_duck(),
            Event::SlowConsumer(_) => self.events.dropped(DroppedBecause::SlowConsumer, None, 1),
            // A failed try; `tried` tells it with its cause.
            Event::ClientError(ClientError::Other(_)) | Event::Draining => {}
            Event::ServerError(ServerError::AuthorizationViolation) => {
                self.events.error("NATS ended the login of this gateway");
            }
            Event::ServerError(error) => self.events.error(&error.to_string()),
            Event::ClientError(error) => self.events.error(&error.to_string()),
        }
    }

    /// Looks at the client's own state, in case events were dropped.
    pub(super) fn reconcile(&self, state: &State) {
        match state {
            State::Connected => self.connected(),
            State::Disconnected => self.disconnected(),
            State::Pending => {}
        }
    }

    /// Called before each try to connect, with what came of the tries before.
    pub(super) fn tried(&self, servers: &[Server]) {
        let faults: Vec<String> = servers
            .iter()
            .filter_map(|server| {
                let fault = server.last_error.as_ref()?;
                Some(format!("{}:{}: {fault}", server.addr.host(), server.addr.port()))
            })
            .collect();
        if faults.is_empty() {
            return;
        }
        let cause = faults.join("; ");
        let away = self.away.borrow().map_or(Duration::ZERO, |since| since.elapsed());
        self.events.unreachable(away, &cause);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
    }

    fn connected(&self) {
        self.stood.store(true, Ordering::Release);
        let changed = self.away.send_if_modified(|away| away.take().is_some());
        if changed {
            *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.events.connected();
            self.roll_call.begin();
        }
    }

    fn disconnected(&self) {
        let changed = self.away.send_if_modified(|away| {
            let stood = away.is_none();
            away.get_or_insert_with(Instant::now);
            stood
        });
        if changed {
            self.hold.close();
            self.roll_call.broke();
            self.events.disconnected();
            let unconfirmed = self.outbox.connection_broke(self.hold.len());
            self.events.lost(LostBecause::Unconfirmed, unconfirmed);
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    fn link() -> (Link, Arc<BusEvents>) {
        let events = Arc::new(BusEvents::register(&mut Registry::default()));
        let link = Link::new(Arc::default(), Arc::default(), Arc::default(), Arc::clone(&events));
        (link, events)
    }

    #[test]
    fn what_the_client_drops_is_counted() {
        let (link, events) = link();
        for _ in 0..3 {
            link.event(&Event::SlowConsumer(1));
        }
        assert_eq!(events.dropped_count(DroppedBecause::SlowConsumer), 3);
    }

    #[test]
    fn a_lost_event_is_made_up_for() {
        let (link, events) = link();
        assert_eq!(link.state(), BusState::Connecting);
        link.reconcile(&State::Connected);
        link.event(&Event::Connected);
        assert_eq!(link.state(), BusState::Connected);
        assert_eq!(events.connect_count(), 1, "one connection is counted once");
        link.reconcile(&State::Disconnected);
        assert!(matches!(link.state(), BusState::Away(_)));
    }
}
