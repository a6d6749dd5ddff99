//! Keeps the version of an info file that is about to be replaced ([`versions`](crate::repository::policy::versions)).

use std::fmt::Write as _;
use std::rc::Rc;

use bstr::{BString, ByteSlice};
use jiff::SignedDuration;

use super::commit::{Commit, Reached, Terms};
use super::make_path::MakePath;
use super::whole_file::{Contents, WholeFile};
use crate::disk::{Completion, Entry, Errno, Kind, Level, Location, Operation, Outcome, Over};
use crate::protocol::error::{Code, Result};
use crate::repository::policy::versions::{VersionName, Versions};
use crate::repository::{Next, Shared, failed, unexpected_outcome};

/// Permission bits of a version.
const FILE_MODE: u32 = 0o640;
/// Permission bits of the directories that are made.
const PATH_MODE: u32 = 0o750;
/// Suffix of the name under which a version is written.
const TEMPORARY_SUFFIX: &str = ".tmp";
/// A temporary name that is older than this belongs to a server that crashed.
const ABANDONED: SignedDuration = SignedDuration::from_hours(1);
/// How a version is put on the disk.
const TERMS: Terms = Terms { modified: 0, sync_file: true, sync_path: true, after: "" };

#[derive(Debug)]
enum Phase {
    Listing,
    /// Reading the newest version, since the same need not be kept twice.
    Comparing(WholeFile),
    MakingPath(MakePath),
    Opening(Commit),
    Writing(Commit),
    Committing(Commit),
    /// Removing what is too much, the last one first.
    Removing(Vec<Location>),
    Over,
}

/// A version that is being kept.
#[derive(Debug)]
pub(crate) struct Keep {
    shared: Rc<Shared>,
    versions: Versions,
    directory: Location,
    bytes: Vec<u8>,
    /// What is there, with its size.
    found: Vec<(VersionName, u64)>,
    abandoned: Vec<BString>,
    name: VersionName,
    phase: Phase,
}

impl Keep {
    /// Starts to keep `bytes` as the version of `file` that is replaced now. Error 64 for a path that cannot be used
    /// below another one.
    pub(crate) fn begin(
        shared: &Rc<Shared>,
        versions: Versions,
        file: &Location,
        bytes: Vec<u8>,
    ) -> Result<(Self, Operation)> {
        let directory = versions.directory(file)?;
        let operation = Operation::List { at: directory.clone(), level: Level::Basic };
        let (shared, name) = (Rc::clone(shared), VersionName::at(shared.now.get()));
        let (found, abandoned, phase) = (vec![], vec![], Phase::Listing);
        let keep = Self { shared, versions, directory, bytes, found, abandoned, name, phase };
        Ok((keep, operation))
    }

    /// About how many bytes it holds.
    pub(crate) fn memory(&self) -> usize {
        self.bytes.capacity() * if matches!(self.phase, Phase::Comparing(_)) { 2 } else { 1 }
    }

    /// Goes on after `completion`, until the version is kept. After an error the file must not be replaced.
    pub(crate) fn resume(&mut self, completion: Completion) -> Result<Next<()>> {
        self.advance(completion).map_err(|mut error| {
            let path = self.versions.path().display();
            // Writing to a string does not fail.
            let _ = write!(
                error.message,
                "\nHINT: the present version is kept in history-path '{path}' of the repository host before it is \
                 replaced; see to its space and permissions, or keep none with info-history=0 in repohostd.conf."
            );
            error
        })
    }

    fn advance(&mut self, completion: Completion) -> Result<Next<()>> {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Listing => match completion {
                Ok(Outcome::Entries(entries, rest)) => {
                    for entry in entries {
                        self.found(&entry);
                    }
                    match rest {
                        Some(listing) => Ok(self.wait(Phase::Listing, Operation::ListMore { listing })),
                        None => self.compare(),
                    }
                }
                Ok(_) => Err(unexpected_outcome()),
                Err(failure) if failure.errno == Errno::NOENT => {
                    let (path, operation) = MakePath::begin(&self.shared, self.directory.clone(), true, PATH_MODE);
                    Ok(self.wait(Phase::MakingPath(path), operation))
                }
                Err(failure) => {
                    Err(failed(Code::PathOpen, "unable to list file info for path", &self.directory, failure.errno))
                }
            },
            Phase::Comparing(mut file) => match file.resume(completion)? {
                Next::Disk(operation) => Ok(self.wait(Phase::Comparing(file), operation)),
                Next::Done(Ok(Contents::Read(bytes))) if bytes == self.bytes => Ok(Next::Done(())),
                // Whatever is the matter with it, one more does no harm.
                Next::Done(_) => self.open(),
            },
            Phase::MakingPath(mut path) => match path.resume(completion)? {
                Next::Disk(operation) => Ok(self.wait(Phase::MakingPath(path), operation)),
                Next::Done(()) => self.open(),
            },
            Phase::Opening(mut commit) => match completion {
                Ok(Outcome::File(file)) => {
                    commit.opened(file.clone());
                    let data = std::mem::take(&mut self.bytes);
                    Ok(self.wait(Phase::Writing(commit), Operation::Write { file, data, offset: 0 }))
                }
                Ok(_) => Err(unexpected_outcome()),
                Err(failure) => {
                    Err(failed(Code::FileOpen, "unable to open file for write", commit.place(), failure.errno))
                }
            },
            Phase::Writing(mut commit) => {
                completion
                    .map_err(|failure| failed(Code::FileWrite, "unable to write", commit.place(), failure.errno))?;
                let operation = commit.begin()?;
                Ok(self.wait(Phase::Committing(commit), operation))
            }
            Phase::Committing(mut commit) => {
                let next = match commit.resume(&self.shared, completion)? {
                    Next::Done(Reached::Written) => commit.rename(&self.shared, Over::Nothing),
                    Next::Done(Reached::Named) => commit.settle(&self.shared),
                    next => next,
                };
                match next {
                    Next::Disk(operation) => Ok(self.wait(Phase::Committing(commit), operation)),
                    Next::Done(Reached::Refused(errno)) => {
                        Err(failed(Code::FileMove, "unable to move to its name", commit.place(), errno))
                    }
                    Next::Done(_) => self.remove_surplus(),
                }
            }
            Phase::Removing(mut left) => {
                let at = left.pop().ok_or_else(unexpected_outcome)?;
                match completion {
                    Err(failure) if failure.errno != Errno::NOENT => {
                        Err(failed(Code::FileRemove, "unable to remove old version", &at, failure.errno))
                    }
                    _ => Ok(self.remove(left)),
                }
            }
            Phase::Over => Err(unexpected_outcome()),
        }
    }

    fn wait(&mut self, phase: Phase, operation: Operation) -> Next<()> {
        self.phase = phase;
        Next::Disk(operation)
    }

    fn found(&mut self, entry: &Entry) {
        if entry.metadata.kind != Kind::File {
            return;
        }
        // Others are no names of ours.
        let Ok(name) = entry.name.to_str() else { return };
        if let Some(name) = VersionName::parse(name) {
            self.found.push((name, entry.metadata.size));
        } else if let Some(name) = name.strip_suffix(TEMPORARY_SUFFIX).and_then(VersionName::parse)
            && self.shared.now.get().duration_since(name.time()) > ABANDONED
        {
            self.abandoned.push(entry.name.clone());
        }
    }

    /// Reads the newest version if it may be the same.
    fn compare(&mut self) -> Result<Next<()>> {
        self.found.sort_unstable();
        let Some((newest, size)) = self.found.last().copied() else { return self.open() };
        self.name = newest.or_later(self.shared.now.get());
        if size != self.bytes.len() as u64 {
            return self.open();
        }
        let (file, operation) = WholeFile::begin(self.place(newest.to_string())?, self.bytes.len());
        Ok(self.wait(Phase::Comparing(file), operation))
    }

    fn open(&mut self) -> Result<Next<()>> {
        let target = self.place(self.name.to_string())?;
        let temporary = self.place(format!("{}{TEMPORARY_SUFFIX}", self.name))?;
        let operation = Operation::OpenWrite { at: temporary.clone(), mode: FILE_MODE, fresh: true };
        Ok(self.wait(Phase::Opening(Commit::new(target, Some(temporary), TERMS)), operation))
    }

    fn remove_surplus(&mut self) -> Result<Next<()>> {
        let mut names: Vec<_> = self.found.iter().map(|(name, _)| *name).collect();
        names.push(self.name);
        let surplus = self.versions.surplus(&names).into_iter().map(|name| name.to_string().into());
        let surplus = surplus.chain(std::mem::take(&mut self.abandoned));
        let surplus = surplus.map(|name: BString| self.place(&name)).collect::<Result<_>>()?;
        Ok(self.remove(surplus))
    }

    fn remove(&mut self, left: Vec<Location>) -> Next<()> {
        let Some(at) = left.last().cloned() else { return Next::Done(()) };
        self.wait(Phase::Removing(left), Operation::RemoveFile { at })
    }

    fn place(&self, name: impl AsRef<[u8]>) -> Result<Location> {
        let path = self.directory.path.join(name).ok_or_else(|| {
            failed(Code::FileOpen, "unable to open file for write below", &self.directory, Errno::NAMETOOLONG)
        })?;
        Ok(Location::new(Rc::clone(&self.directory.root), path))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::disk::inline::Options;
    use crate::disk::scrambled::{Faults, Scrambled};
    use std::path::PathBuf;

    use crate::disk::{Disk, RelativePath, Root, Ticket};

    const FILE: &str = "backup/demo/backup.info";

    struct Bench {
        directory: tempfile::TempDir,
        disk: Scrambled,
        now: Timestamp,
    }

    impl Bench {
        fn new() -> Self {
            let disk = Scrambled::new(7, Options::default(), Faults::default());
            Self { directory: tempfile::tempdir().unwrap(), disk, now: "2026-11-25T10:11:12.1234567Z".parse().unwrap() }
        }

        fn keep(&mut self, bytes: &[u8], count: usize) -> Result<()> {
            let versions = Versions::new(self.directory.path().join("state/history"), count).unwrap();
            let file = Location::new(Root::new("/srv/repo"), RelativePath::new(FILE).unwrap());
            let shared = Rc::<Shared>::default();
            shared.now.set(self.now);
            let (mut keep, operation) = Keep::begin(&shared, versions, &file, bytes.to_vec())?;
            let mut next = Next::Disk(operation);
            while let Next::Disk(operation) = next {
                self.disk.submit(Ticket { session: 0, operation: 0 }, operation);
                let completion = loop {
                    if let Some((_, completion)) = self.disk.complete() {
                        break completion;
                    }
                };
                next = keep.resume(completion)?;
            }
            Ok(())
        }

        fn place(&self) -> PathBuf {
            self.directory.path().join("state/history/srv/repo").join(FILE)
        }

        fn names(&self) -> Vec<String> {
            let entries = std::fs::read_dir(self.place()).into_iter().flatten();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    #[test]
    fn a_version_is_a_file_named_by_its_time_that_only_its_owner_and_group_can_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let mut bench = Bench::new();
        bench.keep(b"first", 9).unwrap();
        assert_eq!(bench.names(), ["20261125T101112.123456Z"]);
        let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let umask = 0o777 & !mode(bench.place()) & !0o750;
        assert_eq!(mode(bench.place().join("20261125T101112.123456Z")) | umask & 0o640, 0o640);
        assert_eq!(mode(bench.directory.path().join("state/history/srv")) & 0o007, 0);
        bench.keep(b"first", 9).unwrap();
        assert_eq!(bench.names().len(), 1, "the same is not kept twice");
        bench.keep(b"other", 9).unwrap();
        bench.now = "2026-11-25T09:00:00Z".parse().unwrap();
        bench.keep(b"third", 9).unwrap();
        let names = ["20261125T101112.123456Z", "20261125T101112.123457Z", "20261125T101112.123458Z"];
        assert_eq!(bench.names(), names, "names are in the order of keeping, whatever the clock does");
        assert_eq!(std::fs::read(bench.place().join(names[2])).unwrap(), b"third");
    }

    #[test]
    fn what_is_too_much_goes_oldest_first_but_one_version_of_each_day_outlives_a_flood() {
        let mut bench = Bench::new();
        bench.now = "2026-11-20T08:00:00Z".parse().unwrap();
        for round in 0..5 {
            bench.keep(format!("day {round}").as_bytes(), 2).unwrap();
            bench.now += SignedDuration::from_hours(24);
        }
        let other = bench.place().join("README");
        std::fs::write(&other, "somebody's").unwrap();
        std::fs::write(bench.place().join("20261120T000000.000000Z.tmp"), "of a crash").unwrap();
        std::fs::write(bench.place().join("20261125T075959.000000Z.tmp"), "of another writer").unwrap();
        for round in 0..50 {
            bench.keep(format!("flood {round}").as_bytes(), 2).unwrap();
            bench.now += SignedDuration::from_secs(1);
        }
        let expected = [
            "20261124T080000.000000Z",
            "20261125T075959.000000Z.tmp",
            "20261125T080000.000000Z",
            "20261125T080048.000000Z",
            "20261125T080049.000000Z",
            "README",
        ];
        assert_eq!(bench.names(), expected);
    }

    #[test]
    fn whatever_fails_is_an_error_that_names_the_path_and_the_remedy() {
        let mut bench = Bench::new();
        bench.keep(b"first", 9).unwrap();
        let faults = [
            Faults { open: 1000, ..Faults::default() },
            Faults { write: 1000, ..Faults::default() },
            Faults { sync: 1000, ..Faults::default() },
            Faults { close: 1000, ..Faults::default() },
            Faults { rename: 1000, ..Faults::default() },
        ];
        for fault in faults {
            bench.disk.set_faults(fault);
            let error = bench.keep(b"another", 9).unwrap_err();
            assert!(error.message.contains("/state/history/srv/repo/backup/demo/backup.info"), "{error}");
            assert!(error.message.contains("info-history=0"), "{error}");
        }
        bench.disk.set_faults(Faults { other: 1000, ..Faults::default() });
        std::fs::remove_dir_all(bench.directory.path().join("state")).unwrap();
        let error = bench.keep(b"another", 9).unwrap_err();
        assert_eq!(error.code, Code::PathCreate, "{error}");
        bench.disk.set_faults(Faults::default());
        bench.keep(b"another", 9).unwrap();
        assert_eq!(bench.names().len(), 1);
    }
}
