// Chooses tokens from logits, and a row softmax.
//
//   greedy        the likeliest token of each plain greedy row
//   softmax_rows  out = exp(x - max(x)) / sum(exp(x - max(x)))
#include "common.cuh"

#ifndef SOFTMAX_COLS
#define SOFTMAX_COLS 8192
#endif
#ifndef SOFTMAX_THREADS
#define SOFTMAX_THREADS 512
#endif

#define INFINITY __int_as_float(0x7f800000)

constexpr int TOP_MAX = 20;

// What a request wants of its row of logits.
enum Mode : u32 { GREEDY = 0, CHOOSE = 1, SCORE = 2 };
enum Status : u32 { OK = 0, NOT_A_NUMBER = 1, NO_CANDIDATE = 2 };

struct Request {
    // Row of logits; negative for a padding entry, which gives nothing.
    int row;
    u32 mode;
    float temperature;
    u32 top_k;
    float top_p;
    float min_p;
    u32 seed_low, seed_high;
    u32 choice, index;
    // The token to score.
    u32 given;
    // Alternatives to return, or -1 for no log probabilities.
    int top;
    // Its edits: edits[first_edit .. first_edit + edits].
    u32 first_edit, edits;
    u32 reserved[2];
};

struct Choice {
    u32 token;
    u32 status;
    float logprob;
    u32 top;
    u32 top_tokens[TOP_MAX];
    float top_logprobs[TOP_MAX];
};

// === order ===

// Maps floats to integers of the same order; -0 and 0 are one number.
__device__ __forceinline__ u32 ordered(float x) {
    const u32 bits = __float_as_uint(x + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

constexpr u64 NAN_KEY = ~0ull;

// Larger for a larger logit, then for a lower token; 0 where nothing is chosen, the most for a NaN.
__device__ __forceinline__ u64 choice_key(float logit, u32 token) {
    if (logit != logit) return NAN_KEY;
    return logit == -INFINITY ? 0 : (u64)ordered(logit) << 32 | (u32)~token;
}

__device__ __forceinline__ u64 max_u64(u64 a, u64 b) { return a > b ? a : b; }

__device__ __forceinline__ u64 warp_max_u64(u64 x) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) x = max_u64(x, __shfl_xor_sync(~0u, x, lanes));
    return x;
}

// === greedy ===

constexpr int GREEDY_THREADS = 256;

// A row's state between its blocks: zero before and after.
struct alignas(16) GreedyRow {
    u64 best;
    u32 done;
    u32 reserved;
};

// - logits: f32 [any, stride], `vocab` of each row; stride a multiple of 4.
// - requests, choices, tokens: one per row of the grid; those that aren't plain greedy are left alone.
// - state: [rows], zeroed once.
// Several blocks share a row; the last to arrive writes the result. A maximum doesn't depend on who
// came first.
// Grid: (splits, requests), 256 threads.
extern "C" __global__ void __launch_bounds__(GREEDY_THREADS)
    greedy(const float* __restrict__ logits, i64 stride, int vocab, const Request* __restrict__ requests,
           Choice* __restrict__ choices, u32* __restrict__ tokens, GreedyRow* __restrict__ state) {
    __shared__ u64 bests[GREEDY_THREADS / 32];
    grid_launch();
    const Request& request = requests[blockIdx.y];
    const int row = request.row;
    const bool skipped = row < 0 || request.mode != GREEDY;
    grid_wait();
    if (skipped) return;
    const float4* from = (const float4*)(logits + row * stride);
    const int vectors = vocab / 4, step = gridDim.x * GREEDY_THREADS;
    // The likeliest of a thread's own tokens, which come in ascending order: a later equal loses.
    float best = -INFINITY;
    u32 token = 0;
    bool nan = false;
    const auto look = [&](float logit, u32 at) {
        nan |= logit != logit;
        if (logit > best) best = logit, token = at;
    };
    int v = blockIdx.x * GREEDY_THREADS + threadIdx.x;
    for (; v + 3 * step < vectors; v += 4 * step) {
        float4 x[4];
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] = from[v + i * step];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const u32 at = (u32)(v + i * step) * 4;
            look(x[i].x, at), look(x[i].y, at + 1), look(x[i].z, at + 2), look(x[i].w, at + 3);
        }
    }
    for (; v < vectors; v += step) {
        const float4 x = from[v];
        const u32 at = (u32)v * 4;
        look(x.x, at), look(x.y, at + 1), look(x.z, at + 2), look(x.w, at + 3);
    }
    if (blockIdx.x == 0 && threadIdx.x < vocab % 4) {
        const u32 at = vectors * 4 + threadIdx.x;
        look(logits[row * stride + at], at);
    }
    const u64 key = warp_max_u64(nan ? NAN_KEY : choice_key(best, token));
    if (threadIdx.x % 32 == 0) bests[threadIdx.x / 32] = key;
    __syncthreads();
    if (threadIdx.x != 0) return;
    u64 most = bests[0];
#pragma unroll
    for (int i = 1; i < GREEDY_THREADS / 32; i++) most = max_u64(most, bests[i]);
    GreedyRow& shared_row = state[blockIdx.y];
    atomicMax(&shared_row.best, most);
    __threadfence();
    if (atomicAdd(&shared_row.done, 1) != gridDim.x - 1) return;
    __threadfence();
    most = atomicExch(&shared_row.best, 0ull);
    shared_row.done = 0;
    const u32 status = most == NAN_KEY ? NOT_A_NUMBER : most == 0 ? NO_CANDIDATE : OK;
    // A faulty row feeds token 0 to the next step, whose output nobody reads.
    const u32 chosen = status == OK ? ~(u32)most : 0;
    Choice& choice = choices[blockIdx.y];
    choice.token = chosen;
    choice.status = status;
    choice.logprob = 0.0f;
    choice.top = 0;
    tokens[blockIdx.y] = chosen;
}

// === softmax_rows ===

struct MaxSum {
    float max, sum;
};

// Joins two partial sums, each relative to its own maximum.
__device__ __forceinline__ MaxSum join(MaxSum a, MaxSum b) {
    const float max = fmaxf(a.max, b.max);
    if (max == -INFINITY) return a;
    return {max, a.sum * __expf(a.max - max) + b.sum * __expf(b.max - max)};
}

__device__ __forceinline__ MaxSum warp_join(MaxSum x) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2)
        x = join(x, {__shfl_xor_sync(~0u, x.max, lanes), __shfl_xor_sync(~0u, x.sum, lanes)});
    return x;
}

// - x, out: f32 [rows, SOFTMAX_COLS]. A row stays in registers: one read, one write.
// Floor: 8 bytes an element at copy bandwidth.
// Grid: rows, SOFTMAX_THREADS threads.
extern "C" __global__ void __launch_bounds__(SOFTMAX_THREADS)
    softmax_rows(const float4* __restrict__ x, float4* __restrict__ out) {
    constexpr int VECTORS = SOFTMAX_COLS / 4, EACH = (VECTORS + SOFTMAX_THREADS - 1) / SOFTMAX_THREADS;
    constexpr int WARPS = SOFTMAX_THREADS / 32;
    static_assert(SOFTMAX_COLS % 4 == 0, "rows are whole vectors");
    __shared__ MaxSum parts[WARPS];
    grid_launch();
    grid_wait();
    const u64 row = (u64)blockIdx.x * VECTORS;
    float4 v[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int at = threadIdx.x + i * SOFTMAX_THREADS;
        v[i] = make_float4(-INFINITY, -INFINITY, -INFINITY, -INFINITY);
        if (VECTORS % SOFTMAX_THREADS == 0 || at < VECTORS) v[i] = __ldcs(&x[row + at]);
    }
    MaxSum mine = {-INFINITY, 0.0f};
#pragma unroll
    for (int i = 0; i < EACH; i++)
        mine.max = fmaxf(fmaxf(fmaxf(mine.max, v[i].x), fmaxf(v[i].y, v[i].z)), v[i].w);
    // A thread whose values are all minus infinity adds nothing, and writes zeros.
    const float base = mine.max == -INFINITY ? 0.0f : mine.max;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        v[i] = make_float4(__expf(v[i].x - base), __expf(v[i].y - base), __expf(v[i].z - base),
                           __expf(v[i].w - base));
        mine.sum += (v[i].x + v[i].y) + (v[i].z + v[i].w);
    }
    MaxSum all = warp_join(mine);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = all;
    __syncthreads();
    const int lane = threadIdx.x % 32;
    all = warp_join(lane < WARPS ? parts[lane] : MaxSum{-INFINITY, 0.0f});
    const float scale = mine.max == -INFINITY ? 0.0f : __expf(base - all.max) / all.sum;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int at = threadIdx.x + i * SOFTMAX_THREADS;
        if (VECTORS % SOFTMAX_THREADS != 0 && at >= VECTORS) break;
        __stcs(&out[row + at], make_float4(v[i].x * scale, v[i].y * scale, v[i].z * scale, v[i].w * scale));
    }
}
