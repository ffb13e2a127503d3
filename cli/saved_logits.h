/* Logits of a text in a file, to compare other runs with: those that `fastattn perplexity --save-logits` writes, and those that
 * another program does (bench/peers/transformers_logits.py).
 *
 * Little-endian, packed:
 *   8 bytes "FALOGITS"
 *   u32 version, 1
 *   u32 kept         logits kept of each prediction, 1 .. 1024
 *   u32 vocabulary   logits there were, >= kept
 *   u32 window       tokens predicted from one another (--ctx), the begin-of-sequence token included
 *   u64 predictions
 * and for each prediction, in the order of the text:
 *   i32 token        that the text goes on with
 *   f32 logit        of that token
 *   f32 log sum      ln of the sum of exp of all logits: ln p of a token is its logit less this
 *   i32 x kept       ids of the largest logits, largest first
 *   f32 x kept       these logits
 * and nothing behind the last. */
#ifndef FA_CLI_SAVED_LOGITS_H
#define FA_CLI_SAVED_LOGITS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { FA_MOST_SAVED_LOGITS = 1024 };

typedef struct fa_saved_logits_head {
  int64_t kept, vocabulary, window, predictions;
} fa_saved_logits_head;

typedef struct fa_saved_prediction {
  int32_t token;
  float logit, log_sum;
  int32_t ids[FA_MOST_SAVED_LOGITS]; /* the head's `kept` of them */
  float logits[FA_MOST_SAVED_LOGITS];
} fa_saved_prediction;

/* Errors of writing stay with the file until it is committed. */
void fa_saved_logits_write_head(FILE *file, const fa_saved_logits_head *head);
/* logits: [vocabulary]; log_sum as above. */
void fa_saved_logits_write(FILE *file, const fa_saved_logits_head *head, int32_t token, double log_sum, const float *logits);

typedef struct fa_saved_logits {
  FILE *file; /* NULL when not open */
  const char *path;
  fa_saved_logits_head head;
  int64_t next; /* prediction to be read */
} fa_saved_logits;

/* Reads the head, and refuses a file whose size is another than the head's. Both return FA_EXIT_OK, or print and return the
 * exit code. */
int fa_saved_logits_open(const char *path, fa_saved_logits *saved);
int fa_saved_logits_read(fa_saved_logits *saved, fa_saved_prediction *prediction);
void fa_saved_logits_close(fa_saved_logits *saved); /* one that is not open is fine */

/* Sums over predictions. */
typedef struct fa_logits_comparison {
  int64_t predictions, logits, same_best;
  double difference;         /* |ln p - saved ln p| of the tokens saved */
  double largest_difference; /* of them; NaN once one of ours was */
  double divergence;         /* Kullback-Leibler, saved from ours, in nats: over the tokens saved, all others as one. Joining
                              * outcomes makes it less: it is what the true one is at least */
  double saved_nats;         /* -ln p of the text by the saved logits */
} fa_logits_comparison;

/* Adds one prediction: our logits [vocabulary] and their log sum. */
void fa_logits_compare(const fa_saved_logits_head *head, const fa_saved_prediction *saved, double log_sum, const float *logits,
                       fa_logits_comparison *comparison);

#endif
