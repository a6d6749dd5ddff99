//! The event loop with real sockets and real TLS, driven turn by turn by the test.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;

use super::accept::{ACCEPTS, Acceptor};
use super::listen::{KeepAlive, open_all, resolve};
use super::{Ending, EventLoop, OTHERS};
use crate::disk::inline::{Inline, Options};
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::release::Release;
use crate::server::releases::policy::tests::pinned_to;
use crate::server::service::{Bounds, Service};
use crate::server::tls::testing::{Pki, client_config};
use crate::session::{Authority, Authorized, Host, Limits};

#[path = "learning_tests.rs"]
mod learning;

/// A ping of releases from 2.54 on, and its answer.
pub(crate) const NOOP: &[u8] = &[0x84, 0xa8, 0xe0, 0xbd, 0x8f, 0x04, 0xa8, 0x80, 0xca, 0x03, 0x94, 0x00];
pub(crate) const YES: &[u8] = &[0x94, 0x80, 0x00];
/// More turns than anything here takes; a test that waits for longer has failed.
const TURNS: usize = 20_000;

/// Denies everybody.
struct Nobody;

impl Authority for Nobody {
    fn admit(&self, _names: &[String]) -> Result<(), crate::session::Refusal> {
        Err(Error::access("access denied").into())
    }

    fn authorize(
        &self,
        _release: &'static Release,
        _names: &[String],
        _parameters: &[String],
    ) -> Result<Authorized, crate::session::Refusal> {
        Err(Error::access("access denied").into())
    }
}

/// A service with generous limits.
pub(crate) fn service(pki: &Pki) -> Service {
    let minute = Duration::from_secs(60);
    Service {
        tls: pki.tls(None).unwrap().0,
        authority: Rc::new(Nobody),
        policy: Rc::new(pinned_to(Release::newest())),
        handshake: minute,
        limits: Limits { first_request: minute, idle: minute, listing: 1 << 20, memory: 256 << 20 },
        bounds: Bounds { connections: 2000, per_address: usize::MAX },
    }
}

/// A loop, and what gives it connections.
struct Site {
    event_loop: EventLoop,
    acceptor: Acceptor,
}

impl Deref for Site {
    type Target = EventLoop;

    fn deref(&self) -> &EventLoop {
        &self.event_loop
    }
}

impl DerefMut for Site {
    fn deref_mut(&mut self) -> &mut EventLoop {
        &mut self.event_loop
    }
}

impl Site {
    fn turn(&mut self) {
        let Self { event_loop, acceptor } = self;
        event_loop.turn(Some(Duration::from_millis(1)), |token| acceptor.note(token.0)).unwrap();
        for _ in 0..ACCEPTS {
            let Some((socket, peer)) = acceptor.accept(event_loop.now()) else { return };
            event_loop.admit(socket, peer, None);
        }
    }
}

fn start(service: Service) -> (Site, SocketAddr) {
    let keep_alive = KeepAlive { enabled: true, count: None, idle: None, interval: None };
    let listeners = open_all(&resolve(&["127.0.0.1"], 0).unwrap(), keep_alive, &mut Vec::new()).unwrap();
    let event_loop = EventLoop::new(service, Rc::new(Host::new(1)), Box::new(Inline::new(Options::default()))).unwrap();
    let mut acceptor = Acceptor::new(OTHERS);
    acceptor.listen(event_loop.registry(), listeners).unwrap();
    let address = acceptor.addresses()[0];
    (Site { event_loop, acceptor }, address)
}

/// How a server ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// With `close_notify`.
    Clean,
    /// Without.
    Torn,
}

/// A client that makes progress when it is told to.
pub(crate) struct Client {
    socket: TcpStream,
    pub(crate) tls: ClientConnection,
    pub(crate) received: Vec<u8>,
    pub(crate) closed: Option<Closed>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(Arc::clone(config), name).unwrap();
        Self { socket, tls, received: Vec::new(), closed: None }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.tls.writer().write_all(bytes).unwrap();
    }

    pub(crate) fn step(&mut self) {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return self.end(Closed::Torn),
            }
        }
        match self.tls.read_tls(&mut self.socket) {
            Ok(0) if self.closed.is_none() => self.end(Closed::Torn),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => return self.end(Closed::Torn),
        }
        let Ok(state) = self.tls.process_new_packets() else { return self.end(Closed::Torn) };
        let mut bytes = vec![0; state.plaintext_bytes_to_read()];
        self.tls.reader().read_exact(&mut bytes).unwrap();
        self.received.extend(bytes);
        if state.peer_has_closed() {
            self.closed = Some(Closed::Clean);
        }
    }

    /// Has the end of the connection be a reset.
    fn reset_when_dropped(&self) {
        socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).unwrap();
    }

    fn end(&mut self, how: Closed) {
        self.closed.get_or_insert(how);
    }

    pub(crate) fn greeted(&self) -> bool {
        // Whichever release it names.
        self.received.starts_with(b"{\"name\":\"pgBackRest\",") && self.received.contains(&b'\n')
    }
}

pub(crate) fn anonymous() -> Arc<ClientConfig> {
    Arc::new(client_config(&rustls::version::TLS13, None))
}

pub(crate) fn known(pki: &Pki) -> Arc<ClientConfig> {
    Arc::new(client_config(&rustls::version::TLS12, Some(pki.client("client"))))
}

/// Turns until `done`.
fn until(event_loop: &mut Site, clients: &mut [Client], done: impl Fn(&[Client], &Site) -> bool) {
    for _ in 0..TURNS {
        for client in &mut *clients {
            client.step();
        }
        event_loop.turn();
        if done(clients, event_loop) {
            return;
        }
    }
    panic!("it never happened");
}

#[test]
fn a_client_is_greeted_after_the_handshake_and_a_ping_is_answered() {
    let pki = Pki::of_user_guide();
    let (mut event_loop, address) = start(service(&pki));
    let mut clients = [Client::connect(address, &anonymous())];
    until(&mut event_loop, &mut clients, |clients, _| clients[0].greeted());
    clients[0].send(NOOP);
    until(&mut event_loop, &mut clients, |clients, _| clients[0].closed.is_some());
    assert_eq!(clients[0].closed, Some(Closed::Clean));
    assert!(clients[0].received.ends_with(YES), "{:?}", clients[0].received);
    drop(clients);
    until(&mut event_loop, &mut [], |_, event_loop| event_loop.connections() == 0);
}

#[test]
fn a_client_with_a_certificate_of_version_1_is_greeted_over_tls_1_2() {
    let pki = Pki::of_user_guide();
    let (mut event_loop, address) = start(service(&pki));
    let mut clients = [Client::connect(address, &known(&pki))];
    until(&mut event_loop, &mut clients, |clients, _| clients[0].greeted());
}

#[test]
fn a_silent_connection_is_closed_at_the_deadline_and_others_are_not_affected() {
    let pki = Pki::of_user_guide();
    let short = Service { handshake: Duration::from_secs(1), ..service(&pki) };
    let (mut event_loop, address) = start(short);
    let mut silent: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut clients = [Client::connect(address, &anonymous())];
    until(&mut event_loop, &mut clients, |clients, event_loop| clients[0].greeted() && event_loop.connections() == 1);
    for socket in &mut silent {
        assert_eq!(socket.read(&mut [0]).unwrap(), 0, "closed without a word");
    }
    assert_eq!(clients[0].closed, None);
}

#[test]
fn a_client_that_says_nothing_after_the_handshake_is_told_why_it_is_closed() {
    let pki = Pki::of_user_guide();
    let limits = Limits {
        first_request: Duration::from_millis(30),
        idle: Duration::from_secs(60),
        listing: 1 << 20,
        memory: 256 << 20,
    };
    let (mut event_loop, address) = start(Service { limits, ..service(&pki) });
    let mut clients = [Client::connect(address, &known(&pki))];
    until(&mut event_loop, &mut clients, |clients, _| clients[0].closed.is_some());
    assert_eq!(clients[0].closed, Some(Closed::Clean));
    assert!(clients[0].greeted());
}

#[test]
fn five_hundred_clients_are_served_at_a_time() {
    let _ = crate::server::life::limits::raise_descriptors();
    let pki = Pki::of_user_guide();
    let (mut event_loop, address) = start(service(&pki));
    let config = anonymous();
    let mut clients: Vec<_> = (0..500).map(|_| Client::connect(address, &config)).collect();
    until(&mut event_loop, &mut clients, |clients, _| clients.iter().all(Client::greeted));
    assert_eq!(event_loop.connections(), 500);
    for client in &mut clients {
        client.send(NOOP);
    }
    until(&mut event_loop, &mut clients, |clients, _| clients.iter().all(|client| client.closed.is_some()));
    assert!(clients.iter().all(|client| client.received.ends_with(YES)));
}

#[test]
fn silent_connections_make_room_for_clients_when_the_table_is_full() {
    let pki = Pki::of_user_guide();
    let bounds = Bounds { connections: 4, per_address: usize::MAX };
    let (mut event_loop, address) = start(Service { bounds, ..service(&pki) });
    let silent: Vec<_> = (0..10).map(|_| TcpStream::connect(address).unwrap()).collect();
    until(&mut event_loop, &mut [], |_, event_loop| event_loop.connections() == 4);
    let config = anonymous();
    // One at a time: clients in the handshake would make room for each other.
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::connect(address, &config));
        until(&mut event_loop, &mut clients, |clients, _| clients.iter().all(Client::greeted));
    }
    assert!(clients.iter().all(|client| client.closed.is_none()), "those who are silent for longer go first");
    drop(silent);
}

#[test]
fn clients_that_say_nothing_after_the_handshake_make_room_too() {
    let pki = Pki::of_user_guide();
    let bounds = Bounds { connections: 4, per_address: usize::MAX };
    let (mut event_loop, address) = start(Service { bounds, ..service(&pki) });
    let config = anonymous();
    let mut silent: Vec<_> = (0..4).map(|_| Client::connect(address, &config)).collect();
    until(&mut event_loop, &mut silent, |clients, _| clients.iter().all(Client::greeted));
    let mut clients = [Client::connect(address, &known(&pki))];
    until(&mut event_loop, &mut clients, |clients, _| clients[0].greeted() || clients[0].closed.is_some());
    assert!(clients[0].greeted(), "strangers keep everybody else out");
}

#[test]
fn one_address_cannot_take_more_than_its_share() {
    let pki = Pki::of_user_guide();
    let bounds = Bounds { connections: 2000, per_address: 2 };
    let (mut event_loop, address) = start(Service { bounds, ..service(&pki) });
    let config = anonymous();
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(address, &config)).collect();
    until(&mut event_loop, &mut clients, |clients, _| clients[2].closed.is_some());
    until(&mut event_loop, &mut clients, |clients, _| clients[0].greeted() && clients[1].greeted());
    clients.remove(0);
    until(&mut event_loop, &mut clients, |_, event_loop| event_loop.connections() == 1);
    clients[1] = Client::connect(address, &config);
    until(&mut event_loop, &mut clients, |clients, _| clients[1].greeted());
}

#[test]
fn who_does_not_speak_tls_is_closed_at_once() {
    let pki = Pki::of_user_guide();
    let (mut event_loop, address) = start(service(&pki));
    let mut socket = TcpStream::connect(address).unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    until(&mut event_loop, &mut [], |_, event_loop| event_loop.connections() == 1);
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut answer = Vec::new();
    // The loop has sent its alert and shut its side down, so this ends.
    until(&mut event_loop, &mut [], |_, _| true);
    socket.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.first(), Some(&21), "a TLS alert: {answer:?}");
    drop(socket);
    until(&mut event_loop, &mut [], |_, event_loop| event_loop.connections() == 0);
}

#[test]
fn a_client_that_ends_its_side_with_its_first_bytes_is_not_waited_for() {
    let pki = Pki::of_user_guide();
    let (mut event_loop, address) = start(service(&pki));
    let mut socket = TcpStream::connect(address).unwrap();
    // Both are there before the loop looks, and it hears of them together.
    socket.write_all(&[22, 3, 1]).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    until(&mut event_loop, &mut [], |_, event_loop| event_loop.connections() == 1);
    until(&mut event_loop, &mut [], |_, event_loop| event_loop.connections() == 0);
}

#[test]
fn a_client_that_vanishes_leaves_nothing_behind() {
    let pki = Pki::of_user_guide();
    let (mut event_loop, address) = start(service(&pki));
    let config = known(&pki);
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(address, &config)).collect();
    until(&mut event_loop, &mut clients, |clients, _| clients.iter().all(Client::greeted));
    // Half a request, and gone.
    for client in &mut clients {
        client.send(&NOOP[..5]);
        client.step();
    }
    drop(clients);
    until(&mut event_loop, &mut [], |_, event_loop| event_loop.connections() == 0);
}

#[test]
fn a_shutdown_tells_idle_clients_and_ends_the_handshakes() {
    let pki = Pki::of_user_guide();
    let (mut event_loop, address) = start(service(&pki));
    let silent = TcpStream::connect(address).unwrap();
    let mut clients = [Client::connect(address, &known(&pki))];
    until(&mut event_loop, &mut clients, |clients, event_loop| clients[0].greeted() && event_loop.connections() == 2);
    event_loop.end(Ending::Drain, |_| Some(Error::new(Code::Term, "terminated on signal SIGTERM")));
    until(&mut event_loop, &mut clients, |clients, _| clients[0].closed.is_some());
    assert_eq!(clients[0].closed, Some(Closed::Clean));
    drop((clients, silent));
    until(&mut event_loop, &mut [], |_, event_loop| event_loop.connections() == 0);
}
