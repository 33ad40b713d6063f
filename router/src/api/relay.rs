//! A reply on its way to its client, whatever it is written to.

use crate::RequestError;
use crate::gateway::{Finish, TextEvent, TextStream};
use crate::text::reply::Piece;

/// Writes a reply as it comes.
pub(crate) trait Writer {
    /// What it writes to.
    type Out;

    /// Writes what an event of `stream` says.
    fn event(&mut self, event: TextEvent, stream: &TextStream, out: &mut Self::Out);

    /// Writes what follows on the last event.
    fn end(&mut self, stream: &TextStream, out: &mut Self::Out);

    /// Writes why there is no more. Nothing follows.
    fn fail(&mut self, error: RequestError, out: &mut Self::Out);
}

/// Writes the reply to a call over HTTP: as it comes, in bytes, or whole.
pub(crate) trait Reply: Writer<Out = Vec<u8>> + Send + 'static {
    /// The whole reply, as JSON.
    fn whole(self, choices: Vec<Said>, stream: &TextStream) -> Vec<u8>;
}

/// A stream, and who writes it.
pub(crate) struct Relay<W> {
    stream: TextStream,
    writer: W,
    done: bool,
}

/// A choice that was said to its end.
pub(crate) struct Said {
    /// No two of the same part in a row.
    pub(crate) pieces: Vec<Piece>,
    pub(crate) finish: Finish,
}

// === impl Relay ===

impl<W: Writer> Relay<W> {
    pub(crate) fn new(stream: TextStream, writer: W) -> Self {
        Self { stream, writer, done: false }
    }

    /// Whether all has been written.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// Waits for the next event and writes it. May be dropped and called again: nothing is lost.
    pub(crate) async fn next(&mut self, out: &mut W::Out) {
        let event = self.stream.next().await;
        self.write(event, out);
    }

    /// Writes the next event, if it is there already.
    pub(crate) fn try_next(&mut self, out: &mut W::Out) -> bool {
        let event = self.stream.try_next();
        let is_there = event.is_some();
        if is_there {
            self.write(event, out);
        }
        is_there
    }

    fn write(&mut self, event: Option<Result<TextEvent, RequestError>>, out: &mut W::Out) {
        match event {
            Some(Ok(event)) => self.writer.event(event, &self.stream, out),
            Some(Err(error)) => {
                self.writer.fail(error, out);
                self.done = true;
                return;
            }
            None => {}
        }
        if self.stream.is_finished() {
            self.writer.end(&self.stream, out);
            self.done = true;
        }
    }
}

// === impl Said ===

impl Said {
    fn nothing() -> Self {
        Self { pieces: Vec::new(), finish: Finish::Length }
    }

    fn add(&mut self, piece: Piece) {
        match self.pieces.last_mut() {
            Some(last) if last.part == piece.part => {
                last.text.push_str(&piece.text);
                last.tokens.extend(piece.tokens);
            }
            _ => self.pieces.push(piece),
        }
    }
}

/// Waits until all choices have been said.
///
/// # Errors
/// [`RequestError`] if the stream breaks off.
pub(crate) async fn collect(stream: &mut TextStream) -> Result<Vec<Said>, RequestError> {
    let mut choices = Vec::new();
    choices.resize_with(stream.choices(), Said::nothing);
    while let Some(event) = stream.next().await {
        let event = event?;
        let said = &mut choices[event.choice() as usize];
        match event {
            TextEvent::Piece { piece, .. } => said.add(piece),
            TextEvent::Finished { reason, .. } => said.finish = reason,
        }
    }
    Ok(choices)
}
