//! Who may open a session, and with which settings: the answer to a client's `config` request.
//!
//! It is decided by what counts when the request comes. Where somebody else has to be asked for that, the request waits,
//! and all other sessions go on.

use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use crate::config::Storage;
use crate::protocol::error::{Code, Error};
use crate::protocol::framing::Envelope;
use crate::protocol::request::Request;
use crate::repository::Answer;
use crate::repository::policy::guard::Guard;
use crate::repository::policy::shared::Measures;
use crate::repository::policy::view::View;

use super::conversation::{Active, Phase, REQUEST_MAXIMUM, Session};
use super::{Authority, Authorized, Event, Opened};

/// The first answer may be to a question that was asked before the request came. The second one is not, so that with
/// it the request can be decided, however often what counts changes.
const ENOUGH: u8 = 2;

/// A `config` request that waits.
pub(super) struct Waiting {
    parameters: Vec<String>,
    /// Answers that have come since.
    answers: u8,
}

impl Session {
    /// Takes the first request, which has to be `config`.
    pub(super) fn begin_authorization(&mut self, envelope: Envelope, request: Request) {
        let Request::Config(parameters) = request else {
            return self.fail(Error::format("expected config command"));
        };
        if self.authority.is_current() {
            return self.authorize(envelope, &parameters);
        }
        self.active = Some((envelope, Active::Authorization(Waiting { parameters, answers: 0 })));
    }

    /// What counts now was told. Returns whether the client has waited for that.
    pub fn handle_authority(&mut self) -> bool {
        self.go_on(1)
    }

    /// Who decides, in case that the client has not said yet what it wants, or waits. Returns whether it waits.
    pub fn replace_authority(&mut self, authority: Rc<dyn Authority>) -> bool {
        self.authority = authority;
        self.go_on(0)
    }

    /// Whether the client's first request waits until is known what counts now.
    pub(super) const fn awaits_authority(&self) -> bool {
        matches!(self.active, Some((_, Active::Authorization(_))))
    }

    fn go_on(&mut self, answers: u8) -> bool {
        let is_meant = |active: &Active| matches!(active, Active::Authorization(_));
        let active = self.active.take_if(|(_, active)| is_meant(active));
        let Some((envelope, Active::Authorization(mut waiting))) = active else { return false };
        waiting.answers = waiting.answers.saturating_add(answers);
        if waiting.answers >= ENOUGH || self.authority.is_current() {
            self.authorize(envelope, &waiting.parameters);
        } else {
            self.active = Some((envelope, Active::Authorization(waiting)));
        }
        true
    }

    /// Nobody has told what counts now.
    pub(super) fn fail_waiting(&mut self) {
        self.active = None;
        let message = format!(
            "timeout after {}ms waiting for configuration files that have changed\nHINT: another process of the server \
             reads them: see its log.",
            self.limits.first_request.as_millis()
        );
        self.fail(Error::new(Code::Service, message));
    }

    fn authorize(&mut self, envelope: Envelope, parameters: &[String]) {
        let names = self.names.take().unwrap_or_default();
        let authorized = self.authority.authorize(&names, parameters);
        self.names = Some(names);
        match authorized {
            Ok(Authorized { settings, whole_repository, role, protection, versions, umask }) => {
                self.umask = if settings.neutral_umask { 0 } else { umask };
                (self.view, self.guard) = match &settings.storage {
                    Storage::Repository(repository) => {
                        let stanza = settings.stanza.as_deref().filter(|_| !whole_repository);
                        let view = View::new(repository.path.as_os_str().as_bytes(), stanza)
                            .restricted(role, !protection.min_age.is_zero());
                        let keys = repository.own_pass.iter().chain(&repository.cipher_pass).cloned();
                        let guard = Guard::new(Measures {
                            role,
                            min_age: protection.min_age,
                            keys: keys.collect(),
                            opaque_info: protection.opaque_info,
                            versions,
                        });
                        (view, guard)
                    }
                    Storage::Cluster(cluster) => {
                        (View::of_cluster(cluster.path.as_os_str().as_bytes()), Guard::new(Measures::of_cluster()))
                    }
                };
                self.events.push_back(Event::Opened(Opened {
                    command: settings.command.name().to_owned(),
                    stanza: settings.stanza.clone(),
                    process: settings.process,
                    exec_id: settings.exec_id.clone(),
                }));
                self.settings = Some(settings);
                self.phase = Phase::AwaitNoop;
                self.framer.set_limit(REQUEST_MAXIMUM);
                self.answer(envelope, Answer::null());
            }
            Err(refusal) => self.refuse(envelope.session, refusal),
        }
    }
}
