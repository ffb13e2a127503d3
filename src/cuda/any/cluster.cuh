/* Blocks of a cluster (compute capability 9.0 on), which send to each other's shared memory. Older devices have no clusters:
 * fa_cluster_blocks is 1 there, and what is behind a test of it falls away.
 *
 * A mailbox in shared memory counts what arrives: fa_mailbox_open by one thread, fa_cluster_arrive and fa_cluster_wait by
 * all before anybody sends, then fa_mailbox_wait for so many bytes. Nothing else has to be waited for: a block that expects
 * nothing may end, and one that waits for all that is sent to it may end behind that. */
#ifndef FA_CUDA_ANY_CLUSTER_CUH
#define FA_CUDA_ANY_CLUSTER_CUH

#include "cuda/sequence.cuh"

enum { FA_MAILBOX_BYTES = 16 };

FA_DEVICE int fa_cluster_blocks() {
#if __CUDA_ARCH__ >= 900
  unsigned blocks;
  asm("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(blocks));
  return (int)blocks;
#else
  return 1;
#endif
}

/* Every block has begun, and its mailbox is open: the two halves of a barrier. */
FA_DEVICE void fa_cluster_arrive() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
}
FA_DEVICE void fa_cluster_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

FA_DEVICE void fa_mailbox_open(unsigned mailbox, unsigned expected_bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.init.shared.b64 [%0], 1;\n"
               "fence.mbarrier_init.release.cluster;\n"
               "mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(mailbox), "r"(expected_bytes)
               : "memory");
#endif
}

FA_DEVICE void fa_mailbox_wait(unsigned mailbox) {
#if __CUDA_ARCH__ >= 900
  unsigned is_done;
  do {
    asm volatile("{\n.reg .pred done;\n"
                 "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%1], 0;\n"
                 "selp.u32 %0, 1, 0, done;\n}"
                 : "=r"(is_done)
                 : "r"(mailbox)
                 : "memory");
  } while (!is_done);
#endif
}

/* The address, for fa_cluster_send, of shared memory of block `rank` that lies where `address` lies in one's own. */
FA_DEVICE unsigned fa_cluster_address(unsigned address, int rank) {
#if __CUDA_ARCH__ >= 900
  asm("mapa.shared::cluster.u32 %0, %0, %1;" : "+r"(address) : "r"(rank));
#endif
  return address;
}

/* 16 bytes to another block, whose mailbox counts them. */
FA_DEVICE void fa_cluster_send(unsigned address, unsigned mailbox, float4 x) {
#if __CUDA_ARCH__ >= 900
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%2, %3, %4, %5}, [%1];" ::"r"(address),
               "r"(mailbox), "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w)
               : "memory");
#endif
}

#endif
