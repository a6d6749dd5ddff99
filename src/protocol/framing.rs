//! Where requests begin and end in the stream of a client, since 2.54 (specification, section 3.3).
//!
//! Messages carry no length, so they are found by decoding. Most are small and are collected whole;
//! the blocks of a write are handed on as they arrive, because they may be 16 MiB each.

use super::error::{Error, Result};
use super::pack::{Field, Incomplete, Type, decode_field};
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
    /// Writes a file.
    pub const WRITE: StringId = StringId::new("s-wr");
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
    pub const fn new(limit: usize) -> Self {
        Self { phase: Phase::Message, partial: Vec::new(), limit }
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
        Ok(match decode_head(&self.partial)? {
            Some(Head { length, parameters: Some(size), envelope }) if !is_block(envelope) => {
                length.saturating_add(usize::try_from(size).unwrap_or(usize::MAX)).saturating_add(1)
            }
            _ => self.partial.len() + 1,
        })
    }

    /// Decodes the request at the start of `bytes` and returns how many bytes it took.
    fn decode(&mut self, bytes: &[u8]) -> Result<Option<(Piece<'static>, usize)>> {
        let Some(head) = decode_head(bytes)? else {
            if bytes.len() > HEAD_MAXIMUM {
                return Err(Error::format("expected request message"));
            }
            return Ok(None);
        };
        let Some(size) = head.parameters else {
            return Ok(Some((Piece::Request(head.envelope, Vec::new()), head.length)));
        };
        if is_block(head.envelope) {
            return self.block(&head, size, bytes);
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

    fn block(&mut self, head: &Head, size: u64, bytes: &[u8]) -> Result<Option<(Piece<'static>, usize)>> {
        let wrong = || Error::format("data of a write is not a single block");
        let (field, length) = match decode_field(&bytes[head.length..]) {
            Ok((Some(field), length)) => (field, length),
            Ok((None, _)) => return Err(wrong()),
            Err(Incomplete::NeedMore) => return Ok(None),
            Err(Incomplete::Invalid(error)) => return Err(error),
        };
        // The pack holds the field's head, the bytes and a zero byte, and nothing else.
        let matches = matches!(field, Field { kind: Type::Bin, skipped: 0, .. })
            && field.value <= BLOCK_MAXIMUM
            && size == field.value + length as u64 + 1;
        if !matches {
            return Err(wrong());
        }
        self.phase = Phase::Block(field.value);
        Ok(Some((Piece::BlockStart(head.envelope, field.value), head.length + length)))
    }
}

/// Whether a request with parameters carries a block that is not collected.
fn is_block(envelope: Envelope) -> bool {
    envelope.command == name::WRITE && envelope.kind == name::PROCESS
}

/// Decodes the fields before the parameters; `None` when more bytes are needed.
fn decode_head(bytes: &[u8]) -> Result<Option<Head>> {
    let mut envelope = Envelope { command: StringId(0), kind: StringId(0), session: 0, open: false };
    let (mut at, mut id) = (0, 0);
    loop {
        let (field, length) = match decode_field(&bytes[at..]) {
            Ok(decoded) => decoded,
            Err(Incomplete::NeedMore) => return Ok(None),
            Err(Incomplete::Invalid(error)) => return Err(error),
        };
        at += length;
        let Some(field) = field else {
            if envelope.command == StringId(0) {
                return Err(Error::format("expected request message"));
            }
            return Ok(Some(Head { envelope, length: at, parameters: None }));
        };
        id += 1 + field.skipped;
        match (id, field.kind) {
            (1, Type::U32) if field.value == 1 => {}
            (2, Type::StringId) => envelope.command = StringId(field.value),
            (3, Type::StringId) => envelope.kind = StringId(field.value),
            (4, Type::U64) => envelope.session = field.value,
            (5, Type::Bool) => envelope.open = field.value == 1,
            (6, Type::Pack) => return Ok(Some(Head { envelope, length: at, parameters: Some(field.value) })),
            _ => return Err(Error::format("expected request message")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::pack::Writer;

    fn request(command: &str, kind: &str, session: u64, parameters: Option<&[u8]>) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u32(1).string_id(StringId::new(command)).string_id(StringId::new(kind)).u64(session).bool(true);
        if let Some(parameters) = parameters {
            writer.pack_bytes(parameters);
        }
        writer.finish()
    }

    fn block(data: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.bin(data);
        request("s-wr", "prc", 3, Some(&writer.finish()))
    }

    /// What a stream says when it arrives in pieces of `step` bytes.
    fn cut(stream: &[u8], step: usize) -> Result<Vec<String>> {
        let mut framer = Framer::new(100);
        let mut seen = Vec::new();
        let mut data = Vec::new();
        for mut input in stream.chunks(step) {
            while let Some(piece) = framer.next(&mut input)? {
                match piece {
                    Piece::Request(envelope, parameters) => {
                        seen.push(format!("{} {} {parameters:?}", envelope.command, envelope.session));
                    }
                    Piece::BlockStart(_, length) => seen.push(format!("block of {length}")),
                    Piece::Block(bytes) => data.extend_from_slice(bytes),
                    Piece::BlockEnd => seen.push(format!("{:?}", std::mem::take(&mut data))),
                }
            }
            assert!(input.is_empty());
        }
        assert!(framer.is_idle());
        Ok(seen)
    }

    #[test]
    fn requests_and_blocks_are_found_however_the_stream_is_cut() {
        let mut stream = request("noop", "prc", 1, None);
        stream.extend(request("s-f", "prc", 2, Some(&[0])));
        stream.extend(block(b"abc"));
        stream.extend(block(b""));
        stream.extend(block(&[7; 300]));
        stream.extend(request("s-wr", "cls", 3, None));
        let whole = cut(&stream, stream.len()).unwrap();
        assert_eq!(whole.len(), 9);
        assert_eq!(whole[0], "noop 1 []");
        assert_eq!(whole[1], "s-f 2 [0]");
        assert_eq!(whole[3], "[97, 98, 99]");
        for step in 1..stream.len() {
            assert_eq!(cut(&stream, step).unwrap(), whole, "in steps of {step}");
        }
    }

    #[test]
    fn a_request_that_is_too_large_is_refused_before_it_is_collected() {
        let mut head = Writer::new();
        head.u32(1).string_id(StringId::new("s-f")).string_id(StringId::new("prc")).u64(1).bool(true);
        head.pack_head(1 << 40);
        let mut framer = Framer::new(100);
        let error = framer.next(&mut head.into_fields().as_slice()).unwrap_err();
        assert_eq!(error.message, "parameters of request 's-f' are larger than 100 bytes");
    }

    #[test]
    fn a_block_whose_lengths_disagree_is_refused() {
        for (pack, bin) in [(u64::MAX, 5), (9, u64::MAX), (9, 8), (1 << 40, (1 << 40) - 20)] {
            let mut head = Writer::new();
            head.u32(1).string_id(name::WRITE).string_id(name::PROCESS).u64(1).bool(true);
            head.pack_head(usize::try_from(pack).unwrap()).null();
            let mut bytes = head.into_fields();
            let mut field = Writer::new();
            field.bin_head(usize::try_from(bin).unwrap());
            bytes.extend(field.into_fields());
            let error = Framer::new(100).next(&mut bytes.as_slice()).unwrap_err();
            assert_eq!(error.message, "data of a write is not a single block");
        }
    }

    #[test]
    fn plain_http_is_no_request() {
        assert!(Framer::new(100).next(&mut &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_cut_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), step in 1usize..40) {
            let mut framer = Framer::new(64);
            'stream: for mut input in bytes.chunks(step) {
                loop {
                    match framer.next(&mut input) {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => break 'stream,
                    }
                }
                prop_assert!(framer.partial.len() <= 64 + HEAD_MAXIMUM + 1);
            }
        }
    }
}
