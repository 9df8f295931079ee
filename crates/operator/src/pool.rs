//! A pool of gateways, from what is seen of it to its objects: **observe → plan → apply**.
//!
//! A pool is there while a room names it; `default` always is. It is looked at every few seconds, because it scales with
//! what gateways report, and whenever one of its objects changes, so that whatever somebody edits or deletes comes back.

mod apply;
mod children;
mod insistence;
mod observe;
mod ownership;
mod plan;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{
    context::Context,
    error::{ReconcileError, in_words},
    reports::PERIOD,
    scaling::Scaler,
};

pub use children::{MANAGER, name, owned_by};

/// What is remembered of each pool between two looks.
#[derive(Debug, Default)]
pub struct Pools(Mutex<HashMap<String, Memory>>);

/// What is remembered of a pool.
#[derive(Debug, Clone, Default)]
struct Memory {
    scaler: Scaler,
    /// Gateways asked for last; none before the first look.
    replicas: Option<u32>,
    /// By kind.
    applied: HashMap<String, apply::Applied>,
    /// Repairs of late, by kind.
    repairs: HashMap<String, apply::Repairs>,
    /// What others add to every write, by kind.
    insistence: HashMap<String, insistence::Insistence>,
    fault: Option<String>,
}

impl Pools {
    /// What is wrong with the objects of a pool.
    #[must_use]
    pub fn fault(&self, pool: &str) -> Option<String> {
        let pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pools.get(pool).and_then(|memory| memory.fault.clone())
    }

    /// The names of pools that are remembered.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    fn get(&self, pool: &str) -> Memory {
        let pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pools.get(pool).cloned().unwrap_or_default()
    }

    fn keep(&self, pool: &str, memory: Memory) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(pool.to_owned(), memory);
    }

    fn forget(&self, pool: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(pool);
    }
}

/// Brings a pool to what its rooms ask for. Returns after how long to look again.
///
/// # Errors
///
/// What could not be done; everything is tried again.
pub async fn reconcile(context: &Context, pool: &str) -> Result<Option<Duration>, ReconcileError> {
    let mut memory = context.pools.get(pool);
    let observed = observe::Observed::of(context, pool, memory.replicas);
    let plan = plan::plan(&observed, &mut memory.scaler);
    let (wanted, actual) = (plan.replicas(), observed.gateways);
    let done = apply::apply(context, pool, plan, &mut memory).await;
    let fault = match &done {
        Ok(()) => observed.fault,
        Err(error) => Some(in_words(error)),
    };
    let changed = memory.fault != fault;
    memory.fault = fault;
    match wanted {
        Some(wanted) => {
            context.events.gateways(pool, wanted, actual);
            context.events.rollout(pool, observed.stuck.as_deref());
            context.pools.keep(pool, memory);
        }
        None => {
            context.pools.forget(pool);
            context.events.pool_gone(pool);
        }
    }
    if changed {
        context.look_at_rooms_of(pool);
    }
    done?;
    Ok(wanted.map(|_| PERIOD))
}
