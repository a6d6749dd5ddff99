//! Layouts of parameters and results by release. The bytes of `pg-chksum` results and of filter lists
//! are those of real servers.

use proptest::prelude::*;

use super::super::error::{Code, Result};
use super::super::pack::{Reader, Writer};
use super::super::release::{RELEASES, Release};
use super::*;

/// Decodes the list of one filter whose parameters `fill` writes.
fn decode_by(release: &Release, name: &str, fill: impl FnOnce(&mut Writer)) -> Result<FilterSpec> {
    let mut writer = Writer::new();
    writer.pack(|list| {
        list.string_id(StringId::new(name)).pack(fill);
    });
    let bytes = writer.finish();
    decode_filters(&mut Reader::new(&bytes), release).map(|mut filters| filters.remove(0))
}

fn decode(version: &str, name: &str, fill: impl FnOnce(&mut Writer)) -> Result<FilterSpec> {
    decode_by(Release::find(version).unwrap(), name, fill)
}

fn refusal(version: &str, name: &str, fill: impl FnOnce(&mut Writer)) -> String {
    let error = decode(version, name, fill).unwrap_err();
    assert_eq!(error.code, Code::Format);
    error.message
}

fn pages(first: u32, page_size: usize, rule: PageRule) -> FilterSpec {
    FilterSpec::PageChecksum(PageChecksum { first, segment_pages: 131_072, page_size, rule })
}

#[test]
fn page_checksums_are_asked_for_in_four_ways() {
    let again = |header_check| PageRule::ReadAgain { header_check };
    let head = |writer: &mut Writer| _ = writer.u32(2).u32(131_072);
    let oldest = decode("2.37", "pg-chksum", |writer| {
        head(writer);
        writer.u64(0xface_face);
    });
    assert_eq!(oldest.unwrap(), pages(262_144, 8192, PageRule::BelowLsn(0xface_face)));
    for version in ["2.38", "2.44", "2.45"] {
        let spec = decode(version, "pg-chksum", |writer| {
            head(writer);
            writer.str("/pg/base/1/2.2");
        });
        assert_eq!(spec.unwrap(), pages(262_144, 8192, again(true)), "{version}");
    }
    for header_check in [false, true] {
        for version in ["2.46", "2.49"] {
            let spec = decode(version, "pg-chksum", |writer| {
                head(writer);
                writer.bool(header_check).str("/pg/base/1/2.2");
            });
            assert_eq!(spec.unwrap(), pages(262_144, 8192, again(header_check)), "{version}");
        }
        for version in ["2.50", "2.55.1", "2.60.0"] {
            let spec = decode(version, "pg-chksum", |writer| {
                head(writer);
                writer.u32(32_768).bool(header_check).str("/pg/base/1/2.2");
            });
            assert_eq!(spec.unwrap(), pages(262_144, 32_768, again(header_check)), "{version}");
        }
    }
}

#[test]
fn pages_that_no_relation_has_are_refused() {
    let of = |segment, pages, size| {
        refusal("2.60.0", "pg-chksum", move |writer| _ = writer.u32(segment).u32(pages).u32(size).bool(true).str("f"))
    };
    let sizes = "but only 1024, 2048, 4096, 8192, 16384, 32768 are supported";
    assert_eq!(of(0, 131_072, 0), format!("page size is 0 {sizes}"));
    assert_eq!(of(0, 131_072, 8000), format!("page size is 8000 {sizes}"));
    assert_eq!(of(0, 131_072, 65_536), format!("page size is 65536 {sizes}"));
    assert_eq!(of(3, 0, 8192), "segment 3 of 0 pages is not in any relation");
    assert_eq!(of(32_768, 131_072, 8192), "segment 32768 of 131072 pages is not in any relation");
    assert_eq!(of(u32::MAX, u32::MAX, 8192), "segment 4294967295 of 4294967295 pages is not in any relation");
    assert!(decode("2.60.0", "pg-chksum", |writer| _ = writer.u32(32_767).u32(131_072).u32(8192)).is_ok());
    let wrong = refusal("2.37", "pg-chksum", |writer| _ = writer.u32(0).u32(131_072).str("f"));
    assert_eq!(wrong, "field 3 is type 'str' but expected 'u64'");
}

#[test]
fn page_checksum_results_are_those_of_real_servers() {
    let pack = |errors: &[(u64, u64)], valid, align| {
        let errors = errors.iter().map(|(number, lsn)| PageError { number: *number, lsn: *lsn }).collect();
        let mut writer = Writer::new();
        let result = FilterResult::Pages { errors, valid, align };
        encode_results(&mut writer, &[(StringId::new("pg-chksum"), result)], Release::newest());
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.read_string_id().unwrap(), Some(StringId::new("pg-chksum")));
        // Behind the pack's type, its extension and its length.
        let at = bytes.iter().position(|byte| *byte == 0xf0).unwrap() + 3;
        hexadecimal(&bytes[at..bytes.len() - 1])
    };
    assert_eq!(pack(&[], true, true), "292800");
    assert_eq!(pack(&[], false, false), "212000");
    assert_eq!(pack(&[(1, 0), (3, 0)], false, true), "105100510000202800");
    assert_eq!(pack(&[(5, 0)], false, false), "10550000202000");
    let with_lsn = pack(&[(1, 23_554_232), (3, 22_585_136)], false, true);
    assert_eq!(with_lsn, "105198b8d19d0b005198b0bee20a0000202800");
}

/// The parameters that every form of block incremental begins with after its sizes.
fn backup(writer: &mut Writer) {
    writer.u32(3).u64(7).u64(500);
}

fn blocks(spec: FilterSpec) -> BlockIncremental {
    if let FilterSpec::BlockIncremental(spec) = spec { *spec } else { panic!("{spec:?}") }
}

#[test]
fn block_incremental_is_asked_for_in_two_ways_and_done_in_three() {
    let single = decode("2.44", "blk-incr", |writer| {
        writer.u64(16_384);
        backup(writer);
        writer.bin(b"map");
        writer.pack(|inner| _ = inner.i32(6)).string_id(StringId::new("gz-cmp"));
        writer.pack(|inner| encryption(inner, "2.44"));
    });
    let single = blocks(single.unwrap());
    assert_eq!((single.storage, single.map_rule), (BlockStorage::Single, MapRule::Always));
    assert_eq!((single.block_size, single.super_block_size, single.checksum_size), (16_384, 16_384, 20));
    assert_eq!((single.reference, single.bundle_id, single.bundle_offset), (3, 7, 500));
    assert_eq!(single.prior.as_deref(), Some(&b"map"[..]));
    assert_eq!(single.compress, Some(FilterSpec::GzCompress { level: 6, raw: false }));
    assert!(matches!(single.encrypt, Some(FilterSpec::CipherBlock { magic: true, .. })));

    for (version, storage, rule) in [
        ("2.45", BlockStorage::Numbered, MapRule::Always),
        ("2.46", BlockStorage::Plain, MapRule::Always),
        ("2.50", BlockStorage::Plain, MapRule::Always),
        ("2.51", BlockStorage::Plain, MapRule::Changed),
        ("2.55.1", BlockStorage::Plain, MapRule::Changed),
        ("2.59.1", BlockStorage::Plain, MapRule::Changed),
        ("2.59.2", BlockStorage::Plain, MapRule::ChangedNotEmpty),
        ("2.60.0", BlockStorage::Plain, MapRule::ChangedNotEmpty),
    ] {
        // Without compression the encryption moves up.
        for compressed in [false, true] {
            let spec = decode(version, "blk-incr", |writer| {
                writer.u64(262_144).u64(24_576).u64(7);
                backup(writer);
                writer.null();
                if compressed {
                    writer.pack(|inner| _ = inner.i32(1).bool(true)).string_id(StringId::new("lz4-cmp"));
                } else {
                    writer.null();
                }
                writer.pack(|inner| encryption(inner, version));
            });
            let spec = blocks(spec.unwrap());
            assert_eq!((spec.storage, spec.map_rule), (storage, rule), "{version}");
            assert_eq!((spec.block_size, spec.super_block_size, spec.checksum_size), (24_576, 270_336, 7));
            assert_eq!((spec.reference, spec.bundle_id, spec.bundle_offset, spec.prior), (3, 7, 500, None));
            assert_eq!(spec.compress, compressed.then_some(FilterSpec::Lz4Compress { level: 1, raw: true }));
            assert!(matches!(spec.encrypt, Some(FilterSpec::CipherBlock { magic: false, .. })), "{version}");
        }
    }
}

/// Parameters of the encryption that real clients put into block incremental.
fn encryption(writer: &mut Writer, version: &str) {
    let (encrypt, aes, sha1) = (StringId::new("encrypt"), StringId::new("aes-256-cbc"), StringId::new("sha1"));
    match version {
        "2.60.0" => _ = writer.u64(encrypt.0).string_id(aes).string_id(sha1).bin(b"secret").u32(1),
        "2.44" => _ = writer.u64(encrypt.0).u64(aes.0).bin(b"secret"),
        _ => _ = writer.u64(encrypt.0).u64(aes.0).bin(b"secret").null().bool(true),
    }
}

#[test]
fn a_release_without_a_filter_says_so_as_the_original_does() {
    for (name, first) in [("blk-incr", "2.44"), ("blk-chk", "2.45")] {
        let known = RELEASES.iter().position(|release| release.version == first).unwrap();
        for (index, release) in RELEASES.iter().enumerate() {
            let error = decode_by(release, name, |writer| _ = writer.u64(8192).u64(8192).u64(6)).err();
            let unknown = error.is_some_and(|error| error.message == format!("unable to add filter '{name}'"));
            assert_eq!(unknown, index < known, "{name} of {}", release.version);
        }
    }
}

#[test]
fn sizes_of_blocks_that_make_no_sense_are_refused() {
    let of = |super_block: u64, block: u64, checksum: u64| {
        refusal("2.60.0", "blk-incr", move |writer| _ = writer.u64(super_block).u64(block).u64(checksum))
    };
    assert_eq!(of(8192, 0, 6), "block size 0 is out of range 512 to 16777216");
    assert_eq!(of(8192, 511, 6), "block size 511 is out of range 512 to 16777216");
    assert_eq!(of(8192, (16 << 20) + 1, 6), "block size 16777217 is out of range 512 to 16777216");
    assert_eq!(of(8192, u64::MAX, 6), "block size 18446744073709551615 is out of range 512 to 16777216");
    assert_eq!(of((16 << 20) + 1, 8192, 6), "super block size 16777217 is larger than 16777216");
    assert_eq!(of(8192, 8192, 0), "block checksum size 0 is out of range 1 to 16");
    assert_eq!(of(8192, 8192, 17), "block checksum size 17 is out of range 1 to 16");
    let oldest = refusal("2.44", "blk-incr", |writer| _ = writer.u64(100));
    assert_eq!(oldest, "block size 100 is out of range 512 to 16777216");
    let offset = refusal("2.60.0", "blk-incr", |writer| _ = writer.u64(0).u64(8192).u64(6).u32(0).u64(0).u64(1 << 63));
    assert_eq!(offset, "bundle offset 9223372036854775808 is out of range");
    let checksums = refusal("2.60.0", "blk-chk", |writer| _ = writer.u64(8192));
    assert_eq!(checksums, "block checksum size 0 is out of range 1 to 16");
    // No size at all is rounded up to a block.
    let least = decode("2.60.0", "blk-incr", |writer| _ = writer.u64(0).u64(8192).u64(6)).unwrap();
    assert_eq!(blocks(least).super_block_size, 8192);
}

#[test]
fn blocks_can_be_compressed_and_encrypted_and_nothing_else() {
    let with = |name: Option<&'static str>| {
        refusal("2.60.0", "blk-incr", move |writer| {
            writer.u64(8192).u64(8192).u64(6);
            backup(writer);
            writer.null().pack(|_| {});
            if let Some(name) = name {
                writer.string_id(StringId::new(name));
            }
        })
    };
    assert_eq!(with(None), "compression filter has no name");
    for name in ["zst-dcmp", "hash", "sink", "size", "gz-dcmp"] {
        assert_eq!(with(Some(name)), format!("filter '{name}' does not compress blocks"));
    }
    // Nor themselves, however deep.
    assert_eq!(with(Some("blk-incr")), "block size 0 is out of range 512 to 16777216");
    let decrypt = refusal("2.60.0", "blk-incr", |writer| {
        writer.u64(8192).u64(8192).u64(6);
        backup(writer);
        let (decrypt, aes, sha1) = (StringId::new("decrypt"), StringId::new("aes-256-cbc"), StringId::new("sha1"));
        writer.null().null().pack(|inner| _ = inner.u64(decrypt.0).string_id(aes).string_id(sha1).bin(b"x"));
    });
    assert_eq!(decrypt, "blocks can only be encrypted");
}

#[test]
fn the_size_of_a_map_and_the_checksums_of_blocks_are_packs_of_one_field() {
    let bytes = |result| {
        let mut writer = Writer::new();
        encode_results(&mut writer, &[(StringId::new("size"), result)], Release::newest());
        hexadecimal(&writer.finish())
    };
    assert_eq!(bytes(FilterResult::MapSize(42)), "a8b0a6ba01f00203982a0000");
    assert_eq!(bytes(FilterResult::MapSize(0)), "a8b0a6ba01f002010000");
    assert_eq!(bytes(FilterResult::BlockChecksums(vec![1, 2])), "a8b0a6ba01f00206f801020102 0000".replace(' ', ""));
}

proptest! {
    #[test]
    fn no_parameters_make_the_decoder_panic_or_a_filter_unbounded(
        release in 0..RELEASES.len(),
        name in prop::sample::select(vec!["pg-chksum", "blk-incr", "blk-chk"]),
        numbers in prop::collection::vec((0u8..4, any::<u64>(), 0u32..64), 0..10),
    ) {
        let spec = decode_by(&RELEASES[release], name, |writer| {
            for (kind, number, shift) in &numbers {
                let number = number >> shift;
                match kind {
                    0 => _ = writer.u32(u32::try_from(number & 0xffff_ffff).unwrap()),
                    1 => _ = writer.u64(number),
                    2 => _ = writer.bool(number & 1 == 1),
                    _ => _ = writer.bin(&number.to_le_bytes()),
                }
            }
        });
        match spec {
            Ok(FilterSpec::PageChecksum(spec)) => {
                prop_assert!(spec.segment_pages > 0 && spec.page_size.is_power_of_two() && spec.page_size <= 32 << 10);
            }
            Ok(FilterSpec::BlockIncremental(spec)) => {
                prop_assert!((512..=16 << 20).contains(&spec.block_size) && (1..=20).contains(&spec.checksum_size));
                prop_assert!(spec.super_block_size <= 32 << 20);
            }
            Ok(FilterSpec::BlockChecksum { block_size, .. }) => prop_assert!((512..=16 << 20).contains(&block_size)),
            Ok(other) => prop_assert!(false, "{:?}", other),
            Err(error) => prop_assert!(matches!(error.code, Code::Format | Code::Assert), "{}", error),
        }
    }

    #[test]
    fn any_bytes_are_read_as_a_list_without_panic(
        release in 0..RELEASES.len(),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut writer = Writer::new();
        writer.pack_bytes(&bytes);
        let _ = decode_filters(&mut Reader::new(&writer.finish()), &RELEASES[release]);
    }
}
