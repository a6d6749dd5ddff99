//! Block maps against real ones, which have to come back byte for byte.

use proptest::prelude::*;

use super::*;
use crate::filter::tests::unhex;

/// Blocks of the real maps.
const BLOCK: u64 = 8192;

/// Backup, size of the super block, bundle, offset, stored size and number of a block.
type Item = (u32, u64, u64, u64, u64, u32);

fn items(map: &BlockMap) -> Vec<Item> {
    (0..map.len())
        .map(|index| {
            let (block, number) = map.place(index).unwrap();
            (block.reference, block.size, block.bundle_id, block.offset, block.stored, number)
        })
        .collect()
}

/// Maps that 2.45 and 2.60.0 made of one file in a full backup and two incremental ones; 2.55.1 makes
/// those of 2.60.0.
const REAL: [(&str, &str, [Item; 5]); 4] = [
    (
        "2.45 full",
        "0001b2800804753fce3c113b7fac9165aae000d1f48ddba7418fd99eb3b024ebf30f016453dcf813a959",
        [
            (0, 16384, 0, 0, 16390, 0),
            (0, 16384, 0, 0, 16390, 1),
            (0, 16384, 0, 16390, 16390, 0),
            (0, 16384, 0, 16390, 16390, 1),
            (0, 100, 0, 32780, 103, 0),
        ],
    ),
    (
        "2.45 incremental",
        "0000b780080400753fce3c113b0e07f403998008a9f20ae68e5d01a08008d1f48ddba7418fd99eb3b024ebf30f016453dcf813a959",
        [
            (0, 16384, 0, 0, 16390, 0),
            (1, 8192, 7, 500, 8196, 0),
            (0, 16384, 0, 16390, 16390, 0),
            (0, 16384, 0, 16390, 16390, 1),
            (0, 100, 0, 32780, 103, 0),
        ],
    ),
    (
        "2.60.0 full",
        "000182800804753fce3c113b7fac9165aae000d1f48ddba7418fd99eb3b024bbf30f016453dcf813a959",
        [
            (0, 16384, 0, 0, 16384, 0),
            (0, 16384, 0, 0, 16384, 1),
            (0, 16384, 0, 16384, 16384, 0),
            (0, 16384, 0, 16384, 16384, 1),
            (0, 100, 0, 32768, 100, 0),
        ],
    ),
    (
        "2.60.0 incremental",
        "00008780080400753fce3c113b0e07f403f9ff07a9f20ae68e5d01808008d1f48ddba7418fd99eb3b024bbf30f016453dcf813a959",
        [
            (0, 16384, 0, 0, 16384, 0),
            (1, 8192, 7, 500, 8192, 0),
            (0, 16384, 0, 16384, 16384, 0),
            (0, 16384, 0, 16384, 16384, 1),
            (0, 100, 0, 32768, 100, 0),
        ],
    ),
];

/// Longer real maps, in which super blocks are interrupted and gone on with.
pub(in crate::filter) const INTERRUPTED: [&str; 10] = [
    "0000b780080400753fce3c113b0e07f403998008a9f20ae68e5d00a18008d1f48ddba7418fd99eb3b024110204ed13f6567c143150877119fd9b890d01b8170f24c8d13432",
    "00008780080400753fce3c113b0e07f403f9ff07a9f20ae68e5d00818008d1f48ddba7418fd99eb3b024110204ed13f6567c143150877119fdfb880d01b8170f24c8d13432",
    "0007034dc2801008753fce3c113b7fac9165aae0d1f48ddba7418fd99eb3b02400ed13f6567c143150877119fdacae8400319b4cd86a7d7e6fbb8018024a7ff7f6b289",
    "0006034dc780100800753fce3c113b08b9801804be300f4a5e030301d1f48ddba7418fd99eb3b02400ed13f6567c143150877119fdacae8400319b4cd86a7d7e6fbb8018024a7ff7f6b289",
    "0006034dc780100800753fce3c113b08b9801804be300f4a5e10a780080400215c24458c940201028fd99eb3b0240502ed13f6567c143150877119fd1600215c24458c940301014cd86a7d7e6fbb8018024a7ff7f6b289",
    "0018b7800804004561bcbdbf140899800804be300f4a5e10a780080400215c24458c9406034da680100801038fd99eb3b0240502ed13f6567c143150877119fd1600215c24458c940601014cd86a7d7e6f1f004561bcbdbf14",
    "0007034d82801008753fce3c113b7fac9165aae0d1f48ddba7418fd99eb3b02400ed13f6567c143150877119fdacae8400319b4cd86a7d7e6ffbff17024a7ff7f6b289",
    "0006034d8780100800753fce3c113b08f9ff1704be300f4a5e030301d1f48ddba7418fd99eb3b02400ed13f6567c143150877119fdacae8400319b4cd86a7d7e6ffbff17024a7ff7f6b289",
    "0006034d8780100800753fce3c113b08f9ff1704be300f4a5e108780080400215c24458c940201028fd99eb3b0240502ed13f6567c143150877119fd1600215c24458c940301014cd86a7d7e6ffbff17024a7ff7f6b289",
    "001887800804004561bcbdbf1408f9ff0704be300f4a5e108780080400215c24458c9406034d8680100801038fd99eb3b0240502ed13f6567c143150877119fd1600215c24458c940601014cd86a7d7e6f1f004561bcbdbf14",
];

#[test]
fn real_maps_are_read_as_their_releases_read_them() {
    for (name, hex, expected) in REAL {
        let map = BlockMap::decode(&unhex(hex), BLOCK, 6).unwrap();
        assert_eq!(items(&map), expected, "{name}");
    }
    let map = BlockMap::decode(&unhex(INTERRUPTED[9]), BLOCK, 6).unwrap();
    let places: Vec<_> = items(&map).into_iter().map(|item| (item.0, item.3, item.5)).collect();
    assert_eq!(
        places,
        [
            (3, 0, 0),
            (1, 0, 0),
            (2, 0, 0),
            (0, 77, 3),
            (0, 32845, 0),
            (0, 32845, 1),
            (2, 0, 1),
            (0, 32845, 3),
            (3, 0, 1)
        ]
    );
}

#[test]
fn real_maps_come_back_byte_by_byte() {
    for hex in REAL.iter().map(|real| real.1).chain(INTERRUPTED) {
        let bytes = unhex(hex);
        assert_eq!(BlockMap::decode(&bytes, BLOCK, 6).unwrap().encode(BLOCK).unwrap(), bytes, "{hex}");
    }
}

/// The specification's example of 2.44: four blocks, the second of them in an incremental backup.
fn single() -> Vec<u8> {
    let sum = |digit: u8| [digit; 20];
    let mut bytes = vec![0x01, 0, 0, 0x84, 0x40];
    bytes.extend(sum(1));
    bytes.extend([0, 0x02, 0x05, 0xe8, 0x07, 0x01]);
    bytes.extend(sum(2));
    bytes.extend([0, 0x01, 0x84, 0x40, 0x01]);
    bytes.extend(sum(3));
    bytes.extend([0xba, 0x7e]);
    bytes.extend(sum(4));
    bytes.extend([0, 0]);
    bytes
}

#[test]
fn a_map_of_the_first_release_with_maps_is_read_and_comes_back() {
    let bytes = single();
    let map = BlockMap::decode_single(&bytes, BLOCK, 20).unwrap();
    assert_eq!(
        items(&map),
        [
            (0, 8192, 0, 0, 8196, 0),
            (1, 8192, 5, 1000, 8196, 0),
            (0, 8192, 0, 16392, 8196, 0),
            (0, 8192, 0, 24588, 103, 0)
        ]
    );
    assert_eq!(map.encode_single(BLOCK).unwrap(), bytes);
    for length in 0..bytes.len() {
        assert!(BlockMap::decode_single(&bytes[..length], BLOCK, 20).is_err(), "{length} bytes");
    }
}

#[test]
fn a_map_that_ends_early_is_refused() {
    for hex in REAL.iter().map(|real| real.1).chain(INTERRUPTED) {
        let bytes = unhex(hex);
        for length in (0..bytes.len()).filter(|length| *length != 1) {
            let error = BlockMap::decode(&bytes[..length], BLOCK, 6).err().unwrap();
            assert_eq!(error.message, "unexpected end of block map", "{length} bytes of {hex}");
        }
    }
    // What 2.51 to 2.59.1 write for a file that has become empty.
    assert_eq!(BlockMap::decode(&[0], BLOCK, 6).unwrap().len(), 0);
}

#[test]
fn a_map_that_makes_no_sense_is_refused() {
    let refuse = |bytes: &[u8]| BlockMap::decode(bytes, BLOCK, 6).err().unwrap().message;
    assert_eq!(refuse(&[1]), "block map version must be zero");
    // A super block without blocks, of which there could be more than memory holds.
    assert_eq!(refuse(&[0, 1, 0x03, 0, 1, 2, 3, 4, 5, 6]), "number in block map is out of range");
    // More blocks than there are bytes, than there may be, than numbers go.
    assert_eq!(refuse(&[0, 1, 0x0d, 0xfe, 0xff, 0xff, 0x0f]), "unexpected end of block map");
    assert_eq!(
        refuse(&[0, 1, 0x0d, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        "number in block map is out of range"
    );
    let mut long = vec![0, 1, 0x0d, 0x80, 0x80, 0x80, 0x01];
    long.resize(long.len() + 6 * (BLOCKS_MAXIMUM + 1), 0);
    assert_eq!(refuse(&long), "file has more than 1048576 blocks");
    // The size of a super block that is less than nothing.
    assert_eq!(refuse(&[0, 1, 0x08, 1, 2, 3, 4, 5, 6, 0x19, 1, 2, 3, 4, 5, 6]), "number in block map is out of range");
    assert_eq!(refuse(&[0, 0xf9, 0xff, 0xff, 0xff, 0xff, 0x7f]), "number in block map is out of range");
}

#[test]
fn blocks_out_of_order_are_an_error_and_no_wrong_map() {
    let mut map = BlockMap::new(1);
    let super_block = |reference, offset| SuperBlock { reference, bundle_id: 0, offset, stored: 10, size: BLOCK };
    for (reference, offset) in [(0, 50), (1, 0), (0, 20)] {
        let index = map.push_super_block(super_block(reference, offset));
        map.push(index, 0, &[1]).unwrap();
    }
    assert_eq!(map.encode(BLOCK).err().unwrap().message, "block map has blocks out of order");
    assert_eq!(map.encode_single(BLOCK).err().unwrap().message, "block map has blocks out of order");
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic_and_what_is_understood_comes_back(
        which in 0usize..14,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        more in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let maps: Vec<_> = REAL.iter().map(|real| real.1).chain(INTERRUPTED).collect();
        let mut bytes = unhex(maps[which]);
        for (at, byte) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        bytes.extend(&more);
        if let Ok(map) = BlockMap::decode(&bytes, BLOCK, 6)
            && let Ok(encoded) = map.encode(BLOCK)
        {
            let again = BlockMap::decode(&encoded, BLOCK, 6).unwrap();
            prop_assert_eq!(items(&again).len(), items(&map).len());
        }
        let mut single = single();
        for (at, byte) in &changes {
            let at = at.index(single.len());
            single[at] = *byte;
        }
        if let Ok(map) = BlockMap::decode_single(&single, BLOCK, 20)
            && let Ok(encoded) = map.encode_single(BLOCK)
        {
            let again = BlockMap::decode_single(&encoded, BLOCK, 20).unwrap();
            prop_assert_eq!(items(&again).len(), items(&map).len());
        }
    }

    #[test]
    fn random_bytes_are_read_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        block_size in 1u64..100_000,
        checksum_size in 1usize..20,
    ) {
        let _ = BlockMap::decode(&bytes, block_size, checksum_size).map(|map| map.encode(block_size));
        let _ = BlockMap::decode_single(&bytes, block_size, checksum_size).map(|map| map.encode_single(block_size));
    }
}
