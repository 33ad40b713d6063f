// Logits as numbers: their order, what is made of two of them, and exponentials.
#include "common/common.cuh"

#define INFINITY __int_as_float(0x7f800000)

// === order ===

// Maps floats to integers of the same order; -0 is less than 0.
__device__ __forceinline__ u32 totally_ordered(float x) {
    const u32 bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The same, but -0 and 0 are one number.
__device__ __forceinline__ u32 ordered(float x) { return totally_ordered(x + 0.0f); }

constexpr u64 NAN_KEY = ~0ull;

// Larger for a larger logit, then for a lower token.
__device__ __forceinline__ u64 choice_order(float logit, u32 token) {
    return (u64)ordered(logit) << 32 | (u32)~token;
}

// The order of alternatives, in which -0 is less than 0.
__device__ __forceinline__ u64 total_order(float logit, u32 token) {
    return (u64)totally_ordered(logit) << 32 | (u32)~token;
}

// As `choice_order`, but 0 for what can't be chosen, and the most for a NaN.
__device__ __forceinline__ u64 choice_key(float logit, u32 token) {
    return logit != logit ? NAN_KEY : logit == -INFINITY ? 0 : choice_order(logit, token);
}

__device__ __forceinline__ float from_ordered(u32 x) {
    return __uint_as_float(x & 0x80000000u ? x ^ 0x80000000u : ~x);
}

__device__ __forceinline__ u64 max_u64(u64 a, u64 b) { return a > b ? a : b; }

__device__ __forceinline__ u64 warp_max_u64(u64 x) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) x = max_u64(x, __shfl_xor_sync(~0u, x, lanes));
    return x;
}

// === what is made of two ===

struct Sum {
    __device__ float operator()(float a, float b) const { return a + b; }
};
struct Max {
    __device__ u64 operator()(u64 a, u64 b) const { return a > b ? a : b; }
};
struct Add {
    __device__ u64 operator()(u64 a, u64 b) const { return a + b; }
};
// Of both halves of a word.
struct Ends {
    __device__ u64 operator()(u64 a, u64 b) const {
        return (u64)max((u32)(a >> 32), (u32)(b >> 32)) << 32 | max((u32)a, (u32)b);
    }
};
struct Min {
    __device__ float operator()(float a, float b) const { return fminf(a, b); }
};

__device__ __forceinline__ u64 to_word(u64 x) { return x; }
__device__ __forceinline__ u64 to_word(float x) { return __float_as_uint(x); }
__device__ __forceinline__ void from_word(u64 word, u64& x) { x = word; }
__device__ __forceinline__ void from_word(u64 word, float& x) { x = __uint_as_float((u32)word); }

// The smallest float up to `top` for which `passes` holds, as it does for `top` and for all larger.
// Each lane of a warp tries another; all warps do the same.
template <typename Passes>
__device__ float lowest(Passes passes, float top) {
    const u32 lane = threadIdx.x % 32;
    u32 low = ordered(-INFINITY), high = ordered(top);
    while (low < high) {
        const u32 step = (high - low) / 32, rest = (high - low) % 32;
        const auto tried = [&](u32 lane) { return low + step * lane + rest * lane / 32; };
        const u32 passing = __ballot_sync(~0u, passes(from_ordered(tried(lane))));
        const u32 first = passing ? __ffs(passing) - 1 : 32;
        const u32 fails = first > 0 ? tried(first - 1) + 1 : low;
        if (first < 32) high = tried(first);
        low = fails;
    }
    return from_ordered(high);
}

// === four at a time, and a warp at a time ===

template <typename Visit>
__device__ __forceinline__ void each_of(float4 v, Visit visit) {
    visit(v.x), visit(v.y), visit(v.z), visit(v.w);
}

// The sum up to and including each lane.
__device__ __forceinline__ float warp_scan(float x) {
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) {
        const float other = __shfl_up_sync(~0u, x, lanes);
        if (threadIdx.x % 32 >= lanes) x += other;
    }
    return x;
}

// 2^x, of small results 0.
__device__ __forceinline__ float exp2_or_zero(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 2 * 2^(x * by), of small results 0. Exactly 2 for an exponent too small to count, of which the
// instruction makes a little less than 1.
__device__ __forceinline__ float twice_exp2(float x, float by) { return exp2_or_zero(__fmaf_rn(x, by, 1.0f)); }

__device__ __forceinline__ float quad_max(float4 v) { return fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w)); }

// The logit of a token that can be chosen, by its key; minus infinity if there is none.
__device__ __forceinline__ float key_logit(u64 key) {
    return key == 0 ? -INFINITY : from_ordered((u32)(key >> 32));
}

// Whether a row whose greatest key this is has logits that are numbers: no NaN, no infinity, and one that can be
// chosen.
__device__ __forceinline__ bool is_finite_key(u64 key) { return key != 0 && key_logit(key) < INFINITY; }
