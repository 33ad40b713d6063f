// Causal attention of many query tokens over paged keys and values, for any head size and any GPU
// from sm_80 on: FlashAttention-2 with mma.sync, ldmatrix and cp.async.
//
//   out[row, h] = sum_t softmax_t(scale * q[row, h] . k[t]) v[t],  max(0, p + 1 - window) <= t <= p
//
// Query j of a sequence is at position p = context - q_len + j. A block takes QUERIES tokens of one
// head of one sequence and walks the keys in tiles of TOKENS from a multiple of TOKENS up, so that a
// row's bits don't depend on how its prompt was cut into steps: what is masked adds exactly 0.
// Each warp keeps ROWS queries' O and the running maximum and sum in registers.
//
// Layout. qkv rows `[heads*d | kv_heads*d | kv_heads*d]` (only the queries are read); pages
// `[blocks][2][kv_heads][BLOCK_TOKENS][HEAD_DIM]` of one layer; out `[rows, heads*d]`; first_row, q_len,
// context `[sequences]`. Grid (heads, the sum over sequences of ceil(q_len / QUERIES)), 128 threads: a
// block finds its sequence itself. A sequence's last queries, which see most, come first.
//
// Floor: 4 * HEAD_DIM flops a (query, visible token, head), at the rate of mma.sync (on Hopper about
// six tenths of wgmma's).
#include "common/common.cuh"

#ifndef RESIDENT
#define RESIDENT 2
#endif

constexpr int WARPS = THREADS / 32;
constexpr int PARTS = HEAD_DIM <= 128 ? 2 : 1;  // of 16 queries, in a warp: O fills half the registers
constexpr int QUERIES = WARPS * PARTS * 16;
constexpr int STEPS = (HEAD_DIM + 15) / 16;     // of 16 elements of a head
constexpr int PIECES = HEAD_DIM / 8;            // of 16 bytes, in a head
// Threads that copy one head, a piece each.
constexpr int LANES = PIECES <= 2 ? 2 : PIECES <= 4 ? 4 : PIECES <= 8 ? 8 : PIECES <= 16 ? 16 : 32;
// Rows in shared memory lie so that ldmatrix meets no bank conflict: piece p of row r at p ^ r % 8, or
// in rows of an odd number of pieces where p ^ r % 8 might leave the row.
constexpr bool SWIZZLED = HEAD_DIM == 64 || HEAD_DIM == 128 || HEAD_DIM == 256;
constexpr int ROW_BYTES = SWIZZLED ? HEAD_DIM * 2 : (STEPS * 2 + 1) * 16;
constexpr int QUERY_BYTES = QUERIES * ROW_BYTES;
constexpr int TILE_BYTES = TOKENS * ROW_BYTES;
constexpr int TILE_BLOCKS = TOKENS <= BLOCK_TOKENS ? 1 : TOKENS / BLOCK_TOKENS;
#define HIDDEN __int_as_float(0xff800000)  // -inf, the score whose weight is exactly 0
constexpr float NEVER = -1e30f;  // the maximum of nothing: finite, so that differences are never NaN

static_assert(HEAD_DIM % 8 == 0 && HEAD_DIM <= 256, "head size");
static_assert(TOKENS % BLOCK_TOKENS == 0 || BLOCK_TOKENS % TOKENS == 0, "block size");

__device__ __forceinline__ u32 at_piece(int row, int piece) {
    return row * ROW_BYTES + (SWIZZLED ? piece ^ row % 8 : piece) * 16;
}

// Where piece `2 * step + i` is, from the address of piece i (0 or 1).
__device__ __forceinline__ u32 at_step(u32 base, int step) {
    return SWIZZLED ? base ^ step * 32 : base + step * 32;
}

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// === loads ===

// What a block attends to: tokens [low, context) of one sequence's key/value head.
struct Keys {
    const elem* pages;  // at the head, in block 0
    const int* table;
    int kv_heads, low, context;
};

// Starts copying TOKENS keys (half 0) or values (half 1); zeros for what isn't seen by anyone, since
// it may be NaN. `blocks`: the tile's table entries, in shared memory.
__device__ __forceinline__ void load_tile(u32 to, const Keys& keys, const int* blocks, int tile, int half) {
    const int half_elems = keys.kv_heads * BLOCK_TOKENS * HEAD_DIM;
    const int thread = threadIdx.x % THREADS, piece = thread % LANES, first = thread / LANES;
    const elem* from = keys.pages + half * half_elems + piece * 8;
    constexpr int ROWS = THREADS / LANES;  // at a time; more than there are for the smallest heads
    if (piece >= PIECES || first >= TOKENS) return;
#pragma unroll
    for (int i = 0; i < (TOKENS + ROWS - 1) / ROWS; i++) {
        int row = first + i * ROWS, token = tile * TOKENS + row;
        bool valid = keys.low <= token && token < keys.context;
        const elem* block = from + (i64)blocks[row / BLOCK_TOKENS] * (2 * half_elems);
        cp_async16_or_zero(to + at_piece(row, piece), block + token % BLOCK_TOKENS * HEAD_DIM, valid);
    }
}

// Starts copying the table entries of a tile.
__device__ __forceinline__ void load_blocks(int* to, const Keys& keys, int tile) {
    int i = threadIdx.x;
    if (i < TILE_BLOCKS) {
        int token = tile * TOKENS + i * BLOCK_TOKENS;
        bool valid = token < keys.context;
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to + i)),
                     "l"(keys.table + token / BLOCK_TOKENS), "r"(valid ? 4 : 0)
                     : "memory");
    }
}

// === one tile ===

typedef float Scores[PARTS][TOKENS / 8][4];
typedef u32 Weights[PARTS][TOKENS / 16][4];  // as the left operand of mma

struct State {
    float o[PARTS][STEPS * 2][4];
    float max[PARTS][2], sum[PARTS][2];  // of this lane's rows; the sums of its own columns
};

__device__ __forceinline__ void score_tile(Scores& s, u32 lane_at, u32 queries) {
#pragma unroll
    for (int m = 0; m < PARTS; m++)
#pragma unroll
        for (int n = 0; n < TOKENS / 8; n++) s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0;
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        u32 q[PARTS][4];
#pragma unroll
        for (int m = 0; m < PARTS; m++) {
            ldmatrix4(q[m], at_step(lane_at, step) + queries + m * 16 * ROW_BYTES);
        }
#pragma unroll
        for (int n = 0; n < TOKENS / 16; n++) {
            u32 k[4];
            ldmatrix4(k, at_step(lane_at, step) + QUERY_BYTES + n * 16 * ROW_BYTES);
#pragma unroll
            for (int m = 0; m < PARTS; m++) {
                mma16816(s[m][n * 2], q[m], k[0], k[2]);
                mma16816(s[m][n * 2 + 1], q[m], k[1], k[3]);
            }
        }
    }
}

// Hides the tokens that a row doesn't see. `position`: of this lane's first row; `token`: of its first
// column.
__device__ __forceinline__ void mask_tile(Scores& s, int position, int token, int window) {
#pragma unroll
    for (int m = 0; m < PARTS; m++)
#pragma unroll
        for (int n = 0; n < TOKENS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int behind = position + m * 16 + i / 2 * 8 - (token + n * 8 + i % 2);
                if (behind < 0 || behind >= window) s[m][n][i] = HIDDEN;
            }
}

// Scores to weights; what was summed before is scaled to the new maxima.
__device__ __forceinline__ void weigh_tile(Weights& p, const Scores& s, State& state, float scale) {
#pragma unroll
    for (int m = 0; m < PARTS; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float top = state.max[m][i];
#pragma unroll
            for (int n = 0; n < TOKENS / 8; n++) top = fmaxf(top, fmaxf(s[m][n][i * 2], s[m][n][i * 2 + 1]));
            top = quad_max(top);
            float keep = exp2_fast((state.max[m][i] - top) * scale), shift = top * scale;
            state.max[m][i] = top;
            float sum = 0;
#pragma unroll
            for (int n = 0; n < TOKENS / 8; n++) {
                float left = exp2_fast(s[m][n][i * 2] * scale - shift);
                float right = exp2_fast(s[m][n][i * 2 + 1] * scale - shift);
                sum += left + right;
                p[m][n / 2][n % 2 * 2 + i] = pack2(left, right);
            }
            state.sum[m][i] = state.sum[m][i] * keep + sum;
#pragma unroll
            for (int n = 0; n < STEPS * 2; n++) {
                state.o[m][n][i * 2] *= keep;
                state.o[m][n][i * 2 + 1] *= keep;
            }
        }
}

__device__ __forceinline__ void add_tile(State& state, const Weights& p, u32 lane_at) {
#pragma unroll
    for (int t = 0; t < TOKENS / 16; t++) {
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            u32 v[4];
            ldmatrix4_trans(v, at_step(lane_at, step) + QUERY_BYTES + TILE_BYTES + t * 16 * ROW_BYTES);
#pragma unroll
            for (int m = 0; m < PARTS; m++) {
                mma16816(state.o[m][step * 2], p[m][t], v[0], v[1]);
                mma16816(state.o[m][step * 2 + 1], p[m][t], v[2], v[3]);
            }
        }
    }
}

// === entry ===

// A block's queries: their sequence, how many, the first one's position and row.
struct Queries {
    int sequence, count, position, row;
};

// Finds the `index`-th QUERIES queries, counted over all sequences. Every warp does.
__device__ __forceinline__ Queries queries_of(int index, const int* first_row, const int* q_len,
                                              const int* context, int sequences) {
    const int lane = threadIdx.x % 32;
    int before = 0;
    for (int base = 0; base < sequences; base += 32) {
        int own = base + lane < sequences ? (q_len[base + lane] + QUERIES - 1) / QUERIES : 0, upto = own;
#pragma unroll
        for (int lanes = 1; lanes < 32; lanes *= 2) {
            int below = __shfl_up_sync(0xffffffffu, upto, lanes);
            if (lane >= lanes) upto += below;
        }
        u32 after = __ballot_sync(0xffffffffu, index < before + upto);
        if (after != 0) {
            int at = __ffs(after) - 1, s = base + at;
            int first = (index - before - __shfl_sync(0xffffffffu, upto - own, at)) * QUERIES;
            return {s, min(q_len[s] - first, QUERIES), context[s] - q_len[s] + first, first_row[s] + first};
        }
        before += __shfl_sync(0xffffffffu, upto, 31);
    }
    return {0, 0, 0, 0};
}

// Shared memory after the queries, keys and values.
struct Tail {
    Queries own;  // until the end, when registers are free again
    int blocks[2][TILE_BLOCKS];  // table entries of this tile and the next
};

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
portable_attention(const elem* qkv, elem* out, const elem* pages, const int* first_row, const int* q_len,
                   const int* context, const int* tables, int sequences, int heads, int kv_heads,
                   int qkv_stride, int table_stride, int window, float scale) {
    extern __shared__ __align__(1024) u8 shared[];
    Tail& tail = *(Tail*)(shared + QUERY_BYTES + 2 * TILE_BYTES);
    const u32 queries = shared_address(shared), keys = queries + QUERY_BYTES, values = keys + TILE_BYTES;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.x;
    // The bytes that pad a row are never loaded and must not be NaN.
    if (HEAD_DIM % 16 != 0) {
        for (int i = threadIdx.x * 16; i < QUERY_BYTES + 2 * TILE_BYTES; i += THREADS * 16) {
            *(uint4*)(shared + i) = uint4{};
        }
        __syncthreads();
    }
    grid_launch();
    grid_wait();

    const Queries own = queries_of(gridDim.y - 1 - blockIdx.y, first_row, q_len, context, sequences);
    if (own.count == 0) return;
    const int width = window > 0 ? window : 0x7fffffff;
    if (threadIdx.x == 0) tail.own = own;
    const Keys from = {pages + (i64)(head / (heads / kv_heads)) * BLOCK_TOKENS * HEAD_DIM,
                       tables + (i64)own.sequence * table_stride, kv_heads, max(0, own.position - width + 1),
                       own.position + own.count};

    int tile = from.low / TOKENS;
    const int tile_end = (from.context + TOKENS - 1) / TOKENS;
    load_blocks(tail.blocks[tile % 2], from, tile);
    cp_async_commit();
    for (int i = threadIdx.x; i < QUERIES * PIECES; i += THREADS) {
        int q = i / PIECES, piece = i % PIECES;
        const elem* at = qkv + (i64)(own.row + q) * qkv_stride + head * HEAD_DIM + piece * 8;
        cp_async16_or_zero(queries + at_piece(q, piece), at, q < own.count);
    }
    cp_async_wait<0>();
    __syncthreads();
    load_tile(keys, from, tail.blocks[tile % 2], tile, 0);
    load_blocks(tail.blocks[(tile + 1) % 2], from, tile + 1);
    cp_async_commit();

    // This lane's part of all ldmatrix addresses.
    const int warp_row = warp * PARTS * 16;
    const u32 lane_at = queries + at_piece(lane % 16, lane / 16);
    State state;
#pragma unroll
    for (int m = 0; m < PARTS; m++) {
        state.max[m][0] = state.max[m][1] = NEVER;
        state.sum[m][0] = state.sum[m][1] = 0;
#pragma unroll
        for (int n = 0; n < STEPS * 2; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) state.o[m][n][i] = 0;
        }
    }
    const int warp_first = own.position + warp_row, warp_last = warp_first + PARTS * 16 - 1;
    // One buffer of keys and one of values: each is loaded while the other is in use.
    for (; tile < tile_end; tile++) {
        cp_async_wait<0>();
        __syncthreads();
        load_tile(values, from, tail.blocks[tile % 2], tile, 1);
        cp_async_commit();
        Scores s;
        score_tile(s, lane_at, warp_row * ROW_BYTES);
        cp_async_wait<0>();
        __syncthreads();
        if (tile + 1 < tile_end) {
            load_tile(keys, from, tail.blocks[(tile + 1) % 2], tile + 1, 0);
            load_blocks(tail.blocks[tile % 2], from, tile + 2);
            cp_async_commit();
        }
        const int token = tile * TOKENS;
        if (token + TOKENS - 1 > warp_first || token <= warp_last - width) {
            mask_tile(s, warp_first + lane / 4, token + lane % 4 * 2, width);
        }
        Weights p;
        weigh_tile(p, s, state, scale * 1.44269504f);
        add_tile(state, p, lane_at);
    }
    const int count = tail.own.count, row = tail.own.row;
#pragma unroll
    for (int m = 0; m < PARTS; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int q = warp_row + m * 16 + i * 8 + lane / 4;
            float inverse = 1 / quad_sum(state.sum[m][i]);
            elem* to = out + ((i64)(row + q) * heads + head) * HEAD_DIM + lane % 4 * 2;
            if (q < count) {
#pragma unroll
                for (int n = 0; n < PIECES; n++) {
                    const float(&o)[4] = state.o[m][n];
                    *(u32*)(to + n * 8) = pack2(o[i * 2] * inverse, o[i * 2 + 1] * inverse);
                }
            }
        }
}
