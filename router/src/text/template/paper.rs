//! What a template writes on.

use std::io;

use crate::text::effort::Cancelled;

/// A text under way, up to a size, as long as somebody waits for it: a template can print the whole
/// conversation with each of its messages.
pub(super) struct Paper {
    text: Vec<u8>,
    bytes_max: usize,
    cancelled: Cancelled,
}

// === impl Paper ===

impl Paper {
    pub(super) fn new(bytes_max: usize, cancelled: Cancelled) -> Self {
        Self { text: Vec::new(), bytes_max, cancelled }
    }

    /// The size.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Whether the template has been stopped for writing too much.
    pub(super) fn is_full(&self) -> bool {
        self.text.len() > self.bytes_max
    }

    pub(super) fn into_text(self) -> Result<String, std::string::FromUtf8Error> {
        String::from_utf8(self.text)
    }
}

impl io::Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.cancelled.is_set() || self.is_full() {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
