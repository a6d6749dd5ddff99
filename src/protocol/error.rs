//! Errors as pgBackRest numbers and words them.
//!
//! A client shows the message and ends with the code as its exit status, so both are part of the
//! interface. Source of the facts: the specification's sections on errors, which list every code
//! and the text of every failure that a remote can raise.

use std::{fmt, io};

use super::carried::show;
use super::errno::describe_errno;

/// An error number of pgBackRest, which is also the exit status of the program that reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are pgBackRest's own and explain themselves")]
#[repr(u8)]
pub enum Code {
    Assert = 25,
    Checksum = 26,
    Config = 27,
    FileInvalid = 28,
    Format = 29,
    CommandRequired = 30,
    OptionInvalid = 31,
    OptionInvalidValue = 32,
    OptionRequired = 37,
    Protocol = 39,
    FileOpen = 41,
    FileRead = 42,
    ParamRequired = 43,
    PathCreate = 47,
    CommandInvalid = 48,
    HostConnect = 49,
    LockAcquire = 50,
    FileSync = 52,
    PathOpen = 53,
    PathSync = 54,
    FileMissing = 55,
    DbConnect = 56,
    DbQuery = 57,
    FileRemove = 60,
    PathRemove = 61,
    Stop = 62,
    Term = 63,
    FileWrite = 64,
    PathMissing = 73,
    FileMove = 74,
    FileClose = 79,
    FileOwner = 88,
    Memory = 94,
    Crypto = 95,
    ParamInvalid = 96,
    PathClose = 97,
    FileInfo = 98,
    JsonFormat = 99,
    Kernel = 100,
    Service = 101,
    RepoInvalid = 103,
    Access = 105,
    Unhandled = 124,
    Unknown = 125,
}

impl Code {
    /// The number as it stands on the wire and in `[041]`.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Whether a remote ends its connection after it has reported this error for a request.
    #[must_use]
    pub const fn is_fatal(self) -> bool {
        matches!(self, Self::Assert | Self::Memory)
    }
}

/// An error with pgBackRest's code and a text for whoever reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What kind of failure it is.
    pub code: Code,
    /// What failed, on what, and what to do about it. Paths in it are [carried](super::carried).
    pub message: String,
}

impl Error {
    /// An error of `code` that says `message`.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// An error of the operating system: the message ends in `: [errno] text`, as pgBackRest's do.
    #[must_use]
    pub fn system(code: Code, message: impl fmt::Display, errno: i32) -> Self {
        if errno == 0 {
            return Self::new(code, message.to_string());
        }
        Self::new(code, format!("{message}: [{errno}] {}", describe_errno(errno)))
    }

    /// As [`Error::system`], if the operating system gave `error` a number.
    #[must_use]
    pub fn io(code: Code, message: impl fmt::Display, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::system(code, message, errno),
            None => Self::new(code, format!("{message}: {error}")),
        }
    }

    /// A malformed message or value: code 29.
    pub fn format(message: impl Into<String>) -> Self {
        Self::new(Code::Format, message)
    }

    /// A breach of the protocol: code 39.
    pub fn protocol(message: impl Into<String>) -> Self {
        Self::new(Code::Protocol, message)
    }

    /// A request that this client may not make: code 105.
    pub fn access(message: impl Into<String>) -> Self {
        Self::new(Code::Access, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:03}]: {}", self.code.number(), show(&self.message))
    }
}

impl std::error::Error for Error {}

/// The result of whatever can fail with a pgBackRest error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_error_reads_as_the_original_words_it() {
        let error = Error::system(Code::FileOpen, "unable to open file '/a' for read", 13);
        assert_eq!(error.message, "unable to open file '/a' for read: [13] Permission denied");
        assert_eq!(error.to_string(), "[041]: unable to open file '/a' for read: [13] Permission denied");
    }

    #[test]
    fn an_unset_errno_leaves_the_suffix_out() {
        assert_eq!(Error::system(Code::FileWrite, "unable to write 'x'", 0).message, "unable to write 'x'");
    }
}
