//! Where requests begin and end in the stream of a client.
//!
//! Messages carry no length, so they are found by decoding. Most are small and are collected whole;
//! the blocks of a write are handed on as they arrive, because they may be 16 MiB each. What differs
//! between the two framings, the heads of messages, is in the files beside this one.

mod classic;
mod session;

use super::error::{Error, Result};
use super::pack::{Field, Type, decode_field};
use super::string_id::StringId;

/// Commands, request types and names, as numbers (specification, section 2.3).
pub mod name {
    use super::StringId;

    /// Begins a session.
    pub const OPEN: StringId = StringId::new("opn");
    /// A simple request, or the next step of a session.
    pub const PROCESS: StringId = StringId::new("prc");
    /// Completes a session.
    pub const CLOSE: StringId = StringId::new("cls");
    /// Drops a session.
    pub const CANCEL: StringId = StringId::new("cnc");
    /// Reads a file.
    pub const READ: StringId = StringId::new("s-rd");
    /// Writes a file.
    pub const WRITE: StringId = StringId::new("s-wr");
    /// Reads a file, up to 2.53.1.
    pub const CLASSIC_READ: StringId = StringId::new("s-or");
    /// Writes a file, up to 2.53.1.
    pub const CLASSIC_WRITE: StringId = StringId::new("s-ow");
}

/// How messages are put on the wire, and with them the order of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Up to 2.53.1: one command at a time, answered with any number of data messages and an end. A
    /// file comes and goes as a stream of them. What is known before the client speaks is said
    /// before it speaks: that its certificate is not granted anything, or the answer to its ping.
    Classic,
    /// Since 2.54: numbered requests with one answer each; a file is a session of requests.
    Session,
}

impl Framing {
    /// The command that reads a file.
    #[must_use]
    pub const fn read(self) -> StringId {
        match self {
            Self::Classic => name::CLASSIC_READ,
            Self::Session => name::READ,
        }
    }

    /// The command that writes a file.
    #[must_use]
    pub const fn write(self) -> StringId {
        match self {
            Self::Classic => name::CLASSIC_WRITE,
            Self::Session => name::WRITE,
        }
    }

    /// Whether a request with parameters carries a block that is not collected.
    fn is_block(self, envelope: Envelope) -> bool {
        envelope.command == self.write() && envelope.kind == name::PROCESS
    }

    fn decode_head(self, bytes: &[u8]) -> Result<Option<Head>> {
        match self {
            Self::Classic => classic::decode_head(bytes),
            Self::Session => session::decode_head(bytes),
        }
    }
}

/// What every request carries beside its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// What is asked.
    pub command: StringId,
    /// Open, process, close or cancel.
    pub kind: StringId,
    /// The client's number for the request or session; 0 when it sent none.
    pub session: u64,
    /// Whether the client thinks that the session is open.
    pub open: bool,
}

impl Envelope {
    /// The number of every session of the classic framing, which has one at a time.
    pub const CLASSIC: u64 = 0;

    /// Whether it is about a file that is written.
    #[must_use]
    pub fn is_write(self) -> bool {
        matches!(self.command, name::WRITE | name::CLASSIC_WRITE)
    }

    /// Whether it begins to write a file.
    #[must_use]
    pub fn opens_write(self) -> bool {
        self.is_write() && self.kind == name::OPEN
    }
}

/// What the stream holds next.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A whole request with its parameters, a pack, or nothing where they are null.
    Request(Envelope, Vec<u8>),
    /// The start of a write's block of so many bytes.
    BlockStart(Envelope, u64),
    /// The next bytes of that block, never empty.
    Block(&'a [u8]),
    /// The end of that block.
    BlockEnd,
}

/// A head longer than this is no request: six fields of at most 22 bytes.
const HEAD_MAXIMUM: usize = 6 * 22;

/// A write's block is at most the largest buffer size; what is larger comes from no client.
const BLOCK_MAXIMUM: u64 = 16 << 20;

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Collecting a head or a small request.
    Message,
    /// So many bytes of a block are still to come.
    Block(u64),
    /// So many of the two zero bytes that end a block's message are still to come.
    Tail(u8),
}

/// Cuts a client's stream into [`Piece`]s.
#[derive(Debug)]
pub struct Framer {
    framing: Framing,
    phase: Phase,
    partial: Vec<u8>,
    limit: usize,
}

/// A head that has been decoded.
struct Head {
    envelope: Envelope,
    /// Bytes of the head, up to the parameters or to the end of the message.
    length: usize,
    /// Bytes of the parameters, if there are any.
    parameters: Option<u64>,
}

impl Framer {
    /// A framer that refuses requests with more than `limit` bytes of parameters.
    #[must_use]
    pub const fn new(framing: Framing, limit: usize) -> Self {
        Self { framing, phase: Phase::Message, partial: Vec::new(), limit }
    }

    /// Changes the limit for the requests to come.
    pub const fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Whether the stream stands between two requests.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Message) && self.partial.is_empty()
    }

    /// Bytes of a request that has not arrived completely.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.partial.capacity()
    }

    /// Takes back the last `count` bytes of the [`Piece::Block`] that was handed on last; the caller
    /// offers them again.
    pub const fn unread(&mut self, count: u64) {
        if let Phase::Block(left) = &mut self.phase {
            *left += count;
        }
    }

    /// The next piece, taking its bytes from the front of `input`; `None` when more are needed, and
    /// then `input` is empty.
    ///
    /// # Errors
    ///
    /// [`Code::Format`](super::error::Code::Format) for what is no request. The stream cannot be
    /// read on after that.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>> {
        match self.phase {
            Phase::Message => self.message(input),
            Phase::Block(0) => {
                self.phase = Phase::Tail(2);
                self.tail(input)
            }
            Phase::Block(left) => {
                if input.is_empty() {
                    return Ok(None);
                }
                let available = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                let (block, rest) = input.split_at(available);
                *input = rest;
                self.phase = Phase::Block(left - available as u64);
                Ok(Some(Piece::Block(block)))
            }
            Phase::Tail(_) => self.tail(input),
        }
    }

    fn tail<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>> {
        let Phase::Tail(mut left) = self.phase else { return Ok(None) };
        while left > 0 {
            let Some((byte, rest)) = input.split_first() else {
                self.phase = Phase::Tail(left);
                return Ok(None);
            };
            if *byte != 0 {
                return Err(Error::format("block is followed by an unexpected field"));
            }
            *input = rest;
            left -= 1;
        }
        self.phase = Phase::Message;
        Ok(Some(Piece::BlockEnd))
    }

    fn message<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>> {
        if self.partial.is_empty() {
            // The usual case: the whole request is in this record and nothing has to be collected.
            if let Some((piece, length)) = self.decode(input)? {
                *input = &input[length..];
                return Ok(Some(piece));
            }
            self.partial.extend_from_slice(input);
            *input = &[];
            return Ok(None);
        }
        // Only as much as can belong to this request is collected, so that what follows stays in
        // `input` and the buffer stays small.
        while !input.is_empty() {
            let before = self.partial.len();
            let wanted = self.wanted()?.saturating_sub(before).clamp(1, input.len());
            self.partial.extend_from_slice(&input[..wanted]);
            let partial = std::mem::take(&mut self.partial);
            let decoded = self.decode(&partial);
            self.partial = partial;
            if let Some((piece, length)) = decoded? {
                // A head is collected byte by byte at its end, so a request never takes too much.
                *input = &input[length.saturating_sub(before).min(input.len())..];
                self.partial.clear();
                self.partial.shrink_to(HEAD_MAXIMUM);
                return Ok(Some(piece));
            }
            *input = &input[wanted..];
        }
        Ok(None)
    }

    /// How many bytes the request in `partial` has for certain.
    fn wanted(&self) -> Result<usize> {
        Ok(match self.framing.decode_head(&self.partial)? {
            Some(Head { length, parameters: Some(size), envelope }) if !self.framing.is_block(envelope) => {
                length.saturating_add(usize::try_from(size).unwrap_or(usize::MAX)).saturating_add(1)
            }
            _ => self.partial.len() + 1,
        })
    }

    /// Decodes the request at the start of `bytes` and returns how many bytes it took.
    fn decode(&mut self, bytes: &[u8]) -> Result<Option<(Piece<'static>, usize)>> {
        let Some(mut head) = self.framing.decode_head(bytes)? else {
            if bytes.len() > HEAD_MAXIMUM {
                return Err(Error::format("expected request message"));
            }
            return Ok(None);
        };
        let Some(size) = head.parameters else {
            return Ok(Some((Piece::Request(head.envelope, Vec::new()), head.length)));
        };
        if self.framing.is_block(head.envelope) {
            let Some((field, length)) = decode_field(&bytes[head.length..])? else { return Ok(None) };
            let is_data = field.is_some_and(|field| field.kind == Type::Bin && field.skipped == 0);
            if is_data || self.framing == Framing::Session {
                return self.block(&head, field, length, size);
            }
            // Up to 2.53.1 a client drops a write by data that is none: in practice an empty pack.
            if size > HEAD_MAXIMUM as u64 {
                return Err(Error::format("data of a write is not a single block"));
            }
            head.envelope.kind = name::CANCEL;
        }
        let size = usize::try_from(size).ok().filter(|size| *size <= self.limit);
        let size = size.ok_or_else(|| {
            Error::format(format!(
                "parameters of request '{}' are larger than {} bytes",
                head.envelope.command, self.limit
            ))
        })?;
        let end = head.length + size;
        match bytes.get(end) {
            None => Ok(None),
            Some(0) => {
                let parameters = bytes[head.length..end].to_vec();
                Ok(Some((Piece::Request(head.envelope, parameters), end + 1)))
            }
            Some(_) => Err(Error::format("request has an unexpected field")),
        }
    }

    fn block(
        &mut self,
        head: &Head,
        field: Option<Field>,
        length: usize,
        size: u64,
    ) -> Result<Option<(Piece<'static>, usize)>> {
        // The pack holds the field's head, the bytes and a zero byte, and nothing else.
        let fits = |field: &Field| {
            matches!(field, Field { kind: Type::Bin, skipped: 0, .. })
                && field.value <= BLOCK_MAXIMUM
                && size == field.value + length as u64 + 1
        };
        let field = field.filter(fits).ok_or_else(|| Error::format("data of a write is not a single block"))?;
        self.phase = Phase::Block(field.value);
        Ok(Some((Piece::BlockStart(head.envelope, field.value), head.length + length)))
    }
}

#[cfg(test)]
mod tests;
