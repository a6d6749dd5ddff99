//! One connection's greeting: which release it names, and what the client made of it.
//!
//! A client that sends anything has accepted the release; one that reads it and leaves without a word has
//! refused it. Who says goodbye or breaks off before has refused nothing: a monitor does that, and no
//! pgBackRest. What is ended by the server says nothing about the client either.

use std::net::SocketAddr;

use super::context::Context;
use crate::observe::log;
use crate::protocol::release::Release;
use crate::server::releases::learner::{Learner, Offer};
use crate::server::releases::{Key, milliseconds, seconds};
use crate::server::service::Service;

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
    /// Chooses the release for a client that proved to have `names`, asked for the server of the name `wanted` and
    /// connects from `peer` to `local`.
    pub(crate) fn choose(
        (names, wanted): (Option<&[String]>, Option<&str>),
        (peer, local): (SocketAddr, impl FnOnce() -> Option<SocketAddr>),
        service: &Service,
        learner: &mut Learner,
    ) -> Self {
        let key = Key::new(peer.ip(), names);
        let pinned = service.policy.pinned(names, wanted, local);
        let now = milliseconds();
        let offer = if pinned.is_none() { learner.offer(&key, service.policy.table(), now) } else { None };
        let release = pinned.or(offer.map(|offer| offer.release)).unwrap_or_else(Release::newest);
        Self { key, release, offer, heard: false, settled: false }
    }

    /// What the client is greeted with.
    pub(crate) const fn release(&self) -> &'static Release {
        self.release
    }

    /// Whether it is not known yet what the client makes of it.
    pub(super) const fn is_open(&self) -> bool {
        !self.heard && !self.settled
    }

    /// The client has sent something.
    pub(crate) const fn hear(&mut self) {
        self.heard = true;
    }

    /// The server ends the connection, so that its end says nothing.
    pub(crate) const fn give_up(&mut self) {
        self.settled |= !self.heard;
    }

    /// The session has answered so many requests.
    pub(crate) fn answered(&mut self, requests: u64, cx: &mut Context<'_>) {
        if !self.heard || self.settled || requests == 0 {
            return;
        }
        self.settled = true;
        let Some(releases) = cx.learner.confirm(&self.key, self.release, seconds()) else { return };
        let Some(client) = self.key.client.as_deref().filter(|_| self.offer.is_some()) else { return };
        let releases: Vec<_> = releases.iter().map(|release| release.version).collect();
        log::warn(format_args!(
            "clients '{client}' at {} have releases {} between them, which take turns, so that each fails now and \
             then\nHINT: this ends with a certificate for each of them and its release in repohostd.conf: \
             [client:NAME] release={};\nHINT: or with a server name for each release, which its clients have as \
             repo1-host: [server-name:NAME] release={};\nHINT: or with an address or a port for each: \
             [listener:ADDRESS:PORT] release={}.",
            self.key.address,
            releases.join(", "),
            self.release.version,
            self.release.version,
            self.release.version
        ));
    }

    /// The client has left silently. Returns what that means if it had not sent anything.
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
