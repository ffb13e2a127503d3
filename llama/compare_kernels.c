/* Do two attention kernels make the model say the same? */
#include <math.h>
#include <stdlib.h>

#include "llama.h"
#include "llama_error.h"

typedef struct run {
  fa_llama_session *session;
  float *logits;
} run;

static fa_status open_run(const fa_llama_model *model, int64_t tokens, const char *kernel, run *r) {
  r->logits = malloc((size_t)fa_llama_model_shape(model)->vocabulary * sizeof *r->logits);
  if (!r->logits) return fa_llama_out_of_memory("the logits");
  fa_llama_session_options options = FA_LLAMA_SESSION_OPTIONS_INIT;
  options.max_tokens = tokens;
  options.kernel = kernel;
  return fa_llama_session_create(model, &options, &r->session);
}

static void close_run(run *r) {
  fa_llama_session_free(r->session);
  free(r->logits);
}

static fa_status step(run *r, const int32_t *tokens, int64_t count) {
  const fa_status status = fa_llama_eval(r->session, tokens, count);
  return status == FA_OK ? fa_llama_next_logits(r->session, r->logits) : status;
}

static fa_status compare(run *a, run *b, int64_t vocabulary, const int32_t *prompt, int64_t count,
                         int64_t steps, fa_agreement *result) {
  fa_status status = step(a, prompt, count);
  if (status == FA_OK) status = step(b, prompt, count);
  for (int64_t i = 0; i < steps && status == FA_OK; i++) {
    const int32_t token = fa_greedy_token(a->logits, vocabulary, &result->gap);
    for (int64_t j = 0; j < vocabulary; j++) {
      result->max_logit_error = fmaxf(result->max_logit_error, fabsf(a->logits[j] - b->logits[j]));
    }
    result->steps = i + 1;
    if (token != fa_greedy_token(b->logits, vocabulary, NULL)) {
      result->first_difference = i;
      return FA_OK;
    }
    if (i + 1 == steps) break;
    status = step(a, &token, 1);
    if (status == FA_OK) status = step(b, &token, 1);
  }
  return status;
}

fa_status fa_llama_compare(const fa_llama_model *model, const int32_t *prompt, int64_t count, int64_t steps,
                           const char *kernel_a, const char *kernel_b, fa_agreement *agreement) {
  run a = {NULL, NULL}, b = {NULL, NULL};
  *agreement = (fa_agreement){0, -1, 0.0f, 0.0f};
  fa_status status = open_run(model, count + steps, kernel_a, &a);
  if (status == FA_OK) status = open_run(model, count + steps, kernel_b, &b);
  if (status == FA_OK) {
    status = compare(&a, &b, fa_llama_model_shape(model)->vocabulary, prompt, count, steps, agreement);
  }
  close_run(&a);
  close_run(&b);
  return status;
}
