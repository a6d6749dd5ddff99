//! repohostd: a repository-host server for `PostgreSQL` backups.
//!
//! It speaks pgBackRest's TLS protocol, so that unmodified `pgbackrest` clients archive, back up,
//! restore, verify and expire through it. The map of the folders is in the README's chapter
//! `Architecture`; dependencies point one way:
//!
//! ```text
//! cli → server → session → {repository, filter, postgres} → protocol
//!                   └──→ disk ←──┘        config, observe, process: used by those who need them
//! ```
//!
//! `protocol`, `session`, `repository`, `filter` and `postgres` do no I/O, and read neither a clock nor a global.

pub mod cli;
pub mod config;
pub mod disk;
pub mod filter;
pub mod observe;
pub mod postgres;
pub mod process;
pub mod protocol;
pub mod repository;
pub mod server;
pub mod session;
