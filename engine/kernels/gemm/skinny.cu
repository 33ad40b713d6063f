// out[M, N] = x[M, K] * W[N, K]^T (+ bias[N]) for few tokens M, where streaming W is the floor.
//
// Layouts: x `[tokens, inputs]`, W `[outputs, inputs]`, out `[tokens, outputs]`, row-major elem.
// -DOUT_F32: out is f32 (logits). -DGATED: W is `[2 * outputs, inputs]`, gate rows then up rows, and
// out = silu(gate) * up, rounded once. Sums are f32, in the order of K.
// Floor: N * K * 2 bytes / memory bandwidth; the tensor cores bind only above 200 tokens.
//
// A block owns ROWS rows of W (gated: half of them gates, half ups) and all of K, for 64 * WARPGROUPS
// tokens. The copy engine brings W and x in pieces of 64 inputs (rows of 128 bytes, 128-byte swizzle)
// to two rings in shared memory, each with a thread that asks for the pieces. W's ring is filled before
// grid_wait(): weights don't depend on the kernel before, so they stream in while that one ends. At most
// `ahead` stages of W are on their way at a time: what keeps the memory busy, and no more, for the rest
// only waits in queues, with x and with the kernel before behind it.
//
// Tokens are wgmma's M, rows of W its N, which may be any multiple of 16: so ROWS can be what gives
// every multiprocessor the same work, with no sums across blocks. The operand's rows past the tokens are
// whatever lies there, and their results are dropped (rows of a product don't mix). That costs no time
// but power, so that up to 32 tokens (-DTOKENS) mma is used, see few.cuh. A row's bits depend neither on
// M, as far as the instructions are the same, nor on the other rows.
//
// -D: ROWS (16..256, a multiple of 16), WARPGROUPS (1, 2, 4) or TOKENS, W_PIECES and X_PIECES (of a stage;
// the latter divides the former), [GATED], [OUT_F32].
//
// Launch: grid {ceil(outputs / (ROWS or, gated, ROWS / 2)), ceil(tokens / (64 * WARPGROUPS)), 1}, with TOKENS
// one along y; block WARPGROUPS * 128 + 64, with TOKENS 192; shared 1024 + x_stages * X_PIECES * x_rows * 128 +
// w_stages * W_PIECES * ROWS * 128, where W's ring is at least 64 * WARPGROUPS * 128 bytes, because reading a
// short tile of x may end in it, or with TOKENS large enough for few.cuh's sums. Maps, innermost first:
// W {inputs, rows of W} with boxes {64, ROWS or, gated, ROWS / 2}; x {inputs, tokens} with boxes {64, x_rows},
// x_rows a multiple of 8 and at most 64 * WARPGROUPS or TOKENS.

#ifndef ROWS
#define ROWS 32
#endif
#ifndef WARPGROUPS
#define WARPGROUPS 1
#endif
#ifndef W_PIECES
#define W_PIECES 4
#endif
#ifndef X_PIECES
#define X_PIECES 4
#endif

#define WIDTH ROWS
#include "common/wgmma.cuh"

// -DPIECE_BYTES: of a piece's row, the width of the swizzle. -DGROUP_TOKENS: of a warpgroup. -DSTAGES_MAX: of a
// ring. -DRING_OFFSET: the barriers come first.
#define PIECE (PIECE_BYTES / 2)
static_assert(PIECE == 64 && GROUP_TOKENS == 64 && STAGES_MAX * 32 <= RING_OFFSET, "what the instructions take");
// Warps that multiply; then come one that loads W, one that loads x.
#ifdef TOKENS
#include "gemm/few.cuh"
#define CONSUMERS FEW_WARPS
#else
#define CONSUMERS (WARPGROUPS * 4)
#endif
#define THREADS (CONSUMERS * 32 + 64)

// === rings ===

// Stages in shared memory: `full` and `empty` are the addresses of their barriers.
struct Ring {
    u32 full, empty, at, stage_bytes;
    int stages;

    __device__ __forceinline__ void init() const {
        for (int s = 0; s < stages; s++) {
            barrier_init(full + s * 8, 1);
            barrier_init(empty + s * 8, CONSUMERS);
        }
    }
};

// Where a walk around a ring is.
struct Position {
    int slot = 0;
    u32 phase = 0;
    __device__ __forceinline__ void advance(const Ring& ring) {
        if (++slot == ring.stages) slot = 0, phase ^= 1;
    }
    __device__ __forceinline__ u32 stage(const Ring& ring) const { return ring.at + slot * ring.stage_bytes; }
};

__device__ __forceinline__ void load_weights(const TensorMap* map, const Ring& ring, int row, int outputs,
                                             int stages, int ahead) {
    Position p, arrived;
    for (int s = 0; s < stages; s++) {
        const u32 full = ring.full + p.slot * 8;
        u32 to = ring.at + p.slot * ring.stage_bytes;
        if (s >= ahead) {
            barrier_wait(ring.full + arrived.slot * 8, arrived.phase);
            arrived.advance(ring);
        }
        barrier_wait(ring.empty + p.slot * 8, p.phase ^ 1);
        barrier_expect(full, ring.stage_bytes);
#pragma unroll
        for (int i = 0; i < W_PIECES; i++, to += ROWS * 128) {
            const int k = (s * W_PIECES + i) * PIECE;
            tma_load2(to, map, k, row, full);
#ifdef GATED
            tma_load2(to + ROWS / 2 * 128, map, k, outputs + row, full);
#endif
        }
        p.advance(ring);
    }
}

__device__ __forceinline__ void load_tokens(const TensorMap* map, const Ring& ring, int token, int stages) {
    const u32 piece_bytes = ring.stage_bytes / X_PIECES;
    Position p;
    for (int s = 0; s < stages; s++) {
        const u32 full = ring.full + p.slot * 8, to = ring.at + p.slot * ring.stage_bytes;
        barrier_wait(ring.empty + p.slot * 8, p.phase ^ 1);
        barrier_expect(full, ring.stage_bytes);
#pragma unroll
        for (int i = 0; i < X_PIECES; i++)
            tma_load2(to + i * piece_bytes, map, (s * X_PIECES + i) * PIECE, token, full);
        p.advance(ring);
    }
}

// === results ===

// Two neighbouring results of a token, of columns `n` and `n + 1`.
__device__ __forceinline__ void store2(void* out, int token, int n, int outputs, float a, float b) {
    const u64 at = (u64)token * outputs + n;
#ifdef OUT_F32
    float* to = (float*)out + at;
    if (outputs % 2 == 0 && n < outputs) {
        *(float2*)to = make_float2(a, b);
    } else {
        if (n < outputs) to[0] = a;
        if (n + 1 < outputs) to[1] = b;
    }
#else
    elem* to = (elem*)out + at;
    if (outputs % 2 == 0 && n < outputs) {
        *(u32*)to = pack2(a, b);
    } else {
        if (n < outputs) to[0] = to_elem(a);
        if (n + 1 < outputs) to[1] = to_elem(b);
    }
#endif
}

#ifdef TOKENS

// Writes a block's product, which lies in shared memory.
__device__ __forceinline__ void store(void* out, const elem* bias, const float* joined, int row, int tokens, int outputs) {
#ifdef GATED
    constexpr int PAIRS = ROWS / 4;
#else
    constexpr int PAIRS = ROWS / 2;
#endif
    for (int i = threadIdx.x; i < tokens * PAIRS; i += FEW_THREADS) {
        const int token = i / PAIRS, column = i % PAIRS * 2, n = row + column;
        float2 sum = joined2<ROWS>(joined, token, column);
#ifdef GATED
        const float2 up = joined2<ROWS>(joined, token, ROWS / 2 + column);
        sum = make_float2(silu_times(sum.x, up.x), silu_times(sum.y, up.y));
#else
        if (bias && n < outputs) sum.x += to_f32(bias[n]);
        if (bias && n + 1 < outputs) sum.y += to_f32(bias[n + 1]);
#endif
        store2(out, token, n, outputs, sum.x, sum.y);
    }
}

// - eights: of tokens.
__device__ __forceinline__ void multiply_all(Sums<ROWS>& sums, const Ring& w, const Ring& t, int eights, int stages) {
    const int lane = threadIdx.x % 32, x_piece = t.stage_bytes / X_PIECES;
    const u32 w_lane = lane_of_weights(), x_lane = lane_of_tokens();
    Position wp, tp;
    for (int s = 0; s < stages; s++) {
        barrier_wait(w.full + wp.slot * 8, wp.phase);
#pragma unroll
        for (int u = 0; u < W_PIECES; u += X_PIECES) {
            barrier_wait(t.full + tp.slot * 8, tp.phase);
#pragma unroll
            for (int i = 0; i < X_PIECES; i++) {
                Tokens x;
                load(x, tp.stage(t) + i * x_piece + x_lane, eights);
                add_piece(sums, wp.stage(w) + (u + i) * ROWS * PIECE_BYTES + w_lane, x, eights);
            }
            __syncwarp();
            if (lane == 0) barrier_arrive(t.empty + tp.slot * 8);
            tp.advance(t);
        }
        if (lane == 0) barrier_arrive(w.empty + wp.slot * 8);
        wp.advance(w);
    }
}
#else

// Writes what this thread has of the product: of two tokens, two columns out of each eight.
__device__ __forceinline__ void store(void* out, const elem* bias, const float (&d)[ROWS / 2], int row,
                                      int token, int tokens, int outputs) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    token += warp * 16 + lane / 4;
    row += lane % 4 * 2;
#pragma unroll
    for (int half = 0; half < 2; half++, token += 8) {
        if (token >= tokens) return;
#ifdef GATED
#pragma unroll
        for (int j = 0; j < ROWS / 16; j++) {
            const float* gate = d + j * 4 + half * 2;
            const float* up = gate + ROWS / 4;
            store2(out, token, row + j * 8, outputs, silu_times(gate[0], up[0]), silu_times(gate[1], up[1]));
        }
#else
#pragma unroll
        for (int j = 0; j < ROWS / 8; j++) {
            const int n = row + j * 8;
            float a = d[j * 4 + half * 2], b = d[j * 4 + half * 2 + 1];
            if (bias && n < outputs) a += to_f32(bias[n]);
            if (bias && n + 1 < outputs) b += to_f32(bias[n + 1]);
            store2(out, token, n, outputs, a, b);
        }
#endif
    }
}

// === the kernel ===

// d += the product of a block's rows and a warpgroup's tokens.
__device__ __forceinline__ void multiply_all(float (&d)[ROWS / 2], const Ring& w, const Ring& t, u32 own,
                                             int stages) {
    const int lane = threadIdx.x % 32, x_piece = t.stage_bytes / X_PIECES;
    Position wp, tp;
    int w_before = -1, t_before = -1;
    for (int s = 0; s < stages; s++) {
        barrier_wait(w.full + wp.slot * 8, wp.phase);
#pragma unroll
        for (int u = 0; u < W_PIECES; u += X_PIECES) {
            barrier_wait(t.full + tp.slot * 8, tp.phase);
            const u64 a = wgmma_operand(t.at + tp.slot * t.stage_bytes + own, 16, 1024);
            const u64 b = wgmma_operand(w.at + wp.slot * w.stage_bytes + u * ROWS * 128, 16, 1024);
            wgmma_fence();
#pragma unroll
            for (int i = 0; i < X_PIECES; i++)
#pragma unroll
                for (int k = 0; k < PIECE / 16; k++)   // descriptors count in 16 bytes
                    multiply(d, a + i * (x_piece / 16) + k * 2, b + i * (ROWS * 8) + k * 2, 1);
            wgmma_commit();
            wgmma_wait<1>();   // all but these are done, and what they read is free
            if (lane == 0 && t_before >= 0) barrier_arrive(t.empty + t_before * 8);
            if (lane == 0 && u == 0 && w_before >= 0) barrier_arrive(w.empty + w_before * 8);
            t_before = tp.slot;
            tp.advance(t);
        }
        w_before = wp.slot;
        wp.advance(w);
    }
    wgmma_wait<0>();
}
#endif

// w_stages, x_stages: of the rings, at most STAGES_MAX. ahead: from 1 to w_stages.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    skinny_matmul(const __grid_constant__ TensorMap weights, const __grid_constant__ TensorMap x, void* out,
                  const elem* bias, int tokens, int outputs, int inputs, int x_rows, int w_stages,
                  int x_stages, int ahead) {
    extern __shared__ __align__(1024) u8 memory[];
    grid_launch();
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const u32 base = shared_address(memory);
    const Ring t = {base + STAGES_MAX * 16, base + STAGES_MAX * 24, base + RING_OFFSET,
                    (u32)(X_PIECES * x_rows * 128), x_stages};
    const Ring w = {base, base + STAGES_MAX * 8, t.at + x_stages * t.stage_bytes, W_PIECES * ROWS * 128,
                    w_stages};
    if (threadIdx.x == CONSUMERS * 32) {
        prefetch_map(&weights);
        prefetch_map(&x);
        w.init();
        t.init();
        barrier_init_fence();
    }
    __syncthreads();

#ifdef GATED
    const int row = blockIdx.x * (ROWS / 2);
#else
    const int row = blockIdx.x * ROWS;
#endif
    const int token = blockIdx.y * (64 * WARPGROUPS);
    const int stages = (inputs + W_PIECES * PIECE - 1) / (W_PIECES * PIECE);
    if (warp == CONSUMERS) {
        if (lane == 0) load_weights(&weights, w, row, outputs, stages, ahead);
    } else if (warp > CONSUMERS) {
        if (lane == 0) {
            grid_wait();
            load_tokens(&x, t, token, stages * (W_PIECES / X_PIECES));
        }
    } else {
#ifdef TOKENS
        Sums<ROWS> sums = {};
        multiply_all(sums, w, t, x_rows / 8, stages);
        float* joined = (float*)(memory + (w.at - base));  // all of W is read
        join(joined, sums);
        store(out, bias, joined, row, tokens, outputs);
#else
        float d[ROWS / 2];
#pragma unroll
        for (int i = 0; i < ROWS / 2; i++) d[i] = 0.0f;
        multiply_all(d, w, t, (warp / 4) * 64 * 128, stages);
        store(out, bias, d, row, token, tokens, outputs);
#endif
    }
}
