//! Reading the fields of a pack.

use super::super::error::{Error, Result};
use super::super::string_id::StringId;
use super::{Field, MAXIMUM_DEPTH, Type, decode_field};

/// Elements of an array, of which the longest that a client sends is its command line. Null ones take no bytes, so the
/// length of a pack does not bound them.
const ELEMENTS_MAXIMUM: usize = 1 << 16;

/// Reads the fields of one pack (or of one container in it) in order.
///
/// Each `read_*` takes the next id. It returns `None` when that field is null, which it also is
/// when the pack has ended. Fields between are skipped over, so that a reader that does not know
/// them stays in step.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Id that was asked for last.
    id: u64,
    /// Id of the field that was consumed last; null fields are asked for but absent.
    present: u64,
    /// Id of the field whose head is at `at`, once decoded.
    pending: Option<(u64, Field, usize)>,
    ended: bool,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// A reader of the pack in `bytes`, final zero byte included. No bytes at all are an empty pack.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, id: 0, present: 0, pending: None, ended: bytes.is_empty(), depth: 0 }
    }

    /// Id and type of the next field that is present, if there is one.
    ///
    /// # Errors
    ///
    /// [`Code::Format`](super::error::Code::Format) when the bytes are no pack.
    pub fn peek(&mut self) -> Result<Option<(u64, Type)>> {
        Ok(self.head()?.map(|(id, field, _)| (id, field.kind)))
    }

    /// Leaves out the next id, whatever it holds.
    ///
    /// # Errors
    ///
    /// [`Code::Format`](super::error::Code::Format) when the bytes are no pack.
    pub fn skip(&mut self) -> Result<()> {
        self.id += 1;
        while let Some((id, field, head)) = self.head()? {
            if id > self.id {
                break;
            }
            self.skip_field(field, head)?;
        }
        Ok(())
    }

    /// The next field as a bool; null is false.
    ///
    /// # Errors
    ///
    /// [`Code::Format`](super::error::Code::Format) for another type or no pack; likewise all that follow.
    pub fn read_bool(&mut self) -> Result<bool> {
        Ok(self.scalar(Type::Bool)?.unwrap_or(0) == 1)
    }

    /// The next field as a `u32`; null is 0.
    ///
    /// # Errors
    ///
    /// As [`Reader::read_bool`].
    pub fn read_u32(&mut self) -> Result<u32> {
        narrow(self.scalar(Type::U32)?.unwrap_or(0))
    }

    /// The next field as a `u64`, or null.
    ///
    /// # Errors
    ///
    /// As [`Reader::read_bool`].
    pub fn read_u64(&mut self) -> Result<Option<u64>> {
        self.scalar(Type::U64)
    }

    /// The next field as an `i32`; null is 0.
    ///
    /// # Errors
    ///
    /// As [`Reader::read_bool`].
    pub fn read_i32(&mut self) -> Result<i32> {
        let value = narrow(self.scalar(Type::I32)?.unwrap_or(0))?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// The next field as seconds since 1970; null is 0.
    ///
    /// # Errors
    ///
    /// As [`Reader::read_bool`].
    pub fn read_time(&mut self) -> Result<i64> {
        Ok(unzigzag(self.scalar(Type::Time)?.unwrap_or(0)))
    }

    /// The next field as permission bits, or null.
    ///
    /// # Errors
    ///
    /// As [`Reader::read_bool`].
    pub fn read_mode(&mut self) -> Result<Option<u32>> {
        self.scalar(Type::Mode)?.map(narrow).transpose()
    }

    /// The next field as a string id, or null.
    ///
    /// # Errors
    ///
    /// As [`Reader::read_bool`].
    pub fn read_string_id(&mut self) -> Result<Option<StringId>> {
        Ok(self.scalar(Type::StringId)?.map(StringId))
    }

    /// The next field as text, or null.
    ///
    /// # Errors
    ///
    /// As [`Reader::read_bool`]; also for text that holds a NUL or is not UTF-8.
    pub fn read_str(&mut self) -> Result<Option<&'a str>> {
        let Some(bytes) = self.read_text()? else { return Ok(None) };
        let text = std::str::from_utf8(bytes).map_err(|_| Error::format("string is not valid UTF-8"))?;
        Ok(Some(text))
    }

    /// The next field as text in any encoding, such as the path of a file, or null.
    ///
    /// # Errors
    ///
    /// As [`Reader::read_bool`]; also for text that holds a NUL.
    pub fn read_text(&mut self) -> Result<Option<&'a [u8]>> {
        let bytes = self.data(Type::Str)?;
        if bytes.is_some_and(|bytes| bytes.contains(&0)) {
            return Err(Error::format("string contains a null character"));
        }
        Ok(bytes)
    }

    /// The next field as bytes, or null.
    ///
    /// # Errors
    ///
    /// As [`Reader::read_bool`].
    pub fn read_bin(&mut self) -> Result<Option<&'a [u8]>> {
        self.data(Type::Bin)
    }

    /// The next field as a nested pack, or null.
    ///
    /// # Errors
    ///
    /// As [`Reader::read_bool`]; also when it is nested too deeply.
    pub fn read_pack(&mut self) -> Result<Option<Reader<'a>>> {
        let depth = self.deeper()?;
        Ok(self.data(Type::Pack)?.map(|bytes| Reader { depth, ..Reader::new(bytes) }))
    }

    /// The next field as an array, whose elements `element` reads one by one, or null.
    ///
    /// # Errors
    ///
    /// As [`Reader::read_bool`]; also what `element` fails with, and for more than 65,536 elements.
    pub fn read_array<T>(&mut self, mut element: impl FnMut(&mut Reader<'a>) -> Result<T>) -> Result<Option<Vec<T>>> {
        let depth = self.deeper()?;
        let Some((_, head)) = self.take(Type::Array)? else { return Ok(None) };
        let mut inner = Reader { depth, ..Reader::new(&self.bytes[self.at + head..]) };
        let mut elements = Vec::new();
        while inner.peek()?.is_some() {
            if elements.len() == ELEMENTS_MAXIMUM {
                return Err(Error::format(format!("array has more than {ELEMENTS_MAXIMUM} elements")));
            }
            elements.push(element(&mut inner)?);
        }
        self.at += head + inner.at;
        Ok(Some(elements))
    }

    #[cfg(test)]
    pub(super) const fn jump_before(&mut self, id: u64) {
        self.id = id - 1;
    }

    fn deeper(&self) -> Result<usize> {
        if self.depth >= MAXIMUM_DEPTH {
            return Err(Error::format("pack is nested too deeply"));
        }
        Ok(self.depth + 1)
    }

    fn head(&mut self) -> Result<Option<(u64, Field, usize)>> {
        if self.pending.is_none() && !self.ended {
            match decode_field(&self.bytes[self.at..])? {
                Some((Some(field), head)) => {
                    let id = self
                        .present
                        .checked_add(field.skipped)
                        .and_then(|id| id.checked_add(1))
                        .ok_or_else(|| Error::format("pack field id is out of range"))?;
                    self.pending = Some((id, field, head));
                }
                Some((None, head)) => {
                    self.at += head;
                    self.ended = true;
                }
                None => return Err(Error::format("unexpected end of pack")),
            }
        }
        Ok(self.pending)
    }

    fn take(&mut self, expected: Type) -> Result<Option<(Field, usize)>> {
        self.id += 1;
        let Some((id, field, head)) = self.head()? else { return Ok(None) };
        if id > self.id {
            return Ok(None);
        }
        if field.kind != expected {
            return Err(Error::format(format!(
                "field {id} is type '{}' but expected '{}'",
                field.kind.name(),
                expected.name()
            )));
        }
        self.present = id;
        self.pending = None;
        Ok(Some((field, head)))
    }

    fn scalar(&mut self, expected: Type) -> Result<Option<u64>> {
        Ok(self.take(expected)?.map(|(field, head)| {
            self.at += head;
            field.value
        }))
    }

    fn data(&mut self, expected: Type) -> Result<Option<&'a [u8]>> {
        let Some((field, head)) = self.take(expected)? else { return Ok(None) };
        self.at += head;
        self.bytes(field.value).map(Some)
    }

    /// The next so many bytes.
    fn bytes(&mut self, length: u64) -> Result<&'a [u8]> {
        let length = usize::try_from(length).ok().filter(|length| *length <= self.bytes.len() - self.at);
        let length = length.ok_or_else(|| Error::format("unexpected end of pack"))?;
        let bytes = &self.bytes[self.at..self.at + length];
        self.at += length;
        Ok(bytes)
    }

    fn skip_field(&mut self, field: Field, head: usize) -> Result<()> {
        if let Some((id, ..)) = self.pending.take() {
            self.present = id;
        }
        self.at += head;
        match field.kind {
            Type::Str | Type::Bin | Type::Pack => _ = self.bytes(field.value)?,
            Type::Array | Type::Object => {
                let depth = self.deeper()?;
                let mut inner = Reader { depth, ..Reader::new(&self.bytes[self.at..]) };
                while let Some((_, field, head)) = inner.head()? {
                    inner.skip_field(field, head)?;
                }
                self.at += inner.at;
            }
            _ => {}
        }
        Ok(())
    }
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

fn narrow(value: u64) -> Result<u32> {
    u32::try_from(value).map_err(|_| Error::format("pack field value is out of range"))
}
