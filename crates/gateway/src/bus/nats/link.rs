//! The state of the gateway's connections, fed by the clients' events. It is connected while all of them stand.
//!
//! A client drops events when many come at once, so its own state is looked at from time to time as well.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hubbub_nats::causes;
use nats::{ClientError, Event, Server, ServerError, connection::State};
use tokio::sync::watch;

use super::{BusState, hold::Hold, outbox::Outbox, roll_call::RollCall};
use crate::events::bus::{BusEvents, DroppedBecause, LostBecause};

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    /// Since when not all connections stand; none while they do.
    away: watch::Sender<Option<Instant>>,
    /// Whether all have ever stood.
    stood: AtomicBool,
    /// Which of them stand. Held while one of them changes.
    standing: Mutex<Vec<bool>>,
    last_error: Mutex<Option<String>>,
    /// By connection.
    outboxes: Vec<Arc<Outbox>>,
    hold: Arc<Hold>,
    roll_call: Arc<RollCall>,
    events: Arc<BusEvents>,
}

impl Link {
    /// A link that has never stood, with a connection for each of the outboxes.
    pub(super) fn new(
        outboxes: Vec<Arc<Outbox>>,
        hold: Arc<Hold>,
        roll_call: Arc<RollCall>,
        events: Arc<BusEvents>,
    ) -> Self {
        Self {
            away: watch::Sender::new(Some(Instant::now())),
            stood: AtomicBool::new(false),
            standing: Mutex::new(vec![false; outboxes.len()]),
            last_error: Mutex::default(),
            outboxes,
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

    /// Whether all connections stand.
    pub(super) fn is_connected(&self) -> bool {
        self.away.borrow().is_none()
    }

    /// Whether this connection stands, whatever the others do.
    pub(super) fn is_standing(&self, connection: usize) -> bool {
        self.standing().get(connection).copied().unwrap_or(false)
    }

    /// Waits until all connections stand.
    pub(super) async fn stands(&self) {
        // The sender lives as long as this value.
        let _ = self.away.subscribe().wait_for(Option::is_none).await;
    }

    /// Waits until a connection is away.
    pub(super) async fn broken(&self) {
        // The sender lives as long as this value.
        let _ = self.away.subscribe().wait_for(Option::is_some).await;
    }

    /// Why the last try failed, for people; none while all connections stand.
    pub(super) fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes an event of a connection's client.
    pub(super) fn event(&self, connection: usize, event: &Event) {
        match event {
            Event::Connected => self.connected(connection),
            Event::Disconnected | Event::Closed => self.disconnected(connection),
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
    pub(super) fn reconcile(&self, connection: usize, state: &State) {
        match state {
            State::Connected => self.connected(connection),
            State::Disconnected => self.disconnected(connection),
            State::Pending => {}
        }
    }

    /// Called before each try to connect, with what came of the tries before.
    pub(super) fn tried(&self, servers: &[Server]) {
        let Some(cause) = causes(servers) else { return };
        let away = self.away.borrow().map_or(Duration::ZERO, |since| since.elapsed());
        self.events.unreachable(away, &cause);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
    }

    fn connected(&self, connection: usize) {
        let mut standing = self.standing();
        if !changes(&mut standing, connection, true) {
            return;
        }
        self.events.connection_made();
        if standing.iter().all(|stands| *stands) {
            self.stood.store(true, Ordering::Release);
            *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.away.send_replace(None);
            self.events.connected();
        }
    }

    fn disconnected(&self, connection: usize) {
        let mut standing = self.standing();
        let all_stood = self.is_connected();
        if !changes(&mut standing, connection, false) {
            return;
        }
        if all_stood {
            self.away.send_replace(Some(Instant::now()));
            self.hold.close();
            self.roll_call.broke();
            self.events.disconnected();
        }
        self.events.connection_ended();
        if let Some(outbox) = self.outboxes.get(connection) {
            let unconfirmed = outbox.connection_broke(self.hold.waiting_for(connection));
            self.events.lost(LostBecause::Unconfirmed, unconfirmed);
        }
    }

    fn standing(&self) -> MutexGuard<'_, Vec<bool>> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says of a connection whether it stands; whether that is news.
fn changes(standing: &mut [bool], connection: usize, stands: bool) -> bool {
    standing.get_mut(connection).is_some_and(|now| std::mem::replace(now, stands) != stands)
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    fn link(connections: usize) -> (Link, Arc<BusEvents>) {
        let outboxes = (0..connections).map(|_| Arc::default()).collect();
        let events = Arc::new(BusEvents::register(&mut Registry::default()));
        let link = Link::new(outboxes, Arc::default(), Arc::default(), Arc::clone(&events));
        (link, events)
    }

    #[test]
    fn what_the_client_drops_is_counted() {
        let (link, events) = link(1);
        for _ in 0..3 {
            link.event(0, &Event::SlowConsumer(1));
        }
        assert_eq!(events.dropped_count(DroppedBecause::SlowConsumer), 3);
    }

    #[test]
    fn a_lost_event_is_made_up_for() {
        let (link, events) = link(1);
        assert_eq!(link.state(), BusState::Connecting);
        link.reconcile(0, &State::Connected);
        link.event(0, &Event::Connected);
        assert_eq!(link.state(), BusState::Connected);
        assert_eq!(events.connect_count(), 1, "one connection is counted once");
        link.reconcile(0, &State::Disconnected);
        assert!(matches!(link.state(), BusState::Away(_)));
    }

    #[test]
    fn it_is_connected_while_all_connections_stand() {
        let (link, events) = link(2);
        link.event(0, &Event::Connected);
        assert_eq!(link.state(), BusState::Connecting, "the other has never stood");
        assert!(link.is_standing(0) && !link.is_standing(1));
        link.event(1, &Event::Connected);
        assert_eq!(link.state(), BusState::Connected);
        link.event(0, &Event::Disconnected);
        let BusState::Away(before) = link.state() else { panic!("one is away") };
        link.event(1, &Event::Disconnected);
        link.event(0, &Event::Connected);
        let BusState::Away(since) = link.state() else { panic!("the other is away") };
        assert!(since >= before, "it is away since the first one went");
        link.event(1, &Event::Connected);
        assert_eq!(link.state(), BusState::Connected);
        assert_eq!(events.connect_count(), 4);
    }
}
