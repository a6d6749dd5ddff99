//! Passwords from `~/.pgpass` or `PGPASSFILE`, by libpq's rules.

use super::environment::SmallFile;

/// The password for a connection, if the file has one.
///
/// Lines are `host:port:database:user:password`; `*` stands for any value, and a backslash takes the
/// special meaning from the character after it. The first line that fits counts.
pub(super) fn find(text: &str, wanted: [&str; 4]) -> Option<String> {
    text.lines().find_map(|line| {
        let mut rest = line.strip_suffix('\r').unwrap_or(line);
        if rest.starts_with('#') {
            return None;
        }
        for value in wanted {
            rest = field_is(rest, value)?;
        }
        Some(unescaped(rest))
    })
}

/// Why libpq would not use `file`, if it would not; `None` for a file that is not there, too.
pub(super) fn usable(path: &str, file: SmallFile) -> Result<Option<String>, String> {
    match file {
        SmallFile::Missing => Ok(None),
        SmallFile::NotPlain => Err(format!("password file \"{path}\" is not a plain file")),
        SmallFile::Found { mode, .. } if mode & 0o077 != 0 => Err(format!(
            "password file \"{path}\" has group or world access; permissions should be u=rw (0600) or less"
        )),
        SmallFile::Found { text, .. } => Ok(Some(text)),
    }
}

/// What follows the first field of `line`, if that field stands for `value`.
fn field_is<'a>(line: &'a str, value: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let (mut characters, mut wanted) = (line.chars(), value.chars());
    loop {
        match characters.next()? {
            ':' if wanted.as_str().is_empty() => return Some(characters.as_str()),
            '\\' => {
                if characters.next()? != wanted.next()? {
                    return None;
                }
            }
            character => {
                if character != wanted.next()? {
                    return None;
                }
            }
        }
    }
}

fn unescaped(field: &str) -> String {
    let mut result = String::new();
    let mut characters = field.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' => break,
            '\\' => result.push(characters.next().unwrap_or('\\')),
            character => result.push(character),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: [&str; 4] = ["localhost", "5432", "postgres", "backup"];

    #[test]
    fn the_first_line_that_fits_counts() {
        let text = "# comment\nother:5432:postgres:backup:no\nlocalhost:*:*:backup:yes\n*:*:*:*:late\n";
        assert_eq!(find(text, WANTED).as_deref(), Some("yes"));
        assert_eq!(find("localhost:5432:postgres:backup:a:b\r\n", WANTED).as_deref(), Some("a"));
        assert_eq!(find(r"localhost:5432:postgres:backup:a\:b\\c", WANTED).as_deref(), Some(r"a:b\c"));
    }

    #[test]
    fn a_field_fits_as_a_whole_or_by_an_asterisk_alone() {
        for line in [
            "local:5432:postgres:backup:x",
            "localhost2:5432:postgres:backup:x",
            "localh*:5432:postgres:backup:x",
            "localhost:5432:postgres:backup",
            "",
            ":",
            "\\",
        ] {
            assert_eq!(find(line, WANTED), None, "{line}");
        }
        assert_eq!(find(r"a\:b:*:*:*:x", ["a:b", "1", "d", "u"]).as_deref(), Some("x"));
        assert_eq!(find("@x:*:*:*:x", ["@x", "1", "d", "u"]).as_deref(), Some("x"));
    }

    #[test]
    fn a_file_that_others_can_read_is_not_used() {
        let found = |mode| SmallFile::Found { text: "text".into(), mode };
        assert_eq!(usable("/p", found(0o600)), Ok(Some("text".into())));
        assert!(usable("/p", found(0o640)).is_err_and(|text| text.contains("has group or world access")));
        assert!(usable("/p", SmallFile::NotPlain).is_err());
        assert_eq!(usable("/p", SmallFile::Missing), Ok(None));
    }
}
