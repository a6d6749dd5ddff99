//! What supervisor and workers say to each other. Both are the same program, so there are no versions.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::server::client::view::SessionState;
use crate::server::event_loop::reports::Report;
use crate::server::releases::lesson::Lesson;
use crate::server::releases::memory::Remembered;
use crate::server::status::document::FileSystemState;

/// Bytes of the longest message.
pub(crate) const LONGEST: usize = 64 << 10;

/// What a supervisor says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// The first message, with two descriptors: what workers exclude each other by, and a
    /// [`Snapshot`](crate::config::snapshot::Snapshot) of the configuration.
    Begin {
        /// The worker's number, from 1 on.
        number: u32,
        /// The mask of modes that the server was started with.
        umask: u32,
    },
    /// What was learned before the worker began.
    Known(Vec<Remembered>),
    /// The release of the pgbackrest that is installed here.
    Installed(String),
    /// Serve the connection that is the descriptor.
    Connection {
        /// Names the connection from now on.
        number: u64,
        /// The other end of it.
        peer: SocketAddr,
    },
    /// Give this connection up, if it is without authorization.
    Evict(u64),
    /// A client taught this to somebody else.
    Lesson(Lesson),
    /// Another worker finished the backup in this directory.
    Finished(String),
    /// Take the configuration over of which the descriptor is a snapshot.
    Reload,
    /// A part of what sessions are to use of the configuration files, which [`ToSupervisor::AsksFiles`] asked for.
    Files(Vec<u8>),
    /// That was all of it.
    AllFiles,
    /// There are no more connections for you: end after those that you have.
    Leave,
    /// Let requests in flight finish, and end.
    Drain,
    /// Tell of your sessions.
    Sessions,
    /// Say that you live.
    Ping,
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToSupervisor {
    /// It serves.
    Ready,
    /// It cannot serve, for this reason, and ends.
    Failed(String),
    /// What has become of connections.
    Report(Report),
    /// A client taught this.
    Lesson(Lesson),
    /// The backup in this directory got its manifest.
    Finished(String),
    /// It has noticed that the configuration files have changed, and asks what sessions are to use of them.
    AsksFiles,
    /// The configuration was taken over; the error if it could not be used.
    Reloaded(Option<String>),
    /// Some of its sessions.
    Sessions(Vec<SessionState>),
    /// Those were all. What it knows of file systems.
    AllSessions(Vec<FileSystemState>),
    /// Somebody wants it to end, after its sessions.
    Leaving,
    /// It lives.
    Alive,
}
