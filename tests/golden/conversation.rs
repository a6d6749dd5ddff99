//! One client's conversation with a session of ours, without sockets.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use repohostd::config::snapshot::Origin;
use repohostd::config::{
    Environment, Files, NetworkCompression, Protection, Role, Search, ServerSettings, load_from, parse_session,
};
use repohostd::protocol::framing::Framing;
use repohostd::protocol::pack::{Reader, Type};
use repohostd::protocol::release::Release;
use repohostd::session::{Authority, Authorized, Host, Limits, Peer, Refusal, Session, State};

use crate::disk::{BASE, LOCKS, ScriptedDisk};

/// Lets everybody in, with the configuration that the recordings were made with.
struct Anybody {
    files: Files,
    server: ServerSettings,
    release: &'static Release,
}

impl Anybody {
    /// `further` options are global ones of `pgbackrest.conf`.
    fn new(release: &'static Release, further: &str) -> Self {
        let directory = tempfile::tempdir().expect("there is room for a file");
        let file = directory.path().join("pgbackrest.conf");
        let text = format!(
            "[global]\ntls-server-cert-file=/c\ntls-server-key-file=/k\ntls-server-ca-file=/a\n\
             tls-server-auth=client=*\nrepo1-path={BASE}\nlock-path={LOCKS}\n{further}"
        );
        std::fs::write(&file, text).expect("the file can be written");
        let search = Search {
            config: Some(file),
            default_directory: directory.path().to_owned(),
            fallback: PathBuf::from("/nonexistent"),
            ..Search::default()
        };
        let (files, loaded) =
            load_from(&[], &Environment::default(), &search, &Origin::Disk).expect("the configuration is right");
        Self { files, server: loaded.server, release }
    }
}

impl Authority for Anybody {
    fn admit(&self, _names: &[String]) -> Result<(), Refusal> {
        Ok(())
    }

    fn authorize(
        &self,
        _release: &'static Release,
        _names: &[String],
        parameters: &[String],
    ) -> Result<Authorized, Refusal> {
        let settings = parse_session(&self.files, &Environment::default(), &self.server, self.release, parameters)?;
        Ok(Authorized {
            settings,
            whole_repository: true,
            role: Role::Admin,
            protection: Protection::default(),
            versions: None,
            network: NetworkCompression::Auto,
            umask: 0,
        })
    }
}

/// One connection, greeted.
pub(crate) struct Conversation {
    release: &'static Release,
    session: Session,
    pub(crate) disk: ScriptedDisk,
    now: Instant,
}

impl Conversation {
    pub(crate) fn new(release: &'static Release) -> Self {
        Self::with(release, "")
    }

    pub(crate) fn with(release: &'static Release, further: &str) -> Self {
        let now = Instant::now();
        let limits = Limits {
            first_request: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            listing: 1 << 20,
            memory: 256 << 20,
        };
        let peer = Peer { names: Some(vec!["client".to_owned()]) };
        let host = Rc::new(Host::new(std::process::id()));
        let session = Session::new(&host, peer, release, Rc::new(Anybody::new(release, further)), limits, now);
        let mut conversation = Self { release, session, disk: ScriptedDisk::new(), now };
        assert_eq!(conversation.exchange(&[]), release.greeting().as_bytes());
        conversation
    }

    /// Whether the server has ended it.
    pub(crate) fn ended(&self) -> bool {
        self.session.state() != State::Open
    }

    /// What is wrong with our answer to `request`, if the right one is `expected`. Only the stack in
    /// errors may differ, and the order of a list that has the directory itself.
    pub(crate) fn differs(&mut self, title: &str, request: &[u8], expected: &[u8]) -> Option<String> {
        let ours = self.exchange(request);
        let framing = self.release.framing;
        let same = match error_of(framing, expected) {
            None if self.release.lists_itself && title.starts_with("list level") => {
                entries_of(&ours) == entries_of(expected)
            }
            Some(error) => error_of(framing, &ours) == Some(error),
            None => ours == expected,
        };
        let version = self.release.version;
        (!same).then(|| format!("{version}: {title}\n  ours {ours:02x?}\nwanted {expected:02x?}"))
    }

    /// Sends `request` and returns all that comes back.
    pub(crate) fn exchange(&mut self, mut request: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        loop {
            let taken = self.session.handle_input(self.now, request);
            request = &request[taken..];
            let mut busy = taken > 0;
            while let Some((number, operation)) = self.session.poll_disk() {
                let completion = self.disk.run(operation);
                self.session.handle_completion(self.now, number, completion);
                busy = true;
            }
            while self.session.poll_work() {
                self.session.handle_work(self.now);
                busy = true;
            }
            while !self.session.poll_output().is_empty() {
                let output = self.session.poll_output();
                let count = output.len();
                answer.extend_from_slice(output);
                self.session.consume_output(self.now, count);
            }
            if !busy {
                assert!(request.is_empty() || self.session.state() != State::Open);
                return answer;
            }
        }
    }
}

/// An error answer without its stack: session, code and text.
fn error_of(framing: Framing, answer: &[u8]) -> Option<(Option<u64>, i32, String)> {
    let mut reader = Reader::new(answer);
    let (session, mut error) = match framing {
        Framing::Classic => (None, Reader::new(answer)),
        Framing::Session => {
            let session = reader.read_u64().ok()?;
            if reader.read_u32().ok()? != 2 || reader.read_bool().ok()? {
                return None;
            }
            (session, reader.read_pack().ok()??)
        }
    };
    if framing == Framing::Classic && error.read_u32().ok()? != 3 {
        return None;
    }
    let (code, text) = (error.read_i32().ok()?, error.read_str().ok()??.to_owned());
    assert!(error.read_str().unwrap().is_some(), "clients insist on a stack");
    Some((session, code, text))
}

/// A list of the classic framing, sorted, without the time and mode of the directory itself, which the
/// recording has of another one. Fields that an entry has only where the one before differs are
/// spelled out: the real server reads the directory's own entry with the others, ours before them.
fn entries_of(answer: &[u8]) -> Vec<String> {
    let mut entries = Vec::new();
    let (mut modified, mut mode, mut names) = (0, 0, [None, None]);
    let mut rest = answer;
    while rest != [0x84, 0x00] {
        assert_eq!(rest[..3], [0x80, 0xf0, 0x02]);
        let end = 4 + usize::from(rest[3]);
        let mut entry = Reader::new(&rest[4..end]);
        assert_eq!(rest[end], 0);
        rest = &rest[end + 1..];
        if entry.peek().unwrap().unwrap().1 == Type::Bool {
            entries.push(format!("found: {}", entry.read_bool().unwrap()));
            continue;
        }
        let name = entry.read_str().unwrap().unwrap().to_owned();
        let kind = entry.read_u32().unwrap();
        modified += entry.read_time().unwrap();
        let size = if kind == 0 { entry.read_u64().unwrap() } else { None };
        mode = entry.read_mode().unwrap().unwrap_or(mode);
        for known in &mut names {
            assert_eq!((entry.read_u32().unwrap(), entry.read_bool().unwrap()), (0, false));
            let now = entry.read_str().unwrap().map(str::to_owned);
            *known = now.or(known.take());
        }
        let link = entry.read_str().unwrap();
        entries.push(match name.as_str() {
            "." => format!(". {kind} {names:?}"),
            _ => format!("{name} {kind} {modified} {size:?} {mode:o} {names:?} {link:?}"),
        });
    }
    entries.sort();
    entries
}
