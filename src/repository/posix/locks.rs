//! Stop files and locks, which a client's first `noop` asks for (specification, section 1.4 of the
//! protocol and section 5 of the server).
//!
//! They are shared with every pgbackrest that runs on this host: the same files, the same contents.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::config::SessionSettings;
use crate::disk::{
    Completion, Errno, HeldLock, Kind, Level, Location, LockAttempt, Operation, Outcome, RelativePath, Root,
};
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::release::LockContents;

use crate::repository::{Next, unexpected_outcome};

#[derive(Debug)]
enum Phase {
    StanzaStop,
    GlobalStop,
    Locking(Location),
}

/// Looks for stop files, then takes locks.
#[derive(Debug)]
pub(crate) struct Locks {
    stanza: String,
    /// The client's id for its run.
    exec_id: String,
    /// The process that a `stop --force` would signal.
    pid: u32,
    /// How lock files say so.
    contents: LockContents,
    /// Where lock and stop files are.
    root: Rc<Root>,
    /// Names of the lock files, in the order in which they are taken.
    names: VecDeque<String>,
    phase: Phase,
    /// What is held so far; whoever owns this must release it when the session ends.
    pub(crate) held: Vec<HeldLock>,
}

impl Locks {
    /// Starts with the stop files, for a session that is served by the process `pid`; `None` where its command locks
    /// nothing.
    pub(crate) fn begin(settings: &SessionSettings, contents: LockContents, pid: u32) -> Option<(Self, Operation)> {
        if settings.locks.is_empty() {
            return None;
        }
        let locks = Self {
            stanza: settings.stanza.clone()?,
            exec_id: settings.exec_id.clone().unwrap_or_default(),
            pid,
            contents,
            root: Root::new(settings.lock_path.as_path()),
            names: settings.locks.clone().into(),
            phase: Phase::StanzaStop,
            held: Vec::new(),
        };
        let operation = locks.stop_file(&format!("{}.stop", locks.stanza));
        Some((locks, operation))
    }

    /// Goes on after `completion`. In the end they are taken, or the client holds them already through another
    /// connection. [`Code::Stop`] when there is a stop file, [`Code::LockAcquire`] when somebody else holds a lock.
    pub(crate) fn resume(&mut self, completion: Completion) -> Result<Next<()>> {
        match &self.phase {
            Phase::StanzaStop => {
                self.refuse_stop(completion, &format!("stop file exists for stanza {}", self.stanza))?;
                self.phase = Phase::GlobalStop;
                Ok(Next::Disk(self.stop_file("all.stop")))
            }
            Phase::GlobalStop => {
                self.refuse_stop(completion, "stop file exists for all stanzas")?;
                self.next_lock()
            }
            Phase::Locking(at) => {
                match completion {
                    Ok(Outcome::Lock(LockAttempt::Acquired(lock))) => self.held.push(lock),
                    Ok(Outcome::Lock(LockAttempt::Busy { contents })) if self.is_own(&contents) => {}
                    Ok(Outcome::Lock(LockAttempt::Busy { .. })) => return Err(busy(at, Errno::AGAIN)),
                    Ok(_) => return Err(unexpected_outcome()),
                    Err(failure) => return Err(busy(at, failure.errno)),
                }
                self.next_lock()
            }
        }
    }

    fn stop_file(&self, name: &str) -> Operation {
        // A stanza's name that is no file name cannot have a stop file; the lock names were checked.
        let path = RelativePath::new(name).unwrap_or_default();
        Operation::Stat { at: Location::new(Rc::clone(&self.root), path), follow: true, level: Level::Type }
    }

    fn refuse_stop(&self, completion: Completion, message: &str) -> Result<()> {
        match completion {
            Ok(Outcome::Metadata(metadata)) if metadata.kind == Kind::File => Err(Error::new(Code::Stop, message)),
            Ok(_) => Ok(()),
            Err(failure) if failure.errno == Errno::NOENT => Ok(()),
            Err(failure) => {
                let name = if matches!(self.phase, Phase::StanzaStop) { self.stanza.as_str() } else { "all" };
                let path = self.root.path().join(format!("{name}.stop"));
                let mut error = Error::system(
                    Code::FileOpen,
                    format_args!("unable to get info for path/file '{}'", path.display()),
                    failure.errno.0,
                );
                if failure.errno == Errno::ACCESS {
                    error.message.push_str("\nHINT: does the user that runs the server have permissions on lock-path?");
                }
                Err(error)
            }
        }
    }

    fn next_lock(&mut self) -> Result<Next<()>> {
        let Some(name) = self.names.pop_front() else { return Ok(Next::Done(())) };
        let path = RelativePath::new(&name).filter(|path| !path.is_root() && !name.contains('/'));
        let path = path.ok_or_else(|| Error::access(format!("access denied: '{name}' is no name of a lock file")))?;
        let at = Location::new(Rc::clone(&self.root), path);
        self.phase = Phase::Locking(at.clone());
        Ok(Next::Disk(Operation::Lock { at, contents: self.contents() }))
    }

    /// The contents of a lock file, for other readers of the same release: as JSON, with keys in
    /// alphabetical order and no spaces.
    fn contents(&self) -> String {
        let Self { exec_id, pid, .. } = self;
        match self.contents {
            LockContents::Lines => format!("{pid}\n{exec_id}\n"),
            LockContents::Json => serde_json::json!({ "execId": exec_id, "pid": pid }).to_string(),
        }
    }

    fn is_own(&self, contents: &str) -> bool {
        if self.contents == LockContents::Lines {
            return contents.lines().nth(1) == Some(&self.exec_id);
        }
        // A longer text that an earlier holder left behind may follow the object.
        let mut values = serde_json::Deserializer::from_str(contents).into_iter::<serde_json::Value>();
        let exec_id = values.next().and_then(std::result::Result::ok);
        exec_id.is_some_and(|value| value["execId"].as_str() == Some(&self.exec_id))
    }
}

fn busy(at: &Location, errno: Errno) -> Error {
    let hint = match errno {
        Errno::AGAIN => "\nHINT: is another pgBackRest process running?".to_owned(),
        Errno::ACCESS => format!("\nHINT: does the user running pgBackRest have permissions on the '{at}' file?"),
        _ => String::new(),
    };
    let text = crate::protocol::errno::describe_errno(errno.0);
    Error::new(Code::LockAcquire, format!("unable to acquire lock on file '{at}': {text}{hint}"))
}
