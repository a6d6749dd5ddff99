//! A host of its own address: what a client sends to the relay's port reaches the server from there.
//!
//! Clients cannot choose where they connect from, and everything on this machine comes from
//! 127.0.0.1. The relay passes bytes on and knows nothing of them, so that TLS stays between client
//! and server.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, socket_with};

use super::free_port;

/// Relays connections for as long as it lives.
pub(crate) struct Relay {
    pub(crate) port: u16,
    over: Arc<AtomicBool>,
    peers: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Relay {
    /// Connects to the server at `port` from `address`, a loopback address.
    pub(crate) fn from(address: Ipv4Addr, port: u16) -> Self {
        Self::between(address, SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
    }

    /// Connects to the server at one of its addresses, for clients that look for it at `localhost`.
    pub(crate) fn to(server: SocketAddrV4) -> Self {
        Self::between(Ipv4Addr::LOCALHOST, server)
    }

    fn between(address: Ipv4Addr, server: SocketAddrV4) -> Self {
        let own = free_port();
        let (over, peers) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        // clients try both families of localhost
        for listener in [TcpListener::bind((Ipv4Addr::LOCALHOST, own)), TcpListener::bind((Ipv6Addr::LOCALHOST, own))] {
            let listener = listener.expect("the port is free");
            let (over, peers) = (Arc::clone(&over), Arc::clone(&peers));
            thread::spawn(move || {
                for client in listener.incoming() {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    // a server that does not run is a connection that ends at once
                    if let (Ok(client), Ok(server)) = (client, open(address, server, &peers)) {
                        join(client, server);
                    }
                }
            });
        }
        Self { port: own, over, peers }
    }

    /// Where the server saw connections come from, in the order in which these were begun. Each is told apart
    /// from all others by that.
    pub(crate) fn peers(&self) -> Vec<SocketAddr> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // the listeners wake up to see it
        for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)), (Ipv6Addr::LOCALHOST, self.port).into()] {
            let _ = TcpStream::connect(address);
        }
    }
}

fn open(address: Ipv4Addr, server: SocketAddrV4, peers: &Mutex<Vec<SocketAddr>>) -> io::Result<TcpStream> {
    loop {
        // no program that is started meanwhile keeps it open
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddrV4::new(address, 0))?;
        let own = SocketAddrV4::try_from(getsockname(&socket)?)?.into();
        let mut peers = peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.contains(&own) {
            continue;
        }
        peers.push(own);
        drop(peers);
        connect(&socket, &server)?;
        return Ok(socket.into());
    }
}

fn join(client: TcpStream, server: TcpStream) {
    let pairs = [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))];
    for (from, to) in pairs {
        let (mut from, mut to) = (from.expect("a socket can be shared"), to.expect("a socket can be shared"));
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}
