//! Packs: pgBackRest's self-describing binary fields.
//!
//! A pack is a run of fields with rising ids that ends in a zero byte; a field that is null or has
//! its default value is left out. Source: specification, section 2.2. [`Reader`] reads one whole
//! pack from memory and never trusts a length; [`Writer`] makes one.

use super::error::{Error, Result};
use super::string_id::StringId;

/// Nesting that real messages stay far below; deeper ones are refused.
const MAXIMUM_DEPTH: usize = 8;

/// A varint takes at most ten bytes.
const VARINT_MAXIMUM: usize = 10;

/// The types that a field can have, with their numbers on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the specification's")]
#[repr(u8)]
pub enum Type {
    Array = 1,
    Bool = 2,
    I32 = 3,
    I64 = 4,
    Object = 5,
    Str = 7,
    U32 = 8,
    U64 = 9,
    StringId = 10,
    Time = 15,
    Bin = 16,
    Pack = 17,
    Mode = 18,
}

impl Type {
    const fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::Array,
            2 => Self::Bool,
            3 => Self::I32,
            4 => Self::I64,
            5 => Self::Object,
            7 => Self::Str,
            8 => Self::U32,
            9 => Self::U64,
            10 => Self::StringId,
            15 => Self::Time,
            16 => Self::Bin,
            17 => Self::Pack,
            18 => Self::Mode,
            _ => return None,
        })
    }

    /// The name that error texts use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Array => "array",
            Self::Bool => "bool",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::Object => "obj",
            Self::Str => "str",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::StringId => "strid",
            Self::Time => "time",
            Self::Bin => "bin",
            Self::Pack => "pack",
            Self::Mode => "mode",
        }
    }

    const fn is_multi_bit(self) -> bool {
        matches!(self, Self::I32 | Self::I64 | Self::U32 | Self::U64 | Self::StringId | Self::Time | Self::Mode)
    }
}

/// The tag of a field and, for scalar types, its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The type of the field.
    pub kind: Type,
    /// How many ids were skipped before this field.
    pub skipped: u64,
    /// The number of a scalar, 1 or 0 for a bool, the length of a str, bin or pack.
    pub value: u64,
}

/// Why bytes could not be decoded as a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incomplete {
    /// More bytes are needed.
    NeedMore,
    /// No bytes could make this right.
    Invalid(Error),
}

impl From<Error> for Incomplete {
    fn from(error: Error) -> Self {
        Self::Invalid(error)
    }
}

/// Decodes the head of one field at the start of `bytes`: its tag, and its value or length.
///
/// Returns the field and how many bytes its head took, or `None` and one byte for the end of a
/// pack or container.
///
/// # Errors
///
/// [`Incomplete::NeedMore`] when `bytes` ends within the head, [`Incomplete::Invalid`] for an
/// unknown type or a number that does not fit.
pub fn decode_field(bytes: &[u8]) -> Result<(Option<Field>, usize), Incomplete> {
    let tag = *bytes.first().ok_or(Incomplete::NeedMore)?;
    if tag == 0 {
        return Ok((None, 1));
    }
    let mut at = 1;
    let mut number = u64::from(tag >> 4);
    if number == 15 {
        number = decode_varint(bytes, &mut at)?
            .checked_add(15)
            .ok_or_else(|| Error::format("pack field type is out of range"))?;
    }
    let kind = Type::from_number(number).ok_or_else(|| Error::format(format!("invalid pack field type {number}")))?;
    // How the low four bits are shared between the id's delta and the value depends on the class.
    let (delta_bits, more, inline) = if kind.is_multi_bit() {
        if tag & 0b1000 == 0 { (1, tag & 0b0010, Some(u64::from(tag >> 2 & 1))) } else { (2, tag & 0b0100, None) }
    } else if matches!(kind, Type::Bool | Type::Str | Type::Bin) {
        (2, tag & 0b0100, Some(u64::from(tag >> 3 & 1)))
    } else {
        (3, tag & 0b1000, Some(0))
    };
    let mut skipped = u64::from(tag) & ((1 << delta_bits) - 1);
    if more != 0 {
        let high = decode_varint(bytes, &mut at)?;
        if high > u64::from(u32::MAX) {
            return Err(Error::format("pack field id is out of range").into());
        }
        skipped |= high << delta_bits;
    }
    let value = match (kind, inline) {
        (Type::Str | Type::Bin, Some(1)) | (Type::Pack, _) | (_, None) => decode_varint(bytes, &mut at)?,
        (_, Some(value)) => value,
    };
    Ok((Some(Field { kind, skipped, value }), at))
}

fn decode_varint(bytes: &[u8], at: &mut usize) -> Result<u64, Incomplete> {
    let mut value = 0u64;
    for index in 0..VARINT_MAXIMUM {
        let byte = *bytes.get(*at).ok_or(Incomplete::NeedMore)?;
        *at += 1;
        let part = u64::from(byte & 0x7f);
        if index == VARINT_MAXIMUM - 1 && part > 1 {
            break;
        }
        value |= part << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Error::format("unterminated varint-128 integer").into())
}

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

    /// Whether the next id is null.
    ///
    /// # Errors
    ///
    /// [`Code::Format`](super::error::Code::Format) when the bytes are no pack.
    pub fn next_is_null(&mut self) -> Result<bool> {
        Ok(self.head()?.is_none_or(|(id, ..)| id > self.id + 1))
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

    /// The next field as an `i64`; null is 0.
    ///
    /// # Errors
    ///
    /// As [`Reader::read_bool`].
    pub fn read_i64(&mut self) -> Result<i64> {
        Ok(unzigzag(self.scalar(Type::I64)?.unwrap_or(0)))
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
        let Some(bytes) = self.data(Type::Str)? else { return Ok(None) };
        if bytes.contains(&0) {
            return Err(Error::format("string contains a null character"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Error::format("string is not valid UTF-8"))?;
        Ok(Some(text))
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
    /// As [`Reader::read_bool`]; also what `element` fails with.
    pub fn read_array<T>(&mut self, mut element: impl FnMut(&mut Reader<'a>) -> Result<T>) -> Result<Option<Vec<T>>> {
        let depth = self.deeper()?;
        let Some((_, head)) = self.take(Type::Array)? else { return Ok(None) };
        let mut inner = Reader { depth, ..Reader::new(&self.bytes[self.at + head..]) };
        let mut elements = Vec::new();
        while inner.peek()?.is_some() {
            elements.push(element(&mut inner)?);
        }
        self.at += head + inner.at;
        Ok(Some(elements))
    }

    fn deeper(&self) -> Result<usize> {
        if self.depth >= MAXIMUM_DEPTH {
            return Err(Error::format("pack is nested too deeply"));
        }
        Ok(self.depth + 1)
    }

    fn head(&mut self) -> Result<Option<(u64, Field, usize)>> {
        if self.pending.is_none() && !self.ended {
            match decode_field(&self.bytes[self.at..]) {
                Ok((Some(field), head)) => {
                    let id = self
                        .present
                        .checked_add(field.skipped)
                        .and_then(|id| id.checked_add(1))
                        .ok_or_else(|| Error::format("pack field id is out of range"))?;
                    self.pending = Some((id, field, head));
                }
                Ok((None, head)) => {
                    self.at += head;
                    self.ended = true;
                }
                Err(Incomplete::NeedMore) => return Err(Error::format("unexpected end of pack")),
                Err(Incomplete::Invalid(error)) => return Err(error),
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
        let length = usize::try_from(field.value).ok().filter(|length| *length <= self.bytes.len() - self.at);
        let length = length.ok_or_else(|| Error::format("unexpected end of pack"))?;
        let data = &self.bytes[self.at..self.at + length];
        self.at += length;
        Ok(Some(data))
    }

    fn skip_field(&mut self, field: Field, head: usize) -> Result<()> {
        if let Some((id, ..)) = self.pending.take() {
            self.present = id;
        }
        self.at += head;
        let length = match field.kind {
            Type::Str | Type::Bin | Type::Pack => field.value,
            Type::Array | Type::Object => {
                let depth = self.deeper()?;
                let mut inner = Reader { depth, ..Reader::new(&self.bytes[self.at..]) };
                while let Some((_, field, head)) = inner.head()? {
                    inner.skip_field(field, head)?;
                }
                self.at += inner.at;
                return Ok(());
            }
            _ => 0,
        };
        let length = usize::try_from(length).ok().filter(|length| *length <= self.bytes.len() - self.at);
        self.at += length.ok_or_else(|| Error::format("unexpected end of pack"))?;
        Ok(())
    }
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn narrow(value: u64) -> Result<u32> {
    u32::try_from(value).map_err(|_| Error::format("pack field value is out of range"))
}

/// Makes one pack, field by field.
///
/// Each method takes the next id. Scalars that equal their default are left out, as on the wire;
/// the `_forced` forms write them all the same.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    /// Id that the next field gets, less one.
    id: u64,
    /// Id of the field that was written last.
    present: u64,
}

impl Writer {
    /// An empty pack.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The finished pack, with its final zero byte.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }

    /// The fields so far, without the final zero byte.
    #[must_use]
    pub fn into_fields(self) -> Vec<u8> {
        self.bytes
    }

    /// How many bytes the fields so far take.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no field has been written yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Leaves the next id null.
    pub const fn null(&mut self) -> &mut Self {
        self.id += 1;
        self
    }

    /// A bool, left out when false.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        if value { self.bool_forced(value) } else { self.null() }
    }

    /// A bool, written also when false.
    pub fn bool_forced(&mut self, value: bool) -> &mut Self {
        self.single_bit(Type::Bool, value)
    }

    /// A `u32`, left out when it equals `default`.
    pub fn u32_default(&mut self, value: u32, default: u32) -> &mut Self {
        if value == default { self.null() } else { self.multi_bit(Type::U32, value.into()) }
    }

    /// A `u32`, left out when 0.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.u32_default(value, 0)
    }

    /// A `u32`, written also when 0.
    pub fn u32_forced(&mut self, value: u32) -> &mut Self {
        self.multi_bit(Type::U32, value.into())
    }

    /// A `u64`, left out when 0.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        if value == 0 { self.null() } else { self.multi_bit(Type::U64, value) }
    }

    /// An `i32`, left out when 0.
    pub fn i32(&mut self, value: i32) -> &mut Self {
        if value == 0 {
            return self.null();
        }
        let zigzag = ((value << 1) ^ (value >> 31)).cast_unsigned();
        self.multi_bit(Type::I32, zigzag.into())
    }

    /// An `i64`, left out when 0.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        if value == 0 { self.null() } else { self.multi_bit(Type::I64, zigzag(value)) }
    }

    /// Seconds since 1970, left out when 0.
    pub fn time(&mut self, value: i64) -> &mut Self {
        if value == 0 { self.null() } else { self.multi_bit(Type::Time, zigzag(value)) }
    }

    /// Permission bits, left out when they equal `default`.
    pub fn mode_default(&mut self, value: u32, default: u32) -> &mut Self {
        if value == default { self.null() } else { self.multi_bit(Type::Mode, value.into()) }
    }

    /// A string id.
    pub fn string_id(&mut self, value: StringId) -> &mut Self {
        self.multi_bit(Type::StringId, value.0)
    }

    /// Text, which is never left out; use [`Writer::null`] for none.
    pub fn str(&mut self, value: &str) -> &mut Self {
        self.data(Type::Str, value.as_bytes())
    }

    /// Bytes, which are never left out.
    pub fn bin(&mut self, value: &[u8]) -> &mut Self {
        self.data(Type::Bin, value)
    }

    /// The head of a bin field whose `length` bytes the caller sends itself, so that a block of a
    /// file is never copied into a message.
    pub fn bin_head(&mut self, length: usize) -> &mut Self {
        self.single_bit(Type::Bin, length > 0);
        if length > 0 {
            self.varint(length as u64);
        }
        self
    }

    /// A nested pack that `fill` writes.
    pub fn pack(&mut self, fill: impl FnOnce(&mut Writer)) -> &mut Self {
        let mut inner = Writer::new();
        fill(&mut inner);
        self.pack_bytes(&inner.finish())
    }

    /// A nested pack that is finished already.
    pub fn pack_bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.pack_head(bytes.len());
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// The head of a nested pack whose `length` bytes, final zero byte included, follow elsewhere.
    pub fn pack_head(&mut self, length: usize) -> &mut Self {
        self.container_tag(Type::Pack);
        self.varint(length as u64);
        self
    }

    /// An array whose elements `fill` writes.
    pub fn array(&mut self, fill: impl FnOnce(&mut Writer)) -> &mut Self {
        self.container(Type::Array, fill)
    }

    /// An object whose fields `fill` writes.
    pub fn object(&mut self, fill: impl FnOnce(&mut Writer)) -> &mut Self {
        self.container(Type::Object, fill)
    }

    fn container(&mut self, kind: Type, fill: impl FnOnce(&mut Writer)) -> &mut Self {
        self.container_tag(kind);
        let outer = (std::mem::take(&mut self.id), std::mem::take(&mut self.present));
        fill(self);
        self.bytes.push(0);
        (self.id, self.present) = outer;
        self
    }

    fn data(&mut self, kind: Type, value: &[u8]) -> &mut Self {
        self.single_bit(kind, !value.is_empty());
        if !value.is_empty() {
            self.varint(value.len() as u64);
            self.bytes.extend_from_slice(value);
        }
        self
    }

    /// Takes the next id and returns how many ids were skipped before it.
    const fn advance(&mut self) -> u64 {
        self.id += 1;
        let skipped = self.id - self.present - 1;
        self.present = self.id;
        skipped
    }

    fn tag(&mut self, kind: Type, low: u64) {
        let number = kind as u8;
        // `low` has four bits by construction of its callers.
        let low = (low & 0x0f) as u8;
        if number < 15 {
            self.bytes.push(number << 4 | low);
        } else {
            self.bytes.push(0xf0 | low);
            self.bytes.push(number - 15);
        }
    }

    fn multi_bit(&mut self, kind: Type, value: u64) -> &mut Self {
        let skipped = self.advance();
        if value < 2 {
            let more = u64::from(skipped >= 2);
            self.tag(kind, value << 2 | more << 1 | skipped & 1);
            if more == 1 {
                self.varint(skipped >> 1);
            }
        } else {
            let more = u64::from(skipped >= 4);
            self.tag(kind, 0b1000 | more << 2 | skipped & 3);
            if more == 1 {
                self.varint(skipped >> 2);
            }
            self.varint(value);
        }
        self
    }

    fn single_bit(&mut self, kind: Type, bit: bool) -> &mut Self {
        let skipped = self.advance();
        let more = u64::from(skipped >= 4);
        self.tag(kind, u64::from(bit) << 3 | more << 2 | skipped & 3);
        if more == 1 {
            self.varint(skipped >> 2);
        }
        self
    }

    fn container_tag(&mut self, kind: Type) {
        let skipped = self.advance();
        let more = u64::from(skipped >= 8);
        self.tag(kind, more << 3 | skipped & 7);
        if more == 1 {
            self.varint(skipped >> 3);
        }
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }

    #[test]
    fn examples_of_the_specification_are_written_and_read() {
        let mut noop = Writer::new();
        noop.u32(1).string_id(StringId::new("noop")).string_id(StringId::new("prc")).u64(1);
        assert_eq!(hex(&noop.finish()), "84a8e0bd8f04a880ca039400");

        let mut far = Writer::new();
        far.u64(1);
        (0..9).for_each(|_| {
            far.null();
        });
        far.u64(1);
        let far = far.finish();
        assert_eq!(hex(&far), "94970400");
        let mut reader = Reader::new(&far);
        assert_eq!(reader.read_u64().unwrap(), Some(1));
        (0..9).for_each(|_| assert_eq!(reader.read_u64().unwrap(), None));
        assert_eq!(reader.read_u64().unwrap(), Some(1));

        let mut negative = Writer::new();
        negative.i64(-16);
        assert_eq!(hex(&negative.finish()), "481f00");

        let mut text = Writer::new();
        text.u64(1);
        (0..36).for_each(|_| {
            text.null();
        });
        text.str("sample");
        assert_eq!(hex(&text.finish()), "947c090673616d706c6500");

        let mut array = Writer::new();
        array.u64(1);
        (0..8).for_each(|_| {
            array.null();
        });
        array.array(|_| {});
        assert_eq!(hex(&array.finish()), "9418010000");
    }

    #[test]
    fn a_length_near_the_largest_number_is_an_error() {
        let bytes = [0x78, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, b'a', 0];
        let error = Reader::new(&bytes).read_str().unwrap_err();
        assert_eq!(error.message, "unexpected end of pack");
    }

    #[test]
    fn arrays_nested_without_end_are_an_error_and_no_stack_overflow() {
        let bytes = vec![0x10; 1 << 20];
        let mut reader = Reader::new(&bytes);
        assert!(reader.skip().is_err());
        fn dive(reader: &mut Reader<'_>) -> Result<()> {
            reader.read_array(dive).map(|_| ())
        }
        assert_eq!(dive(&mut Reader::new(&bytes)).unwrap_err().message, "pack is nested too deeply");
    }

    #[test]
    fn a_wrong_type_is_named_with_its_field() {
        let error = Reader::new(&[0x94, 0]).read_str().unwrap_err();
        assert_eq!(error.message, "field 1 is type 'u64' but expected 'str'");
    }

    #[test]
    fn an_unknown_field_in_between_is_skipped() {
        let mut writer = Writer::new();
        writer.u64(7).array(|inner| {
            inner.str("ignored").object(|_| {});
        });
        writer.str("wanted");
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.read_u64().unwrap(), Some(7));
        reader.skip().unwrap();
        assert_eq!(reader.read_str().unwrap(), Some("wanted"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(&bytes);
            while let Ok(Some((id, kind))) = reader.peek() {
                // Ids may be far apart; asking for each of them would take forever.
                reader.id = id - 1;
                let outcome = match kind {
                    Type::Array => reader.read_array(|inner| inner.skip()).map(|_| ()),
                    Type::Str => reader.read_str().map(|_| ()),
                    Type::Pack => reader.read_pack().map(|_| ()),
                    Type::I32 => reader.read_i32().map(|_| ()),
                    _ => reader.skip(),
                };
                if outcome.is_err() {
                    break;
                }
            }
        }

        #[test]
        fn what_is_written_is_read(values in proptest::collection::vec((any::<Option<u64>>(), any::<i64>(), ".{0,20}"), 0..20)) {
            let mut writer = Writer::new();
            for (number, time, text) in &values {
                match number {
                    Some(number) => writer.u64(*number),
                    None => writer.null(),
                };
                writer.time(*time);
                let text = text.replace('\0', "");
                writer.str(&text);
            }
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            for (number, time, text) in &values {
                prop_assert_eq!(reader.read_u64().unwrap().unwrap_or(0), number.unwrap_or(0));
                prop_assert_eq!(reader.read_time().unwrap(), *time);
                let text = text.replace('\0', "");
                prop_assert_eq!(reader.read_str().unwrap(), Some(text.as_str()));
            }
        }
    }
}
