//! `pg-chksum`: whether the pages of a relation have the checksums that `PostgreSQL` gave them.
//!
//! A page can be read while it is being written. Old releases therefore leave out what the WAL will
//! write again; newer ones read a page that looks wrong once more, and let it pass if it has changed.
//! That reading is the caller's: the filter keeps a digest of what it saw.
//!
//! The original looks at one buffer at a time. A file whose last piece is too short to be a page
//! therefore gets no errors of its last buffer reported there, but here; clients drop the list of a
//! file that does not end with a whole page.

use std::collections::VecDeque;

use fearless_simd::{Level, Simd, SimdFrom, dispatch, u32x8};
use twox_hash::XxHash3_128;

use super::cutter::Cutter;
use crate::protocol::error::{Error, Result};
use crate::protocol::filter::{FilterResult, PageChecksum, PageError, PageRule};

/// More damaged pages than a segment of 1 GiB has of the smallest pages.
const ERRORS_MAXIMUM: usize = 1 << 20;
/// A last piece of the file with fewer bytes is no page that was being written.
const PARTIAL_MINIMUM: usize = 512;

/// A page that looks wrong and is to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Suspect {
    /// Where it is in the file.
    pub(crate) offset: u64,
    /// How many bytes it has.
    pub(crate) length: usize,
}

/// The pages of one file, as they pass.
pub(super) struct Pages {
    cutter: Cutter,
    checks: Checks,
}

struct Checks {
    spec: PageChecksum,
    /// The number of the next page in the relation.
    number: u64,
    errors: Vec<PageError>,
    /// Number and digest of each page to be read again.
    suspects: VecDeque<(u64, u128)>,
}

impl Pages {
    pub(super) fn new(spec: PageChecksum) -> Self {
        let number = u64::from(spec.first);
        let checks = Checks { spec, number, errors: Vec::new(), suspects: VecDeque::new() };
        Self { cutter: Cutter::new(spec.page_size), checks }
    }

    /// Looks at the next data of the file.
    pub(super) fn update(&mut self, data: &[u8]) -> Result<()> {
        let Self { cutter, checks } = self;
        cutter.cut(data, |page| checks.check(page))
    }

    /// The first page that is to be read again.
    pub(super) fn suspect(&self) -> Option<Suspect> {
        let Checks { spec, suspects, .. } = &self.checks;
        let (number, _) = suspects.front()?;
        let offset = number % u64::from(spec.segment_pages) * spec.page_size as u64;
        Some(Suspect { offset, length: spec.page_size })
    }

    /// Decides on that page: if it is `again` now what it was before, it is damaged.
    pub(super) fn settle(&mut self, again: &[u8]) {
        if let Some((number, digest)) = self.checks.suspects.pop_front()
            && XxHash3_128::oneshot(again) == digest
        {
            self.checks.errors.push(PageError { number, lsn: 0 });
        }
    }

    /// What was found, once the data have ended. A page that nobody read again is damaged.
    pub(super) fn result(&self) -> FilterResult {
        let Checks { spec, number, errors, suspects } = &self.checks;
        let mut errors = errors.clone();
        errors.extend(suspects.iter().map(|(number, _)| PageError { number: *number, lsn: 0 }));
        let rest = self.cutter.rest();
        if rest.len() >= PARTIAL_MINIMUM {
            let lsn = match spec.rule {
                PageRule::BelowLsn(limit) => written_below(rest, limit),
                PageRule::ReadAgain { .. } => Some(0),
            };
            errors.extend(lsn.map(|lsn| PageError { number: *number, lsn }));
        }
        let valid = errors.is_empty() && (rest.is_empty() || rest.len() >= PARTIAL_MINIMUM);
        FilterResult::Pages { errors, valid, align: rest.is_empty() }
    }

    /// About how many bytes it takes now.
    pub(super) fn memory(&self) -> usize {
        let Checks { errors, suspects, .. } = &self.checks;
        self.cutter.memory()
            + errors.capacity() * size_of::<PageError>()
            + suspects.capacity() * size_of::<(u64, u128)>()
    }
}

impl Checks {
    fn check(&mut self, page: &[u8]) -> Result<()> {
        let number = self.number;
        self.number += 1;
        match self.spec.rule {
            PageRule::BelowLsn(limit) => {
                if let Some(lsn) = written_below(page, limit)
                    && !has_its_checksum(page, number)
                {
                    self.errors.push(PageError { number, lsn });
                }
            }
            PageRule::ReadAgain { header_check } => {
                let header = Header::of(page);
                let may_be_new = if header_check { header.upper == 0 } else { header.checksum == 0 };
                let right = if may_be_new { is_zero(page) } else { has_its_checksum(page, number) };
                if !right {
                    self.suspects.push_back((number, XxHash3_128::oneshot(page)));
                }
            }
        }
        if self.errors.len() + self.suspects.len() > ERRORS_MAXIMUM {
            return Err(Error::format(format!("more than {ERRORS_MAXIMUM} pages of one file are damaged")));
        }
        Ok(())
    }
}

/// What is looked at of a page's header.
#[derive(Default)]
struct Header {
    lsn: u64,
    checksum: u16,
    upper: u16,
}

impl Header {
    fn of(page: &[u8]) -> Self {
        // The position of the WAL, checksum and flags, where free space begins and ends.
        let [high, low, [sum_0, sum_1, ..], [.., upper_0, upper_1], ..] = page.as_chunks::<4>().0 else {
            return Self::default();
        };
        let half = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
        Self {
            lsn: half(high) << 32 | half(low),
            checksum: u16::from_le_bytes([*sum_0, *sum_1]),
            upper: u16::from_le_bytes([*upper_0, *upper_1]),
        }
    }
}

/// The position of the WAL that a page was last written at, if it is below `limit` and the page not new.
fn written_below(page: &[u8], limit: u64) -> Option<u64> {
    let header = Header::of(page);
    (header.upper != 0 && header.lsn < limit).then_some(header.lsn)
}

fn is_zero(page: &[u8]) -> bool {
    let (words, rest) = page.as_chunks::<8>();
    words.iter().all(|word| u64::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

fn has_its_checksum(page: &[u8], number: u64) -> bool {
    Header::of(page).checksum == checksum(page, number)
}

/// Words that are worked on side by side: as many as a vector unit of 256 bits holds.
const LANES: usize = 8;
/// Words that go round together.
const WORDS: usize = 4 * LANES;
/// Bytes of them.
const PIECE: usize = WORDS * size_of::<u32>();
/// Where a page holds its checksum, which counts as zero.
const CHECKSUM_AT: usize = 8;
/// The multiplier of the FNV hash.
const PRIME: u32 = 16_777_619;

/// What `PostgreSQL` begins with, chosen at random when checksums were introduced.
const BASE: [[u32; LANES]; 4] = [
    [0x5b1f_36e9, 0xb852_5960, 0x02ab_50aa, 0x1de6_6d2a, 0x79ff_467a, 0x9bb9_f8a3, 0x217e_7cd2, 0x83e1_3d2c],
    [0xf8d4_474f, 0xe39e_b970, 0x42c6_ae16, 0x9932_16fa, 0x7b09_3b5d, 0x98da_ff3c, 0xf718_902a, 0x0b1c_9cdb],
    [0xe58f_764b, 0x1876_36bc, 0x5d7b_3bb1, 0xe73d_e7de, 0x92be_c979, 0xcca6_c0b2, 0x304a_0979, 0x85aa_43d4],
    [0x7831_25bb, 0x6ca8_eaa2, 0xe407_eac6, 0x4b5c_fc3e, 0x9fbf_8c76, 0x15ca_20be, 0xf2ca_9fd3, 0x959b_d756],
];

/// The checksum of `page`, whose length is a multiple of 128 bytes, as page `number` of its relation.
fn checksum(page: &[u8], number: u64) -> u16 {
    let sum = dispatch!(Level::new(), simd => sum(simd, page));
    // The number of a page has 32 bits, and the remainder and one fit into 16.
    let [a, b, c, d, ..] = number.to_le_bytes();
    let checksum = (sum ^ u32::from_le_bytes([a, b, c, d])) % u32::from(u16::MAX) + 1;
    u16::try_from(checksum).unwrap_or(u16::MAX)
}

/// Thirty-two sums run side by side, each an FNV-1a hash with a shift that brings high bits down; what
/// comes of all of them (`the_speed_of_page_checksums`).
#[inline(always)]
#[allow(clippy::inline_always, reason = "the vector units are only known to what is inlined into `dispatch`")]
fn sum<S: Simd>(simd: S, page: &[u8]) -> u32 {
    let (pieces, _) = page.as_chunks::<PIECE>();
    let mut sums = BASE.map(|base| u32x8::simd_from(simd, base));
    if let Some((first, rest)) = pieces.split_first() {
        let mut first = *first;
        first[CHECKSUM_AT] = 0;
        first[CHECKSUM_AT + 1] = 0;
        sums = mix_piece(simd, sums, &first);
        for piece in rest {
            sums = mix_piece(simd, sums, piece);
        }
    }
    for _ in 0..2 {
        sums = mix_piece(simd, sums, &[0; PIECE]);
    }
    let [a, b, c, d] = sums;
    <[u32; LANES]>::from(a ^ b ^ c ^ d).iter().fold(0, |all, sum| all ^ sum)
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "see `sum`")]
fn mix_piece<S: Simd>(simd: S, sums: [u32x8<S>; 4], piece: &[u8; PIECE]) -> [u32x8<S>; 4] {
    let (parts, _) = piece.as_chunks::<{ PIECE / 4 }>();
    let [a, b, c, d] = sums;
    [mix(simd, a, &parts[0]), mix(simd, b, &parts[1]), mix(simd, c, &parts[2]), mix(simd, d, &parts[3])]
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "see `sum`")]
fn mix<S: Simd>(simd: S, sums: u32x8<S>, bytes: &[u8; PIECE / 4]) -> u32x8<S> {
    let (words, _) = bytes.as_chunks::<4>();
    let word = |index: usize| u32::from_le_bytes(words[index]);
    let words = [word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7)];
    let sums = sums ^ u32x8::simd_from(simd, words);
    (sums * PRIME) ^ (sums >> 17)
}

#[cfg(test)]
mod tests;
