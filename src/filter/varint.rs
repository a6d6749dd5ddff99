//! The numbers of block maps: varint-128, least significant seven bits first, and zigzag for signed ones.

use crate::protocol::error::{Error, Result};

/// Bytes of the longest number.
pub(super) const LONGEST: usize = 10;

/// Adds `value` to `bytes`.
pub(super) fn push(bytes: &mut Vec<u8>, value: u64) {
    let (encoded, length) = encode(value);
    bytes.extend(encoded.iter().take(length));
}

/// `value` as bytes, and how many of them there are.
pub(super) fn encode(value: u64) -> ([u8; LONGEST], usize) {
    let mut bytes = [0; LONGEST];
    let length = postcard::to_slice(&value, &mut bytes).map_or(LONGEST, |encoded| encoded.len());
    (bytes, length)
}

/// Takes a number from the front of `bytes`. Code 29 when it has no end or does not fit.
pub(super) fn take(bytes: &mut &[u8]) -> Result<u64> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|error| match error {
        postcard::Error::DeserializeUnexpectedEnd => ends_early(),
        _ => Error::format("unterminated varint-128 integer"),
    })?;
    *bytes = rest;
    Ok(value)
}

/// The error for a map that does not go on.
pub(super) fn ends_early() -> Error {
    Error::format("unexpected end of block map")
}

/// A signed number as an unsigned one, small if it is near 0.
pub(super) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// Back from [`zigzag`].
pub(super) const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_have_the_specifications_bytes() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX >> 1, u64::MAX] {
            let mut bytes = Vec::new();
            push(&mut bytes, value);
            assert_eq!(take(&mut &bytes[..]).unwrap(), value);
            assert!(take(&mut &bytes[..bytes.len() - 1]).is_err());
            assert_eq!(zigzag(unzigzag(value)), value);
        }
        let mut bytes = Vec::new();
        push(&mut bytes, 300);
        assert_eq!(bytes, [0xac, 0x02]);
        assert_eq!((zigzag(-1), zigzag(1), zigzag(i64::MIN)), (1, 2, u64::MAX));
        assert!(take(&mut &[0xff; 10][..]).is_err());
    }
}
