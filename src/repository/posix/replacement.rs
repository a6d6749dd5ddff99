//! What happens between the writing of an info file and its getting its name.

use std::rc::Rc;

use super::info_guard::{InfoGuard, Verdict};
use super::search::Search;
use crate::disk::{Completion, Location, Operation};
use crate::protocol::error::Result;
use crate::repository::policy::aged::Protected;
use crate::repository::policy::guard::InfoReplacement;
use crate::repository::{Next, Shared};

/// The replacement of an info file.
#[derive(Debug)]
pub struct Replacement {
    shared: Rc<Shared>,
    rules: Rc<InfoReplacement>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Finding out what no client may lose, before the second file gets the name of the first.
    Searching(Box<Search>, Location, Location),
    Guarding(Box<InfoGuard>),
}

impl Replacement {
    /// What `written` may do to `target`, whose name it wants.
    #[must_use]
    pub fn begin(
        shared: &Rc<Shared>,
        rules: Rc<InfoReplacement>,
        target: Location,
        written: Location,
    ) -> (Self, Operation) {
        let (phase, operation) = match Search::begin(shared, Rc::clone(&rules.shared), rules.backups.clone()) {
            (_, Next::Done(protected)) => guard(shared, &rules, &protected, target, written),
            (search, Next::Disk(operation)) => (Phase::Searching(Box::new(search), target, written), operation),
        };
        (Self { shared: Rc::clone(shared), rules, phase }, operation)
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
    pub fn resume(&mut self, completion: Completion) -> Result<Next<Verdict>> {
        match &mut self.phase {
            Phase::Searching(search, target, written) => match search.resume(completion)? {
                Next::Disk(operation) => Ok(Next::Disk(operation)),
                Next::Done(protected) => {
                    let (phase, operation) =
                        guard(&self.shared, &self.rules, &protected, target.clone(), written.clone());
                    self.phase = phase;
                    Ok(Next::Disk(operation))
                }
            },
            Phase::Guarding(guard) => guard.resume(completion),
        }
    }
}

fn guard(
    shared: &Rc<Shared>,
    rules: &InfoReplacement,
    protected: &Protected,
    target: Location,
    written: Location,
) -> (Phase, Operation) {
    let rules = rules.shared.info_rules(protected, rules.key.as_ref(), shared.now.get());
    let (guard, operation) = InfoGuard::begin(shared, rules, target, written);
    (Phase::Guarding(Box::new(guard)), operation)
}
