//! `repohostd check --client=NAME`: what a client may do, in words.
//!
//! Says what [`Rule`] and [`Role`] decide, so that it cannot differ from what is enforced.

use std::fmt::Write as _;

use crate::config::snapshot::Origin;
use crate::config::{self, Command, Environment, Grant, OwnSettings, Role};
use crate::protocol::error::{Code, Error, Result};
use crate::repository::policy::access::Access;
use crate::repository::policy::layout::{Area, part};
use crate::repository::policy::rules::Rule;

/// One place of each kind: how it is called, and a name that looks like it.
const PLACES: [(Area, &str, &str); 9] = [
    (Area::Archive, "archive.info", "archive.info"),
    (
        Area::Archive,
        "ARCHIVE/DIRECTORY/SEGMENT-CHECKSUM",
        "15-1/0000000100000000/000000010000000000000001-0123456789abcdef0123456789abcdef01234567",
    ),
    (Area::Archive, "ARCHIVE/TIMELINE.history, ARCHIVE/DIRECTORY/*.backup", "15-1/00000002.history"),
    (Area::Archive, "anything else", "file"),
    (Area::Backup, "backup.info", "backup.info"),
    (Area::Backup, "LABEL", "20260102-030405F/file"),
    (Area::Backup, "backup.history/YEAR/LABEL.manifest.gz", "backup.history/2026/20260102-030405F.manifest.gz"),
    (Area::Backup, "latest", "latest"),
    (Area::Backup, "anything else", "file"),
];

/// Takes `--client=NAME` or `--client NAME` from the arguments: the names, which are separated by commas.
///
/// # Errors
///
/// 31 for an option without a name.
pub(super) fn take_client(arguments: &mut Vec<String>) -> Result<Option<Vec<String>>> {
    let Some(index) = arguments.iter().position(|word| word == "--client" || word.starts_with("--client=")) else {
        return Ok(None);
    };
    let word = arguments.remove(index);
    let text = match word.split_once('=') {
        Some((_, text)) => text.to_owned(),
        None if index < arguments.len() => arguments.remove(index),
        None => String::new(),
    };
    let names: Vec<_> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if names.is_empty() {
        return Err(Error::new(
            Code::OptionInvalid,
            "option 'client' must have a value\nHINT: give the name in the client's certificate; several names of one \
             certificate are separated by commas.",
        ));
    }
    Ok(Some(names))
}

/// What the client with these names may do.
///
/// # Errors
///
/// Those of the configuration; 105 for a client that may do nothing.
pub(super) fn describe(arguments: &[String], environment: &Environment, names: &[String]) -> Result<String> {
    let (_, loaded) = config::load_server(arguments, environment, &Origin::Disk)?;
    let client = names.join("' or '");
    let grant = loaded.server.grants.lookup(names).ok_or_else(|| {
        Error::access(format!(
            "client '{client}' is refused: no tls-server-auth entry is for it\nHINT: names are compared exactly, with \
             the common name and the alternative names of the certificate."
        ))
    })?;
    text(&client, &grant, &loaded.server.own, names)
}

fn text(client: &str, grant: &Grant, own: &OwnSettings, names: &[String]) -> Result<String> {
    let rights = own.rights(names);
    let role = rights.role;
    let mut stanzas = grant.stanzas().to_vec();
    if let Some(left) = &rights.stanzas {
        stanzas = if grant.is_for_all() { left.clone() } else { stanzas };
        stanzas.retain(|stanza| left.contains(stanza));
    }
    let all = grant.is_for_all() && rights.stanzas.is_none();
    if stanzas.is_empty() && !all {
        return Err(Error::access(format!(
            "client '{client}' is refused: 'stanza' in repohostd.conf leaves nothing of what tls-server-auth grants"
        )));
    }
    let reach = if all { "every stanza".to_owned() } else { format!("stanza {}", stanzas.join(", ")) };
    let of_role = |wanted| Command::ALL.into_iter().filter(move |(command, _)| Role::for_command(*command) == wanted);
    let commands = Role::ALL.into_iter().filter(|other| *other <= role).flat_map(of_role);
    let commands: Vec<_> = commands.map(|(_, name)| name).collect();

    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(out, "client '{client}' has role '{}' in {reach}", role.name());
    let clusters = "in each cluster of this host, as pg-reader: read\n";
    if role == Role::PgReader {
        let _ = write!(out, "in each repository: nothing\n{clusters}");
        return Ok(out);
    }
    let _ = writeln!(out, "commands: {}", commands.join(", "));
    let locks = role.lock_types();
    let _ = writeln!(out, "locks: {}", if locks.is_empty() { "none".to_owned() } else { locks.join(", ") });
    let _ = writeln!(out, "in each repository:");
    if all && role == Role::Admin {
        let _ = writeln!(out, "  everything: read, write, remove");
    } else {
        for (area, shown, example) in PLACES {
            let directory = if area == Area::Archive { "archive" } else { "backup" };
            let _ = writeln!(out, "  {directory}/STANZA/{shown}: {}", words(role, area, example));
        }
        let _ = writeln!(out, "  anything else: {}", if all { "read" } else { "nothing" });
    }
    out.push_str(clusters);
    if !own.protection.min_age.is_zero() {
        let _ = writeln!(
            out,
            "not before the min-age of {} s: remove or replace a finished backup, what it needs, or WAL",
            own.protection.min_age.as_secs()
        );
    }
    if role == Role::Backup {
        out.push_str("expire is refused: set expire-auto=n where this client makes backups\n");
    }
    Ok(out)
}

fn words(role: Role, area: Area, example: &str) -> &'static str {
    let of = |access| Rule::of(role, area, part(area, example.as_bytes()), access);
    match (of(Access::Write), of(Access::Remove)) {
        (Rule::Allowed, _) => "read, write, remove",
        (Rule::New, _) => "read, add, never replace or remove",
        (Rule::Info, _) => "read, replace if nothing of it is lost",
        (Rule::Unfinished, _) => "read; write and remove until the backup is finished",
        (_, Rule::Allowed) => "read, remove, link to a backup",
        _ => "read",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Grants, NamedRights, Protection};

    fn ask(own: &OwnSettings, value: &str) -> Result<String> {
        let names = ["pg1".to_owned()];
        let grant = Grants::new(vec![("pg1".to_owned(), value.to_owned())]).lookup(&names).unwrap();
        text("pg1", &grant, own, &names)
    }

    fn own(role: Role, stanzas: Option<&[&str]>) -> OwnSettings {
        let stanzas = stanzas.map(|stanzas| stanzas.iter().map(|stanza| (*stanza).to_owned()).collect());
        let rights = vec![NamedRights { name: "pg1".to_owned(), role: Some(role), stanzas }];
        OwnSettings { rights, ..OwnSettings::default() }
    }

    #[test]
    fn what_each_role_may_do_is_said_path_by_path() {
        let archiver = ask(&own(Role::Archiver, None), "demo").unwrap();
        assert!(archiver.starts_with("client 'pg1' has role 'archiver' in stanza demo\n"), "{archiver}");
        for line in [
            "commands: archive-get, check, info, manifest, repo-get, repo-ls, restore, verify, archive-push",
            "locks: archive",
            "  archive/STANZA/ARCHIVE/DIRECTORY/SEGMENT-CHECKSUM: read, add, never replace or remove",
            "  archive/STANZA/archive.info: read",
            "  backup/STANZA/LABEL: read",
            "  anything else: nothing",
        ] {
            assert!(archiver.lines().any(|found| found == line), "{line:?} is not in\n{archiver}");
        }
        let backup = ask(&own(Role::Backup, None), "*").unwrap();
        for line in [
            "client 'pg1' has role 'backup' in every stanza",
            "  backup/STANZA/backup.info: read, replace if nothing of it is lost",
            "  backup/STANZA/LABEL: read; write and remove until the backup is finished",
            "  backup/STANZA/latest: read, remove, link to a backup",
            "  anything else: read",
            "expire is refused: set expire-auto=n where this client makes backups",
        ] {
            assert!(backup.lines().any(|found| found == line), "{line:?} is not in\n{backup}");
        }
        let reader = ask(&own(Role::Reader, Some(&["demo"])), "*").unwrap();
        assert!(reader.starts_with("client 'pg1' has role 'reader' in stanza demo\n"), "{reader}");
        assert!(reader.contains("\nlocks: none\n") && !reader.contains("write") && !reader.contains("add"), "{reader}");
        let pg_reader = ask(&own(Role::PgReader, None), "demo").unwrap();
        let expected = "client 'pg1' has role 'pg-reader' in stanza demo\nin each repository: nothing\nin each cluster of \
                        this host, as pg-reader: read\n";
        assert_eq!(pg_reader, expected);
        assert!(reader.contains("\nin each cluster of this host, as pg-reader: read\n"), "{reader}");
        let protection = Protection { min_age: std::time::Duration::from_secs(7), ..Protection::default() };
        let admin = ask(&OwnSettings { protection, ..OwnSettings::default() }, "demo,other").unwrap();
        assert!(admin.contains("in stanza demo, other\n") && admin.contains("min-age of 7 s"), "{admin}");
        assert!(admin.contains("  archive/STANZA/anything else: read, write, remove\n"), "{admin}");
        assert_eq!(ask(&own(Role::Admin, Some(&["other"])), "demo").unwrap_err().code, Code::Access);
    }

    #[test]
    fn the_option_is_taken_in_both_forms() {
        let take = |words: &[&str]| {
            let mut arguments: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            take_client(&mut arguments).map(|names| (names, arguments))
        };
        let names = Some(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(take(&["--config=/c", "--client=a, b"]), Ok((names.clone(), vec!["--config=/c".to_owned()])));
        assert_eq!(take(&["--client", "a,b"]), Ok((names, vec![])));
        assert_eq!(take(&["--config=/c"]), Ok((None, vec!["--config=/c".to_owned()])));
        for words in [&["--client"][..], &["--client="], &["--client=,"]] {
            assert_eq!(take(words).unwrap_err().code, Code::OptionInvalid);
        }
    }
}
