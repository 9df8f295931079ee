//! What a member may do in its room, and for how long: by its origin, by its token, and by the policy in force.

use std::sync::Arc;

use hubbub_api::{Access, Origin};
use hubbub_websocket::LongTexts;

use super::{
    Ending,
    member::{Member, NEVER},
    shard::Shard,
};
use crate::{
    limits::{Places, SubjectPlace},
    room::{Policy, Room},
    token::{Bearer, MAX_TOKEN_BYTES, TokenFault},
};

/// What the first byte of a message is that is for the gateway and not for the room, on a connection with the subprotocol
/// [`PROTOCOL`](crate::token::PROTOCOL): a control character that no text begins with.
const CONTROL: u8 = 0x01;

/// The control message that brings a new token. It is not answered unless the token is refused: what the room says could look the same as
/// any answer.
const TOKEN: &str = "\u{1}token ";

/// Such messages are as long as tokens may be, and not as the room's messages may be.
pub(super) const RENEWALS: LongTexts =
    LongTexts { prefix: TOKEN, max_bytes: TOKEN.len() + MAX_TOKEN_BYTES };

/// With what somebody enters a room.
#[derive(Debug, Default)]
pub struct Pass {
    /// The origin of its page.
    pub origin: Option<Origin>,
    /// What it may do.
    pub access: Access,
    /// What its token says, if it brought one.
    pub bearer: Option<Arc<Bearer>>,
    /// Whether it may renew that over the connection.
    pub renews: bool,
    /// What it takes of the limits at the door.
    pub places: Option<Box<Places>>,
}

/// What a member gets with a new token.
struct Renewal {
    bearer: Arc<Bearer>,
    access: Access,
    /// Among the connections of the token's subject, if it had none there.
    place: Option<SubjectPlace>,
}

/// What became of a message for the gateway.
pub(super) enum Control {
    /// It is none.
    No,
    Taken,
    Closed,
}

/// Seconds since 1970, which tokens count by.
#[must_use]
pub fn wall_clock() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// What the policy allows somebody to do who brought this token, or none.
///
/// # Errors
///
/// Why the token is not good enough; none if one is asked for and there is none.
pub(crate) fn access(
    policy: &Policy,
    room: &Room,
    bearer: Option<&Bearer>,
    now: u64,
) -> Result<Access, Option<TokenFault>> {
    match (policy.tokens(), bearer) {
        (Some(tokens), Some(bearer)) => {
            tokens.check(bearer, now).map_err(Some)?;
            Ok(tokens.access(bearer, room.name()))
        }
        (Some(_), None) if policy.declared().auth.anonymous == Access::None => Err(None),
        // Without tokens in the policy, one that was brought is as good as none.
        _ => Ok(policy.declared().auth.anonymous),
    }
}

impl Shard {
    /// Why the member may not stay in its room as it is declared now, if it may not; otherwise what it may do there.
    pub(super) fn standing(&self, key: u32) -> Result<Access, Ending> {
        let member = &self.members[key as usize];
        let local = &self.rooms[member.room as usize];
        let policy = &local.policy;
        let revoked = match &member.origin {
            Some(origin) => !policy.origins().matches(origin),
            None => policy.declared().require_origin,
        };
        if local.room.is_gone() {
            return Err(Ending::RoomGone);
        }
        if revoked {
            return Err(Ending::OriginRevoked);
        }
        if policy.declared().pool != self.shared.pool {
            return Err(Ending::OtherPool);
        }
        match access(policy, &local.room, member.bearer.as_deref(), wall_clock()) {
            Ok(Access::None) => Err(Ending::TokenRefused),
            Ok(access) => Ok(access),
            Err(Some(TokenFault::Expired)) => Err(Ending::TokenExpired),
            Err(_) => Err(Ending::TokenRefused),
        }
    }

    /// Gives the member what it may do now, and the time at which its token ends.
    pub(super) fn give_standing(&mut self, key: u32, access: Access) {
        let member = &mut self.members[key as usize];
        let local = &self.rooms[member.room as usize];
        member.token_until = token_until(&local.policy, member.bearer.as_deref(), self.now);
        if member.access.reads() != access.reads() {
            self.change_list(key, access);
        }
        self.members[key as usize].access = access;
    }

    /// A message of a member that has agreed on the subprotocol: whether it is for the gateway.
    pub(super) fn control_message(&mut self, key: u32, payload: &[u8]) -> Control {
        if payload.first() != Some(&CONTROL) {
            return Control::No;
        }
        let token = std::str::from_utf8(payload).ok().and_then(|text| text.strip_prefix(TOKEN));
        let Some(token) = token else {
            self.close(key, Ending::UnknownControl);
            return Control::Closed;
        };
        match self.renewed(key, token) {
            Ok(Renewal { bearer, access, place }) => {
                let member = &mut self.members[key as usize];
                member.bearer = Some(bearer);
                if place.is_some() {
                    member.places.get_or_insert_default().subject = place;
                }
                self.give_standing(key, access);
                self.arm(key);
                Control::Taken
            }
            Err(ending) => {
                self.close(key, ending);
                Control::Closed
            }
        }
    }

    /// What a new token says, and what its bearer may do in the member's room.
    fn renewed(&self, key: u32, token: &str) -> Result<Renewal, Ending> {
        let member = &self.members[key as usize];
        let local = &self.rooms[member.room as usize];
        let now = wall_clock();
        let tokens = local.policy.tokens().ok_or(Ending::NoTokens)?;
        let bearer =
            self.shared.tokens.verify(tokens, token.trim(), now).map_err(Ending::BadToken)?;
        let same = |old: &Arc<Bearer>| {
            old.subject() == bearer.subject() && old.issuer() == bearer.issuer()
        };
        if !member.bearer.as_ref().is_none_or(same) {
            return Err(Ending::OtherSubject);
        }
        let access = tokens.access(&bearer, local.room.name());
        if access == Access::None {
            return Err(Ending::TokenRefused);
        }
        let place = match &member.bearer {
            // It is the same subject's, whose place it has.
            Some(_) => None,
            None => {
                let place = self.shared.limits.enter_by_subject(Some(&bearer));
                place.map_err(|_| Ending::SubjectFull)?
            }
        };
        Ok(Renewal { bearer, access, place })
    }
}

/// When the member's token ends on the shard's clock, which does not jump when that of the machine is set.
pub(super) fn token_until(policy: &Policy, bearer: Option<&Bearer>, now: u64) -> u64 {
    let (Some(tokens), Some(bearer)) = (policy.tokens(), bearer) else { return NEVER };
    let left = bearer.expires().saturating_add(tokens.leeway()).saturating_sub(wall_clock());
    now.saturating_add(left.saturating_mul(1000))
}

impl Member {
    /// Whether it may say this, by what it may do.
    pub(super) fn may_write(&self) -> bool {
        self.access.writes()
    }
}
