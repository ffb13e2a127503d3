/* How well the model predicts a text it is given. */
#include <math.h>
#include <stdlib.h>

#include "llama.h"
#include "llama_error.h"

enum { ROWS = 64 }; /* whose logits are held at once: 64 MB for a vocabulary of 262144 */

/* ln of the sum of exp of a row. */
static double log_sum(const float *logits, int64_t vocabulary) {
  float best = logits[0];
  double sum = 0.0;
  for (int64_t i = 1; i < vocabulary; i++) best = fmaxf(best, logits[i]);
  for (int64_t i = 0; i < vocabulary; i++) sum += (double)expf(logits[i] - best);
  return log(sum) + (double)best;
}

/* Summed in order, so that the thread count does not change the result. */
static fa_status score_rows(fa_llama_session *session, int threads, int64_t vocabulary, const int32_t *tokens,
                            int64_t count, const fa_llama_watcher *watcher, float *logits, double *nats) {
  double log_sums[ROWS];
  for (int64_t row = 0; row + 1 < count; row += ROWS) {
    const int64_t rows = count - 1 - row < ROWS ? count - 1 - row : ROWS;
    const int32_t *next = tokens + row + 1;
    const fa_status status = fa_llama_logits(session, row, rows, logits);
    if (status != FA_OK) return status;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < rows; i++) log_sums[i] = log_sum(logits + i * vocabulary, vocabulary);
    for (int64_t i = 0; i < rows; i++) *nats += log_sums[i] - (double)logits[i * vocabulary + next[i]];
    if (watcher) watcher->rows(watcher->user, rows, next, log_sums, logits);
  }
  return FA_OK;
}

fa_status fa_llama_score(fa_llama_session *session, int threads, const int32_t *tokens, int64_t count,
                         const fa_llama_watcher *watcher, double *nats) {
  const int64_t vocabulary = fa_llama_model_shape(fa_llama_session_model(session))->vocabulary;
  *nats = 0.0;
  fa_status status = fa_llama_session_rewind(session, 0, 0);
  if (status == FA_OK) status = fa_llama_eval(session, tokens, count);
  if (status != FA_OK) return status;
  float *logits = malloc(ROWS * (size_t)vocabulary * sizeof *logits);
  status = logits ? score_rows(session, threads, vocabulary, tokens, count, watcher, logits, nats)
                  : fa_llama_out_of_memory("the logits");
  free(logits);
  return status;
}
