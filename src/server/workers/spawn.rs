//! Starting a worker's process.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};

use super::COMMAND;
use crate::process;

/// How a worker is started that obeys the other end of a socket.
pub(crate) type Spawn = Box<dyn FnMut(OwnedFd) -> io::Result<Child>>;

/// Starts this program as a worker with these arguments.
pub(crate) fn spawn_process(arguments: &[String]) -> Spawn {
    let arguments = arguments.to_vec();
    Box::new(move |socket| {
        let mut command = process::again(COMMAND);
        command.args(&arguments).stdin(Stdio::from(socket));
        // What the service manager tells, it tells the supervisor.
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
            command.env_remove(name);
        }
        command.spawn()
    })
}
