/* What happens before the kernel of an appending problem: new tokens into the cache, q rotated aside.
 * See kv_append.c. */
#ifndef FA_CPU_KV_APPEND_H
#define FA_CPU_KV_APPEND_H

#include "cpu/cpu.h"

/* Workspace of fa_cpu_append, a multiple of 64: the rotated q, [rows of q, heads_q, head_dim_qk] of
 * problem.dtype. 0 where nothing is rotated. */
size_t fa_cpu_append_workspace_bytes(const fa_plan *plan);

/* Rotates k_new at positions seqlens_kv[b] + t and writes it and v_new behind the tokens of entry b
 * (quantised for an int8 or fp8 cache). *rotated becomes a copy of *args whose q, when rotary_dim > 0, is the
 * rotated one in workspace, with strides of its own. args were checked; workspace is aligned to 64. */
void fa_cpu_append(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                   fa_attention_args *rotated);

#endif
