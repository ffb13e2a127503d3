/* How well the model predicts a text it is given. */
#include <math.h>
#include <stdlib.h>

#include "llama.h"
#include "llama_error.h"

enum { ROWS = 64 }; /* whose logits are held at once: 64 MB for a vocabulary of 262144 */

/* -log p(token) for one row of logits. */
static double surprise(const float *logits, int64_t vocabulary, int32_t token) {
  float best = logits[0];
  double sum = 0.0;
  for (int64_t i = 1; i < vocabulary; i++) best = fmaxf(best, logits[i]);
  for (int64_t i = 0; i < vocabulary; i++) sum += (double)expf(logits[i] - best);
  return log(sum) + (double)best - (double)logits[token];
}

static fa_status score_rows(fa_llama_session *session, int threads, int64_t vocabulary, const int32_t *tokens,
                            int64_t count, float *logits, double *surprises) {
  for (int64_t row = 0; row + 1 < count; row += ROWS) {
    const int64_t rows = count - 1 - row < ROWS ? count - 1 - row : ROWS;
    const fa_status status = fa_llama_logits(session, row, rows, logits);
    if (status != FA_OK) return status;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < rows; i++) {
      surprises[row + i] = surprise(logits + i * vocabulary, vocabulary, tokens[row + i + 1]);
    }
  }
  return FA_OK;
}

fa_status fa_llama_score(fa_llama_session *session, int threads, const int32_t *tokens, int64_t count,
                         double *nats) {
  const int64_t vocabulary = fa_llama_model_shape(fa_llama_session_model(session))->vocabulary;
  *nats = 0.0;
  fa_status status = fa_llama_session_rewind(session, 0, 0);
  if (status == FA_OK) status = fa_llama_eval(session, tokens, count);
  if (status != FA_OK) return status;
  float *logits = malloc(ROWS * (size_t)vocabulary * sizeof *logits);
  double *surprises = malloc((size_t)count * sizeof *surprises);
  status = logits && surprises ? score_rows(session, threads, vocabulary, tokens, count, logits, surprises)
                               : fa_llama_out_of_memory("the logits");
  /* Summed in order, so that the thread count does not change the result. */
  for (int64_t i = 0; i + 1 < count && status == FA_OK; i++) *nats += surprises[i];
  free(logits);
  free(surprises);
  return status;
}
