/* Two keys with equal scores: the output is the mean of their values. They lie in a page of a KV cache. */
#include <fastattention/fa_kv.h>
#include <fastattention/fastattention.h>
#include <stdio.h>
#include <string.h>

int main(void) {
  float q[4] = {1, 2, 3, 4}, k[8] = {1, 1, 1, 1, 1, 1, 1, 1}, v[8] = {0, 2, 4, 6, 2, 4, 6, 8}, o[4] = {0};
  fa_context *context = NULL;
  fa_plan *plan = NULL;
  fa_attention_problem problem = FA_ATTENTION_PROBLEM_INIT;
  problem.max_seqlen_q = 1, problem.max_seqlen_kv = 2, problem.head_dim_qk = 4, problem.head_dim_v = 4;
  problem.page_size = 2, problem.num_pages = 3;
  fa_kv_options options = FA_KV_OPTIONS_INIT;
  options.dtype = FA_FLOAT32, options.head_dim_qk = options.head_dim_v = 4, options.page_size = 2, options.num_pages = 3;
  fa_kv_cache *cache = NULL;
  int32_t sequence = -1;
  fa_attention_args args = FA_ATTENTION_ARGS_INIT;
  args.q = (fa_tensor){q, 4, 4, 4}, args.o = (fa_tensor){o, 4, 4, 4};
  if (fa_context_create(NULL, &context) || fa_plan_create(context, &problem, &plan) ||
      fa_kv_cache_create(context, &options, &cache) || fa_kv_sequence_create(cache, &sequence) ||
      fa_kv_sequence_resize(cache, sequence, 2) || fa_kv_cache_layer(cache, 0, &args.k, &args.v)) return puts(fa_last_error()), 1;
  args.page_table = fa_kv_sequence_pages(cache, sequence, NULL), args.page_table_stride = 1;
  memcpy((float *)args.k.data + args.page_table[0] * args.k.stride_batch, k, sizeof k);
  memcpy((float *)args.v.data + args.page_table[0] * args.v.stride_batch, v, sizeof v);
  void *workspace = NULL;
  if (fa_buffer_allocate(context, fa_plan_workspace_bytes(plan), &workspace) ||
      fa_attention_run(plan, &args, workspace, fa_plan_workspace_bytes(plan), NULL)) return puts(fa_last_error()), 1;
  printf("%s %g %g %g %g\n", fa_version(), (double)o[0], (double)o[1], (double)o[2], (double)o[3]);
  fa_buffer_free(context, workspace);
  fa_plan_destroy(plan);
  fa_kv_cache_destroy(cache);
  fa_context_destroy(context);
  return 0;
}
