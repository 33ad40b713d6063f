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

    /// Rows in the last tile of so many; none where each row counts by itself, or no tile is before it.
    pub(super) fn last(self, rows: u32) -> u32 {
        if self.tile == 1 || rows <= self.tile { 0 } else { (rows - 1) % self.tile + 1 }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::few(Tiles::new(64, 128), 64, (64, 0))]
    #[case::more(Tiles::new(64, 128), 65, (128, 0))]
    #[case::a_whole_one(Tiles::new(64, 128), 128, (128, 0))]
    #[case::one_more(Tiles::new(64, 128), 129, (256, 1))]
    #[case::two_whole_ones(Tiles::new(64, 128), 256, (256, 128))]
    #[case::none(Tiles::NONE, 129, (129, 0))]
    fn what_is_begun_is_paid(#[case] tiles: Tiles, #[case] rows: u32, #[case] is: (u32, u32)) {
        assert_eq!((tiles.paid(rows), tiles.last(rows)), is);
    }
}
