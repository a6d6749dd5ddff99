//! String ids: short strings packed into a `u64`.
//!
//! Commands, filters and option values travel as such numbers. The low four bits name the
//! alphabet; characters follow from bit four, the first one lowest (specification, section 2.3).

use std::fmt;

/// A short string packed into a number, compared as the number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StringId(pub u64);

const FIVE_BIT_MAXIMUM: usize = 12;
const SIX_BIT_MAXIMUM: usize = 10;

impl StringId {
    /// The id of `text`, which must be made of `a-z`, `-`, `0-9` and `A-Z` and fit: at most 12
    /// characters of the small alphabet (`a-z`, `-`, `2`, `5`, `6`), otherwise at most 10.
    ///
    /// # Panics
    ///
    /// When `text` cannot be encoded; meant for constants, where that is a compile error.
    #[must_use]
    pub const fn new(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut small = bytes.len() <= FIVE_BIT_MAXIMUM;
        let mut index = 0;
        while index < bytes.len() {
            if five_bit(bytes[index]) == 0 {
                small = false;
            }
            index += 1;
        }
        assert!(!bytes.is_empty() && (small || bytes.len() <= SIX_BIT_MAXIMUM), "a string id has 1 to 12 characters");
        let (width, mut value) = if small { (5, 0) } else { (6, 1) };
        let mut index = 0;
        while index < bytes.len() {
            let code = if small { five_bit(bytes[index]) } else { six_bit(bytes[index]) };
            assert!(code != 0, "a character has no place in a string id");
            value |= (code as u64) << (4 + width * index);
            index += 1;
        }
        Self(value)
    }
}

impl fmt::Display for StringId {
    /// The text behind the id. A number that is no id shows what can be decoded of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let small = self.0 & 1 == 0;
        let width = if small { 5 } else { 6 };
        let mut rest = self.0 >> 4;
        while rest != 0 {
            let code = rest.to_le_bytes()[0] & ((1 << width) - 1);
            if code == 0 {
                break;
            }
            let character = if small { five_bit_character(code) } else { six_bit_character(code) };
            fmt::Write::write_char(f, character)?;
            rest >>= width;
        }
        Ok(())
    }
}

impl fmt::Debug for StringId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}({:#x})", self.0)
    }
}

const fn five_bit(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => byte - b'a' + 1,
        b'-' => 27,
        b'2' => 28,
        b'5' => 29,
        b'6' => 30,
        _ => 0,
    }
}

const fn six_bit(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => byte - b'a' + 1,
        b'-' => 27,
        b'0'..=b'9' => byte - b'0' + 28,
        b'A'..=b'Z' => byte - b'A' + 38,
        _ => 0,
    }
}

fn five_bit_character(code: u8) -> char {
    match code {
        1..=26 => char::from(b'a' + code - 1),
        27 => '-',
        28 => '2',
        29 => '5',
        30 => '6',
        _ => '?',
    }
}

fn six_bit_character(code: u8) -> char {
    match code {
        1..=26 => char::from(b'a' + code - 1),
        27 => '-',
        28..=37 => char::from(b'0' + code - 28),
        _ => char::from(b'A' + code - 38),
    }
}

#[cfg(test)]
mod tests {
    use super::StringId;

    #[test]
    fn ids_of_the_specification() {
        for (text, number) in [
            ("noop", 0x83_dee0),
            ("config", 0xe933_9e30),
            ("opt-g", 0x7dd_20f0),
            ("s-rdm", 0xd24_b730),
            ("sha1", 0x741_2131),
            ("sha256", 0x3_dde0_5130),
            ("lz4-cmp", 0x1034_36e0_68c1),
            ("blk-incr", 0x90d_c9da_d820),
            ("cipher-blk", 0x16_c16e_4544_1230),
            ("aes-256-cbc", 0xc4_3dfb_bcdc_ca10),
        ] {
            assert_eq!(StringId::new(text).0, number, "{text}");
            assert_eq!(StringId(number).to_string(), text);
        }
    }

    #[test]
    fn a_number_that_is_no_id_still_prints() {
        assert_eq!(StringId(0x6b5a0).to_string(), "zzz");
        let _ = StringId(u64::MAX).to_string();
        assert_eq!(StringId(0).to_string(), "");
    }
}
