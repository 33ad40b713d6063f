//! Server-sent events out of a byte stream, as strictly as a client may.

/// Cuts bytes into the payloads of `data:` events.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: Vec<u8>,
}

// === impl Decoder ===

impl Decoder {
    /// Takes bytes as they arrive.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event's data, if one has arrived; comments are skipped.
    ///
    /// # Panics
    /// If an event is not UTF-8.
    pub(super) fn next(&mut self) -> Option<String> {
        loop {
            let end = self.buffer.windows(2).position(|pair| pair == b"\n\n")?;
            let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
            let event = String::from_utf8(event).expect("an event in UTF-8");
            let data: Vec<&str> = event
                .lines()
                .filter_map(|line| line.strip_prefix("data:"))
                .map(str::trim_start)
                .collect();
            if !data.is_empty() {
                return Some(data.join("\n"));
            }
        }
    }

    /// Whether an event has begun and not ended.
    pub(super) fn is_mid_event(&self) -> bool {
        !self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_whole_however_the_bytes_are_cut() {
        let text = "data: {\"a\":\"é\"}\n\n: keep-alive\n\ndata: [DONE]\n\n";
        for size in 1..text.len() {
            let mut decoder = Decoder::default();
            let mut events = Vec::new();
            for bytes in text.as_bytes().chunks(size) {
                decoder.push(bytes);
                events.extend(std::iter::from_fn(|| decoder.next()));
            }
            assert_eq!(events, ["{\"a\":\"é\"}", "[DONE]"], "cut every {size} bytes");
            assert!(!decoder.is_mid_event());
        }
    }
}
