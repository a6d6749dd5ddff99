//! Requests that look: one entry, and the entries of a directory (specification, section 4.1).

use std::fmt;
use std::rc::Rc;

use bstr::BString;

use crate::disk::{
    self, Completion, Entry, Errno, Failure, Kind, Level, Listing, Location, Metadata, Operation, Outcome,
};
use crate::protocol::carried::Carried;
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::framing::Framing;
use crate::protocol::pack::Writer;
use crate::protocol::release::Release;
use crate::protocol::response::{Payload, classic};

use super::listing_memory::{Ledger, Share};
use crate::repository::policy::view::Place;
use crate::repository::{Answer, Step, Task, refused, unexpected_outcome};

/// The level that a client names by its number.
pub(crate) fn decode_level(level: u32) -> Result<Level> {
    Ok(match level {
        1 => Level::Exists,
        2 => Level::Type,
        3 => Level::Basic,
        0 | 4 => Level::Detail,
        _ => return Err(Error::format(format!("invalid info level {level}"))),
    })
}

/// What the entry before had: fields that are the same again are left out.
#[derive(Debug, Default)]
struct Previous {
    modified: i64,
    mode: u32,
    uid: u32,
    gid: u32,
    user: Option<Rc<str>>,
    group: Option<Rc<str>>,
}

impl Previous {
    fn encode(&mut self, pack: &mut Writer, metadata: &Metadata, level: Level, tells_version: bool) {
        pack.u32(if level >= Level::Type { metadata.kind as u32 } else { 0 });
        let modified = if level >= Level::Basic { metadata.modified } else { 0 };
        pack.time(modified - self.modified);
        self.modified = modified;
        // Without a type every entry counts as a file; a size of 0 is left out, but takes its id.
        if level < Level::Type || metadata.kind == Kind::File {
            pack.u64(if level >= Level::Basic { metadata.size } else { 0 });
        }
        // A posix repository has no versions.
        if tells_version {
            pack.null();
        }
        if level < Level::Detail {
            return;
        }
        pack.mode_default(metadata.mode, self.mode);
        self.mode = metadata.mode;
        pack.u32_default(metadata.uid, self.uid);
        self.uid = metadata.uid;
        encode_name(pack, metadata.user.as_ref(), &mut self.user);
        pack.u32_default(metadata.gid, self.gid);
        self.gid = metadata.gid;
        encode_name(pack, metadata.group.as_ref(), &mut self.group);
        if metadata.kind == Kind::Link {
            pack.text(metadata.link_destination.as_ref().map_or(&[], |text| text.as_slice()));
        }
    }
}

fn encode_name(pack: &mut Writer, name: Option<&Rc<str>>, previous: &mut Option<Rc<str>>) {
    pack.bool(name.is_none());
    let Some(name) = name else { return };
    if previous.as_ref() == Some(name) {
        pack.null();
    } else {
        pack.str(name);
        *previous = Some(Rc::clone(name));
    }
}

/// Looks at one entry.
#[derive(Debug)]
pub(crate) struct Info {
    at: Location,
    /// What the client calls it, if not by that place.
    called: Option<BString>,
    level: Level,
    release: &'static Release,
}

impl Info {
    /// Starts to look at `at`, to answer as `release` does.
    pub(crate) fn begin(at: Location, level: Level, follow: bool, release: &'static Release) -> (Self, Step) {
        let step = Step::Disk(Operation::Stat { at: at.clone(), follow, level });
        (Self { at, called: None, level, release }, step)
    }

    /// Starts to look at what the link at `link` points to, which the client calls `called`. A link there is not
    /// followed.
    pub(crate) fn begin_behind(
        link: Location,
        called: BString,
        level: Level,
        release: &'static Release,
    ) -> (Self, Step) {
        let step = Step::Disk(Operation::StatTarget { at: link.clone(), level });
        (Self { at: link, called: Some(called), level, release }, step)
    }
}

impl Task for Info {
    fn resume(&mut self, completion: Completion) -> Result<Step> {
        let metadata = match &self.called {
            Some(called) => take_metadata(completion, &self.at, Carried(called))?,
            None => take_metadata(completion, &self.at, &self.at)?,
        };
        Ok(Step::Done(Answer::data(Payload::from_pack(|pack| {
            pack.bool_forced(metadata.is_some());
            if let Some(metadata) = &metadata {
                Previous::default().encode(pack, metadata, self.level, self.release.tells_version);
            }
        }))))
    }
}

/// What a look at `at` found, which the client calls `called`; `None` when nothing is there.
fn take_metadata(completion: Completion, at: &Location, called: impl fmt::Display) -> Result<Option<Metadata>> {
    match completion {
        Ok(Outcome::Metadata(metadata)) => Ok(Some(metadata)),
        Ok(_) => Err(unexpected_outcome()),
        Err(failure) => match failure.errno {
            Errno::NOENT => Ok(None),
            errno => {
                let (code, text) = match failure.step {
                    disk::Step::LinkDestination => (Code::FileRead, "unable to get destination for link"),
                    _ => (Code::FileOpen, "unable to get info for path/file"),
                };
                Err(refused(code, format_args!("{text} '{called}'"), at, errno))
            }
        },
    }
}

/// Lists a directory.
#[derive(Debug)]
pub(crate) struct List {
    place: Place,
    level: Level,
    maximum: usize,
    release: &'static Release,
    previous: Previous,
    /// Whether the directory itself is still to be looked at.
    itself: bool,
    /// Entries so far: of the one answer, or of its next part.
    entries: Entries,
    rest: Option<Listing>,
    share: Share,
}

#[derive(Debug)]
enum Entries {
    /// The answer is one pack.
    Pack(Writer),
    /// Each entry is a message.
    Messages(Payload),
}

impl Entries {
    fn new(framing: Framing) -> Self {
        let payload = Payload::new(Vec::new(), 0);
        match framing {
            Framing::Classic => Self::Messages(payload),
            Framing::Session => {
                let mut pack = Writer::over(payload.into_buffer());
                pack.bool_forced(true);
                Self::Pack(pack)
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Pack(pack) => pack.len(),
            Self::Messages(messages) => messages.len(),
        }
    }
}

impl List {
    /// Starts to list `place`, to answer as `release` does. Since 2.54 a list is one message and has
    /// to be held whole, so all of them together may take `maximum` bytes and one of them half of
    /// that; a larger one is refused. A million entries in full detail take about 40 MB.
    pub(crate) fn begin(
        place: Place,
        ledger: &Rc<Ledger>,
        level: Level,
        maximum: usize,
        release: &'static Release,
    ) -> (Self, Step) {
        let entries = Entries::new(release.framing);
        let itself = release.lists_itself;
        let (previous, share) = (Previous::default(), Share::new(ledger));
        let list = Self { place, level, maximum, release, previous, itself, entries, rest: None, share };
        let step = list.start();
        (list, step)
    }

    fn start(&self) -> Step {
        let at = self.place.location.clone();
        Step::Disk(if self.itself {
            Operation::Stat { at, follow: true, level: self.level }
        } else {
            Operation::List { at, level: self.level }
        })
    }

    fn add(&mut self, name: &[u8], metadata: &Metadata) {
        if let (Some(cluster), Some(text)) = (&self.place.cluster, &metadata.link_destination) {
            cluster.note(&self.place.location, name, text);
        }
        let (previous, level) = (&mut self.previous, self.level);
        let fill = |pack: &mut Writer| {
            pack.text(name);
            previous.encode(pack, metadata, level, self.release.tells_version);
        };
        match &mut self.entries {
            Entries::Pack(pack) => _ = pack.object(fill),
            Entries::Messages(messages) => classic::add_message(messages, fill),
        }
    }

    fn is_visible(&self, name: &[u8]) -> bool {
        self.place.visible.as_ref().is_none_or(|names| names.iter().any(|visible| visible.as_bytes() == name))
    }

    /// The directory's entries, or the next of them, have arrived.
    fn take_entries(&mut self, entries: &[Entry], rest: Option<Listing>) -> Result<Step> {
        for entry in entries {
            if self.is_visible(&entry.name) {
                self.add(&entry.name, &entry.metadata);
            }
        }
        self.rest = rest;
        if matches!(self.entries, Entries::Pack(_)) && !self.take_memory()? {
            return Ok(Step::Wait);
        }
        Ok(self.go_on())
    }

    /// Whether the list so far may be held; if not, it has to wait for others.
    fn take_memory(&mut self) -> Result<bool> {
        let (bytes, maximum) = (self.entries.len(), self.maximum / 2);
        if bytes > maximum {
            let message = format!(
                "unable to list file info for path '{}': the list is larger than {maximum} bytes\n\
                 HINT: see listing-memory-max in repohostd.conf.",
                self.place.location
            );
            return Err(Error::new(Code::PathOpen, message));
        }
        Ok(self.share.grow(bytes, self.maximum))
    }

    /// Sends what there is, or asks for more of one answer.
    fn go_on(&mut self) -> Step {
        if matches!(self.entries, Entries::Pack(_))
            && let Some(listing) = self.rest.take()
        {
            return Step::Disk(Operation::ListMore { listing });
        }
        match std::mem::replace(&mut self.entries, Entries::new(self.release.framing)) {
            Entries::Pack(pack) => {
                self.share.complete();
                let share = Some(self.share.hand_over());
                Step::Done(Answer { share, ..Answer::data(Payload::from_buffer(pack.finish())) })
            }
            Entries::Messages(messages) if self.rest.is_some() => Step::Part(messages),
            Entries::Messages(messages) => Step::Done(Answer { lead: Some(messages), ..found(true) }),
        }
    }

    fn failure(&self, failure: Failure) -> Error {
        let (code, text) = match failure.step {
            disk::Step::Information => (Code::FileOpen, "unable to get info for path/file"),
            disk::Step::LinkDestination => (Code::FileRead, "unable to get destination for link"),
            _ => (Code::PathOpen, "unable to list file info for path"),
        };
        let (at, errno) = (&self.place.location, failure.errno);
        match failure.path {
            Some(path) => Error::system(code, format_args!("{text} '{path}'"), errno.0),
            None => refused(code, format_args!("{text} '{at}'"), at, errno),
        }
    }
}

impl Task for List {
    fn resume(&mut self, completion: Completion) -> Result<Step> {
        if std::mem::take(&mut self.itself) {
            let Some(metadata) = take_metadata(completion, &self.place.location, &self.place.location)? else {
                return Ok(Step::Done(found(false)));
            };
            self.add(b".", &metadata);
            return Ok(self.start());
        }
        match completion {
            Ok(Outcome::Entries(entries, rest)) => self.take_entries(&entries, rest),
            Ok(_) => Err(unexpected_outcome()),
            Err(failure) if failure.errno == Errno::NOENT && failure.path.is_none() => Ok(Step::Done(found(false))),
            Err(failure) => Err(self.failure(failure)),
        }
    }

    fn proceed(&mut self) -> Result<Step> {
        if matches!(self.entries, Entries::Pack(_)) {
            return Ok(if self.take_memory()? { self.go_on() } else { Step::Wait });
        }
        let listing = self.rest.take().ok_or_else(unexpected_outcome)?;
        Ok(Step::Disk(Operation::ListMore { listing }))
    }
}

/// Whether the directory is there: the whole answer or, where entries are messages, its end.
fn found(found: bool) -> Answer {
    Answer::data(Payload::from_pack(|pack| _ = pack.bool_forced(found)))
}
