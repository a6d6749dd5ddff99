//! How a conversation ends, and what is cleaned up then: temporary files and locks, also of a client
//! that is gone.

use std::time::{Duration, Instant};

use crate::disk::Completion;
use crate::protocol::error::{Code, Error};
use crate::protocol::response;

use super::conversation::{Phase, Session};
use super::granted::Granted;
use super::line::Line;
use super::{Event, Refusal};

/// How long a client that has just connected may take to its first request when the server is about to
/// end: enough for one that is on its way, and not so long that a silent one delays the end.
pub const GRACE: Duration = Duration::from_secs(2);

/// Why a conversation ends.
pub(super) enum End {
    /// The client has all that it wants.
    Quietly,
    /// The client is told of this error.
    Error(Error),
    /// The client is told that its request of this number is refused.
    Refused(u64, Refusal),
}

/// Goes on, unless this is the end of the conversation.
pub(super) type Flow<T = ()> = Result<T, End>;

/// A session that takes nothing more from its client.
pub(super) struct Closing {
    /// What it was granted, until it is cleaned up and beyond: the log names its stanza.
    pub(super) granted: Option<Box<Granted>>,
    /// Whether the client cannot be told anything any more.
    disconnected: bool,
    /// Whether files and locks were given back, or are being given back by operations that were submitted. Before
    /// that, an operation is under way.
    cleaned_up: bool,
    /// How long the client may take for what it is told, and until when.
    pub(super) patience: Duration,
    until: Instant,
}

impl Closing {
    pub(super) const fn is_over(&self) -> bool {
        self.disconnected && self.cleaned_up
    }

    /// When the client is given up.
    pub(super) fn timeout(&self, is_sending: bool) -> Option<Instant> {
        let waits = is_sending || self.granted.as_ref().is_none_or(|granted| granted.running.is_none());
        (waits && !self.disconnected).then_some(self.until)
    }

    /// The client takes what it is told.
    pub(super) fn postpone(&mut self, now: Instant) {
        let until = now + self.patience;
        self.until = self.granted.as_ref().map_or(until, |granted| granted.bound(until));
    }

    /// Takes note of an operation that was under way when the session closed, so that what it made is
    /// cleaned up too.
    pub(super) fn drop_outcome(&mut self, line: &mut Line, operation: u64, completion: Completion) {
        if let Some(granted) = &mut self.granted {
            granted.drop_outcome(line, operation, completion);
        }
        self.clean_up(line);
    }

    fn clean_up(&mut self, line: &mut Line) {
        if line.awaits_disk() || self.cleaned_up {
            return;
        }
        self.cleaned_up = true;
        if let Some(granted) = &mut self.granted {
            granted.running = None;
            granted.drop_streams(line);
            granted.locks.release(line);
        }
    }

    /// What must always be true.
    pub(super) fn check_invariants(&self, line: &Line) -> bool {
        let is_empty = |granted: &Granted| {
            granted.running.is_none() && granted.streams.is_empty() && granted.locks.held().is_empty()
        };
        (!self.disconnected || line.output.is_empty())
            && (self.cleaned_up || line.awaits_disk())
            && (!self.cleaned_up || self.granted.as_deref().is_none_or(is_empty))
    }
}

impl Session {
    /// The connection is gone: nothing can be sent any more. `reason` is what to log if that was not
    /// expected.
    pub fn handle_disconnect(&mut self, _now: Instant, reason: &str) {
        if !self.is_closing() {
            self.line.counters.errors += 1;
            self.line.events.push_back(Event::Refused(Error::new(Code::Service, reason).into()));
        }
        self.give_up();
        self.conclude(Ok(()));
    }

    /// The server shuts down: the request in flight and the file that is
    /// being transferred are finished, then the client is told `error` and the session closes. A client
    /// that has just connected is still answered, if it asks within [`GRACE`].
    pub fn handle_drain(&mut self, now: Instant, error: Error) {
        let flow = match &mut self.phase {
            Phase::Greeted(greeted) => {
                greeted.until = greeted.until.min(now + GRACE);
                greeted.drain = Some(error);
                Ok(())
            }
            Phase::Open(granted) => granted.drain(&self.line, error),
            Phase::Closing(_) => Ok(()),
        };
        self.conclude(flow);
    }

    /// Ends the session with `error` without finishing the request in flight.
    pub fn handle_abort(&mut self, _now: Instant, error: Error) {
        let flow = if self.is_closing() { Ok(()) } else { Err(End::Error(error)) };
        self.conclude(flow);
    }

    pub(super) fn fail_timeout(&mut self, limit: Duration) {
        let limit = limit.as_millis();
        if !self.is_closing() && self.line.output.is_empty() {
            let message = format!("timeout after {limit}ms waiting for read from the client");
            return self.conclude(Err(End::Error(Error::new(Code::FileRead, message))));
        }
        // It does not read what is there already; more words would not reach it.
        let message = format!("timeout after {limit}ms waiting for write to the client");
        self.line.events.push_back(Event::Refused(Error::new(Code::FileWrite, message).into()));
        self.give_up();
        self.conclude(Ok(()));
    }

    /// Tells the client of the end, and ends the session.
    pub(super) fn end(&mut self, end: End) {
        match end {
            End::Quietly => {}
            End::Error(error) => {
                self.line.counters.errors += 1;
                // A client without a certificate gets no reason, as with the original.
                if !matches!(&self.phase, Phase::Greeted(greeted) if greeted.is_nameless()) {
                    self.line.output.push(response::error(self.line.release.framing, 0, &error));
                }
                self.line.events.push_back(Event::Refused(error.into()));
            }
            End::Refused(session, refusal) => {
                self.line.answer_error(session, &refusal.error);
                self.line.events.push_back(Event::Refused(refusal));
            }
        }
        self.close(false);
    }

    /// Ends the session without a word, since the client would not get it.
    fn give_up(&mut self) {
        self.line.output.clear();
        self.close(true);
    }

    /// Takes no more from the client and cleans up.
    fn close(&mut self, disconnected: bool) {
        if let Phase::Closing(closing) = &mut self.phase {
            closing.disconnected |= disconnected;
            return;
        }
        let idle = self.line.limits.idle;
        let (until, patience) = match &self.phase {
            Phase::Greeted(greeted) => (greeted.until, if greeted.drain.is_some() { GRACE } else { idle }),
            Phase::Open(granted) => (granted.until, idle),
            Phase::Closing(closing) => (closing.until, closing.patience),
        };
        let mut closing = Closing { granted: None, disconnected, cleaned_up: false, patience, until };
        let phase = std::mem::replace(&mut self.phase, Phase::Closing(Closing { granted: None, ..closing }));
        if let Phase::Open(mut granted) = phase {
            granted.databases.close();
            closing.granted = Some(granted);
        }
        closing.clean_up(&mut self.line);
        self.phase = Phase::Closing(closing);
    }
}
