//! The bytes that an index may take.

/// What is taken of a bound.
#[derive(Debug)]
pub(super) struct Budget {
    taken: usize,
    max: usize,
}

// === impl Budget ===

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { taken: 0, max: bytes_max }
    }

    /// Takes bytes, all or none.
    pub(super) fn take(&mut self, bytes: usize) -> Option<()> {
        let taken = self.taken.checked_add(bytes).filter(|taken| *taken <= self.max)?;
        self.taken = taken;
        Some(())
    }

    pub(super) fn taken(&self) -> usize {
        self.taken
    }
}
