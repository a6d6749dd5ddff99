//! That a segment is archived once: recovery stops where it finds two files of one segment.
//!
//! The directory is listed for that, which would cost more than all the rest of a small push. So what was
//! listed is remembered for a second, with what was added since through this process. Clients can only add what
//! they have claimed, and a claim tells when other processes had it.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::layout::TEMPORARY_SUFFIX;

/// How long a list is relied on: pgbackrest on this host may archive too.
const LISTED_LASTS: Duration = Duration::from_secs(1);
/// Directories that are remembered. Their names are 256 segments and some records each.
const DIRECTORIES: usize = 16;
/// A directory with more names than this is listed each time.
pub(in crate::repository) const NAMES_MAXIMUM: usize = 1024;

/// What directories of segments have, as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    listed: RefCell<VecDeque<Listed>>,
    /// How many listings were begun.
    begun: Cell<u64>,
}

/// Which listing this is, and a time before it was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::repository) struct Begun(u64, Instant);

#[derive(Debug)]
struct Listed {
    directory: String,
    /// Since when what is added is noted.
    since: Begun,
    /// When it was listed last, if it was.
    when: Option<Begun>,
    /// Segments and the checksums of their contents: what was there when it was listed, and perhaps more.
    segments: HashMap<String, String>,
}

/// A file of the same segment as another one.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::repository) enum Twin {
    /// With the same content, perhaps compressed in another way.
    Same,
    /// With other content; its name.
    Other(String),
}

/// The segment and the checksum of its content, of which a name is made.
fn split(name: &str) -> Option<(&str, &str)> {
    let (segment, rest) = name.split_once('-').filter(|_| !name.ends_with(TEMPORARY_SUFFIX))?;
    Some((segment, rest.split('.').next().unwrap_or_default()))
}

/// Which of `names` is of the same segment as `own`, but not that file.
pub(in crate::repository) fn twin<'a>(own: &str, mut names: impl Iterator<Item = &'a str>) -> Option<Twin> {
    let (segment, checksum) = split(own)?;
    names.find_map(|name| {
        let (_, other) = split(name).filter(|(other, _)| *other == segment && name != own)?;
        Some(if other == checksum { Twin::Same } else { Twin::Other(name.to_owned()) })
    })
}

/// What a writer claims to add `name` to `directory`: the right to add a file of its segment, which one has at a
/// time, from looking for others until its own is there.
pub(in crate::repository) fn right(directory: &str, name: &str) -> String {
    let (segment, _) = split(name).unwrap_or((name, ""));
    format!("{directory}/{segment}")
}

impl Segments {
    /// Whether it is known that there is no file of the segment of `name` in `directory`; others may have had the
    /// right to add one until `others`.
    pub(in crate::repository) fn is_missing(
        &self,
        directory: &str,
        name: &str,
        others: Option<Instant>,
        now: Instant,
    ) -> bool {
        let Some((segment, _)) = split(name) else { return false };
        let listed = self.listed.borrow();
        let found = listed.iter().find(|listed| listed.directory == directory);
        let Some((found, Begun(_, when))) = found.and_then(|found| Some((found, found.when?))) else { return false };
        let is_recent = now.saturating_duration_since(when) < LISTED_LASTS && others.is_none_or(|others| others < when);
        is_recent && !found.segments.contains_key(segment)
    }

    /// Begins to list `directory`: what is added from now on is noted.
    pub(in crate::repository) fn begin(&self, directory: &str, now: Instant) -> Begun {
        let begun = Begun(self.begun.get(), now);
        self.begun.set(begun.0 + 1);
        let mut listed = self.listed.borrow_mut();
        let index = listed.iter().position(|listed| listed.directory == directory);
        let found = index.and_then(|index| listed.remove(index));
        // What was removed stays in it, so that it may grow.
        let found = found.filter(|found| found.segments.len() <= NAMES_MAXIMUM).unwrap_or_else(|| Listed {
            directory: directory.to_owned(),
            since: begun,
            when: None,
            segments: HashMap::new(),
        });
        listed.truncate(DIRECTORIES - 1);
        listed.push_front(found);
        begun
    }

    /// Remembers what a listing of `directory` has found that was [begun](Self::begin) `when`.
    pub(in crate::repository) fn remember(&self, directory: &str, when: Begun, names: &[String]) {
        let mut listed = self.listed.borrow_mut();
        let found = listed.iter_mut().find(|listed| listed.directory == directory);
        // Another one may have been forgotten meanwhile, with what was added.
        let Some(found) = found.filter(|found| found.since <= when) else { return };
        let segments = names.iter().filter_map(|name| split(name));
        found.segments.extend(segments.map(|(segment, checksum)| (segment.to_owned(), checksum.to_owned())));
        found.when = found.when.max(Some(when));
    }

    /// Notes that `name` was added to `directory`.
    pub(in crate::repository) fn add(&self, directory: &str, name: &str) {
        let Some((segment, checksum)) = split(name) else { return };
        if let Some(found) = self.listed.borrow_mut().iter_mut().find(|listed| listed.directory == directory) {
            found.segments.insert(segment.to_owned(), checksum.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef0123456789abcdef01234567";
    const TWO: &str = "f123456789abcdef0123456789abcdef01234567";
    const SEGMENT: &str = "000000010000000000000001";

    #[test]
    fn a_segment_is_not_archived_twice() {
        let own = format!("{SEGMENT}-{ONE}.gz");
        let ask = |name: &str| twin(&own, ["other", name].into_iter());
        for name in [
            format!("{SEGMENT}-{ONE}.gz"),
            format!("{SEGMENT}-{TWO}.gz.pgbackrest.tmp"),
            format!("{SEGMENT}.partial-{TWO}.gz"),
            format!("000000010000000000000002-{TWO}.gz"),
            format!("{SEGMENT}.00000028.backup"),
        ] {
            assert_eq!(ask(&name), None, "{name}");
        }
        assert_eq!(ask(&format!("{SEGMENT}-{ONE}.zst")), Some(Twin::Same));
        assert_eq!(ask(&format!("{SEGMENT}-{ONE}")), Some(Twin::Same));
        let other = format!("{SEGMENT}-{TWO}.gz");
        assert_eq!(ask(&other), Some(Twin::Other(other)));
    }

    #[test]
    fn all_files_of_a_segment_need_one_right() {
        let of = |stanza: &str, name: &str| right(&format!("/r/archive/{stanza}/15-1/0000000100000000"), name);
        let first = of("demo", &format!("{SEGMENT}-{ONE}"));
        assert_eq!(first, of("demo", &format!("{SEGMENT}-{TWO}.gz")));
        assert_ne!(first, of("other", &format!("{SEGMENT}-{ONE}")));
        assert_ne!(first, of("demo", &format!("{SEGMENT}.partial-{ONE}")));
        assert_ne!(first, of("demo", &format!("000000010000000000000002-{ONE}")));
    }

    const DIRECTORY: &str = "/r/archive/demo/15-1/0000000100000000";

    fn segment(number: u8, checksum: &str) -> String {
        format!("0000000100000000000000{number:02X}-{checksum}")
    }

    #[test]
    fn what_was_listed_is_relied_on_for_a_second() {
        let (known, now) = (Segments::default(), Instant::now());
        let is_missing = |name: &str| known.is_missing(DIRECTORY, name, None, now);
        assert!(!is_missing(&segment(1, ONE)), "it was never listed");
        let when = known.begin(DIRECTORY, now);
        assert!(!is_missing(&segment(1, ONE)), "that takes a while");
        known.remember(DIRECTORY, when, &[segment(2, TWO)]);
        assert!(is_missing(&segment(1, ONE)));
        assert!(!is_missing(&segment(2, ONE)));
        known.add(DIRECTORY, &segment(1, ONE));
        assert!(!is_missing(&segment(1, TWO)), "it was added since");
        assert!(is_missing(&segment(3, ONE)));
        for number in 0..DIRECTORIES {
            let directory = number.to_string();
            known.remember(&directory, known.begin(&directory, now), &[]);
        }
        assert!(!is_missing(&segment(3, ONE)) && known.is_missing("0", &segment(3, ONE), None, now));
        let later = now + LISTED_LASTS;
        assert!(!known.is_missing("0", &segment(3, ONE), None, later), "that is long ago");
    }

    #[test]
    fn what_is_added_while_a_directory_is_listed_is_not_forgotten() {
        let (known, now) = (Segments::default(), Instant::now());
        let is_missing = |name: &str| known.is_missing(DIRECTORY, name, None, now);
        let when = known.begin(DIRECTORY, now);
        known.add(DIRECTORY, &segment(1, ONE));
        let later = known.begin(DIRECTORY, now);
        known.add(DIRECTORY, &segment(2, ONE));
        known.remember(DIRECTORY, later, &[]);
        known.remember(DIRECTORY, when, &[]);
        assert!(!is_missing(&segment(1, TWO)) && !is_missing(&segment(2, TWO)));
        assert!(is_missing(&segment(3, ONE)));

        let when = known.begin("forgotten", now);
        (0..DIRECTORIES).for_each(|number| _ = known.begin(&number.to_string(), now));
        known.add("forgotten", &segment(1, ONE));
        known.begin("forgotten", now);
        known.remember("forgotten", when, &[]);
        assert!(!known.is_missing("forgotten", &segment(1, TWO), None, now));
    }

    #[test]
    fn what_others_may_have_added_since_is_not_known() {
        let (known, before) = (Segments::default(), Instant::now());
        let now = before + Duration::from_millis(1);
        known.remember(DIRECTORY, known.begin(DIRECTORY, now), &[]);
        assert!(known.is_missing(DIRECTORY, &segment(1, ONE), Some(before), now));
        for others in [now, now + Duration::from_millis(1)] {
            assert!(!known.is_missing(DIRECTORY, &segment(1, ONE), Some(others), now));
        }
    }
}
