#include "saved_logits.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "options.h"

static const char magic[8] = {'F', 'A', 'L', 'O', 'G', 'I', 'T', 'S'};
enum { VERSION = 1, HEAD_BYTES = 32, FIXED_BYTES = 12 };

/* ------------------------------------------------------------------------ bytes */

static unsigned char *put(unsigned char *at, uint32_t value) {
  for (int i = 0; i < 4; i++) *at++ = (unsigned char)(value >> 8 * i);
  return at;
}

static unsigned char *put_float(unsigned char *at, float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return put(at, bits);
}

static uint32_t get(const unsigned char *at) {
  return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static float get_float(const unsigned char *at) {
  const uint32_t bits = get(at);
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static size_t prediction_bytes(const fa_saved_logits_head *head) { return FIXED_BYTES + 8 * (size_t)head->kept; }

/* ---------------------------------------------------------------------- writing */

void fa_saved_logits_write_head(FILE *file, const fa_saved_logits_head *head) {
  unsigned char bytes[HEAD_BYTES], *at = bytes + sizeof magic;
  memcpy(bytes, magic, sizeof magic);
  at = put(at, VERSION);
  at = put(at, (uint32_t)head->kept);
  at = put(at, (uint32_t)head->vocabulary);
  at = put(at, (uint32_t)head->window);
  at = put(at, (uint32_t)((uint64_t)head->predictions & UINT32_MAX));
  put(at, (uint32_t)((uint64_t)head->predictions >> 32));
  fwrite(bytes, 1, sizeof bytes, file);
}

/* The largest `count` logits, the first id among equals first. */
static void find_largest(const float *logits, int64_t vocabulary, int count, int32_t *ids) {
  int found = 0;
  for (int64_t id = 0; id < vocabulary; id++) {
    if (found == count && !(logits[id] > logits[ids[count - 1]])) continue;
    int place = found < count ? found++ : count - 1;
    for (; place > 0 && logits[id] > logits[ids[place - 1]]; place--) ids[place] = ids[place - 1];
    ids[place] = (int32_t)id;
  }
}

void fa_saved_logits_write(FILE *file, const fa_saved_logits_head *head, int32_t token, double log_sum, const float *logits) {
  unsigned char bytes[FIXED_BYTES + 8 * FA_MOST_SAVED_LOGITS], *at = bytes;
  int32_t ids[FA_MOST_SAVED_LOGITS];
  find_largest(logits, head->vocabulary, (int)head->kept, ids);
  at = put(at, (uint32_t)token);
  at = put_float(at, logits[token]);
  at = put_float(at, (float)log_sum);
  for (int i = 0; i < head->kept; i++) at = put(at, (uint32_t)ids[i]);
  for (int i = 0; i < head->kept; i++) at = put_float(at, logits[ids[i]]);
  fwrite(bytes, 1, prediction_bytes(head), file);
}

/* ---------------------------------------------------------------------- reading */

static int read_head(fa_saved_logits *saved) {
  unsigned char bytes[HEAD_BYTES];
  if (fread(bytes, 1, sizeof bytes, saved->file) != sizeof bytes || memcmp(bytes, magic, sizeof magic) != 0) {
    if (ferror(saved->file)) return fa_failure("cannot read %s: %s", saved->path, strerror(errno));
    return fa_failure("%s holds no saved logits (it does not begin with FALOGITS and 24 bytes more)", saved->path);
  }
  const uint32_t version = get(bytes + 8), kept = get(bytes + 12), vocabulary = get(bytes + 16), window = get(bytes + 20);
  const uint64_t predictions = get(bytes + 24) | (uint64_t)get(bytes + 28) << 32;
  if (version != VERSION) {
    return fa_failure("%s is of version %" PRIu32 " of saved logits; version %d is read", saved->path, version, VERSION);
  }
  if (kept < 1 || kept > FA_MOST_SAVED_LOGITS || vocabulary < kept || vocabulary > INT32_MAX || window < 2 ||
      window > INT32_MAX || predictions < 1) {
    return fa_failure("%s claims %" PRIu32 " of %" PRIu32 " logits, windows of %" PRIu32 ", %" PRIu64
                      " predictions; possible are 1 .. %d of at least as many, 2 or more, 1 or more",
                      saved->path, kept, vocabulary, window, predictions, FA_MOST_SAVED_LOGITS);
  }
  saved->head = (fa_saved_logits_head){kept, vocabulary, window, 0};
  struct stat status;
  if (fstat(fileno(saved->file), &status) != 0 || !S_ISREG(status.st_mode)) {
    return fa_failure("%s is no regular file; saved logits are read from one", saved->path);
  }
  const uint64_t rest = (uint64_t)status.st_size - HEAD_BYTES, each = prediction_bytes(&saved->head);
  if (rest % each || rest / each != predictions) {
    return fa_failure("%s is damaged: %" PRIu64 " predictions of %" PRIu64 " bytes were promised, %" PRIu64 " bytes are there",
                      saved->path, predictions, each, rest);
  }
  saved->head.predictions = (int64_t)predictions;
  return FA_EXIT_OK;
}

int fa_saved_logits_open(const char *path, fa_saved_logits *saved) {
  *saved = (fa_saved_logits){.path = path, .file = fopen(path, "rb")};
  if (!saved->file) return fa_failure("cannot read %s: %s", path, strerror(errno));
  const int code = read_head(saved);
  if (code) fa_saved_logits_close(saved);
  return code;
}

static int damaged(const fa_saved_logits *saved, const char *what) {
  return fa_failure("%s is damaged: prediction %" PRId64 " has %s", saved->path, saved->next, what);
}

int fa_saved_logits_read(fa_saved_logits *saved, fa_saved_prediction *p) {
  unsigned char bytes[FIXED_BYTES + 8 * FA_MOST_SAVED_LOGITS];
  const size_t wanted = prediction_bytes(&saved->head);
  if (saved->next == saved->head.predictions || fread(bytes, 1, wanted, saved->file) != wanted) {
    return fa_failure("%s ends before prediction %" PRId64, saved->path, saved->next);
  }
  const uint32_t vocabulary = (uint32_t)saved->head.vocabulary, token = get(bytes);
  if (token >= vocabulary) return damaged(saved, "a token outside the vocabulary");
  p->token = (int32_t)token;
  p->logit = get_float(bytes + 4);
  p->log_sum = get_float(bytes + 8);
  /* ln p of a token, whose rounding grows with the logits: more than a probability of 1 by that is damage. */
  const float most = p->log_sum + 1e-3f + 1e-5f * fabsf(p->log_sum);
  if (!isfinite(p->logit) || !isfinite(p->log_sum) || p->logit > most) return damaged(saved, "an impossible probability");
  for (int i = 0; i < saved->head.kept; i++) {
    const uint32_t id = get(bytes + FIXED_BYTES + 4 * i);
    const float logit = get_float(bytes + FIXED_BYTES + 4 * (saved->head.kept + i));
    if (id >= vocabulary) return damaged(saved, "an id outside the vocabulary");
    if (!isfinite(logit) || logit > most) return damaged(saved, "an impossible probability");
    if (i && logit > p->logits[i - 1]) return damaged(saved, "logits that are not in order");
    p->ids[i] = (int32_t)id;
    p->logits[i] = logit;
  }
  saved->next++;
  return FA_EXIT_OK;
}

void fa_saved_logits_close(fa_saved_logits *saved) {
  if (saved->file) fclose(saved->file);
  saved->file = NULL;
}

/* -------------------------------------------------------------------- comparing */

void fa_logits_compare(const fa_saved_logits_head *head, const fa_saved_prediction *saved, double log_sum, const float *logits,
                       fa_logits_comparison *c) {
  /* What is left when nearly all is saved lies below the rounding of fp32 logits. */
  static const double least_rest = 1e-7;
  double rest = 1.0, saved_rest = 1.0, divergence = 0.0;
  int64_t best = 0;
  for (int64_t id = 1; id < head->vocabulary; id++) {
    if (logits[id] > logits[best]) best = id;
  }
  for (int i = 0; i < head->kept; i++) {
    const double ln = (double)logits[saved->ids[i]] - log_sum, saved_ln = (double)saved->logits[i] - (double)saved->log_sum;
    const double difference = fabs(ln - saved_ln);
    c->difference += difference;
    if (!(difference <= c->largest_difference)) c->largest_difference = difference;
    divergence += exp(saved_ln) * (saved_ln - ln);
    rest -= exp(ln);
    saved_rest -= exp(saved_ln);
  }
  rest = fmax(rest, least_rest);
  saved_rest = fmax(saved_rest, least_rest);
  c->divergence += divergence + saved_rest * log(saved_rest / rest);
  c->same_best += saved->ids[0] == best;
  c->saved_nats += (double)saved->log_sum - (double)saved->logit;
  c->logits += head->kept;
  c->predictions++;
}
