//! How many processes serve clients: `workers=`.

/// More than this is of no use: the disk or the network is the limit then. Twice as many can exclude each
/// other, since some may be about to end.
pub(super) const MAXIMUM: i64 = 32;
/// The most that `auto` comes to. Each takes a few MiB.
const AUTO_MAXIMUM: usize = 8;

/// How many processes serve clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Workers {
    /// As many as this process has processors, 8 at most.
    #[default]
    Auto,
    /// So many. With one there is no other process.
    Number(usize),
}

impl Workers {
    /// The number on this machine.
    #[must_use]
    pub fn number(self) -> usize {
        match self {
            // Counts what the service manager's limits leave, too.
            Self::Auto => std::thread::available_parallelism().map_or(1, usize::from).min(AUTO_MAXIMUM),
            Self::Number(number) => number,
        }
    }
}
