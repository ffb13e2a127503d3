// The same from C++: two keys with equal scores give the mean of their values.
#include <fastattention/fastattention.h>

#include <iostream>
#include <vector>

int main() {
  std::vector<float> q{1, 2, 3, 4}, k(8, 1.0f), v{0, 2, 4, 6, 2, 4, 6, 8}, o(4);
  fa_attention_problem problem = FA_ATTENTION_PROBLEM_INIT;
  problem.max_seqlen_q = 1, problem.max_seqlen_kv = 2, problem.head_dim_qk = 4, problem.head_dim_v = 4;
  fa_attention_args args = FA_ATTENTION_ARGS_INIT;
  args.q = {q.data(), 4, 4, 4}, args.k = {k.data(), 8, 4, 4}, args.v = {v.data(), 8, 4, 4}, args.o = {o.data(), 4, 4, 4};
  fa_context *context = nullptr;
  fa_plan *plan = nullptr;
  void *workspace = nullptr;
  if (fa_context_create(nullptr, &context) || fa_plan_create(context, &problem, &plan) ||
      fa_buffer_allocate(context, fa_plan_workspace_bytes(plan), &workspace) ||
      fa_attention_run(plan, &args, workspace, fa_plan_workspace_bytes(plan), nullptr)) {
    std::cerr << fa_last_error() << '\n';
    return 1;
  }
  std::cout << fa_version() << ' ' << o[0] << ' ' << o[1] << ' ' << o[2] << ' ' << o[3] << '\n';
  fa_buffer_free(context, workspace);
  fa_plan_destroy(plan);
  fa_context_destroy(context);
}
