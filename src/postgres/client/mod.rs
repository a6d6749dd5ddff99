//! One connection to a `PostgreSQL` server, without I/O: connecting, authentication, one statement at a
//! time, and its cancellation.

mod authentication;
mod statement;

use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::authentication::sasl::ScramSha256;
use postgres_protocol::message::backend::{ErrorResponseBody, Message, NoticeResponseBody};
use postgres_protocol::message::frontend;
use rustix::io::Errno;

use super::environment::{Address, Encryption, Plan, Target};
use super::messages::{Malformed, Messages};
use super::server_error::ServerError;
use crate::protocol::errno::describe_errno;
use statement::{ANSWER_MAXIMUM, Cancellation, Running};
pub use statement::{Finished, First, Rows};

/// How long a cancellation may take until the server has taken note of it.
const CANCEL: Duration = Duration::from_secs(10);
/// How long a statement that was cancelled may go on.
const SETTLE: Duration = Duration::from_secs(30);
/// What libpq says of a connection that ends in the middle of something.
const LOST: &str = "server closed the connection unexpectedly\n\tThis probably means the server terminated \
                    abnormally\n\tbefore or while processing the request.\n";
/// States of errors that libpq treats in a way of their own.
const CANNOT_CONNECT_NOW: &str = "57P03";
const INVALID_PASSWORD: &str = "28P01";
/// How the states begin with which a server announces that it ends a connection: at a shutdown, after a crash of another
/// process, for a timeout. Some of that it says in a notice.
const ENDING: &str = "57P";

/// What the caller is to do with sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Close what is open and connect to this; then [`Client::handle_connected`] or
    /// [`Client::handle_connect_failure`].
    Connect(Address),
    /// Connect to this with a second socket, send these bytes, wait for the end of that connection and
    /// close it; then [`Client::handle_cancelled`].
    Cancel(Address, Vec<u8>),
    /// Send what [`Client::poll_output`] holds if that is possible at once, and close both sockets.
    Close,
}

/// What became of what was asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Statements can be sent.
    Connected,
    /// No connection: libpq's text, trimmed.
    Refused(String),
    /// A statement is done with.
    Finished(Finished),
    /// The server ended the connection while it waited for a statement: what it said, and libpq's text, trimmed.
    Lost(String),
}

/// Where the connection stands.
enum Phase {
    /// The caller connects.
    Connecting,
    /// The server was asked whether it encrypts.
    Negotiating,
    /// The first message is sent; authentication, then greetings, until the server is ready.
    Starting(Authentication),
    /// The server waits for a statement.
    Idle,
    /// It works on one.
    Busy(Box<Running>),
    /// Nobody wants it any more; a cancellation is on its way.
    Leaving,
    /// Closed by the server while it waited for a statement.
    Lost(Lost),
    /// Closed.
    Over,
}

/// What there is to say of a connection that the server ended.
struct Lost {
    text: String,
    /// The server itself said why.
    is_explained: bool,
}

/// How far authentication is.
enum Authentication {
    Begun,
    /// The password was sent, or something made of it.
    Answered,
    Scram(Box<ScramSha256>),
    Complete,
}

/// One connection.
///
/// # Contract
///
/// After [`Client::new`] and each `handle_*`, [`Client::query`] and [`Client::leave`] the caller asks by
/// `poll_*` what to do, until there is nothing more: [`Client::poll_action`] for its sockets,
/// [`Client::poll_output`] and [`Client::consume_output`] for bytes to send, [`Client::poll_event`] for
/// what became of what was asked, [`Client::poll_timeout`] for when to call [`Client::handle_timeout`].
/// Input is read only while [`Client::wants_input`]. Unlike libpq, it looks at what comes before the next statement,
/// so that a server that ends the connection is heard before the system throws away what it said. Time is an argument
/// and never runs backwards.
pub struct Client {
    plan: Plan,
    /// The address that is tried or used.
    index: usize,
    phase: Phase,
    messages: Messages,
    output: BytesMut,
    /// What went wrong with the addresses so far.
    complaints: String,
    patience: Duration,
    deadline: Option<Instant>,
    /// Until when a connection has to be there, whatever the number of addresses.
    last_moment: Instant,
    /// What a cancellation names: the process and its secret.
    key: (i32, i32),
    /// What the server said last that may be why the connection ends.
    farewell: Option<String>,
    actions: Vec<Action>,
    event: Option<Event>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rest has passwords in it.
        f.debug_struct("Client").field("address", &self.target().map(|it| &it.address)).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects as `plan` says, within `bound` if the plan has no limit.
    #[must_use]
    pub fn new(plan: Plan, bound: Duration, now: Instant) -> Self {
        let patience = plan.patience.unwrap_or(bound);
        let mut client = Self {
            plan,
            index: 0,
            phase: Phase::Connecting,
            messages: Messages::default(),
            output: BytesMut::new(),
            complaints: String::new(),
            patience,
            deadline: None,
            last_moment: now + bound.max(patience),
            key: (0, 0),
            farewell: None,
            actions: vec![],
            event: None,
        };
        client.connect(now);
        client
    }

    /// What to do next with the sockets.
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.actions.is_empty() { None } else { Some(self.actions.remove(0)) }
    }

    /// Bytes to send. They stay until they are consumed.
    #[must_use]
    pub fn poll_output(&self) -> &[u8] {
        &self.output
    }

    /// `count` bytes of [`Client::poll_output`] were sent, or can never be.
    pub fn consume_output(&mut self, count: usize) {
        let _ = self.output.split_to(count.min(self.output.len()));
    }

    /// What became of what was asked for.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.event.take()
    }

    /// When to call [`Client::handle_timeout`].
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether bytes from the server are wanted.
    #[must_use]
    pub const fn wants_input(&self) -> bool {
        match self.phase {
            Phase::Negotiating | Phase::Starting(_) | Phase::Busy(_) => true,
            // The end of a connection must not hide the answer before it.
            Phase::Idle => self.event.is_none(),
            Phase::Connecting | Phase::Leaving | Phase::Lost(_) | Phase::Over => false,
        }
    }

    /// Whether the connection is over for good.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over | Phase::Lost(_))
    }

    /// The socket that was asked for is connected.
    pub fn handle_connected(&mut self) {
        if !matches!(self.phase, Phase::Connecting) {
            return;
        }
        let is_tcp = self.target().is_some_and(|target| matches!(target.address, Address::Tcp { .. }));
        if is_tcp && self.plan.encryption == Encryption::Asked {
            frontend::ssl_request(&mut self.output);
            self.phase = Phase::Negotiating;
        } else {
            self.start();
        }
    }

    /// The address that was asked for cannot be connected to.
    pub fn handle_connect_failure(&mut self, now: Instant, errno: i32) {
        if matches!(self.phase, Phase::Connecting) {
            let question = self.target().map_or("", |target| target.address.question());
            self.try_next(now, &format!("{}\n{question}", describe_errno(errno)));
        }
    }

    /// The server sent `input`.
    pub fn handle_input(&mut self, now: Instant, mut input: &[u8]) {
        if matches!(self.phase, Phase::Negotiating) {
            let Some((answer, rest)) = input.split_first() else { return };
            match answer {
                b'N' => {
                    input = rest;
                    self.start();
                }
                b'S' => {
                    return self.refuse(
                        "the server offers TLS, which repohostd does not speak to databases\nHINT: connect by a unix \
                         socket, or set PGSSLMODE=disable in the environment of the server to send all in the clear.",
                    );
                }
                // A server that knows no encryption complains.
                b'E' => self.phase = Phase::Starting(Authentication::Begun),
                _ => return self.refuse("received invalid response to SSL negotiation"),
            }
        }
        self.messages.push(input);
        while self.wants_input() {
            match self.messages.next() {
                Ok(Some(message)) => self.take(now, message),
                Ok(None) => break,
                Err(malformed) => return self.give_up(malformed),
            }
        }
    }

    /// The connection has ended, by itself or with an error of the system.
    pub fn handle_end(&mut self, errno: Option<i32>) {
        const RESET: i32 = Errno::CONNRESET.raw_os_error();
        // What came with the last answer may not have been looked at.
        while let (Phase::Idle, Ok(Some(message))) = (&self.phase, self.messages.next()) {
            self.take_unasked(&message);
        }
        let text = match errno {
            None | Some(RESET) => LOST.to_owned(),
            Some(errno) => format!("could not receive data from server: {}\n", describe_errno(errno)),
        };
        self.lose(&text);
    }

    /// The server has closed the second connection after a cancellation, or there was none, for the
    /// reason in libpq's words.
    pub fn handle_cancelled(&mut self, now: Instant, result: Result<(), String>) {
        match (&mut self.phase, result) {
            (Phase::Leaving, _) => self.end(),
            (Phase::Busy(running), Ok(())) if running.cancellation == Cancellation::UnderWay => {
                running.cancellation = Cancellation::Done;
                self.deadline = Some(now + SETTLE);
                self.finish_if_ready();
            }
            (Phase::Busy(running), Err(text)) if running.cancellation == Cancellation::UnderWay => {
                self.event = Some(Event::Finished(Finished::NotCancelled(text)));
                self.end();
            }
            _ => {}
        }
    }

    /// The deadline of [`Client::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        self.deadline = None;
        match &mut self.phase {
            Phase::Connecting | Phase::Negotiating | Phase::Starting(_) => self.try_next(now, "timeout expired\n"),
            Phase::Busy(running) => match running.cancellation {
                Cancellation::Unneeded => {
                    running.cancellation = Cancellation::UnderWay;
                    self.cancel(now);
                }
                Cancellation::UnderWay => self.handle_cancelled(now, Err("timeout expired".to_owned())),
                // It will not be cancelled.
                Cancellation::Done => {
                    self.event = Some(Event::Finished(Finished::TimedOut { further: None }));
                    self.end();
                }
            },
            Phase::Leaving => self.end(),
            Phase::Idle | Phase::Lost(_) | Phase::Over => {}
        }
    }

    /// Sends `statement`, which is cancelled after `timeout`.
    pub fn query(&mut self, now: Instant, statement: String, timeout: Duration) {
        let reason = match &self.phase {
            Phase::Idle => match frontend::query(&statement, &mut self.output) {
                Ok(()) => None,
                Err(error) => Some(error.to_string()),
            },
            // As if it had been sent before the end was heard of.
            Phase::Lost(Lost { text, is_explained }) => {
                let further = is_explained.then(|| text.clone());
                self.event = Some(Event::Finished(Finished::Answered { first: First::Error(text.clone()), further }));
                return;
            }
            Phase::Over => Some("no connection to the server".to_owned()),
            _ => Some("another command is already in progress".to_owned()),
        };
        if let Some(reason) = reason {
            self.event = Some(Event::Finished(Finished::NotSent(reason)));
            return;
        }
        self.deadline = Some(now + timeout);
        self.phase = Phase::Busy(Box::new(Running::new(statement)));
    }

    /// Nobody wants the connection any more. A statement that is under way is cancelled, so that the
    /// server does not go on with it.
    pub fn leave(&mut self, now: Instant) {
        self.event = None;
        match &self.phase {
            Phase::Idle => {
                frontend::terminate(&mut self.output);
                self.end();
            }
            Phase::Busy(running) => {
                let begun = running.cancellation != Cancellation::Unneeded;
                self.phase = Phase::Leaving;
                if begun {
                    self.end();
                } else {
                    self.cancel(now);
                }
            }
            Phase::Leaving | Phase::Lost(_) | Phase::Over => {}
            Phase::Connecting | Phase::Negotiating | Phase::Starting(_) => self.end(),
        }
    }

    fn target(&self) -> Option<&Target> {
        self.plan.targets.get(self.index)
    }

    /// Tries the address at `index`, or gives up when there is none.
    fn connect(&mut self, now: Instant) {
        self.messages.clear();
        self.output.clear();
        let address = self.target().map(|target| target.address.clone());
        if let Some(address) = address.filter(|_| now < self.last_moment) {
            self.actions.push(Action::Connect(address));
            self.phase = Phase::Connecting;
            self.deadline = Some((now + self.patience).min(self.last_moment));
        } else {
            self.end_refused();
        }
    }

    fn complain(&mut self, text: &str) {
        let complaint = self.target().map(|target| target.address.complaint()).unwrap_or_default();
        self.complaints += &complaint;
        self.complaints += text;
    }

    /// This address cannot be used.
    fn try_next(&mut self, now: Instant, text: &str) {
        self.complain(text);
        self.index += 1;
        self.connect(now);
    }

    /// This address can be used, but the server or we do not want to.
    fn refuse(&mut self, text: &str) {
        self.complain(text);
        self.end_refused();
    }

    fn end_refused(&mut self) {
        self.event = Some(Event::Refused(std::mem::take(&mut self.complaints).trim().to_owned()));
        self.end();
    }

    fn start(&mut self) {
        let parameters = self.plan.parameters.iter().map(|(name, value)| (*name, value.as_str()));
        match frontend::startup_message(parameters, &mut self.output) {
            Ok(()) => self.phase = Phase::Starting(Authentication::Begun),
            Err(error) => self.refuse(&error.to_string()),
        }
    }

    fn end(&mut self) {
        self.phase = Phase::Over;
        self.deadline = None;
        self.messages.clear();
        self.actions.clear();
        self.actions.push(Action::Close);
    }

    fn cancel(&mut self, now: Instant) {
        let mut message = BytesMut::new();
        frontend::cancel_request(self.key.0, self.key.1, &mut message);
        let Some(target) = self.target() else { return };
        self.actions.push(Action::Cancel(target.address.clone(), message.to_vec()));
        self.deadline = Some(now + CANCEL);
    }

    fn lose(&mut self, text: &str) {
        let farewell = self.farewell.take();
        let is_explained = farewell.is_some();
        let text = farewell.unwrap_or_default() + text;
        match &mut self.phase {
            Phase::Negotiating | Phase::Starting(_) => self.refuse(&text),
            Phase::Busy(running) => {
                running.add(First::Error(text));
                self.finish();
                self.end();
            }
            Phase::Idle => {
                self.event = Some(Event::Lost(text.trim().to_owned()));
                self.end();
                self.phase = Phase::Lost(Lost { text, is_explained });
            }
            Phase::Connecting | Phase::Leaving | Phase::Lost(_) | Phase::Over => {}
        }
    }

    fn give_up(&mut self, malformed: Malformed) {
        match malformed {
            Malformed::TooLong if matches!(self.phase, Phase::Busy(_)) => {
                self.event = Some(Event::Finished(Finished::TooLong(ANSWER_MAXIMUM)));
                self.end();
            }
            _ => self.lose("lost synchronization with server: got an unexpected message\n"),
        }
    }

    fn take(&mut self, now: Instant, message: Message) {
        let taken = match self.phase {
            Phase::Starting(_) => self.take_greeting(now, message),
            Phase::Idle => {
                self.take_unasked(&message);
                Ok(())
            }
            _ => self.take_result(message),
        };
        if let Err(malformed) = taken {
            self.give_up(malformed);
        }
    }

    fn take_greeting(&mut self, now: Instant, message: Message) -> Result<(), Malformed> {
        let Phase::Starting(authentication) = &mut self.phase else { return Ok(()) };
        let complete = matches!(authentication, Authentication::Complete);
        match message {
            Message::ErrorResponse(body) => self.take_refusal(now, &body),
            Message::AuthenticationOk if !complete => match authentication {
                Authentication::Scram(_) => self.refuse("server did not complete authentication"),
                _ => *authentication = Authentication::Complete,
            },
            Message::ReadyForQuery(_) if complete => {
                self.phase = Phase::Idle;
                self.deadline = None;
                self.event = Some(Event::Connected);
            }
            Message::BackendKeyData(body) if complete => self.key = (body.process_id(), body.secret_key()),
            Message::ParameterStatus(_) | Message::NoticeResponse(_) => {}
            message if !complete => self.authenticate(message)?,
            _ => return Err(Malformed::Unknown),
        }
        Ok(())
    }

    fn take_refusal(&mut self, now: Instant, body: &ErrorResponseBody) {
        let error = ServerError::new(body.fields());
        let mut text = error.text(None);
        if error.state.as_deref() == Some(CANNOT_CONNECT_NOW) {
            return self.try_next(now, &text);
        }
        let file = self.target().and_then(|target| target.from_file.as_ref());
        if let Some(file) = file.filter(|_| error.state.as_deref() == Some(INVALID_PASSWORD)) {
            // Writing to a string does not fail.
            let _ = writeln!(text, "password retrieved from file \"{file}\"");
        }
        self.refuse(&text);
    }

    /// What the server says while it waits for a statement: that settings have changed, or that it is about to end.
    fn take_unasked(&mut self, message: &Message) {
        match message {
            Message::ErrorResponse(body) => self.farewell = Some(ServerError::new(body.fields()).text(None)),
            Message::NoticeResponse(body) => self.take_notice(body),
            _ => {}
        }
    }

    fn take_notice(&mut self, body: &NoticeResponseBody) {
        let notice = ServerError::new(body.fields());
        if notice.state.as_deref().is_some_and(|state| state.starts_with(ENDING)) {
            self.farewell = Some(notice.text(None));
        }
    }

    fn take_result(&mut self, message: Message) -> Result<(), Malformed> {
        let Phase::Busy(running) = &mut self.phase else { return Ok(()) };
        match message {
            Message::RowDescription(body) => running.describe(&body)?,
            Message::DataRow(body) => running.add_row(&body)?,
            Message::CommandComplete(_) => running.complete(),
            Message::EmptyQueryResponse | Message::CopyOutResponse(_) => running.add(First::Error(String::new())),
            Message::ErrorResponse(body) => {
                let text = ServerError::new(body.fields()).text(Some(&running.statement));
                self.farewell = Some(text.clone());
                running.add(First::Error(text));
            }
            Message::ReadyForQuery(_) => {
                running.ready = true;
                self.farewell = None;
                self.finish_if_ready();
            }
            // Nobody has data for it.
            Message::CopyInResponse(_) => {
                if frontend::copy_fail("COPY is not supported", &mut self.output).is_err() {
                    return Err(Malformed::Unknown);
                }
            }
            Message::NoticeResponse(body) => self.take_notice(&body),
            Message::CopyData(_)
            | Message::CopyDone
            | Message::NotificationResponse(_)
            | Message::ParameterStatus(_) => {}
            _ => return Err(Malformed::Unknown),
        }
        Ok(())
    }

    /// A cancellation that has not arrived yet would hit the next statement, so it is waited for.
    fn finish_if_ready(&mut self) {
        let Phase::Busy(running) = &self.phase else { return };
        if running.ready && running.cancellation != Cancellation::UnderWay {
            self.finish();
            self.phase = Phase::Idle;
            self.deadline = None;
        }
    }

    fn finish(&mut self) {
        let Phase::Busy(running) = &mut self.phase else { return };
        self.event = Some(Event::Finished(running.finish()));
    }
}

#[cfg(test)]
mod tests;
