#include "answers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model_commands.h"
#include "sampler.h"

typedef struct step {
  fa_llama_entry *entries;  /* [count] of the answers that go on */
  fa_sample_row *settings;  /* [count] */
  int32_t *tokens;          /* [count] */
  float *logits;            /* [count, vocabulary] */
  int64_t going;
} step;

void fa_answer_release(fa_answer *answer) {
  fa_token_list_free(&answer->prompt);
  fa_token_list_free(&answer->generated);
  fa_stop_text_free(answer->stop);
  free(answer->gaps);
  free(answer->text);
  free(answer->piece);
}

/* Bytes that may be shown: kept, and handed on. */
static int show(fa_answering *a, fa_answer *answer, size_t length) {
  if (answer->length + length + 1 > answer->capacity) {
    const size_t capacity = 2 * (answer->length + length + 1);
    char *larger = realloc(answer->text, capacity);
    if (!larger) return fa_failure("no memory for the text");
    answer->text = larger;
    answer->capacity = capacity;
  }
  memcpy(answer->text + answer->length, answer->piece, length);
  answer->length += length;
  answer->text[answer->length] = '\0';
  if (length && a->show && !answer->finish) a->show(a->user, answer, answer->piece, length);
  return FA_EXIT_OK;
}

static int feed(fa_answering *a, fa_answer *answer, const char *bytes, size_t length) {
  const size_t room = fa_stop_text_room(answer->stop, length);
  if (room > answer->piece_room) {
    char *larger = realloc(answer->piece, room);
    if (!larger) return fa_failure("no memory for the text");
    answer->piece = larger;
    answer->piece_room = room;
  }
  return show(a, answer, bytes ? fa_stop_text_feed(answer->stop, bytes, length, answer->piece)
                               : fa_stop_text_flush(answer->stop, answer->piece));
}

/* A drawn token joins its answer, which may end with it. */
static int take(fa_answering *a, fa_answer *answer, int32_t token, float gap) {
  const fa_tokenizer *tokenizer = fa_llama_model_tokenizer(fa_llama_session_model(a->session));
  if (answer->gaps) answer->gaps[answer->generated.count] = gap;
  if (fa_token_list_append(&answer->generated, token) != FA_OK) return fa_model_failure();
  int code = FA_EXIT_OK;
  if (fa_tokenizer_is_end(tokenizer, token)) {
    answer->finish = "end";
  } else if (!fa_tokenizer_is_control(tokenizer, token)) {
    size_t length = 0;
    const char *bytes = fa_tokenizer_piece(tokenizer, token, &length); /* NULL: a row beyond the tokenizer's last token */
    if (bytes) code = feed(a, answer, bytes, length);
    if (fa_stop_text_stopped_by(answer->stop) >= 0) answer->finish = "stop";
  }
  if (!answer->finish && answer->generated.count == a->tokens) answer->finish = "length";
  if (code != FA_EXIT_OK || !answer->finish) return code;
  const size_t before = answer->length;
  if (strcmp(answer->finish, "stop") != 0) code = feed(a, answer, NULL, 0);
  if (code == FA_EXIT_OK && a->show) a->show(a->user, answer, answer->text + before, answer->length - before);
  return code;
}

static int check_logits(const float *logits, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    if (!isfinite(logits[i])) return fa_failure("the model's logits are not finite; is the file damaged?");
  }
  return FA_EXIT_OK;
}

/* One pass over what is new of each answer that goes on, and its next token. */
static int advance(fa_answering *a, fa_answer *answers, int64_t count, step *s, bool is_prompt) {
  const int64_t vocabulary = fa_llama_model_shape(fa_llama_session_model(a->session))->vocabulary;
  s->going = 0;
  for (int64_t i = 0; i < count; i++) {
    fa_answer *answer = &answers[i];
    if (answer->finish) continue;
    s->entries[s->going] = is_prompt ? (fa_llama_entry){(int32_t)i, answer->prompt.ids, answer->prompt.count}
                                     : (fa_llama_entry){(int32_t)i, &answer->generated.ids[answer->generated.count - 1], 1};
    s->settings[s->going++] = fa_sampler_step(a->sampler, (uint64_t)i, (uint64_t)answer->generated.count);
  }
  if (fa_llama_eval_batch(a->session, s->entries, s->going) != FA_OK) return fa_model_failure();
  int code = FA_EXIT_OK;
  if (is_prompt || a->wants_gaps) {
    if (fa_llama_next_logits(a->session, s->logits) != FA_OK) return fa_model_failure();
    code = check_logits(s->logits, s->going * vocabulary);
  }
  if (code == FA_EXIT_OK && fa_llama_sample(a->session, s->settings, s->tokens) != FA_OK) code = fa_model_failure();
  for (int64_t e = 0; e < s->going && code == FA_EXIT_OK; e++) {
    float gap = 0.0f;
    if (a->wants_gaps) fa_greedy_token(s->logits + e * vocabulary, vocabulary, &gap);
    code = take(a, &answers[s->entries[e].sequence], s->tokens[e], gap);
  }
  return code;
}

static bool all_ended(const fa_answer *answers, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    if (!answers[i].finish) return false;
  }
  return true;
}

int fa_answers_run(fa_answering *a, fa_answer *answers, int64_t count) {
  const size_t vocabulary = (size_t)fa_llama_model_shape(fa_llama_session_model(a->session))->vocabulary, n = (size_t)count;
  step s = {calloc(n, sizeof *s.entries), calloc(n, sizeof *s.settings), calloc(n, sizeof *s.tokens),
            malloc(n * vocabulary * sizeof *s.logits), 0};
  int code = s.entries && s.settings && s.tokens && s.logits ? FA_EXIT_OK : fa_failure("no memory for the logits");
  for (int64_t i = 0; i < count && a->wants_gaps && code == FA_EXIT_OK; i++) {
    answers[i].gaps = malloc((size_t)a->tokens * sizeof *answers[i].gaps);
    if (!answers[i].gaps) code = fa_failure("no memory for the answers");
  }
  double begin = fa_model_seconds();
  if (code == FA_EXIT_OK) code = advance(a, answers, count, &s, true);
  a->prompt_s = fa_model_seconds() - begin;
  begin = fa_model_seconds();
  while (code == FA_EXIT_OK && !all_ended(answers, count)) {
    code = advance(a, answers, count, &s, false);
    a->decoded += s.going;
  }
  a->decode_s = fa_model_seconds() - begin;
  free(s.entries);
  free(s.settings);
  free(s.tokens);
  free(s.logits);
  return code;
}
