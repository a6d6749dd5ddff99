//! The repository that sessions work on, and what is around it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use repohostd_fuzz::wire::RECORDED;

/// What nobody may ever get to see.
pub const SECRET: &[u8] = b"TOP-SECRET-OF-SOMEBODY-ELSE";
/// A backup that is finished.
pub const LABEL: &str = "20261125-030052F";
pub const SEGMENT: &str = "000000010000000000000002-0123456789abcdef0123456789abcdef01234567.gz";

const BACKUP_INFO: &[u8] = include_bytes!("../../../../src/repository/policy/info/data/2.45-full.backup.info");
const ARCHIVE_INFO: &[u8] = include_bytes!("../../../../src/repository/policy/info/data/2.45.archive.info");

/// Directories of one process of the fuzzer, in memory where that is possible.
pub struct Place {
    /// The repository, whose path is as long as the recorded one.
    pub base: PathBuf,
    /// Everything else.
    pub beside: PathBuf,
}

impl Place {
    /// A new repository with a stanza of ours, `demo`, and one of somebody else.
    pub fn new() -> Self {
        let (mut number, mut name) = (std::process::id(), String::new());
        for _ in 0..5 {
            name.insert(0, char::from_digit(number % 36, 36).expect("it is a digit"));
            number /= 36;
        }
        let base =
            if Path::new("/dev/shm").is_dir() { format!("/dev/shm/r{name}") } else { format!("/tmp/repoh{name}") };
        assert_eq!(base.len(), RECORDED.len());
        let place = Self { beside: format!("{base}.beside").into(), base: base.into() };
        place.clear();
        place.make().expect("there is room for a repository");
        place
    }

    fn make(&self) -> std::io::Result<()> {
        let write = |name: &str, content: &[u8]| fs::write(self.base.join(name), content);
        for directory in [
            &format!("archive/demo/15-1/{}", &SEGMENT[..16])[..],
            &format!("backup/demo/{LABEL}/pg_data"),
            "archive/other",
        ] {
            fs::create_dir_all(self.base.join(directory))?;
        }
        fs::create_dir_all(self.beside.join("lock"))?;
        fs::write(self.beside.join("secret"), SECRET)?;
        write("archive/other/secret", SECRET)?;
        for copy in ["", ".copy"] {
            write(&format!("archive/demo/archive.info{copy}"), ARCHIVE_INFO)?;
            write(&format!("backup/demo/backup.info{copy}"), BACKUP_INFO)?;
            write(&format!("backup/demo/{LABEL}/backup.manifest{copy}"), b"[backup]\n")?;
        }
        write(&format!("archive/demo/15-1/{}/{SEGMENT}", &SEGMENT[..16]), &[7; 5000])?;
        write(&format!("backup/demo/{LABEL}/pg_data/x"), &[8; 70_000])?;
        symlink(LABEL, self.base.join("backup/demo/latest"))?;
        symlink(&self.beside, self.base.join("archive/demo/evil"))?;
        symlink("../other", self.base.join("archive/demo/neighbour"))
    }

    fn clear(&self) {
        for path in [&self.base, &self.beside] {
            if path.exists() {
                fs::remove_dir_all(path).expect("it can be removed");
            }
        }
    }

    /// All files below a directory, with what is in them; directories and links too.
    pub fn contents(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let (mut found, mut pending) = (BTreeMap::new(), vec![path.to_path_buf()]);
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten() {
                let path = entry.expect("it can be read").path();
                let kind = fs::symlink_metadata(&path).expect("it is there").file_type();
                let content = if kind.is_dir() {
                    pending.push(path.clone());
                    Vec::new()
                } else if kind.is_file() {
                    fs::read(&path).expect("it can be read")
                } else {
                    fs::read_link(&path).map(|to| to.into_os_string().into_encoded_bytes()).unwrap_or_default()
                };
                found.insert(path, content);
            }
        }
        found
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clear();
    }
}
