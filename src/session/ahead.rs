//! The next block of a file that is being read, prepared while the client works on the one before.
//!
//! Only where each block is asked for: an answer that is the whole file goes on by itself. What is prepared
//! waits here, an error too, and is told on the request for it. A session prepares one block at a time, in
//! slices for which it waits its turn, as for all work. Its buffers are counted as those of the file that
//! they belong to.

use crate::disk::{Completion, Outcome};
use crate::protocol::error::Result;
use crate::protocol::framing::{Envelope, Framing};
use crate::repository::{Answer, Step};

use super::granted::{Granted, Stage};
use super::line::Line;
use super::streams::{Stream, Streams};

/// A block that nobody has asked for yet.
pub(super) struct Ahead {
    /// The number of its file.
    session: u64,
    progress: Progress,
}

/// How far it is.
enum Progress {
    /// It wants a slice of work, its first one included.
    Work,
    /// This operation is for it.
    Disk(u64),
    /// This operation was for it, and its file is closed.
    Cancelled(u64),
    /// What is to be said to the request for it.
    Ready(Result<Answer>),
}

/// What is known already of a block that is asked for.
pub(super) enum Prepared {
    /// What to say.
    Answer(Result<Answer>),
    /// The disk is at work for it. From now on the completion is that of the request.
    UnderWay,
    /// Nothing: the block has to be read, or read on.
    Nothing,
}

impl Ahead {
    /// What must always be true.
    pub(super) fn check_invariants(&self, line: &Line, streams: &Streams) -> bool {
        line.release.framing == Framing::Session
            && match self.progress {
                Progress::Work | Progress::Ready(_) => streams.reads(self.session),
                Progress::Disk(_) => streams.reads(self.session) && line.awaits_disk(),
                Progress::Cancelled(_) => line.awaits_disk(),
            }
    }
}

impl Granted {
    /// After a block of the file of that number has been answered, the next one may be prepared.
    pub(super) fn expect_next(&mut self, line: &Line, session: u64) {
        if line.release.framing == Framing::Session && self.ahead.is_none() && self.streams.reads(session) {
            self.ahead = Some(Ahead { session, progress: Progress::Work });
        }
    }

    /// Whether a slice of work for the next block is due: what was asked for comes first, and the block
    /// before has to be on its way.
    pub(super) fn can_prepare(&self, line: &Line) -> bool {
        matches!(self.ahead, Some(Ahead { progress: Progress::Work, .. }))
            && self.stage == Stage::Ready
            && self.running.is_none()
            && line.output.is_empty()
    }

    /// Does one slice of work for the next block.
    pub(super) fn prepare(&mut self, line: &mut Line) {
        if self.can_prepare(line)
            && let Some(Ahead { session, .. }) = self.ahead.take()
        {
            let step = self.streams.get(session).and_then(Stream::next_block);
            self.take_next(line, session, step);
        }
    }

    /// Takes the completion of an operation that was for the next block, and gives any other back.
    pub(super) fn complete_next(
        &mut self,
        line: &mut Line,
        operation: u64,
        completion: Completion,
    ) -> Option<Completion> {
        match self.take_ahead_of(operation) {
            None => return Some(completion),
            Some(Ahead { session, progress: Progress::Disk(_) }) => {
                let step = self.streams.get(session).and_then(|stream| stream.resume(completion));
                self.take_next(line, session, step);
            }
            Some(_) => give_back(line, completion),
        }
        None
    }

    /// As [`Granted::complete_next`], of a session that closes.
    pub(super) fn drop_next(&mut self, line: &Line, operation: u64, completion: Completion) -> Option<Completion> {
        if self.take_ahead_of(operation).is_none() {
            return Some(completion);
        }
        give_back(line, completion);
        None
    }

    fn take_ahead_of(&mut self, operation: u64) -> Option<Ahead> {
        self.ahead.take_if(|ahead| {
            matches!(ahead.progress, Progress::Disk(awaited) | Progress::Cancelled(awaited) if awaited == operation)
        })
    }

    fn take_next(&mut self, line: &mut Line, session: u64, step: Result<Step>) {
        let progress = match step {
            Ok(Step::Disk(operation)) => Progress::Disk(line.submit(operation)),
            Ok(Step::Work | Step::Part(_) | Step::Wait | Step::Ready) => Progress::Work,
            Ok(Step::Done(answer)) => Progress::Ready(Ok(answer)),
            Err(error) => Progress::Ready(Err(error)),
        };
        self.ahead = Some(Ahead { session, progress });
    }

    /// What is known already of the block that `envelope` asks for.
    pub(super) fn take_prepared(&mut self, envelope: Envelope) -> Prepared {
        match self.ahead.take_if(|ahead| ahead.session == envelope.session) {
            Some(Ahead { progress: Progress::Ready(answer), .. }) => Prepared::Answer(answer),
            Some(Ahead { progress: Progress::Disk(_), .. }) => Prepared::UnderWay,
            Some(cancelled @ Ahead { progress: Progress::Cancelled(_), .. }) => {
                self.ahead = Some(cancelled);
                Prepared::Nothing
            }
            Some(Ahead { progress: Progress::Work, .. }) | None => Prepared::Nothing,
        }
    }

    /// The file of that number is closed: its next block is not wanted.
    pub(super) fn cancel_next(&mut self, line: &Line, session: u64) {
        let Some(Ahead { progress, .. }) = self.ahead.take_if(|ahead| ahead.session == session) else { return };
        match progress {
            Progress::Disk(operation) | Progress::Cancelled(operation) => {
                self.ahead = Some(Ahead { session, progress: Progress::Cancelled(operation) });
            }
            Progress::Ready(Ok(Answer { payload: Some(payload), .. })) => line.give_buffer(payload.into_buffer()),
            Progress::Work | Progress::Ready(_) => {}
        }
    }
}

/// Keeps the buffer of a read that nobody wants any more.
fn give_back(line: &Line, completion: Completion) {
    if let Ok(Outcome::Read(buffer)) = completion {
        line.give_buffer(buffer);
    }
}
