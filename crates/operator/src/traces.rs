//! The span of each look at a room or a pool.

use std::{cell::Cell, future::Future};

use hubbub_telemetry::{Kind, OpenSpan, Traces, names};

use crate::{context::Key, error::ReconcileError};

tokio::task_local! {
    /// What the look under way has written.
    static WRITES: Cell<u64>;
}

/// Something was written, by the look that this is called in if there is one.
pub(crate) fn wrote() {
    let _ = WRITES.try_with(|writes| writes.set(writes.get() + 1));
}

/// Takes a look, in a trace of its own if looks are traced. `generation` is that of the room as it is looked at.
pub(crate) async fn look<T>(
    traces: &Traces,
    key: &Key,
    generation: impl FnOnce() -> Option<i64>,
    look: impl Future<Output = Result<T, ReconcileError>>,
) -> Result<T, ReconcileError> {
    if !traces.is_on() {
        return look.await;
    }
    let span = OpenSpan::begin(names::span::RECONCILE, Kind::Internal);
    match key {
        Key::Room(room) => span.set(names::ROOM, room.path()),
        Key::Pool(pool) => span.set(names::POOL, pool.clone()),
    }
    if let Some(generation) = generation() {
        span.set(names::GENERATION, generation);
    }
    let (done, writes) = WRITES
        .scope(Cell::new(0), async {
            let done = look.await;
            (done, WRITES.with(Cell::get))
        })
        .await;
    span.count(names::WRITES, writes);
    let error = done.as_ref().err();
    span.set(names::OUTCOME, error.map_or("done", ReconcileError::reason));
    if let Some(error) = error.filter(|error| !error.is_race()) {
        span.fail(error.reason());
    }
    done
}
