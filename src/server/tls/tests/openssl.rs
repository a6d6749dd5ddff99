//! What OpenSSL's own client sees of the server.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};

use super::*;

/// Lets `openssl s_client` connect once: what it printed, and what the server made of it.
fn openssl_client(pki: &Pki, server: &Tls, arguments: &str) -> (String, Result<ServerConnection, String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-servername", "localhost", "-quiet"])
        .args(arguments.split_whitespace())
        .current_dir(pki.path(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tests need the openssl command");
    let mut ready = [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
    let count = rustix::event::poll(&mut ready, Some(&limit)).unwrap();
    assert_eq!(count, 1, "openssl did not connect");
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut connection = ServerConnection::new(Arc::clone(&server.config)).unwrap();
    let mut failure = None;
    while connection.is_handshaking() && failure.is_none() {
        if connection.wants_write() {
            connection.write_tls(&mut socket).unwrap();
            continue;
        }
        assert!(connection.read_tls(&mut socket).unwrap() > 0, "openssl hung up");
        failure = connection.process_new_packets().err();
    }
    if failure.is_none() {
        connection.writer().write_all(b"greetings\n").unwrap();
        connection.send_close_notify();
    }
    while connection.wants_write() {
        if connection.write_tls(&mut socket).is_err() {
            break;
        }
    }
    drop(socket);
    let mut printed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut printed).unwrap();
    child.wait().unwrap();
    let outcome = failure.map_or(Ok(connection), |error| Err(server.reasons.of(&error, &[])));
    (printed, outcome)
}

#[test]
fn openssl_agrees_with_the_user_guides_certificates() {
    let pki = Pki::of_user_guide();
    let server = pki.server();
    for options in ["-tls1_2", "-tls1_3", "-tls1_3 -groups P-256", "-tls1_2 -groups P-256", "-tls1_3 -groups P-384"] {
        let arguments = format!(
            "{options} -cert client.crt -key client.key -CAfile ca.crt -verify_return_error -verify_hostname localhost"
        );
        let (printed, outcome) = openssl_client(&pki, &server, &arguments);
        let connection = outcome.unwrap_or_else(|reason| panic!("{options}: {reason}\n{printed}"));
        assert_eq!(identity(&connection).unwrap().unwrap().names, ["pgbackrest-client"]);
        assert!(printed.contains("greetings"), "{options}: {printed}");
        // None of them pays a HelloRetryRequest.
        assert_eq!(connection.handshake_kind(), Some(rustls::HandshakeKind::Full), "{options}");
    }
}

#[test]
fn clients_see_the_alerts_that_the_original_sends() {
    let pki = Pki::of_user_guide();
    pki.authority("foreign", "/CN=foreign");
    pki.version_1_ec("stranger", "/CN=pgbackrest-client", "foreign");
    let server = pki.server();
    let (printed, outcome) = openssl_client(&pki, &server, "-tls1_2 -cert stranger.crt -key stranger.key");
    assert!(outcome.unwrap_err().contains("is not in tls-server-ca-file"));
    assert!(printed.contains("alert unknown ca"), "{printed}");
    let (printed, outcome) = openssl_client(&pki, &at(&server, 12), "-tls1_2 -cert client.crt -key client.key");
    assert!(outcome.unwrap_err().contains("expired on"));
    assert!(printed.contains("alert certificate expired"), "{printed}");
    let (printed, outcome) = openssl_client(&pki, &server, "-tls1_1 -cipher DEFAULT@SECLEVEL=0");
    let reason = outcome.unwrap_err();
    assert!(reason.starts_with("the client speaks a TLS version below 1.2"), "{reason}");
    assert!(printed.contains("alert handshake failure") || printed.contains("alert protocol version"), "{printed}");
    let (_, outcome) = openssl_client(&pki, &server, "-tls1_3 -CAfile foreign.crt -verify_return_error");
    let reason = outcome.unwrap_err();
    assert!(reason.contains("does not know the CA of this server's certificate"), "{reason}");
    for (cipher, lacking) in [("AES256-SHA", "key exchange"), ("ECDHE-RSA-AES256-SHA384", "cipher")] {
        let (_, outcome) = openssl_client(&pki, &server, &format!("-tls1_2 -cipher {cipher}"));
        let reason = outcome.unwrap_err();
        assert!(reason.starts_with(&format!("no {lacking} in common: ")), "{reason}");
    }
}
