// Causal attention of packed prompt rows over the paged KV pool, for Hopper (sm_90a).
//
//   s[r, k] = scale * dot(q[r], K[k])          for k in max(0, p + 1 - window) ..= p, p = position of r
//   out[r]  = sum_k softmax(s[r])[k] * V[k]
//
// Keys and values come from the pool alone: this step's were written before, so a cached prefix, a chunk
// of a prompt and a whole prompt are the same case.
//
// qkv: [rows, row_stride], queries first; out: [rows, heads * HEAD_DIM]; pool: pages of
// [2][kv_heads][BLOCK_TOKENS][HEAD_DIM].
//
// A tile is 64 * CONSUMERS query rows against all their keys, TILE_KEYS at a time from the last to the
// first. Its rows are PACK query heads of one KV head by 64 * CONSUMERS / PACK tokens, so that short
// chunks of grouped heads still fill it. Key tiles begin at multiples of TILE_KEYS whatever the tile's
// rows, and a key that a row doesn't see leaves its sums untouched: a row's bits don't depend on how its
// prompt was cut or packed.
//
// One warp feeds rings of K and V tiles through the copy engine, page by page. Each consumer warpgroup
// owns 64 rows: it starts the scores of the next key tile, then the product of the last probabilities
// with V, and computes the softmax of the new scores while the latter runs. The warpgroups take turns at
// the tensor cores, so that one's softmax hides behind the other's products.
//
// Floor: 4 * HEAD_DIM flops for each pair of row and key seen, at the rate of the tensor cores; the
// exponentials take half as many cycles and hide behind them.
//
// Blocks take tiles from a list, which the host sorts longest first, through a counter that the last
// block sets back to zero.
//
// Where few rows meet many keys there are fewer tiles than blocks: then a tile's keys are divided among several,
// which leave their sums as they are, and a second kernel puts them together.
//
// Measured on an H100 under its power limit, 32 / 8 heads of 128, causal, one prompt, TFLOP/s (cuDNN on
// contiguous keys and values in the same minutes): 1k 336 (273), 2k 493 (384), 8k 604 (519), 16k 626 (550).
// 160 keys a tile gain 2 % from 8k on and lose 6 % at 1k. Half the loads changed nothing, and an earlier
// version lost a quarter at 8k when two blocks of a cluster shared theirs: they have to run in step.

#include "common/common.cuh"

#ifndef HEAD_DIM
#define HEAD_DIM 128
#endif
#ifndef BLOCK_TOKENS
#define BLOCK_TOKENS 16
#endif
#ifndef PACK
#define PACK 1
#endif

// -DTILE_KEYS: taken at a time. -DSTAGES, -DQUERY_STAGES: tiles in flight of keys and of values, and of queries.
// -DCONSUMERS: warpgroups that compute, of WARPGROUP_ROWS query rows each.
constexpr int HALVES = HEAD_DIM / 64;
constexpr int PAGES = TILE_KEYS / BLOCK_TOKENS;
constexpr int TOKENS = WARPGROUP_ROWS / PACK;  // query tokens of a warpgroup
constexpr int Q_BYTES = WARPGROUP_ROWS * HEAD_DIM * 2;
constexpr int KV_BYTES = TILE_KEYS * HEAD_DIM * 2;
// A page arrives as [BLOCK_TOKENS / 8][HALVES][8][64]: one copy, and groups of 8 keys evenly apart.
constexpr int HALF_BYTES = 1024, GROUP_BYTES = 1024 * HALVES;
constexpr int SCORES = TILE_KEYS / 2, SUMS = HEAD_DIM / 2;  // accumulators of a thread

static_assert(HEAD_DIM == 64 || HEAD_DIM == 128, "");
static_assert(BLOCK_TOKENS == 16 || BLOCK_TOKENS == 32 || BLOCK_TOKENS == 64, "");
static_assert(PACK == 1 || PACK == 2 || PACK == 4 || PACK == 8 || PACK == 16, "");

#if HEAD_DIM == 128
#define PRODUCER_REGISTERS "24"
#define CONSUMER_REGISTERS "240"
#else
#define PRODUCER_REGISTERS "32"
#define CONSUMER_REGISTERS "160"
#endif

#define NO_SCORE __int_as_float(0xff800000)  // -infinity

// Query rows that share their keys, as the host lists them.
struct Tile {
    int first_row;       // of the step
    int tokens;          // at most 64 * CONSUMERS / PACK
    int first_position;  // of first_row in its sequence
    int sequence;
    int key_begin, key_end;  // tiles of keys, the last one included
    int part;                // where its sums go, counted in tiles; -1: it has all of its rows' keys
    int unused;
};
static_assert(sizeof(Tile) == TILE_WORDS * 4, "as the host lists it");

// A tile and head as the producer tells the consumers.
struct Work {
    int first_row, tokens, first_position, head;  // head: of the first packed query head; -1 ends
    int key_begin, key_end, stale_begin, stale_end;
    int part;  // as the tile's, counted in tiles and heads
};

struct alignas(1024) Shared {
    u8 q[QUERY_STAGES][CONSUMERS][Q_BYTES];
    u8 k[STAGES][KV_BYTES];
    u8 v[STAGES][KV_BYTES];
    u64 k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
    u64 q_full[QUERY_STAGES], q_empty[QUERY_STAGES];
    Work work[QUERY_STAGES];
    int never;
};

// === instructions ===

#define COMMA ,
#define R4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define R8(d, i) R4(d, i), R4(d, i + 4)
#define R16(d, i) R8(d, i), R8(d, i + 8)
#define R32(d, i) R16(d, i), R16(d, i + 16)
#define N0_31 \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15" \
    ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define N32_63 \
    ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47" \
    ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"

// d = a * b^T (+ d): `a` 64 rows of 16 columns in shared memory, `b` N rows of 16 columns, both K-major.
#define SCORES_MMA(COUNT, N, REGISTERS, NAMES, A, B, P) \
    __device__ __forceinline__ void mma_scores(float (&d)[COUNT], u64 a, u64 b, int accumulate) { \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P ", 0;\n" \
                     "wgmma.mma_async.sync.aligned.m64n" N "k16.f32." MMA_TYPE "." MMA_TYPE \
                     " {" NAMES "}, " A ", " B ", p, 1, 1, 0, 0;\n}" \
                     : REGISTERS \
                     : "l"(a), "l"(b), "r"(accumulate)); \
    }

// d = a * b (+ d): `a` 64 rows of 16 columns in registers, `b` 16 rows of N columns, MN-major.
#define SUMS_MMA(COUNT, N, REGISTERS, NAMES, A, B, P) \
    __device__ __forceinline__ void mma_sums(float (&d)[COUNT], const u32* a, u64 b, int accumulate) { \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P ", 0;\n" \
                     "wgmma.mma_async.sync.aligned.m64n" N "k16.f32." MMA_TYPE "." MMA_TYPE \
                     " {" NAMES "}, {" A "}, " B ", p, 1, 1, 1;\n}" \
                     : REGISTERS \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate)); \
    }

SCORES_MMA(64, "128", R32(d, 0) COMMA R32(d, 32), N0_31 N32_63, "%64", "%65", "%66")
#if HEAD_DIM == 64
SUMS_MMA(32, "64", R32(d, 0), N0_31, "%32,%33,%34,%35", "%36", "%37")
#else
SUMS_MMA(64, "128", R32(d, 0) COMMA R32(d, 32), N0_31 N32_63, "%64,%65,%66,%67", "%68", "%69")
#endif

// Keeps the compiler from moving uses of `d` over the wait before.
template <int COUNT>
__device__ __forceinline__ void pin(float (&d)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) asm volatile("" : "+f"(d[i])::"memory");
}

__device__ __forceinline__ void tma_load5(u32 to, const TensorMap* map, int x, int y, int z, int w, int v,
                                          u32 barrier) {
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
        "[%1, {%3, %4, %5, %6, %7}], [%2];" ::"r"(to),
        "l"((u64)map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w), "r"(v)
        : "memory");
}

__device__ __forceinline__ void named_sync(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ __forceinline__ void named_arrive(int id, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Tells the compiler that all lanes have the same value.
__device__ __forceinline__ void uniform(int& x) { x = __reduce_or_sync(0xffffffffu, x); }

// === producer ===

// Where a ring stands: it turns round when `stage` comes back to 0.
template <int DEPTH>
struct Ring {
    int stage = 0;
    u32 phase = 0;
    __device__ __forceinline__ void next() {
        if (++stage == DEPTH) stage = 0, phase ^= 1;
    }
};

// Loads TILE_KEYS keys (or values) of one head. Lane `i` < PAGES holds `page`, that of the i-th page's
// head in the map, or -1 beyond the context: the copy engine then writes zeros.
__device__ __forceinline__ void load_keys(u32 to, const TensorMap* pool, int page, u32 full, u32 empty,
                                          u32 phase) {
    const int lane = threadIdx.x % 32;
    barrier_wait(empty, phase ^ 1);
    if (lane == 0) barrier_expect(full, KV_BYTES);
    __syncwarp();
    if (lane < PAGES) tma_load5(to + lane * BLOCK_TOKENS * HEAD_DIM * 2, pool, 0, 0, 0, 0, page, full);
}

struct Step {
    const Tile* tiles;
    const int* contexts;
    const int* block_tables;
    int* counter;
    int tile_count, heads, kv_heads, table_stride, block_base, window;
};

__device__ __forceinline__ void produce(Shared& s, const TensorMap* queries, const TensorMap* pool,
                                        const Step& step) {
    const int lane = threadIdx.x % 32;
    const int packs = step.heads / PACK, items = step.tile_count * packs;
    const int group = step.heads / step.kv_heads;
    Ring<STAGES> ring;
    Ring<2> qr;
    for (int item = blockIdx.x; item < items;) {
        // Claimed early: its latency hides behind this item's loads.
        int claimed = 0;
        if (lane == 0) {
            claimed = atomicAdd(step.counter, 1);
            if (claimed == items - 1) *step.counter = 0;  // the last claim of all
        }
        const Tile tile = step.tiles[item / packs];
        const int head = item % packs * PACK, kv_head = head / group;
        const int context = step.contexts[tile.sequence];
        const int key_end = tile.key_end;
        // A part may lie before all windows: then it has a tile that nobody sees.
        const int first_seen = step.window > 0 ? max(0, tile.first_position + 1 - step.window) / TILE_KEYS : 0;
        const int key_begin = min(max(tile.key_begin, first_seen), key_end);
        const int* table = step.block_tables + (i64)tile.sequence * step.table_stride;

        auto page_of = [&](int n) {
            const int block = n * PAGES + lane;
            if (lane >= PAGES || block * BLOCK_TOKENS >= context) return -1;
            return (step.block_base + table[block]) * 2 * step.kv_heads + kv_head;
        };
        auto value_of = [&](int page) { return page < 0 ? page : page + step.kv_heads; };

        int page = page_of(key_end);
        const u32 k = shared_address(s.k), v = shared_address(s.v);
        barrier_wait(shared_address(&s.q_empty[qr.stage]), qr.phase ^ 1);
        if (lane == 0) {
            const int stale = (context + BLOCK_TOKENS - 1) / BLOCK_TOKENS * BLOCK_TOKENS;
            s.work[qr.stage] =
                Work{tile.first_row, tile.tokens, tile.first_position, head, key_begin, key_end,
                     max(0, context - key_end * TILE_KEYS), min(TILE_KEYS, stale - key_end * TILE_KEYS),
                     tile.part < 0 ? -1 : tile.part * packs + item % packs};
            const u32 full = shared_address(&s.q_full[qr.stage]);
            barrier_expect(full, CONSUMERS * Q_BYTES);
            for (int i = 0; i < CONSUMERS; i++)
                tma_load4(shared_address(s.q[qr.stage][i]), queries, 0, head, tile.first_row + i * TOKENS, 0,
                          full);
        }
        __syncwarp();
        qr.next();
        load_keys(k + ring.stage * KV_BYTES, pool, page, shared_address(&s.k_full[ring.stage]),
                  shared_address(&s.k_empty[ring.stage]), ring.phase);

        for (int n = key_end; n >= key_begin; n--) {
            const int value = value_of(page);
            const Ring<STAGES> at = ring;
            ring.next();
            if (n > key_begin) {
                page = page_of(n - 1);
                load_keys(k + ring.stage * KV_BYTES, pool, page, shared_address(&s.k_full[ring.stage]),
                          shared_address(&s.k_empty[ring.stage]), ring.phase);
            }
            load_keys(v + at.stage * KV_BYTES, pool, value, shared_address(&s.v_full[at.stage]),
                      shared_address(&s.v_empty[at.stage]), at.phase);
        }
        item = gridDim.x + __shfl_sync(0xffffffffu, claimed, 0);
    }
    barrier_wait(shared_address(&s.q_empty[qr.stage]), qr.phase ^ 1);
    if (lane == 0) {
        s.work[qr.stage].head = -1;
        barrier_arrive(shared_address(&s.q_full[qr.stage]));
    }
}

// === consumers ===

// A thread holds columns (i / 4) * 8 + i % 2 of its quad's, of rows i / 2 % 2: `first` is the position of
// each row less that of its first column.
__device__ __forceinline__ void mask_later(float (&scores)[SCORES], const int (&first)[2]) {
#pragma unroll
    for (int i = 0; i < SCORES; i++)
        if (i / 4 * 8 + i % 2 > first[i / 2 % 2]) scores[i] = NO_SCORE;
}

__device__ __forceinline__ void mask_earlier(float (&scores)[SCORES], const int (&first)[2], int window) {
#pragma unroll
    for (int i = 0; i < SCORES; i++)
        if (i / 4 * 8 + i % 2 <= first[i / 2 % 2] - window) scores[i] = NO_SCORE;
}

// Keeps what computes the totals ahead of what follows: the compiler would move the wait for the sums up,
// and with it lose what the exponentials hide behind. Never stores, as totals are not negative.
__device__ __forceinline__ void hold(Shared& s, const float (&total)[2]) {
    if (total[0] + total[1] < 0.0f)
        asm volatile("st.shared.b32 [%0], %1;" ::"r"(shared_address(&s.never)), "r"(0) : "memory");
}

// Turns scores to exp2((score - maximum) * scale) and updates the two rows' maxima and (partial) totals.
__device__ __forceinline__ void softmax(float (&scores)[SCORES], float (&maximum)[2], float (&total)[2],
                                        float (&correction)[2], float scale) {
    float top[2] = {maximum[0], maximum[1]};
#pragma unroll
    for (int i = 0; i < SCORES; i++) top[i / 2 % 2] = fmaxf(top[i / 2 % 2], scores[i]);
    float offset[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 1));
        top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 2));
        offset[r] = top[r] == NO_SCORE ? 0.0f : top[r] * scale;  // no key seen yet
        correction[r] = exp2_fast(maximum[r] * scale - offset[r]);
        maximum[r] = top[r];
        total[r] *= correction[r];
    }
#pragma unroll
    for (int i = 0; i < SCORES; i++) {
        scores[i] = exp2_fast(scores[i] * scale - offset[i / 2 % 2]);
        total[i / 2 % 2] += scores[i];
    }
}

__device__ __forceinline__ void scores_of(float (&scores)[SCORES], u64 q, u64 k) {
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 16; i++)
        mma_scores(scores, q + (i / 4 * 64 * 128 + i % 4 * 32) / 16,
                   k + (i / 4 * HALF_BYTES + i % 4 * 32) / 16, i > 0);
}

__device__ __forceinline__ void add_values(float (&sums)[SUMS], const u32 (&probabilities)[SCORES / 2], u64 v,
                                           int accumulate) {
#pragma unroll
    for (int i = 0; i < TILE_KEYS / 16; i++)
        mma_sums(sums, probabilities + 4 * i, v + i * 2 * GROUP_BYTES / 16, i > 0 ? 1 : accumulate);
}

__device__ __forceinline__ void pack(u32 (&probabilities)[SCORES / 2], const float (&scores)[SCORES]) {
#pragma unroll
    for (int i = 0; i < SCORES / 2; i++) probabilities[i] = pack2(scores[2 * i], scores[2 * i + 1]);
}

__device__ __forceinline__ void rescale(float (&sums)[SUMS], const float (&correction)[2]) {
#pragma unroll
    for (int i = 0; i < SUMS; i++) sums[i] *= correction[i / 2 % 2];
}

// Zeroes values of the last page that no token has written yet: what is there may be NaN, and a
// probability of zero doesn't hide it.
__device__ __forceinline__ void zero_stale(u32 v, int begin, int end, int warpgroup) {
#pragma unroll 1
    for (int i = begin * (HEAD_DIM / 8) + threadIdx.x % 128; i < end * (HEAD_DIM / 8); i += 128) {
        // Whole rows: the swizzle doesn't matter.
        const int key = i / (HEAD_DIM / 8), part = i % (HEAD_DIM / 8);
        const u32 at = v + key / 8 * GROUP_BYTES + part / 8 * HALF_BYTES + key % 8 * 128 + part % 8 * 16;
        asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(at), "r"(0) : "memory");
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    named_sync(1 + CONSUMERS + warpgroup, 128);
}

#include "attention/prefill_parts.cuh"

// Divides by the totals and writes the rows that exist.
__device__ __forceinline__ void store(const Work& work, const float (&sums)[SUMS], const float (&totals)[2],
                                      elem* out, i64 out_stride, int warpgroup) {
    const int lane = threadIdx.x % 32, row = threadIdx.x % 128 / 32 * 16 + lane / 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const float inverse = __fdividef(1.0f, of_quad(totals[r]));
        const int token = warpgroup * TOKENS + (row + 8 * r) / PACK;
        const int head = work.head + (row + 8 * r) % PACK;
        elem* to = out + (i64)(work.first_row + token) * out_stride + head * HEAD_DIM + lane % 4 * 8;
#pragma unroll
        for (int c = 0; c < HEAD_DIM / 32; c++)
            store_columns(token < work.tokens, to + c * 32, sums, c * 16 + r * 2, inverse);
    }
}

__device__ __forceinline__ void consume(Shared& s, elem* out, const Parts& parts, i64 out_stride, int window,
                                        float scale, int warpgroup) {
    const int lane = threadIdx.x % 32, row = threadIdx.x % 128 / 32 * 16 + lane / 4;
    const u64 q = wgmma_operand(shared_address(s.q[0][warpgroup]), 0, 1024);
    const u64 k = wgmma_operand(shared_address(s.k), 0, GROUP_BYTES);
    const u64 v = wgmma_operand(shared_address(s.v), HALF_BYTES, GROUP_BYTES);
    const int mine = 1 + warpgroup, theirs = 1 + (warpgroup + 1) % CONSUMERS;
    Ring<STAGES> kr, vr;
    Ring<2> qr;
    float scores[SCORES], sums[SUMS], maximum[2], total[2], correction[2];
    u32 probabilities[SCORES / 2];
    int accumulate = 0;

    auto take = [&] {
        barrier_wait(shared_address(&s.q_full[qr.stage]), qr.phase);
        Work work = s.work[qr.stage];
        // The compiler cannot know that all lanes read the same, and keeps no loop state in uniform
        // registers unless it does.
        uniform(work.first_row), uniform(work.tokens), uniform(work.first_position), uniform(work.head);
        uniform(work.key_begin), uniform(work.key_end), uniform(work.stale_begin), uniform(work.stale_end);
        uniform(work.part);
        return work;
    };
    auto start_scores = [&] {
        wgmma_fence();
        scores_of(scores, q + qr.stage * (CONSUMERS * Q_BYTES / 16), k + kr.stage * (KV_BYTES / 16));
        wgmma_commit();
    };
    auto start_sums = [&] {
        barrier_wait(shared_address(&s.v_full[vr.stage]), vr.phase);
        wgmma_fence();
        add_values(sums, probabilities, v + vr.stage * (KV_BYTES / 16), accumulate);
        wgmma_commit();
    };
    // The scores of keys [n * TILE_KEYS ..) are there: lets go of the keys, masks, takes the exponentials.
    auto finish_scores = [&](const Work& work, int n) {
        pin(scores);
        if (lane == 0) barrier_arrive(shared_address(&s.k_empty[kr.stage]));
        kr.next();
        const int token = work.first_position + warpgroup * TOKENS - n * TILE_KEYS;
        const int first[2] = {token + row / PACK - lane % 4 * 2, token + (row + 8) / PACK - lane % 4 * 2};
        if (TILE_KEYS - 1 > token) mask_later(scores, first);
        if (window > 0 && token + TOKENS - 1 >= window) mask_earlier(scores, first, window);
        softmax(scores, maximum, total, correction, scale);
    };
    auto leave_queries = [&] {
        __syncwarp();  // every lane has read `work`: the arrival is for all of them
        if (lane == 0) barrier_arrive(shared_address(&s.q_empty[qr.stage]));
        qr.next();
    };
    auto start_tile = [&] {
        maximum[0] = maximum[1] = NO_SCORE;
        total[0] = total[1] = 0.0f;
    };
    auto zero_if_stale = [&](const Work& work) {
        if (work.stale_begin < work.stale_end) {
            barrier_wait(shared_address(&s.v_full[vr.stage]), vr.phase);
            zero_stale(shared_address(s.v[vr.stage]), work.stale_begin, work.stale_end, warpgroup);
        }
    };
    // Scores of the next keys and sums of the last, at the same time.
    auto start_both = [&] {
        barrier_wait(shared_address(&s.k_full[kr.stage]), kr.phase);
        named_sync(mine, 2 * 128);
        start_scores();
        start_sums();
        named_arrive(theirs, 2 * 128);
        wgmma_wait<1>();
    };
    auto finish_sums = [&] {
        wgmma_wait<0>();
        pin(scores);
        pin(sums);
        if (lane == 0) barrier_arrive(shared_address(&s.v_empty[vr.stage]));
        vr.next();
    };

    if (warpgroup == 0) named_arrive(mine, 2 * 128);
    Work work = take();  // a block has one at least
    barrier_wait(shared_address(&s.k_full[kr.stage]), kr.phase);
    start_scores();
    wgmma_wait<0>();
    start_tile();
    finish_scores(work, work.key_end);
    pack(probabilities, scores);

    while (true) {
        zero_if_stale(work);
        accumulate = 0;
#pragma unroll 1
        for (int n = work.key_end - 1; n >= work.key_begin; n--) {
            start_both();
            finish_scores(work, n);
            hold(s, total);
            finish_sums();
            pack(probabilities, scores);
            rescale(sums, correction);
            accumulate = 1;
        }
        leave_queries();
        const Work after = take();
        if (after.head < 0) break;
        const float finished[2] = {total[0], total[1]}, top[2] = {maximum[0], maximum[1]};
        start_both();
        start_tile();
        finish_scores(after, after.key_end);
        finish_sums();
        pack(probabilities, scores);
        if (work.part < 0) store(work, sums, finished, out, out_stride, warpgroup);
        else leave_part(work, sums, top, finished, parts, warpgroup);
        work = after;
    }
    wgmma_fence();
    start_sums();
    wgmma_wait<0>();
    pin(sums);
    if (work.part < 0) store(work, sums, total, out, out_stride, warpgroup);
    else leave_part(work, sums, maximum, total, parts, warpgroup);
}

// queries: the rows' query heads as {64, heads, rows, HALVES}, boxes of {64, PACK, TOKENS, HALVES}.
// pool: {64, 8, HALVES, BLOCK_TOKENS / 8, pages}, a box for each page, which here is one head's keys or
// values of a block: page = ((block_base + block) * 2 + (0 key, 1 value)) * kv_heads + head.
// counter: 0, and 0 again afterwards. Grid: at most a block for each of tile_count * heads / PACK items.
extern "C" __global__ void __launch_bounds__(128 * (CONSUMERS + 1), 1)
prefill_attention(const __grid_constant__ TensorMap queries, const __grid_constant__ TensorMap pool,
                  elem* __restrict__ out, const Tile* __restrict__ tiles, const int* __restrict__ contexts,
                  const int* __restrict__ block_tables, int* __restrict__ counter, float* __restrict__ part_sums,
                  float4* __restrict__ part_stats, int tile_count, int heads, int kv_heads,
                  int table_stride, int block_base, int window, int out_stride, float scale) {
    extern __shared__ u8 raw[];
    Shared& s = *(Shared*)(raw + ((1024 - (shared_address(raw) & 1023)) & 1023));
    int warpgroup = threadIdx.x / 128;
    uniform(warpgroup);
    if (threadIdx.x == 0) {
        prefetch_map(&queries);
        prefetch_map(&pool);
        for (int i = 0; i < STAGES; i++) {
            barrier_init(shared_address(&s.k_full[i]), 1);
            barrier_init(shared_address(&s.v_full[i]), 1);
            barrier_init(shared_address(&s.k_empty[i]), 4 * CONSUMERS);
            barrier_init(shared_address(&s.v_empty[i]), 4 * CONSUMERS);
        }
        for (int i = 0; i < 2; i++) {
            barrier_init(shared_address(&s.q_full[i]), 1);
            barrier_init(shared_address(&s.q_empty[i]), 4 * CONSUMERS);
        }
        barrier_init_fence();
    }
    __syncthreads();
    if (warpgroup == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 " PRODUCER_REGISTERS ";");
        grid_wait();
        // Not before: decode rows' attention, which may be next, begins at once beside this one.
        grid_launch();
        if (threadIdx.x < 32) {
            const Step step{tiles, contexts, block_tables, counter, tile_count,
                            heads, kv_heads, table_stride, block_base, window};
            produce(s, &queries, &pool, step);
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 " CONSUMER_REGISTERS ";");
        grid_wait();  // before writing: the grid before may still read `out`
        const Parts parts{part_sums, part_stats};
        consume(s, out, parts, out_stride, window, scale * 1.4426950408889634f, warpgroup - 1);
    }
}
