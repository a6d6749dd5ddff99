//! What happens between the writing of an info file and its getting its name.

use std::rc::Rc;

use super::Shared;
use super::aged::{Progress as SearchProgress, Protected, Search};
use crate::disk::{Completion, Location, Operation};
use crate::protocol::error::Result;
use crate::protocol::filter::Secret;
use crate::repository::info_guard::{InfoGuard, Progress};
use crate::repository::unexpected_outcome;

/// The replacement of an info file.
#[derive(Debug)]
pub struct Replacement {
    shared: Rc<Shared>,
    /// `backup/STANZA`.
    backups: Location,
    /// What the client encrypts with.
    key: Option<Secret>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Idle,
    /// Finding out what no client may lose, before the second file gets the name of the first.
    Searching(Box<Search>, Location, Location),
    Guarding(Box<InfoGuard>),
}

impl Replacement {
    pub(super) const fn new(shared: Rc<Shared>, backups: Location, key: Option<Secret>) -> Self {
        Self { shared, backups, key, phase: Phase::Idle }
    }

    /// What `written` may do to `target`, whose name it wants.
    pub fn begin(&mut self, target: Location, written: Location) -> Operation {
        match Search::begin(Rc::clone(&self.shared), self.backups.clone()) {
            (_, SearchProgress::Found(protected)) => self.guard(&protected, target, written),
            (search, SearchProgress::Disk(operation)) => {
                self.phase = Phase::Searching(Box::new(search), target, written);
                operation
            }
        }
    }

    /// About how many bytes it holds.
    #[must_use]
    pub fn memory(&self) -> usize {
        if let Phase::Guarding(guard) = &self.phase { guard.memory() } else { 0 }
    }

    /// Goes on after the operation that was asked for last.
    ///
    /// # Errors
    ///
    /// What the client is told; the file must not be replaced then.
    pub fn resume(&mut self, completion: Completion) -> Result<Progress> {
        match &mut self.phase {
            Phase::Idle => Err(unexpected_outcome()),
            Phase::Searching(search, target, written) => match search.resume(completion)? {
                SearchProgress::Disk(operation) => Ok(Progress::Disk(operation)),
                SearchProgress::Found(protected) => {
                    let (target, written) = (target.clone(), written.clone());
                    Ok(Progress::Disk(self.guard(&protected, target, written)))
                }
            },
            Phase::Guarding(guard) => guard.resume(completion),
        }
    }

    fn guard(&mut self, protected: &Protected, target: Location, written: Location) -> Operation {
        let rules = self.shared.info_rules(protected, self.key.as_ref());
        let (guard, operation) = InfoGuard::begin(rules, target, written);
        self.phase = Phase::Guarding(Box::new(guard));
        operation
    }
}
