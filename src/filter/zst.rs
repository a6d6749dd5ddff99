//! Zstandard frames.
//!
//! The context of the high levels is large: its window alone is 128 MiB at level 22, on either
//! side. That is also the largest window that the decoder accepts, as in the original. From level 19
//! on a single step can take tenths of a second, at level 22 more than a second, because the library
//! works through whole blocks; nothing outside of it can divide them.
//!
//! A context is kept for the next file, since its tables would have to be allocated and cleared for
//! each: a cluster has a thousand small ones.

use std::cell::RefCell;
use std::rc::Rc;

use zstd::zstd_safe::zstd_sys::{ZSTD_EndDirective, ZSTD_ErrorCode};
use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, ErrorCode, InBuffer, OutBuffer, ResetDirective, get_error_name, is_error_kind,
};

use super::{Step, Transform, check_level, no_memory};
use crate::protocol::error::{Code, Error, Result};

/// Contexts that are kept while nobody uses them: those of a process' share of a backup.
const KEPT_MAXIMUM: usize = 2;
/// Bytes of the largest that is kept, at level 9 or so; the library allocates for the level.
const KEPT_SIZE: usize = 8 << 20;

/// Contexts that are kept for the next file to be compressed.
#[derive(Default)]
pub(crate) struct Contexts(RefCell<Vec<CCtx<'static>>>);

impl Contexts {
    /// Frees them, once nobody transfers anything.
    pub(crate) fn release(&self) {
        self.0.borrow_mut().clear();
    }
}

/// Compresses into one frame.
pub(super) struct Compress {
    /// There is one until this is dropped.
    context: Option<CCtx<'static>>,
    kept: Rc<Contexts>,
}

impl Compress {
    pub(super) fn new(level: i32, kept: Rc<Contexts>) -> Result<Self> {
        check_level("zst-cmp", level, -7, 22)?;
        let context = kept.0.borrow_mut().pop();
        let mut context = context.or_else(CCtx::try_create).ok_or_else(|| no_memory("zst-cmp"))?;
        context.set_parameter(CParameter::CompressionLevel(level)).map_err(describe)?;
        Ok(Self { context: Some(context), kept })
    }

    fn context(&mut self) -> Result<&mut CCtx<'static>> {
        self.context.as_mut().ok_or_else(|| no_memory("zst-cmp"))
    }
}

impl Drop for Compress {
    fn drop(&mut self) {
        let Some(mut context) = self.context.take().filter(|context| context.sizeof() <= KEPT_SIZE) else { return };
        if context.reset(ResetDirective::SessionAndParameters).is_ok() {
            let mut kept = self.kept.0.borrow_mut();
            if kept.len() < KEPT_MAXIMUM {
                kept.push(context);
            }
        }
    }
}

impl Transform for Compress {
    fn step(&mut self, input: &[u8], ended: bool, output: &mut [u8]) -> Result<Step> {
        let directive = if ended { ZSTD_EndDirective::ZSTD_e_end } else { ZSTD_EndDirective::ZSTD_e_continue };
        let mut source = InBuffer::around(input);
        let mut target = OutBuffer::around(output);
        let left = self.context()?.compress_stream2(&mut target, &mut source, directive).map_err(describe)?;
        Ok(Step { consumed: source.pos(), produced: target.pos(), done: ended && left == 0, ..Step::default() })
    }

    fn restart(&mut self) -> Result<()> {
        self.context()?.reset(ResetDirective::SessionOnly).map_err(describe)?;
        Ok(())
    }

    fn memory(&self) -> usize {
        self.context.as_ref().map_or(0, CCtx::sizeof)
    }
}

/// Decompresses frames, one after the other.
pub(super) struct Decompress {
    context: DCtx<'static>,
    /// The input so far ends with a complete frame. False at first: no frame is not a file either.
    complete: bool,
}

impl Decompress {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { context: DCtx::try_create().ok_or_else(|| no_memory("zst-dcmp"))?, complete: false })
    }
}

impl Transform for Decompress {
    fn step(&mut self, input: &[u8], ended: bool, output: &mut [u8]) -> Result<Step> {
        // Between frames a call without input would make the library wait for the next one.
        if input.is_empty() && self.complete {
            return Ok(Step { done: ended, ..Step::default() });
        }
        let mut source = InBuffer::around(input);
        let mut target = OutBuffer::around(output);
        self.complete = self.context.decompress_stream(&mut target, &mut source).map_err(describe)? == 0;
        let (consumed, produced) = (source.pos(), target.pos());
        let done = ended && self.complete && consumed == input.len();
        Step { consumed, produced, done, ..Step::default() }.unless_cut_off(input, ended)
    }

    fn memory(&self) -> usize {
        self.context.sizeof()
    }
}

fn describe(error: ErrorCode) -> Error {
    let code =
        if is_error_kind(error, ZSTD_ErrorCode::ZSTD_error_memory_allocation) { Code::Memory } else { Code::Format };
    // The library's error codes are negative numbers in an unsigned type.
    Error::new(code, format!("zst error: [{}] {}", error.cast_signed(), get_error_name(error)))
}
