//! What members say while NATS is away. It is kept here, and not by the NATS client, which would send it the moment
//! its own connection stands: here it waits until the other gateways are heard again, too.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hubbub_telemetry::SpanRef;
use hubbub_websocket::Kind;
use nats::Subject;
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{connection::Connection, link::Link, roll_call::RollCall, wire};
use crate::events::bus::{BusEvents, LostBecause};

/// Messages that may wait; their bytes have a bound of their own, in [`Outbox`](super::outbox::Outbox).
const MAX_MESSAGES: usize = 2_048;

/// How long the others are awaited. A gateway tries to connect at least once a second, so who has not come by then is
/// more likely gone than late.
const ROLL_CALL_LIMIT: Duration = Duration::from_secs(2);

/// A message on its way to NATS.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// By which of the gateway's connections.
    pub(super) connection: usize,
    pub(super) subject: Subject,
    pub(super) kind: Kind,
    pub(super) payload: Bytes,
    /// The span of its publishing, if it is traced.
    pub(super) span: Option<SpanRef>,
}

/// What became of a message that was offered.
#[derive(Debug)]
pub(super) enum Offered {
    /// It waits here.
    Held,
    /// No more may wait.
    Full,
    /// Nothing waits: it may go to NATS itself.
    Open(Outgoing),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Hold {
    closed: AtomicBool,
    waiting: Mutex<VecDeque<Outgoing>>,
    opened: Notify,
}

impl Default for Hold {
    fn default() -> Self {
        Self { closed: AtomicBool::new(true), waiting: Mutex::default(), opened: Notify::new() }
    }
}

impl Hold {
    /// A connection is away.
    pub(super) fn close(&self) {
        let _waiting = self.lock();
        self.closed.store(true, Ordering::Release);
    }

    /// Takes a message if messages have to wait, behind those that do.
    pub(super) fn offer(&self, message: Outgoing) -> Offered {
        if !self.is_closed() {
            return Offered::Open(message);
        }
        let mut waiting = self.lock();
        // Opened in the meantime, so nothing waits before this one.
        if !self.is_closed() {
            return Offered::Open(message);
        }
        if waiting.len() >= MAX_MESSAGES {
            return Offered::Full;
        }
        waiting.push_back(message);
        Offered::Held
    }

    /// The first that waits. When nothing waits any more, messages go to NATS themselves from now on.
    fn next(&self) -> Option<Outgoing> {
        let mut waiting = self.lock();
        let next = waiting.pop_front();
        if next.is_none() {
            *waiting = VecDeque::new();
            self.closed.store(false, Ordering::Release);
            self.opened.notify_waiters();
        }
        next
    }

    /// Whether messages have to wait.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// How many messages wait for that connection.
    pub(super) fn waiting_for(&self, connection: usize) -> usize {
        self.lock().iter().filter(|waiting| waiting.connection == connection).count()
    }

    /// Waits until nothing is held back.
    pub(super) async fn opened(&self) {
        let opened = self.opened.notified();
        if self.is_closed() {
            opened.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Outgoing>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends what was held, whenever NATS is back.
pub(super) struct Release {
    pub(super) connections: Arc<[Connection]>,
    pub(super) hold: Arc<Hold>,
    pub(super) link: Arc<Link>,
    pub(super) roll_call: Arc<RollCall>,
    pub(super) events: Arc<BusEvents>,
    pub(super) stop: CancellationToken,
}

impl Release {
    pub(super) async fn run(self) {
        let stop = self.stop.clone();
        // What is still held then is lost with the gateway; its drain has waited for it before.
        stop.run_until_cancelled(async {
            loop {
                self.link.stands().await;
                tokio::select! {
                    () = self.link.broken() => continue,
                    proven = self.roll_call.proven() => if !proven { return },
                }
                self.roll_call.begin();
                tokio::select! {
                    () = self.roll_call.complete() => {}
                    () = sleep(ROLL_CALL_LIMIT) => self.events.unheard(self.roll_call.missing()),
                    () = self.link.broken() => continue,
                }
                self.send_all().await;
                self.link.broken().await;
            }
        })
        .await;
    }

    async fn send_all(&self) {
        while self.link.is_connected()
            && let Some(Outgoing { connection, subject, kind, payload, span }) = self.hold.next()
            && let Some(Connection { client, outbox, .. }) = self.connections.get(connection)
        {
            let most = client.try_server_info().map_or(0, |info| info.max_payload);
            let span = wire::affordable(span, payload.len(), most);
            let sent = match wire::headers(kind, span) {
                None => client.publish(subject, payload).await,
                Some(headers) => client.publish_with_headers(subject, headers, payload).await,
            };
            match sent {
                Ok(()) => {
                    outbox.published();
                    self.events.published();
                }
                // NATS may have come back with a smaller limit.
                Err(_) => self.events.lost(LostBecause::TooLarge, 1),
            }
        }
    }
}
