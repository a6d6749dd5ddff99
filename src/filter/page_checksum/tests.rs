//! Page checksums against pages of a real cluster, and every rule of the filter against the original's.

use proptest::prelude::*;

use super::*;
use crate::filter::Chain;
use crate::protocol::filter::FilterSpec;

const SIZE: usize = 8192;

/// Two pages of a cluster of `PostgreSQL` 15, by what is not zero in them: page 0 of an empty index,
/// and page 1 of a free space map.
const REAL: [(u64, &[(usize, u64)]); 2] = [
    (
        0,
        &[
            (0, 0x0000_0000_2834_7601),
            (8, 0xf9de_0000_4800_f01f),
            (16, 0xf01f_0420_0000_0000),
            (24, 0x6231_0500_0400_0000),
            (56, 0x0000_0000_0000_f0bf),
            (64, 0x0100_0000_0000_0000),
            (8184, 0x0000_0000_0800_0000),
        ],
    ),
    (
        1,
        &[
            (0, 0x0000_0000_3841_4c01),
            (8, 0x6770_0000_1800_0020),
            (16, 0x0020_0420_0000_0000),
            (24, 0x0000_0000_caca_00ca),
            (32, 0x0000_00ca_0000_0000),
            (40, 0x0000_00ca_0000_0000),
            (56, 0x0000_00ca_0000_0000),
            (88, 0x0000_00ca_0000_0000),
            (152, 0x0000_00ca_0000_0000),
            (280, 0x0000_00ca_0000_0000),
            (536, 0x0000_00ca_0000_0000),
            (1048, 0x0000_00ca_0000_0000),
            (2072, 0x0000_00ca_0000_0000),
            (4120, 0x0000_00ca_0000_0000),
        ],
    ),
];

/// A page of [`REAL`]; its words are written as a dump shows them.
fn real(index: usize) -> Vec<u8> {
    let mut page = vec![0; SIZE];
    for (at, word) in REAL[index].1 {
        page[*at..at + 8].copy_from_slice(&word.to_be_bytes());
    }
    page
}

/// The checksum one word at a time, as `PostgreSQL` describes it.
fn slowly(page: &[u8], number: u32) -> u16 {
    let mut sums: Vec<u32> = BASE.as_flattened().to_vec();
    let words = page.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()));
    let words = words.enumerate().map(|(at, word)| if at == 2 { word & 0xffff_0000 } else { word });
    for (at, word) in words.chain([0; 64]).enumerate() {
        let mixed = sums[at % 32] ^ word;
        sums[at % 32] = mixed.wrapping_mul(16_777_619) ^ (mixed >> 17);
    }
    let sum = sums.iter().fold(number, |all, sum| all ^ sum);
    u16::try_from(sum % 65_535 + 1).unwrap()
}

/// Page `number` as `PostgreSQL` writes it, at position `lsn` of the WAL.
fn page(number: u64, lsn: u64, size: usize) -> Vec<u8> {
    let mut page = vec![0; size];
    page[0..4].copy_from_slice(&u32::try_from(lsn >> 32).unwrap().to_le_bytes());
    page[4..8].copy_from_slice(&u32::try_from(lsn & 0xffff_ffff).unwrap().to_le_bytes());
    page[14..16].copy_from_slice(&u16::try_from(size / 2).unwrap().to_le_bytes());
    page[size / 2..].fill(u8::try_from(number % 251).unwrap());
    let checksum = checksum(&page, number);
    page[8..10].copy_from_slice(&checksum.to_le_bytes());
    page
}

fn spec(first: u32, page_size: usize, rule: PageRule) -> PageChecksum {
    PageChecksum { first, segment_pages: 1 << 17, page_size, rule }
}

const AGAIN: PageRule = PageRule::ReadAgain { header_check: true };

/// What the filter says of `pages` if they have not changed when they are read again.
fn check(spec: PageChecksum, pages: &[Vec<u8>]) -> (Vec<(u64, u64)>, bool, bool) {
    check_again(spec, pages, pages)
}

/// The same if they are `again` then.
fn check_again(spec: PageChecksum, pages: &[Vec<u8>], again: &[Vec<u8>]) -> (Vec<(u64, u64)>, bool, bool) {
    let mut chain = Chain::new(vec![FilterSpec::PageChecksum(spec)]).unwrap();
    chain.observe(&pages.concat()).unwrap();
    let again = again.concat();
    while let Some(suspect) = chain.suspect() {
        let at = usize::try_from(suspect.offset).unwrap().min(again.len());
        chain.settle(&again[at..again.len().min(at + suspect.length)]);
    }
    report(&chain)
}

fn report(chain: &Chain) -> (Vec<(u64, u64)>, bool, bool) {
    match chain.results().swap_remove(0).1 {
        FilterResult::Pages { errors, valid, align } => {
            (errors.iter().map(|error| (error.number, error.lsn)).collect(), valid, align)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn pages_of_a_real_cluster_have_their_checksum_and_only_under_their_number() {
    for (index, (number, _)) in REAL.iter().enumerate() {
        let page = real(index);
        let first = u32::try_from(*number).unwrap();
        assert_eq!(check(spec(first, SIZE, AGAIN), std::slice::from_ref(&page)), (vec![], true, true));
        let moved = PageChecksum { segment_pages: 1, ..spec(first + 1, SIZE, AGAIN) };
        assert_eq!(check(moved, &[page]), (vec![(number + 1, 0)], false, true));
    }
}

#[test]
fn every_bit_of_a_page_counts() {
    let good = real(1);
    for at in 0..SIZE {
        for bit in [0, 7] {
            let mut page = good.clone();
            page[at] ^= 1 << bit;
            let spec = PageChecksum { segment_pages: 1, ..spec(1, SIZE, AGAIN) };
            assert_eq!(check(spec, &[page]).0, [(1, 0)], "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn new_pages_are_right_only_if_they_are_zero_throughout() {
    for size in [1 << 10, SIZE, 32 << 10] {
        let zero = vec![0; size];
        let mut dirty = zero.clone();
        dirty[size - 1] = 1;
        for header_check in [false, true] {
            let rule = PageRule::ReadAgain { header_check };
            let pages = [page(0, 9, size), zero.clone(), dirty.clone(), page(3, 9, size)];
            assert_eq!(check(spec(0, size, rule), &pages), (vec![(2, 0)], false, true));
        }
    }
}

#[test]
fn an_encrypted_page_needs_no_header_that_can_be_read() {
    // What looks like no free space is part of the encrypted header.
    let mut encrypted = page(0, 9, SIZE);
    encrypted[14..16].fill(0);
    let sum = checksum(&encrypted, 0).to_le_bytes();
    encrypted[8..10].copy_from_slice(&sum);
    let of = |header_check| check(spec(0, SIZE, PageRule::ReadAgain { header_check }), &[encrypted.clone()]);
    assert_eq!(of(false), (vec![], true, true));
    assert_eq!(of(true), (vec![(0, 0)], false, true));
    // Without a checksum it is not looked at further, but wrong.
    let mut without = page(0, 9, SIZE);
    without[8..10].fill(0);
    let rule = PageRule::ReadAgain { header_check: false };
    assert_eq!(check(spec(0, SIZE, rule), &[without]), (vec![(0, 0)], false, true));
}

#[test]
fn a_page_that_changed_meanwhile_was_being_written_and_is_right() {
    let mut torn = page(1, 9, SIZE);
    torn[SIZE - 1] ^= 1;
    let pages = [page(0, 9, SIZE), torn.clone(), page(2, 9, SIZE)];
    let mut other = torn.clone();
    other[100] ^= 1;
    let again = |second: &[u8]| [page(0, 9, SIZE), second.to_vec(), vec![]];
    // Whether it has its checksum then does not matter, nor whether it is there at all.
    for second in [page(1, 9, SIZE), other, torn[..SIZE - 1].to_vec(), vec![]] {
        assert_eq!(check_again(spec(0, SIZE, AGAIN), &pages, &again(&second)), (vec![], true, true));
    }
    assert_eq!(check_again(spec(0, SIZE, AGAIN), &pages, &again(&torn)), (vec![(1, 0)], false, true));
}

#[test]
fn a_page_is_read_again_where_it_is_in_its_segment() {
    let spec = PageChecksum { first: 6, segment_pages: 3, page_size: 1 << 10, rule: AGAIN };
    let mut chain = Chain::new(vec![FilterSpec::PageChecksum(spec)]).unwrap();
    chain.observe(&vec![1; 3 << 10]).unwrap();
    let mut places = Vec::new();
    while let Some(suspect) = chain.suspect() {
        places.push((suspect.offset, suspect.length));
        chain.settle(&[1; 1 << 10]);
    }
    assert_eq!(places, [(0, 1 << 10), (1 << 10, 1 << 10), (2 << 10, 1 << 10)]);
    assert_eq!(report(&chain).0, [(6, 0), (7, 0), (8, 0)]);
}

#[test]
fn pages_that_nobody_read_again_are_damaged() {
    let mut chain = Chain::new(vec![FilterSpec::PageChecksum(spec(0, SIZE, AGAIN))]).unwrap();
    chain.observe(&[1; 2 * SIZE]).unwrap();
    assert_eq!(report(&chain), (vec![(0, 0), (1, 0)], false, true));
}

#[test]
fn the_oldest_release_leaves_out_new_pages_and_those_that_the_wal_brings_back() {
    let mut damaged = [page(0, 100, SIZE), page(1, 100, SIZE), page(2, 200, SIZE), vec![0; SIZE]];
    for page in &mut damaged {
        page[SIZE - 1] ^= 1;
    }
    let of = |limit| check(spec(0, SIZE, PageRule::BelowLsn(limit)), &damaged);
    assert_eq!(of(201), (vec![(0, 100), (1, 100), (2, 200)], false, true));
    assert_eq!(of(200), (vec![(0, 100), (1, 100)], false, true));
    assert_eq!(of(100), (vec![], true, true));
    assert_eq!(check(spec(5, SIZE, PageRule::BelowLsn(7 << 32)), &[page(6, 6 << 32, SIZE)]).0, [(5, 6 << 32)]);
}

#[test]
fn a_last_piece_is_a_damaged_page_or_too_short_for_one() {
    let pages = |length: usize| vec![page(0, 9, SIZE), page(1, 9, SIZE)[..length].to_vec()];
    let of = |rule, length| check(spec(0, SIZE, rule), &pages(length));
    for (length, report) in [
        (1, (vec![], false, false)),
        (511, (vec![], false, false)),
        (512, (vec![(1, 0)], false, false)),
        (SIZE - 1, (vec![(1, 0)], false, false)),
        (SIZE, (vec![], true, true)),
    ] {
        assert_eq!(of(AGAIN, length), report, "{length} bytes");
    }
    // Old releases leave it out as they do whole pages.
    assert_eq!(of(PageRule::BelowLsn(10), 512), (vec![(1, 9)], false, false));
    assert_eq!(of(PageRule::BelowLsn(9), 512), (vec![], true, false));
    assert_eq!(of(PageRule::BelowLsn(9), 511), (vec![], false, false));
}

#[test]
fn a_file_of_nothing_but_damage_is_an_error_and_takes_bounded_memory() {
    let mut chain = Chain::new(vec![FilterSpec::PageChecksum(spec(0, 1 << 10, AGAIN))]).unwrap();
    let data = vec![1; 1 << 20];
    let mut pieces = 0;
    let error = loop {
        match chain.observe(&data) {
            Ok(()) => pieces += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(pieces, 1024, "a segment of 1 GiB is reported");
    assert_eq!(error, Error::format("more than 1048576 pages of one file are damaged"));
    assert!(chain.memory() < 80 << 20, "{}", chain.memory());
}

/// Not asserted: machines differ. With `--profile dist` it is what packages ship.
#[test]
fn the_speed_of_page_checksums() {
    let data: Vec<u8> = (0..(4u32 << 20)).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
    let mut sum = 0;
    let start = std::time::Instant::now();
    for round in 0..8 {
        for page in data.chunks(SIZE) {
            sum ^= checksum(std::hint::black_box(page), round);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("page checksums: {:.1} GB/s ({sum:x})", 8.0 * f64::from(4 << 20) / seconds / 1e9);
}

proptest! {
    #[test]
    fn the_fast_checksum_is_the_slow_one(
        seed in any::<u64>(),
        number in any::<u32>(),
        size in prop::sample::select(vec![1usize << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10]),
    ) {
        let mut state = seed | 1;
        let page: Vec<u8> = (0..size).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        }).collect();
        prop_assert_eq!(checksum(&page, u64::from(number)), slowly(&page, number));
    }

    #[test]
    fn how_the_file_comes_makes_no_difference(
        pages in prop::collection::vec(0u8..4, 0..12),
        rest in 0usize..1100,
        pieces in prop::collection::vec(1usize..3000, 1..20),
        limit in prop::option::of(0u64..300),
    ) {
        let size = 1 << 10;
        let data: Vec<u8> = pages.iter().enumerate().flat_map(|(at, kind)| {
            let mut page = page(at as u64, u64::from(*kind) * 100, size);
            match kind {
                0 => page.fill(0),
                1 => page[700] ^= 1,
                _ => {}
            }
            page
        }).chain(std::iter::repeat_n(7, rest)).collect();
        let rule = limit.map_or(AGAIN, PageRule::BelowLsn);
        let whole = {
            let mut chain = Chain::new(vec![FilterSpec::PageChecksum(spec(0, size, rule))]).unwrap();
            chain.observe(&data).unwrap();
            report(&chain)
        };
        let mut chain = Chain::new(vec![FilterSpec::PageChecksum(spec(0, size, rule))]).unwrap();
        let mut left = &data[..];
        for piece in pieces.iter().cycle() {
            let (front, rest) = left.split_at(left.len().min(*piece));
            chain.observe(front).unwrap();
            left = rest;
            if left.is_empty() {
                break;
            }
        }
        prop_assert_eq!(report(&chain), whole);
    }
}
