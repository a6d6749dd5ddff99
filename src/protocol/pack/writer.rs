//! Making a pack.

use super::super::string_id::StringId;
use super::Type;

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

    /// An empty pack whose bytes are added to `bytes`.
    #[must_use]
    pub const fn over(bytes: Vec<u8>) -> Self {
        Self { bytes, id: 0, present: 0 }
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

    /// Leaves the ids before `id` null, so that the next field gets it. An id that is gone already
    /// changes nothing.
    pub fn skip_to(&mut self, id: u64) -> &mut Self {
        self.id = self.id.max(id.saturating_sub(1));
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
        if value == 0 { self.null() } else { self.i32_forced(value) }
    }

    /// An `i32`, written also when 0.
    pub fn i32_forced(&mut self, value: i32) -> &mut Self {
        let zigzag = ((value << 1) ^ (value >> 31)).cast_unsigned();
        self.multi_bit(Type::I32, zigzag.into())
    }

    /// An `i64`, written also when 0.
    pub fn i64_forced(&mut self, value: i64) -> &mut Self {
        self.multi_bit(Type::I64, zigzag(value))
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

    /// As [`Writer::str`], for text that comes from elsewhere and may be in any encoding, as names of files are.
    pub fn text(&mut self, value: &[u8]) -> &mut Self {
        self.data(Type::Str, value)
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
        let low = low.to_le_bytes()[0] & 0x0f;
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
        loop {
            let low = value.to_le_bytes()[0];
            value >>= 7;
            if value == 0 {
                return self.bytes.push(low & 0x7f);
            }
            self.bytes.push(low | 0x80);
        }
    }
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}
