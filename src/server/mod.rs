//! The server: listeners, connections with TLS, signals, reload, shutdown, limits, systemd.
//!
//! It is the only part that knows sockets and clocks. Its rooms, from the top; each uses only those below it:
//!
//! ```text
//! life                          the processes: start, reload, signals, end
//! workers                       worker processes and what is said to them
//! event_loop → status           poll, time, who may come in; what is told of the server
//! client                        one connection
//! tls   releases   outgoing     certificates; which release a client is greeted with; sockets to databases
//! service                       what connections are served with
//! ```

pub mod client;
pub(crate) mod event_loop;
pub(crate) mod life;
mod outgoing;
pub(crate) mod releases;
pub(crate) mod service;
pub(crate) mod status;
pub(crate) mod tls;
pub(crate) mod workers;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time of day.
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
