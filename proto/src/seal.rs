//! Seals: digests by which a receiver knows that a message is what was sent, and where.
//!
//! TCP's checksum lets one in some 10^7 damaged segments through, and behind it are proxies, kernels and
//! buffers with none. A flipped bit in a prompt is another prompt, with an answer that looks right.
//!
//! A seal is xxh3-64 over the message's own encoding without the seal, seeded with what it follows: the
//! messages of a stream with the seal of the one before (see [`SealChain`]), so that what was left out,
//! doubled, moved or meant for another stream is found as well. The receiver encodes again what it has
//! decoded: whatever decodes to the same message is the same message. Against faults, not forgery.

use prost::Message;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{WireError, v1};

/// Encoded without an allocation: a token with a handful of alternatives. There is one of these a token, at each end.
const SMALL_BYTES: usize = 128;

/// A message with a seal.
pub trait Sealed: Message + Sized {
    /// Where its seal is.
    fn seal_mut(&mut self) -> &mut u64;

    /// The seal that the message should have after `key`. Changes nothing.
    fn wanted_seal(&mut self, key: u64) -> u64 {
        let seal = std::mem::take(self.seal_mut());
        let wanted = digest(self, key);
        *self.seal_mut() = seal;
        wanted
    }

    /// The message, sealed.
    #[must_use]
    fn sealed(mut self, key: u64) -> Self {
        *self.seal_mut() = self.wanted_seal(key);
        self
    }

    /// Compares the message with its seal, which it returns.
    ///
    /// # Errors
    /// [`WireError`] of a damaged message, if they differ or there is none.
    fn check_seal(&mut self, key: u64) -> Result<u64, WireError> {
        let wanted = self.wanted_seal(key);
        match *self.seal_mut() {
            seal if seal == wanted => Ok(seal),
            0 => Err(WireError::damaged("is missing")),
            _ => Err(WireError::damaged("is of another message")),
        }
    }
}

/// The seals of one stream of messages, each after the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealChain {
    last: u64,
}

/// Of a message whose seal is 0, which on the wire is none; so none comes to 0.
fn digest(message: &impl Message, key: u64) -> u64 {
    let (mut small, bytes) = ([0; SMALL_BYTES], message.encoded_len());
    let hash = match small.get_mut(..bytes) {
        Some(mut encoded) => {
            message.encode_raw(&mut encoded);
            xxh3_64_with_seed(&small[..bytes], key)
        }
        None => xxh3_64_with_seed(&message.encode_to_vec(), key),
    };
    hash.max(1)
}

// === impl SealChain ===

impl SealChain {
    /// The chain whose first message follows `seal`, the request's.
    #[must_use]
    pub fn after(seal: u64) -> Self {
        Self { last: seal }
    }

    /// Seals the next message.
    #[must_use]
    pub fn seal<M: Sealed>(&mut self, message: M) -> M {
        let mut sealed = message.sealed(self.last);
        self.last = *sealed.seal_mut();
        sealed
    }

    /// Checks that `message` is the next one.
    ///
    /// # Errors
    /// [`WireError`] of a damaged message, if it isn't; nor is any that follows, then.
    pub fn check<M: Sealed>(&mut self, message: &mut M) -> Result<(), WireError> {
        self.last = message.check_seal(self.last)?;
        Ok(())
    }
}

// === impl Sealed ===

macro_rules! sealed {
    ($($message:ty),*) => {$(
        impl Sealed for $message {
            fn seal_mut(&mut self) -> &mut u64 {
                &mut self.seal
            }
        }
    )*};
}

sealed!(v1::Generation, v1::GenerateResponse, v1::PrefillResponse, v1::PushResponse);

/// A message around a generation: that has its own seal, which goes into this one, so a prompt is not hashed
/// twice.
macro_rules! sealed_around_a_generation {
    ($($message:ty),*) => {$(
        impl Sealed for $message {
            fn seal_mut(&mut self) -> &mut u64 {
                &mut self.seal
            }

            fn wanted_seal(&mut self, key: u64) -> u64 {
                let generation = self.generation.take();
                let seal = std::mem::take(&mut self.seal);
                let key = key ^ generation.as_ref().map_or(0, |generation| generation.seal);
                let wanted = digest(self, key);
                (self.generation, self.seal) = (generation, seal);
                wanted
            }
        }
    )*};
}

sealed_around_a_generation!(v1::GenerateRequest, v1::PrefillRequest);

impl Sealed for v1::PushRequest {
    fn seal_mut(&mut self) -> &mut u64 {
        &mut self.seal
    }

    /// Without page data, which has digests of its own.
    fn wanted_seal(&mut self, key: u64) -> u64 {
        let data = self.page_data_mut().map(std::mem::take);
        let seal = std::mem::take(&mut self.seal);
        let wanted = digest(self, key);
        self.seal = seal;
        if let (Some(place), Some(data)) = (self.page_data_mut(), data) {
            *place = data;
        }
        wanted
    }
}

impl v1::PushRequest {
    fn page_data_mut(&mut self) -> Option<&mut bytes::Bytes> {
        match &mut self.message {
            Some(v1::push_request::Message::Pages(pages)) => Some(&mut pages.data),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
