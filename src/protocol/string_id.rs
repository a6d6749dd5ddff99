//! String ids: short strings packed into a `u64`.
//!
//! Commands, filters and option values travel as such numbers. The low four bits name the
//! alphabet; characters follow from bit four, the first one lowest (specification, section 2.3).

use std::fmt;

/// A short string packed into a number, compared as the number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StringId(pub u64);

/// The characters that five bits tell apart, and those that six do, in the order of their codes.
const FIVE_BIT: &[u8] = b"abcdefghijklmnopqrstuvwxyz-256";
const SIX_BIT: &[u8] = b"abcdefghijklmnopqrstuvwxyz-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
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
            if code(FIVE_BIT, bytes[index]) == 0 {
                small = false;
            }
            index += 1;
        }
        assert!(!bytes.is_empty() && (small || bytes.len() <= SIX_BIT_MAXIMUM), "a string id has 1 to 12 characters");
        let (alphabet, width, mut value) = if small { (FIVE_BIT, 5, 0) } else { (SIX_BIT, 6, 1) };
        let mut index = 0;
        while index < bytes.len() {
            let code = code(alphabet, bytes[index]);
            assert!(code != 0, "a character has no place in a string id");
            value |= code << (4 + width * index);
            index += 1;
        }
        Self(value)
    }
}

impl fmt::Display for StringId {
    /// The text behind the id. A number that is no id shows what can be decoded of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (alphabet, width) = if self.0 & 1 == 0 { (FIVE_BIT, 5) } else { (SIX_BIT, 6) };
        let mut rest = self.0 >> 4;
        while rest != 0 {
            let code = rest.to_le_bytes()[0] & ((1 << width) - 1);
            let Some(index) = usize::from(code).checked_sub(1) else { break };
            fmt::Write::write_char(f, alphabet.get(index).copied().unwrap_or(b'?').into())?;
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

/// The code of a character, from 1; 0 if it has none.
const fn code(alphabet: &[u8], character: u8) -> u64 {
    let mut index = 0;
    while index < alphabet.len() {
        if alphabet[index] == character {
            return index as u64 + 1;
        }
        index += 1;
    }
    0
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
