//! Who may enter a room: the one verdict that handshakes get, and that a plain GET is told.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::HeaderMap;
use hubbub_api::{Access, OriginRefusal};

use crate::{
    bus::Bus,
    drain::{Drain, Phase},
    engine::{Arrival, Engine, Pass, Ticket, access, wall_clock},
    limits::{Limits, Places},
    memory::Memory,
    refusal::Refusal,
    room::{Policy, Room, Rooms},
    token::{Bearer, Carried},
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
    /// What else is limited at the door.
    pub limits: Arc<Limits>,
    /// How much memory is in use.
    pub memory: Arc<Memory>,
}

impl std::fmt::Debug for Entrance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entrance").field("pool", &self.pool).finish_non_exhaustive()
    }
}

impl Entrance {
    /// From where a request comes, as far as its peer can be believed.
    #[must_use]
    pub fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        self.limits.client(peer, headers)
    }

    /// Counts a request, before anything of it is looked at.
    ///
    /// # Errors
    ///
    /// When there are too many of them.
    pub fn knock(&self, client: IpAddr) -> Result<(), Refusal> {
        self.limits.knock(client)
    }

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

    /// Whether a handshake with these `Origin` headers and this token would be accepted by the room now, and with what the
    /// client would enter. The token comes last, because to look at it costs most.
    ///
    /// # Errors
    ///
    /// Why it would not.
    pub fn verdict<'a>(
        &self,
        room: &Room,
        origins: impl IntoIterator<Item = &'a [u8]>,
        carried: Carried<'_>,
    ) -> Result<Pass, Refusal> {
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
        if self.memory.is_short() {
            return Err(Refusal::MemoryShort);
        }
        if self.members(room) >= u64::from(policy.declared().limits.max_connections) {
            return Err(Refusal::RoomFull);
        }
        let (access, bearer) = self.standing(room, &policy, carried.token)?;
        Ok(Pass { origin, access, bearer, renews: carried.protocol, places: None })
    }

    /// What the bearer of this token may do in the room, and what the token says.
    fn standing(
        &self,
        room: &Room,
        policy: &Policy,
        token: Option<&str>,
    ) -> Result<(Access, Option<Arc<Bearer>>), Refusal> {
        let now = wall_clock();
        let verify = |(tokens, token)| self.engine.tokens().verify(tokens, token, now);
        let bearer = policy.tokens().zip(token).map(verify).transpose().map_err(Refusal::Token)?;
        match access(policy, room, bearer.as_deref(), now) {
            Ok(Access::None) => Err(Refusal::NotGranted),
            Ok(access) => Ok((access, bearer)),
            Err(Some(fault)) => Err(Refusal::Token(fault)),
            Err(None) => Err(Refusal::TokenMissing),
        }
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
        carried: Carried<'_>,
        arrival: Arrival,
    ) -> Result<Ticket, Refusal> {
        // Before its token is verified, which costs most.
        let address = self.limits.enter_by_address(arrival.peer.ip())?;
        let mut pass = self.verdict(room, origins, carried)?;
        let subject = self.limits.enter_by_subject(pass.bearer.as_deref())?;
        if address.is_some() || subject.is_some() {
            pass.places = Some(Box::new(Places { address, subject }));
        }
        let limit = u64::from(room.policy().declared().limits.max_connections);
        if !room.reserve(limit.saturating_sub(self.elsewhere.members(room))) {
            return Err(Refusal::RoomFull);
        }
        // From here on the ticket gives the place back, also when the client goes away while we wait.
        let ticket = self.engine.reserve(room, pass, arrival);
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
