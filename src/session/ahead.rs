//! The next block of a file that is being read, prepared while the client works on the one before.
//!
//! Only where each block is asked for: an answer that is the whole file goes on by itself. What is prepared
//! waits here, an error too, and is told on the request for it. A session prepares one block at a time, in
//! slices for which it waits its turn, as for all work. Its buffers are counted as those of the file that
//! they belong to.

use crate::disk::{Completion, Outcome};
use crate::protocol::error::{Error, Result};
use crate::protocol::framing::{Envelope, Framing};
use crate::repository::{Answer, Step};

use super::conversation::{Active, Phase, Session, Stream};

/// A block that nobody has asked for yet.
pub(super) struct Ahead {
    /// The number of its file.
    session: u64,
    stage: Stage,
}

/// How far it is.
enum Stage {
    /// It wants a slice of work, its first one included.
    Work,
    /// This operation is for it.
    Disk(u64),
    /// This operation was for it, and its file is closed.
    Forsaken(u64),
    /// What is to be said to the request for it.
    Ready(Result<Answer>),
}

impl Session {
    /// After a block of the file of that number has been answered, the next one may be prepared.
    pub(super) fn expect_next(&mut self, session: u64) {
        let is_read = |(number, stream): &(u64, Stream)| *number == session && matches!(stream, Stream::Read(_));
        if self.release.framing == Framing::Session && self.ahead.is_none() && self.streams.iter().any(is_read) {
            self.ahead = Some(Ahead { session, stage: Stage::Work });
        }
    }

    /// Whether a slice of work for the next block is due: what was asked for comes first, and the block
    /// before has to be on its way.
    pub(super) fn can_prepare(&self) -> bool {
        matches!(self.ahead, Some(Ahead { stage: Stage::Work, .. }))
            && self.phase == Phase::Ready
            && self.active.is_none()
            && self.output.is_empty()
    }

    /// Does one slice of work for the next block.
    pub(super) fn prepare(&mut self) {
        if self.can_prepare()
            && let Some(Ahead { session, .. }) = self.ahead.take()
        {
            let step = self.with_stream(session, |stream| match stream {
                Stream::Read(read) => read.advance(),
                Stream::Write(_) => Err(Error::protocol("write session has nothing to read")),
            });
            self.take_next(session, step);
        }
    }

    /// Takes the completion of an operation that was for the next block, and gives any other back.
    pub(super) fn complete_next(&mut self, operation: u64, completion: Completion) -> Option<Completion> {
        let is_for_it = |ahead: &mut Ahead| matches!(ahead.stage, Stage::Disk(awaited) | Stage::Forsaken(awaited) if awaited == operation);
        let Some(Ahead { session, stage }) = self.ahead.take_if(is_for_it) else { return Some(completion) };
        if self.phase == Phase::Closing || matches!(stage, Stage::Forsaken(_)) {
            if let Ok(Outcome::Read(buffer)) = completion {
                self.give_buffer(buffer);
            }
            return None;
        }
        let step = self.with_stream(session, |stream| match stream {
            Stream::Read(read) => read.resume(completion),
            Stream::Write(_) => Err(Error::protocol("write session has nothing to read")),
        });
        self.take_next(session, step);
        None
    }

    fn take_next(&mut self, session: u64, step: Result<Step>) {
        let stage = match step {
            Ok(Step::Disk(operation)) => Stage::Disk(self.submit(operation)),
            Ok(Step::Work | Step::Part(_) | Step::Wait) => Stage::Work,
            Ok(Step::Done(answer)) => Stage::Ready(Ok(answer)),
            Err(error) => Stage::Ready(Err(error)),
        };
        self.ahead = Some(Ahead { session, stage });
    }

    /// What is known already of the block that `envelope` asks for: all, that the disk is at work for it,
    /// or nothing.
    pub(super) fn take_prepared(&mut self, envelope: Envelope) -> Prepared {
        match self.ahead.take_if(|ahead| ahead.session == envelope.session) {
            Some(Ahead { stage: Stage::Ready(answer), .. }) => Prepared::Answer(answer),
            Some(Ahead { stage: Stage::Disk(_), .. }) => {
                // From now on its completion is that of the request.
                self.active = Some((envelope, Active::Stream));
                Prepared::UnderWay
            }
            Some(forsaken @ Ahead { stage: Stage::Forsaken(_), .. }) => {
                self.ahead = Some(forsaken);
                Prepared::Nothing
            }
            Some(Ahead { stage: Stage::Work, .. }) | None => Prepared::Nothing,
        }
    }

    /// The file of that number is closed: its next block is not wanted.
    pub(super) fn forsake_next(&mut self, session: u64) {
        let Some(ahead) = self.ahead.as_mut().filter(|ahead| ahead.session == session) else { return };
        match &mut ahead.stage {
            Stage::Disk(operation) | Stage::Forsaken(operation) => ahead.stage = Stage::Forsaken(*operation),
            Stage::Work | Stage::Ready(_) => {
                if let Some(Ahead { stage: Stage::Ready(Ok(Answer { payload: Some(payload), .. })), .. }) =
                    self.ahead.take()
                {
                    self.give_buffer(payload.into_buffer());
                }
            }
        }
    }
}

/// What [`Session::take_prepared`] found.
pub(super) enum Prepared {
    /// What to say.
    Answer(Result<Answer>),
    /// The request waits for the disk.
    UnderWay,
    /// The block has to be read, or read on.
    Nothing,
}
