//! A file that comes as a stream of data messages, which is how clients up to 2.53.1 send theirs.
//!
//! The first answer lets the client send. From then on only data may come, which is not
//! acknowledged, until null data ends it. What went wrong is said at once, but the client looks only
//! at the end; until then what it sends is swallowed.

use crate::protocol::error::Error;
use crate::protocol::framing::{Envelope, Framing, Piece, name};
use crate::protocol::release::Release;
use crate::protocol::request::Request;
use crate::protocol::response::classic;
use crate::repository::Answer;

use super::ending::Flow;
use super::granted::{Active, Block, Granted};
use super::line::Line;
use super::streams::Stream;

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

/// Why `piece` may not come now, if it may not.
pub(super) fn find_misplaced(release: &Release, is_uploading: bool, piece: &Piece<'_>) -> Option<Error> {
    let (Piece::Request(envelope, _) | Piece::BlockStart(envelope, _)) = piece else { return None };
    if release.framing == Framing::Session {
        return None;
    }
    let is_data = envelope.is_write() && envelope.kind != name::OPEN;
    match (is_data, is_uploading) {
        (true, false) => Some(Error::format("expected command message")),
        (false, true) => Some(Error::format("expected data message")),
        _ => None,
    }
}

impl Granted {
    /// The file is open: lets the client send.
    pub(super) fn begin_upload(&mut self, line: &mut Line) {
        self.upload = Some(Upload::Writing);
        line.output.push(classic::ready());
    }

    /// Takes the end of the data or the wish to drop it; whether that is a request to the file.
    pub(super) fn takes_data_request(&mut self, line: &mut Line, envelope: Envelope, request: &Request) -> Flow<bool> {
        match (self.upload, request) {
            (Some(Upload::Writing), Request::Close) => {
                self.upload = None;
                return Ok(true);
            }
            (Some(Upload::Writing), _) => {
                self.upload = Some(Upload::Dropped);
                self.discard(line, envelope)?;
            }
            (Some(Upload::Dropped), Request::Close) => {
                self.upload = None;
                self.answer(line, envelope, Answer::null())?;
            }
            (Some(Upload::Failed), Request::Close) => {
                self.upload = None;
                self.finish_request(line)?;
            }
            _ => {}
        }
        Ok(false)
    }

    /// Drops the file of a request that failed, or that the client gave up.
    pub(super) fn discard(&mut self, line: &mut Line, envelope: Envelope) -> Flow {
        if self.upload == Some(Upload::Writing) {
            self.upload = Some(Upload::Failed);
        }
        if self.block.is_some() {
            self.block = Some(Block::Swallowed);
        }
        match self.streams.find(envelope.session).and_then(Stream::discard) {
            Some(operation) => {
                self.submit(line, envelope, Active::Discard, operation);
                Ok(())
            }
            None => self.end_discard(line, envelope),
        }
    }

    pub(super) fn end_discard(&mut self, line: &mut Line, envelope: Envelope) -> Flow {
        self.drop_stream(line, envelope.session);
        self.finish_request(line)
    }
}
