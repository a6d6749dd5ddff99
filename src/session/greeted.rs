//! Who may open a session, and with which settings: the answer to a client's first request.
//!
//! It is decided by what counts when the request comes. Where somebody else has to be asked for that, the request waits,
//! and all other sessions go on.

use std::rc::Rc;
use std::time::Instant;

use crate::protocol::error::{Code, Error};
use crate::protocol::framing::{Envelope, Piece};
use crate::protocol::request::{Rejection, Request};
use crate::protocol::response;
use crate::repository::Answer;

use super::conversation::{Phase, REQUEST_MAXIMUM, Session};
use super::ending::{End, Flow};
use super::granted::Granted;
use super::{Authority, Event, Opened, upload};

/// The first answer may be to a question that was asked before the request came. The second one is not, so that with
/// it the request can be decided, however often what counts changes.
const ENOUGH: u8 = 2;

/// A client whose first request is awaited.
pub(super) struct Greeted {
    /// Names in its certificate; without one it may only ping.
    names: Option<Vec<String>>,
    pub(super) waiting: Option<Waiting>,
    /// What it is told if it asks for nothing, because the server ends.
    pub(super) drain: Option<Error>,
    /// Until when it has to ask for something.
    pub(super) until: Instant,
}

/// A `config` request that waits until is known what counts now.
pub(super) struct Waiting {
    envelope: Envelope,
    parameters: Vec<String>,
    /// Answers that have come since.
    answers: u8,
}

impl Greeted {
    pub(super) const fn new(names: Option<Vec<String>>, until: Instant) -> Self {
        Self { names, waiting: None, drain: None, until }
    }

    /// Whether it may only ping.
    pub(super) const fn is_nameless(&self) -> bool {
        self.names.is_none()
    }

    /// What must always be true.
    pub(super) const fn check_invariants(&self) -> bool {
        self.names.is_some() || self.waiting.is_none()
    }
}

impl Session {
    /// Tells a client before it has spoken that it may not speak.
    ///
    /// The original answers a ping as early. That would hide whether the client takes its greeting: one that
    /// refuses it leaves with the answer unread, which looks like a monitor that hangs up.
    pub(super) fn send_preamble(&mut self) {
        if let Phase::Greeted(Greeted { names: Some(names), .. }) = &self.phase
            && let Err(refusal) = self.authority.admit(names)
        {
            self.conclude(Err(End::Refused(Envelope::CLASSIC, refusal)));
        }
    }

    /// Takes a piece of the first request, which has to be `config`, or `noop` of a client without a name.
    pub(super) fn greet(&mut self, piece: Piece<'_>) -> Flow {
        if let Some(error) = upload::find_misplaced(self.line.release, false, &piece) {
            return Err(End::Error(error));
        }
        let (envelope, parameters) = match piece {
            Piece::Request(envelope, parameters) => (envelope, parameters),
            // It is told of the block at its end.
            Piece::BlockStart(..) | Piece::Block(_) => return Ok(()),
            Piece::BlockEnd => return Err(End::Error(Error::format("expected config command"))),
        };
        let request = Request::decode(envelope, &parameters, self.line.release);
        let request = request.map_err(|rejection| match rejection {
            Rejection::Fatal(error) | Rejection::Request(error) => End::Error(error),
        })?;
        let Phase::Greeted(greeted) = &mut self.phase else { return Ok(()) };
        match request {
            Request::Noop if greeted.is_nameless() => {
                self.line.counters.requests += 1;
                self.line.output.push(response::null(self.line.release.framing, envelope.session, false));
                Err(End::Quietly)
            }
            _ if greeted.is_nameless() => {
                Err(End::Error(Error::access("access denied: a client without a certificate may only ping")))
            }
            Request::Config(parameters) if self.authority.is_current() => self.authorize(envelope, &parameters),
            Request::Config(parameters) => {
                greeted.waiting = Some(Waiting { envelope, parameters, answers: 0 });
                Ok(())
            }
            _ => Err(End::Error(Error::format("expected config command"))),
        }
    }

    /// What counts now was told. Returns whether the client has waited for that.
    pub fn handle_authority(&mut self) -> bool {
        self.resume_authorization(1)
    }

    /// Who decides, in case that the client has not said yet what it wants, or waits. Returns whether it waits.
    pub fn replace_authority(&mut self, authority: Rc<dyn Authority>) -> bool {
        self.authority = authority;
        self.resume_authorization(0)
    }

    fn resume_authorization(&mut self, answers: u8) -> bool {
        let Phase::Greeted(Greeted { waiting: held, .. }) = &mut self.phase else { return false };
        let Some(mut waiting) = held.take() else { return false };
        waiting.answers = waiting.answers.saturating_add(answers);
        if waiting.answers >= ENOUGH || self.authority.is_current() {
            let flow = self.authorize(waiting.envelope, &waiting.parameters);
            self.conclude(flow);
        } else {
            *held = Some(waiting);
        }
        true
    }

    /// Nobody has told in time what counts now.
    pub(super) fn fail_waiting(&mut self) {
        let message = format!(
            "timeout after {}ms waiting for configuration files that have changed\nHINT: another process of the server \
             reads them: see its log.",
            self.line.limits.first_request.as_millis()
        );
        self.conclude(Err(End::Error(Error::new(Code::Service, message))));
    }

    fn authorize(&mut self, envelope: Envelope, parameters: &[String]) -> Flow {
        let Phase::Greeted(Greeted { names, drain, until, .. }) = &mut self.phase else { return Ok(()) };
        let names = names.as_deref().unwrap_or_default();
        let authorized = self.authority.authorize(self.line.release, names, parameters);
        let authorized = authorized.map_err(|refusal| End::Refused(envelope.session, refusal))?;
        let mut granted = Box::new(Granted::new(&self.line.host, authorized, drain.take(), *until));
        let settings = &granted.settings;
        self.line.events.push_back(Event::Opened(Opened {
            command: settings.command.name().to_owned(),
            stanza: settings.stanza.clone(),
            process: settings.process,
            exec_id: settings.exec_id.clone(),
        }));
        self.line.framer.set_limit(REQUEST_MAXIMUM);
        let flow = granted.answer(&mut self.line, envelope, Answer::null());
        self.phase = Phase::Open(granted);
        flow
    }
}
