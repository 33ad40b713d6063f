//! A step's description on the device: written to pinned memory, then one copy.
//!
//! Everything a step's kernels need to know lies in one piece of device memory, in an order that
//! follows from the step's shape alone. So a step takes one copy, and steps of equal shape find
//! everything at equal addresses, which is what lets them be recorded.

use kv_cache::BlockId;

use crate::backend::cuda::driver::address::{Address, Span};
use crate::backend::cuda::driver::device::{Device, Stream};
use crate::backend::cuda::driver::memory::DeviceMemory;
use crate::backend::cuda::driver::pinned::PinnedMemory;
use crate::batch::{SequenceRows, StepBatch};
use crate::error::EngineError;

/// Pinned copies: one is written while another may still be read.
const COPIES: usize = 3;

/// Where each part begins: whole lines of memory, words.
const ALIGN_WORDS: usize = 32;

/// Sizes of recorded steps: decode rows are padded up to one of these. Few enough that recording
/// them all costs little, near enough that padding does: attention skips padded rows, and products
/// take rows in eights.
const SMALL_ROWS: [usize; 5] = [1, 2, 4, 8, 16];
/// Past those, steps of this many rows.
pub(crate) const ROWS_STEP: usize = 16;
/// Decode steps of more rows are not recorded.
const RECORDED_ROWS_MAX: usize = 512;

/// What bounds a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepLimits {
    /// Rows of a step.
    pub(crate) rows_max: usize,
    /// Sequences of a step.
    pub(crate) sequences_max: usize,
    /// Blocks of one sequence.
    pub(crate) table_max: usize,
    /// Token slots of a block.
    pub(crate) block_tokens: usize,
}

/// Memory for the descriptions.
#[derive(Debug)]
pub(crate) struct BatchMemory {
    limits: StepLimits,
    ring: WordRing,
}

/// Device memory that is written anew for each step, in the order of a stream.
#[derive(Debug)]
pub(crate) struct WordRing {
    words: DeviceMemory,
    copies: Vec<PinnedMemory>,
    next: usize,
}

/// A step as its kernels see it. Addresses are of device memory.
#[derive(Clone, Debug)]
pub struct CudaBatch {
    /// Rows computed; padded where [`CudaBatch::shape`] is.
    pub(crate) rows: usize,
    /// `u32 [rows]`.
    pub(crate) tokens: Address,
    /// `u32 [rows]`.
    pub(crate) positions: Address,
    /// `i32 [rows]`: `block * block_tokens + offset`; -1 in padding.
    pub(crate) slots: Address,
    /// `i32 [rows]`: the sample of the step before that is this row's token; -1 for none.
    pub(crate) sources: Option<Address>,
    /// The rows with one token of a sequence each.
    pub(crate) decode: Option<DecodeRows>,
    /// The others.
    pub(crate) prefill: Option<PrefillRows>,
    /// The rows that go on past the last layer's cache write; `None` where all do.
    pub(crate) kept: Option<KeptRows>,
    /// What a recording of it is found by; `None` if it isn't to be recorded.
    pub(crate) shape: Option<Shape>,
}

/// Steps of equal shape differ in nothing but the contents of their description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) table_stride: usize,
}

/// Rows that are their sequence's only one in the step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DecodeRows {
    /// How many, padding included.
    pub(crate) count: usize,
    /// `i32 [count]`: which rows of the step they are.
    pub(crate) rows: Address,
    /// `i32 [count]`: tokens of the context, the row's own included; 0 in padding.
    pub(crate) contexts: Address,
    /// `i32 [count, table_stride]`: blocks.
    pub(crate) tables: Address,
    pub(crate) table_stride: usize,
    /// Of all contexts.
    pub(crate) context_tokens: u64,
}

/// Some rows of a step, as those of a step of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeptRows {
    /// `u32 [alone.count]`: which rows of the step they are.
    pub(crate) rows: Address,
    /// One after the other.
    pub(crate) alone: DecodeRows,
}

/// Sequences with several rows in the step.
#[derive(Clone, Debug)]
pub(crate) struct PrefillRows {
    /// Each one's rows and context: for dividing the work.
    pub(crate) chunks: Vec<Chunk>,
    /// How the kernel for Hopper divides it, where that runs.
    pub(crate) plan: Option<PrefillPlan>,
    /// `i32 [sequences]`: the first row of each in the step.
    pub(crate) first_rows: Address,
    /// `i32 [sequences]`: rows of each.
    pub(crate) lengths: Address,
    /// `i32 [sequences]`: tokens of each context, these rows included.
    pub(crate) contexts: Address,
    /// `i32 [sequences, table_stride]`: blocks.
    pub(crate) tables: Address,
    pub(crate) table_stride: usize,
}

/// A step's work as the kernel takes it. Good for all layers, until the next step's is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PrefillPlan {
    /// `i32 [tiles, 8]`: first row, tokens, position of the first, sequence, first and last tile of keys, part; longest first.
    pub(crate) address: Address,
    pub(crate) tiles: usize,
    /// `i32 [joints, 4]`: first row, tokens, first part, parts of those whose keys are divided.
    pub(crate) joined: Address,
    pub(crate) joints: usize,
    /// Multiplications and additions in a layer.
    pub(crate) operations: u64,
}

/// One sequence's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// In the step.
    pub(crate) first_row: usize,
    pub(crate) rows: usize,
    /// Tokens, these rows included.
    pub(crate) context: usize,
}

/// Writes parts one after the other.
struct Writer<'a> {
    words: &'a mut [u32],
    used: usize,
    /// Where they will be on the device.
    base: Span<'a>,
}

// === impl StepLimits ===

impl StepLimits {
    /// Words of 32 bits that describe a step at most.
    pub(crate) fn words_max(&self) -> usize {
        let rows = self.rows_max.next_multiple_of(ROWS_STEP);
        // Padded decode rows have tables, too.
        let sequences = self.sequences_max.next_multiple_of(ROWS_STEP);
        let tables = 3 * (sequences * stride(self.table_max) + ALIGN_WORDS);
        4 * (rows + ALIGN_WORDS) + 8 * (sequences + ALIGN_WORDS) + tables
    }
}

// === impl BatchMemory ===

impl BatchMemory {
    /// # Errors
    /// [`EngineError::Device`] if memory runs out.
    pub(crate) fn new(device: &Device, limits: StepLimits) -> Result<Self, EngineError> {
        Ok(Self { limits, ring: WordRing::new(device, limits.words_max())? })
    }

    /// Submits the copy of a step's description.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    pub(crate) fn upload(
        &mut self,
        stream: &Stream,
        batch: &StepBatch<'_>,
    ) -> Result<CudaBatch, EngineError> {
        let limits = self.limits;
        self.ring.write(stream, |words, base| describe(words, base, batch, &limits))
    }
}

// === impl WordRing ===

impl WordRing {
    /// Room for `words` words of 32 bits.
    ///
    /// # Errors
    /// [`EngineError::Device`] if memory runs out.
    pub(crate) fn new(device: &Device, words: usize) -> Result<Self, EngineError> {
        let copies = (0..COPIES).map(|_| PinnedMemory::new(device, words * 4));
        let copies = copies.collect::<Result<_, EngineError>>()?;
        Ok(Self { words: DeviceMemory::new(device, words * 4)?, copies, next: 0 })
    }

    /// Submits the copy of `values`; returns where they will be.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    pub(crate) fn put(
        &mut self,
        stream: &Stream,
        values: impl ExactSizeIterator<Item = u32>,
    ) -> Result<Address, EngineError> {
        self.write(stream, |words, base| {
            let count = values.len();
            words[..count].iter_mut().zip(values).for_each(|(word, value)| *word = value);
            (base.address(), count)
        })
    }

    /// Lets `fill` write some first words, and submits their copy.
    fn write<T>(
        &mut self,
        stream: &Stream,
        fill: impl FnOnce(&mut [u32], Span<'_>) -> (T, usize),
    ) -> Result<T, EngineError> {
        let Self { words, copies, next } = self;
        let copy = &mut copies[*next];
        *next = (*next + 1) % COPIES;
        let (value, used) = fill(copy.host(0..copy.bytes())?, words.all());
        stream.copy(words.part(0..used * 4), copy.lend(0..used * 4))?;
        copy.mark(stream)?;
        Ok(value)
    }
}

// === impl CudaBatch ===

impl CudaBatch {
    /// # Errors
    /// [`EngineError::Device`] if all rows are kept.
    pub(crate) fn kept(&self) -> Result<&KeptRows, EngineError> {
        self.kept.as_ref().ok_or_else(|| {
            EngineError::Device("a step that keeps all its rows was narrowed".to_owned())
        })
    }
}

/// Writes a step's description to `words`; returns it and how many of them it takes.
///
/// - `words`: host memory, [`StepLimits::words_max`] long.
/// - `base`: where they will be for the kernels.
pub(crate) fn describe(
    words: &mut [u32],
    base: Span<'_>,
    batch: &StepBatch<'_>,
    limits: &StepLimits,
) -> (CudaBatch, usize) {
    let mut writer = Writer { words, used: 0, base };
    let described = write(&mut writer, batch, limits);
    (described, writer.used)
}

fn write(writer: &mut Writer<'_>, batch: &StepBatch<'_>, limits: &StepLimits) -> CudaBatch {
    let decodes = |sequence: &&SequenceRows<'_>| sequence.rows.len() == 1;
    let decode = batch.sequences.iter().filter(decodes);
    let prefill = batch.sequences.iter().filter(|sequence| !decodes(sequence));
    let rows = batch.tokens.len();
    let decoding = decode.clone().count();
    let has_chunks = decoding < batch.sequences.len();
    let is_recorded = !has_chunks && rows <= RECORDED_ROWS_MAX;
    let padded = if is_recorded { padded_rows(rows) } else { rows };
    let tokens = writer.rows(batch.tokens.iter().copied(), padded, 0);
    let positions = writer.rows(batch.positions.iter().copied(), padded, 0);
    let all_slots = batch.sequences.iter().flat_map(|sequence| slots_of(batch, sequence, limits));
    let slots = writer.rows(all_slots, padded, u32::MAX);
    // A recorded step has a place for it whether it is used or not: equal shapes, equal addresses.
    let sources = writer.begin(padded);
    let first = sources.start;
    let sources = writer.fill(sources, std::iter::empty(), u32::MAX);
    for fed in &batch.fed {
        writer.words[first + fed.row] = fed.sample as u32;
    }
    let sources = (!batch.fed.is_empty()).then_some(sources);
    let kept = batch.kept_rows().map(|rows| kept_rows(writer, batch, &rows));
    let count = if is_recorded { padded } else { decoding };
    let decode = (decoding > 0).then(|| decode_rows(writer, decode, count));
    let prefill = has_chunks.then(|| prefill_rows(writer, prefill));
    let shape = decode
        .filter(|_| is_recorded)
        .map(|decode| Shape { rows: padded, table_stride: decode.table_stride });
    CudaBatch { rows: padded, tokens, positions, slots, sources, decode, prefill, kept, shape }
}

fn slots_of<'a>(
    batch: &'a StepBatch<'_>,
    sequence: &'a SequenceRows<'_>,
    limits: &'a StepLimits,
) -> impl Iterator<Item = u32> + 'a {
    batch.positions[sequence.rows.clone()].iter().map(move |&position| {
        let block = sequence.blocks[position as usize / limits.block_tokens];
        block.0 * limits.block_tokens as u32 + position % limits.block_tokens as u32
    })
}

fn decode_rows<'a>(
    writer: &mut Writer<'_>,
    sequences: impl Iterator<Item = &'a SequenceRows<'a>> + Clone,
    count: usize,
) -> DecodeRows {
    let rows = sequences.clone().map(|sequence| sequence.rows.start as u32);
    let contexts = sequences.clone().map(|sequence| sequence.context_tokens);
    let context_tokens = contexts.clone().map(u64::from).sum();
    let rows = writer.rows(rows, count, 0);
    let contexts = writer.rows(contexts, count, 0);
    let (tables, table_stride) = writer.tables(sequences, count);
    DecodeRows { count, rows, contexts, tables, table_stride, context_tokens }
}

fn kept_rows(writer: &mut Writer<'_>, batch: &StepBatch<'_>, rows: &[usize]) -> KeptRows {
    let singles = batch.as_single_rows(rows);
    let alone = decode_rows(writer, singles.iter(), rows.len());
    let values = rows.iter().map(|&row| row as u32);
    KeptRows { rows: writer.rows(values, rows.len(), 0), alone }
}

fn prefill_rows<'a>(
    writer: &mut Writer<'_>,
    sequences: impl Iterator<Item = &'a SequenceRows<'a>> + Clone,
) -> PrefillRows {
    let chunk = |sequence: &SequenceRows<'_>| Chunk {
        first_row: sequence.rows.start,
        rows: sequence.rows.len(),
        context: sequence.context_tokens as usize,
    };
    let chunks: Vec<Chunk> = sequences.clone().map(chunk).collect();
    let mut part = |value: fn(&Chunk) -> usize| {
        writer.rows(chunks.iter().map(|chunk| value(chunk) as u32), chunks.len(), 0)
    };
    let first_rows = part(|chunk| chunk.first_row);
    let lengths = part(|chunk| chunk.rows);
    let contexts = part(|chunk| chunk.context);
    let (tables, table_stride) = writer.tables(sequences, chunks.len());
    PrefillRows { chunks, plan: None, first_rows, lengths, contexts, tables, table_stride }
}

/// `rows`, or the next size that is recorded.
fn padded_rows(rows: usize) -> usize {
    let small = SMALL_ROWS.into_iter().find(|&size| size >= rows);
    small.unwrap_or_else(|| rows.next_multiple_of(ROWS_STEP))
}

/// Blocks from one table to the next: a power of two, so that a growing context rarely needs a new
/// recording.
fn stride(blocks: usize) -> usize {
    blocks.next_power_of_two().max(ALIGN_WORDS)
}

// === impl Writer ===

impl Writer<'_> {
    /// Takes room for `count` words, which are undefined.
    fn begin(&mut self, count: usize) -> std::ops::Range<usize> {
        let start = self.used;
        self.used = (start + count).next_multiple_of(ALIGN_WORDS);
        start..start + count
    }

    fn address(&self, part: &std::ops::Range<usize>) -> Address {
        self.base.at(4 * part.start)
    }

    /// Writes `values`, then `padding` to the part's end.
    fn fill(
        &mut self,
        part: std::ops::Range<usize>,
        values: impl Iterator<Item = u32>,
        padding: u32,
    ) -> Address {
        let address = self.address(&part);
        let mut words = self.words[part].iter_mut();
        values.zip(&mut words).for_each(|(value, word)| *word = value);
        words.for_each(|word| *word = padding);
        address
    }

    fn rows(&mut self, values: impl Iterator<Item = u32>, count: usize, padding: u32) -> Address {
        let part = self.begin(count);
        self.fill(part, values, padding)
    }

    /// Writes the blocks that each context covers, `count` rows of the returned stride.
    fn tables<'a>(
        &mut self,
        sequences: impl Iterator<Item = &'a SequenceRows<'a>> + Clone,
        count: usize,
    ) -> (Address, usize) {
        let longest = sequences.clone().map(|sequence| sequence.blocks.len()).max().unwrap_or(0);
        let stride = stride(longest);
        let part = self.begin(count * stride);
        for (row, sequence) in self.words[part.clone()].chunks_exact_mut(stride).zip(sequences) {
            let blocks: &[BlockId] = &sequence.blocks;
            row.iter_mut().zip(blocks).for_each(|(word, block)| *word = block.0);
        }
        (self.address(&part), stride)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::testing::{Part, step_of};

    const LIMITS: StepLimits =
        StepLimits { rows_max: 64, sequences_max: 8, table_max: 16, block_tokens: 4 };

    fn described(batch: &StepBatch<'_>) -> (CudaBatch, Vec<u32>) {
        let mut words = vec![7; 16_384];
        let base = Span::pretended(4 * words.len());
        let (described, _) = describe(&mut words, base, batch, &LIMITS);
        (described, words)
    }

    fn at(words: &[u32], address: Address, count: usize) -> &[u32] {
        &words[address.number() as usize / 4..][..count]
    }

    #[test]
    fn decode_rows_are_padded_with_rows_that_write_nothing() {
        let tokens: Vec<u32> = (10..40).collect();
        let parts: Vec<Part<'_>> = [(5, &[3, 1][..]), (9, &[0, 4, 6]), (2, &[7])]
            .into_iter()
            .map(|(context, blocks)| Part { tokens: &tokens[..context], from: context - 1, blocks })
            .collect();
        let (batch, words) = described(&step_of(&parts));
        assert_eq!(batch.rows, 4);
        assert_eq!(at(&words, batch.tokens, 4), [14, 18, 11, 0]);
        assert_eq!(at(&words, batch.slots, 4), [4, 24, 29, u32::MAX]);
        let decode = batch.decode.expect("decode rows");
        assert_eq!(at(&words, decode.rows, 3), [0, 1, 2]);
        assert_eq!(at(&words, decode.contexts, 4), [5, 9, 2, 0]);
        let stride = decode.table_stride;
        assert_eq!(at(&words, decode.tables, stride + 3)[stride..], [0, 4, 6]);
        assert!(batch.prefill.is_none() && batch.sources.is_none());
        assert_eq!(batch.shape, Some(Shape { rows: 4, table_stride: 32 }));
    }

    #[test]
    fn chunks_and_decode_rows_are_told_apart_and_not_recorded() {
        let tokens: Vec<u32> = (10..40).collect();
        let mut batch = step_of(&[
            Part { tokens: &tokens[..6], from: 5, blocks: &[1, 2] },
            Part { tokens: &tokens[..9], from: 4, blocks: &[5, 3, 0] },
        ]);
        batch.fed = vec![crate::batch::FedRow { row: 0, sample: 2 }];
        let (batch, words) = described(&batch);
        assert_eq!((batch.rows, batch.shape), (6, None));
        assert_eq!(at(&words, batch.sources.expect("a fed row"), 2), [2, u32::MAX]);
        let prefill = batch.prefill.expect("a chunk");
        assert_eq!(prefill.chunks, [Chunk { first_row: 1, rows: 5, context: 9 }]);
        assert_eq!(at(&words, prefill.first_rows, 1), [1]);
        assert_eq!(at(&words, prefill.tables, 3), [5, 3, 0]);
        assert_eq!(batch.decode.expect("a decode row").count, 1);
        assert_eq!(batch.kept.expect("nothing is wanted of any row").alone.count, 0);
    }

    /// Sequences as they might come: the context, how much of it is new, and its blocks.
    fn sequences() -> impl Strategy<Value = Vec<(Vec<u32>, usize, Vec<u32>)>> {
        let sequence = (1..40usize, prop_oneof![3 => Just(1), 1 => 1..40usize]).prop_flat_map(
            |(context, new)| {
                let blocks = context.div_ceil(LIMITS.block_tokens);
                let blocks = proptest::collection::vec(0..1_000u32, blocks..blocks + 3);
                let tokens = proptest::collection::vec(0..100u32, context);
                (tokens, Just(context.saturating_sub(new)), blocks)
            },
        );
        proptest::collection::vec(sequence, 1..20)
    }

    proptest! {
        /// Whatever was in the memory before, each word that a kernel reads says what the batch says.
        #[test]
        fn all_of_a_batch_is_described(sequences in sequences(), fed in any::<[bool; 20]>()) {
            let parts: Vec<Part<'_>> = sequences
                .iter()
                .map(|(tokens, from, blocks)| Part { tokens, from: *from, blocks })
                .collect();
            let mut batch = step_of(&parts);
            let last_rows = batch.sequences.iter().map(|sequence| sequence.rows.end - 1);
            let fed_rows = last_rows.zip(fed).enumerate().filter(|(_, (_, is_fed))| *is_fed);
            batch.fed =
                fed_rows.map(|(sample, (row, _))| crate::batch::FedRow { row, sample }).collect();
            let (described, words) = described(&batch);
            let (count, padding) = (batch.tokens.len(), described.rows - batch.tokens.len());
            let padded = |values: Vec<u32>, with: u32| [values, vec![with; padding]].concat();
            let all = |address| at(&words, address, described.rows).to_vec();
            prop_assert_eq!(all(described.tokens), padded(batch.tokens.clone(), 0));
            prop_assert_eq!(all(described.positions), padded(batch.positions.clone(), 0));
            let mut slots = Vec::new();
            for sequence in &batch.sequences {
                for &position in &batch.positions[sequence.rows.clone()] {
                    let block = sequence.blocks[position as usize / LIMITS.block_tokens].0;
                    let block_tokens = LIMITS.block_tokens as u32;
                    slots.push(block * block_tokens + position % block_tokens);
                }
            }
            prop_assert_eq!(all(described.slots), padded(slots, u32::MAX));
            let mut sources = vec![u32::MAX; count + padding];
            batch.fed.iter().for_each(|fed| sources[fed.row] = fed.sample as u32);
            prop_assert_eq!(described.sources.map(all), (!batch.fed.is_empty()).then_some(sources));

            let (decode, chunks): (Vec<_>, Vec<_>) =
                batch.sequences.iter().partition(|sequence| sequence.rows.len() == 1);
            prop_assert_eq!(described.shape.is_some(), chunks.is_empty());
            let tables = |address, stride, of: &[&SequenceRows<'_>]| {
                of.iter().enumerate().all(|(index, sequence)| {
                    let row = &at(&words, address, (index + 1) * stride)[index * stride..];
                    sequence.blocks.iter().map(|block| block.0).eq(row[..sequence.blocks.len()].iter().copied())
                })
            };
            let first_rows = |of: &[&SequenceRows<'_>]| of.iter().map(|it| it.rows.start as u32).collect::<Vec<_>>();
            let contexts = |of: &[&SequenceRows<'_>]| of.iter().map(|it| it.context_tokens).collect::<Vec<_>>();
            if let Some(rows) = described.decode {
                let padding = vec![0; rows.count - decode.len()];
                prop_assert_eq!(at(&words, rows.rows, rows.count), [first_rows(&decode), padding.clone()].concat());
                prop_assert_eq!(at(&words, rows.contexts, rows.count), [contexts(&decode), padding].concat());
                prop_assert!(tables(rows.tables, rows.table_stride, &decode));
            }
            prop_assert_eq!(described.decode.is_some(), !decode.is_empty());
            if let Some(rows) = &described.prefill {
                prop_assert_eq!(at(&words, rows.first_rows, chunks.len()), first_rows(&chunks));
                prop_assert_eq!(at(&words, rows.contexts, chunks.len()), contexts(&chunks));
                let lengths: Vec<u32> = chunks.iter().map(|it| it.rows.len() as u32).collect();
                prop_assert_eq!(at(&words, rows.lengths, chunks.len()), lengths);
                prop_assert!(tables(rows.tables, rows.table_stride, &chunks));
            }
            prop_assert_eq!(described.prefill.is_some(), !chunks.is_empty());
        }
    }

    #[rstest]
    #[case(1, 1)]
    #[case(3, 4)]
    #[case(9, 16)]
    #[case(17, 32)]
    #[case(250, 256)]
    fn few_sizes_are_recorded(#[case] rows: usize, #[case] padded: usize) {
        assert_eq!(padded_rows(rows), padded);
    }
}
