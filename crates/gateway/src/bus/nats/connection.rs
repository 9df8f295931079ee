//! One connection of the bus to NATS, with what belongs to it alone: its client, the rooms it is subscribed to, its echo,
//! and the count of what was written to it. Its tasks run where the members of its rooms are served, so that a message
//! needs no other thread on its way from the network to them, nor on its way out.

use std::sync::{Arc, atomic::Ordering};

use futures_util::future::ready;
use nats::Client;
use tokio::runtime::Handle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    NatsBusError, NatsOptions, Sink,
    echo::{Echo, Keeper},
    link::Link,
    outbox::Outbox,
    subscriptions::{Subscribed, Subscriptions},
};
use crate::events::bus::BusEvents;

/// See the module.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) echo: Arc<Echo>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) subscriptions: Arc<Subscriptions>,
}

/// What a connection is made from.
pub(super) struct Plan {
    /// Which of the gateway's connections this is.
    pub(super) index: usize,
    pub(super) options: NatsOptions,
    pub(super) echo: Arc<Echo>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) link: Arc<Link>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) events: Arc<BusEvents>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl Plan {
    /// Begins to connect; everything of the connection runs in this runtime. Returns before the connection stands.
    pub(super) async fn connect_in(self, runtime: &Handle) -> Result<Connection, NatsBusError> {
        runtime.spawn(self.connect()).await?
    }

    async fn connect(self) -> Result<Connection, NatsBusError> {
        let Self { index, options, echo, outbox, link, sink, events, tasks, stop } = self;
        let (servers, options) = options.prepare()?;
        let (on_event, on_try) = (Arc::clone(&link), Arc::clone(&link));
        let client = options
            .event_callback(move |event| {
                on_event.event(index, &event);
                ready(())
            })
            .reconnect_to_server_callback(move |servers, _| {
                on_try.tried(&servers);
                // The client's own choice is right.
                ready(None)
            })
            .connect(servers)
            .await?;
        let keeper = Keeper {
            client: client.clone(),
            echo: Arc::clone(&echo),
            link,
            connection: index,
            outbox: Arc::clone(&outbox),
            events: Arc::clone(&events),
            stop: stop.clone(),
        };
        let subscriptions =
            Arc::new(Subscriptions::new(client.clone(), sink, events, tasks.clone(), stop.clone()));
        let ending = Arc::clone(&subscriptions);
        tasks.spawn(async move {
            keeper.run().await;
            stop.cancelled().await;
            ending.end();
        });
        Ok(Connection { client, echo, outbox, subscriptions })
    }
}

impl Connection {
    /// Waits until NATS is known to have a room's subscription.
    pub(super) async fn confirm(&self, subscribed: &Subscribed) {
        subscribed.requested.wait().await;
        if !subscribed.confirmed.load(Ordering::Acquire) && self.echo.round_trip().await {
            subscribed.confirmed.store(true, Ordering::Release);
        }
    }
}
