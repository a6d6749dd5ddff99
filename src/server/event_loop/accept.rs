//! Accepting connections on the listeners that the poll reports.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use slab::Slab;

use super::listen::Listener;
use crate::observe::log;
use crate::observe::rate::{Rate, more};
use crate::protocol::error::{Code, Error};

/// Connections accepted before the others have their turn.
pub(crate) const ACCEPTS: usize = 64;
/// How long nothing is accepted after an error, first and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Lines about failed accepts: so many in this time.
const LOG_RATE: (u32, Duration) = (1, Duration::from_secs(10));

/// The listeners, and which of them may have connections.
#[derive(Debug)]
pub(crate) struct Acceptor {
    /// The tokens from here on belong to listeners.
    tokens: usize,
    listeners: Slab<Listener>,
    /// Listeners that may have connections to accept, by their place.
    acceptable: Vec<usize>,
    /// When accepting resumes, and the pause after the next failure.
    paused: Option<Instant>,
    back_off: Duration,
    failures: Rate,
}

impl Acceptor {
    /// One that listens nowhere yet, with tokens of the poll from `tokens` on.
    pub(crate) fn new(tokens: usize) -> Self {
        Self {
            tokens,
            listeners: Slab::new(),
            acceptable: Vec::new(),
            paused: None,
            back_off: BACK_OFF.0,
            failures: Rate::new(LOG_RATE.0, LOG_RATE.1),
        }
    }

    /// Takes the listeners out, so that those that are still wanted can be put back by
    /// [`Acceptor::listen`]. None of them is closed or misses a connection.
    pub(crate) fn take(&mut self, registry: &Registry) -> Vec<Listener> {
        self.acceptable.clear();
        let mut listeners: Vec<_> = self.listeners.drain().collect();
        for listener in &mut listeners {
            // A socket that the poll does not know is what is wanted.
            let _ = registry.deregister(&mut listener.socket);
        }
        listeners
    }

    /// Accepts connections of these listeners too.
    pub(crate) fn listen(&mut self, registry: &Registry, listeners: Vec<Listener>) -> io::Result<()> {
        for mut listener in listeners {
            let entry = self.listeners.vacant_entry();
            let token = Token(self.tokens + entry.key());
            registry.register(&mut listener.socket, token, Interest::READABLE)?;
            // Registering reports what waits already, so nothing has to be marked here.
            entry.insert(listener);
        }
        Ok(())
    }

    /// Where connections are accepted, as the system numbers it.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|(_, listener)| listener.socket.local_addr().ok()).collect()
    }

    /// The poll reported the token of a listener.
    pub(crate) fn note(&mut self, token: usize) {
        let index = token - self.tokens;
        if !self.acceptable.contains(&index) {
            self.acceptable.push(index);
        }
    }

    /// When there may be something to accept: now, or after a pause.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        (!self.acceptable.is_empty()).then(|| self.paused.unwrap_or(now))
    }

    /// The next connection, if one waits.
    pub(crate) fn accept(&mut self, now: Instant) -> Option<(TcpStream, SocketAddr)> {
        if self.paused.is_some_and(|until| until > now) {
            return None;
        }
        self.paused = None;
        while let Some(&index) = self.acceptable.last() {
            let Some(listener) = self.listeners.get(index) else {
                self.acceptable.pop();
                continue;
            };
            match listener.socket.accept() {
                Ok(accepted) => {
                    self.back_off = BACK_OFF.0;
                    return Some(accepted);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.acceptable.pop();
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    self.pause(&error, now);
                    return None;
                }
            }
        }
        None
    }

    /// Accepts nothing until then.
    pub(crate) const fn pause_until(&mut self, until: Instant) {
        self.paused = Some(until);
    }

    /// Accepts nothing for a while after an error that will not go away by itself at once.
    fn pause(&mut self, error: &io::Error, now: Instant) {
        if let Some(held_back) = self.failures.pass(now) {
            let errno = error.raw_os_error().unwrap_or(0);
            let error = Error::system(Code::FileOpen, "unable to accept socket", errno);
            log::warn(format_args!("{}; connections wait{}", error.message, more(held_back)));
        }
        self.paused = Some(now + self.back_off);
        self.back_off = (self.back_off * 2).min(BACK_OFF.1);
    }
}

/// Errors of `accept` that are about the connection and not about us; Linux reports pending network
/// errors there too.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::INTR
                | Errno::CONNABORTED
                | Errno::PROTO
                | Errno::PERM
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NOPROTOOPT
                | Errno::OPNOTSUPP
                | Errno::NONET
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aborted_connection_does_not_pause_accepting_but_a_full_table_does() {
        assert!(concerns_one_connection(&io::Error::from(Errno::CONNABORTED)));
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert!(!concerns_one_connection(&io::Error::from(errno)));
        }
    }
}
