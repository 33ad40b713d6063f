// Operations on single rows: gather (embedding), add + norm, rotation + cache write, activation.
//
//   gather_rows     out[i] = table[index[i]]
//   add_norm        hidden += delta; out = hidden / sqrt(mean(hidden^2) + eps) * weight
//   rope_and_cache  q, k = rotate(norm(q)), rotate(norm(k)) per head; pages[slot] = k, v
//   silu_mul        out = gate / (1 + exp(-gate)) * up
//   advance         tokens[i] = sampled[source[i]] where source[i] >= 0
//
// Rows are contiguous, a multiple of 8 elements long, and read and written 16 bytes at a time. All of
// it is bound by memory: the floor is (bytes read + written) / copy bandwidth, or one launch and
// one trip to memory (about 2 us) for a few rows. So each thread has all its loads in flight at once,
// and weights are loaded before the wait for the kernel before.
//
// Rows of a long step are taken from the last to the first: the last ones that the kernel before wrote are
// still in the second-level cache, and the kernel after begins with the first.
//
// A row's sums are taken in one order whatever the number of rows: results don't depend on the batch.
//
// -DHIDDEN, -DNORM_THREADS: elements of a hidden row; threads of add_norm.
// -DHEADS, -DKV_HEADS, -DHEAD_DIM, -DBLOCK_TOKENS: the attention's shape, for rope_and_cache.
#include "common/common.cuh"

#ifndef HIDDEN
#define HIDDEN 4096
#endif
#ifndef NORM_THREADS
#define NORM_THREADS 512
#endif
#ifndef HEADS
#define HEADS 32
#endif
#ifndef KV_HEADS
#define KV_HEADS 8
#endif
#ifndef HEAD_DIM
#define HEAD_DIM 128
#endif
#ifndef BLOCK_TOKENS
#define BLOCK_TOKENS 16
#endif

// -DSTREAM_THREADS: of the kernels that only stream. -DGATHER_THREADS, -DGATHER_VECTORS: of gather_rows, and each
// one's vectors.

// === 16 bytes of elements ===

struct Floats8 {
    float x[8];
};

__device__ __forceinline__ Floats8 widen(uint4 v) {
    float2 a = unpack2(v.x), b = unpack2(v.y), c = unpack2(v.z), d = unpack2(v.w);
    return {{a.x, a.y, b.x, b.y, c.x, c.y, d.x, d.y}};
}

__device__ __forceinline__ uint4 narrow(const Floats8& f) {
    return make_uint4(pack2(f.x[0], f.x[1]), pack2(f.x[2], f.x[3]), pack2(f.x[4], f.x[5]),
                      pack2(f.x[6], f.x[7]));
}

// === gather_rows ===

// - table: [any, vectors * 8]; index: u32 [rows]; out: [rows, vectors * 8].
// Grid: (ceil(vectors / (GATHER_VECTORS * GATHER_THREADS)), rows), GATHER_THREADS threads.
extern "C" __global__ void __launch_bounds__(GATHER_THREADS)
    gather_rows(const uint4* __restrict__ table, const u32* __restrict__ index, uint4* __restrict__ out,
                int vectors) {
    grid_launch();
    grid_wait();
    const uint4* from = table + (u64)index[blockIdx.y] * vectors;
    uint4* to = out + (u64)blockIdx.y * vectors;
    const int first = blockIdx.x * (GATHER_VECTORS * GATHER_THREADS) + threadIdx.x;
    uint4 v[GATHER_VECTORS];
#pragma unroll
    for (int i = 0; i < GATHER_VECTORS; i++)
        if (first + i * GATHER_THREADS < vectors) v[i] = from[first + i * GATHER_THREADS];
#pragma unroll
    for (int i = 0; i < GATHER_VECTORS; i++)
        if (first + i * GATHER_THREADS < vectors) to[first + i * GATHER_THREADS] = v[i];
}

// The row that a block takes, where there is one block for each.
__device__ __forceinline__ int last_first() { return gridDim.x - 1 - blockIdx.x; }

// === add_norm ===

// The sum over all threads of a block, the same for each.
template <int THREADS>
__device__ __forceinline__ float block_sum(float x) {
    __shared__ float sums[THREADS / 32];
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
    __syncthreads();
    const int lane = threadIdx.x % 32;
    return warp_sum(lane < THREADS / 32 ? sums[lane] : 0.0f);
}

// - hidden: [rows, HIDDEN], updated unless `delta` is null; delta: the same shape or null;
//   weight: [HIDDEN]; out: [rows, HIDDEN].
// The sum is rounded to elements before it is squared, so that the norm is of what is kept.
// Grid: rows, NORM_THREADS threads.
extern "C" __global__ void __launch_bounds__(NORM_THREADS)
    add_norm(uint4* __restrict__ hidden, const uint4* __restrict__ delta, const uint4* __restrict__ weight,
             uint4* __restrict__ out, float eps) {
    constexpr int VECTORS = HIDDEN / 8;
    constexpr int EACH = (VECTORS + NORM_THREADS - 1) / NORM_THREADS;
    static_assert(HIDDEN % 8 == 0, "rows are whole vectors");
    grid_launch();
    uint4 w[EACH], h[EACH], d[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int v = threadIdx.x + i * NORM_THREADS;
        if (VECTORS % NORM_THREADS == 0 || v < VECTORS) w[i] = weight[v];
    }
    grid_wait();
    const u64 row = (u64)last_first() * VECTORS;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int v = threadIdx.x + i * NORM_THREADS;
        h[i] = d[i] = make_uint4(0, 0, 0, 0);
        if (VECTORS % NORM_THREADS == 0 || v < VECTORS) {
            h[i] = hidden[row + v];
            if (delta) d[i] = delta[row + v];
        }
    }
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        Floats8 x = widen(h[i]);
        if (delta) {
            const Floats8 y = widen(d[i]);
#pragma unroll
            for (int j = 0; j < 8; j++) x.x[j] += y.x[j];
            h[i] = narrow(x);
            x = widen(h[i]);
        }
#pragma unroll
        for (int j = 0; j < 8; j++) squares = fmaf(x.x[j], x.x[j], squares);
    }
    const float scale = rsqrtf(block_sum<NORM_THREADS>(squares) * (1.0f / HIDDEN) + eps);
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int v = threadIdx.x + i * NORM_THREADS;
        if (VECTORS % NORM_THREADS != 0 && v >= VECTORS) break;
        if (delta) hidden[row + v] = h[i];
        Floats8 x = widen(h[i]);
        const Floats8 y = widen(w[i]);
#pragma unroll
        for (int j = 0; j < 8; j++) x.x[j] = x.x[j] * scale * y.x[j];
        out[row + v] = narrow(x);
    }
}

// === rope_and_cache ===

constexpr int HALF = HEAD_DIM / 2;
// Elements of a half that one thread holds; it holds as many of the other half, their partners.
constexpr int SPAN = HALF % 8 == 0 ? 8 : 4;
// Threads of a head, and the same rounded up so that a warp holds whole heads.
constexpr int LANES = HALF / SPAN;
constexpr int GROUP = LANES <= 2 ? LANES : LANES <= 4 ? 4 : LANES <= 8 ? 8 : LANES <= 16 ? 16 : 32;
constexpr int ROPE_GROUPS = ROPE_THREADS / GROUP;
// Heads per thread: at most ROPE_HEADS_MAX, so that all are in flight at once; `blockIdx.y` goes over the rest.
constexpr int ALL_HEADS = HEADS + 2 * KV_HEADS;
constexpr int TURNS = (ALL_HEADS + ROPE_GROUPS - 1) / ROPE_GROUPS;
static_assert(ROPE_SPLITS == (TURNS + ROPE_HEADS_MAX - 1) / ROPE_HEADS_MAX, "as many blocks as are launched");
constexpr int ROPE_HEADS = (TURNS + ROPE_SPLITS - 1) / ROPE_SPLITS;
static_assert(HEAD_DIM % 8 == 0 && HEAD_DIM >= 16 && HEAD_DIM <= 256, "head dims 16..256 in steps of 8");

// SPAN elements, packed; moved 16 or 8 bytes at a time.
struct alignas(SPAN * 2) Span {
    u32 pairs[SPAN / 2];
};

struct HeadPart {
    Span lo, hi;
};

__device__ __forceinline__ void unpack(const Span& s, float (&x)[SPAN]) {
#pragma unroll
    for (int i = 0; i < SPAN / 2; i++) {
        const float2 f = unpack2(s.pairs[i]);
        x[2 * i] = f.x, x[2 * i + 1] = f.y;
    }
}

__device__ __forceinline__ Span pack(const float (&x)[SPAN]) {
    Span s;
#pragma unroll
    for (int i = 0; i < SPAN / 2; i++) s.pairs[i] = pack2(x[2 * i], x[2 * i + 1]);
    return s;
}

__device__ __forceinline__ float square_sum(const float (&x)[SPAN]) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < SPAN; i++) sum = fmaf(x[i], x[i], sum);
    return sum;
}

__device__ __forceinline__ void load_span(float (&x)[SPAN], const float* from) {
#pragma unroll
    for (int i = 0; i < SPAN / 4; i++) {
        const float4 f = *(const float4*)(from + 4 * i);
        x[4 * i] = f.x, x[4 * i + 1] = f.y, x[4 * i + 2] = f.z, x[4 * i + 3] = f.w;
    }
}

// Norms the head if `weight` is given. All lanes of the warp take part.
__device__ __forceinline__ void norm_head(float (&lo)[SPAN], float (&hi)[SPAN], const elem* weight, float eps,
                                          int lane) {
    float squares = lane < LANES ? square_sum(lo) + square_sum(hi) : 0.0f;
#pragma unroll
    for (int lanes = GROUP / 2; lanes > 0; lanes /= 2) squares += __shfl_xor_sync(~0u, squares, lanes);
    if (weight && lane < LANES) {
        const float scale = rsqrtf(squares * (1.0f / HEAD_DIM) + eps);
        float w[SPAN];
        unpack(*(const Span*)(weight + lane * SPAN), w);
#pragma unroll
        for (int i = 0; i < SPAN; i++) lo[i] = lo[i] * scale * w[i];
        unpack(*(const Span*)(weight + HALF + lane * SPAN), w);
#pragma unroll
        for (int i = 0; i < SPAN; i++) hi[i] = hi[i] * scale * w[i];
    }
}

// - qkv: [rows, ALL_HEADS * HEAD_DIM]: queries, keys, values; queries are rotated in place.
// - pages: the layer's, [blocks, 2, KV_HEADS, BLOCK_TOKENS, HEAD_DIM].
// - cos, sin: f32 [positions, HALF]; positions: u32 [rows]; slots: i32 [rows], -1 writes nothing.
// - q_norm, k_norm: [HEAD_DIM] or null.
// Positions, slots and tables are read before the wait: a copy or an ordinary launch must have
// written them before the first kernel of the step, no kernel in the same programmatic chain.
// Grid: (rows, ROPE_SPLITS), 128 threads.
extern "C" __global__ void __launch_bounds__(ROPE_THREADS)
    rope_and_cache(elem* __restrict__ qkv, elem* __restrict__ pages, const float* __restrict__ cos,
                   const float* __restrict__ sin, const u32* __restrict__ positions,
                   const int* __restrict__ slots, const elem* __restrict__ q_norm,
                   const elem* __restrict__ k_norm, float q_eps, float k_eps) {
    grid_launch();
    const int lane = threadIdx.x % GROUP;
    const int first = (blockIdx.y * ROPE_GROUPS * ROPE_HEADS) + threadIdx.x / GROUP;
    const bool active = lane < LANES;
    float c[SPAN], s[SPAN];
    const int token = last_first(), slot = slots[token];
    if (active) {
        const u64 angles = (u64)positions[token] * HALF + lane * SPAN;
        load_span(c, cos + angles);
        load_span(s, sin + angles);
    }
    grid_wait();
    elem* row = qkv + (u64)token * (ALL_HEADS * HEAD_DIM) + lane * SPAN;
    HeadPart parts[ROPE_HEADS];
#pragma unroll
    for (int i = 0; i < ROPE_HEADS; i++) {
        const int head = first + i * ROPE_GROUPS;
        if (active && head < ALL_HEADS) {
            parts[i].lo = *(const Span*)(row + head * HEAD_DIM);
            parts[i].hi = *(const Span*)(row + head * HEAD_DIM + HALF);
        }
    }
    // The slot's place in its page; heads of keys, then of values, lie a page's head apart.
    const u64 block = (u32)slot / BLOCK_TOKENS, offset = (u32)slot % BLOCK_TOKENS;
    elem* page = pages + (block * 2 * KV_HEADS * BLOCK_TOKENS + offset) * HEAD_DIM + lane * SPAN;
#pragma unroll
    for (int i = 0; i < ROPE_HEADS; i++) {
        const int head = first + i * ROPE_GROUPS;
        // Queries and keys of one warp may differ, so a norm that only one kind has runs for both.
        if (q_norm || k_norm || head < HEADS + KV_HEADS) {
            float lo[SPAN], hi[SPAN];
            unpack(parts[i].lo, lo);
            unpack(parts[i].hi, hi);
            if (q_norm || k_norm) {
                const bool query = head < HEADS, key = !query && head < HEADS + KV_HEADS;
                norm_head(lo, hi, query ? q_norm : key ? k_norm : nullptr, query ? q_eps : k_eps, lane);
            }
            if (head < HEADS + KV_HEADS) {
                float a[SPAN], b[SPAN];
#pragma unroll
                for (int j = 0; j < SPAN; j++) {
                    a[j] = lo[j] * c[j] - hi[j] * s[j];
                    b[j] = hi[j] * c[j] + lo[j] * s[j];
                }
                parts[i].lo = pack(a);
                parts[i].hi = pack(b);
            }
        }
        if (!active || head >= ALL_HEADS) continue;
        if (head < HEADS) {
            *(Span*)(row + head * HEAD_DIM) = parts[i].lo;
            *(Span*)(row + head * HEAD_DIM + HALF) = parts[i].hi;
        }
        if (head >= HEADS && slot >= 0) {
            elem* to = page + (u64)(head - HEADS) * (BLOCK_TOKENS * HEAD_DIM);
            *(Span*)to = parts[i].lo;
            *(Span*)(to + HALF) = parts[i].hi;
        }
    }
}

// === silu_mul ===

__device__ __forceinline__ float silu(float x) {
    return x * __frcp_rn(1.0f + __expf(-x));
}

// - gate_up: [rows, 2 * vectors * 8], gates first; out: [rows, vectors * 8].
// Grid: (ceil(vectors / 256), rows), 256 threads.
extern "C" __global__ void __launch_bounds__(STREAM_THREADS)
    silu_mul(const uint4* __restrict__ gate_up, uint4* __restrict__ out, int vectors) {
    grid_launch();
    grid_wait();
    const int v = blockIdx.x * STREAM_THREADS + threadIdx.x;
    if (v >= vectors) return;
    const uint4* from = gate_up + (u64)blockIdx.y * 2 * vectors + v;
    const uint4 gates = from[0], ups = from[vectors];
    Floats8 x = widen(gates);
    const Floats8 y = widen(ups);
#pragma unroll
    for (int j = 0; j < 8; j++) x.x[j] = silu(x.x[j]) * y.x[j];
    out[(u64)blockIdx.y * vectors + v] = narrow(x);
}

// === advance ===

// Feeds a step's tokens to the next: tokens[i] = sampled[source[i]], or as it was where source[i] < 0.
//
// - tokens: u32 [rows]; sampled: u32 [any]; source: i32 [rows].
// Grid: ceil(rows / 256), 256 threads.
extern "C" __global__ void __launch_bounds__(STREAM_THREADS)
    advance(u32* __restrict__ tokens, const u32* __restrict__ sampled, const int* __restrict__ source,
            int rows) {
    grid_launch();
    grid_wait();
    const int row = blockIdx.x * STREAM_THREADS + threadIdx.x;
    if (row >= rows) return;
    const int from = source[row];
    if (from >= 0) tokens[row] = sampled[from];
}
