// The CLUSTER blocks that share a row: who they are, each other's shared memory, and waiting.

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
