//! Reload and shutdown, with configuration files and sockets and without signals.

use super::super::tests::{Client, Closed, anonymous, known};
use super::super::tls::testing::Pki;
use super::*;
use crate::protocol::pack::Writer;
use crate::protocol::string_id::StringId;

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
        memory: Memory::new(None),
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

/// A client in a session of the stanza `demo`, beside the server.
fn with_session(server: &mut Server, pki: &Pki) -> [Client; 1] {
    let mut clients = [Client::connect(server.event_loop.addresses()[0], &known(pki))];
    let mut request = Writer::new();
    request.u32(1).string_id(StringId::new("config")).string_id(StringId::new("prc")).u64(1).null();
    request.pack(|pack| {
        pack.array(|array| {
            for word in [
                "--exec-id=1-12345678",
                "--pg1-path=/pg",
                "--process=0",
                "--remote-type=repo",
                "--repo=1",
                "--stanza=demo",
                "archive-get:remote",
            ] {
                array.str(word);
            }
        });
    });
    clients[0].send(&request.finish());
    let demo = [Some("demo".to_owned())];
    until(server, &mut clients, |_, server| server.event_loop.recent_stanzas() == demo);
    clients
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
fn sigterm_of_a_stranger_shuts_down_when_no_stanza_in_use_is_stopped() {
    let pki = Pki::of_user_guide();
    write_config(&pki, "pgbackrest-client=demo", "");
    let mut server = start(&pki);
    std::fs::create_dir(pki.path("lock")).unwrap();
    std::fs::write(pki.path("lock/other.stop"), "").unwrap();
    let _clients = with_session(&mut server, &pki);
    server.terminate(false);
    assert_ne!(server.phase, Phase::Serving);
}

#[test]
fn stop_force_ends_the_sessions_of_its_stanza_and_not_the_server() {
    let pki = Pki::of_user_guide();
    write_config(&pki, "pgbackrest-client=demo", "");
    let mut server = start(&pki);
    let mut clients = with_session(&mut server, &pki);
    std::fs::create_dir(pki.path("lock")).unwrap();
    std::fs::write(pki.path("lock/demo.stop"), "").unwrap();
    server.terminate(false);
    assert_eq!(server.phase, Phase::Serving);
    until(&mut server, &mut clients, |clients, _| clients[0].closed.is_some());
    assert!(is_greeted(&mut server));
    // The session that the signal was for may be over before the signal is looked at.
    server.terminate(false);
    assert_eq!(server.phase, Phase::Serving);
    server.terminate(true);
    assert_ne!(server.phase, Phase::Serving, "whoever runs the server is obeyed");
}

#[test]
fn a_reload_ends_the_sessions_of_a_client_that_lost_its_grant_unless_that_is_unwanted() {
    for (own, ended) in [("", true), ("[global]\nend-revoked-sessions=n\n", false)] {
        let pki = Pki::of_user_guide();
        write_config(&pki, "pgbackrest-client=demo", "");
        pki.write("repohostd.conf", own);
        let mut server = start(&pki);
        let mut clients = with_session(&mut server, &pki);
        server.replace().unwrap();
        assert!(is_greeted(&mut server));
        assert_eq!(clients[0].closed, None, "nothing was taken from it yet");
        let text = pki.read("pgbackrest.conf");
        pki.write("pgbackrest.conf", &text.replace("client=demo", "client=other"));
        server.replace().unwrap();
        if ended {
            until(&mut server, &mut clients, |clients, _| clients[0].closed == Some(Closed::Clean));
        } else {
            assert!(is_greeted(&mut server));
            clients[0].step();
            assert_eq!(clients[0].closed, None);
        }
    }
}
