//! Pages that look wrong are read again while a file is read.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::*;
use crate::disk::inline::{Inline, Options};
use crate::disk::{Disk, RelativePath, Root, Ticket};
use crate::protocol::filter::{FilterSpec, PageChecksum, PageRule};
use crate::protocol::pack::Reader;

const PAGE: usize = 8192;

/// A new page, one that a disk returned half written, one that is damaged, and another new one.
fn file(directory: &Path) -> std::path::PathBuf {
    let path = directory.join("16384");
    let pages = [vec![0; PAGE], vec![1; PAGE], vec![2; PAGE], vec![0; PAGE]];
    std::fs::write(&path, pages.concat()).unwrap();
    path
}

/// Reads the file through `filters` and gives the offsets of the pages that were read again and the
/// results. The second page is written to its end just before it is read again.
fn read(filters: Vec<FilterSpec>, block: usize, release: &'static Release) -> (Vec<u64>, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path());
    let at = Location::new(Root::new(directory.path()), RelativePath::new("16384").unwrap());
    let request = ReadRequest { ranges: Vec::new(), tells_existence: false, ignore_missing: false, filters };
    let ranges = [ReadRange { at, offset: 0, limit: None }].into();
    let mut disk = Inline::new(Options::default());
    let mut stream = ReadStream::new(ranges, request, block, release, &Rc::default(), &Rc::default()).unwrap();
    let mut again = Vec::new();
    let mut step = stream.advance().unwrap();
    loop {
        match step {
            Step::Disk(operation) => {
                if let Operation::Read { offset, length: PAGE, .. } = &operation {
                    again.push(*offset);
                    if *offset == PAGE as u64 {
                        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                        file.write_all_at(&[3; 100], 2 * PAGE as u64 - 100).unwrap();
                    }
                }
                disk.submit(Ticket { session: 0, operation: 0 }, operation);
                step = stream.resume(disk.complete().unwrap().1).unwrap();
            }
            Step::Done(Answer { close: true, .. }) => break,
            Step::Work | Step::Done(_) | Step::Part(_) => step = stream.advance().unwrap(),
            Step::Ready | Step::Wait => unreachable!("a read waits for nobody"),
        }
    }
    let mut results = Writer::new();
    encode_results(&mut results, &stream.chain.results(), release);
    (again, results.finish())
}

#[test]
fn a_page_that_is_being_written_is_right_and_a_damaged_one_is_reported() {
    let pages = FilterSpec::PageChecksum(PageChecksum {
        first: 0,
        segment_pages: 131_072,
        page_size: PAGE,
        rule: PageRule::ReadAgain { header_check: true },
    });
    for version in ["2.45", "2.60.0"] {
        for block in [3 * PAGE, 1 << 20] {
            let others = [FilterSpec::ZstCompress { level: 3 }, FilterSpec::Lz4Compress { level: 1, raw: true }];
            let behind = others.map(|other| vec![pages.clone(), other]);
            for filters in [vec![pages.clone()]].into_iter().chain(behind) {
                let (again, results) = read(filters.clone(), block, Release::find(version).unwrap());
                assert_eq!(again, [PAGE as u64, 2 * PAGE as u64], "{filters:?} in blocks of {block}");
                let mut reader = Reader::new(&results);
                reader.skip().unwrap();
                let mut result = reader.read_pack().unwrap().unwrap();
                let damaged = result.read_array(|array| {
                    let id = array.peek()?.unwrap().0;
                    while array.peek()?.is_some_and(|(next, _)| next == id) {
                        array.skip()?;
                    }
                    Ok(id - 1)
                });
                assert_eq!(damaged.unwrap(), Some(vec![2]));
                assert!(!result.read_bool().unwrap(), "not valid");
                assert!(result.read_bool().unwrap(), "aligned");
            }
        }
    }
}
