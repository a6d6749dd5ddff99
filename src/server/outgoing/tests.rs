//! Sockets that are busy, silent or somebody else's: nothing of that makes the loop wait.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use mio::{Events, Poll};
use socket2::{Domain, SockAddr, Type};

use super::*;

const TICKET: Ticket = (7, 1);
const MINUTE: Duration = Duration::from_secs(60);

struct Bench {
    poll: Poll,
    databases: Databases,
    now: Instant,
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let poll = Poll::new().unwrap();
        let databases = Databases::new(poll.registry().try_clone().unwrap());
        Self { poll, databases, now: Instant::now(), directory: tempfile::tempdir().unwrap() }
    }

    /// A listener with room for so many who wait.
    fn listen(&self, backlog: i32) -> UnixListener {
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(self.path()).unwrap()).unwrap();
        socket.listen(backlog).unwrap();
        socket.into()
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join(".s.PGSQL.5432")
    }

    fn open(&mut self) {
        let host = Some(self.directory.path().display().to_string());
        let settings = Settings { host, port: 5432, database: "postgres".into(), user: Some("u".into()) };
        let data_directory = self.directory.path().to_owned();
        self.submit(DatabaseAction::Open { settings, data_directory, timeout: MINUTE });
    }

    fn submit(&mut self, action: DatabaseAction) {
        self.databases.submit(self.now, TICKET, action);
    }

    /// One turn of the loop, in which time passes.
    fn turn(&mut self, time: Duration) -> Option<DatabaseOutcome> {
        let mut events = Events::with_capacity(8);
        self.poll.poll(&mut events, Some(Duration::from_millis(5))).unwrap();
        for event in &events {
            self.databases.note(event.token().0 - TOKENS, event);
        }
        self.now += time;
        self.databases.advance(self.now);
        self.databases.complete().map(|(ticket, outcome)| {
            assert_eq!(ticket, TICKET);
            outcome
        })
    }

    /// What is sent on a connection until `end`, with turns in between.
    fn hear(&mut self, stream: &mut UnixStream, end: &[u8]) -> Vec<u8> {
        stream.set_nonblocking(true).unwrap();
        let mut heard = vec![];
        for _ in 0..1000 {
            self.turn(Duration::ZERO);
            let mut buffer = [0; 1000];
            if let Ok(count) = stream.read(&mut buffer) {
                heard.extend_from_slice(&buffer[..count]);
            }
            if heard.ends_with(end) {
                return heard;
            }
        }
        panic!("{:?}", String::from_utf8_lossy(&heard));
    }

    /// Answers as a server that lets everybody in and whose cluster is in `directory`.
    fn welcome(&mut self, stream: &mut UnixStream, directory: &str) -> DatabaseOutcome {
        self.hear(stream, b"database\0postgres\0\0");
        stream.write_all(b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x07\0\0\0\x09Z\0\0\0\x05I").unwrap();
        self.hear(stream, format!("{FIRST_STATEMENT}\0").as_bytes());
        let column = b"T\0\0\0\x20\0\x01setting\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0";
        let length = u32::try_from(directory.len()).unwrap();
        let row = [b"D", &(length + 10).to_be_bytes()[..], b"\0\x01", &length.to_be_bytes(), directory.as_bytes()];
        stream.write_all(&[&column[..], &row.concat(), b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I"].concat()).unwrap();
        self.outcome()
    }

    fn outcome(&mut self) -> DatabaseOutcome {
        (0..1000).find_map(|_| self.turn(Duration::ZERO)).expect("there is an outcome")
    }

    fn directory(&self) -> String {
        self.directory.path().display().to_string()
    }
}

#[test]
fn a_socket_with_too_many_who_wait_is_tried_again_and_nothing_waits() {
    let mut bench = Bench::new();
    let listener = bench.listen(0);
    let first = UnixStream::connect(bench.path()).unwrap();
    bench.open();
    for _ in 0..10 {
        assert_eq!(bench.turn(AGAIN), None);
        let soon = bench.databases.deadline().unwrap();
        assert!(soon <= bench.now + AGAIN && !bench.databases.is_busy(), "the loop sleeps in between");
    }
    let (_first, _) = listener.accept().unwrap();
    drop(first);
    bench.turn(AGAIN);
    let (mut stream, _) = listener.accept().unwrap();
    let directory = bench.directory();
    assert_eq!(bench.welcome(&mut stream, &directory), DatabaseOutcome::Opened);

    // and so is a cancellation
    bench.submit(DatabaseAction::Query { statement: "select pg_sleep(9)".into(), timeout: MINUTE });
    bench.hear(&mut stream, b"select pg_sleep(9)\0");
    let _other = UnixStream::connect(bench.path()).unwrap();
    assert_eq!(bench.turn(MINUTE), None);
    assert_eq!(bench.turn(AGAIN), None);
    let _other = listener.accept().unwrap();
    bench.turn(AGAIN);
    let (mut cancel, _) = listener.accept().unwrap();
    bench.hear(&mut cancel, b"\x04\xd2\x16\x2e\0\0\0\x07\0\0\0\x09");
    stream.write_all(b"E\0\0\0\x0cSERROR\0\0Z\0\0\0\x05I").unwrap();
    assert_eq!(bench.turn(Duration::ZERO), None, "the cancellation may still be on its way");
    drop(cancel);
    let expected = Finished::TimedOut { further: None };
    assert_eq!(bench.outcome(), DatabaseOutcome::Finished(expected));
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let mut bench = Bench::new();
    let listener = bench.listen(5);
    bench.open();
    bench.turn(Duration::ZERO);
    let (mut stream, _) = listener.accept().unwrap();
    bench.hear(&mut stream, b"\0\0");
    let Some(DatabaseOutcome::Refused(text)) = bench.turn(MINUTE) else { panic!() };
    assert!(text.ends_with("failed: timeout expired"), "{text}");
    assert!(bench.databases.entries.is_empty() && bench.databases.deadline().is_none());
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the socket is closed");
}

#[test]
fn nobody_listening_and_another_cluster_are_refused() {
    let mut bench = Bench::new();
    bench.open();
    let DatabaseOutcome::Refused(text) = bench.outcome() else { panic!() };
    assert!(text.contains(".s.PGSQL.5432\" failed: No such file or directory\n\tIs the server running"), "{text}");

    let listener = bench.listen(5);
    for (directory, expected) in [("/elsewhere", "is that of cluster '/elsewhere' and not of"), ("", "cluster ''")] {
        bench.open();
        bench.turn(Duration::ZERO);
        let (mut stream, _) = listener.accept().unwrap();
        let DatabaseOutcome::Refused(text) = bench.welcome(&mut stream, directory) else { panic!() };
        assert!(text.contains(expected), "{text}");
        bench.hear(&mut stream, b"X\0\0\0\x04");
        assert!(bench.databases.entries.is_empty());
    }
}

#[test]
fn connections_of_all_clients_are_bounded() {
    let mut bench = Bench::new();
    let _listener = bench.listen(i32::try_from(CONNECTIONS_MAXIMUM).unwrap());
    for _ in 0..CONNECTIONS_MAXIMUM {
        bench.open();
    }
    assert_eq!(bench.turn(Duration::ZERO), None);
    bench.open();
    let DatabaseOutcome::Refused(text) = bench.outcome() else { panic!() };
    assert!(text.contains("are open already"), "{text}");
    bench.databases.forget(bench.now, TICKET.0);
    bench.turn(Duration::ZERO);
    assert!(bench.databases.entries.is_empty());
}

#[test]
fn whoever_goes_closes_what_is_open_and_cancels_what_is_under_way() {
    let mut bench = Bench::new();
    let listener = bench.listen(5);
    let directory = bench.directory();
    bench.open();
    bench.turn(Duration::ZERO);
    let (mut stream, _) = listener.accept().unwrap();
    assert_eq!(bench.welcome(&mut stream, &directory), DatabaseOutcome::Opened);
    bench.submit(DatabaseAction::Query { statement: "select".into(), timeout: MINUTE });
    bench.hear(&mut stream, b"select\0");
    bench.databases.forget(bench.now, TICKET.0);
    bench.submit(DatabaseAction::Query { statement: "nobody hears of this".into(), timeout: MINUTE });
    bench.turn(Duration::ZERO);
    let (mut cancel, _) = listener.accept().unwrap();
    bench.hear(&mut cancel, b"\0\0\0\x07\0\0\0\x09");
    drop(cancel);
    assert_eq!((0..20).find_map(|_| bench.turn(Duration::ZERO)), None);
    assert!(bench.databases.entries.is_empty());

    bench.open();
    bench.turn(Duration::ZERO);
    let (mut stream, _) = listener.accept().unwrap();
    assert_eq!(bench.welcome(&mut stream, &directory), DatabaseOutcome::Opened);
    bench.submit(DatabaseAction::Close);
    bench.hear(&mut stream, b"X\0\0\0\x04");
    assert!(bench.databases.entries.is_empty());
}
