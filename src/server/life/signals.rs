//! Signals as events of the loop, with who sent them.
//!
//! A handler stores what came and wakes the loop through a socket pair. What a signal means is said
//! by [`meaning`]:
//!
//! - SIGHUP reloads, SIGINT ends at once.
//! - SIGTERM shuts down when it comes from the kernel, from process 1 or from the parent, which is
//!   how service managers and containers end a server. `pgbackrest stop --force` sends SIGTERM too:
//!   it removes lock files and signals the process that they name, which for the original is the
//!   process of one session and here is the server. So when SIGTERM comes from anybody else and a
//!   stanza whose locks are held here, or were until a moment ago, has a stop file, which that command
//!   creates first, the sessions of such stanzas end and the server stays. Otherwise anybody's SIGTERM
//!   shuts down.
//!
//! A worker shuts down as little of the server as it is: it ends after its sessions, whoever the signal comes from.
//! Who means the server signals the supervisor too.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::origin::{Origin, WithOrigin};
use signal_hook::low_level::siginfo::Cause;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Load the configuration anew.
    Reload,
    /// Shut down, letting requests in flight finish.
    Terminate {
        /// Whether the sender can only have meant the server as a whole.
        certain: bool,
    },
    /// End at once.
    Interrupt,
}

/// The signals that the server handles, from creation to drop.
pub(crate) struct Signals {
    delivery: SignalDelivery<UnixStream, WithOrigin>,
}

impl AsFd for Signals {
    /// What can be read from when signals have come.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}

impl Signals {
    /// Installs the handlers. SIGPIPE is ignored already, by the standard library.
    ///
    /// # Errors
    ///
    /// What the system says against a socket pair or a handler.
    pub(crate) fn install() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        // A handler must never wait because the loop is slow to read.
        write.set_nonblocking(true)?;
        let delivery = SignalDelivery::with_pipe(read, write, WithOrigin::default(), [SIGHUP, SIGINT, SIGTERM])?;
        Ok(Self { delivery })
    }

    /// Waits for signals, for `longest` at most.
    pub(crate) fn wait(&mut self, longest: Duration) -> Vec<Meaning> {
        let mut ready = [PollFd::new(self.delivery.get_read(), PollFlags::IN)];
        // An interruption is a signal, too.
        let _ = poll(&mut ready, Timespec::try_from(longest).ok().as_ref());
        self.pending()
    }

    /// What came since the last call: reloads first, so that "reload, then end" is done in order.
    pub(crate) fn pending(&mut self) -> Vec<Meaning> {
        let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        let mut meanings: Vec<_> = self.delivery.pending().filter_map(|origin| meaning(&origin, parent)).collect();
        meanings.sort_by_key(|meaning| !matches!(meaning, Meaning::Reload));
        meanings
    }
}

fn meaning(origin: &Origin, parent: i32) -> Option<Meaning> {
    Some(match origin.signal {
        SIGHUP => Meaning::Reload,
        SIGINT => Meaning::Interrupt,
        SIGTERM => {
            let sender = origin.process.map(|process| process.pid);
            Meaning::Terminate { certain: sent_by_master(sender, matches!(origin.cause, Cause::Kernel), parent) }
        }
        _ => return None,
    })
}

/// Whether a signal comes from somebody who starts and ends servers. A sender outside of our process
/// namespace has number 0, and is what started this container.
const fn sent_by_master(sender: Option<i32>, kernel: bool, parent: i32) -> bool {
    match sender {
        None | Some(0 | 1) => true,
        Some(pid) => kernel || pid == parent,
    }
}

impl Meaning {
    /// The signal behind it, for messages.
    pub(crate) const fn signal(self) -> &'static str {
        match self {
            Self::Reload => "SIGHUP",
            Self::Terminate { .. } => "SIGTERM",
            Self::Interrupt => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whoever_runs_servers_is_certain_to_mean_the_server() {
        for (sender, kernel, expected) in [
            (None, true, true),
            (None, false, true),
            (Some(0), false, true),
            (Some(1), false, true),
            (Some(700), false, true),
            (Some(4711), false, false),
            (Some(4711), true, true),
        ] {
            assert_eq!(sent_by_master(sender, kernel, 700), expected, "{sender:?} {kernel}");
        }
    }
}
