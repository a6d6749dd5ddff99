//! One worker process, as its pool sees it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::time::{Duration, Instant};

use super::choice::Load;
use super::heartbeat::{Heartbeat, TIMEOUT};
use super::link::Link;
use super::message::ToWorker;
use crate::observe::log;
use crate::server::status::document::WorkerState;

/// Clients that transfer files come several at a time: for so long a connection counts as a transfer too.
pub(super) const RECENT: Duration = Duration::from_secs(1);

/// How far a worker has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It reads the configuration. Connections wait for it.
    Starting,
    Serving,
    /// It gets no more connections.
    Leaving,
}

#[derive(Debug)]
pub(super) struct WorkerHandle {
    pub(super) number: u32,
    pub(super) link: Link,
    pub(super) process: Child,
    pub(super) stage: Stage,
    /// Which suspects it is kept for, if it is.
    pub(super) slot: Option<usize>,
    /// Connections that it gets when it serves: if it never does, nothing has happened to them.
    pub(super) waiting: Vec<Waiting>,
    /// Connections that were given to it and are not over, those included that wait.
    pub(super) connections: usize,
    /// Those of them that transfer files, as it said last.
    pub(super) transfers: usize,
    /// When it got the connections that may still begin to transfer files.
    recent: VecDeque<Instant>,
    /// When it got its last connection, as a number.
    turn: u64,
    /// Since when it has no connection.
    pub(super) idle: Instant,
    pub(super) heartbeat: Heartbeat,
}

/// A connection that no worker has read anything of.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) number: u64,
    pub(crate) peer: SocketAddr,
    pub(crate) socket: OwnedFd,
}

impl WorkerHandle {
    /// That of a process which has just been started.
    pub(super) fn new(number: u32, link: Link, process: Child, slot: Option<usize>, now: Instant) -> Self {
        Self {
            number,
            link,
            process,
            stage: Stage::Starting,
            slot,
            waiting: Vec::new(),
            connections: 0,
            transfers: 0,
            recent: VecDeque::new(),
            turn: 0,
            idle: now,
            heartbeat: Heartbeat::begin(now),
        }
    }

    /// Whether it answers, as far as is known.
    pub(super) const fn is_responsive(&self) -> bool {
        !self.heartbeat.is_unresponsive()
    }

    /// What it has to do.
    pub(super) fn load(&self, now: Instant) -> Load {
        let recent = self.recent.iter().filter(|since| is_recent(**since, now)).count();
        Load { transfers: self.transfers + recent, connections: self.connections, turn: self.turn }
    }

    /// Gives it a connection, once it serves.
    pub(super) fn assign(&mut self, connection: Waiting, turn: u64, now: Instant) {
        if self.stage == Stage::Starting {
            self.waiting.push(connection);
        } else {
            self.hand(connection);
        }
        self.connections += 1;
        self.recent.retain(|since| is_recent(*since, now));
        self.recent.push_back(now);
        self.turn = turn;
    }

    fn hand(&mut self, Waiting { number, peer, socket }: Waiting) {
        self.link.send(&ToWorker::Connection { number, peer }, vec![socket]);
    }

    /// Has it give up a connection, if that is without authorization. Whether that has been done.
    pub(super) fn evict(&mut self, number: u64) -> bool {
        let waiting = self.waiting.iter().position(|waiting| waiting.number == number);
        match waiting {
            Some(index) => drop(self.waiting.remove(index)),
            None => self.link.send(&ToWorker::Evict(number), vec![]),
        }
        waiting.is_some()
    }

    /// Notes that one of its connections is over.
    pub(super) fn note_end(&mut self, now: Instant) {
        self.connections = self.connections.saturating_sub(1);
        self.recent.truncate(self.connections);
        self.idle = now;
    }

    /// It serves, and gets the connections that wait for that.
    pub(super) fn begin_serving(&mut self, now: Instant) {
        if self.stage == Stage::Starting {
            self.stage = Stage::Serving;
        }
        for waiting in std::mem::take(&mut self.waiting) {
            self.hand(waiting);
        }
        self.note_answer(now);
    }

    /// Notes that it lives.
    pub(super) fn note_answer(&mut self, now: Instant) {
        if let Some(silence) = self.heartbeat.answer(now) {
            let seconds = silence.as_secs();
            log::warn(format_args!("{} answers after {seconds} s: it gets connections again", self.name()));
        }
    }

    /// Asks whether it lives, if it has something to do, and notes when it does not answer.
    pub(super) fn poll_heartbeat(&mut self, now: Instant) {
        if self.connections > 0 && self.heartbeat.ask_again(now) {
            self.link.send(&ToWorker::Ping, vec![]);
        }
        if self.heartbeat.becomes_unresponsive(now) {
            log::warn(format_args!(
                "{} has not answered for {} s: it gets no connections while another one answers",
                self.name(),
                TIMEOUT.as_secs()
            ));
        }
    }

    /// Asks whether it lives.
    pub(super) fn ping(&mut self, now: Instant) {
        if self.heartbeat.ask(now) {
            self.link.send(&ToWorker::Ping, vec![]);
        }
    }

    /// Has it end after its sessions, or, when told to `Drain`, after their requests in flight. It gets no more
    /// connections.
    pub(super) fn dismiss(&mut self, order: &ToWorker) {
        self.stage = Stage::Leaving;
        self.link.send(order, vec![]);
    }

    pub(super) fn view(&self, now: Instant) -> WorkerState {
        WorkerState {
            number: self.number,
            pid: self.process.id(),
            connections: self.connections,
            transfers: self.transfers,
            silent: (!self.is_responsive()).then(|| self.heartbeat.unanswered(now).as_secs()),
            leaving: self.stage == Stage::Leaving,
            slot: self.slot,
            kept_for: None,
        }
    }

    /// What it is called in the log.
    pub(super) fn name(&self) -> String {
        format!("worker {}, process {},", self.number, self.process.id())
    }
}

fn is_recent(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < RECENT
}
