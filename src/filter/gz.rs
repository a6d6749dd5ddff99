//! gzip and zlib streams, with zlib-rs behind flate2.
//!
//! Level, window and strategy are the original's. Its memory level 9 is not: flate2 fixes zlib's
//! default 8, which costs a little compression and no compatibility.

use flate2::{
    Compress as Deflate, Compression, Decompress as Inflate, DecompressError, FlushCompress, FlushDecompress, Status,
};

use super::{Step, Transform, check_level};
use crate::protocol::error::{Code, Error, Result};

const WINDOW_BITS: u8 = 15;
const DEFAULT_LEVEL: u32 = 6;

/// Deflates into a gzip stream, or a zlib stream if raw.
pub(super) struct Compress(Deflate);

impl Compress {
    pub(super) fn new(level: i32, raw: bool) -> Result<Self> {
        check_level("gz-cmp", level, -1, 9)?;
        let level = Compression::new(u32::try_from(level).unwrap_or(DEFAULT_LEVEL));
        Ok(Self(if raw { Deflate::new(level, true) } else { Deflate::new_gzip(level, WINDOW_BITS) }))
    }
}

impl Transform for Compress {
    fn step(&mut self, input: &[u8], ended: bool, output: &mut [u8]) -> Result<Step> {
        let flush = if ended { FlushCompress::Finish } else { FlushCompress::None };
        let before = (self.0.total_in(), self.0.total_out());
        let status = self.0.compress(input, output, flush).map_err(|error| {
            let detail = error.message().unwrap_or("stream error");
            Error::new(Code::Format, format!("zlib threw error: [-2] {detail}"))
        })?;
        Ok(Step::between(before, (self.0.total_in(), self.0.total_out()), status == Status::StreamEnd))
    }

    fn restart(&mut self) -> Result<()> {
        self.0.reset();
        Ok(())
    }
}

/// Inflates a gzip stream, or a zlib stream if raw. What follows the stream is swallowed.
pub(super) struct Decompress(Inflate);

impl Decompress {
    pub(super) fn new(raw: bool) -> Self {
        Self(if raw { Inflate::new(true) } else { Inflate::new_gzip(WINDOW_BITS) })
    }
}

impl Transform for Decompress {
    fn step(&mut self, input: &[u8], ended: bool, output: &mut [u8]) -> Result<Step> {
        let before = (self.0.total_in(), self.0.total_out());
        let status = self.0.decompress(input, output, FlushDecompress::None).map_err(|error| describe(&error))?;
        let after = (self.0.total_in(), self.0.total_out());
        Step::between(before, after, status == Status::StreamEnd).unless_cut_off(input, ended)
    }
}

/// The original's words. flate2 tells a missing dictionary apart from bad data and nothing else.
fn describe(error: &DecompressError) -> Error {
    Error::format(if error.needs_dictionary().is_some() {
        "zlib threw error: [2] need dictionary"
    } else {
        "zlib threw error: [-3] data error"
    })
}
