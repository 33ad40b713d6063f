//! In which numbers of rows products are computed: a step's time is a staircase.

/// Sizes of products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiles {
    /// Up to as many each row counts.
    few: u32,
    /// Beyond, what is begun costs as much as the whole of it; at least 1.
    tile: u32,
}

// === impl Tiles ===

impl Tiles {
    /// Each row counts.
    pub(super) const NONE: Self = Self { few: 0, tile: 1 };

    pub(super) const fn new(few: u32, tile: u32) -> Self {
        Self { few, tile }
    }

    /// The rows that are paid for.
    pub(super) fn paid(self, rows: u32) -> u32 {
        if rows <= self.few { rows } else { rows.next_multiple_of(self.tile) }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::few(Tiles::new(64, 128), 64, 64)]
    #[case::more(Tiles::new(64, 128), 65, 128)]
    #[case::a_whole_one(Tiles::new(64, 128), 128, 128)]
    #[case::one_more(Tiles::new(64, 128), 129, 256)]
    #[case::none(Tiles::NONE, 129, 129)]
    fn what_is_begun_is_paid(#[case] tiles: Tiles, #[case] rows: u32, #[case] paid: u32) {
        assert_eq!(tiles.paid(rows), paid);
    }
}
