//! A real directory, whose operations complete in the order that the input wants, or fail.

use repohostd::disk::inline::{Inline, Options};
use repohostd::disk::{Completion, Disk, Errno, Failure, Operation, Ticket};

const EIO: Errno = Errno(5);
const ENOSPC: Errno = Errno(28);

/// What is under way.
pub struct Pending {
    inner: Inline,
    waiting: Vec<(Ticket, Operation)>,
}

impl Pending {
    pub fn new(by_component: bool) -> Self {
        Self { inner: Inline::new(Options { by_component, ..Options::default() }), waiting: Vec::new() }
    }

    pub fn submit(&mut self, ticket: Ticket, operation: Operation) {
        self.waiting.push((ticket, operation));
    }

    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many operations of a session are under way.
    pub fn of(&self, session: u64) -> usize {
        self.waiting.iter().filter(|(ticket, _)| ticket.session == session).count()
    }

    /// Completes one of the operations; `fails` says whether it is to fail, if it is one that fails without leaving
    /// behind what a session cannot clean up.
    pub fn complete(&mut self, which: usize, fails: bool) -> Option<(Ticket, Completion)> {
        if self.waiting.is_empty() {
            return None;
        }
        let (ticket, operation) = self.waiting.swap_remove(which % self.waiting.len());
        if fails && let Some(errno) = failure(&operation) {
            if matches!(operation, Operation::Close { .. }) {
                // it is closed all the same
                let _ = self.run(ticket, operation);
            }
            return Some((ticket, Err(Failure::from(errno))));
        }
        Some((ticket, self.run(ticket, operation)))
    }

    fn run(&mut self, ticket: Ticket, operation: Operation) -> Completion {
        self.inner.submit(ticket, operation);
        self.inner.complete().expect("it is done at once").1
    }
}

/// What an operation fails with.
fn failure(operation: &Operation) -> Option<Errno> {
    Some(match operation {
        Operation::OpenWrite { .. }
        | Operation::Write { .. }
        | Operation::MakeDirectory { .. }
        | Operation::SymbolicLink { .. }
        | Operation::HardLink { .. }
        | Operation::Lock { .. } => ENOSPC,
        Operation::Stat { .. }
        | Operation::StatTarget { .. }
        | Operation::OpenRead { .. }
        | Operation::Read { .. }
        | Operation::Sync { .. }
        | Operation::SyncDirectory { .. }
        | Operation::Close { .. }
        | Operation::SetTimes { .. }
        | Operation::Rename { .. }
        | Operation::List { .. }
        | Operation::ListMore { .. } => EIO,
        _ => return None,
    })
}
