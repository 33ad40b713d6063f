//! The inner loops: products, weighted sums, exponentials. Single-threaded; see [`super::simd`].
#![allow(unsafe_code)]
// Tiles index several arrays by the same constants; the compiler unrolls such loops into registers.
#![allow(clippy::needless_range_loop)]

use super::simd::{Element, Isa, Kernel, LANES, Simd};

/// A strided block of floats that a kernel writes, possibly next to what other threads write.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutBlock {
    start: *mut f32,
    /// Floats from one row to the next.
    stride: usize,
    rows: usize,
    cols: usize,
}

/// A matrix of floats whose blocks are written by several threads at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct SharedRows<'a> {
    start: *mut f32,
    rows: usize,
    cols: usize,
    borrow: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: the only access is `block`, whose caller promises that blocks don't overlap.
unsafe impl Send for SharedRows<'_> {}
// SAFETY: as above.
unsafe impl Sync for SharedRows<'_> {}

// === impl OutBlock ===

impl OutBlock {
    /// A block of consecutive rows.
    pub(super) fn new(out: &mut [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(out.len(), rows * cols, "a block is as large as its slice");
        Self { start: out.as_mut_ptr(), stride: cols, rows, cols }
    }

    /// Columns `from..from + cols` of all rows.
    pub(super) fn columns(self, from: usize, cols: usize) -> Self {
        assert!(from + cols <= self.cols, "columns are inside the block");
        // SAFETY: inside the same allocation, by the assertion.
        Self { start: unsafe { self.start.add(from) }, cols, ..self }
    }

    /// Writes the first row.
    ///
    /// # Safety
    /// As [`SharedRows::block`].
    pub(super) unsafe fn write_row(self, row: impl Iterator<Item = f32>) {
        assert!(self.rows > 0, "there is a row");
        for (col, x) in row.take(self.cols).enumerate() {
            // SAFETY: inside the block; the caller's promise.
            unsafe { self.write(0, col, x) };
        }
    }

    /// # Safety
    /// The memory the block was made from must still be borrowed for it; `row` and `col` inside.
    #[inline(always)]
    unsafe fn write(&self, row: usize, col: usize, x: f32) {
        debug_assert!(row < self.rows && col < self.cols, "a write stays inside its block");
        // SAFETY: the caller's promise.
        unsafe { self.start.add(row * self.stride + col).write(x) };
    }
}

// === impl SharedRows ===

impl<'a> SharedRows<'a> {
    pub(super) fn new(out: &'a mut [f32], cols: usize) -> Self {
        assert!(out.len().is_multiple_of(cols), "rows are whole");
        let rows = out.len() / cols;
        Self { start: out.as_mut_ptr(), rows, cols, borrow: std::marker::PhantomData }
    }

    /// The block of `rows` x `cols` whose upper left corner is at (`row`, `col`).
    ///
    /// # Safety
    /// No two blocks that are in use at the same time may overlap, and none may outlive `'a`.
    pub(super) unsafe fn block(
        &self,
        row: usize,
        rows: usize,
        col: usize,
        cols: usize,
    ) -> OutBlock {
        assert!(
            row + rows <= self.rows && col + cols <= self.cols,
            "a block lies inside its matrix"
        );
        // SAFETY: inside the allocation, by the assertion.
        let start = unsafe { self.start.add(row * self.cols + col) };
        OutBlock { start, stride: self.cols, rows, cols }
    }

    /// One whole row.
    ///
    /// # Safety
    /// As [`SharedRows::block`].
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn row_mut(&self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "a row lies inside its matrix");
        // SAFETY: inside the allocation, and nobody else's by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.cols), self.cols) }
    }
}

/// `out[m][n] = x[m] . w[n]`: rows of floats with rows of weights.
///
/// - `x`: rows of `k` floats each.
/// - `w`: `[n, k]`.
///
/// # Safety
/// As [`SharedRows::block`] for `out`.
pub(super) unsafe fn products<E: Element>(
    isa: Isa,
    x: &[&[f32]],
    w: &[E],
    k: usize,
    out: OutBlock,
) {
    assert!(x.iter().all(|row| row.len() == k), "rows have as many columns as the weights");
    assert_eq!(w.len(), k * out.cols, "as many weight rows as output columns");
    assert_eq!(x.len(), out.rows, "as many rows in as out");
    isa.run(Products { x, w, k, out });
}

struct Products<'a, E> {
    x: &'a [&'a [f32]],
    w: &'a [E],
    k: usize,
    out: OutBlock,
}

// === impl Products ===

impl<E: Element> Kernel for Products<'_, E> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let cols = self.out.cols;
        let mut col = 0;
        // SAFETY: `products` checked all lengths; tiles stay inside them.
        unsafe {
            while col + S::TILE_COLS <= cols {
                match S::TILE_COLS {
                    4 => self.strip::<S, 4>(col),
                    _ => self.strip::<S, 2>(col),
                }
                col += S::TILE_COLS;
            }
            while col < cols {
                self.strip::<S, 1>(col);
                col += 1;
            }
        }
    }
}

impl<E: Element> Products<'_, E> {
    /// All rows of `x` with `N` weight rows from `col` on.
    #[inline(always)]
    unsafe fn strip<S: Simd, const N: usize>(&self, col: usize) {
        let mut row = 0;
        while row < self.x.len() {
            let rows = (self.x.len() - row).min(S::TILE_ROWS);
            // SAFETY: `rows` rows are left, `N` columns are.
            unsafe {
                match rows {
                    1 => self.tile::<S, 1, N>(row, col),
                    2 => self.tile::<S, 2, N>(row, col),
                    3 => self.tile::<S, 3, N>(row, col),
                    4 => self.tile::<S, 4, N>(row, col),
                    5 => self.tile::<S, 5, N>(row, col),
                    _ => self.tile::<S, 6, N>(row, col),
                }
            }
            row += rows;
        }
    }

    /// One accumulator per output, so that an output's order of summation doesn't depend on the
    /// tile it falls into.
    #[inline(always)]
    unsafe fn tile<S: Simd, const M: usize, const N: usize>(&self, row: usize, col: usize) {
        let k = self.k;
        // SAFETY: rows `row..row + M` and `col..col + N` exist and have `k` elements.
        unsafe {
            let mut x = [std::ptr::null(); M];
            let mut w = [std::ptr::null(); N];
            for m in 0..M {
                x[m] = self.x.get_unchecked(row + m).as_ptr();
            }
            for n in 0..N {
                w[n] = self.w.as_ptr().add((col + n) * k);
            }
            let mut sums = [[S::splat(0.0); N]; M];
            let mut i = 0;
            while i + LANES <= k {
                if row == 0 {
                    prefetch_next_strip::<S, E, N>(&w, i, k);
                }
                add_products::<S, E, M, N>(&x, &w, i, &mut sums);
                i += LANES;
            }
            if i < k {
                let (x, w) = (x.map(|x| tail(x.add(i), k - i)), w.map(|w| tail(w.add(i), k - i)));
                let (x, w) = (x.each_ref().map(|x| x.as_ptr()), w.each_ref().map(|w| w.as_ptr()));
                add_products::<S, f32, M, N>(&x, &w, 0, &mut sums);
            }
            for m in 0..M {
                for n in 0..N {
                    self.out.write(row + m, col + n, S::sum(sums[m][n]));
                }
            }
        }
    }
}

/// Asks for the weights that come next in memory. The processor's own prefetching starts anew at
/// every page, which a strip of a small model's rows just fills: without this, a decode step takes
/// half as long again.
#[inline(always)]
fn prefetch_next_strip<S: Simd, E, const N: usize>(w: &[*const E; N], i: usize, k: usize) {
    for row in w {
        S::prefetch(row.wrapping_add(i + N * k));
    }
}

#[inline(always)]
unsafe fn add_products<S: Simd, E: Element, const M: usize, const N: usize>(
    x: &[*const f32; M],
    w: &[*const E; N],
    i: usize,
    sums: &mut [[S::V; N]; M],
) {
    // SAFETY: the caller has `LANES` elements at `i` in every row.
    unsafe {
        let mut weights = [S::splat(0.0); N];
        for n in 0..N {
            weights[n] = E::load::<S>(w[n].add(i));
        }
        for m in 0..M {
            let row = S::load_f32(x[m].add(i));
            for n in 0..N {
                sums[m][n] = S::mul_add(row, weights[n], sums[m][n]);
            }
        }
    }
}

/// The last `count` elements as floats, filled up with zeros.
#[inline(always)]
unsafe fn tail<E: Element>(from: *const E, count: usize) -> [f32; LANES] {
    let mut padded = [0.0; LANES];
    for (i, x) in padded.iter_mut().enumerate().take(count) {
        // SAFETY: the caller has `count` elements.
        *x = unsafe { from.add(i).read() }.to_f32();
    }
    padded
}

/// `out[m] += sum over j of p[m][j] * v[j]`, `j` ascending: attention's second product.
///
/// - `p`: rows of `n` weights each.
/// - `v`: `[n, dim]`.
/// - `out`: `[p.len(), dim]`.
pub(super) fn add_weighted<E: Element>(
    isa: Isa,
    p: &[&[f32]],
    v: &[E],
    dim: usize,
    out: &mut [f32],
) {
    assert!(p.iter().all(|row| row.len() * dim == v.len()), "a weight for every vector");
    assert_eq!(out.len(), p.len() * dim, "a vector for every row of weights");
    isa.run(AddWeighted { p, v, dim, out });
}

struct AddWeighted<'a, E> {
    p: &'a [&'a [f32]],
    v: &'a [E],
    dim: usize,
    out: &'a mut [f32],
}

// === impl AddWeighted ===

impl<E: Element> Kernel for AddWeighted<'_, E> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let mut row = 0;
        while row < self.p.len() {
            let rows = (self.p.len() - row).min(4);
            // SAFETY: `add_weighted` checked all lengths.
            unsafe {
                match rows {
                    1 => self.rows::<S, 1>(row),
                    2 => self.rows::<S, 2>(row),
                    3 => self.rows::<S, 3>(row),
                    _ => self.rows::<S, 4>(row),
                }
            }
            row += rows;
        }
    }
}

impl<E: Element> AddWeighted<'_, E> {
    #[inline(always)]
    unsafe fn rows<S: Simd, const M: usize>(&mut self, row: usize) {
        let (dim, count) = (self.dim, self.p[row].len());
        let out = self.out.as_mut_ptr();
        let mut d = 0;
        // SAFETY: `row + M` rows of `out` and `p` exist; `d + LANES` stays within `dim`.
        unsafe {
            while d + LANES <= dim {
                let mut sums = [S::splat(0.0); M];
                for m in 0..M {
                    sums[m] = S::load_f32(out.add((row + m) * dim + d));
                }
                for j in 0..count {
                    let v = E::load::<S>(self.v.as_ptr().add(j * dim + d));
                    for m in 0..M {
                        let p = *self.p.get_unchecked(row + m).get_unchecked(j);
                        sums[m] = S::mul_add(S::splat(p), v, sums[m]);
                    }
                }
                for m in 0..M {
                    S::store(out.add((row + m) * dim + d), sums[m]);
                }
                d += LANES;
            }
        }
        for m in row..row + M {
            for d in d..dim {
                for j in 0..count {
                    let v = self.v[j * dim + d].to_f32();
                    let sum = &mut self.out[m * dim + d];
                    *sum = S::mul_add_one(self.p[m][j], v, *sum);
                }
            }
        }
    }
}

/// The dot product of `x` with itself.
pub(super) fn sum_of_squares(isa: Isa, x: &[f32]) -> f32 {
    let mut sum = [0.0];
    // SAFETY: `sum` is this function's own.
    unsafe { products(isa, &[x], x, x.len(), OutBlock::new(&mut sum, 1, 1)) };
    sum[0]
}

/// Turns scores into unnormalized probabilities, `exp(scale * (score - best))`; returns their sum.
pub(super) fn exp_scores(isa: Isa, scores: &mut [f32], scale: f32) -> f32 {
    isa.run(ExpScores { scores, scale })
}

struct ExpScores<'a> {
    scores: &'a mut [f32],
    scale: f32,
}

// === impl ExpScores ===

impl Kernel for ExpScores<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f32 {
        let best = self.scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sums = [0.0; LANES];
        let mut chunks = self.scores.chunks_exact_mut(LANES);
        for chunk in &mut chunks {
            for lane in 0..LANES {
                chunk[lane] = exp::<S>((chunk[lane] - best) * self.scale);
                sums[lane] += chunk[lane];
            }
        }
        for (lane, score) in chunks.into_remainder().iter_mut().enumerate() {
            *score = exp::<S>((*score - best) * self.scale);
            sums[lane] += *score;
        }
        // SAFETY: `sums` has `LANES` elements.
        unsafe { S::sum(S::load_f32(sums.as_ptr())) }
    }
}

/// `out = silu(gate) * up`, `silu(x) = x / (1 + exp(-x))`.
pub(super) fn silu_mul(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == out.len() && up.len() == out.len(), "equal lengths");
    isa.run(SiluMul { gate, up, out });
}

struct SiluMul<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

// === impl SiluMul ===

impl Kernel for SiluMul<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for ((out, &gate), &up) in self.out.iter_mut().zip(self.gate).zip(self.up) {
            *out = gate / (1.0 + exp::<S>(-gate)) * up;
        }
    }
}

/// `e^x` to within 2 units in the last place, in a form that compilers turn into vectors.
///
/// `e^x = 2^n * e^r` with `|r| <= ln 2 / 2`, and a polynomial for `e^r` (Cephes' `expf`). Arguments
/// beyond the range of floats are clamped; a NaN stays one.
#[inline(always)]
fn exp<S: Simd>(x: f32) -> f32 {
    // Adding and taking away 1.5 * 2^23 rounds to the nearest whole number.
    const ROUNDING: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const COEFFICIENTS: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    // Beyond these, 2^n has no normal float.
    let x = x.clamp(-87.0, 88.0);
    let rounded = S::mul_add_one(x, std::f32::consts::LOG2_E, ROUNDING);
    let n = rounded - ROUNDING;
    let r = S::mul_add_one(n, -LN_2_HIGH, x);
    let r = S::mul_add_one(n, -LN_2_LOW, r);
    let mut p = COEFFICIENTS[0];
    for c in &COEFFICIENTS[1..] {
        p = S::mul_add_one(p, r, *c);
    }
    let e_r = S::mul_add_one(p, r * r, r) + 1.0;
    // The low bits of `rounded` hold n; moved up, they are the exponent of 2^n.
    let exponent = rounded.to_bits().wrapping_add(127).wrapping_shl(23);
    e_r * f32::from_bits(exponent)
}

#[cfg(test)]
mod tests;
