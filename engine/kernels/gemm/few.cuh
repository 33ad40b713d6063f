// Products of weights with at most TOKENS tokens, of which wgmma would compute 64: most of that work would be in vain,
// and at the power limit what is computed in vain is paid for with the clock.
//
// Rows of W are mma's 16 rows, tokens its 8 columns. Each of four warps takes 16 of a piece's 64 inputs; at the end
// their sums are added in shared memory. A row's bits depend neither on the tokens nor on the other rows.
//
// -DTOKENS: a multiple of 8, at most 32. -DPIECE_BYTES: of a piece's row, the width of the swizzle.
#pragma once
#include "common/common.cuh"

#define FEW_WARPS 4
#define FEW_THREADS (FEW_WARPS * 32)

// A warp's share of a piece of the tokens: of each 16 of them 16 inputs.
typedef u32 Tokens[(TOKENS + 15) / 16][4];

// What a thread has of COUNT rows by TOKENS tokens.
template <int COUNT>
struct Sums {
    float d[COUNT / 16][TOKENS / 8][4];
};

// Where a lane's row of 16 bytes is in a piece, for ldmatrix: the swizzle moves it by its row.
__device__ __forceinline__ u32 at_chunk(int row, int chunk) { return row * PIECE_BYTES + (chunk ^ row % 8) * 16; }

// This lane's place in a piece of W, and in one of the tokens.
__device__ __forceinline__ u32 lane_of_weights() {
    const int lane = threadIdx.x % 32, share = threadIdx.x / 32 * 2;
    return at_chunk(lane % 16, share + lane / 16);
}

__device__ __forceinline__ u32 lane_of_tokens() {
    const int lane = threadIdx.x % 32, share = threadIdx.x / 32 * 2;
    return at_chunk(lane / 16 * 8 + lane % 8, share + lane / 8 % 2);
}

// - at: a piece, and this lane's place in it; eights: of tokens, as far as there are any.
__device__ __forceinline__ void load(Tokens& x, u32 at, int eights) {
#pragma unroll
    for (int n = 0; n < (TOKENS + 15) / 16; n++)
        if (n * 2 < eights) ldmatrix4(x[n], at + n * 16 * PIECE_BYTES);
}

// Adds a piece's products.
template <int COUNT>
__device__ __forceinline__ void add_piece(Sums<COUNT>& sums, u32 at, const Tokens& x, int eights) {
#pragma unroll
    for (int m = 0; m < COUNT / 16; m++) {
        u32 w[4];
        ldmatrix4(w, at + m * 16 * PIECE_BYTES);
#pragma unroll
        for (int n = 0; n < TOKENS / 8; n++)
            if (n < eights) mma16816(sums.d[m][n], w, x[n / 2][n % 2 * 2], x[n / 2][n % 2 * 2 + 1]);
    }
}

__device__ __forceinline__ void sync_few() { asm volatile("bar.sync 1, %0;" ::"n"(FEW_THREADS) : "memory"); }

// Floats of the place where the warps' sums are added: [2][TOKENS][COUNT + 4]; 4 more: no bank conflicts.
template <int COUNT>
__host__ __device__ constexpr int joined_stride() { return COUNT + 4; }

// Adds the warps' sums up, to two parts. What was in `joined` has been read by whoever calls.
template <int COUNT>
__device__ __forceinline__ void join(float* joined, const Sums<COUNT>& sums) {
    constexpr int STRIDE = joined_stride<COUNT>();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float* own = joined + (warp % 2 * TOKENS + lane % 4 * 2) * STRIDE + lane / 4;
    sync_few();
    for (int half = 1; half >= 0; half--) {
        if (warp / 2 == half) {
#pragma unroll
            for (int m = 0; m < COUNT / 16; m++)
#pragma unroll
                for (int n = 0; n < TOKENS / 8; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        float& at = own[(n * 8 + i % 2) * STRIDE + m * 16 + i / 2 * 8];
                        at = half == 1 ? sums.d[m][n][i] : sums.d[m][n][i] + at;
                    }
        }
        sync_few();
    }
}

// The sums of a token and two neighbouring rows.
template <int COUNT>
__device__ __forceinline__ float2 joined2(const float* joined, int token, int row) {
    constexpr int STRIDE = joined_stride<COUNT>();
    const float2 a = *(const float2*)(joined + token * STRIDE + row);
    const float2 b = *(const float2*)(joined + (TOKENS + token) * STRIDE + row);
    return make_float2(a.x + b.x, a.y + b.y);
}
