//! Reload and shutdown, with configuration files and sockets and without signals.

use super::*;
use crate::config::Role;
use crate::disk::inline::Options;
use crate::protocol::error::Code;
use crate::protocol::pack::Writer;
use crate::protocol::release::Release;
use crate::protocol::string_id::StringId;
use crate::server::event_loop::EventLoop;
use crate::server::event_loop::tests::{Client, Closed, NOOP, YES, anonymous, known};
use crate::server::life::serving::{Phase, Serving, new_host};
use crate::server::tls::testing::Pki;

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

/// A server of one process.
struct Server {
    front: Front,
    serving: Serving,
}

impl Server {
    fn addresses(&self) -> Vec<SocketAddr> {
        self.front.acceptor.addresses()
    }

    fn replace(&mut self) -> Result<()> {
        self.front.replace(&mut self.serving)
    }

    fn remember(&mut self) {
        self.front.remember(&mut self.serving);
    }

    fn terminate(&mut self, certain: bool) {
        self.front.terminate(certain, &mut self.serving);
    }
}

/// A server on a port of the system's choice; the configuration's own port is only a placeholder.
fn start(pki: &Pki) -> Server {
    // The clients of these tests speak as the newest release does.
    let release = format!("--release={}", Release::newest().version);
    let arguments = vec![format!("--config={}", pki.path("pgbackrest.conf").display()), release];
    let environment = Environment::default();
    let mut configuration = Configuration::load(&arguments, &environment, &Origin::Disk).unwrap();
    let service = configuration.service(None, &Origin::Disk).unwrap();
    let event_loop =
        EventLoop::new(service, new_host(), Box::new(crate::disk::inline::Inline::new(Options::default()))).unwrap();
    let any_port = listen::resolve(&["127.0.0.1"], 0).unwrap();
    let listeners = listen::open_all(&any_port, configuration.keep_alive(), &mut Vec::new()).unwrap();
    let port = listeners[0].socket.local_addr().unwrap().port();
    let text = pki.read("pgbackrest.conf").replace("tls-server-port=1\n", &format!("tls-server-port={port}\n"));
    pki.write("pgbackrest.conf", &text);
    let serving = Serving::with(event_loop, configuration);
    let opened = Opened { signals: None, listeners, inherited: false, descriptors: None };
    let front = Front::new(&serving, opened, &arguments, &environment).unwrap();
    Server { front: Front { phase: super::Phase::Serving, ..front }, serving }
}

fn until(server: &mut Server, clients: &mut [Client], done: impl Fn(&[Client], &mut Server) -> bool) {
    for _ in 0..TURNS {
        for client in &mut *clients {
            client.step();
        }
        server.front.turn(&mut server.serving, Some(Duration::from_millis(1))).unwrap();
        if done(clients, server) {
            return;
        }
    }
    panic!("it never happened");
}

/// A client that holds the locks of the stanza `demo`, beside the server.
fn with_session(server: &mut Server, pki: &Pki) -> [Client; 1] {
    let mut clients = [Client::connect(server.addresses()[0], &known(pki))];
    clients[0].send(&config_request(0));
    clients[0].send(NOOP);
    let demo = [Some("demo".to_owned())];
    until(server, &mut clients, |_, server| server.serving.event_loop.locked_stanzas() == demo);
    clients
}

/// Whether the first client was told that it has no right to its session any more.
fn is_told(clients: &[Client]) -> bool {
    String::from_utf8_lossy(&clients[0].received).contains("access denied")
}

/// The first request of a client's main process, 0, or of one of its workers.
fn config_request(process: u32) -> Vec<u8> {
    let process = format!("--process={process}");
    let mut request = Writer::new();
    request.u32(1).string_id(StringId::new("config")).string_id(StringId::new("prc")).u64(1).null();
    request.pack(|pack| {
        pack.array(|array| {
            for word in [
                "--exec-id=1-12345678",
                "--pg1-path=/pg",
                &process,
                "--remote-type=repo",
                "--repo=1",
                "--stanza=demo",
                "archive-push:remote",
            ] {
                array.str(word);
            }
        });
    });
    request.finish()
}

fn request(command: &str, kind: &str, session: u64, open: bool, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut request = Writer::new();
    request.u32(1).string_id(StringId::new(command)).string_id(StringId::new(kind)).u64(session).bool(open);
    request.pack(fill);
    request.finish()
}

/// Begins to write a file of the stanza under its own name.
fn open_write(path: &std::path::Path, session: u64) -> Vec<u8> {
    request("s-wr", "opn", session, false, |pack| {
        pack.str(path.to_str().unwrap()).mode_default(0o640, 0).mode_default(0o750, 0).null().null().time(0);
        pack.bool(true).bool(false).bool(false).bool(false).pack(|_| {});
    })
}

fn is_greeted(server: &mut Server) -> bool {
    let mut clients = [Client::connect(server.addresses()[0], &anonymous())];
    until(server, &mut clients, |clients, _| clients[0].greeted() || clients[0].closed.is_some());
    clients[0].greeted()
}

#[test]
fn a_reload_with_a_broken_certificate_changes_nothing() {
    let pki = Pki::of_user_guide();
    write_config(&pki, "pgbackrest-client=demo", "");
    let mut server = start(&pki);
    let before = server.addresses();
    let good = pki.read("server.crt");
    pki.write("server.crt", "no certificate");
    let error = server.replace().unwrap_err();
    assert_eq!(error.code, Code::Crypto);
    assert_eq!(server.addresses(), before);
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
    assert!(server.serving.configuration.authority.grants(&names, Some("demo"), Role::Admin));
    pki.write("pgbackrest.conf", &text.replace("client=demo", "client=other"));
    server.replace().unwrap();
    assert!(!server.serving.configuration.authority.grants(&names, Some("demo"), Role::Admin));
    assert!(server.serving.configuration.authority.grants(&names, Some("other"), Role::Admin));
    assert!(is_greeted(&mut server));
}

#[test]
fn a_reload_that_cannot_bind_keeps_the_old_listeners() {
    let pki = Pki::of_user_guide();
    write_config(&pki, "pgbackrest-client=demo", "");
    let mut server = start(&pki);
    let before = server.addresses();
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = pki.read("pgbackrest.conf");
    let address = busy.local_addr().unwrap();
    let other = format!("tls-server-port={}\n", address.port());
    pki.write("pgbackrest.conf", &text.replace(&format!("tls-server-port={}\n", before[0].port()), &other));
    let text = server.replace().unwrap_err().to_string();
    assert!(
        text.starts_with(&format!("[041]: unable to bind socket to {address}: [98] Address already in use\n")),
        "{text}"
    );
    assert_eq!(server.addresses(), before);
    assert!(is_greeted(&mut server));
}

#[test]
fn a_reload_does_not_lose_connections_that_wait_to_be_accepted() {
    let pki = Pki::of_user_guide();
    write_config(&pki, "pgbackrest-client=demo", "");
    let mut server = start(&pki);
    let mut clients = [Client::connect(server.addresses()[0], &anonymous())];
    server.replace().unwrap();
    until(&mut server, &mut clients, |clients, _| clients[0].greeted());
}

#[test]
fn sigterm_stops_listening_tells_the_clients_and_ends() {
    let pki = Pki::of_user_guide();
    write_config(&pki, "pgbackrest-client=demo", "");
    let mut server = start(&pki);
    let address = server.addresses()[0];
    let mut clients = vec![Client::connect(address, &anonymous())];
    until(&mut server, &mut clients, |clients, _| clients[0].greeted());
    server.terminate(true);
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
    assert!(!server.serving.is_over());
    until(&mut server, &mut clients, |clients, _| clients[0].closed.is_some());
    assert_eq!(clients[0].closed, Some(Closed::Clean));
    clients.clear();
    until(&mut server, &mut clients, |_, server| server.serving.is_over());
}

#[test]
fn sigterm_of_a_stranger_shuts_down_when_no_stanza_in_use_is_stopped() {
    let pki = Pki::of_user_guide();
    write_config(&pki, "pgbackrest-client=demo", "");
    let mut server = start(&pki);
    std::fs::create_dir_all(pki.path("lock")).unwrap();
    std::fs::write(pki.path("lock/other.stop"), "").unwrap();
    let _clients = with_session(&mut server, &pki);
    server.terminate(false);
    assert_ne!(server.serving.phase, Phase::Serving);
}

#[test]
fn stop_force_ends_the_sessions_of_its_stanza_and_not_the_server() {
    let pki = Pki::of_user_guide();
    write_config(&pki, "pgbackrest-client=demo", "");
    let mut server = start(&pki);
    let [locked] = with_session(&mut server, &pki);
    let connect = |server: &Server, process| {
        let mut client = Client::connect(server.addresses()[0], &known(&pki));
        client.send(&config_request(process));
        client.send(NOOP);
        client
    };
    let mut clients = [locked, connect(&server, 1)];
    let answered = |client: &Client| client.received.ends_with(YES);
    until(&mut server, &mut clients, |clients, _| answered(&clients[1]));
    std::fs::write(pki.path("lock/demo.stop"), "").unwrap();
    for lock in std::fs::read_dir(pki.path("lock")).unwrap().flatten() {
        if lock.path().extension().is_some_and(|extension| extension == "lock") {
            std::fs::remove_file(lock.path()).unwrap();
        }
    }
    server.terminate(false);
    assert_eq!(server.serving.phase, Phase::Serving);
    until(&mut server, &mut clients, |clients, _| clients[0].closed.is_some());
    assert!(is_greeted(&mut server));
    // Who comes while the server looks for further locks that are gone is told of the stop file.
    let [_, worker] = clients;
    let mut clients = [worker, connect(&server, 0)];
    server.serving.end_stopped();
    until(&mut server, &mut clients, |clients, _| clients[1].closed.is_some());
    assert!(String::from_utf8_lossy(&clients[1].received).contains("stop file exists for stanza demo"));
    server.serving.end_stopped();
    assert_eq!(clients[0].closed, None, "a session without a lock is nobody's to stop");
    // The session that the signal was for may be over before the signal is looked at.
    server.terminate(false);
    assert_eq!(server.serving.phase, Phase::Serving);
    server.terminate(true);
    assert_ne!(server.serving.phase, Phase::Serving, "whoever runs the server is obeyed");
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
        let received = clients[0].received.len();
        clients[0].send(NOOP);
        until(&mut server, &mut clients, |clients, _| {
            is_told(clients) || (!ended && clients[0].received.len() > received)
        });
        assert_eq!((is_told(&clients), clients[0].closed), (ended, None));
    }
}

#[test]
fn a_reload_ends_the_sessions_of_a_client_whose_certificate_was_revoked_or_whose_authority_is_gone() {
    let revoke = |pki: &Pki| {
        pki.write("index.txt", "");
        pki.write("ca.conf", "[ca]\ndefault_ca=it\n[it]\ndatabase=index.txt\ndefault_md=sha256\n");
        for command in ["ca -config ca.conf -revoke client.crt", "ca -config ca.conf -gencrl -crldays 9 -out list.crl"]
        {
            pki.openssl(&format!("{command} -keyfile ca.key -cert ca.crt"));
        }
        pki.write("repohostd.conf", &format!("[global]\ncrl-file={}\n", pki.path("list.crl").display()));
    };
    let replace_authority = |pki: &Pki| {
        pki.authority("other", "/CN=other-ca");
        pki.write("ca.crt", &pki.read("other.crt"));
    };
    for (name, change) in [("revoked", &revoke as &dyn Fn(&Pki)), ("authority gone", &replace_authority)] {
        let pki = Pki::of_user_guide();
        write_config(&pki, "pgbackrest-client=demo", "");
        let mut server = start(&pki);
        let mut clients = with_session(&mut server, &pki);
        change(&pki);
        server.replace().unwrap();
        clients[0].send(NOOP);
        until(&mut server, &mut clients, |clients, _| is_told(clients));
        assert_eq!(clients[0].closed, None, "{name}");
    }
}

#[test]
fn a_stanza_that_was_stopped_long_ago_does_not_keep_the_administrator_from_ending_the_server() {
    let pki = Pki::of_user_guide();
    write_config(&pki, "pgbackrest-client=demo", "");
    let mut server = start(&pki);
    std::fs::create_dir_all(pki.path("lock")).unwrap();
    std::fs::write(pki.path("lock/demo.stop"), "").unwrap();
    // A cluster that goes on to archive is refused again and again.
    let mut clients = [Client::connect(server.addresses()[0], &known(&pki))];
    clients[0].send(&config_request(0));
    clients[0].send(NOOP);
    until(&mut server, &mut clients, |clients, _| clients[0].closed.is_some());
    server.terminate(false);
    assert_ne!(server.serving.phase, Phase::Serving);
}

#[test]
fn a_client_that_connected_before_a_reload_is_judged_by_the_new_grants() {
    let pki = Pki::of_user_guide();
    write_config(&pki, "pgbackrest-client=demo", "");
    let mut server = start(&pki);
    let mut clients = [Client::connect(server.addresses()[0], &known(&pki))];
    until(&mut server, &mut clients, |clients, _| clients[0].greeted());
    let text = pki.read("pgbackrest.conf");
    pki.write("pgbackrest.conf", &text.replace("client=demo", "client=other"));
    server.replace().unwrap();
    clients[0].send(&config_request(0));
    until(&mut server, &mut clients, |clients, _| clients[0].closed.is_some());
    assert!(server.serving.event_loop.locked_stanzas().is_empty());
    assert!(String::from_utf8_lossy(&clients[0].received).contains("access denied"));
}

#[test]
fn strangers_do_not_take_the_place_of_a_session() {
    let pki = Pki::of_user_guide();
    write_config(&pki, "pgbackrest-client=demo", "");
    pki.write("repohostd.conf", "[global]\nconnection-max=1\n");
    let mut server = start(&pki);
    let mut clients = with_session(&mut server, &pki);
    assert!(!is_greeted(&mut server));
    clients[0].step();
    assert_eq!(clients[0].closed, None);
}

#[test]
fn a_client_whose_block_is_followed_by_garbage_is_told_so_at_once() {
    let pki = Pki::of_user_guide();
    let repository = pki.path("repository");
    write_config(&pki, "pgbackrest-client=demo", &format!("repo1-path={}\n", repository.display()));
    let mut server = start(&pki);
    // A worker, which holds no lock whose release would give it another turn.
    let mut clients = [Client::connect(server.addresses()[0], &known(&pki))];
    clients[0].send(&config_request(1));
    clients[0].send(NOOP);
    let file = repository.join("archive/demo/file");
    clients[0].send(&open_write(&file, 7));
    until(&mut server, &mut clients, |_, _| file.exists());
    // As much as is written at once, so that nothing but the end is left after the disk has its part.
    let mut block = request("s-wr", "prc", 7, true, |pack| _ = pack.bin(&vec![1; 256 << 10]));
    let end = block.len() - 2;
    block[end] = 0xff;
    for part in block.chunks(16 << 10) {
        clients[0].send(part);
        until(&mut server, &mut clients, |_, _| true);
    }
    until(&mut server, &mut clients, |clients, _| clients[0].closed.is_some());
    assert_eq!(clients[0].closed, Some(Closed::Clean));
    let received = String::from_utf8_lossy(&clients[0].received).into_owned();
    assert!(received.contains("unexpected field"), "{received}");
}

#[test]
fn a_client_that_lost_its_grant_cannot_go_on_by_leaving_a_file_open() {
    let pki = Pki::of_user_guide();
    let repository = pki.path("repository");
    write_config(&pki, "pgbackrest-client=demo", &format!("repo1-path={}\n", repository.display()));
    let mut server = start(&pki);
    let mut clients = with_session(&mut server, &pki);
    let file = repository.join("archive/demo/file");
    clients[0].send(&open_write(&file, 7));
    until(&mut server, &mut clients, |_, _| file.exists());
    let text = pki.read("pgbackrest.conf");
    pki.write("pgbackrest.conf", &text.replace("client=demo", "client=other"));
    server.replace().unwrap();
    let path = file.to_str().unwrap();
    clients[0].send(&request("s-r", "prc", 8, false, |pack| _ = pack.str(path).bool(false)));
    until(&mut server, &mut clients, |clients, _| is_told(clients));
    assert!(file.exists(), "it was removed without a grant");
    assert!(String::from_utf8_lossy(&clients[0].received).contains("no longer grants it"));
}

/// Teaches a server that a client of the newest release is at this address.
fn teach(server: &mut Server) {
    let mut clients = [Client::connect(server.addresses()[0], &anonymous())];
    until(server, &mut clients, |clients, _| clients[0].greeted());
    clients[0].send(&[0x84, 0xa8, 0xe0, 0xbd, 0x8f, 0x04, 0xa8, 0x80, 0xca, 0x03, 0x94, 0x00]);
    until(server, &mut clients, |clients, _| clients[0].closed.is_some());
}

#[test]
fn a_reload_moves_the_status_socket_and_what_was_learned() {
    let pki = Pki::of_user_guide();
    write_config(&pki, "pgbackrest-client=demo", "");
    let place = |name: &str| pki.path(name).display().to_string();
    for name in ["one", "two"] {
        std::fs::create_dir(pki.path(name)).unwrap();
    }
    let own = |name: &str| format!("[global]\nstate-path={0}\nstatus-socket={0}/status\n", place(name));
    pki.write("repohostd.conf", &own("one"));
    let mut server = start(&pki);
    server.remember();
    let socket = |name: &str| std::os::unix::net::UnixStream::connect(pki.path(&format!("{name}/status")));
    assert!(socket("one").is_ok());
    teach(&mut server);

    pki.write("repohostd.conf", &own("two"));
    server.replace().unwrap();
    assert!(socket("one").is_err() && socket("two").is_ok());
    assert_eq!(server.front.memory.directory(), Some(pki.path("two").as_path()));
    let now = server.serving.event_loop.now();
    server.front.memory.finish(server.serving.event_loop.learner(), now);
    let kept = |name: &str| std::fs::read_to_string(pki.path(&format!("{name}/releases.json"))).unwrap();
    assert!(kept("one").contains("127.0.0.1") && kept("two").contains("127.0.0.1"));

    // The same once more changes nothing, and a directory that is gone ends nothing.
    server.replace().unwrap();
    assert!(socket("two").is_ok());
    pki.write("repohostd.conf", &own("three"));
    server.replace().unwrap();
    assert_eq!(server.front.memory.directory(), None);
    assert!(is_greeted(&mut server));
}
