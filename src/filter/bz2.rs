//! bzip2 streams.
//!
//! The library sorts a whole block, up to 900 kB, in the one step that completes it: that is the
//! longest a step of this filter takes, and nothing outside of the library can divide it.

use bzip2::{Action, Compress as Encoder, Compression, Decompress as Decoder, Error as BzError, Status};

use super::{Step, Transform, check_level, difference, no_memory, unexpected_end};
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
        let mut step = Step::default();
        // The library takes a run without input for a mistake, and wants the input of a finish to
        // stay the same until it is done. So: run while there is input, then finish with none.
        if !input.is_empty() {
            let before = (self.encoder.total_in(), self.encoder.total_out());
            self.encoder.compress(input, output, Action::Run).map_err(describe)?;
            step.consumed = difference(self.encoder.total_in(), before.0);
            step.produced = difference(self.encoder.total_out(), before.1);
        }
        if ended && step.consumed == input.len() && step.produced < output.len() {
            let before = self.encoder.total_out();
            let status = self.encoder.compress(&[], &mut output[step.produced..], Action::Finish).map_err(describe)?;
            step.produced += difference(self.encoder.total_out(), before);
            step.done = status == Status::StreamEnd;
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
        let step = Step {
            consumed: difference(self.0.total_in(), before.0),
            produced: difference(self.0.total_out(), before.1),
            done: status == Status::StreamEnd,
            ..Step::default()
        };
        if ended && !step.done && step.consumed == input.len() && step.produced == 0 {
            return Err(unexpected_end());
        }
        Ok(step)
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
