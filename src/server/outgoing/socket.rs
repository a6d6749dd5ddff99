//! Sockets to a database, of either kind, without waiting.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;

use mio::net::{TcpStream, UnixStream};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;

use crate::postgres::Address;

/// A socket that is connected or about to be.
pub(super) struct Socket {
    socket: socket2::Socket,
    is_tcp: bool,
}

impl Socket {
    /// Begins to connect. `WouldBlock` when the other side has too many who wait for it already; a unix
    /// socket does not tell when that is over.
    pub(super) fn connect(address: &Address) -> io::Result<Self> {
        let socket: OwnedFd = match address {
            Address::Unix(path) => UnixStream::connect(path)?.into(),
            Address::Abstract(name) => {
                UnixStream::connect_addr(&SocketAddr::from_abstract_name(name.as_bytes())?)?.into()
            }
            Address::Tcp { address, .. } => TcpStream::connect(*address)?.into(),
        };
        Ok(Self { socket: socket.into(), is_tcp: matches!(address, Address::Tcp { .. }) })
    }

    pub(super) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.socket.as_raw_fd()), token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Whether it is connected, once the poll has said that it can be written to. A unix socket is from the
    /// beginning.
    pub(super) fn is_connected(&self) -> Result<bool, i32> {
        if !self.is_tcp {
            return Ok(true);
        }
        if let Ok(Some(error)) | Err(error) = self.socket.take_error() {
            return Err(errno(&error));
        }
        match self.socket.peer_addr() {
            Ok(_) => {
                // The texts are short, and the other side waits for each.
                let _ = self.socket.set_tcp_nodelay(true);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(errno(&error)),
        }
    }

    /// Who listens at the other end, where that can be told.
    pub(super) fn peer(&self) -> Option<u32> {
        if self.is_tcp { None } else { socket_peercred(&self.socket).ok().map(|peer| peer.uid.as_raw()) }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buffer)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }
}

/// The number of an error; that of any input or output error where it has none.
pub(super) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(Errno::IO.raw_os_error())
}
