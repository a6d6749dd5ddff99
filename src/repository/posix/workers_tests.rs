//! That several processes on one repository archive a segment once. Each worker stands for a process: it has
//! its own memory of what it listed and its own part in the exclusion.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use super::write::WriteStream;
use super::write::tests::request;
use crate::config::Role;
use crate::disk::exclusion::Exclusion;
use crate::disk::inline::Options;
use crate::disk::offload::Offload;
use crate::disk::{Completion, Disk, Operation, Ticket};
use crate::protocol::error::{Code, Result};
use crate::protocol::release::Release;
use crate::repository::policy::access::Access;
use crate::repository::policy::guard::{Guard, Measures};
use crate::repository::policy::layout::TEMPORARY_SUFFIX;
use crate::repository::policy::view::View;
use crate::repository::{Shared, Step};

const DIRECTORY: &str = "archive/demo/15-1/0000000100000000";

struct Worker<'a> {
    base: &'a Path,
    disk: Offload,
    poll: Poll,
    shared: Rc<Shared>,
    listings: usize,
}

impl<'a> Worker<'a> {
    fn new(base: &'a Path, exclusion: Option<&OwnedFd>) -> Self {
        let exclusion = exclusion.map(|file| Exclusion::join(file.as_fd()).unwrap());
        // Without helpers it does all itself.
        let nobody = |_| Err(std::io::ErrorKind::OutOfMemory.into());
        let mut disk = Offload::new(Options::default(), nobody, exclusion);
        let poll = Poll::new().unwrap();
        disk.watch(poll.registry().try_clone().unwrap(), 0);
        Self { base, disk, poll, shared: Rc::default(), listings: 0 }
    }

    fn run(&mut self, operation: Operation) -> Completion {
        self.listings += usize::from(matches!(operation, Operation::List { .. }));
        self.disk.submit(Ticket { session: 0, operation: 0 }, operation);
        let mut events = Events::with_capacity(8);
        loop {
            if let Some((_, completion)) = self.disk.complete() {
                return completion;
            }
            let longest = self.disk.deadline().map(|at| at.saturating_duration_since(Instant::now()));
            let longest = longest.unwrap_or(Duration::from_secs(10));
            if let Err(error) = self.poll.poll(&mut events, Some(longest)) {
                assert_eq!(error.kind(), std::io::ErrorKind::Interrupted);
            }
            events.iter().for_each(|event| self.disk.ready(event.token().0));
        }
    }

    /// Begins to archive a file of a segment.
    fn begin(&mut self, name: &str) -> Result<Push> {
        let base = self.base.display().to_string();
        let path = format!("{base}/{DIRECTORY}/{name}").into_bytes();
        let view = View::new(&base, Some("demo"), Role::Archiver, false);
        let guard = Guard::new(Measures { role: Role::Archiver, ..Measures::of_nobody() }, &self.shared.finished);
        let place = view.locate(&path, Access::Write)?;
        let safeguard = guard.safeguard(&view, &place, &path, &[])?;
        let (stream, step) = WriteStream::begin(request(), place.location, safeguard, Release::newest(), &self.shared)?;
        Ok(Push(stream, step))
    }

    /// Goes on by one operation; whether that was the last.
    fn advance(&mut self, Push(stream, step): &mut Push) -> Result<bool> {
        *step = match std::mem::replace(step, Step::Work) {
            Step::Disk(operation) => stream.resume(self.run(operation))?,
            Step::Done(answer) if answer.close => return Ok(true),
            Step::Done(_) => {
                stream.feed(&mut &b"wal"[..])?;
                stream.finish()?
            }
            step => panic!("{step:?}"),
        };
        Ok(false)
    }

    fn push(&mut self, name: &str) -> Result<()> {
        let mut push = self.begin(name)?;
        while !self.advance(&mut push)? {}
        Ok(())
    }
}

/// A file of a segment on its way.
struct Push(WriteStream, Step);

fn name(segment: usize, checksum: usize, suffix: &str) -> String {
    format!("0000000100000000{segment:08X}-{checksum:040x}{suffix}")
}

/// The files of each segment.
fn archived(base: &Path) -> HashMap<String, Vec<String>> {
    let mut archived = HashMap::<_, Vec<_>>::new();
    for entry in fs::read_dir(base.join(DIRECTORY)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.ends_with(TEMPORARY_SUFFIX) {
            archived.entry(name[..24].to_owned()).or_default().push(name);
        }
    }
    archived
}

#[test]
fn of_twins_in_several_processes_one_gets_its_name() {
    const ROUNDS: usize = 200;
    let base = tempfile::tempdir().unwrap();
    let file = Exclusion::create().unwrap();
    let mut workers = [(); 3].map(|()| Worker::new(base.path(), Some(&file)));
    let (mut random, mut wins) = (1_u32, vec![0; ROUNDS]);
    for (segment, wins) in wins.iter_mut().enumerate() {
        let begin =
            |(number, worker): (usize, &mut Worker<'_>)| (number, worker.begin(&name(segment, number, "")).unwrap());
        let mut pushes: Vec<_> = workers.iter_mut().enumerate().map(begin).collect();
        while !pushes.is_empty() {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let index = (random >> 16) as usize % pushes.len();
            let (number, push) = &mut pushes[index];
            match workers[*number].advance(push) {
                Ok(false) => continue,
                Ok(true) => *wins += 1,
                Err(error) => assert!([Code::Access, Code::FileMove].contains(&error.code), "{error}"),
            }
            pushes.swap_remove(index);
        }
    }
    assert_eq!(wins, [1; ROUNDS]);
    assert_eq!(archived(base.path()).values().map(Vec::len).collect::<Vec<_>>(), wins);
}

#[test]
fn who_archives_through_several_processes_by_turns_has_the_directory_listed_now_and_then() {
    let base = tempfile::tempdir().unwrap();
    let file = Exclusion::create().unwrap();
    let begun = Instant::now();
    let [mut one, mut other] = [(); 2].map(|()| Worker::new(base.path(), Some(&file)));
    for segment in 0..100 {
        one.push(&name(2 * segment, 1, ".gz")).unwrap();
        other.push(&name(2 * segment + 1, 1, ".gz")).unwrap();
        let twin = one.push(&name(2 * segment + 1, 2, ".gz")).unwrap_err();
        assert_eq!(twin.code, Code::Access, "{twin}");
        one.push(&name(2 * segment + 1, 1, ".zst")).unwrap();
    }
    // Those for the twins are needed.
    let listings = (one.listings - 200) + other.listings;
    assert_eq!(archived(base.path()).values().map(Vec::len).collect::<Vec<_>>(), [1; 200]);
    let allowed = 2 * (1 + usize::try_from(begun.elapsed().as_secs()).unwrap());
    // Two segments may look like one to the others.
    assert!(listings <= allowed + 10, "{listings} listings");
}
