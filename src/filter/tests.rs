//! What the filters do to data, seen through a chain as a session uses it.
//!
//! The fixed vectors come from the real tools (gzip 1.12, lz4 1.9.4, zstd 1.5, bzip2 1.0.8, Python's
//! zlib, OpenSSL 3.0), so that no test depends on a tool that is installed.

mod ciphers;

use proptest::prelude::*;

use super::{Chain, Progress, STEP};
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::filter::{CipherKey, CipherMode, Digest, FilterResult, FilterSpec, Secret};

const PLAIN: &[u8] = b"hello repository\n";

/// `openssl enc -aes-256-cbc -md DIGEST -pass pass:secret -S 0102030405060708` of [`PLAIN`].
pub(super) const OPENSSL_FIXED_SALT: &[(Digest, &str)] = &[
    (Digest::Md5, "a2ca601a92a84950e1ababed484cb24779e34522d644b7c4dd966e4fe02ce5ed"),
    (Digest::Sha1, "8d03272a443eb4f323d98abf371d17ed28c0c4cd82d6014c5306aeaef1174651"),
    (Digest::Sha256, "689adf0a7c01ae116095fac34c69293f9939146b9f1a8b28472d09e27acd2890"),
];
/// `openssl enc -aes-256-cbc -md sha1 -pass pass:secret` of [`PLAIN`].
const OPENSSL_SHA1: &str =
    "53616c7465645f5fc2ea84335c8097cd8229c4ffb5592551185878e96b391d4d6661c560778e42757daf63fc26296717";
/// The same with `-md sha256`.
const OPENSSL_SHA256: &str =
    "53616c7465645f5f76e8228f88ee6fe228a4dac50a306fb4057bd2ee05d073000dba0945485be948eace12e8bbeccb3b";
/// The same of nothing, with `-md sha1`.
const OPENSSL_EMPTY: &str = "53616c7465645f5f720f7c1b0733f88e7f93ec2efadabdaea55dd7c74b57049e";

/// Compressed forms of [`PLAIN`] and what decompresses them.
fn compressed() -> Vec<(&'static str, FilterSpec, Vec<u8>)> {
    [
        (
            "gzip -n9",
            FilterSpec::GzDecompress { raw: false },
            "1f8b0800000000000203cb48cdc9c957284a2dc82fce2cc92faae4020009688a3311000000",
        ),
        ("zlib.compress", FilterSpec::GzDecompress { raw: true }, "789ccb48cdc9c957284a2dc82fce2cc92faae402003cd5069f"),
        (
            "lz4",
            FilterSpec::Lz4Decompress,
            "04224d186440a71100008068656c6c6f207265706f7369746f72790a000000001b917390",
        ),
        (
            "lz4 --no-frame-crc",
            FilterSpec::Lz4Decompress,
            "04224d186040821100008068656c6c6f207265706f7369746f72790a00000000",
        ),
        ("zstd", FilterSpec::ZstDecompress, "28b52ffd241189000068656c6c6f207265706f7369746f72790a5b093942"),
        ("zstd --no-check", FilterSpec::ZstDecompress, "28b52ffd201189000068656c6c6f207265706f7369746f72790a"),
        (
            "bzip2",
            FilterSpec::Bz2Decompress,
            "425a6839314159265359956ff8030000025180001040000264dc202000310340d02001a687284f6042638211e2ee48a70a1212adff0060",
        ),
    ]
    .into_iter()
    .map(|(name, spec, hex)| (name, spec, unhex(hex)))
    .collect()
}

/// Every pair of filters that undo each other.
fn pairs() -> Vec<(FilterSpec, FilterSpec)> {
    let mut pairs = Vec::new();
    for raw in [false, true] {
        for level in [-1, 0, 1, 6, 9] {
            pairs.push((FilterSpec::GzCompress { level, raw }, FilterSpec::GzDecompress { raw }));
        }
        for level in [-5, 0, 1, 3, 9, 12] {
            pairs.push((FilterSpec::Lz4Compress { level, raw }, FilterSpec::Lz4Decompress));
        }
    }
    for level in [-7, 0, 1, 3, 12] {
        pairs.push((FilterSpec::ZstCompress { level }, FilterSpec::ZstDecompress));
    }
    for level in [1, 9] {
        pairs.push((FilterSpec::Bz2Compress { level }, FilterSpec::Bz2Decompress));
    }
    for digest in [Digest::Md5, Digest::Sha1, Digest::Sha256] {
        for magic in [false, true] {
            pairs.push((encrypt(digest, magic), decrypt(digest, magic)));
        }
    }
    pairs
}

pub(super) fn encrypt(digest: Digest, magic: bool) -> FilterSpec {
    FilterSpec::CipherBlock { mode: CipherMode::Encrypt, pass: secret(), digest, magic }
}

pub(super) fn decrypt(digest: Digest, magic: bool) -> FilterSpec {
    FilterSpec::CipherBlock { mode: CipherMode::Decrypt, pass: secret(), digest, magic }
}

fn by_format(ids: &[&str], expected: Option<u32>) -> FilterSpec {
    let keys = ids.iter().map(|id| CipherKey { id: (*id).to_string(), digest: None, pass: secret() }).collect();
    FilterSpec::CipherFormat { keys, expected }
}

pub(super) fn secret() -> Secret {
    Secret(b"secret".to_vec())
}

pub(super) fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Text-like data that compresses about as much as a relation does.
pub(super) fn sample(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if state >> 30 == 0 { state.to_le_bytes()[3] } else { b'x' }
        })
        .collect()
}

/// What `chain` makes of `data`, given in pieces and taken away in pieces.
pub(super) fn drive(chain: &mut Chain, data: &[u8], sizes: &[(usize, usize, usize)]) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut rest = data;
    let mut input: &[u8] = &[];
    let mut sizes = sizes.iter().copied().cycle();
    loop {
        let (piece, limit, budget) = sizes.next().unwrap();
        if input.is_empty() {
            (input, rest) = rest.split_at(piece.min(rest.len()));
        }
        let mut output = Vec::with_capacity(limit);
        let capacity = output.capacity();
        let before = (input.len(), rest.len());
        let progress = chain.process(&mut input, rest.is_empty(), &mut output, limit, budget)?;
        assert!(output.len() <= limit && output.capacity() == capacity, "the output outgrew its limit");
        all.extend_from_slice(&output);
        match progress {
            Progress::Finished => {
                assert!(input.is_empty() && rest.is_empty(), "the chain finished before its input");
                return Ok(all);
            }
            Progress::NeedsInput => {
                assert!(input.is_empty() && !rest.is_empty(), "the chain wants input it was not promised");
            }
            Progress::OutputFull => assert_eq!(output.len(), limit),
            Progress::Budget => assert!(!output.is_empty() || before.0 > input.len() || budget < 64 * STEP),
        }
    }
}

pub(super) fn run(specs: Vec<FilterSpec>, data: &[u8]) -> Result<Vec<u8>> {
    drive(&mut Chain::new(specs)?, data, &[(usize::MAX, 1 << 20, usize::MAX)])
}

fn failure(specs: Vec<FilterSpec>, data: &[u8]) -> Error {
    run(specs, data).expect_err("the data should be refused")
}

#[test]
fn files_of_the_real_tools_are_read_wherever_they_are_split() {
    for (tool, spec, data) in compressed() {
        for at in 1..=data.len() {
            let mut chain = Chain::new(vec![spec.clone()]).unwrap();
            let plain = drive(&mut chain, &data, &[(at, 5, 1), (usize::MAX, 3, 9)]).unwrap();
            assert_eq!(plain, PLAIN, "{tool} split at {at}");
        }
    }
}

#[test]
fn whatever_is_compressed_or_encrypted_comes_back() {
    for (there, back) in pairs() {
        for length in [0, 1, 15, 16, 17, STEP - 1, STEP, STEP + 1, 300_000] {
            let data = sample(length);
            let packed = run(vec![there.clone()], &data).unwrap();
            assert!(!packed.is_empty(), "{there:?} leaves nothing of {length} bytes");
            assert_eq!(run(vec![back.clone()], &packed).unwrap(), data, "{there:?} of {length} bytes");
        }
    }
}

#[test]
fn a_whole_list_of_filters_comes_back_in_one_chain() {
    let specs = pairs().into_iter().filter(|(there, _)| !matches!(there, FilterSpec::Lz4Compress { level: 12, .. }));
    let (mut there, mut back): (Vec<_>, Vec<_>) = specs.step_by(3).unzip();
    back.reverse();
    there.append(&mut back);
    let data = sample(200_000);
    assert_eq!(run(there, &data).unwrap(), data);
}

#[test]
fn an_lz4_frame_says_what_its_blocks_are() {
    for level in [-5, 1, 12] {
        let plain = run(vec![FilterSpec::Lz4Compress { level, raw: false }], PLAIN).unwrap();
        assert_eq!(plain[..7], unhex("04224d18645008"));
        let raw = run(vec![FilterSpec::Lz4Compress { level, raw: true }], PLAIN).unwrap();
        assert_eq!(raw[..7], unhex("04224d186050fb"));
        assert_eq!(raw.len() + 4, plain.len(), "a content checksum is the difference");
    }
}

#[test]
fn a_stronger_level_compresses_more() {
    let data = sample(400_000);
    let length = |spec: FilterSpec| run(vec![spec], &data).unwrap().len();
    assert!(
        length(FilterSpec::GzCompress { level: 9, raw: true }) < length(FilterSpec::GzCompress { level: 1, raw: true })
    );
    assert!(
        length(FilterSpec::Lz4Compress { level: 9, raw: true })
            < length(FilterSpec::Lz4Compress { level: -5, raw: true })
    );
    assert!(length(FilterSpec::ZstCompress { level: 12 }) < length(FilterSpec::ZstCompress { level: -7 }));
}

#[test]
fn gzip_and_zlib_have_their_own_headers() {
    let gzip = run(vec![FilterSpec::GzCompress { level: 6, raw: false }], b"").unwrap();
    assert_eq!(gzip[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
    assert_eq!(run(vec![FilterSpec::GzCompress { level: 6, raw: true }], b"").unwrap(), unhex("789c030000000001"));
}

#[test]
fn a_truncated_file_is_an_unexpected_end_and_never_a_short_one() {
    for (tool, spec, data) in compressed() {
        for at in 0..data.len() {
            let error = failure(vec![spec.clone()], &data[..at]);
            assert_eq!(error, Error::format("unexpected eof in compressed data"), "{tool} cut at {at}");
        }
    }
}

#[test]
fn corrupt_files_are_refused_in_the_librarys_words() {
    // Which byte from the end to change, how, and what comes of it.
    let changes = [
        (8, 0x55, "zlib threw error: [-3] data error"),
        (1, 0x55, "zlib threw error: [-3] data error"),
        (1, 0x55, "lz4 error: [-18] ERROR_contentChecksum_invalid"),
        (26, 0x55, "lz4 error: [-17] ERROR_headerChecksum_invalid"),
        (1, 0x55, "zst error: [-22] Restored data doesn't match checksum"),
        (20, 0x06, "zst error: [-20] Data corruption detected"),
        (20, 0x55, "bz2 error: [-4] data error"),
    ];
    let files = compressed();
    assert_eq!(files.len(), changes.len());
    for ((tool, spec, mut bytes), (from_end, bits, message)) in files.into_iter().zip(changes) {
        let at = bytes.len() - from_end;
        bytes[at] ^= bits;
        assert_eq!(failure(vec![spec], &bytes), Error::format(message), "{tool}");
    }
}

#[test]
fn a_file_that_is_not_compressed_is_refused() {
    let text = b"[backrest]\nbackrest-format=5\nbackrest-version=\"2.55.1\"\n";
    let message = |spec| failure(vec![spec], text).to_string();
    assert_eq!(message(FilterSpec::GzDecompress { raw: false }), "[029]: zlib threw error: [-3] data error");
    assert_eq!(message(FilterSpec::GzDecompress { raw: true }), "[029]: zlib threw error: [-3] data error");
    assert_eq!(message(FilterSpec::Lz4Decompress), "[029]: lz4 error: [-13] ERROR_frameType_unknown");
    assert_eq!(message(FilterSpec::ZstDecompress), "[029]: zst error: [-10] Unknown frame descriptor");
    assert_eq!(message(FilterSpec::Bz2Decompress), "[029]: bz2 error: [-5] data error magic");
}

#[test]
fn a_failed_chain_repeats_its_error_instead_of_going_on() {
    let mut chain = Chain::new(vec![FilterSpec::ZstDecompress]).unwrap();
    let mut output = Vec::with_capacity(64);
    let first = chain.process(&mut &b"not a frame"[..], false, &mut output, 64, 1 << 20).unwrap_err();
    let again = chain.process(&mut &b""[..], true, &mut output, 64, 1 << 20).unwrap_err();
    assert_eq!(first, again);
}

#[test]
fn frames_one_after_the_other_are_one_file() {
    for (tool, spec, data) in compressed() {
        let twice = [data.clone(), data.clone()].concat();
        let expected = match spec {
            FilterSpec::Lz4Decompress | FilterSpec::ZstDecompress => PLAIN.repeat(2),
            // The others end with their stream, and what follows is swallowed.
            _ => PLAIN.to_vec(),
        };
        for at in 1..twice.len() {
            let mut chain = Chain::new(vec![spec.clone()]).unwrap();
            let plain = drive(&mut chain, &twice, &[(at, 64, usize::MAX)]).unwrap();
            assert_eq!(plain, expected, "{tool} split at {at}");
        }
    }
}

#[test]
fn many_empty_lz4_frames_take_many_calls_but_end() {
    let empty = run(vec![FilterSpec::Lz4Compress { level: 1, raw: true }], b"").unwrap();
    assert_eq!(empty.len(), 11);
    let data = [empty.repeat(3000), unhex("04224d186040821100008068656c6c6f207265706f7369746f72790a00000000")].concat();
    let mut chain = Chain::new(vec![FilterSpec::Lz4Decompress]).unwrap();
    assert_eq!(drive(&mut chain, &data, &[(20_000, 64, usize::MAX)]).unwrap(), PLAIN);
}

#[test]
fn what_follows_a_gzip_stream_is_swallowed_but_counted_before_it() {
    let (_, spec, mut data) = compressed().swap_remove(0);
    data.resize(data.len() + 100_000, 0);
    let mut chain = Chain::new(vec![FilterSpec::Size, spec, FilterSpec::Size]).unwrap();
    assert_eq!(drive(&mut chain, &data, &[(50_000, 1 << 16, 1 << 16)]).unwrap(), PLAIN);
    let results: Vec<_> = chain.results().into_iter().map(|(_, result)| result).collect();
    assert_eq!(results[0], FilterResult::Size(100_037));
    assert_eq!(results[2], FilterResult::Size(17));
}

#[test]
fn a_bomb_of_64_mib_stays_within_limit_and_budget() {
    const SIZE: usize = 64 << 20;
    const LIMIT: usize = 100_000;
    const BUDGET: usize = 200_000;
    for (there, back) in [
        (FilterSpec::GzCompress { level: 9, raw: false }, FilterSpec::GzDecompress { raw: false }),
        (FilterSpec::Lz4Compress { level: 1, raw: false }, FilterSpec::Lz4Decompress),
        (FilterSpec::ZstCompress { level: 3 }, FilterSpec::ZstDecompress),
        (FilterSpec::Bz2Compress { level: 9 }, FilterSpec::Bz2Decompress),
    ] {
        let mut bomb = Vec::new();
        let mut chain = Chain::new(vec![there]).unwrap();
        let zeros = vec![0; SIZE];
        let mut input = &zeros[..];
        while chain.process(&mut input, true, &mut bomb, usize::MAX, usize::MAX).unwrap() != Progress::Finished {}
        drop(zeros);
        assert!(bomb.len() < SIZE / 200);

        let mut chain = Chain::new(vec![back.clone(), FilterSpec::Size]).unwrap();
        let mut input = &bomb[..];
        let mut total = 0;
        let mut output = Vec::with_capacity(LIMIT);
        loop {
            output.clear();
            let before = input.len();
            let progress = chain.process(&mut input, true, &mut output, LIMIT, BUDGET).unwrap();
            assert!(output.len() <= LIMIT && output.capacity() == LIMIT);
            assert!(before - input.len() + output.len() <= BUDGET + 2 * STEP, "{back:?} overran its budget");
            assert!(output.iter().all(|byte| *byte == 0));
            total += output.len();
            if progress == Progress::Finished {
                break;
            }
        }
        assert_eq!(total, SIZE);
        assert_eq!(chain.results()[1].1, FilterResult::Size(SIZE as u64));
    }
}

/// Names and results as text, digests by their first bytes.
pub(super) fn results(chain: &Chain) -> Vec<String> {
    let results = chain.results();
    results
        .into_iter()
        .map(|(name, result)| match result {
            FilterResult::None => name.to_string(),
            FilterResult::Hash(digest) => format!("{name} {:02x}{:02x}/{}", digest[0], digest[1], digest.len()),
            FilterResult::Size(size) | FilterResult::MapSize(size) => format!("{name} {size}"),
            FilterResult::Format(format) => format!("{name} {format}"),
            FilterResult::Pages { errors, valid, align } => format!("{name} {} {valid} {align}", errors.len()),
            FilterResult::BlockChecksums(bytes) => format!("{name} {}", bytes.len()),
        })
        .collect()
}

#[test]
fn hash_and_size_before_and_after_a_compressor_report_both_in_order() {
    let mut chain = Chain::new(vec![
        FilterSpec::Hash(Digest::Sha1),
        FilterSpec::Size,
        FilterSpec::CipherHeader(b"0123".to_vec()),
        FilterSpec::Hash(Digest::Sha1),
        FilterSpec::Size,
    ])
    .unwrap();
    assert!(!chain.is_passive());
    assert_eq!(drive(&mut chain, b"abc", &[(2, 3, 1)]).unwrap(), b"0123abc");
    // The last two as sha1sum has them for the seven bytes.
    assert_eq!(results(&chain), ["hash a999/20", "size 3", "cipher-hdr", "hash ffab/20", "size 7", "buffer"]);
}

#[test]
fn a_passive_list_gives_the_same_results_observed_as_copied() {
    let specs = vec![FilterSpec::Hash(Digest::Md5), FilterSpec::Size, FilterSpec::Hash(Digest::Sha256)];
    let mut copied = Chain::new(specs.clone()).unwrap();
    assert_eq!(drive(&mut copied, b"abc", &[(1, 2, 1)]).unwrap(), b"abc");
    let mut observed = Chain::new(specs).unwrap();
    assert!(observed.is_passive());
    observed.observe(b"ab").unwrap();
    observed.observe(b"c").unwrap();
    assert_eq!(results(&observed), results(&copied));
    assert_eq!(results(&observed), ["hash 9001/16", "size 3", "hash ba78/32", "buffer"]);
}

#[test]
fn a_chain_that_changes_data_refuses_to_observe_them() {
    let mut chain = Chain::new(vec![FilterSpec::Sink]).unwrap();
    assert_eq!(chain.observe(b"abc").unwrap_err().code, Code::Assert);
}

#[test]
fn verify_reads_a_whole_file_and_gets_its_checksum_without_its_data() {
    let specs = vec![FilterSpec::Hash(Digest::Sha1), FilterSpec::Size, FilterSpec::Sink, FilterSpec::Sink];
    let mut chain = Chain::new(specs).unwrap();
    let data = b"abc".repeat(100_000);
    assert_eq!(drive(&mut chain, &data, &[(70_000, 10, 1000)]).unwrap(), b"");
    assert_eq!(results(&chain)[1..], ["size 300000", "sink", "sink"]);

    let mut chain = Chain::new(vec![FilterSpec::Sink, FilterSpec::Size]).unwrap();
    assert_eq!(drive(&mut chain, &data, &[(70_000, 0, 1000)]).unwrap(), b"");
    assert_eq!(results(&chain), ["sink", "size 0", "buffer"]);
}

#[test]
fn verify_decrypts_and_decompresses_a_wal_segment_only_to_check_it() {
    let data = sample(1 << 20);
    let stored = run(vec![FilterSpec::ZstCompress { level: 3 }, encrypt(Digest::Sha1, true)], &data).unwrap();
    let mut chain = Chain::new(vec![
        by_format(&["0"], Some(5)),
        FilterSpec::ZstDecompress,
        FilterSpec::Hash(Digest::Sha256),
        FilterSpec::Size,
        FilterSpec::Sink,
        FilterSpec::Sink,
    ])
    .unwrap();
    assert_eq!(drive(&mut chain, &stored, &[(4096, 4096, 1 << 16)]).unwrap(), b"");
    let mut plain = Chain::new(vec![FilterSpec::Hash(Digest::Sha256)]).unwrap();
    plain.observe(&data).unwrap();
    let results = results(&chain);
    assert_eq!(results[2], self::results(&plain)[0]);
    assert_eq!(results[3], "size 1048576");
    assert_eq!([&results[0], &results[1], &results[4], &results[5]], ["cipher-fmt 5", "zst-dcmp", "sink", "sink"]);
}

#[test]
fn the_extra_buffer_is_reported_exactly_where_the_original_has_one() {
    let names = |specs: Vec<FilterSpec>| -> Vec<String> {
        Chain::new(specs).unwrap().results().iter().map(|(name, _)| name.to_string()).collect()
    };
    assert_eq!(names(vec![]), ["buffer"]);
    assert_eq!(names(vec![FilterSpec::Size]), ["size", "buffer"]);
    assert_eq!(names(vec![FilterSpec::Sink, FilterSpec::Hash(Digest::Sha1)]), ["sink", "hash", "buffer"]);
    assert_eq!(names(vec![FilterSpec::Size, FilterSpec::Sink]), ["size", "sink"]);
    assert_eq!(names(vec![FilterSpec::Buffer]), ["buffer"]);
    assert_eq!(names(vec![FilterSpec::Size, FilterSpec::ZstCompress { level: 3 }]), ["size", "zst-cmp"]);
}

#[test]
fn an_empty_list_passes_the_data_and_empty_data_finish_at_once() {
    assert_eq!(run(vec![], PLAIN).unwrap(), PLAIN);
    assert_eq!(run(vec![FilterSpec::Buffer], PLAIN).unwrap(), PLAIN);
    let mut chain = Chain::new(vec![]).unwrap();
    let mut output = Vec::new();
    assert_eq!(chain.process(&mut &b""[..], false, &mut output, 0, 0).unwrap(), Progress::NeedsInput);
    assert_eq!(chain.process(&mut &b"a"[..], false, &mut output, 0, 9).unwrap(), Progress::OutputFull);
    assert_eq!(chain.process(&mut &b""[..], true, &mut output, 0, 0).unwrap(), Progress::Finished);
    assert_eq!(chain.process(&mut &b""[..], true, &mut output, 0, 0).unwrap(), Progress::Finished);
}

#[test]
fn compressors_and_digests_of_nothing_still_report() {
    let mut chain = Chain::new(vec![
        FilterSpec::Hash(Digest::Sha1),
        FilterSpec::GzCompress { level: 6, raw: false },
        FilterSpec::Size,
        encrypt(Digest::Sha1, true),
    ])
    .unwrap();
    let output = drive(&mut chain, b"", &[(1, 7, 1)]).unwrap();
    assert_eq!(output.len(), 48);
    assert_eq!(results(&chain), ["hash da39/20", "gz-cmp", "size 20", "cipher-blk"]);
}

#[test]
fn a_level_out_of_range_is_refused_with_the_range() {
    for (spec, message) in [
        (
            FilterSpec::GzCompress { level: 10, raw: false },
            "compression level 10 of filter 'gz-cmp' is out of range -1 to 9",
        ),
        (
            FilterSpec::Lz4Compress { level: -6, raw: false },
            "compression level -6 of filter 'lz4-cmp' is out of range -5 to 12",
        ),
        (FilterSpec::ZstCompress { level: 23 }, "compression level 23 of filter 'zst-cmp' is out of range -7 to 22"),
        (FilterSpec::Bz2Compress { level: 0 }, "compression level 0 of filter 'bz2-cmp' is out of range 1 to 9"),
    ] {
        assert_eq!(Chain::new(vec![spec]).err(), Some(Error::format(message)));
    }
}

#[test]
fn a_list_longer_than_any_client_sends_is_refused() {
    assert_eq!(Chain::new(vec![FilterSpec::Size; 33]).unwrap_err().code, Code::Format);
    assert!(Chain::new(vec![FilterSpec::Size; 32]).is_ok());
}

#[test]
fn a_passphrase_shows_neither_in_a_chain_nor_in_its_specification() {
    let spec = encrypt(Digest::Sha1, true);
    let text = format!("{spec:?} {:?}", Chain::new(vec![spec.clone()]).unwrap());
    assert!(text.contains("cipher-blk") && !text.contains("secret"), "{text}");
    assert!(!text.contains(&format!("{:?}", b"secret")), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn pieces_limits_and_budgets_do_not_change_what_comes_out(
        length in 0usize..150_000,
        which in 0usize..1000,
        sizes in prop::collection::vec((1usize..90_000, 1usize..90_000, 1usize..300_000), 1..6),
    ) {
        let pairs = pairs();
        let (there, back) = &pairs[which % pairs.len()];
        let data = sample(length);
        let packed = drive(&mut Chain::new(vec![there.clone()]).unwrap(), &data, &sizes).unwrap();
        let whole = run(vec![there.clone()], &data).unwrap();
        match there {
            // Where blocks of these end depends on how the data come.
            FilterSpec::GzCompress { .. } | FilterSpec::ZstCompress { .. } | FilterSpec::Lz4Compress { .. } => {}
            // The salt differs.
            FilterSpec::CipherBlock { .. } => prop_assert_eq!(packed.len(), whole.len()),
            _ => prop_assert!(packed == whole, "{:?} depends on how its data come", there),
        }
        let plain = drive(&mut Chain::new(vec![back.clone()]).unwrap(), &packed, &sizes).unwrap();
        prop_assert!(plain == data, "{:?} loses data", back);
    }

    #[test]
    fn garbage_is_refused_or_passed_but_never_hangs_or_panics(
        which in 0usize..1000,
        keep in 0usize..60,
        garbage in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let mut readers: Vec<_> = compressed().into_iter().map(|(_, spec, data)| (spec, data)).collect();
        readers.push((decrypt(Digest::Sha1, true), unhex(OPENSSL_SHA1)));
        readers.push((by_format(&["0"], None), unhex(OPENSSL_SHA1)));
        let (spec, data) = readers.swap_remove(which % readers.len());
        let data = [&data[..keep.min(data.len())], &garbage].concat();
        if let Err(error) = drive(&mut Chain::new(vec![spec]).unwrap(), &data, &[(7, 1000, 1000), (500, 80_000, 1)]) {
            prop_assert!(matches!(error.code, Code::Format | Code::Crypto), "{}", error);
        }
    }
}
