//! The back end that completes out of order and fails on purpose.

use super::super::scrambled::{Faults, Scrambled};
use super::*;

const fn ticket(operation: u64) -> Ticket {
    Ticket { session: 7, operation }
}

fn drain(disk: &mut Scrambled) -> Vec<(Ticket, Completion)> {
    let mut completions = Vec::new();
    while disk.outstanding() > 0 {
        completions.extend(disk.complete());
    }
    assert!(disk.complete().is_none());
    completions
}

/// Makes twenty directories at once; which completed in which order, and which failed.
fn course(seed: u64, faults: Faults) -> Vec<(u64, Option<i32>)> {
    let base = tempfile::tempdir().unwrap();
    let root = Root::new(base.path());
    let mut disk = Scrambled::new(seed, Options::default(), faults);
    for number in 0..20 {
        disk.submit(ticket(number), Operation::MakeDirectory { at: place(&root, &number.to_string()), mode: 0o750 });
    }
    assert_eq!(disk.outstanding(), 20);
    let completions = drain(&mut disk);
    let course: Vec<_> = completions
        .into_iter()
        .map(|(ticket, completion)| (ticket.operation, completion.err().map(|failure| failure.errno.0)))
        .collect();
    let failed = course.iter().filter(|(_, errno)| errno.is_some()).count();
    assert_eq!(disk.injected().len(), failed, "every failure was made up and none was lost");
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 20 - failed);
    course
}

#[test]
fn a_seed_decides_the_course_of_events() {
    let faults = Faults { other: 300, delay: 400, ..Faults::default() };
    assert_eq!(course(1, faults), course(1, faults));
    assert_ne!(course(1, faults), course(2, faults));
    let order: Vec<u64> = course(0, Faults::default()).into_iter().map(|(operation, _)| operation).collect();
    assert!(!order.is_sorted(), "{order:?}");
    let mut sorted = order;
    sorted.sort_unstable();
    assert_eq!(sorted, (0..20).collect::<Vec<_>>());
}

#[test]
fn reads_and_writes_in_pieces_are_whole_in_the_end() {
    let base = tempfile::tempdir().unwrap();
    let root = Root::new(base.path());
    for seed in 0..20 {
        let mut disk = Scrambled::new(seed, Options::default(), Faults::default());
        let mut run = |operation| {
            disk.submit(ticket(seed), operation);
            drain(&mut disk).pop().unwrap().1
        };
        let written = file(run(Operation::OpenWrite { at: place(&root, "file"), mode: 0o640, fresh: false }));
        let data: Vec<u8> = (0..=255).collect();
        assert!(matches!(
            run(Operation::Write { file: written, data: data.clone(), offset: 0 }),
            Ok(Outcome::Written(_))
        ));
        let read = file(run(Operation::OpenRead { at: place(&root, "file") }));
        let operation = Operation::Read { file: read, buffer: Vec::with_capacity(300), length: 300, offset: 0 };
        assert_eq!(bytes(run(operation)), data);
    }
}

#[test]
fn faults_strike_where_they_were_ordered() {
    let base = tempfile::tempdir().unwrap();
    let root = Root::new(base.path());
    let mut disk = Scrambled::new(3, Options::default(), Faults::default());
    let mut run = |faults, operation| {
        disk.set_faults(faults);
        disk.submit(ticket(0), operation);
        let completion = drain(&mut disk).pop().unwrap().1;
        (completion, disk.injected().len())
    };
    let fine = Faults::default();
    let (completion, _) = run(fine, Operation::OpenWrite { at: place(&root, "file"), mode: 0o640, fresh: false });
    let handle = file(completion);
    let open = Operation::OpenRead { at: place(&root, "file") };
    let read = Operation::Read { file: handle.clone(), buffer: Vec::new(), length: 1, offset: 0 };
    let write = Operation::Write { file: handle.clone(), data: b"data".to_vec(), offset: 0 };
    let rename =
        Operation::Rename { over: Over::Anything, file: None, from: place(&root, "file"), to: place(&root, "renamed") };
    let mut injected = 0;
    for (faults, operation) in [
        (Faults { open: 1000, ..fine }, open),
        (Faults { read: 1000, ..fine }, read),
        (Faults { write: 1000, ..fine }, write),
        (Faults { sync: 1000, ..fine }, Operation::Sync { file: handle.clone() }),
        (Faults { rename: 1000, ..fine }, rename),
        (Faults { close: 1000, ..fine }, Operation::Close { file: handle }),
    ] {
        let text = format!("{operation:?}");
        let (completion, count) = run(faults, operation);
        injected += 1;
        assert!(matches!(completion, Err(Failure { errno: Errno::IO | Errno::NOSPC, .. })), "{text}: {completion:?}");
        assert_eq!(count, injected, "{text}");
    }
    assert!(base.path().join("file").exists() && !base.path().join("renamed").exists());
}
