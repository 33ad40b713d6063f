//! Sixteen floats at a time, in three ways that give the same bits.
//!
//! Every kernel is written once, over [`Simd`]. A sum over `k` always runs in the same order: lane
//! `i` adds the products at `i, i + 16, i + 32, ...` with fused multiply-adds, and the lanes are
//! folded in halves at the end. So a number doesn't depend on the instruction set that computed it,
//! and a prompt prefilled on one kind of machine continues on another with the same tokens.
#![allow(unsafe_code)]

use half::{bf16, f16};

/// Floats per vector.
pub(super) const LANES: usize = 16;

/// Sixteen lanes of 32-bit floats.
///
/// # Safety
/// All functions must run where the instruction set of the implementing type is available, which
/// [`Isa::run`] sees to; pointers must be valid for [`LANES`] elements.
pub(super) trait Simd {
    type V: Copy;
    /// Query rows per tile: with `TILE_COLS`, as many accumulators as the registers hold.
    const TILE_ROWS: usize;
    /// Weight rows per tile.
    const TILE_COLS: usize;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load_f32(from: *const f32) -> Self::V;
    unsafe fn load_bf16(from: *const bf16) -> Self::V;
    unsafe fn load_f16(from: *const f16) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    /// Asks for the cache line at `at`, which need not be valid.
    fn prefetch<T>(at: *const T);
    /// `a * b + c`, rounded once.
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Folds halves: lanes 0-7 with 8-15, then 0-3 with 4-7, and so on.
    unsafe fn sum(v: Self::V) -> f32;
    /// `a * b + c` of single floats, rounded once.
    fn mul_add_one(a: f32, b: f32, c: f32) -> f32;
}

/// An element type that kernels read as floats.
pub(super) trait Element: bytemuck::Pod + Send + Sync {
    fn to_f32(self) -> f32;

    /// [`LANES`] of them: as the compiler does it, which is well where a processor widens the type.
    ///
    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::V {
        // SAFETY: the caller's promise; the floats are here.
        unsafe { S::load_f32(widened(from).as_ptr()) }
    }
}

/// An element type that floats are rounded to.
pub(super) trait FromFloat: Element {
    fn from_f32(x: f32) -> Self;
}

/// A computation that is compiled once per instruction set.
pub(super) trait Kernel {
    type Output;

    /// # Safety
    /// To be called by [`Isa::run`] only. Implementations are `#[inline(always)]`, so that they are
    /// compiled inside a function that has the instruction set enabled.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// Which instructions to compute with. Values are made only by [`Isa::available`], which asks the
/// processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Isa(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Plain Rust: what the compiler makes of arrays. On ARM that is NEON, which is always there.
    Portable,
}

// === impl Isa ===

impl Isa {
    /// The best this machine has.
    pub(super) fn detect() -> Self {
        Self::available()[0]
    }

    /// All this machine has, best first; never empty.
    pub(super) fn available() -> Vec<Self> {
        let mut kinds = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let has_avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            if has_avx2 && is_x86_feature_detected!("avx512f") {
                kinds.push(Self(Kind::Avx512));
            }
            if has_avx2 {
                kinds.push(Self(Kind::Avx2));
            }
        }
        kinds.push(Self(Kind::Portable));
        kinds
    }

    /// Runs a kernel with these instructions.
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: an `Isa` exists only if the processor said that it has it.
        unsafe {
            match self.0 {
                #[cfg(target_arch = "x86_64")]
                Kind::Avx512 => x86::run_avx512(kernel),
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 => x86::run_avx2(kernel),
                Kind::Portable => kernel.run::<Portable>(),
            }
        }
    }
}

// === impl Element ===

impl Element for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::load_f32(from) }
    }
}

impl FromFloat for f32 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::load_bf16(from) }
    }
}

impl FromFloat for bf16 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        Self::from_f32(x)
    }
}

impl Element for f16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        Self::to_f32(self)
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::load_f16(from) }
    }
}

impl FromFloat for f16 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        Self::from_f32(x)
    }
}

/// # Safety
/// `from` is valid for [`LANES`] elements.
#[inline(always)]
unsafe fn widened<E: Element>(from: *const E) -> [f32; LANES] {
    let mut v = [0.0; LANES];
    for (lane, x) in v.iter_mut().enumerate() {
        // SAFETY: the caller promised `LANES` elements.
        *x = unsafe { from.add(lane).read() }.to_f32();
    }
    v
}

/// Plain arrays.
pub(super) struct Portable;

// === impl Portable ===

impl Simd for Portable {
    type V = [f32; LANES];
    const TILE_ROWS: usize = 2;
    const TILE_COLS: usize = 2;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn load_f32(from: *const f32) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { widened(from) }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { widened(from) }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { widened(from) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::V) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(v) };
    }

    #[inline(always)]
    fn prefetch<T>(_: *const T) {}

    #[inline(always)]
    unsafe fn mul_add(a: Self::V, b: Self::V, mut c: Self::V) -> Self::V {
        for lane in 0..LANES {
            c[lane] = Self::mul_add_one(a[lane], b[lane], c[lane]);
        }
        c
    }

    #[inline(always)]
    unsafe fn sum(mut v: Self::V) -> f32 {
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                v[lane] += v[lane + width];
            }
            width /= 2;
        }
        v[0]
    }

    /// Correctly rounded everywhere; slow only on x86 processors older than 2013, which have no
    /// such instruction.
    #[inline(always)]
    fn mul_add_one(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use half::{bf16, f16};

    use super::{Kernel, Simd};

    /// One 512-bit register.
    pub(super) struct Avx512;

    /// Two 256-bit registers.
    pub(super) struct Avx2;

    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    pub(super) unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: this function has the instructions.
        unsafe { kernel.run::<Avx512>() }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: this function has the instructions.
        unsafe { kernel.run::<Avx2>() }
    }

    #[inline(always)]
    fn prefetch_line<T>(at: *const T) {
        // SAFETY: a hint; it reads nothing that could fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }

    /// Folds 8 lanes to one.
    #[inline(always)]
    unsafe fn sum8(v: __m256) -> f32 {
        // SAFETY: the caller has AVX2.
        unsafe {
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_shuffle_ps::<1>(v, v)))
        }
    }

    impl Simd for Avx512 {
        type V = __m512;
        // 24 accumulators, 4 weights and a row: 29 of 32 registers.
        const TILE_ROWS: usize = 6;
        const TILE_COLS: usize = 4;

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self::V {
            // SAFETY: the caller has AVX-512.
            unsafe { _mm512_set1_ps(x) }
        }

        #[inline(always)]
        unsafe fn load_f32(from: *const f32) -> Self::V {
            // SAFETY: the caller has AVX-512 and a valid pointer.
            unsafe { _mm512_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn load_bf16(from: *const bf16) -> Self::V {
            // SAFETY: as above. A bfloat16 is the upper half of a float.
            unsafe {
                let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
            }
        }

        #[inline(always)]
        unsafe fn load_f16(from: *const f16) -> Self::V {
            // SAFETY: as above.
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
        }

        #[inline(always)]
        unsafe fn store(to: *mut f32, v: Self::V) {
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(to, v) };
        }

        #[inline(always)]
        fn prefetch<T>(at: *const T) {
            prefetch_line(at);
        }

        #[inline(always)]
        unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            // SAFETY: as above.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        unsafe fn sum(v: Self::V) -> f32 {
            // SAFETY: as above.
            unsafe {
                let upper = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(v)));
                sum8(_mm256_add_ps(_mm512_castps512_ps256(v), upper))
            }
        }

        #[inline(always)]
        fn mul_add_one(a: f32, b: f32, c: f32) -> f32 {
            a.mul_add(b, c)
        }
    }

    impl Simd for Avx2 {
        type V = [__m256; 2];
        // 12 registers of accumulators, 2 of weights, 2 of the row: all 16.
        const TILE_ROWS: usize = 3;
        const TILE_COLS: usize = 2;

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self::V {
            // SAFETY: the caller has AVX2.
            unsafe { [_mm256_set1_ps(x); 2] }
        }

        #[inline(always)]
        unsafe fn load_f32(from: *const f32) -> Self::V {
            // SAFETY: the caller has AVX2 and a valid pointer.
            unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
        }

        #[inline(always)]
        unsafe fn load_bf16(from: *const bf16) -> Self::V {
            // SAFETY: as above. A bfloat16 is the upper half of a float.
            unsafe {
                let widen = |eight: __m128i| {
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(eight)))
                };
                let from = from.cast::<__m128i>();
                [widen(_mm_loadu_si128(from)), widen(_mm_loadu_si128(from.add(1)))]
            }
        }

        #[inline(always)]
        unsafe fn load_f16(from: *const f16) -> Self::V {
            // SAFETY: as above.
            unsafe {
                let from = from.cast::<__m128i>();
                [
                    _mm256_cvtph_ps(_mm_loadu_si128(from)),
                    _mm256_cvtph_ps(_mm_loadu_si128(from.add(1))),
                ]
            }
        }

        #[inline(always)]
        unsafe fn store(to: *mut f32, v: Self::V) {
            // SAFETY: as above.
            unsafe {
                _mm256_storeu_ps(to, v[0]);
                _mm256_storeu_ps(to.add(8), v[1]);
            }
        }

        #[inline(always)]
        fn prefetch<T>(at: *const T) {
            prefetch_line(at);
        }

        #[inline(always)]
        unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            // SAFETY: as above.
            unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
        }

        #[inline(always)]
        unsafe fn sum(v: Self::V) -> f32 {
            // SAFETY: as above.
            unsafe { sum8(_mm256_add_ps(v[0], v[1])) }
        }

        #[inline(always)]
        fn mul_add_one(a: f32, b: f32, c: f32) -> f32 {
            a.mul_add(b, c)
        }
    }
}
