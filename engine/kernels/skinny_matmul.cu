// out[M, N] = x[M, K] * W[N, K]^T (+ bias[N]) for few tokens M, where streaming W is the floor.
//
// Layouts: x `[tokens, inputs]`, W `[outputs, inputs]`, out `[tokens, outputs]`, all row-major elem. -DOUT_F32: out
// is f32 (logits). -DGATED: W is `[2 * outputs, inputs]`, gate rows then up rows, and out = silu(gate) * up, rounded
// once. Floor: N * K * 2 bytes / memory bandwidth; the tensor cores don't bind below M = 200.
//
// A block owns ROWS rows of W (gated: half of them gate, half up) and, with SPLIT > 1, one of SPLIT parts of K; the
// blocks of a cluster own the parts of the same rows. W and x come in pieces of 64 inputs through a ring of shared
// memory that the copy engine fills (rows of 128 bytes, 128-byte swizzle). Tokens are wgmma's M (64 for each consumer
// warpgroup), rows of W its N: any multiple of 16, so ROWS can be chosen to give every multiprocessor the same work.
// Fewer than 64 tokens cost nothing: the operand's rows past `x_rows` read what lies behind the tile, and the results
// of those rows are dropped (rows of the product don't mix).
//
// The whole ring of W is requested before grid_wait(): weights don't depend on the kernel before. With two blocks
// resident on a multiprocessor, the next product's weights stream in while this one drains.
//
// The parts of K are summed in rank order through distributed shared memory. ROWS and SPLIT depend on (N, K) alone,
// so a row's bits depend neither on M nor on the other rows.
//
// -D: ROWS (16..256, multiple of 16; of 8 * SPLIT when gated, else of 4 * SPLIT), SPLIT (1, 2, 4, 8),
// WARPGROUPS (64 tokens each: 1, 2, 4), [GATED], [OUT_F32].
//
// Launch: grid {tiles * SPLIT, ceil(tokens / (64 * WARPGROUPS)), 1}, tiles = ceil(outputs / ROWS) or, gated,
// ceil(outputs / (ROWS / 2)); cluster SPLIT; block WARPGROUPS * 128 + 32; shared
// RING_OFFSET + max(stages * (ROWS + x_rows) * 128 + slack, min(x_rows, 64 * WARPGROUPS) * (ROWS + 8) * 4).
#include "common.cuh"

#ifndef ROWS
#define ROWS 64
#endif
#ifndef SPLIT
#define SPLIT 2
#endif
#ifndef WARPGROUPS
#define WARPGROUPS 1
#endif

#define PIECE 64           // inputs of a stage: 128 bytes, the width of the swizzle
#define STAGES_MAX 32
#define RING_OFFSET 1024   // barriers lie before the ring
#define THREADS (WARPGROUPS * 128 + 32)
#define PITCH (ROWS + 8)   // floats between the tokens of a partial sum: spreads them over the banks

// === wgmma m64 x ROWS x k16 ===

// Operand names and registers for every width; the two descriptors come first, so that names don't depend on it.
#define SUMS8(i)                                                                                              \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
        "+f"(d[i + 7])
#define REGISTERS_16 "%2,%3,%4,%5,%6,%7,%8,%9"
#define REGISTERS_32 REGISTERS_16 ",%10,%11,%12,%13,%14,%15,%16,%17"
#define REGISTERS_48 REGISTERS_32 ",%18,%19,%20,%21,%22,%23,%24,%25"
#define REGISTERS_64 REGISTERS_48 ",%26,%27,%28,%29,%30,%31,%32,%33"
#define REGISTERS_80 REGISTERS_64 ",%34,%35,%36,%37,%38,%39,%40,%41"
#define REGISTERS_96 REGISTERS_80 ",%42,%43,%44,%45,%46,%47,%48,%49"
#define REGISTERS_112 REGISTERS_96 ",%50,%51,%52,%53,%54,%55,%56,%57"
#define REGISTERS_128 REGISTERS_112 ",%58,%59,%60,%61,%62,%63,%64,%65"
#define REGISTERS_144 REGISTERS_128 ",%66,%67,%68,%69,%70,%71,%72,%73"
#define REGISTERS_160 REGISTERS_144 ",%74,%75,%76,%77,%78,%79,%80,%81"
#define REGISTERS_176 REGISTERS_160 ",%82,%83,%84,%85,%86,%87,%88,%89"
#define REGISTERS_192 REGISTERS_176 ",%90,%91,%92,%93,%94,%95,%96,%97"
#define REGISTERS_208 REGISTERS_192 ",%98,%99,%100,%101,%102,%103,%104,%105"
#define REGISTERS_224 REGISTERS_208 ",%106,%107,%108,%109,%110,%111,%112,%113"
#define REGISTERS_240 REGISTERS_224 ",%114,%115,%116,%117,%118,%119,%120,%121"
#define REGISTERS_256 REGISTERS_240 ",%122,%123,%124,%125,%126,%127,%128,%129"
#define SUMS_16 SUMS8(0)
#define SUMS_32 SUMS_16, SUMS8(8)
#define SUMS_48 SUMS_32, SUMS8(16)
#define SUMS_64 SUMS_48, SUMS8(24)
#define SUMS_80 SUMS_64, SUMS8(32)
#define SUMS_96 SUMS_80, SUMS8(40)
#define SUMS_112 SUMS_96, SUMS8(48)
#define SUMS_128 SUMS_112, SUMS8(56)
#define SUMS_144 SUMS_128, SUMS8(64)
#define SUMS_160 SUMS_144, SUMS8(72)
#define SUMS_176 SUMS_160, SUMS8(80)
#define SUMS_192 SUMS_176, SUMS8(88)
#define SUMS_208 SUMS_192, SUMS8(96)
#define SUMS_224 SUMS_208, SUMS8(104)
#define SUMS_240 SUMS_224, SUMS8(112)
#define SUMS_256 SUMS_240, SUMS8(120)
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

// d[64 tokens x ROWS] += a[64 x 16] * b[ROWS x 16]^T; both in shared memory.
__device__ __forceinline__ void multiply(float (&d)[ROWS / 2], u64 a, u64 b) {
    asm volatile("{\n.reg .pred p;\nsetp.eq.u32 p, 0, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n" TEXT(ROWS) "k16.f32." MMA_TYPE "." MMA_TYPE
                 " {" JOIN(REGISTERS_, ROWS) "}, %0, %1, p, 1, 1, 0, 0;\n}"
                 : "+l"(a), "+l"(b), JOIN(SUMS_, ROWS));
}

// === clusters ===

__device__ __forceinline__ u32 cluster_rank() {
    u32 rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

__device__ __forceinline__ void cluster_arrive() {
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}

__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }

// Four floats at `address`, as block `rank` of the cluster has them.
__device__ __forceinline__ float4 load_from(u32 address, u32 rank) {
    u32 there;
    float4 v;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(there)
                 : "memory");
    return v;
}

__device__ __forceinline__ void prefetch2(const TensorMap* map, int x, int y) {
    asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global [%0, {%1, %2}];" ::"l"((u64)map), "r"(x), "r"(y) : "memory");
}

// === the work of a block ===

// Where a block's part of the product lies.
struct Part {
    int row;      // first row of W (gated: of the gates; the ups lie `outputs` further)
    int token;    // first token
    int from;     // first piece of K
    int pieces;   // how many
};

__device__ __forceinline__ void load_weights(const TensorMap* map, const Part& part, int outputs, int piece, u32 to,
                                             u32 barrier) {
    int k = (part.from + piece) * PIECE;
#ifdef GATED
    tma_load2(to, map, k, part.row, barrier);
    tma_load2(to + ROWS / 2 * 128, map, k, outputs + part.row, barrier);
#else
    tma_load2(to, map, k, part.row, barrier);
#endif
}

__device__ __forceinline__ void prefetch_weights(const TensorMap* map, const Part& part, int outputs, int piece) {
    int k = (part.from + piece) * PIECE;
    prefetch2(map, k, part.row);
#ifdef GATED
    prefetch2(map, k, outputs + part.row);
#endif
}

// The sum over the cluster of four neighbouring partial sums, in rank order.
__device__ __forceinline__ float4 total(u32 address) {
    float4 sum = load_from(address, 0);
#pragma unroll
    for (u32 rank = 1; rank < SPLIT; rank++) {
        float4 v = load_from(address, rank);
        sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
    }
    return sum;
}

__device__ __forceinline__ float gate(float g, float up) { return g / (1.0f + __expf(-g)) * up; }

// Four neighbouring results of one token, from column `column` on.
__device__ __forceinline__ void store(void* out, u64 row, int column, int outputs, float4 v) {
    float values[4] = {v.x, v.y, v.z, v.w};
    u64 at = row * outputs + column;
    if (outputs % 4 == 0) {
        if (column >= outputs) return;
#ifdef OUT_F32
        *(float4*)((float*)out + at) = v;
#else
        *(uint2*)((elem*)out + at) = make_uint2(pack2(v.x, v.y), pack2(v.z, v.w));
#endif
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (column + i >= outputs) return;
#ifdef OUT_F32
        ((float*)out)[at + i] = values[i];
#else
        ((elem*)out)[at + i] = to_elem(values[i]);
#endif
    }
}

// x_rows: rows of the map's box of x, a multiple of 8, at most 64 * WARPGROUPS.
// ahead: pieces of W past the ring to bring into L2 before the kernel before ends.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    skinny_matmul(const __grid_constant__ TensorMap weights, const __grid_constant__ TensorMap x, void* out,
                  const elem* bias, int tokens, int outputs, int inputs, int x_rows, int stages, int ahead) {
    extern __shared__ __align__(1024) u8 memory[];
    grid_launch();
    const u32 base = shared_address(memory), full = base, empty = base + STAGES_MAX * 8;
    const u32 ring = base + RING_OFFSET, x_bytes = x_rows * 128, stage_bytes = x_bytes + ROWS * 128;
    const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;

    const u32 rank = SPLIT > 1 ? cluster_rank() : 0;
    const int tile = blockIdx.x / SPLIT, pieces = (inputs + PIECE - 1) / PIECE;
    Part part;
#ifdef GATED
    part.row = tile * (ROWS / 2);
#else
    part.row = tile * ROWS;
#endif
    part.token = blockIdx.y * (64 * WARPGROUPS);
    part.from = pieces * (int)rank / SPLIT;
    part.pieces = pieces * ((int)rank + 1) / SPLIT - part.from;

    if (thread == WARPGROUPS * 128) {
        prefetch_map(&weights);
        prefetch_map(&x);
        for (int s = 0; s < stages; s++) {
            barrier_init(full + s * 8, 1);
            barrier_init(empty + s * 8, WARPGROUPS * 4);
        }
        barrier_init_fence();
        // Nobody else touches a barrier before __syncthreads(), so the ring can be asked for at once.
        const int first = min(stages, part.pieces);
        for (int p = 0; p < first; p++) {
            barrier_expect(full + p * 8, stage_bytes);
            load_weights(&weights, part, outputs, p, ring + p * stage_bytes + x_bytes, full + p * 8);
        }
        for (int p = first; p < min(first + ahead, part.pieces); p++) prefetch_weights(&weights, part, outputs, p);
    }
    __syncthreads();

    float d[ROWS / 2];
#pragma unroll
    for (int i = 0; i < ROWS / 2; i++) d[i] = 0.0f;

    if (warp == WARPGROUPS * 4) {
        if (lane == 0) {
            grid_wait();
            const int first = min(stages, part.pieces);
            for (int p = 0; p < first; p++)
                tma_load2(ring + p * stage_bytes, &x, (part.from + p) * PIECE, part.token, full + p * 8);
            int slot = 0;
            u32 phase = 0;
            for (int p = stages; p < part.pieces; p++) {
                const u32 to = ring + slot * stage_bytes, barrier = full + slot * 8;
                barrier_wait(empty + slot * 8, phase);
                barrier_expect(barrier, stage_bytes);
                load_weights(&weights, part, outputs, p, to + x_bytes, barrier);
                tma_load2(to, &x, (part.from + p) * PIECE, part.token, barrier);
                if (++slot == stages) slot = 0, phase ^= 1;
            }
        }
        __syncwarp();
    } else {
        const u32 own = (warp / 4) * 64 * 128;   // this warpgroup's tokens in the tile of x
        int slot = 0, before = 0;
        u32 phase = 0;
        for (int p = 0; p < part.pieces; p++) {
            barrier_wait(full + slot * 8, phase);
            const u32 at = ring + slot * stage_bytes;
            const u64 a = wgmma_operand(at + own, 16, 1024), b = wgmma_operand(at + x_bytes, 16, 1024);
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < PIECE / 16; k++) multiply(d, a + k * 2, b + k * 2);   // 32 bytes, in units of 16
            wgmma_commit();
            wgmma_wait<1>();
            if (p > 0 && lane == 0) barrier_arrive(empty + before * 8);
            before = slot;
            if (++slot == stages) slot = 0, phase ^= 1;
        }
        wgmma_wait<0>();
    }

    // The sums go to shared memory, where the cluster reads them and rows of out are written whole.
    __syncthreads();
    const int here = min(tokens - part.token, 64 * WARPGROUPS);
    if (warp < WARPGROUPS * 4) {
        const int token = warp * 16 + lane / 4;
        float* to = (float*)(memory + RING_OFFSET) + token * PITCH + lane % 4 * 2;
#pragma unroll
        for (int half = 0; half < 2; half++)
            if (token + half * 8 < here) {
#pragma unroll
                for (int j = 0; j < ROWS / 8; j++)
                    *(float2*)(to + half * 8 * PITCH + j * 8) = make_float2(d[j * 4 + half * 2], d[j * 4 + half * 2 + 1]);
            }
    }
    if (SPLIT > 1) {
        cluster_arrive();
        cluster_wait();
    } else {
        __syncthreads();
    }

#ifdef GATED
    const int columns = ROWS / 2 / SPLIT;
#else
    const int columns = ROWS / SPLIT;
#endif
    const int own = rank * columns;
    for (int i = thread; i < here * (columns / 4); i += THREADS) {
        const int token = i / (columns / 4), column = own + i % (columns / 4) * 4, n = part.row + column;
        const u32 at = ring + (token * PITCH + column) * 4;
        float4 sum = total(at);
#ifdef GATED
        const float4 up = total(at + ROWS / 2 * 4);
        sum = make_float4(gate(sum.x, up.x), gate(sum.y, up.y), gate(sum.z, up.z), gate(sum.w, up.w));
#else
        if (bias) {
            float* s = (float*)&sum;
#pragma unroll
            for (int j = 0; j < 4; j++)
                if (n + j < outputs) s[j] += to_f32(bias[n + j]);
        }
#endif
        store(out, part.token + token, n, outputs, sum);
    }
    if (SPLIT > 1) {   // the others may still read this block's memory
        cluster_arrive();
        cluster_wait();
    }
}
