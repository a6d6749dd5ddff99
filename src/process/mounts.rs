//! The file systems that this process sees.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A line of `mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Major and minor number of its device.
    pub device: (u32, u32),
    /// Where it is mounted.
    pub place: PathBuf,
    /// Its kind, such as `ext4`.
    pub name: String,
}

/// All, in the order in which they were mounted; none where `/proc` is missing.
#[must_use]
pub fn read() -> Vec<Mount> {
    std::fs::read("/proc/self/mountinfo").map(|text| parse(&text)).unwrap_or_default()
}

/// Those in the text of a `mountinfo` file.
#[must_use]
pub fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(mount).collect()
}

/// The one that a path is on, by its name alone. Of those at one place the last one covers the others.
#[must_use]
pub fn above<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let above = mounts.iter().filter(|mount| path.starts_with(&mount.place));
    above.max_by_key(|mount| mount.place.as_os_str().len())
}

/// `ID PARENT MAJOR:MINOR ROOT PLACE OPTIONS [FIELDS…] - NAME SOURCE OPTIONS`
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?.split_once(':')?;
    let device = (device.0.parse().ok()?, device.1.parse().ok()?);
    let place = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let name = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mount { device, place, name: String::from_utf8_lossy(name).into_owned() })
}

/// Blanks and backslashes are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let octal = (*byte == b'\\').then(|| after.get(..3)).flatten();
        let octal = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(octal.unwrap_or(*byte));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    plain
}
