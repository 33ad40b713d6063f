// Chooses tokens from logits, as engine/src/sampler.rs does.
//
//   greedy  the likeliest token of each plain greedy row
//   choose  everything else: penalties, bias, bans, temperature, top-k, top-p, min-p, Gumbel's choice,
//           log probabilities; and the scores of given tokens
//
// The filters keep every token at or above one value. The choice is argmax(logit / temperature +
// noise), the noise being a function of (seed, choice, index, token). `greedy` reads logits once and
// is bound by that; `choose` reads them once into shared memory and passes over them there.
#include "sampling/sampling.cuh"

// What a request wants of its row of logits.
enum Mode : u32 { GREEDY = MODE_GREEDY, CHOOSE = MODE_CHOOSE, SCORE = MODE_SCORE };
enum Status : u32 { OK = 0, NOT_FINITE = STATUS_NOT_FINITE, NO_CANDIDATE = 2 };

struct Request {
    // Row of logits; negative for a padding entry, which gives nothing.
    int row;
    u32 mode;
    float temperature;
    u32 top_k;
    float top_p;
    float min_p;
    u32 seed_low, seed_high;
    u32 choice, index;
    // The token to score.
    u32 given;
    // Alternatives to return, or -1 for no log probabilities.
    int top;
    // Its edits: edits[first_edit .. first_edit + edits].
    u32 first_edit, edits;
    u32 reserved[2];
};
static_assert(sizeof(Request) == REQUEST_BYTES, "as the host writes it");

struct Choice {
    u32 token;
    u32 status;
    float logprob;
    u32 top;
    u32 top_tokens[TOP_MAX];
    float top_logprobs[TOP_MAX];
};
static_assert(sizeof(Choice) == CHOICE_BYTES, "as the host reads it");

// === greedy ===

// A row's state between its blocks: zero before and after.
struct alignas(16) GreedyRow {
    u64 best;
    u32 done;
    u32 reserved;
};
static_assert(sizeof(GreedyRow) == GREEDY_STATE_BYTES, "as much as the host takes");

// - logits: f32 [any, stride], `vocab` of each row; stride a multiple of 4.
// - requests, choices, tokens: one per row of the grid; those that aren't plain greedy are left alone.
// - state: [rows], zeroed once.
// Several blocks share a row; the last to arrive writes the result. A maximum doesn't depend on who
// came first.
// Grid: (splits, requests), GREEDY_THREADS threads.
extern "C" __global__ void __launch_bounds__(GREEDY_THREADS)
    greedy(const float* __restrict__ logits, i64 stride, int vocab, const Request* __restrict__ requests,
           Choice* __restrict__ choices, u32* __restrict__ tokens, GreedyRow* __restrict__ state) {
    __shared__ u64 bests[GREEDY_THREADS / 32];
    grid_launch();
    const Request& request = requests[blockIdx.y];
    const int row = request.row;
    const bool skipped = row < 0 || request.mode != GREEDY;
    grid_wait();
    if (skipped) return;
    const float4* from = (const float4*)(logits + row * stride);
    const int vectors = vocab / 4, step = gridDim.x * GREEDY_THREADS;
    // The likeliest of a thread's own tokens, which come in ascending order: a later equal loses.
    float best = -INFINITY;
    u32 token = 0;
    bool nan = false;
    const auto look = [&](float logit, u32 at) {
        nan |= logit != logit;
        if (logit > best) best = logit, token = at;
    };
    int v = blockIdx.x * GREEDY_THREADS + threadIdx.x;
    for (; v + 3 * step < vectors; v += 4 * step) {
        float4 x[4];
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] = from[v + i * step];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const u32 at = (u32)(v + i * step) * 4;
            look(x[i].x, at), look(x[i].y, at + 1), look(x[i].z, at + 2), look(x[i].w, at + 3);
        }
    }
    for (; v < vectors; v += step) {
        const float4 x = from[v];
        const u32 at = (u32)v * 4;
        look(x.x, at), look(x.y, at + 1), look(x.z, at + 2), look(x.w, at + 3);
    }
    if (blockIdx.x == 0 && threadIdx.x < vocab % 4) {
        const u32 at = vectors * 4 + threadIdx.x;
        look(logits[row * stride + at], at);
    }
    const u64 key = warp_max_u64(nan ? NAN_KEY : choice_key(best, token));
    if (threadIdx.x % 32 == 0) bests[threadIdx.x / 32] = key;
    __syncthreads();
    if (threadIdx.x != 0) return;
    u64 most = bests[0];
#pragma unroll
    for (int i = 1; i < GREEDY_THREADS / 32; i++) most = max_u64(most, bests[i]);
    GreedyRow& shared_row = state[blockIdx.y];
    atomicMax(&shared_row.best, most);
    __threadfence();
    if (atomicAdd(&shared_row.done, 1) != gridDim.x - 1) return;
    __threadfence();
    most = atomicExch(&shared_row.best, 0ull);
    shared_row.done = 0;
    const u32 status = is_finite_key(most) ? OK : NOT_FINITE;
    // A faulty row feeds token 0 to the next step, whose output nobody reads.
    const u32 chosen = status == OK ? ~(u32)most : 0;
    Choice& choice = choices[blockIdx.y];
    choice.token = chosen;
    choice.status = status;
    choice.logprob = 0.0f;
    choice.top = 0;
    tokens[blockIdx.y] = chosen;
}

// === noise ===

// Noise of this size or more never occurs, see the host's sampler.
constexpr float NOISE_MAX = 23.0f;


__device__ __forceinline__ uint4 philox(uint4 c, u32 key0, u32 key1) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const u64 first = (u64)0xD2511F53u * c.x, second = (u64)0xCD9E8D57u * c.z;
        c = make_uint4((u32)(second >> 32) ^ c.y ^ key0, (u32)second, (u32)(first >> 32) ^ c.w ^ key1,
                       (u32)first);
        key0 += 0x9E3779B9u, key1 += 0xBB67AE85u;
    }
    return c;
}

__device__ __forceinline__ float uniform(u32 word) {
    // Rounding may have reached 1, where the logarithm ends.
    return fminf(((float)word + 0.5f) * 0x1p-32f, 1.0f - 0x1p-24f);
}

// Standard Gumbel noise: -ln(-ln(1 - u)).
__device__ __forceinline__ float gumbel(float u) { return -logf(-log1pf(-u)); }

struct Draw {
    const Request& request;
    float best, inverse;

    __device__ __forceinline__ uint4 words(u32 quad) const {
        return philox(make_uint4(quad, request.index, request.choice, 0), request.seed_low,
                      request.seed_high);
    }

    // As the host divides: the threshold and the draw see the same number.
    __device__ __forceinline__ float scaled(float y) const {
        return __fdiv_rn(__fsub_rn(y, best), request.temperature);
    }

    // The token with the largest sum of scaled logit and noise among those at or above `cut`.
    __device__ u64 draw(Row& row, float cut, u32 likeliest) const {
        const uint4 first = words(likeliest / 4);
        const u32 low = likeliest & 1 ? first.y : first.x, high = likeliest & 1 ? first.w : first.z;
        const float start = gumbel(uniform(likeliest & 2 ? high : low));
        float most = start;
        u64 chosen = choice_key(start, likeliest);
        // Below this, not even the largest noise would win.
        const float hopeless = (start - NOISE_MAX) * LOG2_E - 0.01f;
        row.each_quad([&](int i, float4 v) {
            const float quad = fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w));
            if (quad < cut || (quad - best) * inverse < hopeless) return;
            const u32 at = row.first + i;
            const uint4 random = words(at);
            const float logits[4] = {v.x, v.y, v.z, v.w};
            const u32 word[4] = {random.x, random.y, random.z, random.w};
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                // P(noise > x) < exp(-x), and small `u` is large noise: no logarithm for the hopeless.
                const float u = uniform(word[j]);
                const float reach = exp2f((logits[j] - best) * inverse - most * LOG2_E);
                if (logits[j] < cut || u > 1.001f * reach) continue;
                const float score = __fadd_rn(scaled(logits[j]), gumbel(u));
                const u64 key = choice_key(score, at * 4 + j);
                if (key > chosen) chosen = key, most = score;
            }
        });
        return row.reduce(chosen, Max());
    }
};

// === choose ===

// One token's penalties, bias or ban.
struct Edit {
    u32 token;
    // Divides a positive logit, multiplies a negative one; 1 if the token isn't to be penalised.
    float repetition;
    // Frequency times count plus presence.
    float subtract;
    // Minus infinity for a ban.
    float bias;
};
static_assert(sizeof(Edit) == EDIT_BYTES, "as the host writes it");

__device__ __forceinline__ float edited(float y, const Edit& edit) {
    if (edit.bias == -INFINITY) return -INFINITY;
    y = y < 0.0f ? __fmul_rn(y, edit.repetition) : __fdiv_rn(y, edit.repetition);
    y = __fadd_rn(__fsub_rn(y, edit.subtract), edit.bias);
    // The difference of two infinities can't be chosen.
    return y == y ? y : -INFINITY;
}

// Four logits of this block's share, which are kept in `values`.
__device__ __forceinline__ float4 load_quad(const Row& row, const float* logits, int i) {
    const u32 token = (row.first + i) * 4;
    float4 v;
    if (ALIGNED && token + 4 <= VOCAB) {
        v = *(const float4*)(logits + token);
    } else {
        v.x = token < VOCAB ? logits[token] : -INFINITY;
        v.y = token + 1 < VOCAB ? logits[token + 1] : -INFINITY;
        v.z = token + 2 < VOCAB ? logits[token + 2] : -INFINITY;
        v.w = token + 3 < VOCAB ? logits[token + 3] : -INFINITY;
    }
    row.values[i] = v;
    return v;
}

__device__ __forceinline__ bool has_top_k(const Request& request) {
    return request.top_k > 0 && request.top_k < VOCAB;
}

// log2(e) / temperature.
__device__ __forceinline__ float inverse_of(const Request& request) {
    return fminf(LOG2_E / request.temperature, 3e38f);
}

// How many alternatives to return.
__device__ __forceinline__ u32 alternatives(const Request& request) {
    return max(min(min(request.top, TOP_MAX), VOCAB), 0);
}

// Whether the sum of all weights is worth having from the start.
__device__ __forceinline__ bool needs_total(const Request& request) {
    return request.mode == CHOOSE && request.temperature > 0.0f && request.top_p < 1.0f &&
           !has_top_k(request);
}

// The key of the token that is chosen from a list of `count` candidates, by all threads of the first
// block: each candidate is compared with each. 0 if they don't have the nucleus.
//
// - total: of all weights of the row, if there is no top-k.
// - bound: all tokens that are as likely as this one are listed.
// - commit(): called when it is certain that there will be a result, or that there won't.
template <typename Commit>
__device__ u64 choose_listed(Row& row, const Draw& draw, u32 count, float total, float bound, Commit commit) {
    const Request& request = draw.request;
    const List& list = row.list();
    u64* weights = (u64*)row.shared.bins[0];
    float* scaled = (float*)row.shared.bins[2];
    const bool limited = has_top_k(request), nuclear = request.top_p < 1.0f;
    const float top_p = fmaxf(request.top_p, 0.0f);
    if (count > LIST_MAX) return commit(false), 0;
    u64 weight = 0;
    if (threadIdx.x < count) {
        const float logit = key_logit(list.keys[threadIdx.x]), x = draw.scaled(logit);
        weight = __float2ull_rn(twice_exp2(x, LOG2_E) * (WEIGHT_UNIT / 2.0f));
        scaled[threadIdx.x] = x;
        if (limited) bound = -INFINITY;
        if (logit < bound) weight = 0;
    }
    double wanted = (double)top_p * total * WEIGHT_UNIT;
    if (nuclear && !limited && (double)row.reduce_block(0, weight, Add()) < wanted) return commit(false), 0;
    commit(true);
    if (threadIdx.x < count) weights[threadIdx.x] = weight;
    __syncthreads();
    // Threads that share a candidate, side by side.
    const u32 shift = count <= 32 ? 4 : count <= 64 ? 3 : count <= 128 ? 2 : count <= 256 ? 1 : 0;
    const u32 i = threadIdx.x >> shift, sharers = 1u << shift, share = threadIdx.x & (sharers - 1);
    const float x = i < count ? scaled[i] : INFINITY;
    u32 larger = 0;
    u64 before = 0;
#pragma unroll 4
    for (u32 j = share; j < count; j += sharers)
        if (scaled[j] > x) larger++, before += weights[j];
    for (u32 lanes = sharers / 2; lanes > 0; lanes /= 2) {
        larger += __shfl_xor_sync(~0u, larger, lanes);
        before += __shfl_xor_sync(~0u, before, lanes);
    }
    bool kept = i < count && share == 0 && (!limited || larger < request.top_k);
    if (nuclear) {
        if (limited) wanted = (double)top_p * (double)row.reduce_block(1, kept ? weights[i] : 0, Add());
        kept &= larger == 0 || (double)before < wanted;
    }
    if (request.min_p > 0.0f) kept &= x >= logf(fminf(request.min_p, 1.0f));
    u64 chosen = 0;
    if (kept) {
        const u32 token = ~(u32)list.keys[i];
        const uint4 words = draw.words(token / 4);
        const u32 low = token & 1 ? words.y : words.x, high = token & 1 ? words.w : words.z;
        const float noise = gumbel(uniform(token & 2 ? high : low));
        chosen = choice_key(__fadd_rn(x, noise), token);
    }
    return row.reduce_block(0, chosen, Max());
}

// Tries to choose from a list. Returns whether that is done, and if so, in the first block, the key.
__device__ __forceinline__ bool choose_by_list(Row& row, const Draw& draw, u64& chosen) {
    const Request& request = draw.request;
    const bool limited = has_top_k(request);
    if (limited ? request.top_k > PLACES_MAX : request.top_p >= 1.0f) return false;
    float total = 0.0f, wanted = INFINITY;
    if (!limited) {
        const float2 totals = row.totals(draw.best, draw.inverse);
        total = totals.x, wanted = fmaxf(request.top_p * total, 1e-30f);
        // A list, of about two tokens to a part, won't have the nucleus.
        if (wanted > 3.0f * totals.y) return false;
    }
    const float bound = row.find_bound(draw.best, limited ? request.top_k : PLACES_MAX, wanted, draw.inverse);
    // Logits that are equal once divided are listed together: those of about the same distance to the
    // best, and, where it is hot, those whose quotients aren't normal numbers.
    const float slack = fmaxf(draw.best - bound, fabsf(bound)) * 0x1p-21f + request.temperature * 0x1p-147f;
    const u32 count = row.list_from(bound == -INFINITY ? bound : bound - slack);
    if (row.rank != 0) {
        cluster_arrive();
        cluster_wait();
        return row.shared.finishes;
    }
    bool done = false;
    chosen = choose_listed(row, draw, count, total, bound, [&](bool finishes) {
        done = finishes;
        if (threadIdx.x < CLUSTER && threadIdx.x > 0)
            peer_store(peer_address(shared_address(&row.shared.finishes), threadIdx.x), (u32)finishes);
        cluster_arrive();
    });
    cluster_wait();
    return done;
}

// The value a logit must reach to pass top-k, top-p and min-p, each seeing what the one before left.
__device__ __forceinline__ float threshold(Row& row, const Draw& draw) {
    const Request& request = draw.request;
    float cut = -INFINITY;
    if (has_top_k(request)) {
        const float last = draw.scaled(row.kth_largest(request.top_k));
        // Logits that are equal once divided stand or fall together.
        cut = lowest([&](float y) { return draw.scaled(y) >= last; }, draw.best);
    }
    if (request.top_p < 1.0f) {
        float total;
        if (has_top_k(request)) {
            float mine = 0.0f;
            row.each([&](float y) { mine += y >= cut ? twice_exp2(y - draw.best, draw.inverse) : 0.0f; });
            total = row.reduce(mine, Sum()) / 2.0f;
        } else {
            total = row.totals(draw.best, draw.inverse).x;
        }
        const float last = draw.scaled(row.nucleus(draw.best, draw.inverse, cut, total, request.top_p));
        cut = fmaxf(cut, lowest([&](float y) { return draw.scaled(y) >= last; }, draw.best));
    }
    if (request.min_p > 0.0f) {
        const float least = logf(fminf(request.min_p, 1.0f));
        cut = fmaxf(cut, lowest([&](float y) { return draw.scaled(y) >= least; }, draw.best));
    }
    return cut;
}

// The key of the chosen token, 0 if there is none; for the first block.
__device__ __forceinline__ u64 choose_token(Row& row, const Request& request, u64 likeliest) {
    const float best = key_logit(likeliest);
    if (likeliest == 0 || request.temperature <= 0.0f || best == INFINITY) return likeliest;
    const Draw draw = {request, best, inverse_of(request)};
    u64 chosen = 0;
    if (choose_by_list(row, draw, chosen)) return chosen;
    return draw.draw(row, threshold(row, draw), ~(u32)likeliest);
}

// Applies penalties, bias and bans to this block's copy.
__device__ __forceinline__ void apply_edits(const Row& row, const Edit* edits, u32 count) {
    for (u32 i = threadIdx.x; i < count; i += THREADS) {
        const Edit edit = edits[i];
        const u32 at = edit.token - row.first * 4;
        if (edit.token < VOCAB && edit.token >= row.first * 4 && at < SHARE * 4) {
            float* y = (float*)row.values + at;
            *y = edited(*y, edit);
        }
    }
    __syncthreads();
}

// - logits: f32 [any, stride], VOCAB of each row.
// - requests, choices, tokens: one per row of the grid; plain greedy ones are left alone.
// - edits: those of all requests; no token twice in a request.
// - scratch: f32 [requests, QUADS * 4] if not RESIDENT.
// Each block copies its share of the row once; every pass after that is over the copy.
// Grid: (CLUSTER, requests) in clusters of CLUSTER, CHOOSE_THREADS threads, 16 * SHARE bytes of
// dynamic shared memory if RESIDENT. Clusters have two blocks on a multiprocessor; one block to a row
// may have the registers.
extern "C" __global__ void __launch_bounds__(THREADS, CLUSTER == 1 ? 1 : 1024 / THREADS)
    choose(const float* __restrict__ logits, i64 stride, const Request* __restrict__ requests,
           const Edit* __restrict__ edits, Choice* __restrict__ choices, u32* __restrict__ tokens,
           float4* __restrict__ scratch) {
    extern __shared__ float4 resident[];
    __shared__ ChooseShared shared;
    grid_launch();
    for (int i = threadIdx.x; i < BINS; i += THREADS) shared.bins[0][i] = 0;
    if (threadIdx.x == 0) {
        shared.listed = shared.found = shared.candidates = 0;
        shared.bound = ordered(-INFINITY);
        shared.most = shared.log_sum = __int_as_float(0x7fffffff);
    }
    cluster_arrive();
    const Request& request = requests[blockIdx.y];
    const bool skipped = request.row < 0 || request.mode == GREEDY;
    grid_wait();
    if (skipped) return cluster_wait();

    const u32 rank = cluster_rank();
    float4* values = RESIDENT ? resident : scratch + (u64)blockIdx.y * QUADS;
    Row row = {shared, values, rank, rank * SHARE, 0, 0, 0};
    const float* from = logits + request.row * stride;
    u64 likeliest = row.survey([&](int i) { return load_quad(row, from, i); }, inverse_of(request),
                               request.edits == 0 && needs_total(request), true);
    const bool faulty = !is_finite_key(likeliest);
    if (!faulty && request.top >= 0) {
        const float most = key_logit(likeliest);
        float sum = 0.0f;
        row.each([&](float y) { sum += exp2f((y - most) * LOG2_E); });
        sum = row.reduce(sum, Sum());
        if (threadIdx.x == 0) shared.most = most, shared.log_sum = logf(sum);
        if (request.top > 0) row.list_likeliest(alternatives(request));
    }
    u32 status = faulty ? NOT_FINITE : OK, token = request.given;
    if (!faulty && request.mode == CHOOSE) {
        if (request.edits > 0) {
            apply_edits(row, edits + request.first_edit, request.edits);
            likeliest = row.survey([&](int i) { return row.values[i]; }, inverse_of(request),
                                   needs_total(request), false);
        }
        const u64 chosen = choose_token(row, request, likeliest);
        if (chosen == 0) status = NO_CANDIDATE;
        token = ~(u32)chosen;
    }
    // No block reads another's memory after the row's last barrier, so each may end by itself.
    if (rank != 0) return;
    const auto logprob = [&](float y) { return (y - shared.most) - shared.log_sum; };
    Choice& choice = choices[blockIdx.y];
    const u32 listed = faulty ? 0 : alternatives(request);
    if (threadIdx.x == 0) {
        // A faulty row feeds token 0 to the next step, whose output nobody reads.
        if (status != OK) token = 0;
        choice.token = tokens[blockIdx.y] = token;
        choice.status = status;
        choice.logprob = request.top < 0 ? 0.0f : logprob(token < VOCAB ? from[token] : -INFINITY);
        choice.top = listed;
    }
    if (threadIdx.x < listed) {
        // From the last on: an address of its own needs no register until here.
        const u32 entry = listed - 1 - threadIdx.x;
        const u64 own = total_order(shared.list_logits[entry], shared.list_tokens[entry]);
        u32 place = 0;
        for (u32 i = 0; i < listed; i++)
            place += total_order(shared.list_logits[i], shared.list_tokens[i]) > own;
        choice.top_tokens[place] = shared.list_tokens[entry];
        choice.top_logprobs[place] = logprob(shared.list_logits[entry]);
    }
}
