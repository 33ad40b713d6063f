// Reads memory and keeps next to nothing of it: the rate that any kernel's reads are measured against.
//
//   sum[0] += (xor of all 16-byte words' first quarters) == an odd chance
//
// - from: u32 [4 * words], 16-byte aligned
// - sum: u32 [1]; written only so that the reads are not for nothing
//
// -DTHREADS: of a block.
// Floor: 16 * words bytes over the bandwidth. Each thread has eight independent loads in flight.

#include "common/common.cuh"

constexpr int LOADS = 8;

extern "C" __global__ void __launch_bounds__(THREADS) read_all(const uint4* __restrict__ from, u64 words, u32* sum) {
    u64 step = (u64)gridDim.x * blockDim.x;
    u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    u32 all = 0;
    for (; at + (LOADS - 1) * step < words; at += LOADS * step) {
        uint4 loaded[LOADS];
#pragma unroll
        for (int i = 0; i < LOADS; i++) loaded[i] = __ldcs(from + at + i * step);
#pragma unroll
        for (int i = 0; i < LOADS; i++) all ^= loaded[i].x ^ loaded[i].y ^ loaded[i].z ^ loaded[i].w;
    }
    for (; at < words; at += step) {
        uint4 loaded = __ldcs(from + at);
        all ^= loaded.x ^ loaded.y ^ loaded.z ^ loaded.w;
    }
    if (all == 0x9e3779b9) atomicAdd(sum, 1);
}
