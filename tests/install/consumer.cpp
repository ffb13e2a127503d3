// The same from C++: two keys with equal scores, in a page of a KV cache, give the mean of their values.
#include <fastattention/fa_kv.h>
#include <fastattention/fastattention.h>

#include <algorithm>
#include <iostream>
#include <vector>

int main() {
  std::vector<float> q{1, 2, 3, 4}, k(8, 1.0f), v{0, 2, 4, 6, 2, 4, 6, 8}, o(4);
  fa_attention_problem problem = FA_ATTENTION_PROBLEM_INIT;
  problem.max_seqlen_q = 1, problem.max_seqlen_kv = 2, problem.head_dim_qk = 4, problem.head_dim_v = 4;
  problem.page_size = 2, problem.num_pages = 3;
  fa_kv_options options = FA_KV_OPTIONS_INIT;
  options.dtype = FA_FLOAT32, options.head_dim_qk = options.head_dim_v = 4, options.page_size = 2, options.num_pages = 3;
  fa_kv_cache *cache = nullptr;
  int32_t sequence = -1;
  fa_attention_args args = FA_ATTENTION_ARGS_INIT;
  args.q = {q.data(), 4, 4, 4}, args.o = {o.data(), 4, 4, 4};
  fa_context *context = nullptr;
  fa_plan *plan = nullptr;
  void *workspace = nullptr;
  if (fa_context_create(nullptr, &context) || fa_plan_create(context, &problem, &plan) ||
      fa_kv_cache_create(context, &options, &cache) || fa_kv_sequence_create(cache, &sequence) ||
      fa_kv_sequence_resize(cache, sequence, 2) || fa_kv_cache_layer(cache, 0, &args.k, &args.v)) {
    std::cerr << fa_last_error() << '\n';
    return 1;
  }
  args.page_table = fa_kv_sequence_pages(cache, sequence, nullptr), args.page_table_stride = 1;
  std::copy(k.begin(), k.end(), static_cast<float *>(args.k.data) + args.page_table[0] * args.k.stride_batch);
  std::copy(v.begin(), v.end(), static_cast<float *>(args.v.data) + args.page_table[0] * args.v.stride_batch);
  if (fa_buffer_allocate(context, fa_plan_workspace_bytes(plan), &workspace) ||
      fa_attention_run(plan, &args, workspace, fa_plan_workspace_bytes(plan), nullptr)) {
    std::cerr << fa_last_error() << '\n';
    return 1;
  }
  std::cout << fa_version() << ' ' << o[0] << ' ' << o[1] << ' ' << o[2] << ' ' << o[3] << '\n';
  fa_buffer_free(context, workspace);
  fa_plan_destroy(plan);
  fa_kv_cache_destroy(cache);
  fa_context_destroy(context);
}
