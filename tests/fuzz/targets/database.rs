//! A database server that sends anything at all, in any pieces, while statements, deadlines and cancellations come and go.

#![no_main]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use repohostd::postgres::{Action, Client, Event, Finished, First, Plan, Settings, SmallFile, System};
use repohostd_fuzz::{Tape, seeds};

/// What one message may hold, and what one answer may.
const HELD_MAXIMUM: usize = 16 << 20;

/// A system with a password and nothing else.
struct Few {
    password: Option<&'static str>,
    ssl_mode: Option<&'static str>,
}

impl System for Few {
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "PGPASSWORD" => self.password.map(str::to_owned),
            "PGSSLMODE" => self.ssl_mode.map(str::to_owned),
            _ => None,
        }
    }

    fn user(&self) -> (u32, Option<String>) {
        (1000, Some("postgres".to_owned()))
    }

    fn home(&self) -> Option<String> {
        Some("/home/postgres".to_owned())
    }

    fn file(&self, _path: &str) -> SmallFile {
        SmallFile::Missing
    }

    fn exists(&self, path: &str) -> bool {
        path == "/var/run/postgresql"
    }

    fn addresses(&self, _name: &str) -> Vec<IpAddr> {
        vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]
    }
}

struct World {
    client: Client,
    now: Instant,
    /// A statement was sent and nothing is known of it.
    asked: bool,
    connected: bool,
    left: bool,
}

impl World {
    /// Takes all that the client wants.
    fn settle(&mut self) {
        while let Some(action) = self.client.poll_action() {
            if let Action::Cancel(_, bytes) = action {
                assert_eq!(bytes.len(), 16, "a cancellation names a process and its secret");
            }
        }
        while let Some(event) = self.client.poll_event() {
            assert!(!self.left, "nothing is said to who has left");
            match event {
                Event::Connected => {
                    assert!(!self.connected && !self.client.is_over());
                    self.connected = true;
                }
                Event::Refused(_) => assert!(!self.connected && self.client.is_over()),
                Event::Lost(_) => assert!(self.connected && !self.asked && self.client.is_over()),
                Event::Finished(finished) => {
                    assert!(std::mem::take(&mut self.asked), "nobody asked");
                    self.check(&finished);
                }
            }
        }
        if self.client.is_over() {
            assert!(!self.client.wants_input());
        }
    }

    fn check(&self, finished: &Finished) {
        match finished {
            Finished::Answered { first: First::Rows(rows), .. } => {
                let fields: Vec<_> = rows.fields().collect();
                assert_eq!(fields.len(), rows.count * rows.types.len());
                assert!(fields.iter().flatten().map(|field| field.len()).sum::<usize>() <= HELD_MAXIMUM);
            }
            Finished::NotCancelled(_) => assert!(self.client.is_over()),
            Finished::TooLong(bytes) => assert!(*bytes >= HELD_MAXIMUM),
            _ => {}
        }
    }

    fn step(&mut self, tape: &mut Tape<'_>) {
        match tape.below(12) {
            0..=2 => {
                let input = tape.piece();
                if self.client.wants_input() {
                    self.client.handle_input(self.now, input);
                }
            }
            3 => {
                let (tag, body) = (tape.byte(), tape.piece());
                let length = u32::try_from(body.len() + 4).expect("a piece is short").to_be_bytes();
                if self.client.wants_input() {
                    self.client.handle_input(self.now, &[&[tag][..], &length, body].concat());
                }
            }
            4 => self.client.handle_connected(),
            5 => self.client.handle_connect_failure(self.now, tape.byte().into()),
            6 => {
                if self.connected && !self.asked && !self.left {
                    self.asked = true;
                    self.client.query(self.now, tape.text(), Duration::from_secs(5));
                }
            }
            7 => {
                self.now += Duration::from_millis(u64::from(tape.short()));
                if self.client.poll_timeout().is_some_and(|deadline| deadline <= self.now) {
                    self.client.handle_timeout(self.now);
                }
            }
            8 => {
                let count = usize::from(tape.byte()).min(self.client.poll_output().len());
                self.client.consume_output(count);
            }
            9 => {
                if self.client.wants_input() {
                    self.client.handle_end(tape.flag().then_some(104));
                }
            }
            10 => {
                let result = if tape.flag() { Ok(()) } else { Err("no".to_owned()) };
                self.client.handle_cancelled(self.now, result);
            }
            _ => {
                self.left = true;
                self.client.leave(self.now);
            }
        }
        self.settle();
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[3, tag, u8::try_from(body.len()).unwrap()][..], body].concat()
}

/// Conversations with a server that does what it should.
fn examples() -> Vec<Vec<u8>> {
    let key = message(b'K', &[0, 0, 0, 7, 0, 0, 0, 9]);
    let ready = message(b'Z', b"I");
    let greeting = [message(b'R', &[0; 4]), message(b'S', b"a\0b\0"), key, ready.clone()].concat();
    let columns = message(b'T', b"\0\x01name\0\0\0\0\0\0\0\0\0\0\x19\0\x04\xff\xff\xff\xff\0\0");
    let row = message(b'D', b"\0\x01\0\0\0\x02ab");
    let done = message(b'C', b"SELECT 1\0");
    let error = message(b'E', b"SERROR\0C42601\0Mwrong\0\0");
    let query = [&[6, 6][..], b"select"].concat();
    let md5 = message(b'R', b"\0\0\0\x05salt");
    let scram = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    let clear = message(b'R', b"\0\0\0\x03");
    let unix = [1, 0, 4];
    let begin = [&unix[..], &greeting].concat();
    vec![
        [&begin[..], &query, &columns, &row, &row, &done, &ready].concat(),
        [&begin[..], &query, &error, &ready, &query, &done, &ready, &[11]].concat(),
        [&begin[..], &query, &[7, 0x20, 0], &[10, 1], &error, &ready].concat(),
        [&begin[..], &query, &[7, 0x20, 0], &[10, 0]].concat(),
        [&begin[..], &query, &columns, &[9, 1]].concat(),
        [&begin[..], &message(b'E', b"SFATAL\0C57P01\0Mterminating\0\0"), &[9, 0], &query].concat(),
        [&unix[..], &md5, &greeting].concat(),
        [&unix[..], &clear, &greeting].concat(),
        [&unix[..], &scram, &message(b'R', b"\0\0\0\x0br=x,s=AAAA,i=4096"), &message(b'R', b"\0\0\0\x0cv=AAAA")]
            .concat(),
        [&unix[..], &error].concat(),
        [&[1, 2, 4][..], &[0, 1], b"N", &greeting, &query, &columns, &row, &done, &ready].concat(),
        [&[1, 2, 4][..], &[0, 1], b"S"].concat(),
        vec![0, 2, 5, 111, 4, 7, 0xff, 0xff, 5, 111],
    ]
}

fuzz_target!(init: seeds::offer(examples), |data: &[u8]| {
    let mut tape = Tape::new(data);
    let (has_password, target) = (tape.flag(), tape.byte());
    let system = Few {
        password: has_password.then_some("secret"),
        ssl_mode: (target & 4 != 0).then_some("disable"),
    };
    let settings = Settings {
        host: [Some("/s"), None, Some("localhost"), Some("@abstract")][usize::from(target & 3)].map(str::to_owned),
        port: 5432,
        database: "postgres".to_owned(),
        user: Some("postgres".to_owned()),
    };
    let Ok(plan) = Plan::new(&settings, &system) else { return };
    let now = Instant::now();
    let client = Client::new(plan, Duration::from_secs(60), now);
    let mut world = World { client, now, asked: false, connected: false, left: false };
    world.settle();
    for _ in 0..300 {
        if tape.is_over() {
            break;
        }
        world.step(&mut tape);
    }
    // whoever waits gets to know something, at the latest when all deadlines have passed
    world.client.leave(world.now);
    world.left = true;
    world.settle();
    for _ in 0..4 {
        world.now += Duration::from_secs(3600);
        world.client.handle_timeout(world.now);
        world.settle();
    }
    assert!(world.client.is_over(), "who was left ends");
});
