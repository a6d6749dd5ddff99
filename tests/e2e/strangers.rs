//! Whatever comes to the port, the server stays, says why it refused, and others are served.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::for_each_release;
use crate::harness::certificates::{Authority, Certificates};
use crate::harness::raw::Caller;
use crate::harness::{Bench, SOON, wait_until};

for_each_release! {
    a_web_browser_is_refused: always, always, always;
    random_bytes_are_refused: always, always, always;
    tls_1_1_is_refused: always, always, always;
    an_expired_certificate_is_refused_and_the_server_says_so: always, always, always;
    a_certificate_of_another_authority_is_refused_and_the_server_says_so: always, always, always;
    a_server_of_another_authority_is_not_trusted: always, always, always;
    a_thousand_silent_connections_disturb_nobody_and_are_closed: full, always, full;
    a_client_that_sends_nonsense_neither_fills_the_log_nor_hides_others:
        never "there it is a request, which is denied", always, always;
}

fn a_web_browser_is_refused(release: &str) {
    let mut bench = strict(release);
    refuses(&mut bench, b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test\r\n\r\n");
}

fn random_bytes_are_refused(release: &str) {
    let mut bench = strict(release);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for length in [1, 5, 6, 100, 20_000] {
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        refuses(&mut bench, &bytes);
    }
    // a handshake record of the largest length whose content never comes, and one of an endless hello
    refuses(&mut bench, b"\x16\x03\x01\xff\xff");
    refuses(&mut bench, b"\x16\x03\x01\x40\x00\x01\xff\xff\xff");
}

fn tls_1_1_is_refused(release: &str) {
    let mut bench = strict(release);
    bench.server.start();
    let mark = bench.server.log().len();
    let output = Command::new("openssl")
        .args(["s_client", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0", "-connect"])
        .arg(format!("127.0.0.1:{}", bench.server.port))
        .stdin(Stdio::null())
        .output()
        .expect("openssl starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "TLS 1.1 is accepted");
    // rustls looks for what it needs of a hello before its version
    assert!(text.contains("alert protocol version") || text.contains("alert handshake failure"), "{text}");
    says_why(&bench, mark, &["127.0.0.1", "TLS version below 1.2"]);
    bench.client.ok(&["repo-ls"]);
}

fn an_expired_certificate_is_refused_and_the_server_says_so(release: &str) {
    let mut bench = strict(release);
    bench.server.start();
    let mark = bench.server.log().len();
    let good = &Certificates::shared().client;
    bench.client.write_identity(&Certificates::shared().authority.issue_expired("pgbackrest-client"));
    let output = bench.client.run(&["repo-ls"]);
    assert_ne!(output.code, 0, "{}", output.text());
    says_why(&bench, mark, &["expired", "pgbackrest-client"]);
    bench.client.write_identity(good);
    bench.client.ok(&["repo-ls"]);
}

fn a_certificate_of_another_authority_is_refused_and_the_server_says_so(release: &str) {
    let mut bench = strict(release);
    bench.server.start();
    let mark = bench.server.log().len();
    let other = Authority::new("another.example");
    bench.client.write_identity(&other.issue("pgbackrest-client"));
    let output = bench.client.run(&["repo-ls"]);
    assert_ne!(output.code, 0, "{}", output.text());
    says_why(&bench, mark, &["pgbackrest-client"]);
    bench.client.write_identity(&Certificates::shared().client);
    bench.client.ok(&["repo-ls"]);
}

fn a_server_of_another_authority_is_not_trusted(release: &str) {
    let mut bench = strict(release);
    bench.server.start();
    bench.client.write_authority(&Authority::new("another.example").certificate);
    let text = bench.client.fails(95, &["repo-ls"]);
    assert!(text.contains("unable to verify certificate presented by 'localhost:"), "{text}");
    bench.client.write_authority(&Certificates::shared().authority.certificate);
    bench.client.ok(&["repo-ls"]);
}

fn a_thousand_silent_connections_disturb_nobody_and_are_closed(release: &str) {
    allow_many_descriptors();
    let mut bench = strict(release);
    let cluster = bench.with_cluster();
    cluster.fill(1);
    let silent: Vec<TcpStream> = (0..1_000)
        .map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, bench.server.port)).expect("the server accepts"))
        .collect();
    bench.client.ok(&["repo-ls"]);
    cluster.archive();
    bench.ok(&["backup", "--type=full"]);
    let memory = resident_memory(bench.server.id());
    assert!(memory < 200 << 20, "the server needs {memory} bytes");

    let begin = Instant::now();
    for mut stream in silent {
        stream.set_read_timeout(Some(SOON)).expect("a timeout can be set");
        assert_closed(&mut stream);
    }
    assert!(begin.elapsed() < SOON, "they were closed only after {:?}", begin.elapsed());
    bench.client.ok(&["repo-ls"]);
}

fn a_client_that_sends_nonsense_neither_fills_the_log_nor_hides_others(release: &str) {
    const TIMES: u64 = 300;
    let mut bench = Bench::new(release);
    bench.server.start();
    let caller = Caller::new(bench.server.port, Some(&Certificates::shared().authority.issue("mad-client")), release);
    let begin = Instant::now();
    for time in 0..TIMES {
        caller.connect().babble(format!("{{\"nonsense\":{time}\n{}", "\u{1}".repeat(20)).as_bytes());
        if time == TIMES / 2 {
            bench.client.ok(&["repo-ls"]);
        }
    }
    let lines = |words: &str| bench.server.log().lines().filter(|line| line.contains(words)).count() as u64;
    wait_until("the real client's session in the log", SOON, || lines(" client=pgbackrest-client ") > 0);
    // the reason, the end of each session, and that it did not answer the greeting
    let shown = || lines("mad-client") - lines("left out");
    let left_out = || -> u64 {
        let counts = bench.server.log();
        let counts =
            counts.lines().filter_map(|line| line.split_once("client 'mad-client': ")?.1.split_once(" more line"));
        counts.map(|(count, _)| count.parse::<u64>().expect("a number")).sum()
    };
    wait_until("all that was left out to be told", SOON, || shown() + left_out() == 3 * TIMES);
    let workers: u64 = bench.server.own_config.value("global", "workers").parse().expect("a number");
    let periods = begin.elapsed().as_secs() / 10 + 1;
    assert!(left_out() > 0 && shown() <= 30 * workers * periods, "{} lines in {periods} periods", shown());
}

/// A server that gives strangers a few seconds, which clients on a busy machine have to get by with.
fn strict(release: &str) -> Bench {
    let mut bench = Bench::new(release);
    bench.server.own_config.set("global", "handshake-timeout", "6s");
    bench
}

/// Sends bytes to the server and insists that it closes the connection, says why, and serves others.
fn refuses(bench: &mut Bench, bytes: &[u8]) {
    if !bench.server.runs() {
        bench.server.start();
    }
    let mark = bench.server.log().len();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, bench.server.port)).expect("the server accepts");
    stream.set_read_timeout(Some(SOON)).expect("a timeout can be set");
    // the server may have closed before all was sent
    let _ = stream.write_all(bytes);
    assert_closed(&mut stream);
    says_why(bench, mark, &["127.0.0.1"]);
    bench.client.ok(&["repo-ls"]);
    assert!(bench.server.runs());
}

/// Insists that the server has closed a connection, or does so before the read times out.
fn assert_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the connection stays open"),
        // an alert and the end, or a reset, since bytes that nobody read were on their way
        Ok(_) | Err(_) => assert!(rest.len() < 1_000, "a stranger was told {} bytes", rest.len()),
    }
}

/// Insists that one line of the log, from a mark on, has all the words.
fn says_why(bench: &Bench, mark: usize, words: &[&str]) {
    wait_until(&format!("a log line with {words:?}"), SOON, || {
        bench.server.log()[mark..].lines().any(|line| words.iter().all(|word| line.contains(word)))
    });
}

fn allow_many_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum.map(|most| most.min(8_192)).or(Some(8_192)), maximum: limit.maximum };
    setrlimit(Resource::Nofile, wanted).expect("more descriptors can be allowed");
}

fn resident_memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the server runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a running process has memory");
    line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number") << 10
}
