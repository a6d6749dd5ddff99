//! bzip2 streams.
//!
//! The library sorts a whole block, up to 900 kB, in the one step that completes it: that is the
//! longest a step of this filter takes, and nothing outside of the library can divide it.

use bzip2::{Action, Compress as Encoder, Compression, Decompress as Decoder, Error as BzError, Status};

use super::{Step, Transform, check_level, no_memory};
use crate::protocol::error::{Error, Result};

/// Compresses with blocks of level × 100 kB.
pub(super) struct Compress {
    encoder: Encoder,
    level: u32,
}

impl Compress {
    pub(super) fn new(level: i32) -> Result<Self> {
        check_level("bz2-cmp", level, 1, 9)?;
        let level = level.unsigned_abs();
        Ok(Self { encoder: Encoder::new(Compression::new(level), 0), level })
    }
}

impl Transform for Compress {
    fn step(&mut self, input: &[u8], ended: bool, output: &mut [u8]) -> Result<Step> {
        let before = (self.encoder.total_in(), self.encoder.total_out());
        let mut step = Step::default();
        // The library takes a run without input for a mistake, and wants the input of a finish to
        // stay the same until it is done. So: run while there is input, then finish with none.
        if !input.is_empty() {
            self.encoder.compress(input, output, Action::Run).map_err(describe)?;
            step = Step::between(before, (self.encoder.total_in(), self.encoder.total_out()), false);
        }
        if ended && step.consumed == input.len() && step.produced < output.len() {
            let status = self.encoder.compress(&[], &mut output[step.produced..], Action::Finish).map_err(describe)?;
            let after = (self.encoder.total_in(), self.encoder.total_out());
            step = Step::between(before, after, status == Status::StreamEnd);
        }
        Ok(step)
    }

    fn restart(&mut self) -> Result<()> {
        // The library does not reset one.
        self.encoder = Encoder::new(Compression::new(self.level), 0);
        Ok(())
    }

    fn memory(&self) -> usize {
        // the block, its sorting, and its output
        8 << 20
    }
}

/// Decompresses one stream. What follows it is swallowed.
pub(super) struct Decompress(Decoder);

impl Decompress {
    pub(super) fn new() -> Self {
        Self(Decoder::new(false))
    }
}

impl Transform for Decompress {
    fn step(&mut self, input: &[u8], ended: bool, output: &mut [u8]) -> Result<Step> {
        let before = (self.0.total_in(), self.0.total_out());
        let status = self.0.decompress(input, output).map_err(describe)?;
        if status == Status::MemNeeded {
            return Err(no_memory("bz2-dcmp"));
        }
        let after = (self.0.total_in(), self.0.total_out());
        Step::between(before, after, status == Status::StreamEnd).unless_cut_off(input, ended)
    }

    fn memory(&self) -> usize {
        4 << 20
    }
}

fn describe(error: BzError) -> Error {
    Error::format(match error {
        BzError::Sequence => "bz2 error: [-1] sequence error",
        BzError::Param => "bz2 error: [-2] parameter error",
        BzError::Data => "bz2 error: [-4] data error",
        BzError::DataMagic => "bz2 error: [-5] data error magic",
    })
}
