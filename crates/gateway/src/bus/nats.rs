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
use nats::{Client, HeaderMap, Subject, client::PublishErrorKind};
use tokio::task::unconstrained;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Bus, BusState, PublishError, Sink};
use crate::{
    events::bus::{BusEvents, LostBecause},
    room::Room,
};

mod echo;
mod link;
mod options;
mod outbox;
mod subscriptions;
mod wire;

pub use options::{NatsOptions, NatsOptionsError};

use echo::{Echo, Keeper};
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
        let link = Arc::new(Link::new(Arc::clone(&outbox), Arc::clone(&events)));
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

    async fn confirm(&self, subscribed: &Subscribed) {
        subscribed.requested.wait().await;
        if !subscribed.confirmed.load(Ordering::Acquire) && self.echo.round_trip().await {
            subscribed.confirmed.store(true, Ordering::Release);
        }
    }
}

impl Bus for NatsBus {
    fn publish(&self, room: &Arc<Room>, kind: Kind, payload: &[u8]) -> Result<(), PublishError> {
        let Some(payload) = self.outbox.hold(payload) else {
            return Err(self.no_room());
        };
        let subject = Subject::from(room.subject().to_owned());
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
                self.events.lost(LostBecause::TooLarge, 1);
                let limit = self.client.try_server_info().map_or(0, |info| info.max_payload);
                Err(PublishError::TooLarge(limit))
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
        let flushed = tokio::time::timeout(limit, self.echo.round_trip());
        async move { flushed.await.unwrap_or(false) }.boxed()
    }

    fn state(&self) -> BusState {
        self.link.state()
    }
}
