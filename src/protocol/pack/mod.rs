//! Packs: pgBackRest's self-describing binary fields.
//!
//! A pack is a run of fields with rising ids that ends in a zero byte; a field that is null or has
//! its default value is left out. Source: specification, section 2.2. [`Reader`] reads one whole
//! pack from memory and never trusts a length; [`Writer`] makes one.

mod reader;
mod writer;

use super::error::{Error, Result};

pub use reader::Reader;
pub use writer::Writer;

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

/// Decodes the head of one field at the start of `bytes`: its tag, and its value or length.
///
/// Returns the field and how many bytes its head took, no field and one byte for the end of a pack or
/// container, or `None` when `bytes` ends within the head.
///
/// # Errors
///
/// [`Code::Format`](super::error::Code::Format) for an unknown type or a number that does not fit: no further bytes
/// could make this right.
pub fn decode_field(bytes: &[u8]) -> Result<Option<(Option<Field>, usize)>> {
    let Some(tag) = bytes.first().copied() else { return Ok(None) };
    if tag == 0 {
        return Ok(Some((None, 1)));
    }
    let mut at = 1;
    let mut number = u64::from(tag >> 4);
    if number == 15 {
        let Some(further) = decode_varint(bytes, &mut at)? else { return Ok(None) };
        number = further.checked_add(15).ok_or_else(|| Error::format("pack field type is out of range"))?;
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
        let Some(high) = decode_varint(bytes, &mut at)? else { return Ok(None) };
        if high > u64::from(u32::MAX) {
            return Err(Error::format("pack field id is out of range"));
        }
        skipped |= high << delta_bits;
    }
    let value = match (kind, inline) {
        (Type::Str | Type::Bin, Some(1)) | (Type::Pack, _) | (_, None) => decode_varint(bytes, &mut at)?,
        (_, inline) => inline,
    };
    Ok(value.map(|value| (Some(Field { kind, skipped, value }), at)))
}

/// The number at `at`, which is moved behind it; `None` when `bytes` ends within it.
fn decode_varint(bytes: &[u8], at: &mut usize) -> Result<Option<u64>> {
    let mut value = 0u64;
    for index in 0..VARINT_MAXIMUM {
        let Some(byte) = bytes.get(*at) else { return Ok(None) };
        *at += 1;
        let part = u64::from(byte & 0x7f);
        if index == VARINT_MAXIMUM - 1 && part > 1 {
            break;
        }
        value |= part << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some(value));
        }
    }
    Err(Error::format("unterminated varint-128 integer"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::filter::hexadecimal as hex;
    use crate::protocol::string_id::StringId;

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
        negative.i64_forced(-16);
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
        fn dive(reader: &mut Reader<'_>) -> Result<()> {
            reader.read_array(dive).map(|_| ())
        }
        let bytes = vec![0x10; 1 << 20];
        let mut reader = Reader::new(&bytes);
        assert!(reader.skip().is_err());
        assert_eq!(dive(&mut Reader::new(&bytes)).unwrap_err().message, "pack is nested too deeply");
    }

    #[test]
    fn an_array_with_null_elements_without_end_is_an_error() {
        let mut far = Writer::new();
        far.array(|array| _ = array.skip_to(u64::from(u32::MAX)).str("last"));
        let error = Reader::new(&far.finish()).read_array(Reader::read_str).unwrap_err();
        assert_eq!(error.message, "array has more than 65536 elements");
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
                reader.jump_before(id);
                let outcome = match kind {
                    Type::Array => reader.read_array(Reader::skip).map(|_| ()),
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
        fn text_in_any_encoding_is_read_as_it_was_written(
            texts in proptest::collection::vec(proptest::collection::vec(1..=u8::MAX, 0..40), 0..8),
        ) {
            let mut writer = Writer::new();
            for text in &texts {
                writer.text(text);
            }
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            for text in &texts {
                let is_text = std::str::from_utf8(text).is_ok();
                prop_assert_eq!(reader.clone().read_str().is_ok(), is_text);
                prop_assert_eq!(reader.read_text().unwrap(), Some(text.as_slice()));
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
