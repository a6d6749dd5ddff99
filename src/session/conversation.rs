//! The order of a conversation: greeting, `config`, `noop`, requests, end.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::config::{Role, SessionSettings};
use crate::disk::{Completion, HeldLock, Operation};
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::framing::{Envelope, Framer, Framing, Piece};
use crate::protocol::release::Release;
use crate::protocol::request::{Rejection, Request};
use crate::protocol::response::{self, Payload};
use crate::repository::policy::guard::Guard;
use crate::repository::policy::shared::Measures;
use crate::repository::policy::view::View;
use crate::repository::posix::locks::Locks;
use crate::repository::posix::read::ReadStream;
use crate::repository::posix::write::{Fed, WriteStream};
use crate::repository::{Answer, Step, Task};

use super::ahead::Ahead;
use super::authorizing::Waiting;
use super::databases::{Databases, Pending};
use super::memory::{SMALL, Share};
use super::output::Output;
use super::revoked::Revoked;
use super::upload::Upload;
use super::{Authority, Counters, Event, Host, Limits, Peer, Refusal, State};

/// A client without a certificate may only send a `noop`, which has no parameters.
const PING_MAXIMUM: usize = 64;
/// Parameters of `config`: a command line.
const CONFIG_MAXIMUM: usize = 128 << 10;
/// Parameters of later requests: the ranges of a large block-incremental file, some 100 bytes each.
pub(super) const REQUEST_MAXIMUM: usize = 16 << 20;

/// How soon a request that waits for others asks again.
const WAIT: Duration = Duration::from_millis(50);

/// Where the conversation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No certificate: one `noop` is answered.
    AwaitPing,
    /// The first request has to be `config`.
    AwaitConfig,
    /// The second one has to be `noop`.
    AwaitNoop,
    /// Requests are answered.
    Ready,
    /// Nothing more is taken from the client.
    Closing,
}

/// A file that is open for the client, named by its number for the session.
pub(super) enum Stream {
    Read(Box<ReadStream>),
    Write(Box<WriteStream>),
}

/// What is being worked on. Requests are answered strictly one after the other.
pub(super) enum Active {
    /// The `config` request, of a client that waits until is known what counts now.
    Authorization(Waiting),
    /// A request that needs several steps.
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

/// Where the bytes of a block go.
#[derive(Debug)]
pub(super) enum Block {
    /// To the write session of that number.
    To(Envelope),
    /// Nowhere: the client gets this error at its end.
    Refused(Envelope, Error),
    /// Nowhere: the client was told already.
    Swallowed,
}

/// One client's conversation after the TLS handshake.
///
/// # Contract
///
/// What happened goes in by `handle_*`; after each of those calls (and after [`Session::new`]) the
/// caller asks by `poll_*` what to do, in this order, until there is nothing more:
///
/// 1. [`Session::poll_disk`]: submit each operation; its completion comes back by
///    [`Session::handle_completion`], now or later. Operations outlive the connection: after
///    [`Session::handle_disconnect`] a session still cleans up. [`Session::poll_database`]: the same for
///    connections to a database, whose outcomes come back by [`Session::handle_database`].
/// 2. [`Session::poll_output`] and [`Session::consume_output`]: bytes for the client.
/// 3. [`Session::poll_work`]: when true, call [`Session::handle_work`] soon, after other sessions had
///    their turn; it does one bounded slice of work that only burns CPU.
/// 4. [`Session::poll_event`]: lines for the log.
/// 5. [`Session::poll_timeout`]: when to call [`Session::handle_timeout`], unless something happens
///    before. `None` while the session waits for the disk and not for its client.
/// 6. [`Session::state`].
///
/// Input is offered only while [`Session::wants_input`]; [`Session::handle_input`] says how much it
/// took. Time is an argument and never runs backwards.
#[allow(clippy::struct_excessive_bools, reason = "independent facts; `phase` is the state")]
pub struct Session {
    pub(super) host: Rc<Host>,
    pub(super) names: Option<Vec<String>>,
    pub(super) release: &'static Release,
    pub(super) authority: Rc<dyn Authority>,
    pub(super) limits: Limits,
    pub(super) phase: Phase,
    pub(super) framer: Framer,
    pub(super) output: Output,
    pub(super) settings: Option<SessionSettings>,
    pub(super) view: View,
    pub(super) guard: Guard,
    pub(super) streams: Vec<(u64, Stream)>,
    pub(super) databases: Databases,
    pub(super) active: Option<(Envelope, Active)>,
    /// What is prepared of a block before the client asks for it.
    pub(super) ahead: Option<Ahead>,
    pub(super) block: Option<Block>,
    /// The write whose data is the only thing that may come now, where data has messages of its own.
    pub(super) upload: Option<Upload>,
    /// Whether the active request wants another slice of work.
    pub(super) work: bool,
    /// Whether the active request goes on once the part of its answer that was sent last has gone.
    pub(super) parked: bool,
    /// Whether the active request waits for what other sessions hold, and tries again at the deadline.
    pub(super) waiting: bool,
    memory: Share,
    /// Bits that the modes of new files and directories lose.
    pub(super) umask: u32,
    pub(super) locks: Vec<HeldLock>,
    /// Whether it holds or held locks.
    pub(super) locked: bool,
    operations: VecDeque<(u64, Operation)>,
    next_operation: u64,
    pub(super) outstanding: usize,
    pub(super) draining: Option<Error>,
    pub(super) revoked: Option<Revoked>,
    pub(super) disconnected: bool,
    pub(super) cleaned_up: bool,
    pub(super) deadline: Instant,
    pub(super) events: VecDeque<Event>,
    pub(super) counters: Counters,
}

impl Session {
    /// The conversation with `peer`, whose handshake is complete, as `release` holds it. All sessions of a process
    /// get the same `host`.
    pub fn new(
        host: &Rc<Host>,
        peer: Peer,
        release: &'static Release,
        authority: Rc<dyn Authority>,
        limits: Limits,
        now: Instant,
    ) -> Self {
        let (phase, limit) = match peer.names {
            None => (Phase::AwaitPing, PING_MAXIMUM),
            Some(_) => (Phase::AwaitConfig, CONFIG_MAXIMUM),
        };
        let mut output = Output::default();
        let mut greeting = Payload::new(Vec::new(), 0);
        greeting.append(release.greeting().as_bytes());
        output.push(greeting);
        let mut session = Self {
            host: Rc::clone(host),
            names: peer.names,
            release,
            authority,
            limits,
            phase,
            framer: Framer::new(release.framing, limit),
            output,
            settings: None,
            view: View::new("", None),
            guard: Guard::new(Measures::of_nobody()),
            streams: Vec::new(),
            databases: Databases::default(),
            active: None,
            ahead: None,
            block: None,
            upload: None,
            work: false,
            parked: false,
            waiting: false,
            memory: Share::new(Rc::clone(&host.memory)),
            umask: 0,
            locks: Vec::new(),
            locked: false,
            operations: VecDeque::new(),
            next_operation: 0,
            outstanding: 0,
            draining: None,
            revoked: None,
            disconnected: false,
            cleaned_up: false,
            deadline: now + limits.first_request,
            events: VecDeque::new(),
            counters: Counters::default(),
        };
        if release.framing == Framing::Classic {
            session.speak_first();
        }
        session
    }

    /// Says what a client is told before it has spoken: that it may not speak.
    ///
    /// The original answers a ping as early. That would hide whether the client takes its greeting: one that
    /// refuses it leaves with the answer unread, which looks like a monitor that hangs up.
    fn speak_first(&mut self) {
        if let Some(names) = &self.names
            && let Err(refusal) = self.authority.admit(names)
        {
            self.refuse(Envelope::CLASSIC, refusal);
        }
    }

    /// Whether bytes from the client can be taken now.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.active.is_none() && self.phase != Phase::Closing && self.output.has_room()
    }

    /// Takes plaintext from the client; returns how many bytes were taken, 0 when none are wanted.
    pub fn handle_input(&mut self, now: Instant, input: &[u8]) -> usize {
        let mut rest = input;
        while self.wants_input() {
            let piece = match self.framer.next(&mut rest) {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => {
                    self.fail(error);
                    break;
                }
            };
            if let Some(error) = self.find_misplaced(&piece) {
                self.fail(error);
                break;
            }
            match piece {
                Piece::Request(envelope, parameters) => self.handle_request(envelope, &parameters),
                Piece::BlockStart(envelope, _) => self.begin_block(envelope),
                Piece::Block(data) => {
                    let left = self.feed_block(data);
                    self.framer.unread(left as u64);
                    rest = &input[input.len() - rest.len() - left..];
                }
                Piece::BlockEnd => self.end_block(),
            }
        }
        self.weigh();
        let taken = input.len() - rest.len();
        if taken > 0 && !matches!(self.phase, Phase::AwaitPing | Phase::AwaitConfig) {
            self.postpone(now);
        }
        taken
    }

    /// The deadline of [`Session::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|deadline| deadline > now) {
            return;
        }
        if std::mem::take(&mut self.waiting) {
            self.work = true;
            return;
        }
        if self.awaits_first_request()
            && let Some(error) = self.draining.take()
        {
            return self.fail(error);
        }
        if self.awaits_authority() {
            return self.fail_waiting();
        }
        let limit = if self.awaits_first_request() { self.limits.first_request } else { self.limits.idle };
        self.fail_timeout(limit);
    }

    /// An operation of [`Session::poll_disk`] has completed.
    pub fn handle_completion(&mut self, now: Instant, operation: u64, completion: Completion) {
        self.outstanding -= 1;
        let others = self.complete_next(operation, completion);
        if self.phase == Phase::Closing {
            return self.settle(others);
        }
        let Some(completion) = others else { return self.weigh() };
        self.postpone(now);
        let Some((envelope, active)) = self.active.take() else { return };
        match active {
            Active::Task(mut task) => {
                let step = task.resume(completion);
                self.take_step(envelope, step, Active::Task(task));
            }
            Active::Stream => {
                let step = self.with_stream(envelope.session, |stream| match stream {
                    Stream::Read(read) => read.resume(completion),
                    Stream::Write(write) => write.resume(completion),
                });
                self.take_step(envelope, step, Active::Stream);
            }
            Active::Discard => self.end_discard(envelope),
            // They do not wait for the disk.
            active @ (Active::Database(..) | Active::Authorization(_)) => self.active = Some((envelope, active)),
            Active::Locks(mut locks) => {
                let progress = locks.resume(completion);
                self.take_lock_progress(envelope, progress, locks);
            }
        }
        self.settle_step(now);
    }

    /// What every step may change.
    fn settle_step(&mut self, now: Instant) {
        if self.waiting {
            self.deadline = now + WAIT;
        }
        self.weigh();
    }

    /// Counts what the client makes the server hold, and ends the session when that is too much.
    pub(super) fn weigh(&mut self) {
        let streams = self.streams.iter().map(|(_, stream)| match stream {
            Stream::Read(read) => read.memory(),
            Stream::Write(write) => write.memory(),
        });
        let partial = Some(self.framer.held()).filter(|held| *held > SMALL).unwrap_or(0);
        let bytes = streams.sum::<usize>() + self.output.memory() + self.view.memory() + partial;
        if !self.memory.set(bytes, self.limits.memory) && self.phase != Phase::Closing {
            let message = format!(
                "open files of all clients would take more than {} bytes of memory on the repository host\n\
                 HINT: see memory-max in repohostd.conf of the repository host.",
                self.limits.memory
            );
            self.fail(Error::new(Code::Memory, message));
        }
    }

    /// Does one slice of work that only burns CPU.
    pub fn handle_work(&mut self, now: Instant) {
        if !std::mem::take(&mut self.work) {
            self.prepare();
            return self.weigh();
        }
        self.postpone(now);
        let Some((envelope, active)) = self.active.take() else { return };
        match active {
            Active::Task(mut task) => {
                let step = task.proceed();
                self.take_step(envelope, step, Active::Task(task));
            }
            active => {
                let step = self.with_stream(envelope.session, |stream| match stream {
                    Stream::Read(read) => read.advance(),
                    Stream::Write(write) => write.work(),
                });
                self.take_step(envelope, step, active);
            }
        }
        self.settle_step(now);
    }

    /// The next operation to submit, with the session's number for it.
    pub fn poll_disk(&mut self) -> Option<(u64, Operation)> {
        self.operations.pop_front()
    }

    /// Bytes to send next, empty when there are none. They stay until they are consumed.
    #[must_use]
    pub fn poll_output(&self) -> &[u8] {
        self.output.front()
    }

    /// `count` bytes of [`Session::poll_output`] were sent.
    pub fn consume_output(&mut self, now: Instant, count: usize) {
        if let Some(buffer) = self.output.consume(count) {
            self.give_buffer(buffer);
        }
        self.weigh();
        self.unpark();
        if !self.waiting && !matches!(self.phase, Phase::AwaitPing | Phase::AwaitConfig) {
            self.postpone(now);
        }
    }

    /// Whether [`Session::handle_work`] has something to do.
    #[must_use]
    pub fn poll_work(&self) -> bool {
        self.work || self.can_prepare()
    }

    /// The next thing that somebody may want in the log.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When the session gives its client up, unless it waits for itself, or when it tries again.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waits = self.active.is_none() || !self.output.is_empty() || self.waiting || self.awaits_authority();
        (waits && !self.disconnected).then_some(self.deadline)
    }

    /// What is to be done with the connection.
    #[must_use]
    pub const fn state(&self) -> State {
        match self.phase {
            Phase::Closing if self.disconnected && self.cleaned_up && self.outstanding == 0 => State::Closed,
            Phase::Closing => State::Closing,
            _ => State::Open,
        }
    }

    /// What was done so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// The stanza of the client's command, once it is authorized.
    #[must_use]
    pub fn stanza(&self) -> Option<&str> {
        self.settings.as_ref()?.stanza.as_deref()
    }

    /// What the client may do, once it is authorized.
    #[must_use]
    pub fn role(&self) -> Role {
        self.guard.role()
    }

    /// Whether it reads or writes files at the moment.
    #[must_use]
    pub const fn is_transferring(&self) -> bool {
        !self.streams.is_empty()
    }

    /// The locks that this session holds.
    #[must_use]
    pub fn locks(&self) -> &[HeldLock] {
        &self.locks
    }

    /// Whether this session holds locks, or has held some.
    #[must_use]
    pub const fn has_locked(&self) -> bool {
        self.locked
    }

    /// Wants an operation done; returns the session's number for it.
    pub(super) fn submit(&mut self, operation: Operation) -> u64 {
        let number = self.next_operation;
        self.operations.push_back((number, operation));
        self.next_operation += 1;
        self.outstanding += 1;
        number
    }

    /// Sends `error` as one that ends the connection, and ends it.
    pub(super) fn fail(&mut self, error: Error) {
        self.counters.errors += 1;
        // A client without a certificate gets no reason, as with the original.
        if self.phase != Phase::AwaitPing {
            self.output.push(response::error(self.release.framing, 0, &error));
        }
        self.events.push_back(Event::Refused(error.into()));
        self.close();
    }

    /// Answers a request with an error; some end the connection.
    pub(super) fn answer_error(&mut self, envelope: Envelope, error: Error) {
        if error.code.is_fatal() && self.release.assertions_are_fatal {
            return self.fail(error);
        }
        self.counters.requests += 1;
        self.counters.errors += 1;
        self.counters.denied += u64::from(error.code == Code::Access);
        self.output.push(response::error(self.release.framing, envelope.session, &error));
        self.tell();
        self.events.push_back(Event::Failed { request: envelope.command.to_string(), error });
        match self.release.framing {
            Framing::Classic => self.discard(envelope),
            Framing::Session => self.finish_request(),
        }
    }

    pub(super) fn answer(&mut self, envelope: Envelope, answer: Answer) {
        let framing = self.release.framing;
        if framing == Framing::Classic && envelope.opens_write() {
            return self.begin_upload();
        }
        self.counters.requests += 1;
        self.tell();
        self.events.extend(answer.notice.map(Event::Noticed));
        if let Some(lead) = answer.lead {
            self.push_part(lead);
        }
        let payload = match answer.payload {
            Some(mut payload) => {
                response::seal(framing, &mut payload, envelope.session, answer.close);
                payload
            }
            None => response::null(framing, envelope.session, answer.close),
        };
        self.output.push_list(payload, answer.share);
        if answer.close {
            self.drop_stream(envelope.session);
        } else {
            self.expect_next(envelope.session);
        }
        self.finish_request();
    }

    /// Has the log told what was found on the way.
    fn tell(&mut self) {
        self.events.extend(self.guard.take_notices().into_iter().map(Event::Noticed));
    }

    fn push_part(&mut self, part: Payload) {
        if part.is_empty() {
            self.give_buffer(part.into_buffer());
        } else {
            self.output.push(part);
        }
    }

    /// Goes on with an answer once enough of it is on its way, so that a client that does not read
    /// gets no more of it.
    fn unpark(&mut self) {
        if self.parked && self.output.has_room() {
            self.parked = false;
            self.work = true;
        }
    }

    /// Whether nothing is under way: no request, also not in part, and no file is being transferred.
    pub(super) fn is_at_rest(&self) -> bool {
        self.active.is_none()
            && self.block.is_none()
            && self.upload.is_none()
            && self.streams.is_empty()
            && self.framer.is_idle()
    }

    /// Whether the client has not said yet what it wants.
    pub(super) fn awaits_first_request(&self) -> bool {
        matches!(self.phase, Phase::AwaitPing | Phase::AwaitConfig)
    }

    /// After a request the session may end because the server does.
    pub(super) fn finish_request(&mut self) {
        self.go_on_revoking();
        if self.is_at_rest()
            && let Some(error) = self.draining.take()
        {
            self.fail(error);
        }
    }

    pub(super) fn drop_stream(&mut self, session: u64) {
        let Some(index) = self.streams.iter().position(|(number, _)| *number == session) else { return };
        self.forsake_next(session);
        match self.streams.swap_remove(index).1 {
            Stream::Read(read) => read.into_buffers().for_each(|buffer| self.give_buffer(buffer)),
            Stream::Write(write) => write.into_buffer().into_iter().for_each(|buffer| self.give_buffer(buffer)),
        }
    }

    /// Has `buffer` kept for other transfers.
    pub(super) fn give_buffer(&self, buffer: Vec<u8>) {
        self.host.repository.buffers.give(buffer);
    }

    pub(super) fn with_stream<T>(&mut self, session: u64, run: impl FnOnce(&mut Stream) -> Result<T>) -> Result<T> {
        match self.streams.iter_mut().find(|(number, _)| *number == session) {
            Some((_, stream)) => run(stream),
            None => Err(Error::protocol(format!("unable to find session id {session}"))),
        }
    }

    fn handle_request(&mut self, envelope: Envelope, parameters: &[u8]) {
        let request = match Request::decode(envelope, parameters, self.release) {
            Ok(request) => request,
            Err(Rejection::Request(error)) if self.phase == Phase::Ready => return self.answer_error(envelope, error),
            Err(Rejection::Fatal(error) | Rejection::Request(error)) => return self.fail(error),
        };
        match self.phase {
            Phase::AwaitPing => self.answer_ping(envelope, &request),
            Phase::AwaitConfig => self.begin_authorization(envelope, request),
            Phase::AwaitNoop => self.start(envelope, &request),
            Phase::Ready => {
                if request == Request::Exit {
                    return self.close();
                }
                // What is under way may finish, and nothing else begins.
                let finishes =
                    self.upload.is_some() || matches!(request, Request::ReadNext | Request::Close | Request::Cancel);
                if let Some(error) = self.draining.take_if(|_| !finishes) {
                    return self.fail(error);
                }
                if self.upload.is_some() && !self.takes_data_request(envelope, &request) {
                    return;
                }
                if let Some(error) = self.find_revoked(&request) {
                    return self.answer_error(envelope, error);
                }
                if let Request::Database(request) = request {
                    return self.begin_database(envelope, request);
                }
                match self.begin(envelope, request) {
                    Ok(Some((step, active))) => self.take_step(envelope, Ok(step), active),
                    Ok(None) => {}
                    Err(error) => self.answer_error(envelope, error),
                }
            }
            Phase::Closing => {}
        }
    }

    fn answer_ping(&mut self, envelope: Envelope, request: &Request) {
        if *request == Request::Noop {
            self.counters.requests += 1;
            self.output.push(response::null(self.release.framing, envelope.session, false));
            return self.close();
        }
        self.fail(Error::access("access denied: a client without a certificate may only ping"));
    }

    /// Answers a request with an error and ends the connection.
    pub(super) fn refuse(&mut self, session: u64, refusal: Refusal) {
        self.counters.requests += 1;
        self.counters.errors += 1;
        self.counters.denied += u64::from(refusal.error.code == Code::Access);
        self.output.push(response::error(self.release.framing, session, &refusal.error));
        self.events.push_back(Event::Refused(refusal));
        self.close();
    }

    fn take_step(&mut self, envelope: Envelope, step: Result<Step>, active: Active) {
        match self.unless_revoked(envelope, step) {
            Ok(Step::Disk(operation)) => {
                self.submit(operation);
                self.active = Some((envelope, active));
            }
            Ok(Step::Work) => {
                self.work = true;
                self.active = Some((envelope, active));
            }
            Ok(Step::Wait) => {
                self.waiting = true;
                self.active = Some((envelope, active));
            }
            Ok(Step::Part(part)) => {
                self.count(&active, envelope, part.len());
                self.push_part(part);
                self.active = Some((envelope, active));
                self.parked = true;
                self.unpark();
            }
            // A write that made room for more of its block is not answered yet.
            Ok(Step::Done(_)) if self.block.is_some() => {}
            Ok(Step::Done(answer)) => {
                let length = |payload: &Option<Payload>| payload.as_ref().map_or(0, Payload::len);
                self.count(&active, envelope, length(&answer.lead) + length(&answer.payload));
                self.answer(envelope, answer);
            }
            Err(error) => self.fail_step(envelope, error),
        }
    }

    /// Tells the client of an error: now or, where its block is answered, after that.
    pub(super) fn fail_step(&mut self, envelope: Envelope, error: Error) {
        match (&mut self.block, self.release.framing) {
            (Some(block), Framing::Session) => *block = Block::Refused(envelope, error),
            _ => self.answer_error(envelope, error),
        }
    }

    fn count(&mut self, active: &Active, envelope: Envelope, bytes: usize) {
        let reads = matches!(active, Active::Stream)
            && self
                .streams
                .iter()
                .any(|(number, stream)| *number == envelope.session && matches!(stream, Stream::Read(_)));
        if reads {
            self.counters.read += bytes as u64;
        }
    }

    fn begin_block(&mut self, envelope: Envelope) {
        if self.upload.is_some_and(|upload| upload != Upload::Writing) {
            self.block = Some(Block::Swallowed);
            return;
        }
        if let Some(error) = self.revocation() {
            self.block = Some(Block::To(envelope));
            return self.fail_step(envelope, error);
        }
        let target =
            self.with_stream(envelope.session, |stream| Ok(matches!(stream, Stream::Write(write) if write.is_ready())));
        self.block = Some(match target {
            Ok(true) if self.phase == Phase::Ready => Block::To(envelope),
            Ok(_) => Block::Refused(envelope, Error::protocol("data for a session that does not take any")),
            Err(error) => {
                let text = format!("{} for request {}:{}", error.message, envelope.command, envelope.kind);
                Block::Refused(envelope, Error::protocol(text))
            }
        });
    }

    /// Takes bytes of a block; returns how many were not taken, because something has to be done before.
    fn feed_block(&mut self, data: &[u8]) -> usize {
        let Some(Block::To(envelope)) = self.block else { return 0 };
        let mut rest = data;
        let fed = self.with_stream(envelope.session, |stream| match stream {
            Stream::Write(write) => write.feed(&mut rest),
            Stream::Read(_) => Ok(Fed::Taken),
        });
        self.counters.written += (data.len() - rest.len()) as u64;
        match fed {
            Ok(Fed::Taken) => 0,
            Ok(Fed::Disk(operation)) => {
                self.submit(operation);
                self.active = Some((envelope, Active::Stream));
                rest.len()
            }
            Ok(Fed::Work) => {
                self.work = true;
                self.active = Some((envelope, Active::Stream));
                rest.len()
            }
            Err(error) => {
                self.fail_step(envelope, error);
                0
            }
        }
    }

    fn end_block(&mut self) {
        match self.block.take() {
            Some(Block::To(_)) if self.upload.is_some() => {}
            Some(Block::To(envelope)) => self.answer(envelope, Answer::null()),
            Some(Block::Refused(..)) if self.phase != Phase::Ready => {
                self.fail(Error::format("expected config command"));
            }
            Some(Block::Refused(envelope, error)) => self.answer_error(envelope, error),
            Some(Block::Swallowed) | None => {}
        }
    }
}
