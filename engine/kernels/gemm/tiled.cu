// out[M, N] = x[M, K] * W[N, K]^T (+ bias[N]) for many tokens M, where the tensor cores are the floor.
//
// Layouts: x `[tokens, inputs]`, W `[outputs, inputs]`, out `[tokens, outputs]`, row-major elem; inputs
// and outputs are multiples of 8. -DGATED: W is `[2 * outputs, inputs]`, gate rows then up rows, and
// out = silu(gate) * up, rounded once: neither is written, and no kernel has to read them again.
// Sums are f32, in the order of K. Floor: 2 * M * N * K operations at the tensor cores' rate, or, up to
// about 250 tokens, N * K * 2 bytes at the memory's.
//
// A tile of the result is 128 tokens by ROWS rows of W (gated: half gates, half ups): two warpgroups of
// 64 tokens. One thread asks the copy engine for pieces of 64 inputs (rows of 128 bytes, 128-byte
// swizzle) into a ring of STAGES in shared memory. Blocks are persistent: while one tile is written, the
// first pieces of the next arrive. Tiles are taken in groups of `group` rows of tiles, so that what is
// read at a time stays in the second-level cache. W's first pieces are asked for before grid_wait(),
// since weights don't depend on the kernel before.
//
// Blocks may work in pairs (clusters of two):
//   -DSHARED_WEIGHTS  neighbours along the tokens; each brings half of the rows of W for both. At many
//                     tokens a multiprocessor takes in all that it can: this halves the reads of W.
//   -DSPLIT_SUM       both have the same tile, and half of K each. At the end each gives the other the
//                     sums of 64 tokens. For long K and too few tiles to fill the GPU.
//
// -D: ROWS (a multiple of 16, 32..256), STAGES, [GATED], [SHARED_WEIGHTS or SPLIT_SUM].
//
// Launch: 384 threads; grid: any, with SHARED_WEIGHTS any even number, with SPLIT_SUM two blocks for each
// tile; shared memory: see tiled_matmul.rs. Maps, innermost first: W {inputs, rows of W} with boxes
// {64, ROWS / 2}; x {inputs, tokens} with boxes {64, 128}.
#define WIDTH ROWS
#include "common/wgmma.cuh"

// -DPIECE, -DPIECE_BYTES: inputs, and the width of the swizzle. -DRING_OFFSET: the barriers come first. -DTHREADS: a
// warpgroup that loads, two that multiply.
static_assert(PIECE * 2 == PIECE_BYTES && STAGES <= STAGES_MAX && STAGES * 16 <= RING_OFFSET, "rings");
#define X_BYTES (TILE_TOKENS * 128)
#define HALF_BYTES (ROWS / 2 * 128)
#define STAGE_BYTES (X_BYTES + 2 * HALF_BYTES)

#if defined(SHARED_WEIGHTS) || defined(SPLIT_SUM)
#define BLOCKS 2
#else
#define BLOCKS 1
#endif
#ifdef SHARED_WEIGHTS
#define SHARERS 2                 // blocks that read what one loads
#else
#define SHARERS 1
#endif

// Columns of the result in a tile, and those that a warp puts in order at a time before it writes them.
#ifdef GATED
#define COLUMNS (ROWS / 2)
#else
#define COLUMNS ROWS
#endif
#define STAGED (COLUMNS > 128 ? COLUMNS / 2 : COLUMNS)
#define STAGED_ROW (STAGED * 2 + 16)  // bytes; 16 more: no bank conflicts

struct Parameters {
    elem* out;
    const elem* bias;
    int tokens, outputs, inputs;
    // Rows of tiles (or of pairs that share weights) that are taken together.
    int group;
};

// === tiles ===

struct Tile {
    int token, column;
};

// The tiles of a product, in the order in which they are computed.
struct Tiles {
    int high, wide, group;

    __device__ __forceinline__ Tiles(const Parameters& in)
        : high((in.tokens + TILE_TOKENS * SHARERS - 1) / (TILE_TOKENS * SHARERS)),
          wide((in.outputs + COLUMNS - 1) / COLUMNS), group(in.group) {}
    __device__ __forceinline__ int count() const { return high * wide; }
    // - rank: of the block in its pair.
    __device__ __forceinline__ Tile at(int index, int rank) const {
        const int first = index / (group * wide) * group, rest = index - first * wide;
        const int height = min(group, high - first), row = first + rest % height;
        return {(SHARERS == 2 ? row * 2 + rank : row) * TILE_TOKENS, rest / height * COLUMNS};
    }
};

// The pieces of K that a block sums up.
struct Pieces {
    int first, count;

    __device__ __forceinline__ Pieces(int inputs, int rank) : first(0), count((inputs + PIECE - 1) / PIECE) {
#ifdef SPLIT_SUM
        const int half = (count + 1) / 2;
        first = rank * half;
        count = rank == 0 ? half : count - half;
#endif
    }
};

// === the ring ===

// Addresses of barriers and stages, in shared memory.
struct Ring {
    u32 full, empty, at;

    // Each multiplying warpgroup of each block that a stage is loaded for says when it is done with it.
    __device__ __forceinline__ void init() const {
        for (int s = 0; s < STAGES; s++) {
            barrier_init(full + s * 8, 1);
            barrier_init(empty + s * 8, 2 * SHARERS);
        }
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

// === pairs of blocks ===

__device__ __forceinline__ int rank_in_pair() {
#if BLOCKS == 2
    u32 rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
#else
    return 0;
#endif
}

// All threads of both blocks.
__device__ __forceinline__ void sync_pair() {
#if BLOCKS == 2
    asm volatile("barrier.cluster.arrive;\nbarrier.cluster.wait;" ::: "memory");
#else
    __syncthreads();
#endif
}

// The address, for stores, of the same place in another block of the pair.
__device__ __forceinline__ u32 address_in(u32 address, int rank) {
    u32 there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    return there;
}

// Without a scope: one that names the cluster costs a fence over all of memory, and what is said here,
// that the tensor cores have read a stage, needs none.
__device__ __forceinline__ void barrier_arrive_at(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ void tma_load2_for_both(u32 to, const TensorMap* map, int x, int y, u32 barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%3, "
        "%4}], [%2], %5;" ::"r"(to),
        "l"((u64)map), "r"(barrier), "r"(x), "r"(y), "h"((u16)3)
        : "memory");
}

// === loading ===

__device__ __forceinline__ void load_tokens(u32 stage, const TensorMap* map, int k, const Tile& tile, u32 full) {
    tma_load2(stage, map, k, tile.token, full);
}

// Both halves of the tile's rows of W, or the one that this block brings for both.
__device__ __forceinline__ void load_weights(u32 stage, const TensorMap* map, int k, const Tile& tile, int outputs,
                                             int rank, u32 full) {
#ifdef GATED
    const int first = tile.column, half = outputs;  // gates, then ups
#else
    const int first = tile.column, half = ROWS / 2;
#endif
    const u32 to = stage + X_BYTES;
#ifdef SHARED_WEIGHTS
    tma_load2_for_both(to + rank * HALF_BYTES, map, k, first + rank * half, full);
#else
    tma_load2(to, map, k, first, full);
    tma_load2(to + HALF_BYTES, map, k, first + half, full);
#endif
}

// By one thread: brings all pieces of all of the block's tiles, as stages come free.
__device__ __forceinline__ void load_all(const TensorMap* weights, const TensorMap* x, const Ring& ring,
                                         const Parameters& in, int rank) {
    const Tiles tiles(in);
    const Pieces pieces(in.inputs, rank);
    const int first = blockIdx.x / BLOCKS, step = gridDim.x / BLOCKS;
    if (first >= tiles.count()) return;

    // The ring is empty: W first, which may come before the kernel before has ended.
    const int ahead = min(STAGES, pieces.count);
    Tile tile = tiles.at(first, rank);
    for (int k = 0; k < ahead; k++) {
        barrier_expect(ring.full + k * 8, STAGE_BYTES);
        load_weights(ring.at + k * STAGE_BYTES, weights, (pieces.first + k) * PIECE, tile, in.outputs, rank,
                     ring.full + k * 8);
    }
    grid_wait();
    Position p;
    for (int k = 0; k < ahead; k++, p.advance())
        load_tokens(ring.at + k * STAGE_BYTES, x, (pieces.first + k) * PIECE, tile, ring.full + k * 8);

    int k = ahead;
    for (int index = first; index < tiles.count(); index += step, k = 0) {
        tile = tiles.at(index, rank);
        for (; k < pieces.count; k++, p.advance()) {
            const u32 full = ring.full + p.slot * 8, stage = ring.at + p.slot * STAGE_BYTES;
            barrier_wait(ring.empty + p.slot * 8, p.phase ^ 1);
            barrier_expect(full, STAGE_BYTES);
            load_tokens(stage, x, (pieces.first + k) * PIECE, tile, full);
            load_weights(stage, weights, (pieces.first + k) * PIECE, tile, in.outputs, rank, full);
        }
    }
}

// === multiplying ===

// Says, by one thread of a warpgroup for each block, that it is done with a stage.
__device__ __forceinline__ void free_stage(const Ring& ring, int slot) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    if (lane != 0 || warp >= SHARERS) return;
    const u32 empty = ring.empty + slot * 8;
    if (SHARERS == 2) {
        barrier_arrive_at(address_in(empty, warp));
    } else {
        barrier_arrive(empty);
    }
}

// d = the product of a warpgroup's 64 tokens and a tile's rows, over all pieces.
__device__ __forceinline__ void multiply_all(float (&d)[ROWS / 2], const Ring& ring, Position& p, int part, int pieces) {
    int before = -1;
#pragma unroll 1
    for (int piece = 0; piece < pieces; piece++, p.advance()) {
        barrier_wait(ring.full + p.slot * 8, p.phase);
        const u32 stage = ring.at + p.slot * STAGE_BYTES;
        const u64 a = wgmma_operand(stage + part * (64 * 128), 16, 1024);
        const u64 b = wgmma_operand(stage + X_BYTES, 16, 1024);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < PIECE / 16; k++) multiply(d, a + k * 2, b + k * 2, piece | k);  // they count in 16 bytes
        wgmma_commit();
        wgmma_wait<1>();  // all but these are done, and what they read is free
        if (before >= 0) free_stage(ring, before);
        before = p.slot;
    }
    wgmma_wait<0>();
    free_stage(ring, before);
}

#ifdef SPLIT_SUM
// Gives this warpgroup's sums to the other block, or adds those of the other block to them. Says whether
// the sums are whole now.
//
// - given: a barrier that 128 threads arrive at; exchange: 64 * ROWS floats. Both are used once.
__device__ __forceinline__ bool join_sums(float (&d)[ROWS / 2], u32 given, u32 exchange, int part, int rank) {
    const u32 own = exchange + threadIdx.x % 128 * 16;
    if (part != rank) {
        const u32 there = address_in(own, part);
#pragma unroll
        for (int i = 0; i < ROWS / 8; i++)
            asm volatile("st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(there + i * 2048), "f"(d[i * 4]),
                         "f"(d[i * 4 + 1]), "f"(d[i * 4 + 2]), "f"(d[i * 4 + 3])
                         : "memory");
        asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(address_in(given, part))
                     : "memory");
        return false;
    }
    asm volatile(
        "{\n.reg .pred P;\n"
        "WAIT:\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 P, [%0], 0;\n@P bra DONE;\nbra WAIT;\nDONE:\n}" ::"r"(
            given)
        : "memory");
#pragma unroll
    for (int i = 0; i < ROWS / 8; i++) {
        float4 other;
        asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                     : "=f"(other.x), "=f"(other.y), "=f"(other.z), "=f"(other.w)
                     : "r"(own + i * 2048));
        d[i * 4] += other.x, d[i * 4 + 1] += other.y, d[i * 4 + 2] += other.z, d[i * 4 + 3] += other.w;
    }
    return true;
}
#endif

// === results ===

__device__ __forceinline__ float gated(float gate, float up) { return __fdividef(gate, 1.0f + __expf(-gate)) * up; }

// Two neighbouring results, of sums `i` and `i + 1`, which are in column `n`.
__device__ __forceinline__ u32 result2(const float (&d)[ROWS / 2], int i, const Parameters& in, int n) {
#ifdef GATED
    return pack2(gated(d[i], d[ROWS / 4 + i]), gated(d[i + 1], d[ROWS / 4 + i + 1]));
#else
    float2 bias = make_float2(0.0f, 0.0f);
    if (in.bias && n < in.outputs) bias = unpack2(*(const u32*)(in.bias + n));
    return pack2(d[i] + bias.x, d[i + 1] + bias.y);
#endif
}

// Writes what a warp has of a tile: 16 tokens. They pass through shared memory, at `staged`, so that
// whole lines are written.
__device__ __forceinline__ void store(const float (&d)[ROWS / 2], const Parameters& in, int token, int column,
                                      u32 staged) {
    const int lane = threadIdx.x % 32;
    const u32 put = staged + lane % 16 * STAGED_ROW + lane / 16 * 16;
#pragma unroll
    for (int c = 0; c < COLUMNS; c += STAGED) {
        __syncwarp();
#pragma unroll
        for (int j = 0; j < STAGED / 8; j += 2) {
            u32 v[4];  // of columns j * 8 tokens 0 and 8 on, of the next 8 columns the same
#pragma unroll
            for (int q = 0; q < 4; q++) {
                const int n = c + (j + q / 2) * 8;
                v[q] = result2(d, n / 2 + q % 2 * 2, in, column + n + lane % 4 * 2);
            }
            asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(put + j * 16),
                         "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3])
                         : "memory");
        }
        __syncwarp();
#pragma unroll
        for (int i = 0; i < STAGED / 16; i++) {
            const int vector = i * 32 + lane, row = vector / (STAGED / 8), n = vector % (STAGED / 8) * 8;
            uint4 v;
            asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                         : "r"(staged + row * STAGED_ROW + n * 2)
                         : "memory");
            if (token + row < in.tokens && column + c + n < in.outputs)
                *(uint4*)(in.out + (u64)(token + row) * in.outputs + column + c + n) = v;
        }
    }
}

// === the kernel ===

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    tiled_matmul(const __grid_constant__ TensorMap weights, const __grid_constant__ TensorMap x, elem* out,
                 const elem* bias, int tokens, int outputs, int inputs, int group) {
    extern __shared__ __align__(1024) u8 memory[];
    grid_launch();
    const Parameters in = {out, bias, tokens, outputs, inputs, group};
    const int warp = threadIdx.x / 32, rank = rank_in_pair();
    const u32 base = shared_address(memory), given = base + STAGES * 16;
    const Ring ring = {base, base + STAGES * 8, base + RING_OFFSET};
    if (threadIdx.x == 0) {
        prefetch_map(&weights);
        prefetch_map(&x);
        ring.init();
        barrier_init(given, 128);
        barrier_init_fence();
    }
    sync_pair();

    if (warp < 4) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 0) load_all(&weights, &x, ring, in, rank);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        const Tiles tiles(in);
        const Pieces pieces(inputs, rank);
        const int part = warp / 4 - 1;
        u32 staged = ring.at + STAGES * STAGE_BYTES;
        Position p;
        float d[ROWS / 2];
        for (int index = blockIdx.x / BLOCKS; index < tiles.count(); index += gridDim.x / BLOCKS) {
            const Tile tile = tiles.at(index, rank);
            multiply_all(d, ring, p, part, pieces.count);
#ifdef SPLIT_SUM
            if (!join_sums(d, given, staged, part, rank)) break;  // the only tile of this pair
            staged += 64 * ROWS * 4;
            const int writer = warp % 4;
#else
            const int writer = warp - 4;
#endif
            store(d, in, tile.token + part * 64 + warp % 4 * 16, tile.column, staged + writer * (16 * STAGED_ROW));
        }
    }
    // No block ends while the other may still write to its memory or arrive at its barriers.
    if (BLOCKS == 2) sync_pair();
}
