// out = exp(x - max(x)) / sum(exp(x - max(x))), row by row, in f32.
//
// -DSOFTMAX_COLS, -DSOFTMAX_THREADS: columns of a row, a multiple of 4; threads of its block.
#include "common/common.cuh"

#define INFINITY __int_as_float(0x7f800000)

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
