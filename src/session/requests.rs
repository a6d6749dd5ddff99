//! What each request of an open session starts.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::config::{RepositoryKind, Role, Storage};
use crate::disk::Location;
use crate::protocol::error::{Error, Result};
use crate::protocol::framing::Envelope;
use crate::protocol::release::Release;
use crate::protocol::request::{ReadRequest, Request, WriteRequest};
use crate::protocol::response::Payload;
use crate::repository::policy::access::Access;
use crate::repository::policy::guard::Precaution;
use crate::repository::policy::view::{Place, Sight};
use crate::repository::posix::change::{Change, PathCreate, PathRemove};
use crate::repository::posix::check::Checked;
use crate::repository::posix::listing::{Info, List, decode_level};
use crate::repository::posix::read::{ReadRange, ReadStream};
use crate::repository::posix::write::WriteStream;
use crate::repository::{Answer, Shared, Step, Task};

use super::ahead::Prepared;
use super::granted::{Active, Granted};
use super::line::Line;
use super::streams::Stream;

/// What a request comes to at first.
pub(super) enum Begun {
    /// Its answer is known.
    Answered(Answer),
    /// Its first step.
    Running(Step, Active),
    /// Its first step was made before, for the next block of a file, and the disk is at work for that.
    UnderWay,
}

fn task(started: (impl Task + 'static, Step)) -> Begun {
    Begun::Running(started.1, Active::Task(Box::new(started.0)))
}

impl Granted {
    /// Starts `request`.
    pub(super) fn begin(&mut self, line: &Line, envelope: Envelope, request: Request) -> Result<Begun> {
        let (release, shared) = (line.release, &line.host.repository);
        Ok(match request {
            Request::Noop => Begun::Answered(Answer::null()),
            Request::Feature => Begun::Answered(self.feature(release)),
            Request::OptionGet(names) => Begun::Answered(self.option_values(&names)?),
            Request::Info { file, level, follow } => {
                let level = decode_level(level)?;
                match self.view.sight(&file)? {
                    Sight::Place(at) => task(Info::begin(at, level, follow, release)),
                    Sight::Behind(at) => task(Info::begin_behind(at, file, level, release)),
                }
            }
            Request::List { path, level } => {
                let place = self.view.locate(&path, Access::Look)?;
                task(List::begin(place, &shared.listings, decode_level(level)?, line.limits.listing, release))
            }
            Request::PathCreate { path, error_on_exists, no_parent_create, mode } => {
                let (mode, making) = (self.directory_mode(mode), Rc::clone(shared));
                self.change(shared, &path, Access::Directory, move |at| {
                    PathCreate::begin(&making, at, error_on_exists, !no_parent_create, mode)
                })?
            }
            Request::PathRemove { path, recurse } => {
                let access = if recurse { Access::RemoveTree } else { Access::Remove };
                self.change(shared, &path, access, move |at| PathRemove::begin(at, recurse))?
            }
            Request::PathSync { path } => self.change(shared, &path, Access::Directory, Change::sync)?,
            Request::Remove { file, error_on_missing } => {
                let text = release.remove_error;
                self.change(shared, &file, Access::Remove, move |at| Change::remove(at, error_on_missing, text))?
            }
            Request::LinkCreate { target, link, hard: false } => {
                let place = self.view.locate_link(&link, &target)?;
                self.change_place(shared, &place, &link, Access::Link, |at| Change::symbolic_link(at, target))?
            }
            Request::LinkCreate { target, link, hard: true } => {
                let target = self.view.locate_source(&target)?;
                self.change(shared, &link, Access::HardLink, |at| Change::hard_link(at, target))?
            }
            Request::Read(request) => self.open_read(line, envelope, request)?,
            Request::Write(request) => self.open_write(line, envelope, *request)?,
            Request::ReadNext => self.read_next(envelope)?,
            Request::Close => self.close_stream(envelope)?,
            Request::Cancel => self.cancel_stream(envelope),
            Request::Config(_) | Request::Exit | Request::Database(_) => {
                return Err(Error::protocol(format!("request '{}' is out of order", envelope.command)));
            }
        })
    }

    /// Starts a request that changes what is at `path`, once it is clear that it may.
    fn change<T: Task + 'static>(
        &self,
        shared: &Rc<Shared>,
        path: &[u8],
        access: Access,
        start: impl FnOnce(Location) -> (T, Step) + 'static,
    ) -> Result<Begun> {
        self.change_place(shared, &self.view.locate(path, access)?, path, access, start)
    }

    fn change_place<T: Task + 'static>(
        &self,
        shared: &Rc<Shared>,
        place: &Place,
        path: &[u8],
        access: Access,
        start: impl FnOnce(Location) -> (T, Step) + 'static,
    ) -> Result<Begun> {
        let precaution = self.guard.precaution(&self.view, place, path, access)?;
        let at = place.location.clone();
        Ok(match precaution {
            Precaution { preconditions: None, watch: None } => task(start(at)),
            precaution => {
                let begin = Box::new({
                    let at = at.clone();
                    || {
                        let (begun, step) = start(at);
                        (Box::new(begun) as Box<dyn Task>, step)
                    }
                });
                task(Checked::begin(shared, at, precaution, begin)?)
            }
        })
    }

    /// The mode of a new directory. One that the server could not use would keep other clients out, and one
    /// that everybody can write to would let others in.
    fn directory_mode(&self, mode: u32) -> u32 {
        let mode = mode & !self.umask;
        if self.guard.measures.role == Role::Admin { mode } else { (mode | 0o700) & !0o002 }
    }

    /// The mode of a new file, likewise.
    fn file_mode(&self, mode: u32) -> u32 {
        let mode = mode & !self.umask;
        if self.guard.measures.role == Role::Admin { mode } else { (mode | 0o600) & !0o002 }
    }

    fn feature(&self, release: &Release) -> Answer {
        let Release { repository_features, cifs_features, cluster_features, .. } = *release;
        let features = match &self.settings.storage {
            Storage::Cluster(_) => cluster_features,
            _ if self.is_cifs() => cifs_features,
            Storage::Repository(_) => repository_features,
        };
        Answer::data(Payload::from_pack(|pack| {
            pack.text(self.view.base()).u64(features);
        }))
    }

    fn is_cifs(&self) -> bool {
        self.settings.repository().is_some_and(|repository| repository.kind == RepositoryKind::Cifs)
    }

    fn option_values(&self, names: &[String]) -> Result<Answer> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let values = self.settings.option_json(&names)?;
        Ok(Answer::data(Payload::from_pack(|pack| _ = pack.str(&values))))
    }

    fn open_read(&mut self, line: &Line, envelope: Envelope, request: ReadRequest) -> Result<Begun> {
        self.streams.check_new(envelope.session)?;
        let mut ranges = VecDeque::with_capacity(request.ranges.len());
        for range in &request.ranges {
            let at = self.view.locate(&range.file, Access::Read)?.location;
            ranges.push_back(ReadRange { at, offset: range.offset, limit: range.limit });
        }
        let (block, shared) = (self.settings.buffer_size, &line.host.repository);
        let mut stream = ReadStream::new(ranges, request, block, line.release, self.pace.link(), shared)?;
        let step = stream.advance()?;
        self.streams.add(envelope.session, Stream::Read(Box::new(stream)));
        Ok(Begun::Running(step, Active::Stream))
    }

    fn open_write(&mut self, line: &Line, envelope: Envelope, mut request: WriteRequest) -> Result<Begun> {
        self.streams.check_new(envelope.session)?;
        request.file_mode = self.file_mode(request.file_mode);
        request.path_mode = self.directory_mode(request.path_mode);
        if self.guard.measures.role != Role::Admin {
            // No client needs it, and no one else may get a hold on what is protected.
            (request.user, request.group) = (None, None);
        }
        // Directories of such a file system cannot be synced, whatever the client asks.
        request.sync_path &= !self.is_cifs();
        let place = self.view.locate(&request.file, Access::Write)?;
        let safeguard = self.guard.safeguard(&self.view, &place, &request.file, &request.filters)?;
        let shared = &line.host.repository;
        let (mut stream, step) = WriteStream::begin(request, place.location, safeguard, line.release, shared)?;
        stream.collect_up_to(self.settings.buffer_size);
        self.streams.add(envelope.session, Stream::Write(Box::new(stream)));
        Ok(Begun::Running(step, Active::Stream))
    }

    fn find_stream(&mut self, envelope: Envelope) -> Result<&mut Stream> {
        let stream = self.streams.find(envelope.session).filter(|_| envelope.open).ok_or_else(|| {
            let Envelope { session, command, kind, .. } = envelope;
            Error::protocol(format!("unable to find session id {session} for request {command}:{kind}"))
        })?;
        if envelope.is_write() != matches!(stream, Stream::Write(_)) {
            return Err(Error::protocol(format!(
                "session id {} is not of request {}",
                envelope.session, envelope.command
            )));
        }
        Ok(stream)
    }

    fn read_next(&mut self, envelope: Envelope) -> Result<Begun> {
        self.find_stream(envelope)?;
        let step = match self.take_prepared(envelope) {
            Prepared::Answer(answer) => Step::Done(answer?),
            Prepared::UnderWay => return Ok(Begun::UnderWay),
            Prepared::Nothing => self.find_stream(envelope)?.next_block()?,
        };
        Ok(Begun::Running(step, Active::Stream))
    }

    fn close_stream(&mut self, envelope: Envelope) -> Result<Begun> {
        match self.find_stream(envelope)? {
            Stream::Write(write) if write.is_ready() => Ok(Begun::Running(write.finish()?, Active::Stream)),
            Stream::Write(_) => Err(Error::protocol("write session has failed and can only be cancelled")),
            Stream::Read(_) => Ok(Begun::Answered(Answer::closing())),
        }
    }

    /// A cancellation always succeeds, also for a session that there is not: clients cancel what failed.
    fn cancel_stream(&mut self, envelope: Envelope) -> Begun {
        // Also when the client thinks that it is not open: nothing may be left behind.
        let stream = self.find_stream(Envelope { open: true, ..envelope });
        match stream.ok().and_then(Stream::discard) {
            Some(operation) => Begun::Running(Step::Disk(operation), Active::Stream),
            None => Begun::Answered(Answer::closing()),
        }
    }
}
