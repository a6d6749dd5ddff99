//! Requests that look: one entry, and the entries of a directory (specification, section 4.1).

use std::rc::Rc;

use crate::disk::{self, Completion, Entry, Failure, Kind, Level, Location, Metadata, Operation, Outcome};
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::pack::Writer;
use crate::protocol::response::Payload;

use super::errno::{ENOENT, EXDEV};
use super::view::{Place, leads_out};
use super::{Answer, Step, Task, unexpected_outcome};

/// The level that a client names by its number.
///
/// # Errors
///
/// [`Code::Format`] for a number that names none.
pub fn decode_level(level: u32) -> Result<Level> {
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
    fn encode(&mut self, pack: &mut Writer, metadata: &Metadata, level: Level) {
        pack.u32(if level >= Level::Type { metadata.kind as u32 } else { 0 });
        let modified = if level >= Level::Basic { metadata.modified } else { 0 };
        pack.time(modified - self.modified);
        self.modified = modified;
        // Without a type every entry counts as a file; a size of 0 is left out, but takes its id.
        if level < Level::Type || metadata.kind == Kind::File {
            pack.u64(if level >= Level::Basic { metadata.size } else { 0 });
        }
        // A posix repository has no versions.
        pack.null();
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
            pack.str(metadata.link_destination.as_deref().unwrap_or_default());
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
pub struct Info {
    at: Location,
    level: Level,
}

impl Info {
    /// Starts to look at `at`.
    #[must_use]
    pub fn begin(at: Location, level: Level, follow: bool) -> (Self, Step) {
        let step = Step::Disk(Operation::Stat { at: at.clone(), follow, level });
        (Self { at, level }, step)
    }
}

impl Task for Info {
    fn resume(&mut self, completion: Completion) -> Result<Step> {
        let metadata = match completion {
            Ok(Outcome::Metadata(metadata)) => Some(metadata),
            Ok(_) => return Err(unexpected_outcome()),
            Err(failure) => match failure.errno {
                ENOENT => None,
                EXDEV => return Err(leads_out(&self.at)),
                errno => {
                    let (code, text) = match failure.step {
                        disk::Step::LinkDestination => (Code::FileRead, "unable to get destination for link"),
                        _ => (Code::FileOpen, "unable to get info for path/file"),
                    };
                    return Err(Error::system(code, format_args!("{text} '{}'", self.at), errno.0));
                }
            },
        };
        Ok(Step::Done(Answer::data(Payload::from_pack(|pack| {
            pack.bool_forced(metadata.is_some());
            if let Some(metadata) = &metadata {
                Previous::default().encode(pack, metadata, self.level);
            }
        }))))
    }
}

/// Lists a directory.
#[derive(Debug)]
pub struct List {
    place: Place,
    level: Level,
    maximum: usize,
    previous: Previous,
    answer: Writer,
}

impl List {
    /// Starts to list `place`. A list is one message and has to be held whole, so one of more than
    /// `maximum` bytes is refused. A million entries in full detail take about 40 MB.
    #[must_use]
    pub fn begin(place: Place, level: Level, maximum: usize) -> (Self, Step) {
        let step = Step::Disk(Operation::List { at: place.location.clone(), level });
        let mut answer = Writer::over(Payload::new(Vec::new(), 0).into_buffer());
        answer.bool_forced(true);
        (Self { place, level, maximum, previous: Previous::default(), answer }, step)
    }

    fn add(&mut self, entry: &Entry) {
        let visible = self.place.visible.as_ref();
        if visible.is_some_and(|names| !names.contains(&entry.name)) {
            return;
        }
        let (previous, level) = (&mut self.previous, self.level);
        self.answer.object(|pack| {
            pack.str(&entry.name);
            previous.encode(pack, &entry.metadata, level);
        });
    }

    fn failure(&self, failure: Failure) -> Error {
        let (code, text) = match failure.step {
            disk::Step::Information => (Code::FileOpen, "unable to get info for path/file"),
            disk::Step::LinkDestination => (Code::FileRead, "unable to get destination for link"),
            _ => (Code::PathOpen, "unable to list file info for path"),
        };
        match (failure.errno, failure.path) {
            (EXDEV, None) => leads_out(&self.place.location),
            (errno, Some(path)) => Error::system(code, format_args!("{text} '{path}'"), errno.0),
            (errno, None) => Error::system(code, format_args!("{text} '{}'", self.place.location), errno.0),
        }
    }
}

impl Task for List {
    fn resume(&mut self, completion: Completion) -> Result<Step> {
        match completion {
            Ok(Outcome::Entries(entries, rest)) => {
                for entry in &entries {
                    self.add(entry);
                }
                if self.answer.len() > self.maximum {
                    let message = format!(
                        "unable to list file info for path '{}': the list is larger than {} bytes\nHINT: see listing-memory-max in repohostd.conf.",
                        self.place.location, self.maximum
                    );
                    return Err(Error::new(Code::PathOpen, message));
                }
                if let Some(listing) = rest {
                    return Ok(Step::Disk(Operation::ListMore { listing }));
                }
                let answer = std::mem::take(&mut self.answer).finish();
                Ok(Step::Done(Answer::data(Payload::from_buffer(answer))))
            }
            Ok(_) => Err(unexpected_outcome()),
            Err(failure) if failure.errno == ENOENT && failure.path.is_none() => {
                Ok(Step::Done(Answer::data(Payload::from_pack(|pack| _ = pack.bool_forced(false)))))
            }
            Err(failure) => Err(self.failure(failure)),
        }
    }
}
