//! A system for tests.

use std::net::IpAddr;

use super::client::Rows;
use super::environment::{SmallFile, System};

/// A system that has what a test gives it.
pub(super) struct FakeSystem {
    pub(super) variables: Vec<(String, String)>,
    pub(super) user: Option<String>,
    pub(super) files: Vec<(String, SmallFile)>,
    pub(super) existing: Vec<String>,
}

impl Default for FakeSystem {
    fn default() -> Self {
        let existing = vec!["/var/run/postgresql".into()];
        Self { variables: vec![], user: Some("runner".into()), files: vec![], existing }
    }
}

impl FakeSystem {
    pub(super) fn with(variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { variables, ..Self::default() }
    }
}

impl System for FakeSystem {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    fn user(&self) -> (u32, Option<String>) {
        (1000, self.user.clone())
    }

    fn home(&self) -> Option<String> {
        Some("/home/runner".into())
    }

    fn file(&self, path: &str) -> SmallFile {
        let found = self.files.iter().find(|(known, _)| known == path);
        found.map_or(SmallFile::Missing, |(_, file)| file.clone())
    }

    fn exists(&self, path: &str) -> bool {
        self.existing.iter().any(|known| known == path)
    }

    fn addresses(&self, name: &str) -> Vec<IpAddr> {
        if name == "localhost" { vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()] } else { vec![] }
    }
}

impl Rows {
    /// Rows for tests of what becomes of them.
    pub(super) fn made_of(types: &[u32], rows: &[&[Option<&str>]]) -> Self {
        let mut data = vec![];
        for field in rows.iter().flat_map(|row| row.iter()) {
            let length = field.map_or(-1, |field| i32::try_from(field.len()).unwrap());
            data.extend_from_slice(&length.to_be_bytes());
            data.extend_from_slice(field.unwrap_or_default().as_bytes());
        }
        Self { types: types.to_vec(), count: rows.len(), data }
    }

    pub(super) fn replace_last_byte(&mut self, byte: u8) {
        *self.data.last_mut().unwrap() = byte;
    }
}
