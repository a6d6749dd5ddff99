//! The data of a file on their way to the disk: through the filters, collected, written.

use super::{Fed, Phase, WriteStream};
use crate::disk::{Completion, Operation, Outcome};
use crate::filter::Progress;
use crate::protocol::error::{Code, Result};
use crate::repository::{Step, failed, unexpected_outcome};

/// Bytes that are collected before they are written: large enough that system calls do not count,
/// small enough to stay in the processor's cache from decryption to the page cache. Where each write waits, as many as
/// the client's block has are better.
pub(super) const CHUNK: usize = 256 << 10;

/// Work of filters is cut into slices of about so many bytes.
pub(super) const SLICE: usize = 256 << 10;

impl WriteStream {
    /// Takes the front of `data`, as much as fits before something has to be done.
    pub(crate) fn feed(&mut self, data: &mut &[u8]) -> Result<Fed> {
        while !data.is_empty() {
            let mut out = self.out.take().unwrap_or_else(|| self.shared.buffers.take(self.chunk));
            let progress = if self.chain.is_passive() {
                let (now, later) = data.split_at(data.len().min(self.chunk - out.len()));
                out.extend_from_slice(now);
                *data = later;
                self.chain.observe(now).map(|()| Progress::NeedsInput)
            } else {
                self.chain.process(data, false, &mut out, self.chunk, SLICE)
            };
            let full = out.len() >= self.chunk;
            self.out = Some(out);
            let progress = progress?;
            if progress == Progress::Finished {
                // What follows the end of compressed data is not expected and not kept.
                *data = &[];
            }
            if full {
                self.phase = Phase::Writing;
                return Ok(Fed::Disk(self.write()?));
            }
            if progress == Progress::Budget {
                self.phase = Phase::Writing;
                return Ok(Fed::Work);
            }
        }
        Ok(Fed::Taken)
    }

    /// There are no more data: writes what is collected, and what the filters still hold.
    pub(super) fn flush(&mut self) -> Result<Step> {
        let mut progress = Progress::Finished;
        if !self.chain.is_passive() {
            let out = self.out.take().filter(|out| out.capacity() > 0);
            let mut out = out.unwrap_or_else(|| self.shared.buffers.take(self.chunk));
            let processed = self.chain.process(&mut &[][..], true, &mut out, self.chunk, SLICE);
            self.out = Some(out);
            progress = processed?;
        }
        match progress {
            Progress::Finished if self.out.as_ref().is_none_or(Vec::is_empty) => return self.close(),
            Progress::Finished => self.phase = Phase::Ending,
            Progress::OutputFull => self.phase = Phase::Flushing,
            Progress::Budget | Progress::NeedsInput => {
                self.phase = Phase::Flushing;
                return Ok(Step::Work);
            }
        }
        Ok(Step::Disk(self.write()?))
    }

    fn write(&mut self) -> Result<Operation> {
        self.watch()?;
        let (Some(file), Some(data)) = (self.commit.file(), self.out.take()) else { return Err(unexpected_outcome()) };
        let (file, offset) = (file.clone(), self.offset);
        self.offset += data.len() as u64;
        Ok(Operation::Write { file, data, offset })
    }

    pub(super) fn written(&mut self, completion: Completion) -> Result<()> {
        let mut data = match completion {
            Ok(Outcome::Written(data)) => data,
            Ok(_) => return Err(unexpected_outcome()),
            Err(failure) => {
                return Err(failed(Code::FileWrite, "unable to write", self.commit.place(), failure.errno));
            }
        };
        data.clear();
        self.out = Some(data);
        Ok(())
    }
}
