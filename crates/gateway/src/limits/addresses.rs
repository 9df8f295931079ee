//! What each address has and asks for.
//!
//! An IPv6 address counts by its first 64 bits, because whoever has one of them has all (RFC 6177).

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::ADDRESS_BURST;
use crate::{bucket::Bucket, refusal::Refusal};

/// Addresses that are known before those are forgotten that have nothing and want nothing. Then so many as are left may come
/// once more before that is done again. One takes about a hundred bytes, and is kept for ten seconds.
const SWEEP_FROM: usize = 1024;

/// Sockets without a handshake that an address may have at once, however few connections it may have: browsers open some ahead.
const WAITING_ANYWAY: u32 = 16;

/// Bits of an IPv6 address that are one customer's to choose.
const OWN_BITS: u32 = 64;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Address(IpAddr);

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                Ipv6Addr::from_bits(address.to_bits() >> OWN_BITS << OWN_BITS).into()
            }
            address => address,
        })
    }
}

#[derive(Debug)]
struct Known {
    members: u32,
    waiting: u32,
    requests: Bucket,
}

#[derive(Debug)]
struct Table {
    known: HashMap<Address, Known>,
    sweep_at: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Addresses {
    requests: Option<NonZeroU32>,
    connections: Option<NonZeroU32>,
    table: Mutex<Table>,
}

impl Addresses {
    /// None if neither requests nor connections are limited.
    pub(super) fn new(
        requests: Option<NonZeroU32>,
        connections: Option<NonZeroU32>,
    ) -> Option<Self> {
        let limited = requests.is_some() || connections.is_some();
        let table = Table { known: HashMap::new(), sweep_at: SWEEP_FROM };
        limited.then(|| Self { requests, connections, table: Mutex::new(table) })
    }

    /// Counts a request; says whether the address may make it.
    pub(super) fn knock(&self, address: IpAddr, now: u64) -> bool {
        let Some(rate) = self.requests else { return true };
        let mut table = self.lock();
        let known = self.know(&mut table, address.into(), now);
        known.requests.try_take(rate.get(), self.burst(), now)
    }

    /// Counts a socket without a handshake, if they are counted. None if the address has as many as may wait.
    pub(super) fn wait(
        self: &Arc<Self>,
        address: IpAddr,
        now: u64,
    ) -> Option<Option<WaitingOfAddress>> {
        let Some(most) = self.connections else { return Some(None) };
        let address = address.into();
        let mut table = self.lock();
        let known = self.know(&mut table, address, now);
        if known.waiting >= most.get().max(WAITING_ANYWAY) {
            return None;
        }
        known.waiting += 1;
        Some(Some(WaitingOfAddress { addresses: Arc::clone(self), address }))
    }

    /// Takes a place; none if places are not counted.
    ///
    /// # Errors
    ///
    /// When the address has all that it may have.
    pub(super) fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        now: u64,
    ) -> Result<Option<AddressPlace>, Refusal> {
        let Some(most) = self.connections else { return Ok(None) };
        let address = address.into();
        let mut table = self.lock();
        let known = self.know(&mut table, address, now);
        if known.members >= most.get() {
            return Err(Refusal::AddressFull);
        }
        known.members += 1;
        Ok(Some(AddressPlace { addresses: Arc::clone(self), address }))
    }

    fn burst(&self) -> u32 {
        self.requests.map_or(0, |rate| rate.get().saturating_mul(ADDRESS_BURST))
    }

    fn know<'a>(&self, table: &'a mut Table, address: Address, now: u64) -> &'a mut Known {
        if table.known.len() >= table.sweep_at {
            let (rate, burst) = (self.requests.map_or(0, NonZeroU32::get), self.burst());
            table.known.retain(|_, known| {
                known.members > 0 || known.waiting > 0 || !known.requests.is_full(rate, burst, now)
            });
            table.sweep_at = SWEEP_FROM.max(table.known.len() * 2);
        }
        let fresh = || Known { members: 0, waiting: 0, requests: Bucket::full(self.burst(), now) };
        table.known.entry(address).or_insert_with(fresh)
    }

    fn give_back(&self, address: Address, part: fn(&mut Known) -> &mut u32) {
        if let Some(known) = self.lock().known.get_mut(&address) {
            let count = part(known);
            *count = count.saturating_sub(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place of a connection; dropped, it is given back.
#[derive(Debug)]
pub struct AddressPlace {
    addresses: Arc<Addresses>,
    address: Address,
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        self.addresses.give_back(self.address, |known| &mut known.members);
    }
}

/// A place of a socket without a handshake among those of its address; dropped, it is given back.
#[derive(Debug)]
pub(super) struct WaitingOfAddress {
    addresses: Arc<Addresses>,
    address: Address,
}

impl Drop for WaitingOfAddress {
    fn drop(&mut self) {
        self.addresses.give_back(self.address, |known| &mut known.waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(requests: u32, connections: u32) -> Arc<Addresses> {
        let limits = (NonZeroU32::new(requests), NonZeroU32::new(connections));
        Arc::new(Addresses::new(limits.0, limits.1).unwrap())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_given_back() {
        let addresses = addresses(0, 2);
        let one = addresses.enter(ip("192.0.2.1"), 0).unwrap();
        let two = addresses.enter(ip("::ffff:192.0.2.1"), 0).unwrap();
        assert!(addresses.enter(ip("192.0.2.1"), 0).is_err());
        assert!(addresses.enter(ip("192.0.2.2"), 0).is_ok());
        drop(one);
        let three = addresses.enter(ip("192.0.2.1"), 0).unwrap();
        assert!(addresses.enter(ip("192.0.2.1"), 0).is_err());
        drop((two, three));
        assert!(addresses.enter(ip("192.0.2.1"), 0).is_ok());
    }

    #[test]
    fn an_ipv6_customer_is_one_address() {
        let addresses = addresses(0, 1);
        let _one = addresses.enter(ip("2001:db8:0:1::1"), 0).unwrap();
        assert!(addresses.enter(ip("2001:db8:0:1:ffff:ffff:ffff:ffff"), 0).is_err());
        assert!(addresses.enter(ip("2001:db8:0:2::1"), 0).is_ok());
    }

    #[test]
    fn sockets_that_say_nothing_are_bounded_apart_from_connections() {
        let addresses = addresses(0, 20);
        let waiting: Vec<_> =
            (0..20).map(|_| addresses.wait(ip("192.0.2.1"), 0).unwrap()).collect();
        assert!(addresses.wait(ip("192.0.2.1"), 0).is_none());
        assert!(addresses.enter(ip("192.0.2.1"), 0).is_ok());
        drop(waiting);
        assert!(addresses.wait(ip("192.0.2.1"), 0).is_some());
    }

    #[test]
    fn addresses_that_want_nothing_more_are_forgotten() {
        let addresses = addresses(1, 5);
        let stays = addresses.enter(ip("192.0.2.1"), 0).unwrap();
        let mut now = 0;
        for n in 0..100_000_u32 {
            now = u64::from(n); // a thousand a second
            assert!(addresses.knock(IpAddr::from((n | 1 << 31).to_be_bytes()), now));
        }
        let known = addresses.lock().known.len();
        assert!(known < 40_000, "{known} are known, and ten seconds' worth are 10,000");
        assert!(addresses.lock().known.contains_key(&ip("192.0.2.1").into()));
        drop(stays);
        for n in 0..100_u32 {
            now += 20_000;
            assert!(addresses.knock(IpAddr::from(n.to_be_bytes()), now));
        }
    }
}
