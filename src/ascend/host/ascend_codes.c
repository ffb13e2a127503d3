/* The functions of kernel/, by the names that CANN's runtime and the emulator find them under. */
#include "ascend/host/ascend.h"

/* GM_ADDR of kernel_operator.h. */
typedef unsigned char *address;

void fa_attention_ascend(address q, address k, address v, address o, address lse, address cu_seqlens_q, address cu_seqlens_kv,
                         address seqlens_kv, address page_table, address mask, address workspace, address tiling);
void fa_matmul_ascend(address a, address b, address c, address workspace, address tiling);
void fa_softmax_ascend(address x, address lse, address workspace, address tiling);
void fa_eager_mask_tensor_ascend(address mask, address workspace, address tiling);
void fa_eager_scale_ascend(address x, address workspace, address tiling);
void fa_eager_add_ascend(address x, address mask, address workspace, address tiling);
void fa_eager_softmax_ascend(address x, address y, address lse, address workspace, address tiling);
void fa_eager_cast_ascend(address y, address x, address workspace, address tiling);

static void attention(void *const *a) {
  fa_attention_ascend(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11]);
}
static void matmul(void *const *a) { fa_matmul_ascend(a[0], a[1], a[2], a[3], a[4]); }
static void softmax(void *const *a) { fa_softmax_ascend(a[0], a[1], a[2], a[3]); }
static void mask_tensor(void *const *a) { fa_eager_mask_tensor_ascend(a[0], a[1], a[2]); }
static void scale(void *const *a) { fa_eager_scale_ascend(a[0], a[1], a[2]); }
static void add(void *const *a) { fa_eager_add_ascend(a[0], a[1], a[2], a[3]); }
static void wide_softmax(void *const *a) { fa_eager_softmax_ascend(a[0], a[1], a[2], a[3], a[4]); }
static void cast(void *const *a) { fa_eager_cast_ascend(a[0], a[1], a[2], a[3]); }

#define CODE(name, file, function, cores) const fa_ascend_code fa_ascend_##name##_code = {file, function, name, cores}
CODE(attention, "attention_ascend", "fa_attention_ascend", FA_ASCEND_GROUPS);
CODE(matmul, "matmul_ascend", "fa_matmul_ascend", FA_ASCEND_CUBE_CORES);
CODE(softmax, "softmax_ascend", "fa_softmax_ascend", FA_ASCEND_VECTOR_CORES);
CODE(mask_tensor, "eager_ascend", "fa_eager_mask_tensor_ascend", FA_ASCEND_VECTOR_CORES);
CODE(scale, "eager_ascend", "fa_eager_scale_ascend", FA_ASCEND_VECTOR_CORES);
CODE(add, "eager_ascend", "fa_eager_add_ascend", FA_ASCEND_VECTOR_CORES);
CODE(wide_softmax, "eager_ascend", "fa_eager_softmax_ascend", FA_ASCEND_VECTOR_CORES);
CODE(cast, "eager_ascend", "fa_eager_cast_ascend", FA_ASCEND_VECTOR_CORES);
