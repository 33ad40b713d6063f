// Moves KV pages on the device, between pools and from block to block. To and from the host the copy
// engines move them.
//
//   carry_pages    pool[layer(i)][blocks[block(i)]] = peer[layer(i)][peer_blocks[block(i)]]
//   copy_block     pool[layer][to] = pool[layer][from], all layers
//
// A pool is [layers][pool_blocks][page]. The floor is twice the bytes / copy bandwidth.
#include "common/common.cuh"

// -DTHREADS: of a block.

// Vectors of 16 bytes that each thread has in flight: 32 KiB a block.
constexpr int EACH = 4;

struct Pages {
    const u32* blocks;
    // Blocks listed; blocks of a layer in the pool.
    int listed, pool_blocks;
    int first_layer;
    // Of a page, in 16-byte vectors.
    int page_vectors;

    // Where the `page`-th of all pages lies in the pool, in vectors.
    __device__ __forceinline__ u64 at(int page) const {
        const int layer = first_layer + page / listed;
        return ((u64)layer * pool_blocks + blocks[page % listed]) * page_vectors;
    }
};

// All of a block's threads copy `vectors`.
__device__ __forceinline__ void copy_vectors(uint4* __restrict__ to, const uint4* __restrict__ from,
                                             int vectors) {
    for (int first = threadIdx.x; first < vectors; first += THREADS * EACH) {
        uint4 v[EACH];
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (first + i * THREADS < vectors) v[i] = __ldcs(from + first + i * THREADS);
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (first + i * THREADS < vectors) __stcs(to + first + i * THREADS, v[i]);
    }
}

// From another pool on the same device, whose layers have `peer_pool_blocks` blocks.
//
// - blocks: u32 [2 * listed]: this pool's, then those of `peer`, each for the one in its place. None of
//   this pool's may be listed twice.
// Grid: any, 512 threads.
extern "C" __global__ void __launch_bounds__(THREADS)
    carry_pages(uint4* __restrict__ pool, const uint4* __restrict__ peer, const u32* __restrict__ blocks, int listed,
                int pool_blocks, int peer_pool_blocks, int first_layer, int page_vectors, int count) {
    const Pages to = {blocks, listed, pool_blocks, first_layer, page_vectors};
    const Pages from = {blocks + listed, listed, peer_pool_blocks, first_layer, page_vectors};
    for (int i = blockIdx.x; i < count; i += gridDim.x) copy_vectors(pool + to.at(i), peer + from.at(i), page_vectors);
}

// Runs in the stream of steps: what was written to `from` before is copied.
// Grid: layers, 512 threads.
extern "C" __global__ void __launch_bounds__(THREADS)
    copy_block(uint4* __restrict__ pool, int pool_blocks, int page_vectors, u32 from, u32 to) {
    grid_launch();
    grid_wait();
    uint4* layer = pool + (u64)blockIdx.x * pool_blocks * page_vectors;
    copy_vectors(layer + (u64)to * page_vectors, layer + (u64)from * page_vectors, page_vectors);
}
