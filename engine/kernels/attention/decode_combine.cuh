// The second half of decode attention: what the readers' warps leave of a chunk is combined, and chunks are
// folded into a row's result. Included by decode.cu, whose constants and `Tail` it uses.
#pragma once
#include "common/common.cuh"

// The readers leave their states (FULL), the combiners take them (EMPTY).
enum Barrier { FULL = 1, EMPTY, COMBINING };

template <int THREADS_OF>
__device__ __forceinline__ void barrier_sync(Barrier barrier) {
    asm volatile("bar.sync %0, %1;" ::"r"((int)barrier), "n"(THREADS_OF) : "memory");
}

__device__ __forceinline__ void barrier_leave(Barrier barrier) {
    asm volatile("bar.arrive %0, %1;" ::"r"((int)barrier), "n"(THREADS) : "memory");
}

// Where an item's results go.
struct Target {
    elem* out;        // the slice's first head in the row
    float* partials;  // of the (row, slice)'s first chunk
    float2* sums;
    int* arrivals;
    int count;        // heads in the slice
};

// What the combiners have of a slice after some of its chunks: each thread VECTORS times 4 elements, and
// their head's maximum and sum.
constexpr int VECTORS = (SLICE_HEADS * HEAD_DIM / 4 + COMBINERS * 32 - 1) / (COMBINERS * 32);

struct Sums {
    float4 o[VECTORS];
    float max[VECTORS], sum[VECTORS];
};

// The element of a slice that a thread's vector begins at.
__device__ __forceinline__ int element_of(int vector) {
    return (vector * COMBINERS * 32 + threadIdx.x - WARPS * 32) * 4;
}

// Adds the next chunk. Always by the same operations, whether it was just computed or is read from memory:
// the result doesn't depend on who computed which chunk.
__device__ __forceinline__ void fold(float4& o, float& max, float& sum, float4 next, float next_max,
                                     float next_sum) {
    float top = fmaxf(max, next_max), keep = exp2_fast(max - top), add = exp2_fast(next_max - top);
    max = top;
    sum = __fmaf_rn(next_sum, add, __fmul_rn(sum, keep));
    o.x = __fmaf_rn(next.x, add, __fmul_rn(o.x, keep));
    o.y = __fmaf_rn(next.y, add, __fmul_rn(o.y, keep));
    o.z = __fmaf_rn(next.z, add, __fmul_rn(o.z, keep));
    o.w = __fmaf_rn(next.w, add, __fmul_rn(o.w, keep));
}

// Combines the warps' states of a chunk.
__device__ __forceinline__ void combine_warps(Sums& chunk, const Tail& tail) {
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        int i = element_of(v), head = i / HEAD_DIM;
        if (i >= SLICE_HEADS * HEAD_DIM) break;
        float top = tail.max[0][head], sum = 0;
        float4 o = make_float4(0, 0, 0, 0);
#pragma unroll
        for (int w = 1; w < WARPS; w++) top = fmaxf(top, tail.max[w][head]);
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            float weight = exp2_fast(tail.max[w][head] - top);
            float4 x = *(const float4*)&tail.o[w][head][i % HEAD_DIM];
            sum += weight * tail.sum[w][head];
            o.x += weight * x.x, o.y += weight * x.y, o.z += weight * x.z, o.w += weight * x.w;
        }
        chunk.o[v] = o, chunk.max[v] = top, chunk.sum[v] = sum;
    }
}

__device__ __forceinline__ void fold_chunk(Sums& sums, const Sums& next) {
#pragma unroll
    for (int v = 0; v < VECTORS; v++)
        fold(sums.o[v], sums.max[v], sums.sum[v], next.o[v], next.max[v], next.sum[v]);
}

__device__ __forceinline__ void store_chunk(const Target& to, const Sums& sums, int chunk) {
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        int i = element_of(v), head = i / HEAD_DIM;
        if (head >= to.count) break;
        *(float4*)(to.partials + (i64)chunk * SLICE_HEADS * HEAD_DIM + i) = sums.o[v];
        if (i % HEAD_DIM == 0) to.sums[chunk * SLICE_HEADS + head] = make_float2(sums.max[v], sums.sum[v]);
    }
}

__device__ __forceinline__ void store_out(const Target& to, float4 o, float sum, int i) {
    float scale = 1 / sum;
    *(uint2*)(to.out + i) = make_uint2(pack2(o.x * scale, o.y * scale), pack2(o.z * scale, o.w * scale));
}

// Says that `chunks` more of a slice's `all` are stored, of which `folded` in the first place (0: each in
// its own). Returns how many are in the first place if all have arrived, and are visible, else 0.
__device__ __forceinline__ int arrive(Tail& tail, int* arrivals, int chunks, int folded, int all) {
    barrier_sync<COMBINERS * 32>(COMBINING);
    if (threadIdx.x == WARPS * 32) {
        int now, mine = chunks + (folded << 16);
        asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], %2;"
                     : "=r"(now) : "l"(arrivals), "r"(mine) : "memory");
        now += mine;
        bool is_last = (now & 0xffff) == all;
        tail.folded = is_last ? now >> 16 : 0;
        if (is_last) *arrivals = 0;
    }
    barrier_sync<COMBINERS * 32>(COMBINING);
    return tail.folded;
}

// Folds what is stored: the first `folded` chunks in one, the others one by one.
__device__ __forceinline__ void combine_chunks(const Target& to, int folded, int chunks) {
    constexpr int AHEAD = 8;  // loads in flight
    constexpr int CHUNK = SLICE_HEADS * HEAD_DIM;
#pragma unroll 1
    for (int v = 0; v < VECTORS; v++) {
        int i = element_of(v), head = i / HEAD_DIM;
        if (head >= to.count) break;
        float4 o = __ldcg((const float4*)(to.partials + i));
        float2 s = __ldcg(to.sums + head);
        for (int first = folded; first < chunks; first += AHEAD) {
            float4 x[AHEAD];
            float2 y[AHEAD];
#pragma unroll
            for (int c = 0; c < AHEAD; c++) {
                if (first + c >= chunks) break;
                x[c] = __ldcg((const float4*)(to.partials + (i64)(first + c) * CHUNK + i));
                y[c] = __ldcg(to.sums + (first + c) * SLICE_HEADS + head);
            }
#pragma unroll
            for (int c = 0; c < AHEAD; c++) {
                if (first + c >= chunks) break;
                fold(o, s.x, s.y, x[c], y[c].x, y[c].y);
            }
        }
        store_out(to, o, s.y, i);
    }
}
