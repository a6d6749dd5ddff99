//! One client: its TCP connection with TLS on it, its greeting, its rights, and what is logged and shown of it.

pub(super) mod authority;
mod client_hello;
pub(super) mod connection;
pub(super) mod context;
mod corked_write;
mod greeting;
pub(super) mod held;
pub(super) mod record;
mod tls_channel;
pub(crate) mod view;

pub use client_hello::Hellos;
