// The ends of prefill attention's tiles: rows are written, or, where a tile's keys are divided among several, sums are left
// as they are and joined. Included by prefill.cu, whose constants, `Work` and `exp2_fast` it uses.
#pragma once
#include "common/common.cuh"

// A tile whose keys were divided.
struct Joint {
    int first_row, tokens;
    int first_part, parts;
};
static_assert(sizeof(Joint) == JOINT_WORDS * 4, "as the host lists it");

// Without a branch: after a divergent one the compiler gives up uniform registers in the whole loop.
__device__ __forceinline__ void store_if(bool condition, elem* to, const u32 (&x)[4]) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %0, 0;\n"
                 "@p st.global.v4.b32 [%1], {%2, %3, %4, %5};\n}" ::"r"((int)condition),
                 "l"(to), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3])
                 : "memory");
}

// Writes 32 columns of a row, times `factor`: this thread's are 4 times 2 of `sums`, from `first` on, 4 apart. Four lanes
// hold 8 columns of a row between them; after two exchanges each holds 8 of 32.
template <int COUNT>
__device__ __forceinline__ void store_columns(bool is_row, elem* to, const float (&sums)[COUNT], int first,
                                              float factor) {
    const int lane = threadIdx.x % 32;
    u32 x[4];
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const int i = first + j * 4;
        x[j] = pack2(sums[i] * factor, sums[i + 1] * factor);
    }
#pragma unroll
    for (int step = 1; step <= 2; step++) {  // 4 x 4 transposition over the quad
#pragma unroll
        for (int p = 0; p < 2; p++) {
            const int low = step == 1 ? 2 * p : p, high = low + step;
            const bool upper = lane & step;
            const u32 other = __shfl_xor_sync(0xffffffffu, upper ? x[low] : x[high], step);
            if (upper) x[low] = other;
            else x[high] = other;
        }
    }
    store_if(is_row, to, x);
}

// The sum of what a quad's lanes have.
__device__ __forceinline__ float of_quad(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// Where a part's sums lie, as its threads hold them: [parts][SUMS][CONSUMERS * 128], and of each thread the maxima and totals of
// its two rows: [parts][CONSUMERS * 128].
struct Parts {
    float* sums;
    float4* stats;
    __device__ __forceinline__ float* sum(int part, int thread) const {
        return sums + (i64)part * SUMS * CONSUMERS * 128 + thread;
    }
    __device__ __forceinline__ float4* stat(int part, int thread) const {
        return stats + (i64)part * CONSUMERS * 128 + thread;
    }
};

// Leaves the sums of some of a tile's keys, if any of the warpgroup's rows exist.
__device__ __forceinline__ void leave_part(const Work& work, const float (&sums)[SUMS], const float (&maximum)[2],
                                           const float (&total)[2], const Parts& parts, int warpgroup) {
    if (warpgroup * TOKENS >= work.tokens) return;
    const int thread = warpgroup * 128 + threadIdx.x % 128;
    float* to = parts.sum(work.part, thread);
#pragma unroll
    for (int i = 0; i < SUMS; i++) to[i * CONSUMERS * 128] = sums[i];
    *parts.stat(work.part, thread) = make_float4(maximum[0], maximum[1], total[0], total[1]);
}

// Puts the parts of tiles together, in the order of their keys: 32 columns of a tile's rows a block, each thread what it held as
// a consumer. Grid: [joints * heads / PACK, HEAD_DIM / 32].
extern "C" __global__ void __launch_bounds__(128 * CONSUMERS)
join_parts(float* __restrict__ part_sums, float4* __restrict__ part_stats, elem* __restrict__ out,
           const Joint* __restrict__ joints, int heads, int out_stride, float scale) {
    const int packs = heads / PACK, pack_of = blockIdx.x % packs, columns = blockIdx.y;
    const int warpgroup = threadIdx.x / 128, row = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
    const Parts parts{part_sums, part_stats};
    scale *= 1.4426950408889634f;
    grid_wait();
    grid_launch();
    const Joint joint = joints[blockIdx.x / packs];
    if (warpgroup * TOKENS >= joint.tokens) return;
    auto part_at = [&](int i) { return (joint.first_part + i) * packs + pack_of; };
    float top[2] = {NO_SCORE, NO_SCORE}, total[2] = {0.0f, 0.0f}, sums[16] = {};
    for (int i = 0; i < joint.parts; i++) {
        const float4 stat = __ldcg(parts.stat(part_at(i), threadIdx.x));
        top[0] = fmaxf(top[0], stat.x), top[1] = fmaxf(top[1], stat.y);
    }
    for (int i = 0; i < joint.parts; i++) {
        const float4 stat = __ldcg(parts.stat(part_at(i), threadIdx.x));
        const float* from = parts.sum(part_at(i), threadIdx.x) + columns * 16 * CONSUMERS * 128;
        // A part of which a row sees nothing has no maximum, and weighs nothing.
        const float weight[2] = {exp2_fast((stat.x - top[0]) * scale), exp2_fast((stat.y - top[1]) * scale)};
        total[0] += weight[0] * stat.z, total[1] += weight[1] * stat.w;
#pragma unroll
        for (int j = 0; j < 16; j++) sums[j] += weight[j / 2 % 2] * __ldcg(from + j * CONSUMERS * 128);
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int token = warpgroup * TOKENS + (row + 8 * r) / PACK, head = pack_of * PACK + (row + 8 * r) % PACK;
        elem* to = out + (i64)(joint.first_row + token) * out_stride + head * HEAD_DIM + threadIdx.x % 4 * 8;
        const float inverse = __fdividef(1.0f, of_quad(total[r]));
        store_columns(token < joint.tokens, to + columns * 32, sums, r * 2, inverse);
    }
}
