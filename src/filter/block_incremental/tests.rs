//! Block incremental against what real releases make of the same files, and against a reader of its
//! own, which knows the rules and none of the code that is tested.

mod reader;

use std::collections::HashMap;

use proptest::prelude::*;

use reader::{MapReader, restore, unchunk};

use super::*;
use crate::filter::block_map::tests::INTERRUPTED;
use crate::filter::tests::{decrypt, drive, encrypt, results, run, sample, unhex};
use crate::protocol::error::Code;
use crate::protocol::filter::Digest;

const BLOCK: usize = 8192;

fn plain(super_block_size: u64, reference: u32, prior: Option<Vec<u8>>) -> BlockIncremental {
    BlockIncremental {
        storage: BlockStorage::Plain,
        map_rule: MapRule::ChangedNotEmpty,
        block_size: BLOCK,
        super_block_size,
        checksum_size: 6,
        reference,
        bundle_id: 0,
        bundle_offset: 0,
        prior,
        compress: None,
        encrypt: None,
    }
}

fn filter(spec: &BlockIncremental) -> FilterSpec {
    FilterSpec::BlockIncremental(Box::new(spec.clone()))
}

/// What leaves the filter: blocks and map apart.
fn store(spec: &BlockIncremental, data: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut chain = Chain::new(vec![filter(spec)]).unwrap();
    let mut output = drive(&mut chain, data, &[(usize::MAX, 1 << 20, usize::MAX)]).unwrap();
    let FilterResult::MapSize(size) = chain.results()[0].1 else { panic!("{:?}", chain.results()) };
    let map = output.split_off(output.len() - usize::try_from(size).unwrap());
    (output, map)
}

/// Blocks that are filled with one letter each.
fn letters(text: &str) -> Vec<u8> {
    text.bytes().flat_map(|letter| [letter; BLOCK]).collect()
}

/// The letter whose block has this checksum.
fn letter(checksum_hex: &str) -> u8 {
    let wanted = unhex(checksum_hex);
    (0..=255).find(|letter| checksum(&[*letter; BLOCK], false)[..6] == wanted).expect("a block of one letter")
}

#[test]
fn a_full_and_two_incremental_backups_are_those_of_real_releases() {
    for (storage, rule, maps) in [
        (
            BlockStorage::Numbered,
            MapRule::Always,
            [
                "0001b2800804753fce3c113b7fac9165aae000d1f48ddba7418fd99eb3b024ebf30f016453dcf813a959",
                "0000b780080400753fce3c113b0e07f403998008a9f20ae68e5d01a08008d1f48ddba7418fd99eb3b024ebf30f016453dcf813a959",
                INTERRUPTED[0],
            ],
        ),
        (
            BlockStorage::Plain,
            MapRule::Changed,
            [
                "000182800804753fce3c113b7fac9165aae000d1f48ddba7418fd99eb3b024bbf30f016453dcf813a959",
                "00008780080400753fce3c113b0e07f403f9ff07a9f20ae68e5d01808008d1f48ddba7418fd99eb3b024bbf30f016453dcf813a959",
                INTERRUPTED[1],
            ],
        ),
    ] {
        let spec = |reference, prior| BlockIncremental { storage, map_rule: rule, ..plain(16384, reference, prior) };
        let replaced = [letter("a9f20ae68e5d"); BLOCK];
        let first = [letters("ABCD"), vec![b'E'; 100]].concat();
        let second = [&letters("A"), &replaced[..], &letters("CD"), &[b'E'; 100]].concat();
        let third = [&letters("A"), &replaced[..], &letters("CDEF"), &vec![b'G'; 3000]].concat();

        let (stored, full) = store(&spec(0, None), &first);
        assert_eq!(full, unhex(maps[0]));
        if storage == BlockStorage::Plain {
            assert_eq!(stored, first);
        } else {
            assert_eq!(stored.len(), 32883);
            assert_eq!(stored[..6], unhex("828001004141"));
        }
        let in_bundle = BlockIncremental { bundle_id: 7, bundle_offset: 500, ..spec(1, Some(full)) };
        let (stored, incremental) = store(&in_bundle, &second);
        assert_eq!(incremental, unhex(maps[1]));
        if storage == BlockStorage::Plain {
            assert_eq!(stored, replaced);
        } else {
            assert_eq!(stored.len(), 8196);
            assert_eq!(stored[..4], unhex("81400178"));
        }
        let (stored, longer) = store(&spec(2, Some(incremental)), &third);
        assert_eq!(stored.len(), if storage == BlockStorage::Plain { 19384 } else { 19394 });
        assert_eq!(longer, unhex(maps[2]));
    }
}

#[test]
fn super_blocks_that_are_interrupted_are_mapped_as_by_real_releases() {
    for (storage, rule, maps) in [
        (BlockStorage::Numbered, MapRule::Always, &INTERRUPTED[2..6]),
        (BlockStorage::Plain, MapRule::ChangedNotEmpty, &INTERRUPTED[6..10]),
    ] {
        let spec = |reference, prior| BlockIncremental { storage, map_rule: rule, ..plain(32768, reference, prior) };
        let mut file = letters("ABCDEFGH");
        // Its last block is short: 4a7ff7f6b289 is what is left to find out.
        let tail = (1..BLOCK).find(|length| checksum(&vec![b'I'; *length], false)[..6] == unhex("4a7ff7f6b289"));
        file.extend(vec![b'I'; tail.unwrap_or(BLOCK)]);
        let first = BlockIncremental { bundle_id: 3, bundle_offset: 77, ..spec(0, None) };
        let (_, mut map) = store(&first, &file);
        assert_eq!(map, unhex(maps[0]));
        for (reference, changes) in [
            (1, vec![(1, "04be300f4a5e")]),
            (2, vec![(2, "215c24458c94"), (6, "215c24458c94")]),
            (3, vec![(0, "4561bcbdbf14"), (8, "4561bcbdbf14")]),
        ] {
            for (block, checksum) in changes {
                file.truncate(file.len().max(block * BLOCK));
                let end = file.len().min((block + 1) * BLOCK);
                file.splice(block * BLOCK..end, [letter(checksum); BLOCK]);
            }
            map = store(&spec(reference, Some(map)), &file).1;
            assert_eq!(map, unhex(maps[reference as usize]), "backup {reference} of {storage:?}");
        }
    }
}

/// Every way of storing, compressed and encrypted in every way.
fn ways() -> Vec<BlockIncremental> {
    let compressions = [
        None,
        Some(FilterSpec::GzCompress { level: 6, raw: true }),
        Some(FilterSpec::Lz4Compress { level: 1, raw: true }),
        Some(FilterSpec::ZstCompress { level: 3 }),
        Some(FilterSpec::Bz2Compress { level: 1 }),
    ];
    let mut ways = Vec::new();
    for storage in [BlockStorage::Single, BlockStorage::Numbered, BlockStorage::Plain] {
        for compress in &compressions {
            for encrypted in [false, true] {
                let is_single = storage == BlockStorage::Single;
                ways.push(BlockIncremental {
                    storage,
                    map_rule: if storage == BlockStorage::Plain { MapRule::Changed } else { MapRule::Always },
                    block_size: 1024,
                    super_block_size: if is_single { 1024 } else { 4096 },
                    checksum_size: if is_single { 20 } else { 7 },
                    compress: compress.clone(),
                    encrypt: encrypted.then(|| encrypt(Digest::Sha1, false)),
                    ..plain(0, 0, None)
                });
            }
        }
    }
    ways
}

/// A backup of `data` after the one whose map is `prior`. Gives what was stored and the map.
fn back_up(
    way: &BlockIncremental,
    reference: u32,
    offset: u64,
    prior: Option<&[u8]>,
    data: &[u8],
) -> (Vec<u8>, Vec<u8>) {
    let spec = BlockIncremental {
        reference,
        bundle_id: u64::from(reference) * 3,
        bundle_offset: offset,
        prior: prior.map(<[u8]>::to_vec),
        ..way.clone()
    };
    let (stored, map) = store(&spec, data);
    let map = if way.encrypt.is_some() && !map.is_empty() {
        run(vec![decrypt(Digest::Sha1, false)], &map).unwrap()
    } else {
        map
    };
    (stored, map)
}

#[test]
fn an_unchanged_file_is_a_map_or_nothing() {
    let data = sample(5000);
    for way in ways() {
        let (_, map) = back_up(&way, 0, 0, None, &data);
        let again = back_up(&way, 1, 0, Some(&map), &data);
        assert!(again.0.is_empty());
        assert_eq!(again.1, if way.storage == BlockStorage::Plain { vec![] } else { map });
    }
}

#[test]
fn a_file_that_becomes_shorter_or_empty_has_the_map_of_its_release() {
    let data = sample(5000);
    for way in ways().into_iter().filter(|way| way.compress.is_none() && way.encrypt.is_none()) {
        let (stored, map) = back_up(&way, 0, 9, None, &data);
        let (nothing, shorter) = back_up(&way, 1, 0, Some(&map), &data[..2048]);
        assert!(nothing.is_empty());
        assert_eq!(restore(&way, &shorter, &[(9, stored)]), data[..2048]);
        let empty = |map_rule| back_up(&BlockIncremental { map_rule, ..way.clone() }, 1, 0, Some(&map), b"");
        assert_eq!(empty(MapRule::Always), (vec![], vec![]));
        assert_eq!(empty(MapRule::ChangedNotEmpty), (vec![], vec![]));
        if way.storage == BlockStorage::Plain {
            assert_eq!(empty(MapRule::Changed), (vec![], vec![0]));
            // From which the next backup can go on, which it cannot with the original.
            assert_eq!(back_up(&way, 2, 0, Some(&[0]), &data[..10]).0, data[..10]);
        }
        assert_eq!(back_up(&way, 0, 0, None, b""), (vec![], vec![]), "a new file that is empty");
    }
}

#[test]
fn a_file_of_whole_super_blocks_ends_without_an_empty_one() {
    let data = letters("ABCD");
    let (stored, map) = store(&plain(16384, 0, None), &data);
    assert_eq!(stored, data);
    assert_eq!(MapReader(&map).read(8192, 6).len(), 4);
    assert_eq!(map.len(), 1 + 1 + 4 + 2 * 6 + 1 + 2 * 6, "{map:?}");
}

#[test]
fn blocks_that_have_not_changed_do_not_end_a_super_block() {
    let (stored, map) = store(&plain(1 << 20, 0, None), &letters("ABCDEF"));
    assert_eq!(stored.len(), 6 * BLOCK);
    let (stored, map) = store(&plain(1 << 20, 1, Some(map)), &letters("aBcDeF"));
    assert_eq!(stored, letters("ace"));
    let items = MapReader(&map).read(8192, 6);
    let places: Vec<_> = items.iter().map(|item| (item.reference, item.size, item.number)).collect();
    let all = 6 * 8192;
    let three = 3 * 8192;
    assert_eq!(places, [(1, three, 0), (0, all, 1), (1, three, 1), (0, all, 3), (1, three, 2), (0, all, 5)]);
}

#[test]
fn a_super_block_is_rounded_up_to_blocks_by_being_full() {
    // 20000 bytes are reached by the third block.
    let (_, map) = store(&plain(20_000, 0, None), &letters("ABCDEFG"));
    let sizes: Vec<_> = MapReader(&map).read(8192, 6).iter().map(|item| item.size).collect();
    assert_eq!(sizes, [24576, 24576, 24576, 24576, 24576, 24576, 8192]);
}

#[test]
fn a_block_larger_than_a_step_is_stored_whole() {
    let data = sample(3 << 20);
    for compress in [None, Some(FilterSpec::ZstCompress { level: 1 })] {
        let way = BlockIncremental { block_size: 1 << 20, compress, ..plain(1 << 20, 0, None) };
        let (stored, map) = store(&way, &data);
        assert_eq!(restore(&way, &map, &[(0, stored)]), data);
    }
}

#[test]
fn chunks_are_at_most_64_kib_and_come_apart_again() {
    let data = sample(400_000);
    let way = BlockIncremental { storage: BlockStorage::Numbered, ..plain(1 << 20, 0, None) };
    let (stored, map) = store(&way, &data);
    assert_eq!(unchunk(&stored).len(), data.len() + data.len().div_ceil(BLOCK));
    assert_eq!(restore(&way, &map, &[(0, stored)]), data);
}

#[test]
fn the_map_is_encrypted_with_a_salt_of_its_own() {
    let way = BlockIncremental { encrypt: Some(encrypt(Digest::Sha1, false)), ..plain(8192, 0, None) };
    let (stored, map) = store(&way, &letters("AA"));
    let salts = [&stored[..8], &stored[8192 + 24..][..8], &map[..8]];
    assert!(salts[0] != salts[1] && salts[1] != salts[2] && salts[0] != salts[2], "{salts:?}");
}

/// The lists that clients send, specification section 5.9.
#[test]
fn the_lists_that_real_clients_send_report_what_they_should() {
    use crate::protocol::filter::{PageChecksum, PageRule};
    let data = vec![0; 100 * BLOCK];
    let pages = FilterSpec::PageChecksum(PageChecksum {
        first: 0,
        segment_pages: 131_072,
        page_size: BLOCK,
        rule: PageRule::ReadAgain { header_check: true },
    });
    let blocks = filter(&BlockIncremental {
        compress: Some(FilterSpec::ZstCompress { level: 3 }),
        encrypt: Some(encrypt(Digest::Sha1, false)),
        ..plain(262_144, 0, None)
    });
    let (hash, size) = (FilterSpec::Hash(Digest::Sha1), FilterSpec::Size);
    let front = [hash.clone(), size.clone(), pages];
    for (middle, names) in [
        (vec![blocks], vec!["blk-incr"]),
        (vec![FilterSpec::ZstCompress { level: 3 }, encrypt(Digest::Sha1, true)], vec!["zst-cmp", "cipher-blk"]),
        (vec![FilterSpec::GzCompress { level: 3, raw: true }], vec!["gz-cmp"]),
    ] {
        let specs = [&front[..], &middle, &[hash.clone(), size.clone()]].concat();
        let mut chain = Chain::new(specs).unwrap();
        let output = drive(&mut chain, &data, &[(300_000, 1 << 20, 256 << 10)]).unwrap();
        let results = results(&chain);
        assert_eq!(results[1..3], ["size 819200", "pg-chksum 0 true true"]);
        for (result, name) in results[3..].iter().zip(&names) {
            assert!(result.starts_with(name), "{results:?}");
        }
        let behind = &results[3 + names.len()..];
        assert!(behind[0].starts_with("hash "));
        assert_eq!(behind[1..], [format!("size {}", output.len()), "buffer".to_string()]);
        assert!(output.len() < data.len() / 10);
    }
}

#[test]
fn block_checksums_are_those_that_the_map_has() {
    let data = [letters("ABCD"), vec![b'E'; 100]].concat();
    let mut chain = Chain::new(vec![FilterSpec::BlockChecksum { block_size: BLOCK, checksum_size: 6 }]).unwrap();
    for piece in data.chunks(5000) {
        chain.observe(piece).unwrap();
    }
    let expected = unhex("753fce3c113b7fac9165aae0d1f48ddba7418fd99eb3b02453dcf813a959");
    assert_eq!(chain.results()[0].1, FilterResult::BlockChecksums(expected));
    assert_eq!(results(&chain), ["blk-chk 30", "buffer"]);
}

#[test]
fn a_prior_map_that_makes_no_sense_is_refused_before_anything_is_read() {
    let refuse = |storage, prior: &[u8]| {
        let spec = BlockIncremental { storage, ..plain(8192, 0, Some(prior.to_vec())) };
        Chain::new(vec![filter(&spec)]).unwrap_err()
    };
    assert_eq!(refuse(BlockStorage::Plain, b""), Error::format("unexpected end of block map"));
    assert_eq!(refuse(BlockStorage::Numbered, &[0, 8]), Error::format("unexpected end of block map"));
    assert_eq!(refuse(BlockStorage::Single, &[1, 0, 0, 9]), Error::format("unexpected end of block map"));
    assert_eq!(refuse(BlockStorage::Plain, &[1]), Error::format("block map version must be zero"));
}

#[test]
fn many_small_super_blocks_of_a_costly_compressor_come_in_many_turns() {
    let spec = BlockIncremental {
        block_size: 512,
        compress: Some(FilterSpec::ZstCompress { level: 19 }),
        ..plain(512, 0, None)
    };
    let mut chain = Chain::new(vec![filter(&spec)]).unwrap();
    let data = sample(64 << 10);
    let mut input = &data[..];
    let mut output = Vec::with_capacity(1 << 20);
    let mut turns = 0;
    while chain.process(&mut input, true, &mut output, 1 << 20, 256 << 10).unwrap() != Progress::Finished {
        turns += 1;
    }
    assert!(turns >= 20, "{turns} turns for 128 super blocks");
}

#[test]
fn a_file_of_too_many_blocks_is_an_error_and_takes_bounded_memory() {
    let spec = BlockIncremental { block_size: 512, ..plain(512, 0, None) };
    let mut chain = Chain::new(vec![filter(&spec), FilterSpec::Sink]).unwrap();
    let data = vec![0; 1 << 20];
    let error = loop {
        let mut input = &data[..];
        match chain.process(&mut input, false, &mut Vec::new(), 0, usize::MAX) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error, Error::new(Code::Format, "file has more than 1048576 blocks"));
    assert!(chain.memory() < 100 << 20, "{}", chain.memory());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_backup_is_restored_whatever_changed_between_them(
        which in 0usize..30,
        length in 0usize..20_000,
        steps in prop::collection::vec(
            (prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), -6000isize..6000, 0u64..1000),
            1..6,
        ),
    ) {
        let way = &ways()[which];
        let mut data = sample(length);
        let mut map: Option<Vec<u8>> = None;
        let mut backups: Vec<(u64, Vec<u8>)> = Vec::new();
        for (reference, (changes, grown, offset)) in steps.iter().enumerate() {
            if reference > 0 {
                let length = data.len().saturating_add_signed(*grown);
                data.resize(length, u8::try_from(reference).unwrap());
                for (at, byte) in changes.iter().filter(|_| length > 0) {
                    let at = at.index(length);
                    data[at] ^= byte;
                }
            }
            let reference = u32::try_from(reference).unwrap();
            let (stored, new) = back_up(way, reference, *offset, map.as_deref(), &data);
            backups.push((*offset, stored));
            if !new.is_empty() && new != [0] {
                prop_assert!(restore(way, &new, &backups) == data, "backup {} of {:?} differs", reference, way);
                map = Some(new);
            } else if !data.is_empty() {
                // Nothing changed, so the map before still holds.
                prop_assert!(restore(way, map.as_ref().unwrap(), &backups) == data);
            } else {
                map = None;
            }
        }
    }

    #[test]
    fn pieces_limits_and_budgets_do_not_change_what_is_stored(
        storage in prop::sample::select(vec![BlockStorage::Single, BlockStorage::Numbered, BlockStorage::Plain]),
        block_size in prop::sample::select(vec![512usize, 1000, 8192, 70_000]),
        length in 0usize..200_000,
        prior_length in 0usize..200_000,
        changes in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        sizes in prop::collection::vec((1usize..90_000, 1usize..90_000, 1usize..300_000), 1..6),
    ) {
        let is_single = storage == BlockStorage::Single;
        let way = BlockIncremental {
            storage,
            block_size,
            super_block_size: if is_single { block_size as u64 } else { 20_000 },
            checksum_size: if is_single { 20 } else { 16 },
            ..plain(0, 0, None)
        };
        let mut data = sample(length);
        let (_, prior) = store(&way, &sample(prior_length));
        for at in changes.iter().filter(|_| length > 0) {
            data[at.index(length)] ^= 1;
        }
        let spec = BlockIncremental { reference: 1, prior: (!prior.is_empty()).then_some(prior), ..way };
        let whole = run(vec![filter(&spec)], &data).unwrap();
        let parts = drive(&mut Chain::new(vec![filter(&spec)]).unwrap(), &data, &sizes).unwrap();
        prop_assert!(parts == whole);
    }

    #[test]
    fn no_parameters_and_no_prior_map_make_it_panic(
        storage in prop::sample::select(vec![BlockStorage::Single, BlockStorage::Numbered, BlockStorage::Plain]),
        block_size in 512usize..3000,
        super_block_size in 1u64..1 << 24,
        checksum_size in 1usize..=16,
        reference in any::<u32>(),
        bundle_offset in 0..=i64::MAX as u64,
        prior in prop::option::of(prop::collection::vec(any::<u8>(), 0..200)),
        length in 0usize..10_000,
    ) {
        let spec = BlockIncremental {
            storage, block_size, super_block_size, reference, bundle_offset, prior,
            checksum_size: if storage == BlockStorage::Single { 20 } else { checksum_size },
            ..plain(0, 0, None)
        };
        if let Ok(mut chain) = Chain::new(vec![filter(&spec)]) {
            let _ = drive(&mut chain, &sample(length), &[(700, 5000, 10_000)]);
        }
    }
}
