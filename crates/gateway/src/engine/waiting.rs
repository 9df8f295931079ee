//! How a shard waits: it gives its thread to the tokio runtime there, which runs the bus's connection of this shard.
//!
//! The shard's epoll instance is one of the descriptors that the runtime watches. So there is one sleep for members,
//! bus, inbox and timers, and a message passes between them without waking another thread.

use std::{io, time::Duration};

use mio::{Events, Poll};
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Runtime,
    task::yield_now,
    time::sleep,
};

use super::shard::{EVENTS_AT_ONCE, Shard};

impl Shard {
    /// Gives the thread to the runtime until there is something to do here, and takes the sockets' events.
    pub(super) async fn wait(&mut self, events: &mut Events) {
        let busy = !self.unread.is_empty() || self.more_events || self.has_to_write();
        let idle = !busy && self.inbox.may_sleep();
        if idle {
            let paced = self.next_write().map(|at| at.saturating_sub(self.now));
            let timer = self.wheel.wait(self.now);
            let wait = paced.into_iter().chain(timer).min().map(Duration::from_millis);
            tokio::select! {
                biased;
                _ = self.poll.readable() => {}
                () = self.inbox.pushed() => {}
                () = sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        } else {
            yield_now().await; // the runtime's other tasks have their turn
        }
        events.clear();
        // Only asks the system if the runtime has seen the epoll instance become ready.
        let looked = self.poll.try_io_mut(Interest::READABLE, |poll| {
            poll.poll(events, Some(Duration::ZERO))?;
            if events.iter().count() < EVENTS_AT_ONCE {
                return Err(io::ErrorKind::WouldBlock.into()); // that was all: wait for the next edge
            }
            Ok(())
        });
        self.more_events = looked.is_ok();
        if let Err(error) = looked
            && error.kind() != io::ErrorKind::WouldBlock
            && error.kind() != io::ErrorKind::Interrupted
        {
            self.shared.events.poll_failed(&error);
        }
        self.inbox.woke();
    }
}

/// An epoll instance as one more descriptor that the runtime watches: it is readable when it has events.
pub(super) fn watched(poll: Poll, runtime: &Runtime) -> io::Result<AsyncFd<Poll>> {
    let _context = runtime.enter();
    #[expect(
        deprecated,
        reason = "its successor is unsafe, for types whose descriptor may change or close; mio's does neither while it lives"
    )]
    AsyncFd::with_interest(poll, Interest::READABLE)
}
