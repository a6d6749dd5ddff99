//! The server: listeners, connections with TLS, signals, reload, shutdown, limits, systemd.
//!
//! It is the only part that knows sockets and clocks. [`event_loop`] turns, [`connection`] is one
//! client, [`serve`] is the life of the process around them.

mod accept;
mod admission;
pub mod authority;
mod clock;
pub mod connection;
mod databases;
pub mod event_loop;
mod front;
mod greeting;
mod held;
mod hello;
mod last_words;
pub mod limits;
pub mod listen;
pub mod notify;
mod occupant;
mod record;
pub mod releases;
pub mod reload;
mod reports;
pub mod serve;
mod serving;
pub mod signals;
mod start;
pub mod status;
pub mod stop_files;
pub mod tls;
mod turn;
mod umask;
pub mod workers;

#[cfg(test)]
mod tests;
