//! A file that comes as a stream of data messages, which is how clients up to 2.53.1 send theirs.
//!
//! The first answer lets the client send. From then on only data may come, which is not
//! acknowledged, until null data ends it. What went wrong is said at once, but the client looks only
//! at the end; until then what it sends is swallowed.

use crate::disk::Operation;
use crate::protocol::error::Error;
use crate::protocol::framing::{Envelope, Framing, Piece, name};
use crate::protocol::request::Request;
use crate::protocol::response::classic;
use crate::repository::Answer;

use super::conversation::{Active, Block, Phase, Session, Stream};

/// What becomes of the data that comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upload {
    /// It is written.
    Writing,
    /// It is swallowed: the client was told of an error.
    Failed,
    /// It is swallowed: the client does not want the file any more.
    Dropped,
}

impl Session {
    /// Why `piece` may not come now, if it may not.
    pub(super) fn find_misplaced(&self, piece: &Piece<'_>) -> Option<Error> {
        let (Piece::Request(envelope, _) | Piece::BlockStart(envelope, _)) = piece else { return None };
        if self.release.framing == Framing::Session {
            return None;
        }
        let is_data = envelope.is_write() && envelope.kind != name::OPEN;
        match (is_data, self.upload.is_some()) {
            (true, false) => Some(Error::format("expected command message")),
            (false, true) => Some(Error::format("expected data message")),
            _ => None,
        }
    }

    /// The file is open: lets the client send.
    pub(super) fn begin_upload(&mut self) {
        self.upload = Some(Upload::Writing);
        self.output.push(classic::ready());
    }

    /// Takes the end of the data or the wish to drop it; whether that is a request to the file.
    pub(super) fn takes_data_request(&mut self, envelope: Envelope, request: &Request) -> bool {
        match (self.upload, request) {
            (Some(Upload::Writing), Request::Close) => {
                self.upload = None;
                return true;
            }
            (Some(Upload::Writing), _) => {
                self.upload = Some(Upload::Dropped);
                self.discard(envelope);
            }
            (Some(Upload::Dropped), Request::Close) => {
                self.upload = None;
                self.answer(envelope, Answer::null());
            }
            (Some(Upload::Failed), Request::Close) => {
                self.upload = None;
                self.finish_request();
            }
            _ => {}
        }
        false
    }

    /// Drops the file of a request that failed, or that the client gave up.
    pub(super) fn discard(&mut self, envelope: Envelope) {
        if self.upload == Some(Upload::Writing) {
            self.upload = Some(Upload::Failed);
        }
        if self.block.is_some() {
            self.block = Some(Block::Swallowed);
        }
        let removal = self.with_stream(envelope.session, |stream| {
            Ok(match stream {
                Stream::Write(write) => write.discard(),
                Stream::Read(_) => None,
            })
        });
        match removal {
            Ok(Some(operation)) => self.begin_discard(envelope, operation),
            _ => self.end_discard(envelope),
        }
    }

    fn begin_discard(&mut self, envelope: Envelope, operation: Operation) {
        self.submit(operation);
        self.active = Some((envelope, Active::Discard));
    }

    pub(super) fn end_discard(&mut self, envelope: Envelope) {
        self.drop_stream(envelope.session);
        debug_assert!(self.phase == Phase::Closing || self.active.is_none(), "nothing else is under way");
        self.finish_request();
    }
}
