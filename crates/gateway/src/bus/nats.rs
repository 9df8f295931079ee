//! The bus over NATS: one subject a room, subscribed to only while the room has members here.
//!
//! A gateway has a connection in each of its shards' threads, and a room uses that of its home shard, for what it sends
//! and for what it gets. The bus is connected while all of them stand.
//!
//! While NATS is away, members stay and up to 2,048 messages or 16 MiB wait for its return; what does not fit is lost
//! and counted. Reconnecting goes on for ever, with jitter. A connection that breaks may have swallowed messages that
//! NATS never confirmed; their number is counted too. Nothing here is stored: who is not connected does not get it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, join_all},
};
use hubbub_telemetry::SpanRef;
use hubbub_websocket::Kind;
use nats::{Client, HeaderMap, client::PublishErrorKind, connection::State};
use tokio::{
    runtime::Handle,
    task::{JoinError, unconstrained},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Bus, BusState, PublishError, Sink};
use crate::{
    events::bus::{BusEvents, LostBecause},
    room::Room,
};

mod connection;
mod echo;
mod hold;
mod link;
mod outbox;
mod roll_call;
mod subscriptions;
mod wire;

pub use hubbub_nats::{NatsOptions, NatsOptionsError};
pub use roll_call::RollCall;

use connection::{Connection, Plan};
use echo::Echo;
use hold::{Hold, Offered, Outgoing, Release};
use link::Link;
use outbox::{Budget, Outbox};

/// How long a member waits for the room's subscription to be confirmed before it enters nevertheless.
const JOIN_LIMIT: Duration = Duration::from_secs(1);

/// Why there is no bus.
#[derive(Debug, thiserror::Error)]
pub enum NatsBusError {
    /// The options cannot work.
    #[error(transparent)]
    Options(#[from] NatsOptionsError),
    /// The client could not be made.
    #[error("the NATS client cannot be started: {0}")]
    Client(#[from] nats::ConnectError),
    /// A thread for a connection is gone.
    #[error("a thread for a connection to NATS has ended: {0}")]
    Thread(#[from] JoinError),
}

/// See the module.
pub struct NatsBus {
    connections: Arc<[Connection]>,
    link: Arc<Link>,
    hold: Arc<Hold>,
    roll_call: Arc<RollCall>,
    events: Arc<BusEvents>,
    binary: HeaderMap,
}

impl std::fmt::Debug for NatsBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsBus").field("state", &self.link.state()).finish_non_exhaustive()
    }
}

impl NatsBus {
    /// Begins to connect, once in each of these runtimes (at least one), and returns before a connection stands; [`Bus::state`] tells when
    /// all do. A room uses the connection of its [home](Room::home). What runs beside runs on `tasks`, until `stop`.
    ///
    /// # Errors
    ///
    /// Options that can never work. That NATS cannot be reached is none: it is tried until it can.
    pub async fn connect(
        options: &NatsOptions,
        runtimes: &[Handle],
        sink: Arc<dyn Sink>,
        events: Arc<BusEvents>,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, NatsBusError> {
        let budget = Arc::new(Budget::default());
        let outboxes: Vec<_> =
            runtimes.iter().map(|_| Arc::new(Outbox::new(Arc::clone(&budget)))).collect();
        let echoes: Vec<_> = runtimes.iter().map(|_| Arc::new(Echo::default())).collect();
        let hold = Arc::new(Hold::default());
        let roll_call = Arc::new(RollCall::new(echoes.clone()));
        let link = Arc::new(Link::new(
            outboxes.clone(),
            Arc::clone(&hold),
            Arc::clone(&roll_call),
            Arc::clone(&events),
        ));
        let mut connections = Vec::with_capacity(runtimes.len());
        for (index, ((runtime, echo), outbox)) in
            runtimes.iter().zip(echoes).zip(outboxes).enumerate()
        {
            let plan = Plan {
                index,
                options: options.clone(),
                echo,
                outbox,
                link: Arc::clone(&link),
                sink: Arc::clone(&sink),
                events: Arc::clone(&events),
                tasks: tasks.clone(),
                stop: stop.clone(),
            };
            connections.push(plan.connect_in(runtime).await?);
        }
        let connections: Arc<[Connection]> = connections.into();
        let release = Release {
            connections: Arc::clone(&connections),
            hold: Arc::clone(&hold),
            link: Arc::clone(&link),
            roll_call: Arc::clone(&roll_call),
            events: Arc::clone(&events),
            stop,
        };
        tasks.spawn(release.run());
        Ok(Self { connections, link, hold, roll_call, events, binary: wire::binary_headers() })
    }

    /// The room's connection, and which of them it is.
    fn connection(&self, room: &Room) -> (usize, &Connection) {
        let index = room.home(self.connections.len());
        (index, &self.connections[index])
    }

    /// The client of the first connection, for what else goes over it.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.connections[0].client
    }

    /// Which gateways are awaited after an outage; whoever hears their reports tells it.
    #[must_use]
    pub fn roll_call(&self) -> Arc<RollCall> {
        Arc::clone(&self.roll_call)
    }

    /// Why the last try to connect failed, for people; none while all connections stand.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.link.last_error()
    }

    /// A message cannot be taken now: the sender waits for a NATS that is slow, but not for one that is away.
    fn no_room(&self) -> PublishError {
        if self.link.is_connected() {
            return PublishError::Full;
        }
        self.events.lost(LostBecause::Away, 1);
        PublishError::Away
    }

    fn too_large(&self, limit: usize) -> PublishError {
        self.events.lost(LostBecause::TooLarge, 1);
        PublishError::TooLarge(limit)
    }
}

/// The span, if there is one and its header fits.
fn affordable(client: &Client, span: Option<SpanRef>, bytes: usize) -> Option<SpanRef> {
    let span = span?;
    let most = client.try_server_info().map_or(0, |info| info.max_payload);
    wire::affordable(Some(span), bytes, most)
}

impl Bus for NatsBus {
    fn publish(
        &self,
        room: &Arc<Room>,
        kind: Kind,
        payload: &[u8],
        span: Option<SpanRef>,
    ) -> Result<(), PublishError> {
        let (index, connection) = self.connection(room);
        let client = &connection.client;
        let state = client.connection_state();
        if state != State::Connected {
            // The event that says so may still be on its way, and the client would keep the message itself.
            self.link.reconcile(index, &state);
        }
        if self.hold.is_closed()
            && let Some(info) = client.try_server_info()
            && wire::size(kind, payload) > info.max_payload
        {
            return Err(self.too_large(info.max_payload));
        }
        let Some(payload) = connection.outbox.hold(payload) else {
            return Err(self.no_room());
        };
        let subject = room.subject().clone();
        let message = Outgoing { connection: index, subject, kind, payload, span };
        let Outgoing { subject, payload, span, .. } = match self.hold.offer(message) {
            Offered::Open(message) => message,
            Offered::Held => return Ok(()),
            Offered::Full => return Err(self.no_room()),
        };
        // Polled once: it is ready unless the client's queue is full. Unconstrained, because a tokio task that has
        // used up its turn would otherwise be told so as well.
        let headers = match (kind, affordable(client, span, payload.len())) {
            (Kind::Text, None) => None,
            (Kind::Binary, None) => Some(self.binary.clone()),
            (kind, traced) => wire::headers(kind, traced),
        };
        let taken = match headers {
            None => unconstrained(client.publish(subject, payload)).now_or_never(),
            Some(headers) => {
                unconstrained(client.publish_with_headers(subject, headers, payload)).now_or_never()
            }
        };
        match taken {
            Some(Ok(())) => {
                connection.outbox.published();
                self.events.published();
                Ok(())
            }
            Some(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                let limit = client.try_server_info().map_or(0, |info| info.max_payload);
                Err(self.too_large(limit))
            }
            // The client has ended.
            Some(Err(_)) => {
                self.events.lost(LostBecause::Away, 1);
                Err(PublishError::Away)
            }
            None => Err(self.no_room()),
        }
    }

    fn join<'a>(&'a self, room: &'a Arc<Room>) -> BoxFuture<'a, ()> {
        let (_, connection) = self.connection(room);
        let subscribed = connection.subscriptions.join(room);
        async move {
            if subscribed.confirmed.load(Ordering::Acquire) {
                return;
            }
            tokio::select! {
                () = connection.confirm(&subscribed) => return,
                // The client sends in the order asked: what a member publishes must not stand before its room's
                // subscription, also when both wait for NATS to come.
                () = async { subscribed.requested.wait().await; self.link.broken().await } => {}
                () = tokio::time::sleep(JOIN_LIMIT) => {}
            }
            self.events.late_join();
        }
        .boxed()
    }

    fn leave(&self, room: &Arc<Room>) {
        self.connection(room).1.subscriptions.leave(room);
    }

    fn flush(&self, limit: Duration) -> BoxFuture<'_, bool> {
        let flushed = async {
            self.hold.opened().await;
            let trips = self.connections.iter().map(|connection| connection.echo.round_trip());
            join_all(trips).await.into_iter().all(|came| came)
        };
        tokio::time::timeout(limit, flushed).map(|flushed| flushed.unwrap_or(false)).boxed()
    }

    fn state(&self) -> BusState {
        self.link.state()
    }

    fn system(&self) -> &'static str {
        "nats"
    }
}
