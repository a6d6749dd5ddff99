//! Worker processes, so that all processors are used: each has an event loop of one thread.
//!
//! A [`supervisor`] accepts connections, counts them and gives each to a worker over a socket pair; it reads
//! nothing that a client sends. A [`worker`] is this program once more, with the same arguments: it reads the
//! configuration itself, and serves what it is given until the socket is closed.
//!
//! ```text
//! clients → supervisor ──(descriptors, lessons, orders)──→ worker 1, worker 2, …
//!               ←──(who is authorized, who left, transfers)──
//! ```
//!
//! The supervisor owns the listeners, the signals, the service manager, the status socket and what was
//! learned of clients' releases, and so has the last word on each. [`message`] is what is said.

mod connections;
pub mod crew;
mod endings;
pub mod link;
pub mod message;
mod pauses;
mod pulse;
pub mod supervisor;
mod suspects;
pub mod worker;

/// The word that makes this program a worker.
pub const COMMAND: &str = "serve-worker";
