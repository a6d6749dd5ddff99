//! A stream cut into pieces of one size, for filters that look at pages or blocks.

/// Puts together the pieces that a stream is given in parts of. A piece that is given whole is not copied.
pub(super) struct Cutter {
    size: usize,
    /// The beginning of the next piece.
    begun: Vec<u8>,
}

impl Cutter {
    /// Cuts into pieces of `size` bytes, which is not 0.
    pub(super) fn new(size: usize) -> Self {
        Self { size, begun: Vec::new() }
    }

    /// Shows each piece that `data` completes.
    pub(super) fn cut<E>(&mut self, mut data: &[u8], mut show: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if !self.begun.is_empty() {
            let (end, rest) = data.split_at(data.len().min(self.size - self.begun.len()));
            self.begun.extend_from_slice(end);
            data = rest;
            if self.begun.len() < self.size {
                return Ok(());
            }
            show(&self.begun)?;
            self.begun.clear();
        }
        let pieces = data.chunks_exact(self.size);
        let rest = pieces.remainder();
        for piece in pieces {
            show(piece)?;
        }
        if !rest.is_empty() {
            self.begun.reserve_exact(self.size);
            self.begun.extend_from_slice(rest);
        }
        Ok(())
    }

    /// What there is behind the last whole piece.
    pub(super) fn rest(&self) -> &[u8] {
        &self.begun
    }

    /// Bytes that it takes or may take.
    pub(super) fn memory(&self) -> usize {
        self.size
    }
}
