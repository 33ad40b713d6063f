// out[i] = center + spread * u_i, with u_i on [-1, 1]: the weights of a dummy model.
//
// u_i = (signed word i % 4 of Philox4x32-10(counter {i / 4, 0, 0, 0}, key)) / 2^31, exactly as
// weights/dummy.rs computes it on the host: the product and the sum are rounded separately.
//
// Floor: the bytes written; 10 rounds of 2 wide products for 4 numbers keep it near that.
#include "common/common.cuh"

// Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011).
__device__ __forceinline__ uint4 philox(u32 counter, u32 key0, u32 key1) {
    uint4 s = make_uint4(counter, 0, 0, 0);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        u32 high0 = __umulhi(0xD2511F53u, s.x), low0 = 0xD2511F53u * s.x;
        u32 high1 = __umulhi(0xCD9E8D57u, s.z), low1 = 0xCD9E8D57u * s.z;
        s = make_uint4(high1 ^ s.y ^ key0, low1, high0 ^ s.w ^ key1, low0);
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return s;
}

__device__ __forceinline__ float scaled(u32 word, float center, float spread) {
    float u = __fmul_rn(__int2float_rn((int)word), 1.0f / 2147483648.0f);
    return __fadd_rn(center, __fmul_rn(spread, u));
}

// One thread a Philox block, 4 elements; any grid. `out` may have any alignment that elements have.
extern "C" __global__ void fill_random(elem* out, u64 elements, u64 key, float center, float spread) {
    u64 blocks = (elements + 3) / 4;
    bool aligned = ((u64)out & 7) == 0;
    for (u64 b = blockIdx.x * (u64)blockDim.x + threadIdx.x; b < blocks; b += (u64)gridDim.x * blockDim.x) {
        uint4 words = philox((u32)b, (u32)key, (u32)(key >> 32));
        float x0 = scaled(words.x, center, spread), x1 = scaled(words.y, center, spread);
        float x2 = scaled(words.z, center, spread), x3 = scaled(words.w, center, spread);
        u64 at = 4 * b;
        if (aligned && at + 4 <= elements) {
            *(uint2*)(out + at) = make_uint2(pack2(x0, x1), pack2(x2, x3));
        } else {
            float x[4] = {x0, x1, x2, x3};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (at + i < elements) out[at + i] = to_elem(x[i]);
            }
        }
    }
}
