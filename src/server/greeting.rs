//! One connection's greeting: which release it names, and what the client made of it.
//!
//! A client that sends anything has accepted the release; one that ends the connection before has
//! refused it. What is ended by the server says nothing about the client.

use std::net::SocketAddr;

use super::connection::Service;
use super::releases::learner::{Learner, Offer};
use super::releases::{Key, seconds};
use super::turn::Context;
use crate::observe::log;
use crate::observe::rate::more;
use crate::protocol::release::Release;

/// The greeting of one connection.
#[derive(Debug)]
pub(super) struct Greeting {
    key: Key,
    release: &'static Release,
    /// `None` when the release is written down.
    offer: Option<Offer>,
    /// The client has sent something.
    heard: bool,
    /// There is nothing more to find out.
    settled: bool,
}

impl Greeting {
    /// Chooses the release for a client that proved to have `names` and connects from `peer` to
    /// `local`.
    pub(super) fn choose(
        names: Option<&[String]>,
        (peer, local): (SocketAddr, impl FnOnce() -> Option<SocketAddr>),
        service: &Service,
        learner: &Learner,
    ) -> Self {
        let key = Key::new(peer.ip(), names);
        let pinned = service.policy.pinned(names, local);
        let offer = if pinned.is_none() { learner.offer(&key, service.policy.table()) } else { None };
        let release = pinned.or(offer.map(|offer| offer.release)).unwrap_or_else(Release::newest);
        Self { key, release, offer, heard: false, settled: false }
    }

    /// What the client is greeted with.
    pub(super) const fn release(&self) -> &'static Release {
        self.release
    }

    /// Whether it is not known yet what the client makes of it.
    pub(super) const fn is_open(&self) -> bool {
        !self.heard && !self.settled
    }

    /// The client has sent something.
    pub(super) const fn hear(&mut self) {
        self.heard = true;
    }

    /// The server ends the connection, so that its end says nothing.
    pub(super) const fn give_up(&mut self) {
        self.settled |= !self.heard;
    }

    /// The session has answered so many requests; some releases answer before there is one.
    pub(super) fn answered(&mut self, requests: u64, cx: &mut Context<'_>) {
        if !self.heard || self.settled || requests == 0 {
            return;
        }
        self.settled = true;
        let Some(releases) = cx.learner.confirm(&self.key, self.release, seconds()) else { return };
        let Some(client) = self.key.client.as_deref().filter(|_| self.offer.is_some()) else { return };
        if let Some(held_back) = cx.rates.alternation.pass(cx.now) {
            let releases: Vec<_> = releases.iter().map(|release| release.version).collect();
            log::warn(format_args!(
                "client '{client}' at {} alternates between releases {}, and each change costs it failed \
                 attempts{}\nHINT: hosts of several releases that connect from one address need certificates of \
                 their own; then write down each one's release in repohostd.conf:\nHINT: [client:{client}]\nHINT: \
                 release={}",
                self.key.address,
                releases.join(", "),
                more(held_back),
                self.release.version
            ));
        }
    }

    /// The client has ended the connection. Returns what that means if it had not sent anything.
    pub(super) fn hung_up(&mut self, cx: &mut Context<'_>) -> Option<String> {
        if !self.is_open() {
            return None;
        }
        self.settled = true;
        let reason = format!("the client hung up at the greeting of release {}", self.release.version);
        let Some(offer) = self.offer else {
            return Some(reason + ", which is written down for it in repohostd.conf or on the command line");
        };
        let next = cx.learner.refuse(&self.key, offer, cx.service.policy.table(), seconds());
        Some(match next {
            Some(next) => format!("{reason}; its next connection is greeted with {}", next.version),
            None => reason,
        })
    }
}
