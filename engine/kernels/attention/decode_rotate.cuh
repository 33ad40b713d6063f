// The first part of decode attention where nothing was rotated before: a row's queries and its newest key are normed
// and rotated where they are used, and that key and its value are written to their page. So no kernel of its own has
// to, which takes 2 to 3 us a layer. Included by decode.cu, whose constants and `Tail` it uses.
#pragma once
#include "common/common.cuh"

// An element's partner, half a head away, is in the same lane of a fragment.
constexpr bool ROTATES = HEAD_DIM % 32 == 0;
constexpr int HALF = HEAD_DIM / 2;
constexpr int HALF_STEPS = ROTATES ? STEPS / 2 : 1;

// Asks for a position's angles before they are needed.
__device__ __forceinline__ void prefetch_angles(const Rotation& in, int position) {
    const int lane = threadIdx.x % 32, at = lane / 2 * 32;
    const float* row = (lane % 2 ? in.sin : in.cos) + (i64)position * HALF + at;
    if (at < HALF) asm volatile("prefetch.global.L1 [%0];" ::"l"(row));
}

// Norms a lane's part of some heads, which lie in four lanes each.
__device__ __forceinline__ void norm_queries(Queries& q, const Rotation& in) {
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
        float squares = 0.0f;
#pragma unroll
        for (int s = 0; s < STEPS; s++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const float2 x = unpack2(q[s][c][i]);
                squares = fmaf(x.x, x.x, fmaf(x.y, x.y, squares));
            }
        squares += __shfl_xor_sync(0xffffffffu, squares, 1);
        squares += __shfl_xor_sync(0xffffffffu, squares, 2);
        const float scale = rsqrtf(squares * (1.0f / HEAD_DIM) + in.q_eps);
#pragma unroll
        for (int s = 0; s < STEPS; s++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const float2 x = unpack2(q[s][c][i]);
                const float2 w = unpack2(*(const u32*)(in.q_norm + s * 16 + i * 8 + threadIdx.x % 4 * 2));
                q[s][c][i] = pack2(x.x * scale * w.x, x.y * scale * w.y);
            }
    }
}

__device__ __forceinline__ void rotate_queries(Queries& q, const Rotation& in, int position) {
    if (in.q_norm) norm_queries(q, in);
    const i64 at = (i64)position * HALF + threadIdx.x % 4 * 2;
#pragma unroll
    for (int s = 0; s < HALF_STEPS; s++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float2 cos = __ldg((const float2*)(in.cos + at + s * 16 + i * 8));
            const float2 sin = __ldg((const float2*)(in.sin + at + s * 16 + i * 8));
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) {
                const float2 lo = unpack2(q[s][c][i]), hi = unpack2(q[s + HALF_STEPS][c][i]);
                q[s][c][i] = pack2(lo.x * cos.x - hi.x * sin.x, lo.y * cos.y - hi.y * sin.y);
                q[s + HALF_STEPS][c][i] = pack2(hi.x * cos.x + lo.x * sin.x, hi.y * cos.y + lo.y * sin.y);
            }
        }
}

__device__ __forceinline__ Floats8 floats8(const float* from) {
    const float4 a = __ldg((const float4*)from), b = __ldg((const float4*)from + 1);
    return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

// What a lane has of a row's newest key and value: 8 elements of each half of the key, 8 of the value.
struct Newest {
    uint4 low, high, value;

    // - key: of this head in the row; values lie `to_value` elements behind.
    __device__ __forceinline__ void load(const elem* key, int to_value) {
        const int lane = threadIdx.x % 32;
        low = high = value = make_uint4(0, 0, 0, 0);
        if (lane < PIECES / 2) {
            low = __ldcg((const uint4*)key + lane);
            high = __ldcg((const uint4*)key + PIECES / 2 + lane);
        }
        if (lane < PIECES) value = __ldcg((const uint4*)(key + to_value) + lane);
    }

    // All lanes of the warp take part.
    __device__ __forceinline__ void rotate(const Rotation& in, int position) {
        const int lane = threadIdx.x % 32, element = lane * 8;
        Floats8 lo = widen(low), hi = widen(high);
        if (in.k_norm) {
            float squares = 0.0f;
#pragma unroll
            for (int i = 0; i < 8; i++) squares = fmaf(lo.x[i], lo.x[i], fmaf(hi.x[i], hi.x[i], squares));
            const float scale = rsqrtf(warp_sum(squares) * (1.0f / HEAD_DIM) + in.k_eps);
            if (lane < PIECES / 2) {
                const Floats8 a = widen(*(const uint4*)(in.k_norm + element));
                const Floats8 b = widen(*(const uint4*)(in.k_norm + HALF + element));
#pragma unroll
                for (int i = 0; i < 8; i++) lo.x[i] *= scale * a.x[i], hi.x[i] *= scale * b.x[i];
            }
        }
        if (lane >= PIECES / 2) return;
        const i64 at = (i64)position * HALF + element;
        const Floats8 cos = floats8(in.cos + at), sin = floats8(in.sin + at);
        Floats8 a, b;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            a.x[i] = lo.x[i] * cos.x[i] - hi.x[i] * sin.x[i];
            b.x[i] = hi.x[i] * cos.x[i] + lo.x[i] * sin.x[i];
        }
        low = narrow(a), high = narrow(b);
    }

    // - key, value: the token's, PIECES long.
    __device__ __forceinline__ void store(uint4* key, uint4* at_value) const {
        const int lane = threadIdx.x % 32;
        if (lane < PIECES / 2) key[lane] = low, key[PIECES / 2 + lane] = high;
        if (lane < PIECES) at_value[lane] = value;
    }
};

// Takes the newest token of a row to its page, and to this warp's place in shared memory.
__device__ __forceinline__ void write_newest(Tail& tail, Newest& newest, int row, int kv_head, int position,
                                             const Parameters& in) {
    newest.rotate(in.rotation, position);
    const i64 block = in.tables[(i64)row * in.table_stride + position / BLOCK_TOKENS];
    const i64 at = ((block * 2 * in.kv_heads + kv_head) * BLOCK_TOKENS + position % BLOCK_TOKENS) * HEAD_DIM;
    elem* key = in.pages + at;
    newest.store((uint4*)key, (uint4*)(key + (i64)in.kv_heads * BLOCK_TOKENS * HEAD_DIM));
    uint4(*own)[PIECES] = tail.newest[threadIdx.x / 32];
    newest.store(own[0], own[1]);
}

// Lays it into a tile that was loaded without it.
__device__ __forceinline__ void lay_newest(u8* stage, const Tail& tail, int token) {
    const int lane = threadIdx.x % 32;
    const uint4(*own)[PIECES] = tail.newest[threadIdx.x / 32];
    if (lane < PIECES) {
        *(uint4*)(stage + at_piece(token, lane)) = own[0][lane];
        *(uint4*)(stage + HALF_BYTES + at_piece(token, lane)) = own[1][lane];
    }
    __syncwarp();
}
