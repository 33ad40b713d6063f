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

#include "common.cuh"

#ifndef HEAD_DIM
#define HEAD_DIM 128
#endif
#ifndef BLOCK_TOKENS
#define BLOCK_TOKENS 16
#endif
#ifndef PACK
#define PACK 1
#endif
#ifndef TILE_KEYS
#define TILE_KEYS 128
#endif
#ifndef CONSUMERS
#define CONSUMERS 2
#endif
#ifndef STAGES
#define STAGES 2
#endif
#ifndef BOX5
#define BOX5 1
#endif
#ifndef PINGPONG
#define PINGPONG 1
#endif
#ifndef SKIP_RESCALE
#define SKIP_RESCALE 0
#endif

constexpr int HALVES = HEAD_DIM / 64;
constexpr int PAGES = TILE_KEYS / BLOCK_TOKENS;
constexpr int TOKENS = 64 / PACK;  // query tokens of a warpgroup
constexpr int Q_BYTES = 64 * HEAD_DIM * 2;
constexpr int KV_BYTES = TILE_KEYS * HEAD_DIM * 2;
#if BOX5
// A page arrives as [BLOCK_TOKENS / 8][HALVES][8][64]: one copy, and groups of 8 keys evenly apart.
constexpr int HALF_BYTES = 1024, GROUP_BYTES = 1024 * HALVES;
#else
constexpr int HALF_BYTES = TILE_KEYS * 128, GROUP_BYTES = 1024;
#endif
constexpr int SCORES = TILE_KEYS / 2, SUMS = HEAD_DIM / 2;  // accumulators of a thread

static_assert(HEAD_DIM == 64 || HEAD_DIM == 128, "");
static_assert(TILE_KEYS % BLOCK_TOKENS == 0 && TILE_KEYS % 16 == 0 && PAGES <= 16, "");
static_assert(PACK == 1 || PACK == 2 || PACK == 4 || PACK == 8 || PACK == 16, "");

#if CONSUMERS == 2
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
};

// A tile and head as the producer tells the consumers.
struct Work {
    int first_row, tokens, first_position, head;  // head: of the first packed query head; -1 ends
    int key_begin, key_end, stale_begin, stale_end;
};

struct alignas(1024) Shared {
    u8 q[CONSUMERS][Q_BYTES];
    u8 k[STAGES][KV_BYTES];
    u8 v[STAGES][KV_BYTES];
    u64 k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
    u64 q_full, q_empty;
    Work work;
    int never;
};

// === instructions ===

#define COMMA ,
#define R8(d, i) \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
        "+f"(d[i + 7])
#define R16(d, i) R8(d, i), R8(d, i + 8)
#define R32(d, i) R16(d, i), R16(d, i + 16)
#define N0_31 \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28," \
    "%29,%30,%31"
#define N32_63 \
    ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57," \
    "%58,%59,%60,%61,%62,%63"
#define N64_79 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"
#define N80_87 ",%80,%81,%82,%83,%84,%85,%86,%87"
#define N80_95 N80_87 ",%88,%89,%90,%91,%92,%93,%94,%95"

// d = a * b^T (+ d): `a` 64 rows of 16 columns in shared memory, `b` N rows of 16 columns, both K-major.
#define SCORES_MMA(COUNT, N, REGISTERS, NAMES, A, B, P) \
    __device__ __forceinline__ void mma_scores(float (&d)[COUNT], u64 a, u64 b, int accumulate) { \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P ", 0;\n" \
                     "wgmma.mma_async.sync.aligned.m64n" N "k16.f32." MMA_TYPE "." MMA_TYPE " {" NAMES "}, " A \
                     ", " B ", p, 1, 1, 0, 0;\n}" \
                     : REGISTERS \
                     : "l"(a), "l"(b), "r"(accumulate)); \
    }
// d = a * b (+ d): `a` 64 rows of 16 columns in registers, `b` 16 rows of N columns, MN-major.
#define SUMS_MMA(COUNT, N, REGISTERS, NAMES, A, B, P) \
    __device__ __forceinline__ void mma_sums(float (&d)[COUNT], const u32* a, u64 b, int accumulate) { \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P ", 0;\n" \
                     "wgmma.mma_async.sync.aligned.m64n" N "k16.f32." MMA_TYPE "." MMA_TYPE " {" NAMES "}, {" A \
                     "}, " B ", p, 1, 1, 1;\n}" \
                     : REGISTERS \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate)); \
    }

#if TILE_KEYS == 64
SCORES_MMA(32, "64", R32(d, 0), N0_31, "%32", "%33", "%34")
#elif TILE_KEYS == 128
SCORES_MMA(64, "128", R32(d, 0) COMMA R32(d, 32), N0_31 N32_63, "%64", "%65", "%66")
#elif TILE_KEYS == 160
SCORES_MMA(80, "160", R32(d, 0) COMMA R32(d, 32) COMMA R16(d, 64), N0_31 N32_63 N64_79, "%80", "%81", "%82")
#elif TILE_KEYS == 176
SCORES_MMA(88, "176", R32(d, 0) COMMA R32(d, 32) COMMA R16(d, 64) COMMA R8(d, 80), N0_31 N32_63 N64_79 N80_87,
           "%88", "%89", "%90")
#elif TILE_KEYS == 192
SCORES_MMA(96, "192", R32(d, 0) COMMA R32(d, 32) COMMA R32(d, 64), N0_31 N32_63 N64_79 N80_95, "%96", "%97",
           "%98")
#endif
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
        "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6, "
        "%7}], [%2];" ::"r"(to),
        "l"((u64)map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w), "r"(v)
        : "memory");
}

__device__ __forceinline__ void named_sync(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ __forceinline__ void named_arrive(int id, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Without a branch: after a divergent one the compiler gives up uniform registers in the whole loop.
__device__ __forceinline__ void store_if(bool condition, elem* to, const u32 (&x)[4]) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %0, 0;\n@p st.global.v4.b32 [%1], {%2, %3, %4, %5};\n}" ::"r"(
                     (int)condition),
                 "l"(to), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3])
                 : "memory");
}

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#if HOLDING == 1
#define HOLD if (total[0] + total[1] < 0.0f) asm volatile("st.shared.b32 [%0], %1;" ::"r"(shared_address(&s.never)), "r"(0) : "memory");
#elif HOLDING == 2
#define HOLD __syncwarp();
#else
#define HOLD pin(scores);
#endif

// === producer ===

// Where a ring stands: it turns round when `stage` comes back to 0.
struct Ring {
    int stage = 0;
    u32 phase = 0;
    __device__ __forceinline__ void next() {
        if (++stage == STAGES) stage = 0, phase ^= 1;
    }
};

// Loads TILE_KEYS keys (or values) of one head. Lane `i` < PAGES holds `page`, that of the i-th page's
// head in the map, or -1 beyond the context: the copy engine then writes zeros.
__device__ __forceinline__ void load_keys(u32 to, const TensorMap* pool, int page, u32 full, u32 empty, u32 phase) {
    const int lane = threadIdx.x % 32;
    barrier_wait(empty, phase ^ 1);
    if (lane == 0) barrier_expect(full, KV_BYTES);
    __syncwarp();
#if BOX5
    if (lane < PAGES) tma_load5(to + lane * BLOCK_TOKENS * HEAD_DIM * 2, pool, 0, 0, 0, 0, page, full);
#else
#pragma unroll
    for (int half = 0; half < HALVES; half++)
        if (lane < PAGES)
            tma_load4(to + half * HALF_BYTES + lane * BLOCK_TOKENS * 128, pool, 0, 0, half, page, full);
#endif
}

struct Step {
    const Tile* tiles;
    const int* contexts;
    const int* block_tables;
    int* counter;
    int tile_count, heads, kv_heads, head_run, table_stride, block_base, window;
};

__device__ __forceinline__ void produce(Shared& s, const TensorMap* queries, const TensorMap* pool, const Step& step) {
    const int lane = threadIdx.x % 32;
    const int packs = step.heads / PACK, items = step.tile_count * packs;
    const int group = step.heads / step.kv_heads;
    Ring ring;
    u32 q_phase = 0;
    for (int item = blockIdx.x; item < items;) {
        // Claimed early: its latency hides behind this item's loads.
        int claimed = 0;
        if (lane == 0) {
            claimed = atomicAdd(step.counter, 1);
            if (claimed == items - 1) *step.counter = 0;  // the last claim of all
        }
        const int run = item / (step.tile_count * step.head_run), rest = item % (step.tile_count * step.head_run);
        const Tile tile = step.tiles[rest / step.head_run];
        const int head = (run * step.head_run + rest % step.head_run) * PACK, kv_head = head / group;
        const int context = step.contexts[tile.sequence];
        const int key_end = (tile.first_position + tile.tokens - 1) / TILE_KEYS;
        const int key_begin = step.window > 0 ? max(0, tile.first_position + 1 - step.window) / TILE_KEYS : 0;
        const int* table = step.block_tables + (i64)tile.sequence * step.table_stride;

        auto page_of = [&](int n) {
            const int block = n * PAGES + lane;
            if (lane >= PAGES || block * BLOCK_TOKENS >= context) return -1;
            return (step.block_base + table[block]) * 2 * step.kv_heads + kv_head;
        };
        auto value_of = [&](int page) { return page < 0 ? page : page + step.kv_heads; };

        int page = page_of(key_end);
        const u32 k = shared_address(s.k), v = shared_address(s.v);
        load_keys(k + ring.stage * KV_BYTES, pool, page, shared_address(&s.k_full[ring.stage]),
                  shared_address(&s.k_empty[ring.stage]), ring.phase);

        barrier_wait(shared_address(&s.q_empty), q_phase ^ 1);
        if (lane == 0) {
            const int stale = (context + BLOCK_TOKENS - 1) / BLOCK_TOKENS * BLOCK_TOKENS;
            s.work = Work{tile.first_row, tile.tokens, tile.first_position, head, key_begin, key_end,
                          max(0, context - key_end * TILE_KEYS), min(TILE_KEYS, stale - key_end * TILE_KEYS)};
            const u32 full = shared_address(&s.q_full);
            barrier_expect(full, CONSUMERS * Q_BYTES);
            for (int i = 0; i < CONSUMERS; i++)
                tma_load4(shared_address(s.q[i]), queries, 0, head, tile.first_row + i * TOKENS, 0, full);
        }
        __syncwarp();
        q_phase ^= 1;

        for (int n = key_end; n >= key_begin; n--) {
            const int value = value_of(page);
            const Ring at = ring;
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
    barrier_wait(shared_address(&s.q_empty), q_phase ^ 1);
    if (lane == 0) {
        s.work.head = -1;
        barrier_arrive(shared_address(&s.q_full));
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
        mma_scores(scores, q + (i / 4 * 64 * 128 + i % 4 * 32) / 16, k + (i / 4 * HALF_BYTES + i % 4 * 32) / 16,
                   i > 0);
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
#if SKIP_RESCALE
    if (__all_sync(0xffffffffu, correction[0] == 1.0f && correction[1] == 1.0f)) return;
#endif
#pragma unroll
    for (int i = 0; i < SUMS; i++) sums[i] *= correction[i / 2 % 2];
}

// Zeroes values of the last page that no token has written yet: what is there may be NaN, and a
// probability of zero doesn't hide it.
__device__ __forceinline__ void zero_stale(u32 v, int begin, int end, int warpgroup) {
    for (int i = begin * (HEAD_DIM / 8) + threadIdx.x % 128; i < end * (HEAD_DIM / 8); i += 128) {
        const int key = i / (HEAD_DIM / 8), part = i % (HEAD_DIM / 8);  // whole rows: the swizzle doesn't matter
        const u32 at = v + key / 8 * GROUP_BYTES + part / 8 * HALF_BYTES + key % 8 * 128 + part % 8 * 16;
        asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(at), "r"(0) : "memory");
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    named_sync(1 + CONSUMERS + warpgroup, 128);
}

// Divides by the totals and writes the rows that exist. Four lanes hold 8 columns of a row between them;
// after two exchanges each holds 8 of 32.
__device__ __forceinline__ void store(const Work& work, const float (&sums)[SUMS], float (&total)[2], elem* out,
                                      i64 out_stride, int warpgroup) {
    const int lane = threadIdx.x % 32, row = threadIdx.x % 128 / 32 * 16 + lane / 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        total[r] += __shfl_xor_sync(0xffffffffu, total[r], 1);
        total[r] += __shfl_xor_sync(0xffffffffu, total[r], 2);
        const float inverse = __fdividef(1.0f, total[r]);
        const int token = warpgroup * TOKENS + (row + 8 * r) / PACK, head = work.head + (row + 8 * r) % PACK;
        elem* to = out + (i64)(work.first_row + token) * out_stride + head * HEAD_DIM + lane % 4 * 8;
#pragma unroll
        for (int c = 0; c < HEAD_DIM / 32; c++) {
            u32 x[4];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int i = (c * 4 + j) * 4 + r * 2;
                x[j] = pack2(sums[i] * inverse, sums[i + 1] * inverse);
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
            store_if(token < work.tokens, to + c * 32, x);
        }
    }
}

__device__ __forceinline__ void consume(Shared& s, elem* out, i64 out_stride, int window, float scale,
                                        int warpgroup) {
    const int lane = threadIdx.x % 32, row = threadIdx.x % 128 / 32 * 16 + lane / 4;
    const u64 q = wgmma_operand(shared_address(s.q[warpgroup]), 0, 1024);
    const u64 k = wgmma_operand(shared_address(s.k), 0, GROUP_BYTES);
#ifdef SWAP_STRIDES
    const u64 v = wgmma_operand(shared_address(s.v), GROUP_BYTES, HALF_BYTES);
#else
    const u64 v = wgmma_operand(shared_address(s.v), HALF_BYTES, GROUP_BYTES);
#endif
    const int mine = 1 + warpgroup, theirs = 1 + (warpgroup + 1) % CONSUMERS;
    Ring kr, vr;
    u32 q_phase = 0;
    float scores[SCORES], sums[SUMS];
    u32 probabilities[SCORES / 2];
#if PINGPONG
    if (warpgroup == 0) named_arrive(mine, 256);
#endif
    while (true) {
        barrier_wait(shared_address(&s.q_full), q_phase);
        q_phase ^= 1;
        const Work work = s.work;
        if (work.head < 0) break;
        const int token = work.first_position + warpgroup * TOKENS;
        const int first[2] = {token + row / PACK - lane % 4 * 2, token + (row + 8) / PACK - lane % 4 * 2};
        float maximum[2] = {NO_SCORE, NO_SCORE}, total[2] = {0.0f, 0.0f}, correction[2];

        auto mask = [&](int n) {
            const int at = n * TILE_KEYS;
            const int from[2] = {first[0] - at, first[1] - at};
            if (at + TILE_KEYS - 1 > token) mask_later(scores, from);
            if (window > 0 && at <= token + TOKENS - 1 - window) mask_earlier(scores, from, window);
        };

        barrier_wait(shared_address(&s.k_full[kr.stage]), kr.phase);
        wgmma_fence();
        scores_of(scores, q, k + kr.stage * (KV_BYTES / 16));
        wgmma_commit();
        if (work.stale_begin < work.stale_end) {
            barrier_wait(shared_address(&s.v_full[vr.stage]), vr.phase);
            zero_stale(shared_address(s.v[vr.stage]), work.stale_begin, work.stale_end, warpgroup);
        }
        wgmma_wait<0>();
        pin(scores);
        if (lane == 0) barrier_arrive(shared_address(&s.k_empty[kr.stage]));
        kr.next();
        mask(work.key_end);
        softmax(scores, maximum, total, correction, scale);
        pack(probabilities, scores);

        int accumulate = 0;
        for (int n = work.key_end - 1; n >= work.key_begin; n--) {
            barrier_wait(shared_address(&s.k_full[kr.stage]), kr.phase);
#if PINGPONG
            named_sync(mine, 256);
#endif
            wgmma_fence();
            scores_of(scores, q, k + kr.stage * (KV_BYTES / 16));
            wgmma_commit();
            barrier_wait(shared_address(&s.v_full[vr.stage]), vr.phase);
            wgmma_fence();
            add_values(sums, probabilities, v + vr.stage * (KV_BYTES / 16), accumulate);
            wgmma_commit();
            accumulate = 1;
#if PINGPONG
            named_arrive(theirs, 256);
#endif
            wgmma_wait<1>();
            pin(scores);
            if (lane == 0) barrier_arrive(shared_address(&s.k_empty[kr.stage]));
            kr.next();
            mask(n);
            softmax(scores, maximum, total, correction, scale);
            HOLD
            wgmma_wait<0>();
            pin(scores);
            pin(sums);
            if (lane == 0) barrier_arrive(shared_address(&s.v_empty[vr.stage]));
            vr.next();
            pack(probabilities, scores);
            rescale(sums, correction);
        }
        if (lane == 0) barrier_arrive(shared_address(&s.q_empty));
        barrier_wait(shared_address(&s.v_full[vr.stage]), vr.phase);
        wgmma_fence();
        add_values(sums, probabilities, v + vr.stage * (KV_BYTES / 16), accumulate);
        wgmma_commit();
        wgmma_wait<0>();
        pin(sums);
        if (lane == 0) barrier_arrive(shared_address(&s.v_empty[vr.stage]));
        vr.next();
        store(work, sums, total, out, out_stride, warpgroup);
    }
}

// queries: [rows, heads, HEAD_DIM] as {64, heads, rows, HALVES}, boxes of {64, PACK, TOKENS, HALVES}.
// pool: with BOX5 {64, 8, HALVES, BLOCK_TOKENS / 8, pages}, a box for each page, which here is one head's
// keys or values of a block: page = ((block_base + block) * 2 + (0 key, 1 value)) * kv_heads + head;
// without, {64, BLOCK_TOKENS, HALVES, pages}, boxes of {64, BLOCK_TOKENS, 1, 1}.
extern "C" __global__ void __launch_bounds__(128 * (CONSUMERS + 1), 1)
prefill_attention(const __grid_constant__ TensorMap queries, const __grid_constant__ TensorMap pool,
                  elem* __restrict__ out, const Tile* __restrict__ tiles, const int* __restrict__ contexts,
                  const int* __restrict__ block_tables, int* __restrict__ counter, int tile_count, int heads,
                  int kv_heads, int head_run, int table_stride, int block_base, int window, int out_stride,
                  float scale) {
    extern __shared__ u8 raw[];
    Shared& s = *(Shared*)(raw + ((1024 - (shared_address(raw) & 1023)) & 1023));
    const int warpgroup = threadIdx.x / 128;
    if (threadIdx.x == 0) {
        prefetch_map(&queries);
        prefetch_map(&pool);
        for (int i = 0; i < STAGES; i++) {
            barrier_init(shared_address(&s.k_full[i]), 1);
            barrier_init(shared_address(&s.v_full[i]), 1);
            barrier_init(shared_address(&s.k_empty[i]), 4 * CONSUMERS);
            barrier_init(shared_address(&s.v_empty[i]), 4 * CONSUMERS);
        }
        barrier_init(shared_address(&s.q_full), 1);
        barrier_init(shared_address(&s.q_empty), 4 * CONSUMERS);
        barrier_init_fence();
    }
    __syncthreads();
    grid_launch();
    if (warpgroup == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 " PRODUCER_REGISTERS ";");
        grid_wait();
        if (threadIdx.x < 32) {
            const Step step{tiles, contexts, block_tables, counter, tile_count, heads, kv_heads, head_run,
                            table_stride, block_base, window};
            produce(s, &queries, &pool, step);
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 " CONSUMER_REGISTERS ";");
        grid_wait();  // before writing: the grid before may still read `out`
        consume(s, out, out_stride, window, scale * 1.4426950408889634f, warpgroup - 1);
    }
}
