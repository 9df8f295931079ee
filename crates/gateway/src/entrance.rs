//! Who may enter a room: the one verdict that handshakes get, and that a plain GET is told.

use std::sync::Arc;

use hubbub_api::{Origin, OriginRefusal};

use crate::{
    bus::Bus,
    drain::{Drain, Phase},
    engine::{Arrival, Engine, Ticket},
    refusal::Refusal,
    room::{Room, Rooms},
};

/// Members of a room on the other gateways, as far as their reports tell.
pub trait Elsewhere: Send + Sync + 'static {
    /// Members of this room on other gateways.
    fn members(&self, room: &Room) -> u64;
}

/// No other gateway.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Elsewhere for Alone {
    fn members(&self, _room: &Room) -> u64 {
        0
    }
}

/// See the module.
pub struct Entrance {
    /// All rooms.
    pub rooms: Arc<Rooms>,
    /// Where members go.
    pub engine: Arc<Engine>,
    /// What carries their messages.
    pub bus: Arc<dyn Bus>,
    /// Members on other gateways.
    pub elsewhere: Arc<dyn Elsewhere>,
    /// Whether the gateway is on its way out.
    pub drain: Arc<Drain>,
    /// The pool that this gateway belongs to.
    pub pool: String,
    /// Connections that this gateway may have.
    pub max_connections: usize,
}

impl std::fmt::Debug for Entrance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entrance").field("pool", &self.pool).finish_non_exhaustive()
    }
}

impl Entrance {
    /// The room of that `namespace/name`, if it is served here. Cheap questions come first.
    ///
    /// # Errors
    ///
    /// Why it is not.
    pub fn room(&self, name: &str) -> Result<Arc<Room>, Refusal> {
        let Some(room) = self.rooms.get(name) else {
            return Err(if self.rooms.is_loaded() {
                Refusal::NoSuchRoom
            } else {
                Refusal::NotReady
            });
        };
        let policy = room.policy();
        if policy.declared().pool != self.pool {
            return Err(Refusal::OtherPool { pool: policy.declared().pool.clone() });
        }
        Ok(room)
    }

    /// Whether a handshake with these `Origin` headers would be accepted by the room now; the origin if so.
    ///
    /// # Errors
    ///
    /// Why it would not.
    pub fn verdict<'a>(
        &self,
        room: &Room,
        origins: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Option<Origin>, Refusal> {
        if matches!(self.drain.phase(), Phase::Closing | Phase::Done) {
            return Err(Refusal::Draining);
        }
        let policy = room.policy();
        let origin = policy
            .origins()
            .admit(origins, policy.declared().require_origin)
            .map_err(|refusal: OriginRefusal| Refusal::Origin(refusal))?;
        if self.engine.connections() >= self.max_connections {
            return Err(Refusal::GatewayFull);
        }
        if self.members(room) >= u64::from(policy.declared().limits.max_connections) {
            return Err(Refusal::RoomFull);
        }
        Ok(origin)
    }

    /// Lets a client into the room: takes its place, and sees to it that the room's messages come here.
    ///
    /// # Errors
    ///
    /// Why it may not enter.
    pub async fn enter<'a>(
        &self,
        room: &Arc<Room>,
        origins: impl IntoIterator<Item = &'a [u8]>,
        arrival: Arrival,
    ) -> Result<Ticket, Refusal> {
        let origin = self.verdict(room, origins)?;
        let limit = u64::from(room.policy().declared().limits.max_connections);
        if !room.reserve(limit.saturating_sub(self.elsewhere.members(room))) {
            return Err(Refusal::RoomFull);
        }
        // From here on the ticket gives the place back, also when the client goes away while we wait.
        let ticket = self.engine.reserve(room, origin, arrival);
        self.bus.join(room).await;
        if room.is_gone() {
            return Err(Refusal::NoSuchRoom);
        }
        Ok(ticket)
    }

    /// Members of the room on all gateways.
    #[must_use]
    pub fn members(&self, room: &Room) -> u64 {
        u64::from(room.members()) + self.elsewhere.members(room)
    }
}
