//! That a segment is archived once: recovery stops where it finds two files of one segment.
//!
//! Whoever gives a segment its name claims the [right] to that first, and lists its directory then.

use super::layout::TEMPORARY_SUFFIX;

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
}
