//! Limits at the door: what one address, the subject of one token, and all together may ask of this gateway.
//!
//! All are off unless they are asked for: behind a proxy that is not [trusted](LimitOptions::trusted_proxies) all clients have
//! one address. What costs least is asked first: a request is counted before anything of it is looked at, and a token
//! verified last.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use http::HeaderMap;
use ipnet::IpNet;

use crate::{bucket::Bucket, refusal::Refusal, token::Bearer};

mod addresses;
mod forwarded;
mod subjects;

pub use addresses::AddressPlace;
use addresses::Addresses;
use addresses::WaitingOfAddress;
pub use subjects::SubjectPlace;
use subjects::Subjects;

/// Requests that one address may send at once, in seconds of its rate: a page, its question and its handshake are three.
const ADDRESS_BURST: u32 = 10;

/// What is limited; none for no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitOptions {
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Handshakes, and questions about rooms, in a second, from everybody; as many at once.
    pub requests_per_second: Option<NonZeroU32>,
    /// The same from one address; ten times as many at once.
    pub requests_per_address: Option<NonZeroU32>,
    /// Connections of one address.
    pub connections_per_address: Option<NonZeroU32>,
    /// Connections of one subject of one issuer of tokens.
    pub connections_per_subject: Option<NonZeroU32>,
}

/// A place of a socket without a handshake; dropped, it is given back.
#[derive(Debug)]
pub struct WaitingPlace {
    all: Option<Arc<AtomicUsize>>,
    _of_address: Option<WaitingOfAddress>,
}

impl WaitingPlace {
    /// One where nobody counts.
    pub(crate) fn uncounted() -> Self {
        Self { all: None, _of_address: None }
    }

    fn taken(all: Arc<AtomicUsize>, of_address: Option<WaitingOfAddress>) -> Self {
        all.fetch_add(1, Ordering::AcqRel);
        Self { all: Some(all), _of_address: of_address }
    }
}

impl Drop for WaitingPlace {
    fn drop(&mut self) {
        if let Some(all) = &self.all {
            all.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// What a connection takes of the limits, until it ends.
#[derive(Debug, Default)]
pub struct Places {
    /// Of its address.
    pub address: Option<AddressPlace>,
    /// Of its token's subject.
    pub subject: Option<SubjectPlace>,
}

/// Why a socket is ended as soon as it was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketRefusal {
    /// Its address has too many without a handshake.
    Address,
    /// This gateway has as many sockets as its limit of open files carries.
    OpenFiles,
}

impl SocketRefusal {
    /// All, for metrics that read 0 from the start.
    pub(crate) const ALL: [Self; 2] = [Self::Address, Self::OpenFiles];

    /// A stable name, for metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::OpenFiles => "open_files",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Limits {
    options: LimitOptions,
    /// Sockets that there may be, those of members included.
    sockets: usize,
    /// Those without a handshake.
    waiting: Arc<AtomicUsize>,
    begun: Instant,
    gateway: Mutex<Bucket>,
    addresses: Option<Arc<Addresses>>,
    subjects: Option<Arc<Subjects>>,
}

impl Limits {
    /// Limits of which nothing is used yet; `sockets` is how many there may be at the public listener, those of members included.
    #[must_use]
    pub fn new(options: LimitOptions, sockets: usize) -> Self {
        let burst = options.requests_per_second.map_or(0, NonZeroU32::get);
        let addresses =
            Addresses::new(options.requests_per_address, options.connections_per_address);
        Self {
            sockets,
            waiting: Arc::default(),
            begun: Instant::now(),
            gateway: Mutex::new(Bucket::full(burst, 0)),
            addresses: addresses.map(Arc::new),
            subjects: options.connections_per_subject.map(|most| Arc::new(Subjects::new(most))),
            options,
        }
    }

    /// From where a request comes: its peer, or what a trusted proxy says of it, then without a port.
    #[must_use]
    pub fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        if !self.trusts(peer.ip()) {
            return peer;
        }
        match forwarded::client(headers, |proxy| self.trusts(proxy)) {
            Some(client) => SocketAddr::new(client, 0),
            None => peer,
        }
    }

    /// Counts a request, before anything of it is looked at.
    ///
    /// # Errors
    ///
    /// When there are too many of them.
    pub fn knock(&self, client: IpAddr) -> Result<(), Refusal> {
        if let Some(addresses) = &self.addresses
            && !addresses.knock(client, self.now())
        {
            return Err(Refusal::AddressRate);
        }
        let Some(rate) = self.options.requests_per_second else { return Ok(()) };
        let mut gateway = self.gateway.lock().unwrap_or_else(PoisonError::into_inner);
        if gateway.try_take(rate.get(), rate.get(), self.now()) {
            Ok(())
        } else {
            Err(Refusal::GatewayRate)
        }
    }

    /// Counts a socket that has just been accepted, until it is a member's or ends, beside those of so many members. One whose
    /// handshake is just being answered may be among both for that moment. Those of a proxy are not counted by address: they
    /// are many clients'.
    ///
    /// # Errors
    ///
    /// Why it must be ended.
    pub fn wait_at_door(
        &self,
        peer: IpAddr,
        members: usize,
    ) -> Result<WaitingPlace, SocketRefusal> {
        let waiting = self.waiting.load(Ordering::Acquire);
        if waiting.saturating_add(members) >= self.sockets {
            return Err(SocketRefusal::OpenFiles);
        }
        let of_address = match &self.addresses {
            Some(addresses) if !self.trusts(peer) => {
                addresses.wait(peer, self.now()).ok_or(SocketRefusal::Address)?
            }
            _ => None,
        };
        Ok(WaitingPlace::taken(Arc::clone(&self.waiting), of_address))
    }

    /// Takes a place among the connections of an address.
    ///
    /// # Errors
    ///
    /// When it has all that it may have.
    pub fn enter_by_address(&self, client: IpAddr) -> Result<Option<AddressPlace>, Refusal> {
        match &self.addresses {
            Some(addresses) => addresses.enter(client, self.now()),
            None => Ok(None),
        }
    }

    /// Takes a place among the connections of a token's subject. Who has no token, or one without a subject, is not counted here.
    ///
    /// # Errors
    ///
    /// When it has all that it may have.
    pub fn enter_by_subject(
        &self,
        bearer: Option<&Bearer>,
    ) -> Result<Option<SubjectPlace>, Refusal> {
        let Some((subjects, bearer)) = self.subjects.as_ref().zip(bearer) else { return Ok(None) };
        match bearer.subject() {
            Some(subject) => match subjects.enter(bearer.issuer(), subject) {
                Some(place) => Ok(Some(place)),
                None => Err(Refusal::SubjectFull),
            },
            None => Ok(None),
        }
    }

    fn trusts(&self, peer: IpAddr) -> bool {
        self.options.trusted_proxies.iter().any(|net| net.contains(&peer))
    }

    /// Milliseconds of the buckets' clock.
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn limits(change: impl FnOnce(&mut LimitOptions)) -> Limits {
        let mut options = LimitOptions::default();
        change(&mut options);
        Limits::new(options, usize::MAX)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn nothing_is_limited_unless_it_is_asked_for() {
        let limits = limits(|_| {});
        for _ in 0..10_000 {
            assert_eq!(limits.knock(ip("192.0.2.1")), Ok(()));
            assert!(limits.enter_by_address(ip("192.0.2.1")).unwrap().is_none());
            assert!(limits.wait_at_door(ip("192.0.2.1"), 1_000_000).is_ok());
        }
    }

    #[test]
    fn one_address_is_held_back_before_it_uses_up_the_rate_of_all() {
        let limits = limits(|options| {
            options.requests_per_second = NonZeroU32::new(100);
            options.requests_per_address = NonZeroU32::new(1);
        });
        let mut passed = 0;
        for _ in 0..1000 {
            passed += u32::from(limits.knock(ip("192.0.2.1")).is_ok());
        }
        assert!((10..=20).contains(&passed), "{passed}");
        assert_eq!(limits.knock(ip("192.0.2.1")), Err(Refusal::AddressRate));
        assert_eq!(limits.knock(ip("192.0.2.2")), Ok(()));
    }

    #[test]
    fn all_together_are_held_to_the_rate_of_the_gateway() {
        let limits = limits(|options| options.requests_per_second = NonZeroU32::new(50));
        let outcomes: Vec<_> =
            (0..1000_u32).map(|n| limits.knock(IpAddr::from((n + 1).to_be_bytes()))).collect();
        assert!(outcomes.iter().filter(|outcome| outcome.is_ok()).count() < 500);
        assert!(outcomes.contains(&Err(Refusal::GatewayRate)));
    }

    #[test]
    fn sockets_that_say_nothing_leave_files_for_what_is_no_socket() {
        let limits = Limits::new(LimitOptions::default(), 5);
        let mut waiting: Vec<_> =
            (0..3).map(|_| limits.wait_at_door(ip("192.0.2.1"), 2).unwrap()).collect();
        let refused = limits.wait_at_door(ip("192.0.2.2"), 2);
        assert_eq!(refused.unwrap_err(), SocketRefusal::OpenFiles);
        waiting.pop();
        assert!(limits.wait_at_door(ip("192.0.2.2"), 2).is_ok());
        assert!(limits.wait_at_door(ip("192.0.2.2"), 3).is_err(), "a member needs one, too");
    }

    #[test]
    fn what_a_stranger_says_of_its_address_is_not_believed() {
        let limits =
            limits(|options| options.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()]);
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("198.51.100.7, 10.1.1.1"));
        let stranger = "192.0.2.1:5000".parse().unwrap();
        assert_eq!(limits.client(stranger, &headers), stranger);
        let proxy = "10.2.3.4:5000".parse().unwrap();
        assert_eq!(limits.client(proxy, &headers), "198.51.100.7:0".parse().unwrap());
        assert_eq!(limits.client(proxy, &HeaderMap::new()), proxy, "a probe of the proxy's own");
    }
}
