//! The bus over NATS: one subject a room, subscribed to only while the room has members here.
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
    future::{BoxFuture, ready},
};
use hubbub_websocket::Kind;
use nats::{Client, HeaderMap, client::PublishErrorKind, connection::State};
use tokio::task::unconstrained;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Bus, BusState, PublishError, Sink};
use crate::{
    events::bus::{BusEvents, LostBecause},
    room::Room,
};

mod echo;
mod hold;
mod link;
mod outbox;
mod roll_call;
mod subscriptions;
mod wire;

pub use hubbub_nats::{NatsOptions, NatsOptionsError};
pub use roll_call::RollCall;

use echo::{Echo, Keeper};
use hold::{Hold, Offered, Outgoing, Release};
use link::Link;
use outbox::Outbox;
use subscriptions::{Subscribed, Subscriptions};

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
}

/// See the module.
pub struct NatsBus {
    client: Client,
    link: Arc<Link>,
    echo: Arc<Echo>,
    outbox: Arc<Outbox>,
    hold: Arc<Hold>,
    roll_call: Arc<RollCall>,
    events: Arc<BusEvents>,
    subscriptions: Arc<Subscriptions>,
    binary: HeaderMap,
}

impl std::fmt::Debug for NatsBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsBus").field("state", &self.link.state()).finish_non_exhaustive()
    }
}

impl NatsBus {
    /// Begins to connect, and returns before the connection stands; [`Bus::state`] tells when it does. What runs
    /// beside runs on `tasks`, until `stop`.
    ///
    /// # Errors
    ///
    /// Options that can never work. That NATS cannot be reached is none: it is tried until it can.
    pub async fn connect(
        options: &NatsOptions,
        sink: Arc<dyn Sink>,
        events: Arc<BusEvents>,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, NatsBusError> {
        let (servers, options) = options.prepare()?;
        let outbox = Arc::new(Outbox::default());
        let (hold, roll_call) = (Arc::new(Hold::default()), Arc::new(RollCall::default()));
        let link = Arc::new(Link::new(
            Arc::clone(&outbox),
            Arc::clone(&hold),
            Arc::clone(&roll_call),
            Arc::clone(&events),
        ));
        let (on_event, on_try) = (Arc::clone(&link), Arc::clone(&link));
        let client = options
            .event_callback(move |event| {
                on_event.event(&event);
                ready(())
            })
            .reconnect_to_server_callback(move |servers, _| {
                on_try.tried(&servers);
                // The client's own choice is right.
                ready(None)
            })
            .connect(servers)
            .await?;
        let echo = Arc::new(Echo::default());
        let keeper = Keeper {
            client: client.clone(),
            echo: Arc::clone(&echo),
            link: Arc::clone(&link),
            outbox: Arc::clone(&outbox),
            stop: stop.clone(),
        };
        let release = Release {
            client: client.clone(),
            hold: Arc::clone(&hold),
            outbox: Arc::clone(&outbox),
            link: Arc::clone(&link),
            roll_call: Arc::clone(&roll_call),
            events: Arc::clone(&events),
            stop: stop.clone(),
        };
        tasks.spawn(release.run());
        let subscriptions = Arc::new(Subscriptions::new(
            client.clone(),
            sink,
            Arc::clone(&events),
            tasks.clone(),
            stop.clone(),
        ));
        let ending = Arc::clone(&subscriptions);
        tasks.spawn(async move {
            keeper.run().await;
            stop.cancelled().await;
            ending.end();
        });
        Ok(Self {
            client,
            link,
            echo,
            outbox,
            hold,
            roll_call,
            events,
            subscriptions,
            binary: wire::binary_headers(),
        })
    }

    /// The client, for what else goes over the same connection.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Which gateways are awaited after an outage; whoever hears their reports tells it.
    #[must_use]
    pub fn roll_call(&self) -> Arc<RollCall> {
        Arc::clone(&self.roll_call)
    }

    /// Why the last try to connect failed, for people; none while the connection stands.
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

    async fn confirm(&self, subscribed: &Subscribed) {
        subscribed.requested.wait().await;
        if !subscribed.confirmed.load(Ordering::Acquire) && self.echo.round_trip().await {
            subscribed.confirmed.store(true, Ordering::Release);
        }
    }
}

impl Bus for NatsBus {
    fn publish(&self, room: &Arc<Room>, kind: Kind, payload: &[u8]) -> Result<(), PublishError> {
        let state = self.client.connection_state();
        if state != State::Connected {
            // The event that says so may still be on its way, and the client would keep the message itself.
            self.link.reconcile(&state);
        }
        if self.hold.is_closed()
            && let Some(info) = self.client.try_server_info()
            && payload.len() > info.max_payload
        {
            return Err(self.too_large(info.max_payload));
        }
        let Some(payload) = self.outbox.hold(payload) else {
            return Err(self.no_room());
        };
        let message = Outgoing { subject: room.subject().clone(), kind, payload };
        let Outgoing { subject, payload, .. } = match self.hold.offer(message) {
            Offered::Open(message) => message,
            Offered::Held => return Ok(()),
            Offered::Full => return Err(self.no_room()),
        };
        // Polled once: it is ready unless the client's queue is full. Unconstrained, because a tokio task that has
        // used up its turn would otherwise be told so as well.
        let taken = match kind {
            Kind::Text => unconstrained(self.client.publish(subject, payload)).now_or_never(),
            Kind::Binary => {
                let headers = self.binary.clone();
                unconstrained(self.client.publish_with_headers(subject, headers, payload))
                    .now_or_never()
            }
        };
        match taken {
            Some(Ok(())) => {
                self.outbox.published();
                self.events.published();
                Ok(())
            }
            Some(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                let limit = self.client.try_server_info().map_or(0, |info| info.max_payload);
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
        let subscribed = self.subscriptions.join(room);
        async move {
            if subscribed.confirmed.load(Ordering::Acquire) {
                return;
            }
            tokio::select! {
                () = self.confirm(&subscribed) => return,
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
        self.subscriptions.leave(room);
    }

    fn flush(&self, limit: Duration) -> BoxFuture<'_, bool> {
        let flushed = async {
            self.hold.opened().await;
            self.echo.round_trip().await
        };
        tokio::time::timeout(limit, flushed).map(|flushed| flushed.unwrap_or(false)).boxed()
    }

    fn state(&self) -> BusState {
        self.link.state()
    }
}
