//! How somebody ends who does operations for the server.

use std::time::Duration;

use super::names::Found;
use super::{Completion, Operation};

/// What has become of an operation that was taken on.
#[derive(Debug)]
pub(super) enum Ended {
    /// It is done.
    Completed(Completion),
    /// A helper has done it, in so long.
    Answered(Completion, Duration),
    /// A helper leaves it to the server itself, from its beginning.
    Left(Operation),
    /// Who did it is lost, and it can be done again.
    Lost(Operation),
    /// Names of owners were found.
    Named(Found),
}
