//! The grammar of configuration files, with the place of every value.
//!
//! Owns text to sections and keys; knows no option and opens no file. Facts: specification,
//! section 1.5. Several files are parsed one by one and merged, which is the same as parsing their
//! concatenation, except that messages can name the right file and line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::protocol::error::{Code, Error, Result};

/// One value with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// What is behind the `=`, without blanks around it.
    pub text: String,
    /// The file that it is in.
    pub file: Arc<Path>,
    /// The number of its line, from 1; 0 for what is in no file.
    pub line: u32,
}

impl Value {
    /// Where it stands, for messages.
    pub(super) fn place(&self) -> String {
        place(&self.file, self.line)
    }
}

/// A key of a section with all its values, in the order of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What is before the `=`, without blanks around it.
    pub key: String,
    /// Never empty; more than one where the key was repeated.
    pub values: Vec<Value>,
}

impl Entry {
    /// Where its first value stands, for messages.
    pub(super) fn place(&self) -> String {
        self.values.first().map_or_else(String::new, Value::place)
    }
}

/// Sections with their keys in the order in which they were first written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ini {
    sections: BTreeMap<String, Vec<Entry>>,
}

impl Ini {
    /// Adds what one file says.
    ///
    /// # Errors
    ///
    /// 29 for a line that is neither a comment, a section nor `key=value`; a hint names the file.
    pub fn add(&mut self, file: &Path, text: &str) -> Result<()> {
        let file: Arc<Path> = Arc::from(file);
        let mut section: Option<&mut Vec<Entry>> = None;
        for (number, line) in (1u32..).zip(text.split('\n')) {
            let line = line.trim_matches([' ', '\t', '\r', '\n']);
            let malformed = |what: &str| {
                Error::new(
                    Code::Format,
                    format!("{what} at line {number}: {line}\nHINT: this line is in file '{}'.", file.display()),
                )
            };
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(rest) = line.strip_prefix('[') {
                let name = rest.strip_suffix(']').ok_or_else(|| malformed("ini section should end with ]"))?;
                if name.is_empty() {
                    return Err(malformed("invalid empty section"));
                }
                section = Some(self.sections.entry(name.to_owned()).or_default());
                continue;
            }
            let Some(entries) = &mut section else { return Err(malformed("key/value found outside of section")) };
            let (key, value) = line.split_once('=').ok_or_else(|| malformed("missing '=' in key/value"))?;
            let (key, value) = (key.trim_matches([' ', '\t']), value.trim_matches([' ', '\t']));
            if key.is_empty() {
                return Err(malformed("key is zero-length"));
            }
            let value = Value { text: value.to_owned(), file: Arc::clone(&file), line: number };
            match entries.iter_mut().find(|entry| entry.key == key) {
                Some(entry) => entry.values.push(value),
                None => entries.push(Entry { key: key.to_owned(), values: vec![value] }),
            }
        }
        Ok(())
    }

    /// Has a key of a section have one value in place of those that files gave it.
    pub(super) fn replace(&mut self, section: &str, key: &str, value: Value) {
        let entries = self.sections.entry(section.to_owned()).or_default();
        entries.retain(|entry| entry.key != key);
        entries.push(Entry { key: key.to_owned(), values: vec![value] });
    }

    /// The keys of a section; none when there is no such section.
    #[must_use]
    pub fn section(&self, name: &str) -> &[Entry] {
        self.sections.get(name).map_or(&[], Vec::as_slice)
    }

    /// The sections with their keys, in alphabetical order.
    pub fn sections(&self) -> impl Iterator<Item = (&str, &[Entry])> {
        self.sections.iter().map(|(name, entries)| (name.as_str(), entries.as_slice()))
    }
}

/// Where a value stands, for messages: `FILE:LINE`; what is in no file, the environment, has no line.
pub(super) fn place(file: &Path, line: u32) -> String {
    if line == 0 {
        return file.display().to_string();
    }
    format!("{}:{line}", PathBuf::from(file).display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Ini> {
        let mut ini = Ini::default();
        ini.add(Path::new("/etc/x.conf"), text).map(|()| ini)
    }

    #[test]
    fn a_malformed_line_is_reported_with_its_number_text_and_file() {
        for (text, expected) in [
            ("[global", "ini section should end with ] at line 1: [global"),
            ("\n[]", "invalid empty section at line 2: []"),
            ("a=b", "key/value found outside of section at line 1: a=b"),
            ("[global]\n\n  abc \r\n", "missing '=' in key/value at line 3: abc"),
            ("[global]\n = b", "key is zero-length at line 2: = b"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.code, Code::Format);
            assert_eq!(error.message, format!("{expected}\nHINT: this line is in file '/etc/x.conf'."));
        }
    }

    #[test]
    fn values_keep_equal_signs_hashes_and_quotes() {
        let ini = parse("# c\n[a]\nkey = \"x\" = #y ; z \t\n[b]\nk=1\n[a]\nkey=2\nother=").unwrap();
        let texts: Vec<_> = ini.section("a").iter().map(|entry| (entry.key.as_str(), entry.values.len())).collect();
        assert_eq!(texts, [("key", 2), ("other", 1)]);
        assert_eq!(ini.section("a")[0].values[0].text, "\"x\" = #y ; z");
        assert_eq!(ini.section("a")[0].values[1].line, 7);
        assert_eq!(ini.section("missing"), []);
        assert_eq!(place(&ini.section("b")[0].values[0].file, 5), "/etc/x.conf:5");
    }
}
