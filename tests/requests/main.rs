//! Requests on a real directory, without sockets: texts of errors as the original words them, what a
//! client may reach, and a connection that stays usable whatever fails.

mod bounds;
mod cluster;
mod databases;
mod errors;
mod reach;
mod roles;
mod sessions;
mod talk;
mod tree;
#[path = "../shared/victim.rs"]
mod victim;
#[path = "../shared/wire.rs"]
#[allow(dead_code, reason = "the benchmarks use the rest")]
mod wire;
