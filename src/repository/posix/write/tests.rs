//! What becomes of files that are written.

use super::data::{CHUNK, SLICE};
use super::*;
use crate::disk::inline::{Inline, Options};
use crate::disk::{Disk, RelativePath, Root, Ticket};

pub(in crate::repository) fn request() -> WriteRequest {
    WriteRequest {
        file: "unused".into(),
        file_mode: 0o640,
        path_mode: 0o750,
        user: None,
        group: None,
        modified: 0,
        create_path: true,
        sync_file: true,
        sync_path: true,
        atomic: true,
        filters: Vec::new(),
    }
}

fn run(disk: &mut Inline, stream: &mut WriteStream, mut step: Step) -> Result<Answer> {
    loop {
        match step {
            Step::Disk(operation) => {
                disk.submit(Ticket { session: 0, operation: 0 }, operation);
                step = stream.resume(disk.complete().unwrap().1)?;
            }
            Step::Work => step = stream.work()?,
            Step::Done(answer) => return Ok(answer),
            Step::Ready => return Ok(Answer::null()),
            Step::Part(_) | Step::Wait => unreachable!("a write answers as a whole and waits for nobody"),
        }
    }
}

#[test]
fn a_few_bytes_that_decompress_to_many_do_not_keep_other_clients_waiting() {
    use crate::protocol::filter::FilterSpec;
    let directory = tempfile::tempdir().unwrap();
    let at = Location::new(Root::new(directory.path()), RelativePath::new("file").unwrap());
    let mut disk = Inline::new(Options::default());
    let filters = vec![FilterSpec::ZstDecompress, FilterSpec::Sink];
    let (mut stream, step) = WriteStream::begin(
        WriteRequest { filters, ..request() },
        at,
        Safeguard::default(),
        Release::newest(),
        &Rc::default(),
    )
    .unwrap();
    run(&mut disk, &mut stream, step).unwrap();
    let length = 64 << 20;
    let bomb = zstd::bulk::compress(&vec![0; length], 1).unwrap();
    let mut data = bomb.as_slice();
    let mut slices = 0;
    while !data.is_empty() {
        match stream.feed(&mut data).unwrap() {
            Fed::Taken => {}
            Fed::Disk(_) => panic!("nothing is written"),
            Fed::Work => {
                slices += 1;
                assert!(matches!(stream.work().unwrap(), Step::Ready));
            }
        }
    }
    assert!(slices > length / SLICE / 4, "{slices} slices");
}

#[test]
fn of_two_writers_of_one_file_the_later_one_wins_and_no_half_file_gets_the_name() {
    let directory = tempfile::tempdir().unwrap();
    let at = Location::new(Root::new(directory.path()), RelativePath::new("segment").unwrap());
    let mut disk = Inline::new(Options::default());
    let begin = |disk: &mut Inline| {
        let (mut stream, step) =
            WriteStream::begin(request(), at.clone(), Safeguard::default(), Release::newest(), &Rc::default()).unwrap();
        run(disk, &mut stream, step).unwrap();
        stream
    };
    let mut first = begin(&mut disk);
    first.feed(&mut &b"first"[..]).unwrap();
    let mut second = begin(&mut disk);
    let half = vec![b'x'; CHUNK];
    let Fed::Disk(operation) = second.feed(&mut half.as_slice()).unwrap() else { panic!("a chunk is written") };
    run(&mut disk, &mut second, Step::Disk(operation)).unwrap();

    let step = first.finish().unwrap();
    let error = run(&mut disk, &mut first, step).unwrap_err();
    assert_eq!(error.code, Code::FileMove);
    assert!(error.message.contains("another client"), "{error}");
    assert!(!directory.path().join("segment").exists(), "half a file has the final name");
    if let Some(operation) = first.discard() {
        run(&mut disk, &mut first, Step::Disk(operation)).unwrap();
    }
    second.feed(&mut &b"end"[..]).unwrap();
    let step = second.finish().unwrap();
    run(&mut disk, &mut second, step).unwrap();
    assert_eq!(std::fs::read(directory.path().join("segment")).unwrap(), [&half[..], b"end"].concat());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left behind");
}
