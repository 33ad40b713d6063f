//! The work of a step's prompt chunks, as a list that multiprocessors take from.

use std::cmp::Reverse;
use std::ops::Range;

use super::TILE_KEYS;

/// Words of a tile in the list, and of one whose keys are divided.
pub(super) const TILE_WORDS: usize = 8;
pub(super) const JOINT_WORDS: usize = 4;

/// Tiles of keys from which on they are divided where multiprocessors have nothing else to do, and the fewest of a part: below, joining the
/// parts costs more than it gains.
const DIVIDED_MIN: usize = 16;
const PART_MIN: usize = 4;

/// Query tokens of one sequence that share their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    /// In the step.
    first_row: usize,
    tokens: usize,
    /// Of the first token in its sequence.
    first_position: usize,
    sequence: usize,
    /// Tiles of keys that it takes.
    keys: Range<usize>,
    /// Where its sums go if others take the rest of its tokens' keys.
    part: Option<usize>,
}

/// A tile whose keys are divided among parts, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Joint {
    first_row: usize,
    tokens: usize,
    first_part: usize,
    parts: usize,
}

// === impl Tile ===

impl Tile {
    /// Some tokens' and all keys that the last of them sees.
    fn whole(first_row: usize, tokens: usize, first_position: usize, sequence: usize) -> Self {
        let keys = 0..(first_position + tokens).div_ceil(TILE_KEYS);
        Self { first_row, tokens, first_position, sequence, keys, part: None }
    }

    pub(super) fn key_tiles(&self) -> usize {
        self.keys.len()
    }

    /// As the kernel reads it.
    pub(super) fn words(&self) -> [u32; TILE_WORDS] {
        let Self { first_row, tokens, first_position, sequence, keys, part } = self;
        let last = keys.end - 1;
        let part = part.map_or(u32::MAX, |part| part as u32);
        let [first_row, tokens, first_position, sequence, begin, last] =
            [*first_row, *tokens, *first_position, *sequence, keys.start, last].map(|it| it as u32);
        [first_row, tokens, first_position, sequence, begin, last, part, 0]
    }
}

// === impl Joint ===

impl Joint {
    /// As the kernel reads it.
    pub(super) fn words(&self) -> [u32; JOINT_WORDS] {
        [self.first_row, self.tokens, self.first_part, self.parts].map(|field| field as u32)
    }
}

/// Divides sequences into tiles of at most `tile_tokens` tokens, longest first: short ones at the
/// end leave no multiprocessor alone for long.
///
/// - `chunks`: of each sequence its first row in the step, its rows and its context.
pub(super) fn divide(
    chunks: impl Iterator<Item = (usize, usize, usize)>,
    tile_tokens: usize,
) -> Vec<Tile> {
    let mut tiles: Vec<Tile> = chunks
        .enumerate()
        .flat_map(|(sequence, (first_row, rows, context))| {
            (0..rows).step_by(tile_tokens).map(move |from| {
                let tokens = tile_tokens.min(rows - from);
                Tile::whole(first_row + from, tokens, context - rows + from, sequence)
            })
        })
        .collect();
    longest_first(&mut tiles);
    tiles
}

/// Divides the keys of tiles where there is not half a tile for each multiprocessor, so that about all have a part.
///
/// - `packs`: tiles of heads for each.
pub(super) fn divide_keys(tiles: &mut Vec<Tile>, packs: usize, workers: usize) -> Vec<Joint> {
    if 2 * tiles.len() * packs > workers {
        return Vec::new();
    }
    let all: usize = tiles.iter().map(Tile::key_tiles).sum();
    let part_keys = (all * packs).div_ceil(workers).max(PART_MIN);
    let (mut divided, mut joints, mut first_part) = (Vec::new(), Vec::new(), 0);
    for tile in tiles.drain(..) {
        let keys = tile.key_tiles();
        let parts = keys.div_ceil(part_keys);
        if keys < DIVIDED_MIN || parts < 2 {
            divided.push(tile);
            continue;
        }
        let bound = |part: usize| keys * part / parts;
        divided.extend((0..parts).map(|part| Tile {
            keys: bound(part)..bound(part + 1),
            part: Some(first_part + part),
            ..tile.clone()
        }));
        let Tile { first_row, tokens, .. } = tile;
        joints.push(Joint { first_row, tokens, first_part, parts });
        first_part += parts;
    }
    longest_first(&mut divided);
    *tiles = divided;
    joints
}

fn longest_first(tiles: &mut [Tile]) {
    tiles.sort_by_key(|tile| Reverse(tile.key_tiles()));
}

/// Parts of tiles in a step at most: one for each worker, and as many again as tiles are divided.
pub(super) fn parts_max(packs: usize, workers: usize) -> usize {
    2 * workers.div_ceil(packs)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn tiles_cover_the_rows_and_come_longest_first() {
        let tiles = divide([(0, 70, 70), (70, 5, 300), (75, 32, 32)].into_iter(), 32);
        let words: Vec<_> = tiles.iter().map(Tile::words).collect();
        assert_eq!(
            words,
            [
                [70, 5, 295, 1, 0, 2, u32::MAX, 0],
                [0, 32, 0, 0, 0, 0, u32::MAX, 0],
                [32, 32, 32, 0, 0, 0, u32::MAX, 0],
                [64, 6, 64, 0, 0, 0, u32::MAX, 0],
                [75, 32, 0, 2, 0, 0, u32::MAX, 0]
            ]
        );
    }

    /// Rows and contexts of chunks, for 8 tiles of heads and 132 multiprocessors; how many parts each divided tile has, and the longest part's
    /// tiles of keys.
    #[rstest]
    #[case::few_rows_of_a_long_context(&[(16, 8_192)], &[16], 4)]
    #[case::of_a_very_long_one(&[(30, 134_000)], &[17], 62)]
    #[case::not_of_a_short_one(&[(16, 1_900)], &[], 15)]
    #[case::enough_tiles(&[(512, 16_384)], &[], 128)]
    #[case::some(&[(64, 8_192)], &[8, 8], 8)]
    #[case::only_the_long_ones(&[(16, 8_192), (16, 400)], &[13], 5)]
    fn keys_are_divided_where_rows_are_few(
        #[case] chunks: &[(usize, usize)],
        #[case] parts: &[usize],
        #[case] longest: usize,
    ) {
        let chunks = chunks.iter().map(|&(rows, context)| (0, rows, context));
        let mut tiles = divide(chunks, 32);
        let whole: usize = tiles.iter().map(Tile::key_tiles).sum();
        let joints = divide_keys(&mut tiles, 8, 132);
        assert_eq!(joints.iter().map(|joint| joint.parts).collect::<Vec<_>>(), parts);
        assert_eq!(tiles[0].key_tiles(), longest);
        assert_eq!(tiles.iter().map(Tile::key_tiles).sum::<usize>(), whole);
        let count: usize = parts.iter().sum();
        assert!(count <= parts_max(8, 132), "{count}");
        let mut used: Vec<_> = tiles.iter().filter_map(|tile| tile.part).collect();
        used.sort_unstable();
        assert_eq!(used, (0..count).collect::<Vec<_>>());
    }

    #[test]
    fn there_is_room_for_every_division() {
        for (workers, packs) in [(132, 8), (132, 1), (132, 32), (8, 4), (1, 8)] {
            for count in 1..=workers / 2 {
                for context in [2_048, 2_300, 131_072] {
                    let mut tiles = divide((0..count).map(|_| (0, 16, context)), 32);
                    let joints = divide_keys(&mut tiles, packs, workers);
                    let parts: usize = joints.iter().map(|joint| joint.parts).sum();
                    assert!(
                        parts <= parts_max(packs, workers),
                        "{workers} {packs} {count} {context}: {parts}"
                    );
                }
            }
        }
    }
}
