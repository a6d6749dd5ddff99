//! The server: listeners, connections with TLS, signals, reload, shutdown, limits, systemd.
//!
//! It is the only part that knows sockets and clocks. [`event_loop`] turns, [`connection`] is one
//! client, [`serve`] is the life of the process around them.

pub mod authority;
mod clock;
pub mod connection;
mod databases;
pub mod event_loop;
mod greeting;
mod hello;
mod last_words;
pub mod limits;
pub mod listen;
pub mod notify;
mod record;
pub mod releases;
pub mod reload;
pub mod serve;
pub mod signals;
pub mod status;
pub mod stop_files;
pub mod tls;
mod turn;
mod umask;

#[cfg(test)]
mod tests;
