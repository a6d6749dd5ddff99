//! Who is let in: how many connections there may be, in all and from one address.
//!
//! Those who are silent must not keep others out: where there is no room, the connection that is without
//! authorization for the longest time is given up.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::observe::log;
use crate::observe::rate::{Rate, more};
use crate::server::service::Bounds;

/// Lines about refused connections: so many in this time.
const LOG_RATE: (u32, Duration) = (30, Duration::from_secs(10));

/// The ledger of connections, which have numbers of the caller's.
#[derive(Debug)]
pub(crate) struct Admission {
    per_address: HashMap<IpAddr, usize>,
    /// Connections in the order of their arrival, for as long as they may be without authorization.
    arrivals: VecDeque<u64>,
    refusals: Rate,
}

impl Admission {
    pub(crate) fn new() -> Self {
        let refusals = Rate::new(LOG_RATE.0, LOG_RATE.1);
        Self { per_address: HashMap::new(), arrivals: VecDeque::new(), refusals }
    }

    /// Whether `peer` may come in where there are `present` connections. `evict` gives up the connection
    /// with this number if it is without authorization, and says whether it was; the caller then has it
    /// leave.
    pub(crate) fn admits(
        &mut self,
        peer: SocketAddr,
        present: usize,
        bounds: Bounds,
        now: Instant,
        mut evict: impl FnMut(u64) -> bool,
    ) -> bool {
        let from_there = self.per_address.get(&site(peer.ip())).copied().unwrap_or(0);
        if from_there >= bounds.per_address {
            self.refuse(peer, "connection-max-per-address", bounds.per_address, now);
            return false;
        }
        if present < bounds.connections {
            return true;
        }
        while let Some(oldest) = self.arrivals.pop_front() {
            if evict(oldest) {
                return true;
            }
        }
        self.refuse(peer, "connection-max", bounds.connections, now);
        false
    }

    pub(crate) fn enter(&mut self, peer: SocketAddr, number: u64) {
        self.arrivals.push_back(number);
        *self.per_address.entry(site(peer.ip())).or_default() += 1;
    }

    /// Strikes a connection of `peer` out.
    pub(crate) fn leave(&mut self, peer: SocketAddr) {
        let site = site(peer.ip());
        if let Some(count) = self.per_address.get_mut(&site) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&site);
            }
        }
    }

    /// Forgets those at the front that cannot be given up any more; the others when their turn comes.
    pub(crate) fn tidy(&mut self, mut is_unproven: impl FnMut(u64) -> bool) {
        while self.arrivals.front().is_some_and(|&number| !is_unproven(number)) {
            self.arrivals.pop_front();
        }
    }

    fn refuse(&mut self, peer: SocketAddr, option: &str, limit: usize, now: Instant) {
        if let Some(held_back) = self.refusals.pass(now) {
            log::warn(format_args!(
                "client at {peer}: connection refused: {option}={limit} is reached{}",
                more(held_back)
            ));
        }
    }
}

/// What counts as one address: an IPv6 host has as many as it likes in its own network.
pub(crate) fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(site(address("2001:db8::1")), site(address("2001:db8::ffff")));
        assert_ne!(site(address("2001:db8::1")), site(address("2001:db8:0:1::1")));
        assert_ne!(site(address("192.0.2.1")), site(address("192.0.2.2")));
        assert_eq!(site(address("::ffff:192.0.2.1")), address("192.0.2.1"));
    }

    #[test]
    fn the_oldest_that_is_silent_makes_room_and_those_who_speak_do_not() {
        let mut admission = Admission::new();
        let peer = |host: u8| SocketAddr::from(([192, 0, 2, host], 1));
        let (now, bounds) = (Instant::now(), Bounds { connections: 3, per_address: 2 });
        for (number, host) in [(0, 1), (1, 1), (2, 2)] {
            let present = usize::try_from(number).unwrap();
            assert!(admission.admits(peer(host), present, bounds, now, |_| false));
            admission.enter(peer(host), number);
        }
        assert!(!admission.admits(peer(1), 3, bounds, now, |_| true), "there are two from there");
        let mut asked = Vec::new();
        let silent = |number| {
            asked.push(number);
            number == 1
        };
        assert!(admission.admits(peer(3), 3, bounds, now, silent));
        assert_eq!(asked, [0, 1]);
        admission.leave(peer(1));
        assert!(admission.admits(peer(1), 2, bounds, now, |_| false), "one has left");
        assert!(!admission.admits(peer(3), 3, bounds, now, |_| false));
    }
}
