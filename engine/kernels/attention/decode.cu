// Attention of one query token per row over its sequence's pages: out = softmax(scale * q K^T) V.
//
// Work. A row sees tokens [context - window, context) (all of them where window = 0). They are cut
// into tiles of 16 tokens and chunks of whole tiles; where the cuts are follows from the row's own
// context alone, so that a row's bits don't depend on its neighbours. An item is one chunk of one
// key/value head (or of one slice of at most 16 of its query heads). The grid is persistent: each
// block finds, by a prefix sum over the contexts, the run of items that is its share of all tiles.
//
// A reading warp takes every WARPS-th tile of an item and streams them through a ring of its own by
// cp.async (the bulk copy engine measured the same). It keeps
//   S^T [16 tokens x 8 heads] = K q^T,  O^T [HEAD_DIM x 8 heads] += V^T P^T
// by mma, the query heads as the narrow side: a group of 4 wastes half of a product, not three quarters.
// At the item's end it leaves (max, sum, O) in shared memory and reads on; COMBINERS other warps put the
// states together, and fold a row's chunks into one as they come. Where a row's chunks are spread over
// blocks, they go through `partials` and `sums`, and the last to arrive folds them in the same order.
//
// Layout. pages `[blocks][2][kv_heads][BLOCK_TOKENS][HEAD_DIM]` of one layer; qkv rows
// `[heads*d | ...]`; out `[rows, heads*d]`; partials `[rows][kv_heads][SLICES][SPLITS_MAX][SLICE_HEADS]
// [HEAD_DIM]` f32; sums the same without HEAD_DIM, float2 (max in log2 units, sum); arrivals
// `[rows][kv_heads][SLICES]`, zero before the first launch and after each.
// Floor: 4 * HEAD_DIM * kv_heads bytes a token of context at the memory's rate.
//
// `context`, `row_of` and `tables` are read before grid_wait(), and so are the pages that end before
// a row's newest token: what writes them must not be overlapped with the graph (a plain edge).
//
// beside: the kernel before is prompts' attention, which lets this one start once what both read is there: nothing is
// waited for before the end.
#include "common/common.cuh"

#ifndef WARPS
#define WARPS 4
#define STAGES 3
#define RESIDENT 2
#define SPLITS_MAX 32
#endif
#ifndef CHUNK_TOKENS
// Tokens of a chunk, about, and of one where a row sees at most SHORT_TOKENS. Long chunks leave less to
// combine; a short context needs short ones to reach all multiprocessors.
#define CHUNK_TOKENS 512
#define SHORT_CHUNK_TOKENS 256
#define SHORT_TOKENS 1024
#endif

// -DTILE: tokens that a warp takes at a time. -DCOMBINERS: warps beside the reading ones.
constexpr int THREADS = (WARPS + COMBINERS) * 32;
constexpr int SLICE_MAX = HEAD_DIM <= 192 ? 16 : 8;  // O of more heads doesn't fit the registers
constexpr int SLICES = (GROUP + SLICE_MAX - 1) / SLICE_MAX;
constexpr int SLICE_HEADS = (GROUP + SLICES - 1) / SLICES;
constexpr int COLUMNS = (SLICE_HEADS + 7) / 8;  // of 8 query heads
constexpr int STEPS = (HEAD_DIM + 15) / 16;     // of 16 elements of a head
constexpr int PIECES = HEAD_DIM / 8;            // of 16 bytes, in a token's key
// A tile's keys (then its values) lie so that ldmatrix meets no bank conflict: piece p of token t at
// p ^ t % 8, or, where that might leave the row, in rows of an odd number of pieces.
constexpr bool SWIZZLED = HEAD_DIM == 64 || HEAD_DIM == 128 || HEAD_DIM == 256;
constexpr int ROW_BYTES = SWIZZLED ? HEAD_DIM * 2 : (STEPS * 2 + 1) * 16;
constexpr int HALF_BYTES = TILE * ROW_BYTES;
constexpr int STAGE_BYTES = 2 * HALF_BYTES;
constexpr int RING_BYTES = WARPS * STAGES * STAGE_BYTES;
constexpr int O_STRIDE = (STEPS * 16 + 31) / 32 * 32 + 4;  // floats; 4 more: no bank conflicts
constexpr float NEVER = -1e30f;  // a maximum of nothing; finite, so that differences are never NaN

static_assert(BLOCK_TOKENS % TILE == 0 && HEAD_DIM % 8 == 0 && HEAD_DIM <= 256, "shape");

// Shared memory after the ring.
struct Tail {
    float o[WARPS][SLICE_HEADS][O_STRIDE];
    float max[WARPS][COLUMNS * 8];
    float sum[WARPS][COLUMNS * 8];
    int warp_tiles[WARPS + COMBINERS];
    int bounds[2][3];  // the block's first item and the one after its last: row, head, chunk
    int folded;
};

struct Parameters {
    const elem *qkv, *pages;
    elem* out;
    const int *row_of, *tables;
    float* partials;
    float2* sums;
    int *arrivals, rows, kv_heads, qkv_stride, table_stride, window;
    bool beside;
    float scale;  // in log2 units
};

// === which tiles ===

// The tiles that a row sees, and how many make a chunk.
struct Span {
    int first, end, chunk;
};

__device__ __forceinline__ Span span_of(int context, int window) {
    int from = window > 0 && context > window ? context - window : 0;
    Span s;
    s.first = from / TILE;
    s.end = (context + TILE - 1) / TILE;
    int tiles = s.end - s.first;
    constexpr int LONG = CHUNK_TOKENS / TILE, SHORT = SHORT_CHUNK_TOKENS / TILE;
    int chunks = tiles <= SHORT_TOKENS / TILE ? (tiles + SHORT - 1) / SHORT : (tiles + LONG - 1) / LONG;
    chunks = max(1, min(chunks, SPLITS_MAX));
    s.chunk = max(1, (tiles + chunks * WARPS - 1) / (chunks * WARPS)) * WARPS;  // all about as long
    return s;
}

// An item and its tiles.
struct Item {
    int row, head, chunk;  // head counts slices of key/value heads
    int begin, end;        // tiles
    Span span;

    __device__ __forceinline__ bool is(const int (&at)[3]) const {
        return row == at[0] && head == at[1] && chunk == at[2];
    }
    __device__ __forceinline__ void open(const int* contexts, const Parameters& in) {
        if (row < in.rows) span = span_of(contexts[row], in.window);
        set_chunk();
    }
    __device__ __forceinline__ void set_chunk() {
        begin = span.first + chunk * span.chunk;
        end = min(begin + span.chunk, span.end);
    }
    __device__ __forceinline__ void next(const int* contexts, const Parameters& in) {
        chunk++;
        if (end == span.end) {
            chunk = 0;
            if (++head == in.kv_heads * SLICES) {
                head = 0;
                do row++;
                while (row < in.rows && contexts[row] == 0);
                if (row < in.rows) span = span_of(contexts[row], in.window);
            }
        }
        set_chunk();
    }
};

// Finds the first item that starts at or after `at` tiles, by the thread whose rows hold it.
__device__ void find(int (&bound)[3], i64 at, int row, int row_end, i64 before, const int* contexts,
                     const Parameters& in) {
    int heads = in.kv_heads * SLICES;
    for (; row < row_end; row++) {
        Span s = span_of(contexts[row], in.window);
        int tiles = s.end - s.first;
        if (at < before + (i64)tiles * heads) {
            int rest = (int)(at - before), head = rest / tiles;
            int chunk = (rest - head * tiles + s.chunk - 1) / s.chunk;
            if (chunk * s.chunk >= tiles) chunk = 0, head++;
            if (head == heads) {
                head = 0;
                do row++;
                while (row < in.rows && contexts[row] == 0);
            }
            bound[0] = row, bound[1] = head, bound[2] = chunk;
            return;
        }
        before += (i64)tiles * heads;
    }
}

// Divides the tiles of all rows among the blocks.
__device__ void plan(Tail& tail, int* contexts, const int* context, const Parameters& in) {
    int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    for (int i = thread; i < in.rows; i += THREADS) contexts[i] = context[i];
    if (thread < 6) tail.bounds[thread / 3][thread % 3] = thread % 3 == 0 ? in.rows : 0;
    __syncthreads();
    int each = (in.rows + THREADS - 1) / THREADS;
    int row = min(thread * each, in.rows), row_end = min(row + each, in.rows);
    int own = 0;
    for (int i = row; i < row_end; i++) {
        Span s = span_of(contexts[i], in.window);
        own += s.end - s.first;
    }
    int upto = own;
    for (int lanes = 1; lanes < 32; lanes *= 2) {
        int below = __shfl_up_sync(0xffffffffu, upto, lanes);
        if (lane >= lanes) upto += below;
    }
    if (lane == 31) tail.warp_tiles[warp] = upto;
    __syncthreads();
    int before = upto - own, all = 0;
    for (int w = 0; w < WARPS + COMBINERS; w++) {
        if (w < warp) before += tail.warp_tiles[w];
        all += tail.warp_tiles[w];
    }
    // Neighbours in this order share a multiprocessor, so that few items spread over all of them.
    i64 block = blockIdx.x * gridDim.y + blockIdx.y, blocks = gridDim.x * gridDim.y;
    i64 heads = in.kv_heads * SLICES, total = all * heads;
    i64 low = before * heads, high = low + own * heads;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        i64 at = (total * (block + i) + blocks - 1) / blocks;
        if (low <= at && at < high) find(tail.bounds[i], at, row, row_end, low, contexts, in);
    }
    __syncthreads();
}

// === the ring ===

// Where a piece of a token is in its half of a stage.
__device__ __forceinline__ u32 at_piece(int token, int piece) {
    return token * ROW_BYTES + (SWIZZLED ? piece ^ token % 8 : piece) * 16;
}

// Where piece `2 * step + i` is, from the address of piece i (0 or 1).
__device__ __forceinline__ u32 at_step(u32 base, int step) {
    return SWIZZLED ? base ^ step * 32 : base + step * 32;
}

// A warp's reader: which tile it loads next.
struct Reader {
    Item item;
    int tile, fetched;  // the next tile; how many of the fetched table entries were used
    int entry;          // lane i: the block of this warp's i-th tile from where it was fetched
    bool done;

    __device__ __forceinline__ void fetch(const Parameters& in) {
        int mine = tile + (threadIdx.x % 32) * WARPS;
        fetched = 0;
        if (mine < item.end) entry = in.tables[(i64)item.row * in.table_stride + mine * TILE / BLOCK_TOKENS];
    }
    // Goes on to the first item, from this one on, that has a tile for this warp.
    __device__ __forceinline__ void settle(const int (&stop)[3], const int* contexts, const Parameters& in) {
        int warp = threadIdx.x / 32;
        while (!(done = item.is(stop))) {
            tile = item.begin + warp;
            if (tile < item.end) {
                fetch(in);
                return;
            }
            item.next(contexts, in);
        }
    }
    __device__ __forceinline__ void step(const int (&stop)[3], const int* contexts, const Parameters& in) {
        tile += WARPS;
        if (tile >= item.end) {
            item.next(contexts, in);
            settle(stop, contexts, in);
        } else if (++fetched == 32) {
            fetch(in);
        }
    }
};

// As cp_async16_or_zero; the line is the first to leave L2, since nobody reads it again.
__device__ __forceinline__ void stream16_or_zero(u32 to, const void* from, bool valid) {
    u64 policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(to), "l"(from),
                 "r"(valid ? 16 : 0), "l"(policy) : "memory");
}

__device__ __forceinline__ void load_tile(u32 to, const elem* pages, int block, int head, int tile, int from,
                                          int context, int kv_heads) {
    int lane = threadIdx.x % 32;
    const elem* half = pages + ((i64)block * 2 * kv_heads + head) * (BLOCK_TOKENS * HEAD_DIM);
    half += tile * TILE % BLOCK_TOKENS * HEAD_DIM;
    i64 values = (i64)kv_heads * BLOCK_TOKENS * HEAD_DIM;
#pragma unroll
    for (int i = 0; i < (TILE * PIECES + 31) / 32; i++) {
        int piece = i * 32 + lane, row = piece / PIECES, token = tile * TILE + row;
        if (TILE * PIECES % 32 != 0 && piece >= TILE * PIECES) break;
        bool valid = from <= token && token < context;
        u32 at = to + at_piece(row, piece % PIECES);
        stream16_or_zero(at, half + piece * 8, valid);
        stream16_or_zero(at + HALF_BYTES, half + values + piece * 8, valid);
    }
}

// === one tile ===

struct State {
    float max[COLUMNS][2], sum[COLUMNS][2];  // of this lane's two heads; sums of its own tokens
    float o[STEPS][COLUMNS][4];

    __device__ __forceinline__ void clear() {
        *this = {};
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) max[c][0] = max[c][1] = NEVER;
    }
};

typedef u32 Queries[STEPS][COLUMNS][2];

__device__ __forceinline__ void load_queries(Queries& q, const elem* heads, int count) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
        int head = c * 8 + lane / 4;
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int d = s * 16 + i * 8;
                bool is_there = d < HEAD_DIM && head < count;
                q[s][c][i] = is_there ? __ldcg((const u32*)(heads + head * HEAD_DIM + d + lane % 4 * 2)) : 0;
            }
        }
    }
}

// Over the tokens of a tile, whose rows lie in lanes 4 apart.
__device__ __forceinline__ float max_of_tokens(float x) {
    for (int lanes = 4; lanes < 32; lanes *= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, lanes));
    return x;
}

__device__ __forceinline__ float sum_of_tokens(float x) {
    for (int lanes = 4; lanes < 32; lanes *= 2) x += __shfl_xor_sync(0xffffffffu, x, lanes);
    return x;
}

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ u32 transpose8(u32 x) {
    u32 y;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}

// Adds a tile whose tokens [0, low) and [high, 16) are not seen. `keys`, `values`: this lane's
// ldmatrix addresses. `scale` is in log2 units.
__device__ __forceinline__ void add_tile(State& state, const Queries& q, u32 keys, u32 values, int low,
                                         int high, float scale) {
    float s[COLUMNS][4] = {}, s2[COLUMNS][4] = {};  // two sums, so that each waits for half as many
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        u32 k[4];
        ldmatrix4(k, at_step(keys, step));
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) mma16816(step % 2 ? s2[c] : s[c], k, q[step][c][0], q[step][c][1]);
    }
    int token = threadIdx.x % 32 / 4;
    bool seen0 = low <= token && token < high, seen1 = low <= token + 8 && token + 8 < high;
    u32 p[COLUMNS][2];
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
        float keep[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float x0 = seen0 ? (s[c][i] + s2[c][i]) * scale : NEVER;
            float x1 = seen1 ? (s[c][i + 2] + s2[c][i + 2]) * scale : NEVER;
            float top = fmaxf(state.max[c][i], max_of_tokens(fmaxf(x0, x1)));
            keep[i] = exp2_fast(state.max[c][i] - top);
            state.max[c][i] = top;
            s[c][i] = exp2_fast(x0 - top);
            s[c][i + 2] = exp2_fast(x1 - top);
            state.sum[c][i] = state.sum[c][i] * keep[i] + (s[c][i] + s[c][i + 2]);
        }
        p[c][0] = transpose8(pack2(s[c][0], s[c][1]));
        p[c][1] = transpose8(pack2(s[c][2], s[c][3]));
#pragma unroll
        for (int step = 0; step < STEPS; step++)
#pragma unroll
            for (int i = 0; i < 4; i++) state.o[step][c][i] *= keep[i % 2];
    }
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        u32 v[4];
        ldmatrix4_trans(v, at_step(values, step));
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) mma16816(state.o[step][c], v, p[c][0], p[c][1]);
    }
}

// === combining ===

__device__ __forceinline__ void store_state(Tail& tail, const State& state) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int head = c * 8 + lane % 4 * 2 + i;
            float sum = sum_of_tokens(state.sum[c][i]);
            if (lane < 4) {
                tail.max[warp][head] = state.max[c][i];
                tail.sum[warp][head] = sum;
            }
            if (head < SLICE_HEADS) {
#pragma unroll
                for (int s = 0; s < STEPS; s++) {
                    tail.o[warp][head][s * 16 + lane / 4] = state.o[s][c][i];
                    tail.o[warp][head][s * 16 + lane / 4 + 8] = state.o[s][c][i + 2];
                }
            }
        }
    }
}

// === combining ===

#include "attention/decode_combine.cuh"

// === the two kinds of warps ===

// A slice's first query head, and how many it has.
__device__ __forceinline__ int first_head(int slice) {
    return slice / SLICES * GROUP + slice % SLICES * SLICE_HEADS;
}

__device__ __forceinline__ int head_count(int slice) {
    return min(SLICE_HEADS, GROUP - slice % SLICES * SLICE_HEADS);
}

__device__ __forceinline__ void read_items(u8* base, Tail& tail, const int* contexts, const Parameters& in) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u32 ring = shared_address(base) + warp * STAGES * STAGE_BYTES;
    bool waited = in.beside;
    Reader reader;
    reader.item = Item{tail.bounds[0][0], tail.bounds[0][1], tail.bounds[0][2]};
    reader.item.open(contexts, in);
    Item item = reader.item;
    reader.settle(tail.bounds[1], contexts, in);
    auto issue = [&](int stage) {
        if (!reader.done) {
            int limit = contexts[reader.item.row], tile = reader.tile;
            if (!waited && (tile + 1) * TILE >= limit) grid_wait(), waited = true;
            int block = __shfl_sync(0xffffffffu, reader.entry, reader.fetched);
            int from = in.window > 0 ? limit - in.window : 0;
            int head = reader.item.head / SLICES;
            load_tile(ring + stage * STAGE_BYTES, in.pages, block, head, tile, from, limit, in.kv_heads);
            reader.step(tail.bounds[1], contexts, in);
        }
        cp_async_commit();
    };
    for (int stage = 0; stage < STAGES; stage++) issue(stage);
    if (!waited) grid_wait(), waited = true;

    // This lane's part of the ldmatrix addresses: keys as they are, values transposed.
    const u32 key_at = at_piece(lane % 16, lane / 16);
    const u32 value_at = HALF_BYTES + at_piece(lane % 8 + lane / 16 * 8, lane / 8 % 2);
    State state;
    Queries queries;
    int queries_row = -1, queries_head = -1, stage = 0;
    for (bool is_first = true; !item.is(tail.bounds[1]); item.next(contexts, in), is_first = false) {
        const int limit = contexts[item.row], from = in.window > 0 ? limit - in.window : 0;
        if (item.row != queries_row || item.head != queries_head) {
            const elem* row = in.qkv + (i64)in.row_of[item.row] * in.qkv_stride;
            load_queries(queries, row + first_head(item.head) * HEAD_DIM, head_count(item.head));
            queries_row = item.row, queries_head = item.head;
        }
        state.clear();
        for (int tile = item.begin + warp; tile < item.end; tile += WARPS) {
            const u32 at = ring + stage * STAGE_BYTES;
            cp_async_wait<STAGES - 1>();
            __syncwarp();
            const int first = tile * TILE;
            add_tile(state, queries, at + key_at, at + value_at, from - first, limit - first, in.scale);
            __syncwarp();
            issue(stage);
            if (++stage == STAGES) stage = 0;
        }
        if (!is_first) barrier_sync<THREADS>(EMPTY);
        store_state(tail, state);
        barrier_leave(FULL);
    }
}

__device__ __forceinline__ void combine_items(Tail& tail, const int* contexts, const Parameters& in) {
    Item item = {tail.bounds[0][0], tail.bounds[0][1], tail.bounds[0][2]};
    item.open(contexts, in);
    if (!in.beside) grid_wait();
    Sums sums;
    int folded = 0, apart = 0;  // chunks of this slice so far: in `sums`; stored one by one
    for (bool first = true; !item.is(tail.bounds[1]); first = false) {
        const i64 slice = (i64)item.row * (in.kv_heads * SLICES) + item.head;
        const i64 head = (i64)in.row_of[item.row] * (in.kv_heads * GROUP) + first_head(item.head);
        constexpr int PLACES = SPLITS_MAX * SLICE_HEADS;
        const Target to = {in.out + head * HEAD_DIM, in.partials + slice * (PLACES * HEAD_DIM),
                           in.sums + slice * PLACES, in.arrivals + slice, head_count(item.head)};
        if (!first) barrier_leave(EMPTY);
        barrier_sync<THREADS>(FULL);
        Sums next;
        combine_warps(next, tail);
        if (item.chunk == 0) {
            sums = next;
            folded = 1;
        } else if (folded > 0) {
            fold_chunk(sums, next);
            folded++;
        } else {
            store_chunk(to, next, item.chunk);
            apart++;
        }
        const bool is_whole = folded > 0 && item.end == item.span.end;
        const int chunks = (item.span.end - item.span.first + item.span.chunk - 1) / item.span.chunk;
        item.next(contexts, in);
        if (is_whole) {
#pragma unroll
            for (int v = 0; v < VECTORS; v++) {
                int i = element_of(v);
                if (i < to.count * HEAD_DIM) store_out(to, sums.o[v], sums.sum[v], i);
            }
        } else if (item.chunk == 0 || item.is(tail.bounds[1])) {
            if (folded > 0) store_chunk(to, sums, 0);
            int all_folded = arrive(tail, to.arrivals, folded + apart, folded, chunks);
            if (all_folded > 0) combine_chunks(to, all_folded, chunks);
        }
        if (item.chunk == 0) folded = apart = 0;
    }
}

// === entry ===

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
decode_attention(const elem* qkv, const elem* pages, elem* out, const int* context, const int* row_of,
                 const int* tables, float* partials, float2* sums, int* arrivals, int rows, int kv_heads,
                 int qkv_stride, int table_stride, int window, int beside, float scale) {
    extern __shared__ __align__(1024) u8 shared[];
    Tail& tail = *(Tail*)(shared + RING_BYTES);
    int* contexts = (int*)(shared + RING_BYTES + sizeof(Tail));
    const Parameters in = {qkv, pages, out, row_of, tables, partials, sums, arrivals, rows, kv_heads,
                           qkv_stride, table_stride, window, beside != 0, scale * 1.44269504f};
    // The bytes that pad a row are never loaded and must not be NaN.
    if (HEAD_DIM % 16 != 0) {
        for (int i = threadIdx.x * 16; i < RING_BYTES; i += THREADS * 16) *(uint4*)(shared + i) = uint4{};
    }
    grid_launch();
    plan(tail, contexts, context, in);
    if (threadIdx.x < WARPS * 32) read_items(shared, tail, contexts, in);
    else combine_items(tail, contexts, in);
    // Whatever follows waits for this kernel, and so for the one beside it.
    if (in.beside) grid_wait();
}
