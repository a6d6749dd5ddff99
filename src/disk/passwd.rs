//! The files that hold the users and groups of this machine, `/etc/passwd` and `/etc/group`, which a static binary can
//! read without a name service switch.

use std::fs;

/// Users.
pub const PASSWD: &str = "/etc/passwd";
/// Groups.
pub const GROUP: &str = "/etc/group";

/// Who has a line in one of these files.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    pub(super) number: u32,
    /// The sixth field, of users.
    home: Option<&'a str>,
}

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// What it is called.
    pub name: String,
    /// Its home directory, if it has one.
    pub home: Option<String>,
}

/// Those of a text in the format of these files, in its order. As in the C library lines that make no sense are passed
/// over.
pub(super) fn entries(text: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    text.split(|byte| *byte == b'\n').filter_map(entry)
}

fn entry(line: &[u8]) -> Option<Entry<'_>> {
    let mut fields = std::str::from_utf8(line).ok()?.split(':');
    let (name, number) = (fields.next()?, fields.nth(1)?.parse().ok()?);
    // NIS entries begin with a sign and name nobody by themselves.
    let is_named = !name.is_empty() && !name.starts_with(['#', '+', '-']);
    is_named.then(|| Entry { name, number, home: fields.nth(2) })
}

/// The first user in `/etc/passwd` with this number.
#[must_use]
pub fn user(uid: u32) -> Option<User> {
    user_in(&fs::read(PASSWD).ok()?, uid)
}

/// The first user with this number in a text of the format of `/etc/passwd`.
#[must_use]
pub fn user_in(text: &[u8], uid: u32) -> Option<User> {
    let entry = entries(text).find(|entry| entry.number == uid)?;
    Some(User { name: entry.name.to_owned(), home: entry.home.map(str::to_owned) })
}

/// The number of the first user in `/etc/passwd` with this name.
#[must_use]
pub fn number(name: &str) -> Option<u32> {
    let text = fs::read(PASSWD).ok()?;
    entries(&text).find(|entry| entry.name == name).map(|entry| entry.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_name_and_perhaps_a_home() {
        let text = b"root:x:0:0:root:/root:/bin/sh\n\xff:x:1:\nshort:x:2\n+:x:3:\nbad:x:y:\n";
        let found: Vec<_> = entries(text).map(|entry| (entry.name, entry.number, entry.home)).collect();
        assert_eq!(found, [("root", 0, Some("/root")), ("short", 2, None)]);
        assert_eq!(user(0).map(|user| user.name).as_deref(), Some("root"));
    }
}
