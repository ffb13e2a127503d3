/* Prompts answered together: one ragged pass over all of them, then a token of each at a time until every one has ended. */
#ifndef FA_CLI_ANSWERS_H
#define FA_CLI_ANSWERS_H

#include "llama.h"
#include "stop_text.h"

typedef struct fa_answer {
  fa_token_list prompt, generated;
  fa_stop_text *stop;
  float *gaps; /* [generated]: distance of the two best logits at each token; NULL: not asked for */
  char *text;  /* shown so far, terminated; NULL before the first byte */
  size_t length, capacity;
  char *piece; /* of the step under way */
  size_t piece_room;
  const char *finish; /* "end", "stop" or "length"; NULL while it goes on */
} fa_answer;

typedef struct fa_answering {
  fa_llama_session *session; /* with a sequence for each answer */
  const fa_sampler *sampler;
  int64_t tokens; /* generated at most */
  bool wants_gaps;
  /* As text comes, and once more, with what was held back, when `finish` is set; NULL: not. */
  void (*show)(void *user, const fa_answer *answer, const char *bytes, size_t length);
  void *user;
  double prompt_s, decode_s; /* filled */
  int64_t decoded;           /* tokens that took a step of their own */
} fa_answering;

/* FA_EXIT_OK, or prints and returns the exit code. */
int fa_answers_run(fa_answering *answering, fa_answer *answers, int64_t count);
void fa_answer_release(fa_answer *answer);

#endif
