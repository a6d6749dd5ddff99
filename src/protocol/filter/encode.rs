//! Writing the results of a list of filters.

use super::super::pack::Writer;
use super::super::release::{HashLayout, Release};
use super::super::string_id::StringId;
use super::FilterResult;

/// Writes the results of a list of filters as a pack: name and result, pair by pair.
pub fn encode_results(writer: &mut Writer, results: &[(StringId, FilterResult)], release: &Release) {
    for (name, result) in results {
        writer.string_id(*name);
        match result {
            FilterResult::None => writer.null(),
            FilterResult::Hash(digest) => writer.pack(|inner| {
                if release.hash_layout == HashLayout::Binary {
                    inner.bin(digest);
                } else {
                    inner.str(&hexadecimal(digest));
                }
            }),
            FilterResult::Size(size) => writer.pack(|inner| _ = inner.u64(*size)),
            FilterResult::Format(format) => writer.pack(|inner| _ = inner.u32(*format)),
            FilterResult::Pages { errors, valid, align } => writer.pack(|inner| {
                if errors.is_empty() {
                    inner.null();
                } else {
                    // The number of a page is where it stands in the array.
                    inner.array(|array| {
                        for error in errors {
                            array.skip_to(error.number + 1).object(|page| _ = page.u64(error.lsn));
                        }
                    });
                }
                inner.bool_forced(*valid).bool_forced(*align);
            }),
            FilterResult::MapSize(size) => writer.pack(|inner| _ = inner.u64(*size)),
            FilterResult::BlockChecksums(checksums) => writer.pack(|inner| _ = inner.bin(checksums)),
        };
    }
}

/// `bytes` as hexadecimal digits.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
