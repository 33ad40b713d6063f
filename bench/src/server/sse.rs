//! Server-sent events out of a byte stream.

/// Cuts bytes into the payloads of events, however they arrive.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Where the first line that was not looked at begins.
    next_line: usize,
    /// How much of it was searched for its end: it may come in many pieces.
    searched: usize,
    /// Data lines of the event under way.
    data: Option<Vec<u8>>,
}

// === impl Decoder ===

impl Decoder {
    /// Takes bytes as they arrive.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.next_line);
        self.searched -= self.next_line;
        self.next_line = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The data of the next whole event; `None` until more bytes arrive. Comments and other fields
    /// are skipped.
    pub fn next_event(&mut self) -> Option<Vec<u8>> {
        loop {
            let rest = &self.buffer[self.next_line..];
            let new = &self.buffer[self.searched..];
            let Some(end) = new.iter().position(|&byte| byte == b'\n') else {
                self.searched = self.buffer.len();
                return None;
            };
            let end = self.searched - self.next_line + end;
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            let is_blank = line.is_empty();
            if let Some(value) = line.strip_prefix(b"data:") {
                let value = value.strip_prefix(b" ").unwrap_or(value);
                match &mut self.data {
                    Some(data) => {
                        data.push(b'\n');
                        data.extend_from_slice(value);
                    }
                    None => self.data = Some(value.to_vec()),
                }
            }
            self.next_line += end + 1;
            self.searched = self.next_line;
            if is_blank && let Some(data) = self.data.take() {
                return Some(data);
            }
        }
    }

    /// Bytes of the event that has begun, and of what came behind it.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.data.as_ref().map_or(0, Vec::len) + self.buffer.len() - self.next_line
    }

    /// Whether an event has begun and not ended.
    #[must_use]
    pub fn is_mid_event(&self) -> bool {
        self.data.is_some() || self.next_line < self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(chunks: impl IntoIterator<Item: AsRef<[u8]>>) -> (Vec<String>, bool) {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        for chunk in chunks {
            decoder.push(chunk.as_ref());
            while let Some(event) = decoder.next_event() {
                events.push(String::from_utf8(event).expect("UTF-8"));
            }
        }
        (events, decoder.is_mid_event())
    }

    #[test]
    fn events_come_out_whole_however_the_bytes_are_cut() {
        let text = "data: {\"a\":\"é\"}\n\n: alive\n\nevent: x\r\ndata:1\r\ndata: 2\r\n\r\ndata: [DONE]\n\n";
        for size in 1..=text.len() {
            let (events, is_mid_event) = decode(text.as_bytes().chunks(size));
            assert_eq!(events, ["{\"a\":\"é\"}", "1\n2", "[DONE]"], "cut every {size} bytes");
            assert!(!is_mid_event);
        }
    }

    #[test]
    fn a_line_is_searched_once_however_many_pieces_it_comes_in() {
        let mut decoder = Decoder::default();
        decoder.push(b"data: 1\n\ndata: ");
        assert_eq!(decoder.next_event().as_deref(), Some(&b"1"[..]));
        for pieces in 1..=1000 {
            decoder.push(b"xx");
            assert_eq!(decoder.next_event(), None);
            let bytes = b"data: ".len() + 2 * pieces;
            assert_eq!((decoder.pending_bytes(), decoder.searched), (bytes, bytes));
        }
        decoder.push(b"\n\n");
        assert_eq!(decoder.next_event().map(|event| event.len()), Some(2000));
        assert_eq!(decoder.pending_bytes(), 0);
    }

    #[test]
    fn an_event_that_was_cut_off_is_noticed() {
        assert_eq!(decode(["data: 1\n\ndata: 2\n"]), (vec!["1".to_owned()], true));
        assert_eq!(decode(["data: 1\n\ndat"]), (vec!["1".to_owned()], true));
    }
}
