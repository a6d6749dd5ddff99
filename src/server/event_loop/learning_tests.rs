//! What a server learns from real connections, driven turn by turn.

use std::rc::Rc;
use std::sync::Arc;

use rustls::ClientConfig;

use super::super::Ending;
use super::{Client, NOOP, Site, YES, anonymous, known, service, start, until};
use crate::config::OwnSettings;
use crate::protocol::error::{Code, Error};
use crate::protocol::framing::Framing;
use crate::protocol::release::Release;
use crate::server::releases::policy::Policy;
use crate::server::service::Service;
use crate::server::tls::testing::Pki;

/// A server that is told the order of what it tries, and where it is.
fn learning(pki: &Pki, releases: &[&str]) -> (Site, std::net::SocketAddr) {
    let releases = releases.iter().map(|release| (*release).to_owned()).collect();
    let own = OwnSettings { releases, ..OwnSettings::default() };
    start(Service { policy: Rc::new(Policy::new(&own).unwrap()), ..service(pki) })
}

fn greeted_with(client: &Client) -> Option<String> {
    let line = client.received.split(|byte| *byte == b'\n').next()?;
    let greeting: serde_json::Value = serde_json::from_slice(line).ok()?;
    Some(greeting.get("version")?.as_str()?.to_owned())
}

/// The release that a new client is greeted with; it stays connected.
fn greet(event_loop: &mut Site, address: std::net::SocketAddr, config: &Arc<ClientConfig>) -> (Client, String) {
    let mut clients = [Client::connect(address, config)];
    until(event_loop, &mut clients, |clients, _| clients[0].greeted());
    let version = greeted_with(&clients[0]).unwrap();
    let [client] = clients;
    (client, version)
}

/// How clients leave.
#[derive(Clone, Copy, PartialEq)]
enum Leaving {
    /// As pgBackRest does that refuses a greeting: it has read everything and closes.
    Silently,
    /// As most monitors do: with `close_notify`.
    Politely,
    /// As `HAProxy` does: with a reset.
    ByReset,
}

/// Has clients leave, and waits until the server has noticed.
fn leave(event_loop: &mut Site, mut clients: Vec<Client>, how: Leaving) {
    let before = event_loop.connections() - clients.len();
    for client in &mut clients {
        match how {
            Leaving::Silently => {}
            Leaving::Politely => {
                client.tls.send_close_notify();
                client.step();
            }
            Leaving::ByReset => client.reset_when_dropped(),
        }
    }
    drop(clients);
    until(event_loop, &mut [], |_, event_loop| event_loop.connections() == before);
}

#[test]
fn a_client_that_hangs_up_is_greeted_with_another_release_next_time() {
    let pki = Pki::of_user_guide();
    for config in [known(&pki), anonymous()] {
        let (mut event_loop, address) = learning(&pki, &["2.55.1", "2.60.0"]);
        let (client, first) = greet(&mut event_loop, address, &config);
        assert_eq!(first, "2.55.1");
        leave(&mut event_loop, vec![client], Leaving::Silently);
        assert_eq!(greet(&mut event_loop, address, &config).1, "2.60.0");
    }
}

/// The greeting of a release that speaks first included.
#[test]
fn a_monitor_that_looks_whether_there_is_tls_has_refused_nothing() {
    let pki = Pki::of_user_guide();
    for config in [known(&pki), anonymous()] {
        for how in [Leaving::Politely, Leaving::ByReset] {
            for first in ["2.55.1", "2.45"] {
                let (mut event_loop, address) = learning(&pki, &[first, "2.60.0"]);
                for _ in 0..3 {
                    let (client, version) = greet(&mut event_loop, address, &config);
                    assert_eq!(version, first);
                    leave(&mut event_loop, vec![client], how);
                }
            }
        }
    }
}

#[test]
fn eight_clients_that_hang_up_together_count_once() {
    let pki = Pki::of_user_guide();
    let (mut event_loop, address) = learning(&pki, &["2.55.1", "2.60.0"]);
    let clients: Vec<_> = (0..8).map(|_| greet(&mut event_loop, address, &known(&pki)).0).collect();
    leave(&mut event_loop, clients, Leaving::Silently);
    assert_eq!(greet(&mut event_loop, address, &known(&pki)).1, "2.60.0");
}

#[test]
fn a_ping_that_is_answered_teaches_for_clients_with_a_certificate() {
    let pki = Pki::of_user_guide();
    let (mut event_loop, address) = learning(&pki, &["2.55.1", "2.60.0"]);
    let (client, _) = greet(&mut event_loop, address, &anonymous());
    leave(&mut event_loop, vec![client], Leaving::Silently);
    let (client, version) = greet(&mut event_loop, address, &anonymous());
    assert_eq!(version, "2.60.0");
    let mut clients = [client];
    clients[0].send(NOOP);
    until(&mut event_loop, &mut clients, |clients, _| clients[0].closed.is_some());
    assert!(clients[0].received.ends_with(YES));
    assert_eq!(greet(&mut event_loop, address, &known(&pki)).1, "2.60.0");
}

#[test]
fn who_does_not_get_through_the_handshake_teaches_nothing() {
    let pki = Pki::of_user_guide();
    let (mut event_loop, address) = learning(&pki, &["2.55.1", "2.60.0"]);
    for _ in 0..3 {
        let client = Client::connect(address, &anonymous());
        until(&mut event_loop, &mut [], |_, event_loop| event_loop.connections() == 1);
        drop(client);
        until(&mut event_loop, &mut [], |_, event_loop| event_loop.connections() == 0);
    }
    assert_eq!(greet(&mut event_loop, address, &anonymous()).1, "2.55.1");
}

#[test]
fn who_is_sent_away_by_the_server_has_refused_nothing() {
    let pki = Pki::of_user_guide();
    let (mut event_loop, address) = learning(&pki, &["2.55.1", "2.60.0"]);
    for ending in [Ending::Drain, Ending::Abort] {
        let mut clients = [greet(&mut event_loop, address, &known(&pki)).0];
        event_loop.end(ending, |_| Some(Error::new(Code::Term, "terminated on signal SIGTERM")));
        until(&mut event_loop, &mut clients, |clients, _| clients[0].closed.is_some());
        drop(clients);
        until(&mut event_loop, &mut [], |_, event_loop| event_loop.connections() == 0);
    }
    assert_eq!(greet(&mut event_loop, address, &known(&pki)).1, "2.55.1");
}

/// Servers up to 2.53.1 answer a ping before it has asked. Whoever refuses the greeting would leave that answer
/// unread and reset the connection, as a monitor does.
#[test]
fn a_ping_of_an_old_release_is_answered_when_it_has_asked() {
    let pki = Pki::of_user_guide();
    let old = Release::find("2.45").unwrap();
    assert_eq!(old.framing, Framing::Classic);
    for accepts in [true, false] {
        let (mut event_loop, address) = learning(&pki, &["2.45", "2.60.0"]);
        let (client, version) = greet(&mut event_loop, address, &anonymous());
        assert_eq!(version, "2.45");
        assert!(client.received.ends_with(b"\n"), "nothing follows the greeting");
        let mut clients = [client];
        if accepts {
            clients[0].send(&[0x88, 0x02, 0xa8, 0xe0, 0xbd, 0x8f, 0x04, 0x00]);
            until(&mut event_loop, &mut clients, |clients, _| clients[0].closed.is_some());
            assert!(clients[0].received.ends_with(&[0x84, 0x00]));
        }
        leave(&mut event_loop, Vec::from(clients), Leaving::Silently);
        let next = if accepts { "2.45" } else { "2.60.0" };
        assert_eq!(greet(&mut event_loop, address, &anonymous()).1, next);
    }
}
