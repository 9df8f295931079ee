//! Round trips to NATS: this gateway sends to a subject that only it hears, and what comes back proves that NATS has
//! read everything sent before on the same connection. (The client's own flush only proves that it was written.)
//!
//! One task keeps the echo; requests that come together share one round trip. The same task confirms what was
//! published, four times a second while there is something to confirm, and looks after the link's state.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, StreamExt as _};
use hubbub_api::names::SUBJECT_ECHO_PREFIX;
use nats::{Client, Subject, Subscriber};
use tokio::{
    sync::{Notify, oneshot},
    time::{Interval, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{link::Link, outbox::Outbox};
use crate::events::bus::BusEvents;

/// How often the client's state is looked at, and what was published is confirmed. What a broken connection may have
/// cost is known to so much.
const LOOK: Duration = Duration::from_millis(250);

/// When a full queue is tried again.
const RETRY: Duration = Duration::from_millis(2);

/// Asks for round trips.
#[derive(Debug, Default)]
pub(super) struct Echo {
    waiting: Mutex<Vec<oneshot::Sender<()>>>,
    asked: Notify,
}

impl Echo {
    /// Waits until NATS has read everything that was handed to the client before this call. Does not resolve while
    /// NATS is away; the caller sets its own limit. False when the bus ends.
    pub(super) async fn round_trip(&self) -> bool {
        let (done, wait) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(done);
        self.asked.notify_one();
        wait.await.is_ok()
    }

    /// Whether anybody still waits; forgets who has given up, so that a long outage gathers nothing.
    fn is_asked(&self) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|waiter| !waiter.is_closed());
        !waiting.is_empty()
    }

    fn take(&self) -> Vec<oneshot::Sender<()>> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put_back(&self, waiters: Vec<oneshot::Sender<()>>) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).extend(waiters);
    }
}

/// One echo under way.
struct Sent {
    number: u64,
    at: Instant,
    mark: u64,
    waiters: Vec<oneshot::Sender<()>>,
}

/// Keeps the echo. Runs until `stop`.
pub(super) struct Keeper {
    pub(super) client: Client,
    pub(super) echo: Arc<Echo>,
    pub(super) link: Arc<Link>,
    /// Which of the gateway's connections.
    pub(super) connection: usize,
    pub(super) outbox: Arc<Outbox>,
    pub(super) events: Arc<BusEvents>,
    pub(super) stop: CancellationToken,
}

impl Keeper {
    pub(super) async fn run(self) {
        let inbox = self.client.new_inbox();
        let token = inbox.rsplit('.').next().unwrap_or_default();
        let subject = Subject::from(format!("{SUBJECT_ECHO_PREFIX}{token}"));
        let subscribed = tokio::select! {
            () = self.stop.cancelled() => return,
            subscribed = self.client.subscribe(subject.clone()) => subscribed,
        };
        // It fails only when the client has ended.
        let Ok(mut echoes) = subscribed else { return };
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.serve(&subject, &mut echoes, &mut look).await;
    }

    async fn serve(&self, subject: &Subject, echoes: &mut Subscriber, look: &mut Interval) {
        let mut under_way: VecDeque<Sent> = VecDeque::new();
        let mut number: u64 = 0;
        let mut full = false;
        loop {
            let mut send = false;
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.echo.asked.notified(), if !full => send = true,
                () = sleep(RETRY), if full => send = true,
                echoed = echoes.next() => {
                    let Some(echoed) = echoed else { return };
                    if let Ok(bytes) = <[u8; 8]>::try_from(&echoed.payload[..]) {
                        self.echoed(u64::from_be_bytes(bytes), &mut under_way);
                    }
                }
                _ = look.tick() => {
                    self.link.reconcile(self.connection, &self.client.connection_state());
                    // Who asked while NATS was away waits for its return.
                    send = self.echo.is_asked() || self.outbox.has_unconfirmed();
                }
            }
            if !self.link.is_standing(self.connection) {
                full = false;
                continue;
            }
            if !send {
                continue;
            }
            number += 1;
            let (mark, waiters) = (self.outbox.mark(), self.echo.take());
            let sent = Sent { number, at: Instant::now(), mark, waiters };
            let payload = number.to_be_bytes().to_vec().into();
            match self.client.publish(subject.clone(), payload).now_or_never() {
                Some(Ok(())) => {
                    full = false;
                    under_way.push_back(sent);
                }
                Some(Err(_)) => return,
                None => {
                    full = true;
                    self.echo.put_back(sent.waiters);
                }
            }
        }
    }

    /// An echo came back; those sent before it are answered with it, should they have been lost with a connection.
    fn echoed(&self, number: u64, under_way: &mut VecDeque<Sent>) {
        while under_way.front().is_some_and(|sent| sent.number <= number)
            && let Some(sent) = under_way.pop_front()
        {
            self.outbox.confirm(sent.mark);
            if sent.number == number {
                self.events.came_back(sent.at.elapsed());
            }
            for waiter in sent.waiters {
                // Who has given up waiting does not mind.
                let _ = waiter.send(());
            }
        }
    }
}
