//! The locks that a client's main process holds for as long as its session.

use crate::config::SessionSettings;
use crate::protocol::error::{Error, Result};
use crate::protocol::framing::Envelope;
use crate::protocol::release::Release;
use crate::protocol::request::Request;
use crate::repository::Answer;
use crate::repository::posix::locks::{LockRequest, Locks, Progress as LockProgress};

use super::conversation::{Active, Phase, Session};

impl Session {
    /// Answers the first `noop`, which takes the locks of a client's main process.
    pub(super) fn start(&mut self, envelope: Envelope, request: &Request) {
        if *request != Request::Noop {
            return self.fail(Error::format("noop expected"));
        }
        self.phase = Phase::Ready;
        match self.settings.as_ref().and_then(|settings| lock_request(settings, self.release, self.host.process)) {
            Some(request) => {
                let (locks, operation) = Locks::begin(request);
                self.submit(operation);
                self.active = Some((envelope, Active::Locks(Box::new(locks))));
            }
            None => self.answer(envelope, Answer::null()),
        }
    }

    /// Goes on with the locks, or answers when they are held or cannot be.
    pub(super) fn take_lock_progress(
        &mut self,
        envelope: Envelope,
        progress: Result<LockProgress>,
        mut locks: Box<Locks>,
    ) {
        self.locked |= !locks.held.is_empty();
        if let Ok(LockProgress::Disk(operation)) = progress {
            self.submit(operation);
            self.active = Some((envelope, Active::Locks(locks)));
            return;
        }
        self.locks.append(&mut locks.held);
        match progress {
            Ok(_) => self.answer(envelope, Answer::null()),
            Err(error) => self.refuse(envelope.session, error.into()),
        }
    }
}

/// The locks that a client's first `noop` takes, if its command locks where it works.
fn lock_request(settings: &SessionSettings, release: &Release, pid: u32) -> Option<LockRequest> {
    if settings.locks.is_empty() {
        return None;
    }
    Some(LockRequest {
        lock_path: settings.lock_path.clone(),
        stanza: settings.stanza.clone()?,
        names: settings.locks.clone(),
        exec_id: settings.exec_id.clone().unwrap_or_default(),
        pid,
        contents: release.lock_contents,
    })
}
