// out[M, N] = x[M, K] * W[N, K]^T (+ bias[N]) for more tokens M than `skinny_matmul.cu` is for.
//
// Layouts: x `[tokens, inputs]`, W `[outputs, inputs]`, out `[tokens, outputs]`, row-major elem.
// -DOUT_F32: out is f32 (logits). -DGATED: W is `[2 * outputs, inputs]`, gate rows then up rows, and
// out = silu(gate) * up, rounded once. Sums are f32, in the order of K within each of SPLITS parts, whose
// sums are added in their order.
// Floor: the greater of N * K * 2 bytes / memory bandwidth and 2 * M * N * K / the tensor cores' rate;
// they meet at about 260 tokens.
//
// A block multiplies a tile of TOKENS = GROUPS * DEEP * 64 tokens by ROWS rows of W (gated: half of them
// gates, half ups), a piece of 64 inputs (128 bytes, swizzled) at a time. One thread asks the copy engine
// for the pieces; GROUPS warpgroups multiply, DEEP times 64 tokens each. What binds between 65 and 512
// tokens is what the second-level cache can give, for each tile reads its x and its W again: so blocks of
// a cluster share. TOKEN_SHARERS blocks are neighbours along the outputs, read the same x, and each asks
// for its part of it on behalf of all; ROW_SHARERS are neighbours along the tokens and share W alike.
// SPLITS blocks have the same tile and a part of K each: where tiles are few, that gives all
// multiprocessors work with no smaller tiles, which would need more bytes per product. Their sums meet
// in shared memory, each block adding up a part of the tile.
//
// W's first pieces are asked for before grid_wait(): weights don't depend on the kernel before.
//
// -D: ROWS (16..256, a multiple of 16, gated of 32), GROUPS (1..3), DEEP (1, 2), STAGES, TOKEN_SHARERS
// (divides TOKENS / 8), ROW_SHARERS (1, 2), SPLITS, [GATED], [OUT_F32].
//
// Launch: a cluster has TOKEN_SHARERS * ROW_SHARERS * SPLITS blocks; block GROUPS * 128 + 128; grid {any
// number of clusters, 1, 1}, where SPLITS > 1 as many as there are tiles to be shared: ceil(tokens / (TOKENS
// * ROW_SHARERS)) * ceil(outputs / (outputs of a tile * TOKEN_SHARERS)). Shared 1024 + STAGES * (TOKENS +
// ROWS) * 128, where SPLITS > 1 at least 1024 + TOKENS * ROWS * 4. Maps, innermost first: W {inputs, rows of
// W} with boxes {64, ROWS / max(ROW_SHARERS, gated ? 2 : 1)}; x {inputs, tokens} with boxes {64, TOKENS /
// TOKEN_SHARERS}.
#include "common.cuh"
#include "wgmma.cuh"

#ifndef ROWS
#define ROWS 128
#endif
#ifndef GROUPS
#define GROUPS 2
#endif
#ifndef DEEP
#define DEEP 1
#endif
#ifndef STAGES
#define STAGES 4
#endif
#ifndef TOKEN_SHARERS
#define TOKEN_SHARERS 1
#endif
#ifndef ROW_SHARERS
#define ROW_SHARERS 1
#endif
#ifndef SPLITS
#define SPLITS 1
#endif

#ifndef SPARE
#define SPARE 40
#endif

#define PIECE 64          // inputs: 128 bytes, the width of the swizzle
#define RING_OFFSET 1024  // the barriers come first
#define TOKENS (GROUPS * DEEP * 64)
#define THREADS (GROUPS * 128 + 128)
#define CLUSTER (TOKEN_SHARERS * ROW_SHARERS * SPLITS)
#define SHARERS (TOKEN_SHARERS + ROW_SHARERS - 1)   // blocks that read what this one asks for
#define X_BYTES (TOKENS * 128)
#define STAGE_BYTES (X_BYTES + ROWS * 128)
#ifdef GATED
#define PARTS 2   // rows of W for an output
#else
#define PARTS 1
#endif
#define TILE_OUTPUTS (ROWS / PARTS)
#define CHUNKS (ROWS / 8)                // a thread's sums of eight rows of W: of two tokens, two each
#define PAIRS (TILE_OUTPUTS / 16)        // of chunks of outputs

// === clusters ===

__device__ __forceinline__ u32 cluster_rank() {
    u32 rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// The address of `address` in another block of the cluster.
__device__ __forceinline__ u32 address_in(u32 address, u32 rank) {
    u32 there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    return there;
}

__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

__device__ __forceinline__ void arrive_in(u32 barrier) {
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ float4 load_in(u32 address) {
    float4 v;
    asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(address)
                 : "memory");
    return v;
}

// A box for all blocks in `mask`, at the same place in each, with word to the same barrier in each.
__device__ __forceinline__ void load_box(u32 to, const TensorMap* map, int x, int y, u32 barrier, u16 mask,
                                         bool shared) {
    if (shared) {
        asm volatile(
            "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
            "[%1, {%3, %4}], [%2], %5;" ::"r"(to),
            "l"((u64)map), "r"(barrier), "r"(x), "r"(y), "h"(mask)
            : "memory");
    } else {
        tma_load2(to, map, x, y, barrier);
    }
}

// This block's place in its cluster.
struct Place {
    u32 rank, split, along_tokens, along_rows;
    __device__ __forceinline__ Place() {
        rank = CLUSTER > 1 ? cluster_rank() : 0;
        along_rows = rank % TOKEN_SHARERS;
        along_tokens = rank / TOKEN_SHARERS % ROW_SHARERS;
        split = rank / (TOKEN_SHARERS * ROW_SHARERS);
    }
    // The blocks that share x with this one, itself among them, then the others that share W.
    __device__ __forceinline__ u32 sharer(u32 i) const {
        if (i < TOKEN_SHARERS) return rank - along_rows + i;
        const u32 other = i - TOKEN_SHARERS;
        return rank + ((other >= along_tokens ? other + 1 : other) - along_tokens) * TOKEN_SHARERS;
    }
    __device__ __forceinline__ u16 token_mask() const {
        return (u16)(((1u << TOKEN_SHARERS) - 1) << (rank - along_rows));
    }
    __device__ __forceinline__ u16 row_mask() const {
        u32 mask = 0;
        for (int i = 0; i < ROW_SHARERS; i++) mask |= 1u << (i * TOKEN_SHARERS);
        return (u16)(mask << (rank - along_tokens * TOKEN_SHARERS));
    }
};

// === tiles ===

// The tiles in the order of computation: `group` of them along the tokens, then the next rows of W, so
// that what is computed at a time reads little that is not in the second-level cache.
struct Tiles {
    int high, wide, group;
    __device__ __forceinline__ Tiles(int tokens, int outputs, int group) : group(group) {
        high = (tokens + TOKENS * ROW_SHARERS - 1) / (TOKENS * ROW_SHARERS);
        wide = (outputs + TILE_OUTPUTS * TOKEN_SHARERS - 1) / (TILE_OUTPUTS * TOKEN_SHARERS);
    }
    __device__ __forceinline__ void find(int i, const Place& place, int& token, int& row) const {
        const int band = i / (group * wide), within = i - band * group * wide;
        const int height = min(group, high - band * group);
        token = ((band * group + within % height) * ROW_SHARERS + place.along_tokens) * TOKENS;
        row = (within / height * TOKEN_SHARERS + place.along_rows) * TILE_OUTPUTS;
    }
};

// Where a walk around the ring is.
struct Position {
    int slot = 0;
    u32 phase = 0;
    __device__ __forceinline__ void advance() {
        if (++slot == STAGES) slot = 0, phase ^= 1;
    }
};

__device__ __forceinline__ u32 full(u32 base, int slot) { return base + slot * 8; }
__device__ __forceinline__ u32 empty(u32 base, int slot) { return base + (STAGES + slot) * 8; }
__device__ __forceinline__ u32 stage(u32 base, int slot) { return base + RING_OFFSET + slot * STAGE_BYTES; }

// === loading ===

__device__ __forceinline__ void load_weights(const TensorMap* map, u32 base, int slot, int k, int row,
                                             int outputs, const Place& place) {
    const u32 to = stage(base, slot) + X_BYTES, barrier = full(base, slot);
#ifdef GATED
#if ROW_SHARERS > 1
    load_box(to + place.along_tokens * (ROWS / 2 * 128), map, k, row + place.along_tokens * outputs, barrier,
             place.row_mask(), true);
#else
    tma_load2(to, map, k, row, barrier);
    tma_load2(to + ROWS / 2 * 128, map, k, outputs + row, barrier);
#endif
#else
    const int part = place.along_tokens * (ROWS / ROW_SHARERS);
    load_box(to + part * 128, map, k, row + part, barrier, place.row_mask(), ROW_SHARERS > 1);
#endif
}

__device__ __forceinline__ void load_tokens(const TensorMap* map, u32 base, int slot, int k, int token,
                                            const Place& place) {
    const int part = place.along_rows * (TOKENS / TOKEN_SHARERS);
    load_box(stage(base, slot) + part * 128, map, k, token + part, full(base, slot), place.token_mask(),
             TOKEN_SHARERS > 1);
}

// `first`, `pieces`: this block's part of K, in pieces.
__device__ __forceinline__ void load_all(const TensorMap* weights, const TensorMap* x, u32 base,
                                         const Tiles& tiles, const Place& place, int outputs, int first,
                                         int pieces) {
    const int clusters = gridDim.x / CLUSTER, early = min(STAGES, pieces);
    int tile = blockIdx.x / CLUSTER, token, row;
    if (tile >= tiles.high * tiles.wide) return;
    tiles.find(tile, place, token, row);
    for (int s = 0; s < early; s++) {
        barrier_expect(full(base, s), STAGE_BYTES);
        load_weights(weights, base, s, (first + s) * PIECE, row, outputs, place);
    }
    grid_wait();
    Position p;
    for (int s = 0; s < early; s++, p.advance()) load_tokens(x, base, s, (first + s) * PIECE, token, place);
    int s = early;
    for (;;) {
        for (; s < pieces; s++, p.advance()) {
            barrier_wait(empty(base, p.slot), p.phase ^ 1);
            barrier_expect(full(base, p.slot), STAGE_BYTES);
            load_weights(weights, base, p.slot, (first + s) * PIECE, row, outputs, place);
            load_tokens(x, base, p.slot, (first + s) * PIECE, token, place);
        }
        tile += clusters;
        if (tile >= tiles.high * tiles.wide) return;
        tiles.find(tile, place, token, row);
        s = 0;
    }
}

// === multiplying ===

// d[64 tokens x ROWS] += a[64 x 16] * b[ROWS x 16]^T; both in shared memory.
__device__ __forceinline__ void multiply(float (&d)[ROWS / 2], u64 a, u64 b) {
    asm volatile("{\n.reg .pred p;\nsetp.eq.u32 p, 0, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n" TEXT(ROWS) "k16.f32." MMA_TYPE "." MMA_TYPE
                 " {" JOIN(REGISTERS_, ROWS) "}, %0, %1, p, 1, 1, 0, 0;\n}"
                 : "+l"(a), "+l"(b), JOIN(SUMS_, ROWS));
}

// `leaves`: where this lane says that the block has done with a slot: a sharer's barriers.
__device__ __forceinline__ void multiply_all(float (&d)[DEEP][ROWS / 2], u32 base, Position& p, int pieces,
                                             u32 leaves) {
    const u32 own = threadIdx.x / 128 * (DEEP * 64 * 128);
    const bool says = threadIdx.x % 32 < SHARERS;
    int before = -1;
    for (int s = 0; s < pieces; s++) {
        barrier_wait(full(base, p.slot), p.phase);
        const u64 a = wgmma_operand(stage(base, p.slot) + own, 16, 1024);
        const u64 b = wgmma_operand(stage(base, p.slot) + X_BYTES, 16, 1024);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < PIECE / 16; k++)
#pragma unroll
            for (int m = 0; m < DEEP; m++)   // descriptors count in 16 bytes
                multiply(d[m], a + m * (64 * 8) + k * 2, b + k * 2);
        wgmma_commit();
        wgmma_wait<1>();   // all but these are done, and what they read is free
        if (before >= 0 && says) arrive_in(empty(leaves, before));
        before = p.slot;
        p.advance();
    }
    wgmma_wait<0>();
    if (before >= 0 && says) arrive_in(empty(leaves, before));
}

// === results ===

__device__ __forceinline__ float gated(float gate, float up) { return gate / (1.0f + __expf(-gate)) * up; }

__device__ __forceinline__ float4 gated4(const float4& gate, const float4& up) {
    return make_float4(gated(gate.x, up.x), gated(gate.y, up.y), gated(gate.z, up.z), gated(gate.w, up.w));
}

// Exchanges what lane k of a quad has in v[q] with what lane q has in v[k].
__device__ __forceinline__ void transpose_quad(u32 (&v)[4]) {
    const bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const u32 got = __shfl_xor_sync(0xffffffffu, odd ? v[i] : v[i + 1], 1);
        odd ? v[i] = got : v[i + 1] = got;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const u32 got = __shfl_xor_sync(0xffffffffu, high ? v[i] : v[i + 2], 2);
        high ? v[i] = got : v[i + 2] = got;
    }
}

// Writes 16 columns from `n` of a warp's 16 tokens. A thread has of each eight columns two, of the tokens
// `token` and `token + 8`; it writes, but for f32, eight columns of one.
__device__ __forceinline__ void store(void* out, const elem* bias, float4 a, float4 b, int token, int n,
                                      int tokens, int outputs) {
    const int lane = threadIdx.x % 4;
    if (bias) {
        float2 more[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int at = n + i * 8 + lane * 2;
            more[i].x = at < outputs ? to_f32(bias[at]) : 0.0f;
            more[i].y = at + 1 < outputs ? to_f32(bias[at + 1]) : 0.0f;
        }
        a.x += more[0].x, a.y += more[0].y, a.z += more[0].x, a.w += more[0].y;
        b.x += more[1].x, b.y += more[1].y, b.z += more[1].x, b.w += more[1].y;
    }
#ifdef OUT_F32
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int at = n + i % 2 * 8 + lane * 2, t = token + i / 2 * 8;
        const float4& c = i % 2 ? b : a;
        const float2 v = i / 2 ? make_float2(c.z, c.w) : make_float2(c.x, c.y);
        float* to = (float*)out + (u64)t * outputs + at;
        if (t >= tokens || at >= outputs) continue;
        if (outputs % 2 == 0) {
            *(float2*)to = v;
        } else {
            to[0] = v.x;
            if (at + 1 < outputs) to[1] = v.y;
        }
    }
#else
    u32 v[4] = {pack2(a.x, a.y), pack2(b.x, b.y), pack2(a.z, a.w), pack2(b.z, b.w)};
    transpose_quad(v);
    n += lane % 2 * 8;
    token += lane / 2 * 8;
    if (token >= tokens || n >= outputs) return;
    elem* to = (elem*)out + (u64)token * outputs + n;
    if (outputs % 8 == 0) {
        *(uint4*)to = make_uint4(v[0], v[1], v[2], v[3]);
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (n + i < outputs) to[i] = (elem)(v[i / 2] >> (i % 2 * 16));
    }
#endif
}

__device__ __forceinline__ float4 chunk(const float (&d)[ROWS / 2], int i) {
    return make_float4(d[i * 4], d[i * 4 + 1], d[i * 4 + 2], d[i * 4 + 3]);
}

// Of the tile's tokens, the first of the two of which this thread has sums `m`.
__device__ __forceinline__ int own_token(int m) {
    return (threadIdx.x / 128 * DEEP + m) * 64 + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
}

__device__ __forceinline__ void store_all(void* out, const elem* bias, const float (&d)[DEEP][ROWS / 2],
                                          int token, int row, int tokens, int outputs) {
#pragma unroll
    for (int m = 0; m < DEEP; m++)
#pragma unroll
        for (int i = 0; i < PAIRS; i++) {
            float4 a = chunk(d[m], 2 * i), b = chunk(d[m], 2 * i + 1);
#ifdef GATED
            a = gated4(a, chunk(d[m], CHUNKS / 2 + 2 * i));
            b = gated4(b, chunk(d[m], CHUNKS / 2 + 2 * i + 1));
#endif
            store(out, bias, a, b, token + own_token(m), row + i * 16, tokens, outputs);
        }
}

#if SPLITS > 1
// Where chunk `i` of a thread's sums `m` lies while the blocks add up.
__device__ __forceinline__ u32 chunk_at(u32 base, int m, int i) {
    return base + RING_OFFSET + ((m * CHUNKS + i) * (GROUPS * 128) + threadIdx.x) * 16;
}

__device__ __forceinline__ float4 sum_chunks(u32 base, const Place& place, int m, int i) {
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    float4 v[SPLITS];
    const u32 first = place.rank - place.split * (TOKEN_SHARERS * ROW_SHARERS);
#pragma unroll
    for (int s = 0; s < SPLITS; s++)
        v[s] = load_in(address_in(chunk_at(base, m, i), first + s * (TOKEN_SHARERS * ROW_SHARERS)));
#pragma unroll
    for (int s = 0; s < SPLITS; s++) sum.x += v[s].x, sum.y += v[s].y, sum.z += v[s].z, sum.w += v[s].w;
    return sum;
}

// Leaves this block's sums where the others can read them. All pieces have come and been used.
__device__ __forceinline__ void leave_sums(u32 base, const float (&d)[DEEP][ROWS / 2]) {
    asm volatile("bar.sync 1, %0;" ::"n"(GROUPS * 128) : "memory");
#pragma unroll
    for (int m = 0; m < DEEP; m++)
#pragma unroll
        for (int i = 0; i < CHUNKS; i++)
            asm volatile("st.shared.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(chunk_at(base, m, i)), "f"(d[m][i * 4]),
                         "f"(d[m][i * 4 + 1]), "f"(d[m][i * 4 + 2]), "f"(d[m][i * 4 + 3])
                         : "memory");
}

__device__ __forceinline__ void store_summed(void* out, const elem* bias, u32 base, const Place& place,
                                             int token, int row, int tokens, int outputs) {
    for (int u = place.split; u < DEEP * PAIRS; u += SPLITS) {
        const int m = u / PAIRS, i = u % PAIRS;
        float4 a = sum_chunks(base, place, m, 2 * i), b = sum_chunks(base, place, m, 2 * i + 1);
#ifdef GATED
        a = gated4(a, sum_chunks(base, place, m, CHUNKS / 2 + 2 * i));
        b = gated4(b, sum_chunks(base, place, m, CHUNKS / 2 + 2 * i + 1));
#endif
        store(out, bias, a, b, token + own_token(m), row + i * 16, tokens, outputs);
    }
}
#endif

// === the kernel ===

template <bool MORE, int REGISTERS>
__device__ __forceinline__ void set_registers() {
#if GROUPS > 1
    if (MORE) asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
    else asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
#endif
}

// group: shared tiles along the tokens that are computed before the next along the rows.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    tiled_matmul(const __grid_constant__ TensorMap weights, const __grid_constant__ TensorMap x, void* out,
                 const elem* bias, int tokens, int outputs, int inputs, int group) {
    extern __shared__ __align__(1024) u8 memory[];
    grid_launch();
    const u32 base = shared_address(memory);
    if (threadIdx.x == 0) {
        prefetch_map(&weights);
        prefetch_map(&x);
        for (int s = 0; s < STAGES; s++) {
            barrier_init(full(base, s), 1);
            barrier_init(empty(base, s), GROUPS * 4 * SHARERS);
        }
        barrier_init_fence();
    }
    if (CLUSTER > 1) cluster_sync();
    else __syncthreads();

    const Place place;
    const Tiles tiles(tokens, outputs, group);
    const int all = (inputs + PIECE - 1) / PIECE, most = (all + SPLITS - 1) / SPLITS;
    const int first = place.split * most, pieces = max(0, min(most, all - first));
    if (threadIdx.x >= GROUPS * 128) {
        set_registers<false, SPARE>();
        if (threadIdx.x == GROUPS * 128)
            load_all(&weights, &x, base, tiles, place, outputs, first, pieces);
        __syncwarp();
#if SPLITS > 1
        cluster_sync();
#endif
    } else {
        set_registers<true, GROUPS == 3 ? (SPARE == 24 ? 160 : 152) : (SPARE == 24 ? 240 : 232)>();
        const u32 lane = threadIdx.x % 32;
        const u32 leaves = CLUSTER > 1 && lane < SHARERS ? address_in(base, place.sharer(lane)) : base;
        Position p;
        for (int tile = blockIdx.x / CLUSTER; tile < tiles.high * tiles.wide; tile += gridDim.x / CLUSTER) {
            float d[DEEP][ROWS / 2];
#pragma unroll
            for (int i = 0; i < DEEP * ROWS / 2; i++) d[i / (ROWS / 2)][i % (ROWS / 2)] = 0.0f;
            multiply_all(d, base, p, pieces, leaves);
            int token, row;
            tiles.find(tile, place, token, row);
#if SPLITS > 1
            leave_sums(base, d);
            cluster_sync();
            store_summed(out, bias, base, place, token, row, tokens, outputs);
#else
            store_all(out, bias, d, token, row, tokens, outputs);
#endif
        }
    }
    // No block ends while another may still read its memory or arrive at its barriers.
    if (CLUSTER > 1) cluster_sync();
}
