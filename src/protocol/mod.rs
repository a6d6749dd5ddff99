//! The wire, without I/O: packs, string ids, the greeting, releases, requests and responses.
//!
//! Nothing here knows a socket, a file or a clock. The source of every layout is the protocol
//! specification (`protocol.md`), checked against recorded answers of real servers by
//! `tests/golden`.

pub mod carried;
pub mod database;
pub mod errno;
pub mod error;
pub mod filter;
pub mod framing;
pub mod pack;
pub mod release;
pub mod request;
pub mod response;
pub mod string_id;
