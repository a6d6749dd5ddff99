//! Bytes in texts: how a text names a file whose name is no text.
//!
//! Names of files are bytes. Most are UTF-8, some are not, and some hold line feeds or what a terminal takes for a
//! command. Texts of errors name files nevertheless: a client has to get the very bytes, as from the original, while
//! a line of the log must stay one and harm no terminal.
//!
//! So a text *carries* such bytes: [`Carried`] prints each as a character of its own, out of 256 at the end of
//! Unicode's private use area, and everything else as it is. Since those characters are carried as their bytes too,
//! no two names are printed alike, and [`restore`] gives back what was carried. The log and terminals get it
//! [visibly](show) instead, as `\xe9`. Whatever lies between treats it as any other text.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::str::Utf8Chunk;

/// The character that carries the byte 0; the other bytes follow.
const BASE: u32 = 0x0010_fe00;
/// What the characters that carry bytes begin with in UTF-8, and nearly nothing else does.
const LEAD: u8 = 0xf4;

/// Prints bytes as a text that carries those which are no text.
#[derive(Debug, Clone, Copy)]
pub struct Carried<'a>(pub &'a [u8]);

/// Bytes of a path that the text of an error shows at most, where a client made it up.
const SHOWN_MAXIMUM: usize = 200;

impl<'a> Carried<'a> {
    /// The first 200 bytes, or a character less.
    #[must_use]
    pub fn cut(bytes: &'a [u8]) -> Self {
        Self(&bytes[..floor(bytes, SHOWN_MAXIMUM)])
    }
}

/// Where to cut bytes so that at most `maximum` are left, and no character is cut in two.
#[must_use]
pub fn floor(bytes: &[u8], maximum: usize) -> usize {
    if bytes.len() <= maximum {
        return bytes.len();
    }
    let continues = |at: &usize| bytes[*at] & 0xc0 == 0x80;
    // What continues for longer is no text.
    (maximum.saturating_sub(3)..=maximum).rev().find(|at| !continues(at)).unwrap_or(maximum)
}

impl fmt::Display for Carried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What control characters and carriers begin with; hardly a name has one.
        let is_special = |byte: &u8| matches!(*byte, 0..=0x1f | 0x7f | 0xc2 | LEAD);
        match std::str::from_utf8(self.0) {
            Ok(text) if !self.0.iter().any(is_special) => f.write_str(text),
            _ => self.0.utf8_chunks().try_for_each(|chunk| carry(&chunk, f)),
        }
    }
}

fn carry(chunk: &Utf8Chunk<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut rest = chunk.valid();
    let is_special = |character: char| character.is_control() || carried(character).is_some();
    while let Some(at) = rest.find(is_special) {
        let (plain, special) = rest.split_at(at);
        f.write_str(plain)?;
        let length = special.chars().next().map_or(0, char::len_utf8);
        let (special, after) = special.split_at(length);
        special.bytes().try_for_each(|byte| f.write_char(carrier(byte)))?;
        rest = after;
    }
    f.write_str(rest)?;
    chunk.invalid().iter().try_for_each(|byte| f.write_char(carrier(*byte)))
}

fn carrier(byte: u8) -> char {
    // All of these are characters.
    char::from_u32(BASE + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that a character carries, if it is one of these.
#[must_use]
pub fn carried(character: char) -> Option<u8> {
    u32::from(character).checked_sub(BASE).and_then(|byte| u8::try_from(byte).ok())
}

/// The bytes of a text, with those that it carries.
#[must_use]
pub fn restore(text: &str) -> Cow<'_, [u8]> {
    if !text.as_bytes().contains(&LEAD) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match carried(character) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(bytes)
}

/// The text for somebody's eyes: bytes that it carries are `\x0a` and the like.
#[must_use]
pub fn show(text: &str) -> Cow<'_, str> {
    if !text.as_bytes().contains(&LEAD) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match carried(character) {
            // Writing to a string does not fail.
            Some(byte) => _ = write!(shown, "\\x{byte:02x}"),
            None => shown.push(character),
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_text_is_shown_as_numbers_and_restored_as_it_was() {
        for (bytes, shown) in [
            (&b"caf\xe9.txt"[..], r"caf\xe9.txt"),
            ("café ü €".as_bytes(), "café ü €"),
            (b"a\nb\x1b[2J\0\x7f", r"a\x0ab\x1b[2J\x00\x7f"),
            ("\u{9b}2J".as_bytes(), r"\xc2\x9b2J"),
            (b"\\ '\"\t", "\\ '\"\\x09"),
            ("\u{10fe41}".as_bytes(), r"\xf4\x8f\xb9\x81"),
            ("\u{10fdff}\u{10ff00}".as_bytes(), "\u{10fdff}\u{10ff00}"),
            (b"\xff\xfe", r"\xff\xfe"),
            (b"", ""),
        ] {
            let text = Carried(bytes).to_string();
            assert_eq!(show(&text), shown);
            assert_eq!(*restore(&text), *bytes, "{shown}");
        }
        assert!(matches!(restore("plain ü"), Cow::Borrowed(_)) && matches!(show("plain ü"), Cow::Borrowed(_)));
    }

    #[test]
    fn what_is_cut_does_not_end_in_half_a_character() {
        assert_eq!(floor("aüü".as_bytes(), 4), 3);
        assert_eq!(floor("aüü".as_bytes(), 5), 5);
        assert_eq!(floor("€€".as_bytes(), 5), 3);
        assert_eq!(floor(&[0x80; 9], 5), 5);
        assert_eq!(floor(b"abc", 0), 0);
        assert_eq!(Carried::cut("ü".repeat(101).as_bytes()).to_string(), "ü".repeat(100));
    }

    proptest! {
        #[test]
        fn any_bytes_are_restored_and_shown_without_harm(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..64),
                "[\u{10fdf0}-\u{10ff10}a\u{7f}-\u{a0}]{0,16}".prop_map(String::into_bytes),
            ],
            before in "[a-z\u{10ff80}\n]{0,4}",
        ) {
            let text = format!("{before}'{}'", Carried(&bytes));
            prop_assert_eq!(&*restore(&text), [before.as_bytes(), b"'", &bytes, b"'"].concat());
            let shown = show(&text);
            prop_assert!(!shown[before.len()..].contains(char::is_control));
        }

        #[test]
        fn no_two_names_are_printed_alike(
            one in proptest::collection::vec(any::<u8>(), 0..6),
            other in proptest::collection::vec(any::<u8>(), 0..6),
        ) {
            prop_assert_eq!(one == other, Carried(&one).to_string() == Carried(&other).to_string());
        }
    }
}
