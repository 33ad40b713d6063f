// A row of logits in the shared memory of a cluster: reductions and searches over it.
//
// Each of CLUSTER blocks keeps a share of the row. Nothing is sorted: the k-th largest logit, and the
// last one of a nucleus, are found by counting keys in bins, 11, 11 and 10 bits at a time. Counts
// and weights are summed as integers within a bin and in one fixed order across bins, so a row's
// result depends on nothing else.
//
// -DVOCAB: logits of a row. -DCLUSTER, -DRESIDENT, -DALIGNED, -DCHOOSE_THREADS: see below.
#pragma once
#include "common.cuh"

#define INFINITY __int_as_float(0x7f800000)

// Threads of a block.
#ifndef CHOOSE_THREADS
#define CHOOSE_THREADS 512
#endif
#ifndef VOCAB
#define VOCAB 128256
#endif
// Blocks that share a row.
#ifndef CLUSTER
#define CLUSTER 1
#endif
// Whether a block's share of a row stays in shared memory; otherwise it is in `scratch`.
#ifndef RESIDENT
#define RESIDENT 0
#endif
// Whether rows begin at multiples of 16 bytes.
#ifndef ALIGNED
#define ALIGNED 1
#endif
#if CLUSTER > 1 && !RESIDENT
#error "blocks share rows only through shared memory"
#endif

constexpr int THREADS = CHOOSE_THREADS, WARPS = THREADS / 32;
// Four tokens with consecutive ids: one load, one block of random numbers.
constexpr int QUADS = (VOCAB + 3) / 4;
constexpr int SHARE = (QUADS + CLUSTER - 1) / CLUSTER;
// Quads that a thread has loaded at once: as many as there are registers for.
constexpr int QUADS_AT_ONCE = CLUSTER == 8 ? 4 : 2;

// Bins of a level of the radix search; three levels see all 32 bits of a key.
constexpr int BINS = 2048, BINS_EACH = BINS / THREADS;
// Of 32 bins: what blocks tell each other first.
constexpr int GROUPS = BINS / 32, GROUP_THREADS = 32 / BINS_EACH;
static_assert(CLUSTER <= GROUP_THREADS, "a thread of each group tells a peer");
// A bin of n tokens holds up to n * 2^WEIGHT_BITS, in 32 bits.
constexpr int WEIGHT_BITS = SHARE * 4 <= 131072 ? 14 : 12;

constexpr float LOG2_E = 1.4426950408889634f;
// The most alternatives that are listed beside a token.
constexpr int TOP_MAX = 20;

struct alignas(16) ChooseShared {
    u32 bins[3][BINS];
    float groups[2][CLUSTER][GROUPS];
    u64 slots[2][CLUSTER];
    u64 warps[2][WARPS];
    u32 listed;
    u32 list_tokens[TOP_MAX];
    float list_logits[TOP_MAX];
};

// === the order of logits ===

// Maps floats to integers of the same order; -0 and 0 are one number.
__device__ __forceinline__ u32 ordered(float x) {
    const u32 bits = __float_as_uint(x + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

constexpr u64 NAN_KEY = ~0ull;

// Larger for a larger logit, then for a lower token.
__device__ __forceinline__ u64 choice_order(float logit, u32 token) {
    return (u64)ordered(logit) << 32 | (u32)~token;
}

// The same, but 0 for what can't be chosen, and the most for a NaN.
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

// === clusters ===

// With one block to a row there are no peers, and the instructions that need sm_90 aren't compiled.
#if CLUSTER > 1
#define PEER_SPACE "shared::cluster"
#else
#define PEER_SPACE "shared"
#endif

__device__ __forceinline__ u32 cluster_rank() {
    u32 rank = 0;
#if CLUSTER > 1
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
#endif
    return rank;
}

// Where the block of another rank has what is at `address` here.
__device__ __forceinline__ u32 peer_address(u32 address, u32 rank) {
#if CLUSTER > 1
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(address), "r"(rank));
#endif
    return address;
}

__device__ __forceinline__ u32 peer_load(u32 address) {
    u32 x;
    asm volatile("ld." PEER_SPACE ".u32 %0, [%1];" : "=r"(x) : "r"(address) : "memory");
    return x;
}

__device__ __forceinline__ void peer_store(u32 address, u32 x) {
    asm volatile("st." PEER_SPACE ".u32 [%0], %1;" ::"r"(address), "r"(x) : "memory");
}

__device__ __forceinline__ void peer_store(u32 address, u64 x) {
    asm volatile("st." PEER_SPACE ".u64 [%0], %1;" ::"r"(address), "l"(x) : "memory");
}

__device__ __forceinline__ u32 peer_add(u32 address, u32 x) {
    u32 old;
    asm volatile("atom." PEER_SPACE ".add.u32 %0, [%1], %2;" : "=r"(old) : "r"(address), "r"(x) : "memory");
    return old;
}

__device__ __forceinline__ void cluster_arrive() {
#if CLUSTER > 1
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}

__device__ __forceinline__ void cluster_wait() {
#if CLUSTER > 1
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// All threads of all blocks that share the row.
__device__ __forceinline__ void row_sync() {
    if (CLUSTER == 1) return __syncthreads();
    cluster_arrive();
    cluster_wait();
}

// === the row, as a block sees it ===

struct Sum {
    __device__ float operator()(float a, float b) const { return a + b; }
};
struct Max {
    __device__ u64 operator()(u64 a, u64 b) const { return a > b ? a : b; }
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

// A level of the radix search: bins by `bits` bits of keys that begin with `prefix`.
struct Level {
    u32* bins;
    u32 prefix;
    int shift, bits;
    // All logits with such keys are in between, and perhaps others.
    float low, high;

    __device__ __forceinline__ bool sees(u32 key) const {
        return shift == 21 || key >> (shift + bits) == prefix;
    }
    __device__ __forceinline__ u32 bin(u32 key) const { return key >> shift & ((1u << bits) - 1); }
    // The smallest key of the bin that `key` is in.
    __device__ __forceinline__ u32 start(u32 key) const { return key >> shift << shift; }
};

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

struct Row {
    ChooseShared& shared;
    // This block's share of the row: `SHARE` quads from quad `first` on, minus infinity past the end.
    float4* values;
    u32 rank, first;
    // Which of the shared arrays the next reduction and the next level of a search use. Peers may
    // still read those of the one before, but none older: there was a barrier of the row since.
    u32 turn, level;

    // Calls `visit(quad, values)` for each quad of this thread.
    template <typename Visit>
    __device__ __forceinline__ void each_quad(Visit visit) const {
#pragma unroll QUADS_AT_ONCE
        for (int i = threadIdx.x; i < SHARE; i += THREADS) visit(i, values[i]);
    }

    // As above, for all quads with a logit in a range, and perhaps others.
    template <typename Visit>
    __device__ __forceinline__ void each_quad_between(float low, float high, Visit visit) const {
        each_quad([&](int i, float4 v) {
            const float most = fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w));
            const float least = fminf(fminf(v.x, v.y), fminf(v.z, v.w));
            if (most >= low && least <= high) visit(i, v);
        });
    }

    template <typename Visit>
    __device__ __forceinline__ void each(Visit visit) const {
        each_quad([&](int, float4 v) { each_of(v, visit); });
    }

    // Joins a value of each thread of the row, in one fixed order. All get the result.
    template <typename Op, typename T>
    __device__ T reduce(T x, Op op) {
        const u32 pair = turn++ & 1;
#pragma unroll
        for (int lanes = 16; lanes > 0; lanes /= 2) x = op(x, __shfl_xor_sync(~0u, x, lanes));
        if (threadIdx.x % 32 == 0) shared.warps[pair][threadIdx.x / 32] = to_word(x);
        __syncthreads();
        from_word(shared.warps[pair][threadIdx.x % WARPS], x);
#pragma unroll
        for (int lanes = WARPS / 2; lanes > 0; lanes /= 2) x = op(x, __shfl_xor_sync(~0u, x, lanes));
        if (CLUSTER == 1) return x;
        if (threadIdx.x < CLUSTER)
            peer_store(peer_address(shared_address(&shared.slots[pair][rank]), threadIdx.x), to_word(x));
        row_sync();
        from_word(shared.slots[pair][0], x);
#pragma unroll
        for (int i = 1; i < CLUSTER; i++) {
            T y;
            from_word(shared.slots[pair][i], y);
            x = op(x, y);
        }
        return x;
    }

    // The key of the likeliest token; `most` becomes the largest logit of this thread.
    __device__ u64 likeliest(float& most) {
        float best = -INFINITY;
        int at = 0;
        each_quad([&](int i, float4 v) {
            const float quad = fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w));
            if (quad > best) best = quad, at = i;
        });
        most = best;
        const float4 v = values[at];
        const u32 token = (first + at) * 4 + (v.x == best ? 0 : v.y == best ? 1 : v.z == best ? 2 : 3);
        return reduce(choice_key(best, token), Max());
    }

    // The smallest key such that the weights of tokens with that key or a smaller one sum to `target`,
    // or the largest key if they never do. Three levels of counting by 11, 11 and 10 bits.
    //
    // - count_tokens(level): adds this thread's tokens to the bins of a level.
    // - scale(key): what a bin's content is to be multiplied with; `key` is the smallest of the bin.
    // - range(from, to): a range of logits that has all those with keys in `from..=to`.
    template <typename Count, typename Scale, typename Range>
    __device__ u32 smallest_key(float target, Count count_tokens, Scale scale, Range range) {
        u32 prefix = 0;
        float before = 0.0f;
        const u32 lane = threadIdx.x % 32;
#pragma unroll 1
        for (int shift = 21; shift >= 0; shift = shift == 21 ? 10 : shift - 10) {
            u32* bins = shared.bins[level % 3];
            float(*groups)[GROUPS] = shared.groups[level % 2];
            u32* cleared = shared.bins[++level % 3];
            const int bits = shift == 0 ? 10 : 11;
            const u32 from = shift == 21 ? 0 : prefix << (shift + bits);
            const float2 logits = range(from, shift == 21 ? ~0u : from + ((1u << (shift + bits)) - 1));
            count_tokens(Level{bins, prefix, shift, bits, logits.x, logits.y});
            __syncthreads();
            const auto mass = [&](u32 bin, float count) {
                return count * scale((prefix << bits | bin) << shift);
            };
            float sum = 0.0f;
#pragma unroll
            for (int i = 0; i < BINS_EACH; i++) {
                const u32 bin = threadIdx.x * BINS_EACH + i;
                sum += mass(bin, (float)bins[bin]);
                cleared[bin] = 0;
            }
#pragma unroll
            for (int lanes = GROUP_THREADS / 2; lanes > 0; lanes /= 2)
                sum += __shfl_xor_sync(~0u, sum, lanes);
            const u32 own = threadIdx.x / GROUP_THREADS, peer = threadIdx.x % GROUP_THREADS;
            if (peer < CLUSTER)
                peer_store(peer_address(shared_address(&groups[rank][own]), peer), __float_as_uint(sum));
            row_sync();
            // From here on, each warp finds the same: first the group where the target is reached.
            float first = 0.0f, second = 0.0f;
#pragma unroll
            for (int i = 0; i < CLUSTER; i++) {
                first += groups[i][2 * lane];
                second += groups[i][2 * lane + 1];
            }
            float upto = before + warp_scan(first + second);
            u32 reached = __ballot_sync(~0u, upto >= target);
            u32 at = reached ? __ffs(reached) - 1 : 31;
            if (at > 0) before = __shfl_sync(~0u, upto, at - 1);
            first = __shfl_sync(~0u, first, at);
            u32 group = 2 * at;
            if (before + first < target) before += first, group++;
            // Then the bin.
            const u32 bin = group * 32 + lane;
            float count = 0.0f;
#pragma unroll
            for (u32 i = 0; i < CLUSTER; i++)
                count += (float)peer_load(peer_address(shared_address(&bins[bin]), i));
            upto = before + warp_scan(mass(bin, count));
            reached = __ballot_sync(~0u, upto >= target);
            at = reached ? __ffs(reached) - 1 : 31;
            if (at > 0) before = __shfl_sync(~0u, upto, at - 1);
            prefix = prefix << bits | min(group * 32 + at, (1u << bits) - 1);
        }
        return prefix;
    }

    // The `k`-th largest logit. `most` is the largest of this thread, `k` at most `VOCAB`.
    __device__ float kth_largest(u32 k, float most) {
        // Each warp, or each thread, has a logit at least as large as the least of their maxima: few
        // others need counting.
        float bound = -INFINITY;
        if (k <= CLUSTER * WARPS) bound = reduce(warp_max(most), Min());
        else if (k <= CLUSTER * THREADS) bound = reduce(most, Min());
        const auto count = [&](const Level& level) {
            each_quad_between(fmaxf(level.low, bound), level.high, [&](int, float4 v) {
                each_of(v, [&](float y) {
                    const u32 key = ~ordered(y);
                    if (y >= bound && level.sees(key)) atomicAdd(&level.bins[level.bin(key)], 1u);
                });
            });
        };
        const auto scale = [](u32) { return 1.0f; };
        const auto range = [](u32 from, u32 to) {
            // Beyond the keys of the infinities lie those of NaNs.
            const u32 most = ~ordered(INFINITY), least = ~ordered(-INFINITY);
            return make_float2(from_ordered(~min(to, least)), from_ordered(~max(from, most)));
        };
        return from_ordered(~smallest_key((float)k, count, scale, range));
    }

    // The smallest logit of the likeliest tokens at or above `cut` whose probabilities sum to at least
    // `top_p`, to within 2^-32 of the range that is searched.
    //
    // - inverse: log2(e) / temperature.
    __device__ float nucleus(float best, float inverse, float cut, float top_p) {
        float mine = 0.0f;
        each([&](float y) { mine += y >= cut ? exp2f((y - best) * inverse) : 0.0f; });
        const float total = reduce(mine, Sum());
        const float target = fmaxf(fmaxf(top_p, 0.0f) * total, 1e-30f);
        // All tokens less likely than 2^-range together don't hold half of what may be left out.
        const float left_out = fmaxf(total - target, total * 1e-7f);
        const float range = fmaxf(log2f(2.0f * VOCAB / left_out), 1.0f);
        const float to_key = inverse * (4294967296.0f / range), to_log2 = range / 4294967296.0f;
        const auto key_of = [&](float y) { return __float2uint_rz((best - y) * to_key); };
        const auto count = [&](const Level& level) {
            each_quad_between(fmaxf(level.low, cut), level.high, [&](int, float4 v) {
                each_of(v, [&](float y) {
                    const u32 key = key_of(y);
                    if (y < cut || key == ~0u || !level.sees(key)) return;
                    // Relative to the likeliest of its bin, so that no bin's sum is coarse.
                    const float log2_weight = level.start(key) * to_log2 - (best - y) * inverse;
                    const float weight = exp2f(log2_weight + WEIGHT_BITS);
                    atomicAdd(&level.bins[level.bin(key)], (u32)__float2int_rn(weight));
                });
            });
        };
        const auto scale = [&](u32 key) { return exp2f(-(key * to_log2) - WEIGHT_BITS); };
        const auto logits = [&](u32 from, u32 to) {
            // A little more than the keys say, for rounding.
            const float slack = fabsf(best) * 0x1p-22f, unit = to_log2 / inverse;
            return make_float2(best - to * unit * (1.0f + 0x1p-20f) - slack,
                               best - from * unit * (1.0f - 0x1p-20f) + slack);
        };
        const u32 last = smallest_key(target, count, scale, logits);
        if (last == ~0u) return cut;
        return fmaxf(cut, lowest([&](float y) { return y >= best || key_of(y) <= last; }, best));
    }

    // The `wanted` likeliest tokens to the list of the first block, in any order.
    __device__ void list_likeliest(u32 wanted, float most) {
        const float last = kth_largest(wanted, most);
        const u32 listed = peer_address(shared_address(&shared.listed), 0);
        const u32 tokens = peer_address(shared_address(shared.list_tokens), 0);
        const u32 logits = peer_address(shared_address(shared.list_logits), 0);
        const auto list = [&](u32 token, float logit) {
            const u32 at = peer_add(listed, 1);
            peer_store(tokens + at * 4, token);
            peer_store(logits + at * 4, __float_as_uint(logit));
        };
        each_quad([&](int i, float4 v) {
            if (fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w)) <= last) return;
            const u32 token = (first + i) * 4;
            if (v.x > last) list(token, v.x);
            if (v.y > last) list(token + 1, v.y);
            if (v.z > last) list(token + 2, v.z);
            if (v.w > last) list(token + 3, v.w);
        });
        row_sync();
        // Fewer than wanted; the lowest ids among the equals of the last make up the rest.
        u32 have = peer_load(listed), after = 0;
        for (; have < wanted; have++) {
            u32 next = ~0u;
            each_quad([&](int i, float4 v) {
                const u32 token = (first + i) * 4;
                const float logits[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
                for (u32 j = 0; j < 4; j++)
                    if (logits[j] == last && token + j >= after && token + j < VOCAB)
                        next = min(next, token + j);
            });
            const u32 token = ~(u32)reduce((u64)~next, Max());
            if (rank == 0 && threadIdx.x == 0) {
                shared.list_tokens[have] = token;
                shared.list_logits[have] = last;
            }
            after = token + 1;
        }
        // The list is whole, and all have read the first block's count: it may end before they do.
        row_sync();
    }
};
