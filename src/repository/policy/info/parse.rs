//! The text of an info file: sections, keys, JSON values, and the checksum over all of them.

use std::fmt::Write as _;

use serde_json::Value;

use super::{BACKREST, Sections};
use crate::filter::Chain;
use crate::protocol::filter::{Digest, FilterResult, FilterSpec, hexadecimal};

/// Bytes of the longest line, so that its JSON takes bounded memory while it is looked at.
const LINE_MAXIMUM: usize = 1 << 20;
/// Repository formats that releases up to 2.60 know.
const FORMATS: [&str; 2] = ["5", "6"];

const CHECKSUM: &str = "backrest-checksum";
const FORMAT: &str = "backrest-format";

/// Reads all sections and verifies the checksum.
pub(super) fn sections(bytes: &[u8]) -> Result<Sections, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    let (sections, checksum) = read(text)?;
    check(&sections, &checksum)?;
    Ok(sections)
}

/// The checksum that belongs to `text`.
#[cfg(test)]
pub(super) fn checksum(text: &str) -> Result<String, String> {
    read(text).map(|(_, checksum)| checksum)
}

/// All sections, and the checksum of what they say.
fn read(text: &str) -> Result<(Sections, String), String> {
    let mut sections = Sections::new();
    let mut sum = Sum::new()?;
    let mut section = "";
    for (number, line) in text.split('\n').enumerate() {
        let at = |what: &str| format!("{what} in line {}", number + 1);
        if line.is_empty() {
            continue;
        }
        if line.len() > LINE_MAXIMUM {
            return Err(at("too many bytes"));
        }
        if let Some(name) = line.strip_prefix('[') {
            section = name.strip_suffix(']').filter(|name| is_name(name)).ok_or_else(|| at("bad section"))?;
            // The checksum comes in a second section of that name.
            if section != BACKREST && sections.contains_key(section) {
                return Err(at("repeated section"));
            }
            sections.entry(section.to_owned()).or_default();
            continue;
        }
        let (key, value) = line.split_once('=').ok_or_else(|| at("neither section nor key"))?;
        let entries = sections.get_mut(section).ok_or_else(|| at("key outside of a section"))?;
        if !is_name(key) {
            return Err(at("bad key"));
        }
        if !is_canonical(value) {
            return Err(at("JSON that pgBackRest would not write"));
        }
        sum.add(section, key, value)?;
        if entries.insert(key.to_owned(), value.into()).is_some() {
            return Err(at("repeated key"));
        }
    }
    Ok((sections, sum.finish()?))
}

fn check(sections: &Sections, actual: &str) -> Result<(), String> {
    let backrest = |key: &str| sections.get(BACKREST).and_then(|entries| entries.get(key)).map(|value| &**value);
    match backrest(FORMAT) {
        Some(format) if FORMATS.contains(&format) => {}
        Some(format) => return Err(format!("its {FORMAT} is {}, not {}", shown(format), FORMATS.join(" or "))),
        None => return Err(format!("it has no {FORMAT}")),
    }
    match backrest(CHECKSUM) {
        Some(expected) if expected.trim_matches('"') == actual => Ok(()),
        Some(_) => Err("its checksum does not match".to_owned()),
        None => Err("it has no checksum".to_owned()),
    }
}

/// The beginning of what somebody wrote, for a message.
fn shown(text: &str) -> String {
    text.chars().take(20).collect()
}

/// Whether it can be a section's or a key's name. What follows is quoted without escapes.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && !text.contains(|letter: char| letter.is_control() || "\"\\=".contains(letter))
}

/// Whether `text` is JSON as pgBackRest writes it: compact, keys in order, none twice. Clients would
/// understand anything else in different ways, and equal values would not have equal texts.
fn is_canonical(text: &str) -> bool {
    // The file's grammar has no room for an array: its line would begin a section.
    !text.starts_with('[')
        && serde_json::from_str::<Value>(text)
            .is_ok_and(|value| serde_json::to_string(&value).is_ok_and(|again| again == text))
}

/// The digest of a JSON object of all sections, which is what `backrest-checksum` is.
struct Sum {
    chain: Chain,
    section: Option<String>,
}

impl Sum {
    fn new() -> Result<Self, String> {
        let mut chain = Chain::new(vec![FilterSpec::Hash(Digest::Sha1)]).map_err(|error| error.message)?;
        chain.observe(b"{").map_err(|error| error.message)?;
        Ok(Self { chain, section: None })
    }

    fn add(&mut self, section: &str, key: &str, value: &str) -> Result<(), String> {
        if section == BACKREST && key == CHECKSUM {
            return Ok(());
        }
        let mut text = String::new();
        match self.section.as_deref() {
            Some(last) if last == section => text.push(','),
            last => {
                let _ = write!(text, "{}\"{section}\":{{", if last.is_some() { "}," } else { "" });
                self.section = Some(section.to_owned());
            }
        }
        let _ = write!(text, "\"{key}\":{value}");
        self.chain.observe(text.as_bytes()).map_err(|error| error.message)
    }

    fn finish(mut self) -> Result<String, String> {
        self.chain.observe(b"}}").map_err(|error| error.message)?;
        match self.chain.results().into_iter().next() {
            Some((_, FilterResult::Hash(digest))) => Ok(hexadecimal(&digest)),
            _ => Err("its checksum cannot be computed".to_owned()),
        }
    }
}
