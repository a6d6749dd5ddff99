//! What a server tells a service manager.

use std::os::unix::net::UnixDatagram;

use super::server::Server;
use super::{SOON, own, wait_until};

/// Listens in the place of a service manager.
pub(crate) struct ServiceManager {
    socket: UnixDatagram,
    told: String,
}

impl ServiceManager {
    /// The one of a server that is not started yet.
    pub(crate) fn of(server: &mut Server) -> Self {
        let path = server.path("notify");
        let socket = UnixDatagram::bind(&path).expect("the socket can be bound");
        own(&path);
        socket.set_nonblocking(true).expect("the socket can be made non-blocking");
        server.environment.push(("NOTIFY_SOCKET".to_owned(), path.display().to_string()));
        Self { socket, told: String::new() }
    }

    /// Waits until it was told a line that begins so.
    #[track_caller]
    pub(crate) fn hears(&mut self, wanted: &str) {
        wait_until(&format!("{wanted} at the service manager"), SOON, || {
            let mut buffer = [0; 4096];
            while let Ok(length) = self.socket.recv(&mut buffer) {
                self.told.push_str(&String::from_utf8_lossy(&buffer[..length]));
                self.told.push('\n');
            }
            self.told.lines().any(|line| line.starts_with(wanted))
        });
    }
}
