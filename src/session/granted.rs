//! What an authorized client has, and how its requests are answered: strictly one after the other.

use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::config::{SessionSettings, Storage};
use crate::disk::{Completion, Operation};
use crate::protocol::error::{Error, Result};
use crate::protocol::framing::{Envelope, Framing, Piece};
use crate::protocol::request::{Rejection, Request};
use crate::protocol::response::{self, Payload};
use crate::repository::policy::guard::{Guard, Measures};
use crate::repository::policy::view::View;
use crate::repository::posix::locks::Locks;
use crate::repository::posix::write::Fed;
use crate::repository::{Answer, Step, Task};

use super::ahead::Ahead;
use super::databases::{Databases, Pending};
use super::ending::{End, Flow};
use super::line::Line;
use super::locking::SessionLocks;
use super::pace::Pace;
use super::requests::Begun;
use super::revoked::Revoked;
use super::streams::{Stream, Streams};
use super::upload::{self, Upload};
use super::{Authorized, Event, Host};

/// How soon a request that waits for others asks again.
const WAIT: Duration = Duration::from_millis(50);

/// Which requests may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The second request of a session, which has to be `noop`.
    AwaitNoop,
    /// All of them.
    Ready,
}

/// A request that is being worked on.
pub(super) struct Running {
    pub(super) envelope: Envelope,
    pub(super) active: Active,
    pub(super) wait: Wait,
}

/// What a request that is being worked on takes.
pub(super) enum Active {
    /// Several steps.
    Task(Box<dyn Task>),
    /// A step of an open file.
    Stream,
    /// The removal of what was written, of which the client hears nothing.
    Discard,
    /// The stop files and locks that the first `noop` asks for.
    Locks(Box<Locks>),
    /// What became of a request to the connection to a database that has this number.
    Database(Pending, u64),
}

/// What a request that is being worked on waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// The completion of a disk operation.
    Disk,
    /// Its turn to work.
    Turn,
    /// That enough of its answer is on its way.
    Output,
    /// What other sessions hold; it tries again at this time.
    Retry(Instant),
    /// A database.
    Database,
}

/// Where the bytes of a block go.
#[derive(Debug)]
pub(super) enum Block {
    /// To the write session of that number; whether no filter changes them there.
    To(Envelope, bool),
    /// Nowhere: the client gets this error at its end.
    Refused(Envelope, Error),
    /// Nowhere: the client was told already.
    Swallowed,
}

/// The session of a client that was authorized.
pub(super) struct Granted {
    pub(super) settings: SessionSettings,
    pub(super) view: View,
    pub(super) guard: Rc<Guard>,
    /// Bits that the modes of new files and directories lose.
    pub(super) umask: u32,
    pub(super) stage: Stage,
    pub(super) locks: SessionLocks,
    pub(super) streams: Streams,
    pub(super) databases: Databases,
    pub(super) running: Option<Running>,
    /// What is prepared of a block before the client asks for it.
    pub(super) ahead: Option<Ahead>,
    /// How fast files go to the client.
    pub(super) pace: Pace,
    pub(super) block: Option<Block>,
    /// The write whose data is the only thing that may come now, where data has messages of its own.
    pub(super) upload: Option<Upload>,
    pub(super) revoked: Option<Revoked>,
    /// What the client is told once nothing is under way, because the server ends.
    drain: Option<Error>,
    /// Until when the client has to move on, while it is waited for.
    pub(super) until: Instant,
}

impl Granted {
    pub(super) fn new(host: &Host, authorized: Authorized, drain: Option<Error>, until: Instant) -> Self {
        let Authorized { settings, whole_repository, role, protection, versions, network, umask } = authorized;
        let (view, measures) = match &settings.storage {
            Storage::Repository(repository) => {
                let stanza = settings.stanza.as_deref().filter(|_| !whole_repository);
                let aged = !protection.min_age.is_zero();
                let view = View::new(repository.path.as_os_str().as_bytes(), stanza, role, aged);
                let keys = repository.own_pass.iter().chain(&repository.cipher_pass).cloned();
                let measures = Measures {
                    role,
                    min_age: protection.min_age,
                    keys: keys.collect(),
                    opaque_info: protection.opaque_info,
                    versions,
                };
                (view, measures)
            }
            Storage::Cluster(cluster) => {
                (View::of_cluster(cluster.path.as_os_str().as_bytes()), Measures::of_cluster())
            }
        };
        Self {
            view,
            guard: Guard::new(measures, &host.repository.finished),
            umask: if settings.neutral_umask { 0 } else { umask },
            settings,
            stage: Stage::AwaitNoop,
            locks: SessionLocks::default(),
            streams: Streams::default(),
            databases: Databases::default(),
            running: None,
            ahead: None,
            pace: Pace::new(network),
            block: None,
            upload: None,
            revoked: None,
            drain,
            until,
        }
    }

    /// Takes a piece of what the client sends; returns how many bytes of it were not taken, because something has to
    /// be done before.
    pub(super) fn take_piece(&mut self, line: &mut Line, now: Instant, piece: Piece<'_>) -> Flow<usize> {
        if let Some(error) = upload::find_misplaced(line.release, self.upload.is_some(), &piece) {
            return Err(End::Error(error));
        }
        match piece {
            Piece::Request(envelope, parameters) => self.handle_request(line, now, envelope, &parameters)?,
            Piece::BlockStart(envelope, _) => self.begin_block(line, envelope)?,
            Piece::Block(data) => return self.feed_block(line, data),
            Piece::BlockEnd => self.end_block(line)?,
        }
        Ok(0)
    }

    fn handle_request(&mut self, line: &mut Line, now: Instant, envelope: Envelope, parameters: &[u8]) -> Flow {
        let is_ready = self.stage == Stage::Ready;
        let request = match Request::decode(envelope, parameters, line.release) {
            Ok(request) => request,
            Err(Rejection::Request(error)) if is_ready => return self.answer_error(line, envelope, error),
            Err(Rejection::Fatal(error) | Rejection::Request(error)) => return Err(End::Error(error)),
        };
        if !is_ready {
            return self.start(line, envelope, &request);
        }
        if request == Request::Exit {
            return Err(End::Quietly);
        }
        // What is under way may finish, and nothing else begins.
        let finishes = self.upload.is_some() || matches!(request, Request::ReadNext | Request::Close | Request::Cancel);
        if let Some(error) = self.drain.take_if(|_| !finishes) {
            return Err(End::Error(error));
        }
        if self.upload.is_some() && !self.takes_data_request(line, envelope, &request)? {
            return Ok(());
        }
        if let Some(error) = self.find_revoked(line, &request)? {
            return self.answer_error(line, envelope, error);
        }
        if let Request::Database(request) = request {
            return self.begin_database(line, envelope, request);
        }
        match self.begin(line, envelope, request) {
            Ok(Begun::Answered(answer)) => self.answer(line, envelope, answer),
            Ok(Begun::Running(step, active)) => self.take_step(line, now, envelope, Ok(step), active),
            Ok(Begun::UnderWay) => {
                self.wait(envelope, Active::Stream, Wait::Disk);
                Ok(())
            }
            Err(error) => self.answer_error(line, envelope, error),
        }
    }

    /// A disk operation has completed.
    pub(super) fn complete(&mut self, line: &mut Line, now: Instant, operation: u64, done: Completion) -> Flow {
        let Some(completion) = self.complete_next(line, operation, done) else { return Ok(()) };
        self.postpone(line, now);
        let Some(Running { envelope, active, .. }) = self.running.take_if(|running| running.wait == Wait::Disk) else {
            return Ok(());
        };
        match active {
            Active::Task(mut task) => {
                let step = task.resume(completion);
                self.take_step(line, now, envelope, step, Active::Task(task))
            }
            Active::Stream => {
                let step = self.streams.get(envelope.session).and_then(|stream| stream.resume(completion));
                self.take_step(line, now, envelope, step, Active::Stream)
            }
            Active::Discard => self.end_discard(line, envelope),
            Active::Locks(mut locks) => {
                let progress = locks.resume(completion);
                self.take_lock_progress(line, envelope, progress, locks)
            }
            // They do not wait for the disk.
            Active::Database(..) => Ok(()),
        }
    }

    /// Whether it wants another slice of work.
    pub(super) fn wants_turn(&self, line: &Line) -> bool {
        self.running.as_ref().map_or_else(|| self.can_prepare(line), |running| running.wait == Wait::Turn)
    }

    /// Does one slice of work.
    pub(super) fn work(&mut self, line: &mut Line, now: Instant) -> Flow {
        let Some(Running { envelope, active, .. }) = self.running.take_if(|running| running.wait == Wait::Turn) else {
            self.prepare(line);
            return Ok(());
        };
        self.postpone(line, now);
        if let Active::Task(mut task) = active {
            let step = task.proceed();
            return self.take_step(line, now, envelope, step, Active::Task(task));
        }
        let step = self.streams.get(envelope.session).and_then(Stream::proceed);
        self.take_step(line, now, envelope, step, active)
    }

    /// Has a request that waits for other sessions try again. Whether there is one.
    pub(super) fn retry(&mut self) -> bool {
        let retries = |running: &&mut Running| matches!(running.wait, Wait::Retry(_));
        self.running.as_mut().filter(retries).map(|running| running.wait = Wait::Turn).is_some()
    }

    /// Goes on with an answer once enough of it is on its way, so that a client that does not read
    /// gets no more of it.
    pub(super) fn resume_output(&mut self, line: &Line) {
        if let Some(running) = &mut self.running
            && running.wait == Wait::Output
            && line.output.has_room()
        {
            running.wait = Wait::Turn;
        }
    }

    /// When it tries again, or gives its client up if it waits for that.
    pub(super) fn timeout(&self, is_sending: bool) -> Option<Instant> {
        match &self.running {
            Some(Running { wait: Wait::Retry(at), .. }) => Some(*at),
            Some(_) if !is_sending => None,
            _ => Some(self.until),
        }
    }

    /// The client, or what is done for it, goes on.
    pub(super) fn postpone(&mut self, line: &Line, now: Instant) {
        self.until = self.bound(now + line.limits.idle);
    }

    /// The server ends: the client is told `error` once nothing is under way.
    pub(super) fn drain(&mut self, line: &Line, error: Error) -> Flow {
        if self.is_at_rest(line) {
            return Err(End::Error(error));
        }
        self.drain = Some(error);
        Ok(())
    }

    /// Whether what comes next is a block's data, and no filter changes them.
    pub(super) const fn takes_plain_data(&self) -> bool {
        matches!(self.block, Some(Block::To(_, true)))
    }

    /// Bytes that it makes the server hold.
    pub(super) fn memory(&self) -> usize {
        self.streams.memory() + self.view.memory()
    }

    pub(super) fn wait(&mut self, envelope: Envelope, active: Active, wait: Wait) {
        self.running = Some(Running { envelope, active, wait });
    }

    /// Has `active` wait for a disk operation.
    pub(super) fn submit(&mut self, line: &mut Line, envelope: Envelope, active: Active, operation: Operation) {
        line.submit(operation);
        self.wait(envelope, active, Wait::Disk);
    }

    fn take_step(
        &mut self,
        line: &mut Line,
        now: Instant,
        envelope: Envelope,
        step: Result<Step>,
        active: Active,
    ) -> Flow {
        match self.unless_revoked(envelope, step) {
            Ok(Step::Disk(operation)) => self.submit(line, envelope, active, operation),
            Ok(Step::Work) => self.wait(envelope, active, Wait::Turn),
            Ok(Step::Wait) => self.wait(envelope, active, Wait::Retry(now + WAIT)),
            Ok(Step::Part(part)) => {
                self.count(line, &active, envelope, part.len());
                line.push_part(part);
                self.wait(envelope, active, Wait::Output);
                self.resume_output(line);
            }
            // The rest of the block is taken.
            Ok(Step::Ready) => {}
            Ok(Step::Done(answer)) => {
                let length = |payload: &Option<Payload>| payload.as_ref().map_or(0, Payload::len);
                self.count(line, &active, envelope, length(&answer.lead) + length(&answer.payload));
                self.pace.answered(now);
                return self.answer(line, envelope, answer);
            }
            Err(error) => return self.fail_step(line, envelope, error),
        }
        Ok(())
    }

    /// Tells the client of an error: now or, where its block is answered, after that.
    pub(super) fn fail_step(&mut self, line: &mut Line, envelope: Envelope, error: Error) -> Flow {
        match (&mut self.block, line.release.framing) {
            (Some(block), Framing::Session) => {
                *block = Block::Refused(envelope, error);
                Ok(())
            }
            _ => self.answer_error(line, envelope, error),
        }
    }

    fn count(&self, line: &mut Line, active: &Active, envelope: Envelope, bytes: usize) {
        if matches!(active, Active::Stream) && self.streams.reads(envelope.session) {
            line.counters.read += bytes as u64;
        }
    }

    /// Answers a request with an error; some end the connection.
    pub(super) fn answer_error(&mut self, line: &mut Line, envelope: Envelope, error: Error) -> Flow {
        if error.code.is_fatal() && line.release.assertions_are_fatal {
            return Err(End::Error(error));
        }
        line.answer_error(envelope.session, &error);
        self.tell(line);
        line.events.push_back(Event::Failed { request: envelope.command.to_string(), error });
        match line.release.framing {
            Framing::Classic => self.discard(line, envelope),
            Framing::Session => self.finish_request(line),
        }
    }

    pub(super) fn answer(&mut self, line: &mut Line, envelope: Envelope, answer: Answer) -> Flow {
        let framing = line.release.framing;
        if framing == Framing::Classic && envelope.opens_write() {
            self.begin_upload(line);
            return Ok(());
        }
        line.counters.requests += 1;
        self.tell(line);
        line.events.extend(answer.notice.map(Event::Noticed));
        if let Some(lead) = answer.lead {
            line.push_part(lead);
        }
        let payload = match answer.payload {
            Some(mut payload) => {
                response::seal(framing, &mut payload, envelope.session, answer.close);
                payload
            }
            None => response::null(framing, envelope.session, answer.close),
        };
        line.output.push_list(payload, answer.share);
        if answer.close {
            self.drop_stream(line, envelope.session);
        } else {
            self.expect_next(line, envelope.session);
        }
        self.finish_request(line)
    }

    /// Has the log told what was found on the way.
    fn tell(&mut self, line: &mut Line) {
        line.events.extend(self.guard.take_notices().into_iter().map(Event::Noticed));
    }

    /// Whether nothing is under way: no request, also not in part, and no file is being transferred.
    pub(super) fn is_at_rest(&self, line: &Line) -> bool {
        self.running.is_none()
            && self.block.is_none()
            && self.upload.is_none()
            && self.streams.is_empty()
            && line.framer.is_idle()
    }

    /// After a request the session may end because the server does.
    pub(super) fn finish_request(&mut self, line: &mut Line) -> Flow {
        self.go_on_revoking(line)?;
        if self.is_at_rest(line)
            && let Some(error) = self.drain.take()
        {
            return Err(End::Error(error));
        }
        Ok(())
    }

    pub(super) fn drop_stream(&mut self, line: &Line, session: u64) {
        let Some(stream) = self.streams.remove(session) else { return };
        self.cancel_next(line, session);
        match stream {
            Stream::Read(read) => read.into_buffers().for_each(|buffer| line.give_buffer(buffer)),
            Stream::Write(write) => write.into_buffer().into_iter().for_each(|buffer| line.give_buffer(buffer)),
        }
    }

    /// Closes all files, and removes those that are not whole.
    pub(super) fn drop_streams(&mut self, line: &mut Line) {
        while let Some(session) = self.streams.any() {
            if let Some(operation) = self.streams.find(session).and_then(Stream::discard) {
                line.submit(operation);
            }
            self.drop_stream(line, session);
        }
    }

    /// Takes note of an operation that was under way when the session closed. Nobody is left to tell, so what becomes
    /// of the request does not matter.
    pub(super) fn drop_outcome(&mut self, line: &Line, operation: u64, completion: Completion) {
        let Some(completion) = self.drop_next(line, operation, completion) else { return };
        match self.running.take() {
            Some(Running { active: Active::Locks(mut locks), .. }) => {
                let _ = locks.resume(completion);
                self.locks.take(&mut locks);
            }
            Some(Running { active: Active::Stream, envelope, .. }) => {
                if let Some(Stream::Write(write)) = self.streams.find(envelope.session) {
                    let _ = write.resume(completion);
                }
            }
            Some(_) | None => {}
        }
    }

    fn begin_block(&mut self, line: &mut Line, envelope: Envelope) -> Flow {
        if self.upload.is_some_and(|upload| upload != Upload::Writing) {
            self.block = Some(Block::Swallowed);
            return Ok(());
        }
        if let Some(error) = self.revocation() {
            self.block = Some(Block::To(envelope, false));
            return self.fail_step(line, envelope, error);
        }
        self.block = Some(match self.streams.get(envelope.session) {
            Ok(Stream::Write(write)) if write.is_ready() => Block::To(envelope, write.is_plain()),
            Ok(_) => Block::Refused(envelope, Error::protocol("data for a session that does not take any")),
            Err(error) => {
                let text = format!("{} for request {}:{}", error.message, envelope.command, envelope.kind);
                Block::Refused(envelope, Error::protocol(text))
            }
        });
        Ok(())
    }

    /// Takes bytes of a block; returns how many were not taken.
    fn feed_block(&mut self, line: &mut Line, data: &[u8]) -> Flow<usize> {
        let Some(Block::To(envelope, _)) = self.block else { return Ok(0) };
        let mut rest = data;
        let fed = self.streams.get(envelope.session).and_then(|stream| match stream {
            Stream::Write(write) => write.feed(&mut rest),
            Stream::Read(_) => Ok(Fed::Taken),
        });
        line.counters.written += (data.len() - rest.len()) as u64;
        match fed {
            Ok(Fed::Taken) => return Ok(0),
            Ok(Fed::Disk(operation)) => self.submit(line, envelope, Active::Stream, operation),
            Ok(Fed::Work) => self.wait(envelope, Active::Stream, Wait::Turn),
            Err(error) => {
                self.fail_step(line, envelope, error)?;
                return Ok(0);
            }
        }
        Ok(rest.len())
    }

    fn end_block(&mut self, line: &mut Line) -> Flow {
        match self.block.take() {
            Some(Block::To(..)) if self.upload.is_some() => Ok(()),
            Some(Block::To(envelope, _)) => self.answer(line, envelope, Answer::null()),
            Some(Block::Refused(..)) if self.stage != Stage::Ready => {
                Err(End::Error(Error::format("expected config command")))
            }
            Some(Block::Refused(envelope, error)) => self.answer_error(line, envelope, error),
            Some(Block::Swallowed) | None => Ok(()),
        }
    }

    /// What must always be true.
    pub(super) fn check_invariants(&self, line: &Line) -> bool {
        let is_rightly_waiting = |Running { envelope, active, wait }: &Running| match active {
            Active::Task(_) => *wait != Wait::Database,
            Active::Stream => *wait != Wait::Database && self.streams.has(envelope.session),
            Active::Discard | Active::Locks(_) => *wait == Wait::Disk,
            Active::Database(_, connection) => *wait == Wait::Database && self.databases.is_open(*connection),
        };
        let waits_for_disk = self.running.as_ref().is_some_and(|running| running.wait == Wait::Disk);
        let is_unstarted =
            || self.running.is_none() && self.streams.is_empty() && self.upload.is_none() && self.revoked.is_none();
        self.running.as_ref().is_none_or(is_rightly_waiting)
            && (!waits_for_disk || line.awaits_disk())
            && self.streams.check_invariants()
            && self.ahead.as_ref().is_none_or(|ahead| ahead.check_invariants(line, &self.streams))
            && (self.upload.is_none() || line.release.framing == Framing::Classic)
            && self.block.as_ref().is_none_or(|block| match block {
                Block::To(envelope, _) => self.streams.has(envelope.session),
                Block::Refused(..) => true,
                Block::Swallowed => self.upload.is_some(),
            })
            && (self.stage == Stage::Ready || is_unstarted())
            && (self.drain.is_none() || !self.is_at_rest(line))
    }
}
