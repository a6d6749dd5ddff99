//! How a connection ends, whoever wants it to: the server, the client, TLS or a deadline.
//!
//! What a client leaves without a word tells of the greeting that it got, and is judged here too.

use std::io::{self, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::{Connection, Stage, Taken};
use crate::observe::log::Level;
use crate::observe::rate::more;
use crate::protocol::error::Error;
use crate::server::client::client_hello::{PROTOCOL_VERSION_ALERT, is_before_tls_1_2};
use crate::server::client::context::Context;
use crate::session::{GRACE, State};

/// What a client gets to take our last bytes, counted from the last byte that it took.
pub(super) const CLOSING: Duration = Duration::from_secs(10);
/// What a client gets to end its side after us.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes that are swallowed from a client whose session is over.
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// How a client ended its connection.
///
/// pgBackRest that refuses a greeting closes its socket, having read all that was sent, and says no
/// `close_notify`, in every release. Monitors that look whether there is TLS behave otherwise: `openssl s_client`,
/// curl and Prometheus' blackbox exporter say `close_notify`, `HAProxy` resets the connection
/// (tests/README.md, "What was tried").
pub(super) enum Departure {
    /// With `close_notify`.
    Announced,
    /// Without a word, having read everything.
    Silent,
    /// The connection broke, or was reset because of what the client had not read: the reason.
    Broken(String),
}

impl Departure {
    fn reason(&self) -> &str {
        match self {
            Self::Announced => "the client closed the connection",
            Self::Silent => "the client vanished: end of the connection without close_notify",
            Self::Broken(reason) => reason,
        }
    }
}

impl Connection {
    /// The deadline has passed.
    pub(crate) fn expire(&mut self, cx: &mut Context<'_>) {
        match self.stage {
            Stage::Handshake if self.draining.is_some() => {
                self.record.end("shutdown");
                self.leave(cx.now);
            }
            Stage::Handshake => {
                let seconds = cx.service.handshake.as_secs_f64();
                if self.first_length == 0 {
                    self.record.refuse(Level::Detail, &format!("the client sent nothing for {seconds} s"), "");
                } else {
                    self.refuse_handshake(cx, &format!("the TLS handshake was not complete after {seconds} s"));
                }
                self.leave(cx.now);
            }
            Stage::Open => {
                self.give_up_greeting();
                if let Some(session) = &mut self.session {
                    session.handle_timeout(cx.now);
                }
            }
            Stage::Closing => self.lose(cx, "the client did not take the last bytes"),
            Stage::Lingering | Stage::Gone => self.leave(cx.now),
        }
    }

    /// The server wants the connection to end once the request in flight is done. One that has just been
    /// accepted gets a moment for its first request: it is an attempt that nobody has refused.
    pub(crate) fn drain(&mut self, now: Instant, error: Error) {
        self.give_up_greeting();
        match (&mut self.session, self.stage) {
            (Some(session), _) => session.handle_drain(now, error),
            (None, Stage::Handshake) => {
                self.deadline = self.deadline.min(now + GRACE);
                self.draining = Some(error);
            }
            _ => {}
        }
    }

    /// The server wants the connection to end now.
    pub(crate) fn abort(&mut self, now: Instant, error: Error) {
        self.give_up_greeting();
        match &mut self.session {
            Some(session) => session.handle_abort(now, error),
            None => self.leave(now),
        }
    }

    /// The client, whose session is open, lost the right to it.
    pub(crate) fn revoke(&mut self, now: Instant, error: Error, at_once: bool) {
        match &mut self.session {
            Some(session) => session.handle_revoke(now, error, at_once),
            None => self.leave(now),
        }
    }

    /// The connection has to make room for another one.
    pub(crate) fn evict(&mut self, now: Instant) {
        self.record.refuse(Level::Detail, "it was silent while others waited for its place", "");
        self.leave(now);
    }

    pub(super) fn begin_closing(&mut self, now: Instant) {
        self.stage = Stage::Closing;
        self.deadline = now + CLOSING;
        // Nobody wants it any more.
        self.unread = Vec::new();
        // What the session still had to say may have been said already.
        self.moved = true;
    }

    pub(super) fn begin_lingering(&mut self, now: Instant) {
        let shut = self.socket.as_ref().is_some_and(|socket| socket.shutdown(Shutdown::Write).is_ok());
        if self.ended || !shut {
            self.leave(now);
        } else {
            self.stage = Stage::Lingering;
            self.deadline = now + LINGER;
        }
    }

    /// The client has ended its side of the connection.
    pub(super) fn end_of_input(&mut self, cx: &mut Context<'_>) {
        self.ended = true;
        // Tells TLS, which then tells a clean end from a torn one.
        let _ = self.tls.read_tls(&mut io::empty());
        match self.stage {
            Stage::Handshake if self.first_length == 0 => {
                self.record.refuse(Level::Detail, "the client left without a word", "");
                self.leave(cx.now);
            }
            Stage::Handshake => {
                self.refuse_handshake(cx, "the client closed the connection during the TLS handshake");
                self.leave(cx.now);
            }
            Stage::Open => {
                if let Taken::Ended(departure) = self.deliver(cx) {
                    self.hang_up(cx, &departure);
                }
            }
            Stage::Closing => self.judge_late(cx),
            Stage::Gone => {}
            Stage::Lingering => {
                self.judge_late(cx);
                self.leave(cx.now);
            }
        }
    }

    /// TLS gave up; it may have an alert to send that says why.
    pub(super) fn fail_tls(&mut self, cx: &mut Context<'_>, error: &rustls::Error) {
        if self.stage == Stage::Handshake {
            if is_before_tls_1_2(&self.first[..self.first_length]) {
                return self.refuse_version(cx);
            }
            let reason = self.reasons.of(error, &self.first[..self.first_length]);
            self.refuse_handshake(cx, &reason);
            // The alert says it.
            self.said_goodbye = true;
            return self.begin_closing(cx.now);
        }
        if let Some(socket) = &mut self.socket {
            let _ = self.tls.write_tls(socket);
        }
        self.lose(cx, &format!("TLS error: {error}"));
    }

    /// Refuses a client of an old version with the alert that says so, as the original does; that of
    /// rustls is about something that such a client does not have.
    fn refuse_version(&mut self, cx: &mut Context<'_>) {
        self.refuse_handshake(cx, "the client speaks a TLS version below 1.2");
        // Nothing was sent before, so there is room for these few bytes.
        let sent = self.socket.as_mut().map(|socket| socket.write(&PROTOCOL_VERSION_ALERT));
        match sent {
            Some(Ok(_)) => self.begin_lingering(cx.now),
            _ => self.leave(cx.now),
        }
    }

    pub(super) fn refuse_handshake(&mut self, cx: &mut Context<'_>, reason: &str) {
        match cx.rates.handshake.pass(cx.now) {
            Some(held_back) => self.record.refuse(Level::Warn, reason, &more(held_back)),
            None => self.record.end(reason),
        }
    }

    /// Looks at what comes after the session's last word, as long as it is not known whether the
    /// client accepted its greeting: some releases are told that they may not speak before they have sent
    /// anything.
    pub(super) fn listen(&mut self, cx: &mut Context<'_>, mut input: &[u8]) {
        let Some(greeting) = self.greeting.as_mut().filter(|greeting| greeting.is_open()) else { return };
        while !input.is_empty() {
            let read = self.tls.read_tls(&mut input);
            let Ok(state) = self.tls.process_new_packets() else { return };
            if state.plaintext_bytes_to_read() > 0 {
                greeting.hear();
                return self.settle(cx);
            }
            if state.peer_has_closed() {
                return greeting.give_up();
            }
            if !matches!(read, Ok(count) if count > 0) {
                return;
            }
        }
    }

    /// The client ended the connection silently; what that means if it has not said anything.
    fn judge_silence(&mut self, cx: &mut Context<'_>) -> Option<String> {
        // Without the whole greeting the client knows nothing that it could refuse.
        let greeted = self.session.as_ref().is_some_and(|session| session.poll_output().is_empty());
        if !greeted || self.tls.wants_write() {
            return None;
        }
        self.greeting.as_mut()?.hung_up(cx)
    }

    /// As [`Connection::judge_silence`], when the session is over already.
    fn judge_late(&mut self, cx: &mut Context<'_>) {
        if let Some(reason) = self.judge_silence(cx) {
            self.record.decline(&reason, &mut cx.rates.clients, cx.now);
        }
    }

    /// The client closed the connection or broke it off.
    pub(super) fn hang_up(&mut self, cx: &mut Context<'_>, departure: &Departure) {
        let refused = match departure {
            Departure::Silent => self.judge_silence(cx),
            Departure::Announced | Departure::Broken(_) => None,
        };
        self.lose(cx, refused.as_deref().unwrap_or_else(|| departure.reason()));
    }

    pub(super) const fn give_up_greeting(&mut self) {
        if let Some(greeting) = &mut self.greeting {
            greeting.give_up();
        }
    }

    pub(super) fn swallow(&mut self, now: Instant, count: usize) {
        self.swallowed += count;
        if self.swallowed > LINGER_BYTES {
            self.leave(now);
        }
    }

    /// The connection broke or the client left.
    pub(super) fn lose(&mut self, cx: &mut Context<'_>, reason: &str) {
        if let Some(session) = self.session.as_mut().filter(|session| session.state() == State::Open) {
            session.handle_disconnect(cx.now, reason);
            // The session may know better, which is to be heard before.
            self.settle(cx);
            self.record.end(reason);
        }
        self.leave(cx.now);
        self.settle(cx);
    }

    /// Closes the socket. A session that is not over yet cleans up without its client.
    pub(super) fn leave(&mut self, now: Instant) {
        if let Some(session) = self.session.as_mut().filter(|session| session.state() != State::Closed) {
            session.handle_disconnect(now, "the connection is closed");
        }
        self.stage = Stage::Gone;
        self.socket = None;
        self.unread = Vec::new();
    }
}
