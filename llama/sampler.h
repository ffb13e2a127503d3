/* How the next token is drawn, a row at a time. Every device draws by these rules, in this order:
 *   1. a token seen before has its logit l divided by the repetition penalty r where l > 0, else multiplied by it;
 *   2. temperature T = 0: the best logit's token, the first among equals; that is all;
 *   3. top_k > 0: of all logits those not below the k-th largest stay (equals of the k-th too);
 *   4. p = softmax(l / T) of what stays;
 *   5. top_p < 1: the fewest most probable tokens that together have p >= top_p stay (equals of the last too);
 *   6. of those, the ones with p >= min_p * the largest p;
 *   7. the first token in vocabulary order at which the sum of the p that stayed passes uniform * their whole sum;
 *   8. the token counts as seen.
 * A NaN is never drawn, nor is -inf by 3 to 7; where nothing but these is left, and where the best logit is +inf,
 * the token is that of 2 (of NaNs alone: token 0). */
#ifndef FA_LLAMA_SAMPLER_H
#define FA_LLAMA_SAMPLER_H

#include "llama.h"
#include "operators.h"

/* The token of one row. logits [vocabulary >= 1] are overwritten; seen [vocabulary] as in fa_operators.sample, NULL:
 * no penalty, nothing marked. Allocates nothing. The same input gives the same token; the exponential is this file's
 * own, so that no C library decides. */
int32_t fa_sample_token(float *logits, int64_t vocabulary, const fa_sample_row *settings, uint8_t *seen);

/* What fa_sample_token needs for step `step` of sequence `sequence` of a batch, both counted from 0 by the caller. The
 * draw depends on the seed and these two alone (Philox4x32-10 of Salmon, Moraes, Dror, Shaw: "Parallel random numbers:
 * as easy as 1, 2, 3", SC 2011), so it is the same in any batch and order. */
fa_sample_row fa_sampler_step(const fa_sampler *sampler, uint64_t sequence, uint64_t step);

#endif
