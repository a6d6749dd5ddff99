//! The release of the pgbackrest that is installed on this host: the likeliest of a client that nobody knows, since hosts of
//! one site are usually upgraded together.
//!
//! The program is asked once, after the start, and nothing waits for its answer.

use rustix::process::geteuid;

use super::policy::Policy;
use super::table::Table;
use crate::config::OwnSettings;
use crate::observe::log;
use crate::protocol::release::Release;

/// What is asked, from the server's `PATH`, and how. There is nothing to say where none is installed.
pub(in crate::server) const QUESTION: (&str, &[&str]) = ("pgbackrest", &["version"]);
/// Characters of an answer that are worth a line in the log.
const SHOWN: usize = 60;

/// Whether it is to be asked: the administrator has not forbidden it, somebody may be greeted with what it says, and
/// it would not be root's process, whom a `PATH` that others can write to would hand them.
pub(in crate::server) fn is_wanted(own: &OwnSettings, policy: &Policy) -> bool {
    own.installed_release && policy.general().is_none() && !geteuid().is_root()
}

/// The release that it has `printed`, if that is one of those that can be announced.
pub(in crate::server) fn release(printed: &[u8], table: &Table) -> Option<&'static Release> {
    let release = parse(printed).and_then(|version| table.find(version));
    if let Some(release) = release {
        log::info(format_args!(
            "the installed pgbackrest is {}, which is tried first on clients that are not known",
            release.version
        ));
    } else {
        let said: String = String::from_utf8_lossy(printed).trim_end().chars().take(SHOWN).collect();
        log::info(format_args!(
            "the installed pgbackrest says {said:?}, which names no release that is known, so nothing is made of it"
        ));
    }
    release
}

/// The release in `pgBackRest 2.55.1`, the one line that there has to be.
fn parse(printed: &[u8]) -> Option<&str> {
    let version = std::str::from_utf8(printed).ok()?.strip_prefix("pgBackRest ")?.strip_suffix('\n')?;
    Release::is_name(version).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_pgbackrest_says_of_itself_names_a_release() {
        assert_eq!(parse(b"pgBackRest 2.55.1\n"), Some("2.55.1"));
        assert_eq!(parse(b"pgBackRest 2.45\n"), Some("2.45"));
        for text in [
            "",
            "pgBackRest 2.55.1",
            "pgBackRest 2.55.1\n\n",
            "pgBackRest 2.55.1 \n",
            "pgBackRest  2.55.1\n",
            "pgBackRest \n",
            "pgBackRest 2.55.1\nWARN: something\n",
            "WARN: something\npgBackRest 2.55.1\n",
            "pgBackRest 2.61.0dev\n",
            "repohostd 0.1.0\n",
            "2.55.1\n",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse(b"pgBackRest 2.55\xff\n"), None);
    }

    #[test]
    fn nobody_is_asked_where_the_answer_is_forbidden_or_would_not_count() {
        let may = !geteuid().is_root();
        let wanted = |own: OwnSettings| is_wanted(&own, &Policy::new(&own).unwrap());
        assert_eq!(wanted(OwnSettings::default()), may);
        assert_eq!(wanted(OwnSettings { releases: vec!["2.45".to_owned()], ..OwnSettings::default() }), may);
        assert!(!wanted(OwnSettings { installed_release: false, ..OwnSettings::default() }));
        assert!(!wanted(OwnSettings { release: Some("2.45".to_owned()), ..OwnSettings::default() }));
    }
}
