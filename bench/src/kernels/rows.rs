//! Operations on rows: gathering, norms, rotation and the cache.

use anyhow::Result;
use engine::ModelConfig;
use engine::backend::{Backend, Operations as _, PagedHeads};
use half::bf16;
use kv_cache::{BlockRef, BlockVersion, PageRange};

use super::report::{Cost, KernelRow};
use super::rig::{BLOCK_TOKENS, Output, Piece, Rig, Room, norm};
use super::{Lab, config_of, error, pick};

/// Rows of the tables that inputs come from.
const TABLE: usize = 512;

/// Half a unit of bfloat16's last place, twice: once in between and once at the end.
const ROUNDED_TWICE: f64 = 0.008;

/// Layers between which timed calls change, so that pages come from memory.
const LAYERS: usize = 4;

/// Reference rows of a case.
const CHECKED: usize = 24;

/// Checks and times all.
pub(super) fn run(lab: &mut Lab<'_>) -> Result<()> {
    let llama = config_of("llama-3.1-8b")?;
    let is_small = lab.is_small();
    let up_to = |most| move |rows: &usize| !is_small || *rows <= most;
    for rows in [1, 33, 16_384].into_iter().filter(up_to(33)) {
        gather(lab, &llama, rows)?;
    }
    for rows in [1, 64, 256, 4096].into_iter().filter(up_to(64)) {
        add_norm(lab, &llama, rows)?;
    }
    for rows in [1, 64, 256, 4096].into_iter().filter(up_to(64)) {
        rope(lab, "llama-3.1-8b", rows)?;
    }
    for shape in ["qwen3-0.6b", "tiny"] {
        rope(lab, shape, 77)?;
    }
    Ok(())
}

// --- Gathering. ---

fn gather(lab: &mut Lab<'_>, config: &ModelConfig, rows: usize) -> Result<()> {
    let cols = config.hidden_size as usize;
    let (key, tokens) = (lab.key(), lab.tokens(rows, TABLE));
    let piece = Piece::rows(tokens);
    let room = Room::for_rows(config, rows);
    let mut cpu = Rig::cpu(&room)?;
    let wanted = gathered(&mut cpu, key, cols, &piece)?;
    let mut gpu = Rig::gpu(&room, lab.options())?;
    let table = gpu.matrix((TABLE, cols), key, 1.0)?;
    let mut out = gpu.output(cols)?;
    gpu.finish()?;
    gpu.poison(rows, &mut out)?;
    let batch = gpu.batch(&[piece])?;
    gpu.load(&batch, &table, &mut out.buffer)?;
    let got = gpu.download(&out.buffer)?;
    let mut row =
        KernelRow::new("gather", format!("{rows} x {cols}")).with_error(error(&got, &wanted), 0.0);
    if lab.is_timed() {
        let us = gpu.time_us(50, |backend, _| backend.embed(&batch, &table, &mut out.buffer))?;
        let bytes = ((rows + rows.min(TABLE)) * cols * 2) as f64;
        row = row.with_time(lab, us, Cost { bytes, flops: 0.0 });
    }
    lab.row(row);
    Ok(())
}

fn gathered<B: Backend>(
    rig: &mut Rig<B>,
    key: u64,
    cols: usize,
    piece: &Piece,
) -> Result<Vec<f32>> {
    let table = rig.matrix((TABLE, cols), key, 1.0)?;
    let mut out = rig.backend.buffer(cols)?;
    rig.finish()?;
    let batch = rig.batch(std::slice::from_ref(piece))?;
    rig.load(&batch, &table, &mut out)?;
    rig.download(&out)
}

// --- Norms. ---

struct NormOperands<B: Backend> {
    tables: [B::Matrix; 2],
    weight: B::Vector,
    hidden: B::Buffer,
    delta: B::Buffer,
    out: Output<B>,
}

impl<B: Backend> NormOperands<B> {
    fn new(rig: &mut Rig<B>, cols: usize, keys: [u64; 3]) -> Result<Self> {
        let [first, second, third] = keys;
        let tables =
            [rig.matrix((TABLE, cols), first, 1.0)?, rig.matrix((TABLE, cols), second, 1.0)?];
        let weight = rig.vector(cols, third, 1.0)?;
        let (hidden, delta) = (rig.backend.buffer(cols)?, rig.backend.buffer(cols)?);
        let out = rig.output(cols)?;
        rig.finish()?;
        Ok(Self { tables, weight, hidden, delta, out })
    }

    /// The sum, then the normed sum.
    fn apply(&mut self, rig: &mut Rig<B>, piece: &Piece) -> Result<[Vec<f32>; 2]> {
        rig.poison(piece.tokens.len(), &mut self.out)?;
        let batch = rig.batch(std::slice::from_ref(piece))?;
        rig.load(&batch, &self.tables[0], &mut self.hidden)?;
        rig.load(&batch, &self.tables[1], &mut self.delta)?;
        let Self { weight, hidden, delta, out, .. } = self;
        let norm = norm(weight);
        rig.backend.add_norm(hidden, Some(delta), norm, &mut out.buffer)?;
        Ok([rig.download(hidden)?, rig.download(&out.buffer)?])
    }
}

fn add_norm(lab: &mut Lab<'_>, config: &ModelConfig, rows: usize) -> Result<()> {
    let cols = config.hidden_size as usize;
    let keys = [lab.key(), lab.key(), lab.key()];
    let (piece, checked) = (Piece::rows(lab.tokens(rows, TABLE)), lab.some_rows(rows, CHECKED));
    let room = Room::for_rows(config, rows);
    let mut cpu = Rig::cpu(&room)?;
    let wanted = NormOperands::new(&mut cpu, cols, keys)?.apply(&mut cpu, &piece.only(&checked))?;
    let mut gpu = Rig::gpu(&room, lab.options())?;
    let mut operands = NormOperands::new(&mut gpu, cols, keys)?;
    let got = operands.apply(&mut gpu, &piece)?;
    let errors =
        got.iter().zip(&wanted).map(|(got, wanted)| error(&pick(got, cols, &checked), wanted));
    let mut row = KernelRow::new("add_norm", format!("{rows} x {cols}"))
        .with_error(errors.fold(0.0, f64::max), ROUNDED_TWICE);
    if lab.is_timed() {
        let NormOperands { weight, hidden, delta, out, .. } = &mut operands;
        let us = gpu.time_us(50, |backend, _| {
            backend.add_norm(hidden, Some(delta), norm(weight), &mut out.buffer)
        })?;
        row = row.with_time(lab, us, Cost { bytes: (4 * rows * cols * 2) as f64, flops: 0.0 });
    }
    lab.row(row);
    Ok(())
}

// --- Rotation and the cache. ---

struct RopeOperands<B: Backend> {
    table: B::Matrix,
    norms: Option<[B::Vector; 2]>,
    qkv: B::Buffer,
}

impl<B: Backend> RopeOperands<B> {
    fn new(rig: &mut Rig<B>, keys: [u64; 3]) -> Result<Self> {
        let shape = rig.config.head_shape();
        let table = rig.matrix((TABLE, shape.qkv_width()), keys[0], 1.0)?;
        let mut norms = None;
        if rig.config.qk_norm {
            let mut weight = |key| rig.vector(shape.head_dim, key, 1.0);
            norms = Some([weight(keys[1])?, weight(keys[2])?]);
        }
        let qkv = rig.backend.buffer(shape.qkv_width())?;
        rig.finish()?;
        Ok(Self { table, norms, qkv })
    }

    fn attention<'a>(
        norms: &'a Option<[B::Vector; 2]>,
        rig: &Rig<B>,
        layer: usize,
    ) -> PagedHeads<'a, B> {
        let plain = rig.attention(layer, None);
        let [q_norm, k_norm] = match norms {
            Some([q, k]) => [Some(norm(q)), Some(norm(k))],
            None => [None, None],
        };
        PagedHeads { layer: plain.layer, shape: plain.shape, window: None, q_norm, k_norm }
    }

    /// The rotated queries of all rows, then the pages written.
    fn apply(&mut self, rig: &mut Rig<B>, piece: &Piece) -> Result<[Vec<f32>; 2]> {
        let batch = rig.batch(std::slice::from_ref(piece))?;
        rig.load(&batch, &self.table, &mut self.qkv)?;
        let attention = Self::attention(&self.norms, rig, 1);
        rig.backend.rope_and_cache(&batch, &attention, &mut self.qkv)?;
        let shape = rig.config.head_shape();
        let all = rig.download(&self.qkv)?;
        let queries = all.chunks_exact(shape.qkv_width()).flat_map(|row| &row[..shape.q_width()]);
        Ok([queries.copied().collect(), pages(rig, piece, 1)?])
    }
}

/// A layer's keys and values of a sequence's blocks.
fn pages<B: Backend>(rig: &mut Rig<B>, piece: &Piece, layer: u32) -> Result<Vec<f32>> {
    let reference = |&block| BlockRef { block, version: BlockVersion(0) };
    let blocks: Vec<_> = piece.blocks.iter().map(reference).collect();
    let range = PageRange { layers: layer..layer + 1, blocks: &blocks };
    let mut bytes = vec![0; range.pages() * rig.backend.layout().page_bytes()];
    let fence = rig.backend.fence()?;
    rig.backend.region().gather(&range, fence, &mut bytes)?;
    let elements = bytes.chunks_exact(2).map(|x| bf16::from_le_bytes([x[0], x[1]]).to_f32());
    Ok(elements.collect())
}

fn rope(lab: &mut Lab<'_>, shape: &str, rows: usize) -> Result<()> {
    let config = ModelConfig { layers: LAYERS as u32, ..config_of(shape)? };
    let heads = config.head_shape();
    let keys = [lab.key(), lab.key(), lab.key()];
    let piece = Piece::rows(lab.tokens(rows, TABLE));
    let mut room = Room::for_rows(&config, rows);
    room.kv_tokens = rows.next_multiple_of(BLOCK_TOKENS);
    let mut cpu = Rig::cpu(&room)?;
    let wanted = RopeOperands::new(&mut cpu, keys)?.apply(&mut cpu, &piece)?;
    let mut gpu = Rig::gpu(&room, lab.options())?;
    let mut operands = RopeOperands::new(&mut gpu, keys)?;
    let got = operands.apply(&mut gpu, &piece)?;
    let errors = got.iter().zip(&wanted).map(|(got, wanted)| error(got, wanted));
    let case = format!("{shape}, {rows} rows");
    let mut row = KernelRow::new("rope_and_cache", case)
        .with_error(errors.fold(0.0, f64::max), ROUNDED_TWICE);
    if lab.is_timed() {
        let batch = gpu.batch(&[piece])?;
        let RopeOperands { norms, qkv, .. } = &mut operands;
        let attentions: Vec<_> =
            (0..LAYERS).map(|layer| RopeOperands::attention(norms, &gpu, layer)).collect();
        let us = gpu.time_us(40, |backend, turn| {
            backend.rope_and_cache(&batch, &attentions[turn % LAYERS], qkv)
        })?;
        let moved = heads.qkv_width() + heads.q_width() + 2 * heads.kv_width();
        row = row.with_time(lab, us, Cost { bytes: (rows * moved * 2) as f64, flops: 0.0 });
    }
    lab.row(row);
    Ok(())
}
