//! A client that lost the right to its session hears of it as the answer to what it asks for.
//!
//! An error that nobody asked for, and the end of the connection behind it, would not reach its user: a
//! client that has a file open answers every error by giving the file up, waits for the answer to that,
//! and where there is none reports its own confusion instead ("client state is 'response' but expected
//! 'idle'"), or crashes. So the connection stays; what the session had is given back at once, the request
//! in flight and every later one fail, and to give up what is no longer there succeeds.

use std::time::Instant;

use crate::protocol::database::DatabaseRequest;
use crate::protocol::error::{Error, Result};
use crate::protocol::framing::{Envelope, name};
use crate::protocol::request::Request;
use crate::repository::Step;

use super::Event;
use super::conversation::{Phase, Session};
use super::ending::Flow;
use super::granted::{Active, Block, Granted, Running, Stage, Wait};
use super::line::Line;

/// What a client is told that lost the right to its session.
#[derive(Debug)]
pub(super) struct Revoked {
    error: Error,
    /// How long the client has to hear it.
    until: Instant,
    /// Files in transfer were finished, or may not be: no request is done any more.
    effective: bool,
}

impl Session {
    /// The client lost the right to the session: whatever it asks for is answered with `error`, at once or
    /// after the request in flight and the file in transfer. It gets [`Limits::idle`](super::Limits::idle) to hear of
    /// it.
    pub fn handle_revoke(&mut self, now: Instant, error: Error, at_once: bool) {
        match &mut self.phase {
            Phase::Open(granted) if granted.stage == Stage::Ready => {
                let flow = granted.revoke(&mut self.line, now, error, at_once);
                self.conclude(flow);
            }
            // It waits for an answer and has nothing open.
            _ => self.handle_abort(now, error),
        }
    }
}

impl Granted {
    fn revoke(&mut self, line: &mut Line, now: Instant, error: Error, at_once: bool) -> Flow {
        let until = now + line.limits.idle;
        let revoked = self.revoked.get_or_insert(Revoked { error, until, effective: false });
        if !revoked.effective && (at_once || self.is_at_rest(line)) {
            return self.enforce(line);
        }
        Ok(())
    }

    /// What every request is answered with, once that is so.
    pub(super) fn revocation(&self) -> Option<Error> {
        self.revoked.as_ref().filter(|revoked| revoked.effective).map(|revoked| revoked.error.clone())
    }

    /// What the client is told instead of what came of its request, unless that was to give something up.
    pub(super) fn unless_revoked(&self, envelope: Envelope, step: Result<Step>) -> Result<Step> {
        self.revocation().filter(|_| envelope.kind != name::CANCEL).map_or(step, Err)
    }

    /// Why a request of a session at rest, apart from that, is not done, if it is not.
    pub(super) fn find_revoked(&mut self, line: &mut Line, request: &Request) -> Flow<Option<Error>> {
        let ends = matches!(request, Request::ReadNext | Request::Close | Request::Cancel);
        if self.revoked.as_ref().is_some_and(|revoked| !revoked.effective) && !ends {
            self.enforce(line)?;
        }
        let gives_up = matches!(request, Request::Cancel | Request::Database(DatabaseRequest::Cancel(_)));
        Ok(self.revocation().filter(|_| !gives_up))
    }

    /// A request was answered: what was allowed to finish may have.
    pub(super) fn go_on_revoking(&mut self, line: &mut Line) -> Flow {
        match &self.revoked {
            Some(revoked) if revoked.effective => self.give_back(line),
            Some(_) if self.is_at_rest(line) => return self.enforce(line),
            _ => {}
        }
        Ok(())
    }

    /// The deadline, or the sooner one by which the client has to have heard of it.
    pub(super) fn bound(&self, deadline: Instant) -> Instant {
        self.revoked.as_ref().map_or(deadline, |revoked| deadline.min(revoked.until))
    }

    fn enforce(&mut self, line: &mut Line) -> Flow {
        let Some(revoked) = &mut self.revoked else { return Ok(()) };
        revoked.effective = true;
        let error = revoked.error.clone();
        line.events.push_back(Event::Refused(error.clone().into()));
        match self.running.take() {
            Some(Running { envelope, active: Active::Database(..), .. }) => {
                self.databases.close();
                self.answer_error(line, envelope, error)?;
            }
            // The completion of its operation will bring the end.
            Some(running @ Running { wait: Wait::Disk | Wait::Database, .. }) => self.running = Some(running),
            Some(Running { envelope, .. }) => self.fail_step(line, envelope, error)?,
            None => {
                if let Some(Block::To(envelope, _)) = self.block {
                    self.fail_step(line, envelope, error)?;
                }
            }
        }
        self.give_back(line);
        Ok(())
    }

    /// Gives back what the session holds, unless something is under way with it.
    fn give_back(&mut self, line: &mut Line) {
        if self.running.is_some() || self.block.is_some() {
            return;
        }
        self.databases.close();
        self.drop_streams(line);
        self.locks.release(line);
    }
}
