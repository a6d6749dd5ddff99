//! Conversations with a server that is played by the test.

use postgres_protocol::authentication::md5_hash;

use super::*;
use crate::postgres::testing::FakeSystem;
use crate::postgres::{Settings, SmallFile};

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag][..], &length, body].concat()
}

fn error(severity: &str, state: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("S{severity}\0C{state}\0M{text}\0\0").as_bytes())
}

fn authentication(kind: u32, body: &[u8]) -> Vec<u8> {
    message(b'R', &[&kind.to_be_bytes()[..], body].concat())
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

fn greeting() -> Vec<u8> {
    let key = [7_u32.to_be_bytes(), 9_u32.to_be_bytes()].concat();
    [authentication(0, &[]), message(b'S', b"a\0b\0"), message(b'K', &key), ready()].concat()
}

fn columns(types: &[u32]) -> Vec<u8> {
    let mut body = u16::try_from(types.len()).unwrap().to_be_bytes().to_vec();
    for kind in types {
        body.extend_from_slice(b"name\0\0\0\0\0\0\0");
        body.extend_from_slice(&kind.to_be_bytes());
        body.extend_from_slice(&[0, 4, 0xff, 0xff, 0xff, 0xff, 0, 0]);
    }
    message(b'T', &body)
}

fn row(fields: &[Option<&str>]) -> Vec<u8> {
    let mut body = u16::try_from(fields.len()).unwrap().to_be_bytes().to_vec();
    body.extend_from_slice(&Rows::made_of(&[], &[fields]).data);
    message(b'D', &body)
}

const BOUND: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(5);

struct Bench {
    client: Client,
    now: Instant,
}

impl Bench {
    fn new(host: Option<&str>, variables: &[(&str, &str)]) -> Self {
        let settings =
            Settings { host: host.map(str::to_owned), port: 5432, database: "d".into(), user: Some("u".into()) };
        let now = Instant::now();
        let plan = Plan::new(&settings, &FakeSystem::with(variables)).unwrap();
        Self { client: Client::new(plan, BOUND, now), now }
    }

    fn connected() -> Self {
        let mut bench = Self::new(Some("/s"), &[]);
        assert_eq!(bench.client.poll_action(), Some(Action::Connect(Address::Unix("/s/.s.PGSQL.5432".into()))));
        bench.client.handle_connected();
        assert_eq!(bench.sent(), b"\0\0\0\x1b\0\x03\0\0user\0u\0database\0d\0\0");
        bench.receive(&greeting());
        assert_eq!(bench.client.poll_event(), Some(Event::Connected));
        assert!(bench.client.wants_input() && bench.client.poll_timeout().is_none());
        bench
    }

    fn starting(variables: &[(&str, &str)]) -> Self {
        let mut bench = Self::new(Some("/s"), variables);
        bench.client.poll_action();
        bench.client.handle_connected();
        bench.sent();
        bench
    }

    fn asked(statement: &str) -> Self {
        let mut bench = Self::connected();
        bench.client.query(bench.now, statement.into(), TIMEOUT);
        assert_eq!(bench.sent(), message(b'Q', format!("{statement}\0").as_bytes()));
        assert!(bench.client.wants_input());
        bench
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.client.handle_input(self.now, bytes);
    }

    fn sent(&mut self) -> Vec<u8> {
        let sent = self.client.poll_output().to_vec();
        self.client.consume_output(sent.len());
        sent
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.client.handle_timeout(self.now);
    }

    fn finished(&mut self) -> Finished {
        match self.client.poll_event() {
            Some(Event::Finished(finished)) => finished,
            other => panic!("{other:?}"),
        }
    }

    fn refused(&mut self) -> String {
        match self.client.poll_event() {
            Some(Event::Refused(text)) => {
                assert!(self.client.is_over());
                assert_eq!(self.client.poll_action(), Some(Action::Close));
                text
            }
            other => panic!("{other:?}"),
        }
    }
}

fn error_of(finished: Finished) -> (String, Option<String>) {
    match finished {
        Finished::Answered { first: First::Error(text), further } => (text, further),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_statement_gets_its_rows_however_they_arrive() {
    let answer = [
        columns(&[23, 25]),
        row(&[Some("1"), None]),
        message(b'N', b"SWARNING\0Mx\0\0"),
        row(&[Some("22"), Some("")]),
        message(b'C', b"SELECT 2\0"),
        ready(),
    ]
    .concat();
    let expected = Rows::made_of(&[23, 25], &[&[Some("1"), None], &[Some("22"), Some("")]]);
    for size in [1, 2, 7, answer.len()] {
        let mut bench = Bench::asked("select");
        for piece in answer.chunks(size) {
            assert!(bench.client.poll_event().is_none());
            bench.receive(piece);
        }
        let Finished::Answered { first: First::Rows(rows), further: None } = bench.finished() else { panic!() };
        let fields: Vec<_> = rows.fields().collect();
        assert_eq!(fields, [Some(&b"1"[..]), None, Some(b"22"), Some(b"")]);
        assert_eq!(rows, expected);
        bench.client.query(bench.now, "set".into(), TIMEOUT);
        bench.receive(&[message(b'C', b"SET\0"), ready()].concat());
        assert_eq!(bench.finished(), Finished::Answered { first: First::Command, further: None });
    }
}

#[test]
fn the_connection_can_be_used_after_an_error() {
    let mut bench = Bench::asked("selekt");
    bench.receive(&message(b'E', b"SERROR\0C42601\0Msyntax error\0P1\0\0"));
    bench.receive(&ready());
    let (text, further) = error_of(bench.finished());
    assert_eq!((text.as_str(), further), ("ERROR:  syntax error\nLINE 1: selekt\n        ^\n", None));
    bench.client.query(bench.now, "set".into(), TIMEOUT);
    bench.receive(&[message(b'C', b"SET\0"), ready()].concat());
    assert_eq!(bench.finished(), Finished::Answered { first: First::Command, further: None });
}

#[test]
fn a_second_result_is_reported() {
    let mut bench = Bench::asked("a; b; c");
    bench.receive(&[message(b'C', b"A\0"), columns(&[25]), row(&[None]), message(b'C', b"B\0")].concat());
    bench.receive(&[error("ERROR", "x", "c"), ready()].concat());
    assert_eq!(bench.finished(), Finished::Answered { first: First::Command, further: Some(String::new()) });
}

#[test]
fn a_lost_connection_is_worded_as_libpq_does() {
    let mut bench = Bench::asked("select");
    bench.receive(&[columns(&[25]), row(&[None])].concat());
    bench.client.handle_end(None);
    assert_eq!(error_of(bench.finished()), (LOST.to_owned(), None));
    assert_eq!(bench.client.poll_action(), Some(Action::Close));
    bench.client.query(bench.now, "select".into(), TIMEOUT);
    assert_eq!(bench.finished(), Finished::NotSent("no connection to the server".into()));

    let mut bench = Bench::asked("select");
    bench.receive(&error("FATAL", "57P01", "terminating connection due to administrator command"));
    assert!(bench.client.poll_event().is_none(), "the server has more to say, or closes");
    bench.client.handle_end(Some(104));
    let (text, further) = error_of(bench.finished());
    assert_eq!(text, "FATAL:  terminating connection due to administrator command\n");
    assert_eq!(further, Some(text + LOST));
}

#[test]
fn a_server_that_ends_the_connection_between_two_statements_is_heard() {
    const SAID: &str = "terminating connection due to idle-session timeout";
    let lost = |bench: &mut Bench| match bench.client.poll_event() {
        Some(Event::Lost(text)) => text,
        other => panic!("{other:?}"),
    };
    let mut bench = Bench::connected();
    bench.receive(&[message(b'S', b"a\0b\0"), error("FATAL", "57P05", SAID)].concat());
    assert_eq!(bench.client.poll_event(), None, "it may go on");
    bench.client.handle_end(None);
    let text = format!("FATAL:  {SAID}\n{LOST}");
    assert_eq!(lost(&mut bench), text.trim());
    assert_eq!(bench.client.poll_action(), Some(Action::Close));
    assert!(bench.client.is_over() && !bench.client.wants_input());
    for _ in 0..2 {
        bench.client.query(bench.now, "select".into(), TIMEOUT);
        assert_eq!(error_of(bench.finished()), (text.clone(), Some(text.clone())));
    }

    // without a word, and with one in a notice that comes with the last answer
    let mut bench = Bench::connected();
    bench.client.handle_end(Some(104));
    assert_eq!(lost(&mut bench), LOST.trim());
    bench.client.query(bench.now, "select".into(), TIMEOUT);
    assert_eq!(error_of(bench.finished()), (LOST.to_owned(), None));

    let notice = message(b'N', b"SWARNING\0C57P02\0Mcrash\0\0");
    let mut bench = Bench::asked("set");
    bench.receive(&[message(b'C', b"SET\0"), ready(), notice.clone()].concat());
    assert!(!bench.client.wants_input(), "first the answer is taken");
    assert_eq!(bench.finished(), Finished::Answered { first: First::Command, further: None });
    bench.client.handle_end(None);
    assert_eq!(lost(&mut bench), format!("WARNING:  crash\n{LOST}").trim());
    let mut bench = Bench::asked("set");
    bench.receive(&notice);
    bench.client.handle_end(None);
    assert_eq!(error_of(bench.finished()), (format!("WARNING:  crash\n{LOST}"), None));
    let mut bench = Bench::asked("set");
    bench.receive(&[error("ERROR", "42601", "no"), ready()].concat());
    assert_eq!(error_of(bench.finished()), ("ERROR:  no\n".to_owned(), None));
    bench.client.handle_end(None);
    assert_eq!(lost(&mut bench), LOST.trim(), "an error before is not the reason");
}

#[test]
fn a_statement_that_takes_too_long_is_cancelled() {
    let mut bench = Bench::asked("select pg_sleep(10)");
    bench.pass(TIMEOUT.checked_sub(Duration::from_millis(1)).unwrap());
    assert_eq!(bench.client.poll_action(), None);
    bench.pass(Duration::from_millis(1));
    let Some(Action::Cancel(address, request)) = bench.client.poll_action() else { panic!() };
    assert_eq!(address, Address::Unix("/s/.s.PGSQL.5432".into()));
    assert_eq!(request, b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07\0\0\0\x09");
    bench.receive(&[error("ERROR", "57014", "canceling statement due to user request"), ready()].concat());
    assert!(bench.client.poll_event().is_none(), "the cancellation could still hit the next statement");
    bench.client.handle_cancelled(bench.now, Ok(()));
    assert_eq!(bench.finished(), Finished::TimedOut { further: None });
    bench.client.query(bench.now, "set".into(), TIMEOUT);
    bench.receive(&[message(b'C', b"SET\0"), ready()].concat());
    assert_eq!(bench.finished(), Finished::Answered { first: First::Command, further: None });
}

#[test]
fn neither_a_cancellation_nor_what_is_cancelled_is_waited_for_without_end() {
    let cancelling = || {
        let mut bench = Bench::asked("select");
        bench.pass(TIMEOUT);
        assert!(matches!(bench.client.poll_action(), Some(Action::Cancel(..))));
        bench
    };
    let mut bench = cancelling();
    bench.pass(CANCEL);
    assert_eq!(bench.finished(), Finished::NotCancelled("timeout expired".into()));
    assert_eq!(bench.client.poll_action(), Some(Action::Close));

    let mut bench = cancelling();
    bench.client.handle_cancelled(bench.now, Err("PQcancel() -- connect() failed: x".into()));
    assert_eq!(bench.finished(), Finished::NotCancelled("PQcancel() -- connect() failed: x".into()));

    let mut bench = cancelling();
    bench.client.handle_cancelled(bench.now, Ok(()));
    bench.pass(SETTLE);
    assert_eq!(bench.finished(), Finished::TimedOut { further: None });
    assert_eq!(bench.client.poll_action(), Some(Action::Close));

    let mut bench = cancelling();
    bench.client.handle_end(None);
    assert_eq!(bench.finished(), Finished::TimedOut { further: None });
    assert_eq!(bench.client.poll_action(), Some(Action::Close), "which also ends the cancellation");
}

#[test]
fn whoever_leaves_says_so_and_cancels_what_is_under_way() {
    let mut bench = Bench::connected();
    bench.client.leave(bench.now);
    assert_eq!(bench.sent(), message(b'X', b""));
    assert_eq!(bench.client.poll_action(), Some(Action::Close));
    assert!(bench.client.is_over());

    let mut bench = Bench::asked("select");
    bench.client.leave(bench.now);
    assert!(matches!(bench.client.poll_action(), Some(Action::Cancel(..))));
    assert!(!bench.client.is_over() && !bench.client.wants_input());
    bench.client.handle_cancelled(bench.now, Ok(()));
    assert!(bench.client.is_over());
    assert_eq!(bench.client.poll_action(), Some(Action::Close));

    let mut bench = Bench::asked("select");
    bench.client.leave(bench.now);
    bench.pass(CANCEL);
    assert!(bench.client.is_over());

    for mut bench in [Bench::new(Some("/s"), &[]), Bench::starting(&[])] {
        bench.client.leave(bench.now);
        assert_eq!((bench.client.poll_action(), bench.client.poll_event()), (Some(Action::Close), None));
    }
}

#[test]
fn a_socket_that_nobody_listens_on_is_reported_as_by_libpq() {
    let mut bench = Bench::new(Some("/s"), &[]);
    bench.client.poll_action();
    bench.client.handle_connect_failure(bench.now, 2);
    assert_eq!(
        bench.refused(),
        "connection to server on socket \"/s/.s.PGSQL.5432\" failed: No such file or directory\n\tIs the server \
         running locally and accepting connections on that socket?"
    );
    let mut bench = Bench::new(Some("@s"), &[]);
    bench.client.poll_action();
    bench.client.handle_connect_failure(bench.now, 111);
    assert!(
        bench.refused().starts_with("connection to server on socket \"@s/.s.PGSQL.5432\" failed: Connection refused")
    );
}

#[test]
fn every_address_is_tried_and_complained_about() {
    let mut bench = Bench::new(None, &[("PGHOST", "localhost"), ("PGSSLMODE", "disable")]);
    assert!(matches!(bench.client.poll_action(), Some(Action::Connect(Address::Tcp { .. }))));
    bench.client.handle_connect_failure(bench.now, 111);
    assert!(matches!(bench.client.poll_action(), Some(Action::Connect(Address::Tcp { .. }))));
    bench.pass(BOUND);
    assert_eq!(
        bench.refused(),
        "connection to server at \"localhost\" (127.0.0.1), port 5432 failed: Connection refused\n\tIs the server \
         running on that host and accepting TCP/IP connections?\nconnection to server at \"localhost\" (::1), port \
         5432 failed: timeout expired"
    );
}

#[test]
fn a_server_that_starts_up_is_left_for_the_next_one() {
    let mut bench = Bench::new(None, &[("PGHOST", "/a,/b")]);
    bench.client.poll_action();
    bench.client.handle_connected();
    bench.receive(&error("FATAL", "57P03", "the database system is starting up"));
    assert_eq!(bench.client.poll_action(), Some(Action::Connect(Address::Unix("/b/.s.PGSQL.5432".into()))));
    bench.client.handle_connected();
    bench.receive(&error("FATAL", "28000", "no"));
    assert_eq!(
        bench.refused(),
        "connection to server on socket \"/a/.s.PGSQL.5432\" failed: FATAL:  the database system is starting \
         up\nconnection to server on socket \"/b/.s.PGSQL.5432\" failed: FATAL:  no"
    );
}

#[test]
fn connecting_is_bounded() {
    let mut bench = Bench::new(Some("/s"), &[("PGCONNECT_TIMEOUT", "3")]);
    bench.client.poll_action();
    bench.client.handle_connected();
    bench.pass(Duration::from_secs(3));
    assert_eq!(bench.refused(), "connection to server on socket \"/s/.s.PGSQL.5432\" failed: timeout expired");
    let mut bench = Bench::starting(&[]);
    bench.pass(BOUND);
    assert!(bench.refused().ends_with("failed: timeout expired"));
}

#[test]
fn passwords_are_sent_as_the_server_wants_them() {
    let password = [("PGPASSWORD", "secret")];
    let mut bench = Bench::starting(&password);
    bench.receive(&authentication(3, &[]));
    assert_eq!(bench.sent(), message(b'p', b"secret\0"));
    bench.receive(&greeting());
    assert_eq!(bench.client.poll_event(), Some(Event::Connected));

    let mut bench = Bench::starting(&password);
    bench.receive(&authentication(5, &[1, 2, 3, 4]));
    let expected = md5_hash(b"u", b"secret", [1, 2, 3, 4]);
    assert_eq!(bench.sent(), message(b'p', format!("{expected}\0").as_bytes()));

    let mut bench = Bench::starting(&password);
    bench.receive(&authentication(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"));
    assert!(bench.sent().starts_with(b"p\0\0\0\x36SCRAM-SHA-256\0\0\0\0\x20n,,n=,r="));
}

#[test]
fn without_a_password_nothing_is_sent() {
    for (kind, body) in [(3, &b""[..]), (5, b"salt"), (10, b"SCRAM-SHA-256\0\0")] {
        let mut bench = Bench::starting(&[]);
        bench.receive(&authentication(kind, body));
        assert!(bench.sent().is_empty());
        assert!(bench.refused().ends_with("failed: fe_sendauth: no password supplied"), "{kind}");
    }
}

#[test]
fn what_authentication_is_not_supported_is_said() {
    for (kind, body, text) in [
        (2, &b""[..], "Kerberos 5 authentication not supported"),
        (7, b"", "GSSAPI authentication not supported"),
        (9, b"", "SSPI authentication not supported"),
        (10, b"SCRAM-SHA-512\0\0", "none of the server's SASL authentication mechanisms are supported"),
    ] {
        let mut bench = Bench::starting(&[("PGPASSWORD", "x")]);
        bench.receive(&authentication(kind, body));
        assert!(bench.refused().ends_with(text), "{kind}");
    }
}

#[test]
fn a_wrong_password_names_the_file_that_it_is_from() {
    let mut system = FakeSystem::default();
    let file = SmallFile::Found { text: "*:*:*:*:secret".into(), mode: 0o600 };
    system.files.push(("/home/runner/.pgpass".into(), file));
    let settings = Settings { host: Some("/s".into()), port: 1, database: "d".into(), user: None };
    let now = Instant::now();
    let client = Client::new(Plan::new(&settings, &system).unwrap(), BOUND, now);
    let mut bench = Bench { client, now };
    bench.client.poll_action();
    bench.client.handle_connected();
    bench.receive(&authentication(3, &[]));
    bench.receive(&error("FATAL", "28P01", "password authentication failed for user \"runner\""));
    assert!(bench.refused().ends_with(
        "FATAL:  password authentication failed for user \"runner\"\npassword retrieved from file \
         \"/home/runner/.pgpass\""
    ));
}

#[test]
fn a_server_cannot_skip_its_part_of_scram_or_ask_for_endless_work() {
    let begun = || {
        let mut bench = Bench::starting(&[("PGPASSWORD", "x")]);
        bench.receive(&authentication(10, b"SCRAM-SHA-256\0\0"));
        let sent = String::from_utf8_lossy(&bench.sent()).into_owned();
        let nonce = sent.split_once("r=").unwrap().1.to_owned();
        (bench, nonce)
    };
    let (mut bench, _) = begun();
    bench.receive(&authentication(0, &[]));
    assert!(bench.refused().ends_with("server did not complete authentication"));

    let (mut bench, nonce) = begun();
    bench.receive(&authentication(11, format!("r={nonce}x,s=AAAA,i=4000000000").as_bytes()));
    assert!(bench.refused().contains("malformed SCRAM message (invalid iteration count"));

    let (mut bench, nonce) = begun();
    bench.receive(&authentication(11, format!("r={nonce}x,s=AAAA,i=4096").as_bytes()));
    assert!(bench.sent().starts_with(b"p"));
    bench.receive(&authentication(12, b"v=AAAA"));
    assert!(bench.refused().ends_with("incorrect server signature"));

    let (mut bench, _) = begun();
    bench.receive(&authentication(11, b"r=other,s=AAAA,i=4096"));
    assert!(bench.refused().contains("malformed SCRAM message"));

    let (mut bench, _) = begun();
    bench.receive(&authentication(3, &[]));
    assert!(bench.sent().is_empty(), "a password in the clear after that would be for somebody else");
    assert!(bench.refused().contains("lost synchronization"));
}

#[test]
fn a_server_on_a_network_is_asked_whether_it_encrypts() {
    let asked = || {
        let mut bench = Bench::new(None, &[("PGHOST", "127.0.0.1")]);
        bench.client.poll_action();
        bench.client.handle_connected();
        assert_eq!(bench.sent(), b"\0\0\0\x08\x04\xd2\x16\x2f");
        bench
    };
    let mut bench = asked();
    bench.receive(b"N");
    assert!(bench.sent().ends_with(b"user\0u\0database\0d\0\0"));
    bench.receive(&greeting());
    assert_eq!(bench.client.poll_event(), Some(Event::Connected));
    let mut bench = asked();
    bench.receive(b"S");
    assert!(bench.refused().contains("TLS") && bench.sent().is_empty());
    let mut bench = asked();
    bench.receive(&error("FATAL", "x", "unsupported frontend protocol"));
    assert!(bench.refused().ends_with("FATAL:  unsupported frontend protocol"));
    let mut bench = asked();
    bench.receive(b"HTTP");
    assert!(bench.refused().ends_with("received invalid response to SSL negotiation"));
}

#[test]
fn what_is_no_server_of_this_kind_is_refused() {
    for bytes in
        [&b"HTTP/1.1 400 Bad Request"[..], &ready(), &message(b'K', &[0; 8]), &columns(&[]), b"R\0\0\0\x08\0\0\0\x63"]
    {
        let mut bench = Bench::starting(&[]);
        bench.receive(bytes);
        assert!(bench.refused().contains("failed: lost synchronization with server"), "{bytes:?}");
    }
    let mut bench = Bench::starting(&[]);
    bench.client.handle_end(None);
    assert!(bench.refused().contains("failed: server closed the connection unexpectedly\n\tThis probably"));
}

#[test]
fn an_answer_is_bounded() {
    let mut bench = Bench::asked("select");
    bench.receive(&columns(&[25]));
    let long = row(&[Some(&"x".repeat(1 << 20))]);
    for _ in 0..17 {
        bench.receive(&long);
    }
    assert_eq!(bench.finished(), Finished::TooLong(ANSWER_MAXIMUM));
    assert_eq!(bench.client.poll_action(), Some(Action::Close));
    let mut bench = Bench::asked("select");
    bench.receive(b"D\x40\0\0\0");
    assert_eq!(bench.finished(), Finished::TooLong(ANSWER_MAXIMUM));
}

#[test]
fn rows_have_as_many_fields_as_columns() {
    for wrong in [
        row(&[None]),
        row(&[None; 3]),
        message(b'D', b"\0\x02\0\0\0\x09x"),
        message(b'D', b"\0\x02"),
        message(b'D', b""),
    ] {
        let mut bench = Bench::asked("select");
        bench.receive(&columns(&[25, 25]));
        bench.receive(&wrong);
        assert!(error_of(bench.finished()).0.starts_with("lost synchronization"), "{wrong:?}");
    }
    let mut bench = Bench::asked("select");
    bench.receive(&row(&[]));
    assert!(error_of(bench.finished()).0.starts_with("lost synchronization"));
}

#[test]
fn a_copy_is_not_waited_for() {
    let mut bench = Bench::asked("copy t from stdin");
    bench.receive(&message(b'G', b"\0\0\0"));
    assert_eq!(bench.sent(), message(b'f', b"COPY is not supported\0"));
    bench.receive(&[error("ERROR", "57014", "COPY from stdin failed"), ready()].concat());
    assert_eq!(error_of(bench.finished()).1, None);
    let mut bench = Bench::asked("copy t to stdout");
    bench.receive(&[message(b'H', b"\0\0\0"), message(b'd', b"x"), message(b'c', b"")].concat());
    bench.receive(&[message(b'C', b"COPY 1\0"), ready()].concat());
    assert_eq!(error_of(bench.finished()), (String::new(), Some(String::new())));
}

proptest::proptest! {
    #[test]
    fn whatever_a_server_sends_the_client_ends_or_waits(
        pieces in proptest::collection::vec(
            (proptest::sample::select(b"RSKZTDCEINGHdcAnt1v".to_vec()), proptest::collection::vec(0_u8..=255, 0..40)),
            0..12,
        ),
        stage in 0_u8..4,
        cut in 1_usize..20,
    ) {
        let mut bench = match stage {
            0 => Bench::starting(&[("PGPASSWORD", "x")]),
            1 => {
                let mut bench = Bench::new(None, &[("PGHOST", "127.0.0.1")]);
                bench.client.poll_action();
                bench.client.handle_connected();
                bench
            }
            _ => Bench::asked("select"),
        };
        let bytes: Vec<u8> = pieces.iter().flat_map(|(tag, body)| message(*tag, body)).collect();
        for piece in bytes.chunks(cut) {
            bench.receive(piece);
        }
        for _ in 0..4 {
            bench.pass(BOUND);
        }
        bench.client.handle_end(None);
        proptest::prop_assert!(bench.client.poll_event().is_some() || !bench.client.wants_input());
        proptest::prop_assert!(bench.client.is_over() || bench.client.poll_timeout().is_none());
    }
}
