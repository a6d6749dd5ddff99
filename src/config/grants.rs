//! Who may do what: the value of `tls-server-auth`.
//!
//! Facts: specification, section 3.4. Two things differ on purpose: repeated entries of one name
//! add up instead of the last one winning, and a client may have several names (common name and
//! subject alternative names) and gets the union of what they may do.

use crate::protocol::error::{Code, Error, Result};

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// All entries of `tls-server-auth`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants(Vec<(String, String)>);

/// What one client may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    any: bool,
    stanzas: Vec<String>,
}

impl Grants {
    /// The entries as pairs of a client's name and the text after the `=`.
    #[must_use]
    pub fn new(entries: Vec<(String, String)>) -> Self {
        Self(entries)
    }

    /// What a client that proved to have these names may do; none for a client that no entry names
    /// (access denied).
    #[must_use]
    pub fn lookup(&self, names: &[String]) -> Option<Grant> {
        let mut values = self
            .0
            .iter()
            .filter(|(name, _)| names.contains(name))
            .map(|(_, value)| value.trim_matches(SPACE))
            .peekable();
        values.peek()?;
        let mut grant = Grant { any: false, stanzas: vec![] };
        for value in values {
            if value == "*" {
                grant.any = true;
            } else if !value.is_empty() {
                grant.stanzas.extend(value.split(',').map(|stanza| stanza.trim_matches(SPACE).to_owned()));
            }
        }
        Some(grant)
    }
}

impl Grant {
    /// Whether a session of this stanza (none: of all stanzas) is allowed.
    ///
    /// # Errors
    ///
    /// 32 when all entries of the client are empty, which the original finds only now.
    pub fn allows(&self, stanza: Option<&str>) -> Result<bool> {
        if self.any {
            return Ok(true);
        }
        if self.stanzas.is_empty() {
            return Err(Error::new(Code::OptionInvalidValue, "'tls-server-auth' option must have a value"));
        }
        Ok(stanza.is_some_and(|stanza| self.stanzas.iter().any(|allowed| allowed == stanza)))
    }

    /// Whether every stanza is allowed, and sessions without one.
    #[must_use]
    pub fn is_for_all(&self) -> bool {
        self.any
    }

    /// The stanzas that are allowed by name, as they stand in the configuration.
    #[must_use]
    pub fn stanzas(&self) -> &[String] {
        &self.stanzas
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(entries: &[(&str, &str)]) -> Grants {
        Grants::new(entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    fn allows(entries: &[(&str, &str)], names: &[&str], stanza: Option<&str>) -> Option<Result<bool>> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        grants(entries).lookup(&names).map(|grant| grant.allows(stanza))
    }

    #[test]
    fn a_client_reaches_exactly_the_stanzas_of_its_entry() {
        for (value, stanza, expected) in [
            ("*", Some("demo"), true),
            (" * ", None, true),
            ("demo", Some("demo"), true),
            ("demo", Some("Demo"), false),
            ("demo", None, false),
            ("a, demo ,b", Some("demo"), true),
            ("*,demo", Some("other"), false),
            ("*,demo", Some("*"), true),
            ("*,demo", None, false),
        ] {
            assert_eq!(allows(&[("cn", value)], &["cn"], stanza), Some(Ok(expected)), "{value} {stanza:?}");
        }
    }

    #[test]
    fn an_unknown_client_has_no_grant() {
        assert_eq!(allows(&[("cn", "*")], &["CN"], None), None);
        assert_eq!(allows(&[("cn ", "*")], &["cn"], None), None);
        assert_eq!(allows(&[("cn", "*")], &[], None), None);
    }

    #[test]
    fn an_empty_entry_is_an_error_of_the_session() {
        let error = allows(&[("cn", " \t")], &["cn"], Some("demo")).unwrap().unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (Code::OptionInvalidValue, "'tls-server-auth' option must have a value")
        );
    }

    #[test]
    fn entries_of_one_name_and_names_of_one_client_add_up() {
        let entries = [("a", "x"), ("a", "y"), ("b", "z"), ("c", "")];
        for stanza in ["x", "y", "z"] {
            assert_eq!(allows(&entries, &["b", "c", "a"], Some(stanza)), Some(Ok(true)));
        }
        assert_eq!(allows(&entries, &["a", "c"], Some("z")), Some(Ok(false)));
    }
}
