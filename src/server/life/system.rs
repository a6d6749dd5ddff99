//! Errors of what the system refuses to a server as a whole.

use std::io;

use crate::protocol::error::{Code, Error};

/// The system does not do what `text` says, for this reason.
pub(super) fn system(text: &str, error: &io::Error) -> Error {
    Error::io(Code::Kernel, text, error)
}
