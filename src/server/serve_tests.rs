//! Reload and shutdown, with configuration files and sockets and without signals.

use super::super::tests::{Client, Closed, anonymous};
use super::super::tls::testing::Pki;
use super::*;

/// More turns than anything here takes.
const TURNS: usize = 20_000;

fn write_config(pki: &Pki, auth: &str, further: &str) {
    let file = |name: &str| pki.path(name).display().to_string();
    let text = format!(
        "[global]\ntls-server-address=127.0.0.1\ntls-server-port=1\ntls-server-auth={auth}\n\
         tls-server-cert-file={}\ntls-server-key-file={}\ntls-server-ca-file={}\nlog-level-file=off\n\
         log-level-console=off\nallow-root=y\nlock-path={}\n{further}",
        file("server.crt"),
        file("server.key"),
        file("ca.crt"),
        file("lock"),
    );
    pki.write("pgbackrest.conf", &text);
}

/// A server on a port of the system's choice; the configuration's own port is only a placeholder.
fn start(pki: &Pki) -> Server {
    let arguments = vec![format!("--config={}", pki.path("pgbackrest.conf").display())];
    let environment = Environment::default();
    let mut configuration = Configuration::load(&arguments, &environment).unwrap();
    let service = configuration.service(None).unwrap();
    let mut event_loop = EventLoop::new(service, Box::new(Inline::new(Options::default()))).unwrap();
    let any_port = listen::resolve(&["127.0.0.1"], 0).unwrap();
    event_loop.listen(listen::open_all(&any_port, configuration.keep_alive(), &mut Vec::new()).unwrap()).unwrap();
    let port = event_loop.addresses()[0].port();
    let text = pki.read("pgbackrest.conf").replace("tls-server-port=1\n", &format!("tls-server-port={port}\n"));
    pki.write("pgbackrest.conf", &text);
    Server {
        arguments,
        environment,
        descriptors: None,
        event_loop,
        notify: Notify::from_environment(),
        configuration,
        phase: Phase::Serving,
        stop_watch: None,
    }
}

fn until(server: &mut Server, clients: &mut [Client], done: impl Fn(&[Client], &mut Server) -> bool) {
    for _ in 0..TURNS {
        for client in &mut *clients {
            client.step();
        }
        server.event_loop.turn(Some(Duration::from_millis(1))).unwrap();
        if done(clients, server) {
            return;
        }
    }
    panic!("it never happened");
}

fn is_greeted(server: &mut Server) -> bool {
    let mut clients = [Client::connect(server.event_loop.addresses()[0], &anonymous())];
    until(server, &mut clients, |clients, _| clients[0].greeted() || clients[0].closed.is_some());
    clients[0].greeted()
}

#[test]
fn a_reload_with_a_broken_certificate_changes_nothing() {
    let pki = Pki::of_user_guide();
    write_config(&pki, "pgbackrest-client=demo", "");
    let mut server = start(&pki);
    let before = server.event_loop.addresses();
    let good = pki.read("server.crt");
    pki.write("server.crt", "no certificate");
    let error = server.replace().unwrap_err();
    assert_eq!(error.code, Code::Crypto);
    assert_eq!(server.event_loop.addresses(), before);
    assert!(is_greeted(&mut server), "the server goes on with the certificate that it had");
    pki.write("server.crt", &good);
    server.replace().unwrap();
    assert!(is_greeted(&mut server));
}

#[test]
fn a_reload_with_a_bad_option_changes_nothing_and_a_good_one_takes_effect() {
    let pki = Pki::of_user_guide();
    write_config(&pki, "pgbackrest-client=demo", "");
    let mut server = start(&pki);
    let names = ["pgbackrest-client".to_owned()];
    let text = pki.read("pgbackrest.conf");
    pki.write("pgbackrest.conf", &text.replace("tls-server-port=", "tls-server-port=x"));
    assert_eq!(server.replace().unwrap_err().code, Code::OptionInvalidValue);
    assert!(server.configuration.authority.grants(&names, Some("demo")));
    pki.write("pgbackrest.conf", &text.replace("client=demo", "client=other"));
    server.replace().unwrap();
    assert!(!server.configuration.authority.grants(&names, Some("demo")));
    assert!(server.configuration.authority.grants(&names, Some("other")));
    assert!(is_greeted(&mut server));
}

#[test]
fn a_reload_that_cannot_bind_keeps_the_old_listeners() {
    let pki = Pki::of_user_guide();
    write_config(&pki, "pgbackrest-client=demo", "");
    let mut server = start(&pki);
    let before = server.event_loop.addresses();
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = pki.read("pgbackrest.conf");
    let other = format!("tls-server-port={}\n", busy.local_addr().unwrap().port());
    pki.write("pgbackrest.conf", &text.replace(&format!("tls-server-port={}\n", before[0].port()), &other));
    assert_eq!(server.replace().unwrap_err().to_string(), "[041]: unable to bind socket: [98] Address already in use");
    assert_eq!(server.event_loop.addresses(), before);
    assert!(is_greeted(&mut server));
}

#[test]
fn a_reload_does_not_lose_connections_that_wait_to_be_accepted() {
    let pki = Pki::of_user_guide();
    write_config(&pki, "pgbackrest-client=demo", "");
    let mut server = start(&pki);
    let mut clients = [Client::connect(server.event_loop.addresses()[0], &anonymous())];
    server.replace().unwrap();
    until(&mut server, &mut clients, |clients, _| clients[0].greeted());
}

#[test]
fn sigterm_stops_listening_tells_the_clients_and_ends() {
    let pki = Pki::of_user_guide();
    write_config(&pki, "pgbackrest-client=demo", "");
    let mut server = start(&pki);
    let address = server.event_loop.addresses()[0];
    let mut clients = vec![Client::connect(address, &anonymous())];
    until(&mut server, &mut clients, |clients, _| clients[0].greeted());
    server.terminate(true);
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
    assert!(!server.is_over());
    until(&mut server, &mut clients, |clients, _| clients[0].closed.is_some());
    assert_eq!(clients[0].closed, Some(Closed::Clean));
    clients.clear();
    until(&mut server, &mut clients, |_, server| server.is_over());
}

#[test]
fn sigterm_of_a_stranger_shuts_down_unless_a_stanza_in_use_is_stopped() {
    let pki = Pki::of_user_guide();
    write_config(&pki, "pgbackrest-client=demo", "");
    let mut server = start(&pki);
    std::fs::create_dir(pki.path("lock")).unwrap();
    std::fs::write(pki.path("lock/demo.stop"), "").unwrap();
    server.terminate(false);
    assert_ne!(server.phase, Phase::Serving, "nobody uses the stopped stanza");
}
