//! Philox4x32-10, a counter-based random generator: the i-th number is a function of key and i.
//!
//! Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011).
//! It is also cuRAND's and JAX's family, so a device reproduces these numbers with a few
//! instructions and no state.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];

/// Added to the key each round: the golden ratio and the square root of 3, minus 1.
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

const ROUNDS: usize = 10;

/// A random function of 128-bit counters under a 64-bit key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
}

// === impl Philox ===

impl Philox {
    /// The generator under `key`.
    #[must_use]
    pub fn new(key: u64) -> Self {
        Self { key: [key as u32, (key >> 32) as u32] }
    }

    /// Four random words for one counter.
    #[must_use]
    pub fn block(&self, counter: [u32; 4]) -> [u32; 4] {
        let mut key = self.key;
        let mut state = counter;
        for _ in 0..ROUNDS {
            state = round(state, key);
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        state
    }
}

fn round([a, b, c, d]: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let product = |x: u32, y: u32| u64::from(x) * u64::from(y);
    let (first, second) = (product(MULTIPLIERS[0], a), product(MULTIPLIERS[1], c));
    [
        (second >> 32) as u32 ^ b ^ key[0],
        second as u32,
        (first >> 32) as u32 ^ d ^ key[1],
        first as u32,
    ]
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    // Known-answer vectors of the authors' Random123 library (`kat_vectors`, philox4x32 10).
    #[rstest]
    #[case::zeros([0; 4], 0, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8])]
    #[case::ones(
        [u32::MAX; 4],
        u64::MAX,
        [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
    )]
    #[case::pi(
        [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
        0x299f_31d0_a409_3822,
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
    )]
    fn answers_as_published(#[case] counter: [u32; 4], #[case] key: u64, #[case] want: [u32; 4]) {
        assert_eq!(Philox::new(key).block(counter), want);
    }
}
