// A row of logits in the shared memory of a cluster: reductions and searches over it.
//
// Each of CLUSTER blocks keeps a share of the row. Nothing is sorted. Mostly the few tokens that may
// pass the filters are listed in one block, which compares each with each (see `List`). Where they
// are too many, the k-th largest logit, and the last one of a nucleus, are found by counting keys in
// bins, 11, 11 and 10 bits at a time. Counts and weights are summed as integers or in one fixed
// order, so a row's result depends on nothing else.
//
// -DVOCAB: logits of a row. -DCLUSTER, -DRESIDENT, -DALIGNED, -DCHOOSE_THREADS: see below.
#pragma once
#include "sampling/logits.cuh"

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
#include "common/cluster.cuh"

constexpr int THREADS = CHOOSE_THREADS, WARPS = THREADS / 32;
// Four tokens with consecutive ids: one load, one block of random numbers.
constexpr int QUADS = (VOCAB + 3) / 4;
constexpr int SHARE = (QUADS + CLUSTER - 1) / CLUSTER;
// Quads that a thread has loaded at once: as many as there are registers for.
constexpr int QUADS_AT_ONCE = CLUSTER == 8 ? 3 : 2;
// The same where the row is first looked at.
constexpr int TURNS = (SHARE + THREADS - 1) / THREADS, CHUNKS = (TURNS + 7) / 8;
constexpr int CHUNK = (TURNS + CHUNKS - 1) / CHUNKS;
// Parts of a row whose likeliest tokens all blocks know, and lanes that look at one of them.
constexpr u32 PARTS = 128, PART_LANES = CLUSTER * THREADS / PARTS;
static_assert(PART_LANES <= 32 && PART_LANES >= CLUSTER, "lanes of one warp, of which each tells a peer");
// Which of the parts' likeliest tokens, in descending order, sets the floor of a list at most: about
// 270 tokens of the row are as likely as the 112th, where tokens are in no order.
constexpr u32 PLACES_MAX = 112;
// Candidates that a list holds: one for each thread.
constexpr u32 LIST_MAX = THREADS;

// Bins of a level of the radix search; three levels see all 32 bits of a key.
constexpr int BINS = 2048, BINS_EACH = BINS / THREADS;
// Of 32 bins: what blocks tell each other first.
constexpr int GROUPS = BINS / 32, GROUP_THREADS = 32 / BINS_EACH;
static_assert(CLUSTER <= GROUP_THREADS, "a thread of each group tells a peer");
// A bin of n tokens holds up to n * 2^WEIGHT_BITS, in 32 bits.
constexpr int WEIGHT_BITS = SHARE * 4 <= 131072 ? 14 : 12;

constexpr float LOG2_E = 1.4426950408889634f;
// -DTOP_MAX: the most alternatives that are listed beside a token.

// What each part of the row has come to: the key of its likeliest token, and four times the sum of its
// weights relative to that.
struct Parts {
    u64 keys[PARTS];
    float sums[PARTS];
};

struct alignas(16) ChooseShared {
    u32 bins[3][BINS];
    float groups[2][CLUSTER][GROUPS];
    u64 slots[2][CLUSTER];
    Parts parts[2];
    u64 warps[2][WARPS];
    u64 own_warps[2][WARPS];
    // Of the list: what this block has found, where that begins, and all; see `List`.
    u32 found, begin, candidates;
    // Whether the first block goes on by itself.
    u32 finishes;
    // Its floor, see `find_bound`; as `ordered`.
    u32 bound;
    // Of the row as the model computed it: the largest logit, and the logarithm of the sum of
    // exponentials relative to it. NaN if nobody asked, or the row has one.
    float most, log_sum;
    u32 listed;
    u32 list_tokens[TOP_MAX];
    float list_logits[TOP_MAX];
};

// === the row, as a block sees it ===

// A key that a search has found: what the weights of all smaller ones sum to, and the content of its bin.
struct Found {
    u32 key;
    float before, count;
};

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

// The tokens that may pass the filters, in the first block.
//
// They are those from a floor on. It is taken from what all blocks know already: there are k tokens
// at or above the k-th of the parts' likeliest, and few more.
struct List {
    u64 keys[LIST_MAX];
};
static_assert(sizeof(List) <= BINS * 4, "it fits into unused bins");

// Weights of a list are summed as integers, whose sums don't depend on an order.
constexpr float WEIGHT_UNIT = 0x1p40f;

struct Row {
    ChooseShared& shared;
    // This block's share of the row: `SHARE` quads from quad `first` on, minus infinity past the end.
    float4* values;
    u32 rank, first;
    // Which of the shared arrays the next reduction and the next level of a search use. Peers may
    // still read those of the one before, but none older: there was a barrier of the row since.
    u32 turn, level;
    // Which of `shared.parts` is valid.
    u32 view;

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

    // Joins a value of each thread of the block, all of which get the result. Successive ones must have
    // another `pair`, or a barrier between them.
    template <typename Op>
    __device__ u64 reduce_block(u32 pair, u64 x, Op op) {
#pragma unroll
        for (int lanes = 16; lanes > 0; lanes /= 2) x = op(x, __shfl_xor_sync(~0u, x, lanes));
        if (threadIdx.x % 32 == 0) shared.own_warps[pair][threadIdx.x / 32] = x;
        __syncthreads();
        x = shared.own_warps[pair][threadIdx.x % WARPS];
#pragma unroll
        for (int lanes = WARPS / 2; lanes > 0; lanes /= 2) x = op(x, __shfl_xor_sync(~0u, x, lanes));
        return x;
    }

    // Looks at the whole row once. Returns the key of the likeliest token; see `parts`, `total`.
    //
    // - load(quad): four logits of this block's share; `values` has them from then on.
    // - inverse: log2(e) / temperature. Weights are summed only if `sums`.
    // - begins: whether this is the row's first barrier, at which the blocks have arrived before.
    template <typename Load>
    __device__ __forceinline__ u64 survey(Load load, float inverse, bool sums, bool begins) {
        float best = -INFINITY, sum = 0.0f;
        int at = 0;
        bool nan = false;
#pragma unroll 1
        for (int base = threadIdx.x; base < SHARE; base += CHUNK * THREADS) {
            float4 v[CHUNK];
#pragma unroll
            for (int i = 0; i < CHUNK; i++) {
                v[i] = make_float4(-INFINITY, -INFINITY, -INFINITY, -INFINITY);
                if (base + i * THREADS < SHARE) v[i] = load(base + i * THREADS);
            }
            const float before = best;
#pragma unroll
            for (int i = 0; i < CHUNK; i++) {
                nan |= v[i].x != v[i].x || v[i].y != v[i].y || v[i].z != v[i].z || v[i].w != v[i].w;
                const float quad = quad_max(v[i]);
                if (quad > best) best = quad, at = base + i * THREADS;
            }
            if (!sums || best == -INFINITY) continue;
            sum *= 0.5f * twice_exp2(before - best, inverse);
            const auto weight = [&](float y) { return twice_exp2(y - best, inverse); };
#pragma unroll
            for (int i = 0; i < CHUNK; i++)
                sum += (weight(v[i].x) + weight(v[i].y)) + (weight(v[i].z) + weight(v[i].w));
        }
        u64 key = nan ? NAN_KEY : 0;
        if (!nan && best > -INFINITY) {
            const float4 v = values[at];
            const u32 token = (first + at) * 4 + (v.x == best ? 0 : v.y == best ? 1 : v.z == best ? 2 : 3);
            key = choice_key(best, token);
        }
        // Peers may still read those of the first.
        view = begins ? 0 : 1;
        Parts& parts = shared.parts[view];
#pragma unroll
        for (int lanes = PART_LANES / 2; lanes > 0; lanes /= 2)
            key = max_u64(key, __shfl_xor_sync(~0u, key, lanes));
        if (sums) {
            sum = best == -INFINITY ? 0.0f : sum * twice_exp2(best - key_logit(key), inverse);
#pragma unroll
            for (int lanes = PART_LANES / 2; lanes > 0; lanes /= 2)
                sum += __shfl_xor_sync(~0u, sum, lanes);
        }
        // All blocks have begun and cleared their bins.
        if (begins) cluster_wait();
        const u32 part = (rank * THREADS + threadIdx.x) / PART_LANES, peer = threadIdx.x % PART_LANES;
        if (peer < CLUSTER) {
            peer_store(peer_address(shared_address(&parts.keys[part]), peer), key);
            peer_store(peer_address(shared_address(&parts.sums[part]), peer), __float_as_uint(sum));
        }
        row_sync();
        const u32 lane = threadIdx.x % 32;
        key = 0;
#pragma unroll
        for (u32 i = 0; i < PARTS; i += 32) key = max_u64(key, parts.keys[i + lane]);
        return warp_max_u64(key);
    }

    // The sum of all weights, 2^((logit - best) * inverse), if the survey has summed them; and of the
    // parts' likeliest tokens alone.
    __device__ __forceinline__ float2 totals(float best, float inverse) const {
        const Parts& parts = shared.parts[view];
        float total = 0.0f, firsts = 0.0f;
#pragma unroll
        for (u32 i = threadIdx.x % 32; i < PARTS; i += 32) {
            const float weight = twice_exp2(key_logit(parts.keys[i]) - best, inverse);
            firsts += weight;
            total += weight * parts.sums[i];
        }
        return make_float2(warp_sum(total) / 8.0f, warp_sum(firsts) / 2.0f);
    }

    // The floor of a list: the logit of a part's likeliest token. Minus infinity if there are fewer.
    //
    // - places: at least so many tokens are to be there;
    // - wanted: or fewer, once their weights sum to this. Rounding may have two parts say that it is
    //   they that reach it: the likelier one does.
    __device__ float find_bound(float best, u32 places, float wanted, float inverse) {
        static_assert(THREADS == 4 * PARTS, "four threads to a part");
        const Parts& parts = shared.parts[view];
        const u64 own = parts.keys[threadIdx.x / 4];
        u32 place = 0;
        float larger = 0.0f;
#pragma unroll 8
        for (u32 i = threadIdx.x % 4; i < PARTS; i += 4) {
            const u64 other = parts.keys[i];
            if (other <= own) continue;
            place++;
            larger += exp2_or_zero((key_logit(other) - best) * inverse);
        }
#pragma unroll
        for (int lanes = 2; lanes > 0; lanes /= 2) {
            place += __shfl_xor_sync(~0u, place, lanes);
            larger += __shfl_xor_sync(~0u, larger, lanes);
        }
        const float upto = larger + exp2_or_zero((key_logit(own) - best) * inverse);
        const bool last = place + 1 == places, reached = place + 1 < places && upto >= wanted;
        if (own != 0 && threadIdx.x % 4 == 0 && larger * (1.0f - 0x1p-16f) < wanted && (last || reached))
            atomicMax(&shared.bound, (u32)(own >> 32));
        __syncthreads();
        return from_ordered(shared.bound);
    }

    __device__ __forceinline__ List& list() const { return *(List*)shared.bins[1]; }

    // Lists all logits from `floor` on in the first block, which learns how many there are: more than
    // it has listed if they are too many.
    __device__ u32 list_from(float floor) {
        List& own = list();
        // The first block lists its own in place.
        u32& found = rank == 0 ? shared.candidates : shared.found;
        each_quad([&](int i, float4 v) {
            if (quad_max(v) < floor) return;
            const float logits[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                if (logits[j] < floor || logits[j] == -INFINITY) continue;
                const u32 at = atomicAdd(&found, 1);
                if (at < LIST_MAX) own.keys[at] = choice_order(logits[j], (first + i) * 4 + j);
            }
        });
        if (CLUSTER > 1 && rank != 0) {
            __syncthreads();
            const u32 count = shared.found;
            if (count > 0) {
                if (threadIdx.x == 0)
                    shared.begin = peer_add(peer_address(shared_address(&shared.candidates), 0), count);
                __syncthreads();
                const u32 begin = shared.begin, to = peer_address(shared_address(own.keys), 0);
                for (u32 i = threadIdx.x; i < min(count, LIST_MAX) && begin + i < LIST_MAX; i += THREADS)
                    peer_store(to + (begin + i) * 8, own.keys[i]);
            }
        }
        row_sync();
        return shared.candidates;
    }

    // The smallest key such that the weights of tokens with that key or a smaller one sum to `target`,
    // or the largest key if they never do. Three levels of counting by 11, 11 and 10 bits.
    //
    // - count_tokens(level): adds this thread's tokens to the bins of a level.
    // - scale(key): what a bin's content is to be multiplied with; `key` is the smallest of the bin.
    // - range(from, to): a range of logits that has all those with keys in `from..=to`.
    template <typename Count, typename Scale, typename Range>
    __device__ Found smallest_key(float target, Count count_tokens, Scale scale, Range range) {
        u32 prefix = 0;
        float before = 0.0f, content = 0.0f;
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
            content = __shfl_sync(~0u, count, at);
            prefix = prefix << bits | min(group * 32 + at, (1u << bits) - 1);
        }
        return {prefix, before, content};
    }

    // The `k`-th largest logit, `k` at most `VOCAB`.
    __device__ float kth_largest(u32 k) {
        // Each part, or each thread, has a logit at least as large as the least of their maxima: few
        // others need counting.
        float bound = INFINITY;
        if (k <= PARTS) {
            const Parts& parts = shared.parts[view];
            for (u32 i = threadIdx.x % 32; i < PARTS; i += 32) bound = fminf(bound, key_logit(parts.keys[i]));
            bound = -warp_max(-bound);
        } else if (k <= CLUSTER * THREADS) {
            float most = -INFINITY;
            each_quad([&](int, float4 v) { most = fmaxf(most, quad_max(v)); });
            bound = reduce(most, Min());
        } else {
            bound = -INFINITY;
        }
        return kth_between(k, bound, INFINITY);
    }

    // The `k`-th largest of the logits from `low` to `high`, of which there must be as many.
    __device__ float kth_between(u32 k, float low, float high) {
        const auto count = [&](const Level& level) {
            each_quad_between(fmaxf(level.low, low), fminf(level.high, high), [&](int, float4 v) {
                each_of(v, [&](float y) {
                    const u32 key = ~ordered(y);
                    if (y >= low && y <= high && level.sees(key)) atomicAdd(&level.bins[level.bin(key)], 1u);
                });
            });
        };
        const auto scale = [](u32) { return 1.0f; };
        const auto range = [](u32 from, u32 to) {
            // Beyond the keys of the infinities lie those of NaNs.
            const u32 most = ~ordered(INFINITY), least = ~ordered(-INFINITY);
            return make_float2(from_ordered(~min(to, least)), from_ordered(~max(from, most)));
        };
        return from_ordered(~smallest_key((float)k, count, scale, range).key);
    }

    // The smallest logit of the likeliest tokens at or above `cut` whose probabilities sum to at least
    // `top_p`.
    //
    // - inverse: log2(e) / temperature.
    // - total: of all weights at or above `cut`.
    __device__ float nucleus(float best, float inverse, float cut, float total, float top_p) {
        const float target = fmaxf(fmaxf(top_p, 0.0f) * total, 1e-30f);
        // All tokens less likely than 2^-range together don't hold half of what may be left out.
        const float left_out = fmaxf(total - target, total * 1e-7f);
        const float range = fmaxf(log2f(2.0f * VOCAB / left_out), 1.0f);
        const float to_key = 4294967296.0f / range, to_log2 = range / 4294967296.0f;
        const auto key_of = [&](float y) { return __float2uint_rz((best - y) * inverse * to_key); };
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
            const float slack = fabsf(best) * 0x1p-22f + 0x1p-140f;
            return make_float2(best - (to + 1.0f) * to_log2 / inverse * (1.0f + 0x1p-20f) - slack,
                               best - from * to_log2 / inverse * (1.0f - 0x1p-20f) + slack);
        };
        const Found last = smallest_key(target, count, scale, logits);
        if (last.key == ~0u) return cut;
        // Where it is hot, many logits have one key: what differs between their weights is lost in the
        // sum. Of these, the likeliest are kept.
        const double wanted = ((double)fmaxf(top_p, 0.0f) * total - last.before) * exp2f(last.key * to_log2);
        const double have = rintf(last.count * exp2f(-WEIGHT_BITS));
        const u32 kept = (u32)fmax(fmin(ceil(wanted), have), 1.0);
        u64 ends = 0;
        const float2 near = logits(last.key, last.key);
        each_quad_between(fmaxf(near.x, cut), near.y, [&](int, float4 v) {
            each_of(v, [&](float y) {
                if (y >= cut && key_of(y) == last.key)
                    ends = Ends()(ends, (u64)ordered(y) << 32 | (u32)~ordered(y));
            });
        });
        ends = reduce(ends, Ends());
        // By rounding, the sum may say it is reached after the last token of a bin.
        if (ends == 0) return fmaxf(cut, lowest([&](float y) { return y >= best || key_of(y) <= last.key; }, best));
        const float most = from_ordered((u32)(ends >> 32)), least = from_ordered(~(u32)ends);
        if (most == least) return most;
        return kth_between(kept, least, most);
    }

    // The `wanted` likeliest tokens to the list of the first block, in any order.
    __device__ void list_likeliest(u32 wanted) {
        const float last = kth_largest(wanted);
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
        // Fewer than wanted; the first among the equals of the last make up the rest: those of 0 come
        // before those of -0, lower ids before others.
        u32 have = peer_load(listed), after = 0;
        for (; have < wanted; have++) {
            u32 next = ~0u;
            each_quad([&](int i, float4 v) {
                const u32 token = (first + i) * 4;
                const float logits[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
                for (u32 j = 0; j < 4; j++) {
                    const u32 place = (__float_as_uint(logits[j]) & 0x80000000u) | (token + j);
                    if (logits[j] == last && place >= after && token + j < VOCAB) next = min(next, place);
                }
            });
            next = ~(u32)reduce((u64)~next, Max());
            if (rank == 0 && threadIdx.x == 0) {
                shared.list_tokens[have] = next & 0x7fffffffu;
                shared.list_logits[have] = copysignf(last, next & 0x80000000u ? -1.0f : 1.0f);
            }
            after = next + 1;
        }
        // The list is whole, and all have read the first block's count: it may end before they do.
        row_sync();
    }
};
