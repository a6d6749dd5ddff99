//! How a connection ends, whoever wants it to: the server, the client, TLS or a deadline.
//!
//! What a client leaves without a word tells of the greeting that it got, and is judged here too.

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::{CLOSING, Connection, Consumed, Input, Parting, Served, Stage};
use crate::observe::log::Level;
use crate::observe::rate::more;
use crate::protocol::error::Error;
use crate::server::client::client_hello::{PROTOCOL_VERSION_ALERT, is_before_tls_1_2};
use crate::server::client::context::Context;
use crate::server::client::tls_channel::{Departure, Plaintext};
use crate::session::{GRACE, State};

/// What a client gets to end its side after us.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes that are swallowed from a client whose session is over.
const LINGER_BYTES: usize = 4 * 1024 * 1024;

impl Connection {
    /// The deadline has passed.
    pub(crate) fn expire(&mut self, cx: &mut Context<'_>) {
        match self.stage {
            Stage::Handshake { draining: Some(_), .. } => {
                self.record.end("shutdown");
                self.leave(cx.now);
            }
            Stage::Handshake { .. } => {
                let seconds = cx.service.handshake.as_secs_f64();
                if self.tls.first_bytes().is_empty() {
                    self.record.refuse(Level::Detail, &format!("the client sent nothing for {seconds} s"), "");
                } else {
                    self.refuse_handshake(cx, &format!("the TLS handshake was not complete after {seconds} s"));
                }
                self.leave(cx.now);
            }
            Stage::Open => {
                self.give_up_greeting();
                if let Some(served) = &mut self.served {
                    served.session.handle_timeout(cx.now);
                }
            }
            Stage::Closing(_) => self.lose(cx, "the client did not take the last bytes"),
            Stage::Lingering(_) | Stage::Gone => self.leave(cx.now),
        }
        self.conclude();
    }

    /// The server wants the connection to end once the request in flight is done. One that has just been
    /// accepted gets a moment for its first request: it is an attempt that nobody has refused.
    pub(crate) fn drain(&mut self, now: Instant, error: Error) {
        self.give_up_greeting();
        match (&mut self.served, &mut self.stage) {
            (Some(served), _) => served.session.handle_drain(now, error),
            (None, Stage::Handshake { until, draining }) => {
                *until = (*until).min(now + GRACE);
                *draining = Some(error);
            }
            _ => {}
        }
        self.conclude();
    }

    /// The server wants the connection to end now.
    pub(crate) fn abort(&mut self, now: Instant, error: Error) {
        self.give_up_greeting();
        match &mut self.served {
            Some(served) => served.session.handle_abort(now, error),
            None => self.leave(now),
        }
        self.conclude();
    }

    /// The client, whose session is open, lost the right to it.
    pub(crate) fn revoke(&mut self, now: Instant, error: Error, at_once: bool) {
        match &mut self.served {
            Some(served) => served.session.handle_revoke(now, error, at_once),
            None => self.leave(now),
        }
        self.conclude();
    }

    /// The connection has to make room for another one.
    pub(crate) fn evict(&mut self, now: Instant) {
        self.record.refuse(Level::Detail, "it was silent while others waited for its place", "");
        self.leave(now);
        self.conclude();
    }

    pub(super) fn begin_closing(&mut self, cx: &mut Context<'_>) {
        self.stage = Stage::Closing(Parting { until: cx.now + CLOSING, swallowed: 0 });
        // Nobody wants it any more.
        self.unread = Vec::new();
        // What the session still had to say may have been said already.
        cx.moved = true;
    }

    pub(super) fn begin_lingering(&mut self, now: Instant, swallowed: usize) {
        let shut = self.socket.as_ref().is_some_and(|socket| socket.shutdown(Shutdown::Write).is_ok());
        if self.input == Input::Ended || !shut {
            self.leave(now);
        } else {
            self.stage = Stage::Lingering(Parting { until: now + LINGER, swallowed });
        }
    }

    /// The client has ended its side of the connection.
    pub(super) fn end_of_input(&mut self, cx: &mut Context<'_>) {
        self.input = Input::Ended;
        self.tls.end_input();
        match self.stage {
            Stage::Handshake { .. } if self.tls.first_bytes().is_empty() => {
                self.record.refuse(Level::Detail, "the client left without a word", "");
                self.leave(cx.now);
            }
            Stage::Handshake { .. } => {
                self.refuse_handshake(cx, "the client closed the connection during the TLS handshake");
                self.leave(cx.now);
            }
            Stage::Open => {
                if let Consumed::Ended(departure) = self.deliver(cx) {
                    self.hang_up(cx, &departure);
                }
            }
            Stage::Closing(_) => self.classify_late_close(cx),
            Stage::Gone => {}
            Stage::Lingering(_) => {
                self.classify_late_close(cx);
                self.leave(cx.now);
            }
        }
    }

    /// TLS gave up; it may have an alert to send that says why.
    pub(super) fn fail_tls(&mut self, cx: &mut Context<'_>, error: &rustls::Error) {
        if matches!(self.stage, Stage::Handshake { .. }) {
            if is_before_tls_1_2(self.tls.first_bytes()) {
                return self.refuse_version(cx);
            }
            let reason = self.reasons.of(error, self.tls.first_bytes());
            self.refuse_handshake(cx, &reason);
            // The alert says it.
            self.tls.finish_with_alert();
            return self.begin_closing(cx);
        }
        if let Some(socket) = &self.socket {
            let _ = self.tls.flush(socket);
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
            Some(Ok(_)) => self.begin_lingering(cx.now, 0),
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
        let Some(Served { greeting, .. }) = &mut self.served else { return };
        while greeting.is_open() && !input.is_empty() {
            let before = input.len();
            if self.tls.feed(&mut input).is_err() {
                return;
            }
            match self.tls.plaintext() {
                Plaintext::Bytes(_) => {
                    greeting.hear();
                    return self.forward_effects(cx);
                }
                Plaintext::Ended(Departure::Announced) => greeting.give_up(),
                _ if input.len() == before => return,
                _ => {}
            }
        }
    }

    /// The client ended the connection silently; what that means if it has not said anything.
    fn classify_silent_close(&mut self, cx: &mut Context<'_>) -> Option<String> {
        let Served { session, greeting, .. } = self.served.as_mut()?;
        // Without the whole greeting the client knows nothing that it could refuse.
        let is_greeted = session.poll_output().is_empty() && !self.tls.wants_flush();
        if is_greeted { greeting.hung_up(cx) } else { None }
    }

    /// As [`Connection::classify_silent_close`], when the session is over already.
    fn classify_late_close(&mut self, cx: &mut Context<'_>) {
        if let Some(reason) = self.classify_silent_close(cx) {
            self.record.decline(&reason, &mut cx.rates.clients, cx.now);
        }
    }

    /// The client closed the connection or broke it off.
    pub(super) fn hang_up(&mut self, cx: &mut Context<'_>, departure: &Departure) {
        let refused = match departure {
            Departure::Silent => self.classify_silent_close(cx),
            Departure::Announced | Departure::Broken(_) => None,
        };
        self.lose(cx, refused.as_deref().unwrap_or_else(|| departure.reason()));
    }

    fn give_up_greeting(&mut self) {
        if let Some(served) = &mut self.served {
            served.greeting.give_up();
        }
    }

    pub(super) fn swallow(&mut self, now: Instant, count: usize) {
        if let Stage::Closing(parting) | Stage::Lingering(parting) = &mut self.stage {
            parting.swallowed += count;
            if parting.swallowed > LINGER_BYTES {
                self.leave(now);
            }
        }
    }

    /// The connection broke or the client left.
    pub(super) fn lose(&mut self, cx: &mut Context<'_>, reason: &str) {
        let is_open = |served: &&mut Served| served.session.state() == State::Open;
        if let Some(served) = self.served.as_mut().filter(is_open) {
            served.session.handle_disconnect(cx.now, reason);
            // The session may know better, which is to be heard before.
            self.forward_effects(cx);
            self.record.end(reason);
        }
        self.leave(cx.now);
        self.forward_effects(cx);
    }

    /// Closes the socket. A session that is not over yet cleans up without its client.
    pub(super) fn leave(&mut self, now: Instant) {
        let is_left = |served: &&mut Served| served.session.state() != State::Closed;
        if let Some(served) = self.served.as_mut().filter(is_left) {
            served.session.handle_disconnect(now, "the connection is closed");
        }
        self.stage = Stage::Gone;
        self.socket = None;
        self.unread = Vec::new();
    }
}
