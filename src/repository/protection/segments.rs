//! That a segment is archived once: recovery stops where it finds two files of one segment.
//!
//! The directory is listed for that, which would cost more than all the rest of a small push. So what was
//! listed is remembered for a second, with what was added since through this server, which is all that
//! clients can add.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::repository::write::TEMPORARY_SUFFIX;

/// How long a list is relied on: pgbackrest on this host may archive too.
const LISTED_LASTS: Duration = Duration::from_secs(1);
/// Directories that are remembered. Their names are 256 segments and some records each.
const DIRECTORIES: usize = 16;
/// A directory with more names than this is listed each time.
pub(in crate::repository) const NAMES_MAXIMUM: usize = 1024;

thread_local! {
    static LISTED: RefCell<VecDeque<Listed>> = const { RefCell::new(VecDeque::new()) };
    static CLAIMED: RefCell<HashSet<String>> = RefCell::default();
}

struct Listed {
    directory: String,
    when: Instant,
    /// Segments and the checksums of their contents.
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

/// The right to add a file of one segment, which one writer has at a time: from looking for others until
/// its own is there.
#[derive(Debug)]
pub(in crate::repository) struct Claim(String);

impl Claim {
    /// The right to add `name` to `directory`, unless somebody is about to add a file of that segment.
    pub(in crate::repository) fn take(directory: &str, name: &str) -> Option<Self> {
        let (segment, _) = split(name).unwrap_or((name, ""));
        let claim = format!("{directory}/{segment}");
        let is_new = CLAIMED.with_borrow_mut(|claimed| claimed.insert(claim.clone()));
        // Not `then_some`: a claim that is made and dropped gives up the other writer's.
        is_new.then(|| Self(claim))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        CLAIMED.with_borrow_mut(|claimed| claimed.remove(&self.0));
    }
}

/// Whether it is known that there is no file of the segment of `name` in `directory`.
pub(in crate::repository) fn is_missing(directory: &str, name: &str) -> bool {
    let Some((segment, _)) = split(name) else { return false };
    LISTED.with_borrow(|listed| {
        let found = listed.iter().find(|listed| listed.directory == directory);
        found.is_some_and(|found| found.when.elapsed() < LISTED_LASTS && !found.segments.contains_key(segment))
    })
}

/// Remembers that `directory` was listed `when`, with these names.
pub(in crate::repository) fn remember(directory: String, when: Instant, names: &[String]) {
    let segments = names.iter().filter_map(|name| split(name));
    let segments = segments.map(|(segment, checksum)| (segment.to_owned(), checksum.to_owned())).collect();
    LISTED.with_borrow_mut(|listed| {
        listed.retain(|listed| listed.directory != directory);
        listed.truncate(DIRECTORIES - 1);
        listed.push_front(Listed { directory, when, segments });
    });
}

/// Notes that `name` was added to `directory`.
pub(in crate::repository) fn add(directory: &str, name: &str) {
    let Some((segment, checksum)) = split(name) else { return };
    LISTED.with_borrow_mut(|listed| {
        if let Some(found) = listed.iter_mut().find(|listed| listed.directory == directory) {
            found.segments.insert(segment.to_owned(), checksum.to_owned());
        }
    });
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
    fn one_writer_at_a_time_adds_a_segment() {
        let claim =
            |checksum: &str| Claim::take("/r/archive/demo/15-1/0000000100000000", &format!("{SEGMENT}-{checksum}"));
        let first = claim(ONE);
        assert!(first.is_some());
        assert!(claim(ONE).is_none() && claim(TWO).is_none());
        assert!(Claim::take("/r/archive/other/15-1/0000000100000000", &format!("{SEGMENT}-{TWO}")).is_some());
        drop(first);
        assert!(claim(TWO).is_some());
    }

    #[test]
    fn what_was_listed_is_relied_on_for_a_second() {
        let (directory, now) = ("/r/archive/demo/15-1/0000000100000000", Instant::now());
        let name = format!("{SEGMENT}-{ONE}.gz");
        assert!(!is_missing(directory, &name), "it was never listed");
        remember(directory.to_owned(), now, &["000000010000000000000002-".to_owned() + TWO]);
        assert!(is_missing(directory, &name));
        assert!(!is_missing(directory, &format!("000000010000000000000002-{ONE}")));
        add(directory, &name);
        assert!(!is_missing(directory, &format!("{SEGMENT}-{TWO}.zst")), "it was added since");
        let name = format!("000000010000000000000003-{ONE}");
        assert!(is_missing(directory, &name));
        if let Some(before) = now.checked_sub(LISTED_LASTS) {
            remember(directory.to_owned(), before, &[]);
            assert!(!is_missing(directory, &name), "that is long ago");
        }
        for number in 0..DIRECTORIES {
            remember(number.to_string(), now, &[]);
        }
        assert!(!is_missing(directory, &name) && is_missing("0", &name));
    }
}
