//! What each request of an open session starts.

use std::collections::VecDeque;

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
use crate::repository::posix::read::{ReadOptions, ReadRange, ReadStream};
use crate::repository::posix::write::WriteStream;
use crate::repository::{Answer, Step, Task};

use super::ahead::Prepared;
use super::conversation::{Active, Session, Stream};

/// Files that one connection may hold open; real clients have one or two.
const STREAMS_MAXIMUM: usize = 8;

/// Bytes of a block where the client and the server name none.
const BUFFER_DEFAULT: usize = 1 << 20;

fn task(started: (impl Task + 'static, Step)) -> (Step, Active) {
    (started.1, Active::Task(Box::new(started.0)))
}

/// An answer that is known at once needs no task; the kind of activity does not matter then.
fn at_once(answer: Answer) -> (Step, Active) {
    (Step::Done(answer), Active::Stream)
}

impl Session {
    /// Starts `request` and returns its first step; `None` when that was made before, for the next block
    /// of a file, and the request waits for what comes of it.
    pub(super) fn begin(&mut self, envelope: Envelope, request: Request) -> Result<Option<(Step, Active)>> {
        Ok(Some(match request {
            Request::Noop => at_once(Answer::null()),
            Request::Feature => at_once(self.feature()),
            Request::OptionGet(names) => at_once(self.option_values(&names)?),
            Request::Info { file, level, follow } => {
                let level = decode_level(level)?;
                match self.view.sight(&file)? {
                    Sight::Place(at) => task(Info::begin(at, level, follow, self.release)),
                    Sight::Behind(link) => task(Info::begin_behind(link, file, level, self.release)),
                }
            }
            Request::List { path, level } => {
                let place = self.view.locate(&path, Access::Look)?;
                task(List::begin(place, decode_level(level)?, self.limits.listing, self.release))
            }
            Request::PathCreate { path, error_on_exists, no_parent_create, mode } => {
                let mode = self.directory_mode(mode);
                self.change(&path, Access::Directory, move |at| {
                    PathCreate::begin(at, error_on_exists, no_parent_create, mode)
                })?
            }
            Request::PathRemove { path, recurse } => {
                let access = if recurse { Access::RemoveTree } else { Access::Remove };
                self.change(&path, access, move |at| PathRemove::begin(at, recurse))?
            }
            Request::PathSync { path } => self.change(&path, Access::Directory, Change::sync)?,
            Request::Remove { file, error_on_missing } => {
                let text = self.release.remove_error;
                self.change(&file, Access::Remove, move |at| Change::remove(at, error_on_missing, text))?
            }
            Request::LinkCreate { target, link, hard: false } => {
                let place = self.view.locate_link(&link, &target)?;
                self.change_place(&place, &link, Access::Link, |at| Change::symbolic_link(at, target))?
            }
            Request::LinkCreate { target, link, hard: true } => {
                let target = self.view.locate_source(&target)?;
                self.change(&link, Access::HardLink, |at| Change::hard_link(at, target))?
            }
            Request::Read(request) => self.open_read(envelope, request)?,
            Request::Write(request) => self.open_write(envelope, *request)?,
            Request::ReadNext => return self.read_next(envelope),
            Request::Close => self.close_stream(envelope)?,
            Request::Cancel => self.cancel_stream(envelope),
            Request::Config(_) | Request::Exit | Request::Database(_) => {
                return Err(Error::protocol(format!("request '{}' is out of order", envelope.command)));
            }
        }))
    }

    /// Starts a request that changes what is at `path`, once it is clear that it may.
    fn change<T: Task + 'static>(
        &self,
        path: &[u8],
        access: Access,
        start: impl FnOnce(Location) -> (T, Step) + 'static,
    ) -> Result<(Step, Active)> {
        self.change_place(&self.view.locate(path, access)?, path, access, start)
    }

    fn change_place<T: Task + 'static>(
        &self,
        place: &Place,
        path: &[u8],
        access: Access,
        start: impl FnOnce(Location) -> (T, Step) + 'static,
    ) -> Result<(Step, Active)> {
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
                task(Checked::begin(at, precaution, begin)?)
            }
        })
    }

    /// The mode of a new directory. One that the server could not use would keep other clients out, and one
    /// that everybody can write to would let others in.
    fn directory_mode(&self, mode: u32) -> u32 {
        let mode = mode & !self.umask;
        if self.guard.role() == Role::Admin { mode } else { (mode | 0o700) & !0o002 }
    }

    /// The mode of a new file, likewise.
    fn file_mode(&self, mode: u32) -> u32 {
        let mode = mode & !self.umask;
        if self.guard.role() == Role::Admin { mode } else { (mode | 0o600) & !0o002 }
    }

    fn feature(&self) -> Answer {
        let Release { repository_features, cifs_features, cluster_features, .. } = *self.release;
        let features = match self.settings.as_ref().map(|settings| &settings.storage) {
            Some(Storage::Cluster(_)) => cluster_features,
            _ if self.is_cifs() => cifs_features,
            _ => repository_features,
        };
        Answer::data(Payload::from_pack(|pack| {
            pack.text(self.view.base()).u64(features);
        }))
    }

    fn is_cifs(&self) -> bool {
        let repository = self.settings.as_ref().and_then(|settings| settings.repository());
        repository.is_some_and(|repository| repository.kind == RepositoryKind::Cifs)
    }

    fn option_values(&self, names: &[String]) -> Result<Answer> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let settings = self.settings.as_ref().ok_or_else(|| Error::format("expected config command"))?;
        let values = settings.option_json(&names)?;
        Ok(Answer::data(Payload::from_pack(|pack| _ = pack.str(&values))))
    }

    fn block_size(&self) -> usize {
        self.settings.as_ref().map_or(BUFFER_DEFAULT, |settings| settings.buffer_size)
    }

    /// Makes sure that `envelope` may open another file.
    fn check_new(&self, envelope: Envelope) -> Result<()> {
        if self.streams.iter().any(|(number, _)| *number == envelope.session) {
            return Err(Error::protocol(format!("session id {} is open already", envelope.session)));
        }
        if self.streams.len() >= STREAMS_MAXIMUM {
            return Err(Error::protocol(format!("more than {STREAMS_MAXIMUM} files are open")));
        }
        Ok(())
    }

    fn open_read(&mut self, envelope: Envelope, request: ReadRequest) -> Result<(Step, Active)> {
        self.check_new(envelope)?;
        let mut ranges = VecDeque::with_capacity(request.ranges.len());
        for range in request.ranges {
            let at = self.view.locate(&range.file, Access::Read)?.location;
            ranges.push_back(ReadRange { at, offset: range.offset, limit: range.limit });
        }
        let mut stream = ReadStream::new(
            ReadOptions {
                ranges,
                tells_existence: request.tells_existence,
                ignore_missing: request.ignore_missing,
                filters: request.filters,
                block: self.block_size(),
                release: self.release,
            },
            &self.host.repository,
        )?;
        let step = stream.advance()?;
        self.streams.push((envelope.session, Stream::Read(Box::new(stream))));
        Ok((step, Active::Stream))
    }

    fn open_write(&mut self, envelope: Envelope, mut request: WriteRequest) -> Result<(Step, Active)> {
        self.check_new(envelope)?;
        request.file_mode = self.file_mode(request.file_mode);
        request.path_mode = self.directory_mode(request.path_mode);
        if self.guard.role() != Role::Admin {
            // No client needs it, and no one else may get a hold on what is protected.
            (request.user, request.group) = (None, None);
        }
        // Directories of such a file system cannot be synced, whatever the client asks.
        request.sync_path &= !self.is_cifs();
        let place = self.view.locate(&request.file, Access::Write)?;
        let safeguard = self.guard.safeguard(&self.view, &place, &request.file, &request.filters)?;
        let shared = &self.host.repository;
        let (mut stream, step) = WriteStream::begin(request, place.location, safeguard, self.release, shared)?;
        stream.collect_up_to(self.block_size());
        self.streams.push((envelope.session, Stream::Write(Box::new(stream))));
        Ok((step, Active::Stream))
    }

    fn find_stream<T>(&mut self, envelope: Envelope, run: impl FnOnce(&mut Stream) -> Result<T>) -> Result<T> {
        let open = self.streams.iter_mut().find(|(number, _)| *number == envelope.session);
        let (_, stream) = open.filter(|_| envelope.open).ok_or_else(|| {
            let Envelope { session, command, kind, .. } = envelope;
            Error::protocol(format!("unable to find session id {session} for request {command}:{kind}"))
        })?;
        let fits = envelope.is_write() == matches!(stream, Stream::Write(_));
        if !fits {
            return Err(Error::protocol(format!(
                "session id {} is not of request {}",
                envelope.session, envelope.command
            )));
        }
        run(stream)
    }

    fn read_next(&mut self, envelope: Envelope) -> Result<Option<(Step, Active)>> {
        self.find_stream(envelope, |_| Ok(()))?;
        let step = match self.take_prepared(envelope) {
            Prepared::Answer(answer) => Step::Done(answer?),
            Prepared::UnderWay => return Ok(None),
            Prepared::Nothing => self.find_stream(envelope, |stream| match stream {
                Stream::Read(read) => read.advance(),
                Stream::Write(_) => Err(Error::protocol("write session has nothing to read")),
            })?,
        };
        Ok(Some((step, Active::Stream)))
    }

    fn close_stream(&mut self, envelope: Envelope) -> Result<(Step, Active)> {
        let step = self.find_stream(envelope, |stream| match stream {
            Stream::Write(write) if write.is_ready() => write.finish(),
            Stream::Write(_) => Err(Error::protocol("write session has failed and can only be cancelled")),
            Stream::Read(_) => Ok(Step::Done(Answer::closing())),
        })?;
        Ok((step, Active::Stream))
    }

    /// A cancellation always succeeds, also for a session that there is not: clients cancel what failed.
    fn cancel_stream(&mut self, envelope: Envelope) -> (Step, Active) {
        // Also when the client thinks that it is not open: nothing may be left behind.
        let discard = self.find_stream(Envelope { open: true, ..envelope }, |stream| {
            Ok(match stream {
                Stream::Write(write) => write.discard(),
                Stream::Read(_) => None,
            })
        });
        match discard {
            Ok(Some(operation)) => (Step::Disk(operation), Active::Stream),
            _ => at_once(Answer::closing()),
        }
    }
}
