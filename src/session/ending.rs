//! How a conversation ends, and what is cleaned up then: temporary files and locks, also of a client
//! that is gone.

use std::time::{Duration, Instant};

use crate::disk::{Completion, Operation};
use crate::protocol::error::{Code, Error};

use super::Event;
use super::conversation::{Active, Phase, Session, Stream};

/// How long a client that has just connected may take to its first request when the server is about to
/// end: enough for one that is on its way, and not so long that a silent one delays the end.
pub const GRACE: Duration = Duration::from_secs(2);

impl Session {
    /// The connection is gone: nothing can be sent any more. `reason` is what to log if that was not
    /// expected.
    pub fn handle_disconnect(&mut self, _now: Instant, reason: &str) {
        if self.phase != Phase::Closing {
            self.counters.errors += 1;
            self.events.push_back(Event::Refused(Error::new(Code::Service, reason).into()));
        }
        self.disconnected = true;
        self.output.clear();
        self.close();
    }

    /// The server shuts down: the request in flight and the file that is
    /// being transferred are finished, then the client is told `error` and the session closes. A client
    /// that has just connected is still answered, if it asks within [`GRACE`].
    pub fn handle_drain(&mut self, now: Instant, error: Error) {
        if self.awaits_first_request() {
            self.deadline = self.deadline.min(now + GRACE);
        } else if self.is_at_rest() {
            return self.handle_abort(now, error);
        }
        self.draining = Some(error);
    }

    /// Ends the session with `error` without finishing the request in flight.
    pub fn handle_abort(&mut self, _now: Instant, error: Error) {
        if self.phase != Phase::Closing {
            self.fail(error);
        }
    }

    pub(super) fn fail_timeout(&mut self, limit: Duration) {
        if self.phase == Phase::Closing || !self.output.is_empty() {
            // It does not read what is there already; more words would not reach it.
            self.output.clear();
            self.disconnected = true;
            let message = format!("timeout after {}ms waiting for write to the client", limit.as_millis());
            self.events.push_back(Event::Refused(Error::new(Code::FileWrite, message).into()));
            return self.close();
        }
        let message = format!("timeout after {}ms waiting for read from the client", limit.as_millis());
        self.fail(Error::new(Code::FileRead, message));
    }

    /// Takes no more from the client and cleans up.
    pub(super) fn close(&mut self) {
        self.phase = Phase::Closing;
        self.databases.close();
        self.clean_up();
    }

    /// Takes note of the operation that was under way when the session closed, so that what it made is
    /// cleaned up too.
    pub(super) fn settle(&mut self, completion: Option<Completion>) {
        let Some(completion) = completion else { return self.clean_up() };
        // Nobody is left to tell, so what becomes of the request does not matter.
        match self.active.take() {
            Some((_, Active::Locks(mut locks))) => {
                let _ = locks.resume(completion);
                self.locks.append(&mut locks.held);
            }
            Some((envelope, Active::Stream)) => {
                let _ = self.with_stream(envelope.session, |stream| match stream {
                    Stream::Read(_) => Ok(()),
                    Stream::Write(write) => write.resume(completion).map(|_| ()),
                });
            }
            Some((_, Active::Authorization(_) | Active::Task(_) | Active::Discard | Active::Database(..))) | None => {}
        }
        self.clean_up();
    }

    fn clean_up(&mut self) {
        if self.outstanding > 0 || self.cleaned_up {
            return;
        }
        self.cleaned_up = true;
        self.active = None;
        self.waiting = false;
        self.drop_streams();
        self.weigh();
        self.unlock();
    }

    /// Closes all files, and removes those that are not whole.
    pub(super) fn drop_streams(&mut self) {
        let numbers: Vec<u64> = self.streams.iter().map(|(number, _)| *number).collect();
        for number in numbers {
            let discard = self.with_stream(number, |stream| {
                Ok(match stream {
                    Stream::Write(write) => write.discard(),
                    Stream::Read(_) => None,
                })
            });
            if let Ok(Some(operation)) = discard {
                self.submit(operation);
            }
            self.drop_stream(number);
        }
    }

    pub(super) fn unlock(&mut self) {
        for lock in std::mem::take(&mut self.locks) {
            self.submit(Operation::Unlock { lock });
        }
    }
}
