//! Worker processes, so that all processors are used: each has an event loop of one thread.
//!
//! A [supervisor](super::life) accepts connections, counts them and gives each to a worker over a socket pair; it
//! reads nothing that a client sends. A worker is this program once more, with the same arguments: it takes the
//! configuration that the supervisor has read, and serves what it is given until the socket is closed.
//!
//! ```text
//! clients → supervisor ──(descriptors, lessons, orders)──→ worker 1, worker 2, …
//!               ←──(who is authorized, who left, transfers)──
//! ```
//!
//! The supervisor owns the listeners, the signals, the service manager, the status socket and what was
//! learned of clients' releases, and so has the last word on each. [`message`] is what is said.

mod backoff;
mod choice;
pub(super) mod connections;
mod endings;
pub(super) mod handle;
mod heartbeat;
pub(crate) mod link;
pub(crate) mod message;
pub(super) mod pool;
pub(super) mod snapshot_file;
pub(super) mod spawn;
pub(super) mod suspects;

/// The word that makes this program a worker.
pub(crate) const COMMAND: &str = "serve-worker";
