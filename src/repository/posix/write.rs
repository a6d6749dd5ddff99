//! Write sessions: a file that appears under its name only when it is complete and as durable as
//! the client asked.

use std::rc::Rc;

use bstr::ByteSlice;

use crate::disk::{self, Claim, Completion, Entry, Errno, Failure, File, Level, Location, Operation, Outcome, Over};
use crate::filter::{Chain, Progress};
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::filter::encode_results;
use crate::protocol::release::Release;
use crate::protocol::request::WriteRequest;
use crate::protocol::response::Payload;

use super::anchored::SyncPath;
use super::check::Check;
use super::make_path::MakePath;
use super::replacement::Replacement;
use super::same::Comparison;
use crate::repository::policy::finished::Watch;
use crate::repository::policy::guard::{Precaution, Replace, Safeguard};
use crate::repository::policy::layout::{MANIFEST, TEMPORARY_SUFFIX};
use crate::repository::policy::segments::{self, Begun, Twin};
use crate::repository::policy::view::leads_out;
use crate::repository::{Answer, Next, Shared, Step, unexpected_outcome};

/// Bytes that are collected before they are written: large enough that system calls do not count,
/// small enough to stay in the processor's cache from decryption to the page cache. Where each write waits, as many as
/// the client's block has are better.
const CHUNK: usize = 256 << 10;

/// Work of filters is cut into slices of about so many bytes.
const SLICE: usize = 256 << 10;

#[derive(Debug)]
enum Phase {
    /// Looking whether it may be written.
    Checking(Box<Check>),
    /// Opening the file; missing directories may have to be made.
    Opening,
    MakingPath(MakePath),
    /// Giving the file to its owner.
    Owning,
    /// Waiting for data.
    Ready,
    /// Writing data; more of the same block may follow.
    Writing,
    /// Writing what the filters still held.
    Flushing,
    SettingTimes,
    Syncing,
    Closing,
    Renaming,
    /// Looking whether the file that has the name already is the same.
    Comparing(Comparison),
    /// Claiming the right to add a file of its segment.
    Claiming,
    /// Looking whether another file of the same segment is there, since when, and what is there.
    Twins(Begun, Vec<String>),
    /// Looking whether an info file may have its name.
    Guarding(Box<Replacement>),
    /// Removing what was written, since the file is there already.
    Leaving,
    SyncingPath(SyncPath),
    /// Dropping what was written.
    Discarding,
    Finished,
}

/// A write session.
pub struct WriteStream {
    release: &'static Release,
    request: WriteRequest,
    replace: Replace,
    separate: bool,
    watch: Option<Watch>,
    claim: Option<Claim>,
    notice: Option<String>,
    target: Location,
    /// Where the data goes: the target, or its temporary name.
    place: Location,
    file: Option<File>,
    offset: u64,
    chain: Chain,
    out: Option<Vec<u8>>,
    /// Bytes that are collected now, and that may be where that pays.
    chunk: usize,
    largest: usize,
    /// Whether the temporary file is there. Another writer may have made it anew since, so it is only
    /// touched together with `file`, which stays open until it has its final name.
    left_behind: bool,
    /// Whether the filters have put out their last bytes.
    flushed: bool,
    phase: Phase,
    shared: Rc<Shared>,
}

/// What came of a piece of data.
#[derive(Debug)]
pub enum Fed {
    /// It was taken.
    Taken,
    /// This has to be done before more is taken.
    Disk(Operation),
    /// Others should have their turn before more is taken: a few bytes can decompress to many.
    Work,
}

impl WriteStream {
    /// Starts to write `request` to `target`, to report on it as `release` does.
    ///
    /// # Errors
    ///
    /// What a filter refuses its parameters with; a name that is too long for its temporary form.
    pub fn begin(
        mut request: WriteRequest,
        target: Location,
        safeguard: Safeguard,
        release: &'static Release,
        shared: &Rc<Shared>,
    ) -> Result<(Self, Step)> {
        let Safeguard { precaution: Precaution { preconditions, watch }, replace, separate } = safeguard;
        // What may not be replaced gets its name in one step.
        request.atomic |= !matches!(replace, Replace::Always);
        let chain = Chain::sharing(&shared.contexts, std::mem::take(&mut request.filters))?;
        let place = if request.atomic { target.with_suffix(TEMPORARY_SUFFIX) } else { Some(target.clone()) };
        let place = place.ok_or_else(|| {
            Error::system(
                Code::FileOpen,
                format_args!("unable to open file '{target}' for write"),
                Errno::NAMETOOLONG.0,
            )
        })?;
        let mut stream = Self {
            release,
            request,
            replace,
            separate,
            watch,
            claim: None,
            notice: None,
            target,
            place,
            file: None,
            offset: 0,
            chain,
            out: None,
            chunk: CHUNK,
            largest: CHUNK,
            left_behind: false,
            flushed: false,
            phase: Phase::Opening,
            shared: Rc::clone(shared),
        };
        let check = match preconditions {
            Some(preconditions) => Check::begin(shared, stream.target.clone(), preconditions)?,
            None => None,
        };
        let operation = match check {
            Some((check, operation)) => {
                stream.phase = Phase::Checking(Box::new(check));
                operation
            }
            None => stream.open(),
        };
        Ok((stream, Step::Disk(operation)))
    }

    /// Collects up to so many bytes where each write waits.
    pub fn collect_up_to(&mut self, bytes: usize) {
        self.largest = bytes.max(CHUNK);
    }

    /// Gives the buffer back.
    #[must_use]
    pub fn into_buffer(self) -> Option<Vec<u8>> {
        self.out
    }

    /// How many bytes it holds or may hold.
    #[must_use]
    pub fn memory(&self) -> usize {
        let replacing = if let Phase::Guarding(replacement) = &self.phase { replacement.memory() } else { 0 };
        // What a helper writes it has in memory of its own.
        let written = if self.chunk > CHUNK { 2 * self.chunk } else { CHUNK };
        written + self.chain.memory() + replacing
    }

    /// Whether data can be fed now.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    /// Takes the front of `data`, as much as fits before something has to be done.
    ///
    /// # Errors
    ///
    /// What a filter says to the data.
    pub fn feed(&mut self, data: &mut &[u8]) -> Result<Fed> {
        while !data.is_empty() {
            let mut out = self.out.take().unwrap_or_else(|| self.shared.buffers.take(self.chunk));
            let progress = if self.chain.is_passive() {
                let (now, later) = data.split_at(data.len().min(self.chunk - out.len()));
                out.extend_from_slice(now);
                *data = later;
                self.chain.observe(now).map(|()| Progress::NeedsInput)
            } else {
                self.chain.process(data, false, &mut out, self.chunk, SLICE)
            };
            let full = out.len() >= self.chunk;
            self.out = Some(out);
            let progress = progress?;
            if progress == Progress::Finished {
                // What follows the end of compressed data is not expected and not kept.
                *data = &[];
            }
            if full {
                self.phase = Phase::Writing;
                return Ok(Fed::Disk(self.write()?));
            }
            if progress == Progress::Budget {
                self.phase = Phase::Writing;
                return Ok(Fed::Work);
            }
        }
        Ok(Fed::Taken)
    }

    /// Completes the file: all data is there.
    ///
    /// # Errors
    ///
    /// What the client is told.
    pub fn finish(&mut self) -> Result<Step> {
        self.phase = Phase::Flushing;
        self.flush()
    }

    /// Drops the file. `None` when there is nothing to clean up.
    pub fn discard(&mut self) -> Option<Operation> {
        self.phase = Phase::Discarding;
        let removal = self.removal();
        (self.file, self.left_behind) = (None, false);
        removal
    }

    /// What removes the temporary file, if it is there.
    fn removal(&self) -> Option<Operation> {
        let file = self.file.clone().filter(|_| self.left_behind)?;
        Some(Operation::RemoveOwn { file, at: self.place.clone() })
    }

    /// More slices of work that only burns CPU.
    ///
    /// # Errors
    ///
    /// What the client is told.
    pub fn work(&mut self) -> Result<Step> {
        // In the middle of a block there is nothing to do but to take its next bytes.
        if matches!(self.phase, Phase::Flushing) {
            return self.flush();
        }
        self.phase = Phase::Ready;
        Ok(Step::Ready)
    }

    /// Goes on after the operation that was asked for last.
    ///
    /// # Errors
    ///
    /// What the client is told; the session waits for its cancellation then.
    pub fn resume(&mut self, completion: Completion) -> Result<Step> {
        let step = self.advance(completion);
        if step.is_err() {
            // Others need not wait for the cancellation.
            self.claim = None;
        }
        step
    }

    fn advance(&mut self, completion: Completion) -> Result<Step> {
        match &mut self.phase {
            Phase::Checking(check) => Ok(Step::Disk(match check.resume(completion)? {
                Next::Disk(operation) => operation,
                Next::Done(()) => {
                    self.phase = Phase::Opening;
                    self.open()
                }
            })),
            Phase::Opening => self.opened(completion),
            Phase::MakingPath(path) => match path.resume(completion) {
                Ok(Next::Disk(operation)) => Ok(Step::Disk(operation)),
                Err((at, Errno::XDEV)) => Err(leads_out(&at)),
                Err((at, errno)) => {
                    Err(Error::system(Code::PathCreate, format_args!("unable to create path '{at}'"), errno.0))
                }
                Ok(Next::Done(())) => {
                    self.request.create_path = false;
                    self.phase = Phase::Opening;
                    Ok(Step::Disk(self.open()))
                }
            },
            Phase::Owning => {
                completion.map_err(|failure| self.owner_failure(failure))?;
                Ok(self.ready())
            }
            Phase::Writing => {
                self.written(completion)?;
                self.phase = Phase::Ready;
                Ok(Step::Ready)
            }
            Phase::Flushing => {
                self.written(completion)?;
                self.flush()
            }
            Phase::SettingTimes => {
                self.check(completion, Code::FileInfo, "unable to set time for", "")?;
                Ok(self.sync())
            }
            Phase::Syncing => {
                self.check(completion, Code::FileSync, "unable to sync file", " after write")?;
                Ok(self.close())
            }
            Phase::Closing => {
                self.check(completion, Code::FileClose, "unable to close file", " after write")?;
                self.watch()?;
                Ok(self.rename())
            }
            Phase::Renaming => {
                if let Err(failure) = completion {
                    if failure.errno == Errno::EXIST {
                        return self.meet();
                    }
                    if failure.errno == Errno::STALE {
                        return Err(self.overtaken());
                    }
                    let message = format_args!("unable to move '{}' to '{}'", self.place, self.target);
                    return Err(Error::system(Code::FileMove, message, failure.errno.0));
                }
                self.note_new();
                self.claim = None;
                self.left_behind = false;
                self.file = None;
                Ok(self.sync_path())
            }
            Phase::Comparing(comparison) => match comparison.resume(completion)? {
                Next::Disk(operation) => Ok(Step::Disk(operation)),
                Next::Done(true) => self.leave(),
                Next::Done(false) => Err(self.stays(None)),
            },
            Phase::Claiming => self.claimed(completion),
            Phase::Twins(when, names) => {
                let (when, names) = (*when, std::mem::take(names));
                self.look_at_twins(completion, when, names)
            }
            Phase::Guarding(replacement) => match replacement.resume(completion)? {
                Next::Disk(operation) => Ok(Step::Disk(operation)),
                Next::Done(verdict) => {
                    self.notice = verdict.unverified;
                    Ok(self.rename_over(verdict.replaced.map_or(Over::Nothing, Over::This)))
                }
            },
            Phase::Leaving => {
                self.check(completion, Code::FileRemove, "unable to remove file", "")?;
                (self.file, self.left_behind) = (None, false);
                Ok(self.sync_path())
            }
            Phase::SyncingPath(path) => match path.resume(&self.shared, completion)? {
                Next::Disk(operation) => Ok(Step::Disk(operation)),
                Next::Done(()) => Ok(self.complete()),
            },
            Phase::Discarding => Ok(Step::Done(Answer::closing())),
            Phase::Ready | Phase::Finished => Err(unexpected_outcome()),
        }
    }

    fn open(&self) -> Operation {
        let fresh = self.request.atomic || self.separate;
        Operation::OpenWrite { at: self.place.clone(), mode: self.request.file_mode, fresh }
    }

    /// Another file has the name already, and is not replaced.
    fn meet(&mut self) -> Result<Step> {
        match &self.replace {
            Replace::NeverSegment => self.leave(),
            Replace::Never { key } => {
                let comparison = Comparison::new(self.target.clone(), self.place.clone(), key.clone());
                let step = Step::Disk(comparison.begin());
                self.phase = Phase::Comparing(comparison);
                Ok(step)
            }
            Replace::Info(_) => Err(self.overtaken()),
            Replace::Always => Err(unexpected_outcome()),
        }
    }

    /// Removes what was written: the file that is there is the same.
    fn leave(&mut self) -> Result<Step> {
        // It counts as there until it is removed: a session that ends before removes it again.
        let removal = self.removal().ok_or_else(unexpected_outcome)?;
        self.phase = Phase::Leaving;
        Ok(Step::Disk(removal))
    }

    /// Notes what has got its name, for those who rely on what is there.
    fn note_new(&self) {
        let Some(directory) = self.target.parent() else { return };
        if self.name() == MANIFEST {
            self.shared.finished.note(directory.to_string());
        } else if let Replace::NeverSegment = &self.replace {
            self.shared.segments.add(&directory.to_string(), self.name());
        }
    }

    /// Gives a segment its name, if no other file of it is there.
    fn rename_segment(&mut self) -> Step {
        let Some(directory) = self.target.parent() else { return self.rename_over(Over::Nothing) };
        self.phase = Phase::Claiming;
        Step::Disk(Operation::Claim { name: segments::right(&directory.to_string(), self.name()) })
    }

    fn claimed(&mut self, completion: Completion) -> Result<Step> {
        let claim = match completion {
            Ok(Outcome::Claim(Some(claim))) => claim,
            Ok(Outcome::Claim(None)) => return Err(self.overtaken()),
            Ok(_) => return Err(unexpected_outcome()),
            Err(failure) => {
                let message = format_args!("unable to keep other clients from writing '{}'", self.target);
                return Err(Error::system(Code::FileMove, message, failure.errno.0));
            }
        };
        let others = self.claim.insert(claim).others();
        match self.target.parent() {
            Some(at) => {
                let directory = at.to_string();
                let now = self.shared.now.get().instant;
                if self.shared.segments.is_missing(&directory, self.name(), others, now) {
                    return Ok(self.rename_over(Over::Nothing));
                }
                self.phase = Phase::Twins(self.shared.segments.begin(&directory, now), Vec::new());
                Ok(Step::Disk(Operation::List { at, level: Level::Exists }))
            }
            None => Ok(self.rename_over(Over::Nothing)),
        }
    }

    fn look_at_twins(&mut self, completion: Completion, when: Begun, mut names: Vec<String>) -> Result<Step> {
        let (entries, rest) = match completion {
            Ok(Outcome::Entries(entries, rest)) => (entries, rest),
            Ok(_) => return Err(unexpected_outcome()),
            Err(failure) => {
                return Err(self.failed(Code::PathOpen, "unable to list the directory of", "", failure.errno));
            }
        };
        match segments::twin(self.name(), names_of(&entries)) {
            Some(Twin::Same) => return self.leave(),
            Some(Twin::Other(name)) => return Err(self.stays(Some(&name))),
            None => {}
        }
        names.extend(names_of(&entries).map(str::to_owned).take(segments::NAMES_MAXIMUM + 1 - names.len()));
        if let Some(listing) = rest {
            self.phase = Phase::Twins(when, names);
            return Ok(Step::Disk(Operation::ListMore { listing }));
        }
        if let Some(at) = self.target.parent().filter(|_| names.len() <= segments::NAMES_MAXIMUM) {
            self.shared.segments.remember(&at.to_string(), when, &names);
        }
        Ok(self.rename_over(Over::Nothing))
    }

    /// The file's name in its directory, if it is text: whatever a name says here, it says in text.
    fn name(&self) -> &str {
        self.target.path.name().to_str().unwrap_or_default()
    }

    fn overtaken(&self) -> Error {
        let message = format!(
            "unable to move '{}' to '{}': another client has begun to write the same file",
            self.place, self.target
        );
        Error::new(Code::FileMove, message)
    }

    /// Whether the backup that it is for can still be written.
    fn watch(&self) -> Result<()> {
        self.watch.as_ref().map_or(Ok(()), |watch| watch.check(&self.target))
    }

    /// What the client is told of the file that stays; `other` is its name where that is another one.
    fn stays(&self, other: Option<&str>) -> Error {
        let other = other.map_or(String::new(), |name| format!(", as '{name}'"));
        Error::access(format!(
            "access denied: '{}' is there already with other content{other}\nHINT: replacing it needs role 'admin' and \
             no min-age in repohostd.conf of the repository host.",
            self.target
        ))
    }

    fn opened(&mut self, completion: Completion) -> Result<Step> {
        match completion {
            Ok(Outcome::File(file)) => {
                if file.has_slow_writes() {
                    self.chunk = self.largest;
                }
                self.file = Some(file.clone());
                self.left_behind = self.request.atomic;
                if self.request.user.is_none() && self.request.group.is_none() {
                    return Ok(self.ready());
                }
                self.phase = Phase::Owning;
                let (user, group) = (self.request.user.clone(), self.request.group.clone());
                Ok(Step::Disk(Operation::SetOwner { file, user, group }))
            }
            Ok(_) => Err(unexpected_outcome()),
            Err(failure) => match (failure.errno, self.place.parent()) {
                (Errno::NOENT, Some(directory)) if self.request.create_path => {
                    let path = MakePath::new(&self.shared, directory, self.request.path_mode);
                    let step = Step::Disk(path.begin());
                    self.phase = Phase::MakingPath(path);
                    Ok(step)
                }
                (Errno::NOENT, _) => {
                    let message = format!("unable to open file '{}' for write in missing path", self.target);
                    Err(Error::new(Code::FileMissing, message))
                }
                (Errno::XDEV, _) => Err(leads_out(&self.target)),
                (errno, _) => {
                    let message = format_args!("unable to open file '{}' for write", self.target);
                    Err(Error::system(Code::FileOpen, message, errno.0))
                }
            },
        }
    }

    /// The file is open, and takes data.
    fn ready(&mut self) -> Step {
        self.phase = Phase::Ready;
        Step::Done(Answer::null())
    }

    fn write(&mut self) -> Result<Operation> {
        self.watch()?;
        let (Some(file), Some(data)) = (self.file.clone(), self.out.take()) else { return Err(unexpected_outcome()) };
        let offset = self.offset;
        self.offset += data.len() as u64;
        Ok(Operation::Write { file, data, offset })
    }

    fn written(&mut self, completion: Completion) -> Result<()> {
        match completion {
            Ok(Outcome::Written(mut data)) => {
                data.clear();
                self.out = Some(data);
                Ok(())
            }
            Ok(_) => Err(unexpected_outcome()),
            Err(failure) => Err(self.failed(Code::FileWrite, "unable to write", "", failure.errno)),
        }
    }

    fn failed(&self, code: Code, before: &str, after: &str, errno: Errno) -> Error {
        Error::system(code, format_args!("{before} '{}'{after}", self.place), errno.0)
    }

    fn check(&self, completion: Completion, code: Code, before: &str, after: &str) -> Result<()> {
        completion.map(|_| ()).map_err(|failure| self.failed(code, before, after, failure.errno))
    }

    /// The original's text names who should own the file and who does, from some release on.
    fn owner_failure(&self, failure: Failure) -> Error {
        let change = match failure.step {
            disk::Step::ChangeOwner(change) if self.release.tells_owners => change,
            _ => return self.failed(Code::FileOwner, "unable to set ownership for", "", failure.errno),
        };
        let wanted = |name: &Option<String>, id: Option<u32>| {
            let name = name.as_deref().unwrap_or("[none]");
            id.map_or_else(|| name.to_owned(), |id| format!("{name}[{id}]"))
        };
        let current =
            |name: &Option<std::rc::Rc<str>>, id: u32| format!("{}[{id}]", name.as_deref().unwrap_or("[unknown]"));
        let message = format_args!(
            "unable to set ownership for '{}' to {}:{} from {}:{}",
            self.place,
            wanted(&self.request.user, change.uid),
            wanted(&self.request.group, change.gid),
            current(&change.current_user, change.current_uid),
            current(&change.current_group, change.current_gid),
        );
        Error::system(Code::FileOwner, message, failure.errno.0)
    }

    fn flush(&mut self) -> Result<Step> {
        let mut out = self.out.take().unwrap_or_default();
        let progress = if self.flushed || self.chain.is_passive() {
            Ok(Progress::Finished)
        } else {
            if out.capacity() == 0 {
                out = self.shared.buffers.take(self.chunk);
            }
            self.chain.process(&mut &[][..], true, &mut out, self.chunk, SLICE)
        };
        let empty = out.is_empty();
        self.out = Some(out);
        let progress = progress?;
        self.flushed |= progress == Progress::Finished;
        match progress {
            Progress::Budget | Progress::NeedsInput => Ok(Step::Work),
            Progress::Finished if empty => Ok(self.set_times()),
            // Comes back here once that is written, to find nothing more.
            Progress::Finished | Progress::OutputFull => Ok(Step::Disk(self.write()?)),
        }
    }

    /// Before the sync, so that the times survive a power cut as the content does.
    fn set_times(&mut self) -> Step {
        match &self.file {
            Some(file) if self.request.modified != 0 => {
                self.phase = Phase::SettingTimes;
                Step::Disk(Operation::SetTimes { file: file.clone(), modified: self.request.modified })
            }
            _ => self.sync(),
        }
    }

    fn sync(&mut self) -> Step {
        match &self.file {
            Some(file) if self.request.sync_file => {
                self.phase = Phase::Syncing;
                Step::Disk(Operation::Sync { file: file.clone() })
            }
            _ => self.close(),
        }
    }

    fn close(&mut self) -> Step {
        // A temporary file stays open until it is renamed; see `left_behind`.
        match if self.request.atomic { self.file.clone() } else { self.file.take() } {
            Some(file) => {
                self.phase = Phase::Closing;
                Step::Disk(Operation::Close { file })
            }
            None => self.rename(),
        }
    }

    fn rename(&mut self) -> Step {
        if !self.request.atomic {
            return self.sync_path();
        }
        let over = match &self.replace {
            Replace::Always => Over::Anything,
            Replace::NeverSegment => return self.rename_segment(),
            Replace::Never { .. } => Over::Nothing,
            Replace::Info(rules) => {
                let (rules, target, written) = (Rc::clone(rules), self.target.clone(), self.place.clone());
                let (replacement, operation) = Replacement::begin(&self.shared, rules, target, written);
                self.phase = Phase::Guarding(Box::new(replacement));
                return Step::Disk(operation);
            }
        };
        self.rename_over(over)
    }

    fn rename_over(&mut self, over: Over) -> Step {
        self.phase = Phase::Renaming;
        let (file, from, to) = (self.file.clone(), self.place.clone(), self.target.clone());
        Step::Disk(Operation::Rename { over, file, from, to })
    }

    /// The file's directory, and the way to it: without that the file could not be found after a power cut.
    fn sync_path(&mut self) -> Step {
        match self.target.parent().filter(|_| self.request.sync_path) {
            Some(directory) => {
                let (path, operation) = SyncPath::begin(&self.shared, directory);
                self.phase = Phase::SyncingPath(path);
                Step::Disk(operation)
            }
            None => self.complete(),
        }
    }

    fn complete(&mut self) -> Step {
        self.phase = Phase::Finished;
        let (results, release) = (self.chain.results(), self.release);
        let payload = Payload::from_pack(|pack| _ = pack.pack(|inner| encode_results(inner, &results, release)));
        Step::Done(Answer { close: true, notice: self.notice.take(), ..Answer::data(payload) })
    }
}

/// The names of entries that are text: others are no segments.
fn names_of(entries: &[Entry]) -> impl Iterator<Item = &str> {
    entries.iter().filter_map(|entry| entry.name.to_str().ok())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::disk::inline::{Inline, Options};
    use crate::disk::{Disk, RelativePath, Root, Ticket};

    pub(in crate::repository) fn request() -> WriteRequest {
        WriteRequest {
            file: "unused".into(),
            file_mode: 0o640,
            path_mode: 0o750,
            user: None,
            group: None,
            modified: 0,
            create_path: true,
            sync_file: true,
            sync_path: true,
            atomic: true,
            filters: Vec::new(),
        }
    }

    fn run(disk: &mut Inline, stream: &mut WriteStream, mut step: Step) -> Result<Answer> {
        loop {
            match step {
                Step::Disk(operation) => {
                    disk.submit(Ticket { session: 0, operation: 0 }, operation);
                    step = stream.resume(disk.complete().unwrap().1)?;
                }
                Step::Work => step = stream.work()?,
                Step::Done(answer) => return Ok(answer),
                Step::Ready => return Ok(Answer::null()),
                Step::Part(_) | Step::Wait => unreachable!("a write answers as a whole and waits for nobody"),
            }
        }
    }

    #[test]
    fn a_few_bytes_that_decompress_to_many_do_not_keep_other_clients_waiting() {
        use crate::protocol::filter::FilterSpec;
        let directory = tempfile::tempdir().unwrap();
        let at = Location::new(Root::new(directory.path()), RelativePath::new("file").unwrap());
        let mut disk = Inline::new(Options::default());
        let filters = vec![FilterSpec::ZstDecompress, FilterSpec::Sink];
        let (mut stream, step) = WriteStream::begin(
            WriteRequest { filters, ..request() },
            at,
            Safeguard::default(),
            Release::newest(),
            &Rc::default(),
        )
        .unwrap();
        run(&mut disk, &mut stream, step).unwrap();
        let length = 64 << 20;
        let bomb = zstd::bulk::compress(&vec![0; length], 1).unwrap();
        let mut data = bomb.as_slice();
        let mut slices = 0;
        while !data.is_empty() {
            match stream.feed(&mut data).unwrap() {
                Fed::Taken => {}
                Fed::Disk(_) => panic!("nothing is written"),
                Fed::Work => {
                    slices += 1;
                    assert!(matches!(stream.work().unwrap(), Step::Ready));
                }
            }
        }
        assert!(slices > length / SLICE / 4, "{slices} slices");
    }

    #[test]
    fn of_two_writers_of_one_file_the_later_one_wins_and_no_half_file_gets_the_name() {
        let directory = tempfile::tempdir().unwrap();
        let at = Location::new(Root::new(directory.path()), RelativePath::new("segment").unwrap());
        let mut disk = Inline::new(Options::default());
        let begin = |disk: &mut Inline| {
            let (mut stream, step) =
                WriteStream::begin(request(), at.clone(), Safeguard::default(), Release::newest(), &Rc::default())
                    .unwrap();
            run(disk, &mut stream, step).unwrap();
            stream
        };
        let mut first = begin(&mut disk);
        first.feed(&mut &b"first"[..]).unwrap();
        let mut second = begin(&mut disk);
        let half = vec![b'x'; CHUNK];
        let Fed::Disk(operation) = second.feed(&mut half.as_slice()).unwrap() else { panic!("a chunk is written") };
        run(&mut disk, &mut second, Step::Disk(operation)).unwrap();

        let step = first.finish().unwrap();
        let error = run(&mut disk, &mut first, step).unwrap_err();
        assert_eq!(error.code, Code::FileMove);
        assert!(error.message.contains("another client"), "{error}");
        assert!(!directory.path().join("segment").exists(), "half a file has the final name");
        if let Some(operation) = first.discard() {
            run(&mut disk, &mut first, Step::Disk(operation)).unwrap();
        }
        second.feed(&mut &b"end"[..]).unwrap();
        let step = second.finish().unwrap();
        run(&mut disk, &mut second, step).unwrap();
        assert_eq!(std::fs::read(directory.path().join("segment")).unwrap(), [&half[..], b"end"].concat());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left behind");
    }
}
