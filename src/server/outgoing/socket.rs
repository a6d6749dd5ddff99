//! Sockets to a database, of either kind, without waiting.

use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;

use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;

use crate::postgres::Address;

/// A socket that is connected or about to be.
pub(super) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// How connecting goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Connected,
    Pending,
    /// The error of the system.
    Failed(i32),
}

impl Socket {
    /// Begins to connect. `WouldBlock` when the other side has too many who wait for it already; a unix
    /// socket does not tell when that is over.
    pub(super) fn connect(address: &Address) -> io::Result<Self> {
        Ok(match address {
            Address::Unix(path) => Self::Unix(UnixStream::connect(path)?),
            Address::Abstract(name) => {
                Self::Unix(UnixStream::connect_addr(&SocketAddr::from_abstract_name(name.as_bytes())?)?)
            }
            Address::Tcp { address, .. } => Self::Tcp(TcpStream::connect(*address)?),
        })
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Unix(socket) => registry.register(socket, token, interest),
            Self::Tcp(socket) => registry.register(socket, token, interest),
        }
    }

    /// Whether it is connected, once the poll has said that it can be written to. A unix socket is from the
    /// beginning.
    pub(super) fn progress(&self) -> Progress {
        let Self::Tcp(socket) = self else { return Progress::Connected };
        match socket.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return Progress::Failed(errno(&error)),
        }
        match socket.peer_addr() {
            Ok(_) => {
                // The texts are short, and the other side waits for each.
                let _ = socket.set_nodelay(true);
                Progress::Connected
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Progress::Pending,
            Err(error) => Progress::Failed(errno(&error)),
        }
    }

    /// Who listens at the other end, where that can be told.
    pub(super) fn peer(&self) -> Option<u32> {
        match self {
            Self::Unix(socket) => socket_peercred(socket).ok().map(|peer| peer.uid.as_raw()),
            Self::Tcp(_) => None,
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.read(buffer),
            Self::Tcp(socket) => socket.read(buffer),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.write(bytes),
            Self::Tcp(socket) => socket.write(bytes),
        }
    }
}

/// The number of an error; that of any input or output error where it has none.
pub(super) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(Errno::IO.raw_os_error())
}
