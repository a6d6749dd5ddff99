//! Requests on a real directory, without sockets: texts of errors as the original words them, what a
//! client may reach, and a connection that stays usable whatever fails.

mod bounds;
mod errors;
mod reach;
mod sessions;
mod talk;
