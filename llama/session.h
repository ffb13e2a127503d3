/* A session's inside: what session.c (its making, its sequences), evaluate.c (chunks, captured steps, logits), layers.c (the
 * forward pass) and attend.c (attention plans) share. */
#ifndef FA_LLAMA_SESSION_H
#define FA_LLAMA_SESSION_H

#include "fastattention/fa_kv.h"
#include "model.h"

/* Consecutive new tokens of one sequence within a chunk. */
typedef struct fa_segment {
  int32_t sequence;
  int64_t past;  /* tokens of the sequence before them */
  int64_t count; /* >= 1 */
  int64_t page;  /* the sequence's first */
} fa_segment;

/* What one pass over the layers works on. The arrays of a step go to the device in one copy, so that a captured step
 * finds new values where the old ones were. */
typedef struct fa_chunk {
  int64_t rows;
  int64_t segments;
  fa_segment *segment; /* [max_sequences] */
  int32_t *host;       /* the arrays below, one after another */
  /* Device: */
  const int32_t *seqlens_kv;   /* [segments] */
  const int32_t *cu_seqlens_q; /* [segments + 1] */
  const int32_t *tokens, *positions, *slots; /* [rows] */
} fa_chunk;

typedef struct fa_attention_choice {
  int64_t batch, queries, rows, keys; /* the problem's maxima; rows: of a ragged q, else 0 */
  bool is_paged, has_lengths, has_window;
  uint64_t last_use; /* 0: free */
  fa_plan *plan;
} fa_attention_choice;

enum { FA_KEPT_PLANS = 8 };

typedef struct fa_captured_step {
  fa_graph *graph;
  bool has_run;                    /* once, uncaptured */
  int64_t first_page, page_stride; /* where its sequences lie, when they are read as dense tensors; else -1, 0 */
} fa_captured_step;

struct fa_llama_session {
  const fa_llama_model *model;
  fa_engine *engine;
  int64_t max_tokens, max_sequences, max_rows, page_size, pages_a_sequence;
  char *kernel; /* as asked for; NULL: the fastest */
  bool is_baseline, uses_graphs;
  fa_llama_progress progress;
  void *progress_user;

  fa_kv_cache *cache;
  int32_t *handles;  /* [max_sequences] in the cache */
  int32_t *history;  /* [max_sequences, max_tokens] */
  float *rotary[2];  /* device [max_tokens, rotary_dim]; of layers that see everything, and with a window */
  int32_t *page_table, *sent_page_table; /* host [max_sequences, pages_a_sequence]: wanted, and what the device has */
  int32_t *device_page_table;
  int32_t *step;     /* device: fa_chunk's arrays */
  fa_chunk chunk;

  fa_attention_choice choices[FA_KEPT_PLANS];
  uint64_t clock;
  void *workspace;
  size_t workspace_bytes;
  char prefill_name[64], decode_name[64];
  fa_captured_step *captured; /* [max_sequences + 1], by entries */

  /* Device activations; block: max(block_rows, max_sequences) rows. */
  size_t activation_bytes;
  float *x;             /* [max_rows, hidden] */
  void *q, *o;          /* [max_rows, heads_q * head_dim] */
  void *normed;         /* [block, hidden] */
  float *added;         /* [few_rows, hidden]: of a product, still to be added to x */
  void *wide;           /* [block, max(qkv width, gated width, hidden)], 4 bytes each */
  void *gated;          /* [block, feed_forward] */
  float *last_x;        /* [max_sequences, hidden]: rows after which a token follows */
  float *logits;        /* [max_sequences, vocabulary] */
  float *row_logits;    /* [a few rows, vocabulary]; made when first asked for */
  int32_t *picked;      /* [max_sequences] row indices */
  int32_t *drawn;       /* [max_sequences] */
  fa_sample_row *settings; /* [max_sequences] */
  uint8_t *seen;        /* [max_sequences, vocabulary]; made when a penalty is first asked for */
  uint8_t *host_seen;

  int64_t last_rows, last_entries; /* of the last eval; rows 0: it had more than one chunk */
  int32_t *last_sequences;         /* [max_sequences], of its entries */
};

static inline int64_t fa_least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Device memory that counts as activations: rows * columns of `bytes` each, its address into *(pointer *)to. */
fa_status fa_llama_session_allocate(fa_llama_session *session, int64_t rows, int64_t columns, size_t bytes, void *to);
/* On the engine's stream. The second waits until it is there. */
fa_status fa_llama_to_device(fa_llama_session *session, void *to, const void *from, size_t bytes);
fa_status fa_llama_to_host(fa_llama_session *session, void *to, const void *from, size_t bytes);

/* The chunk's rows through all layers: x from tokens; normed = the output norm of x if wanted, for at most a block of rows. */
fa_status fa_llama_forward(fa_llama_session *session, const fa_chunk *chunk, bool wants_norm);

/* Queries in q against the cache of `layer`, to o. */
fa_status fa_llama_attend(fa_llama_session *session, const fa_chunk *chunk, int64_t layer);
/* Whether the segments' sequences are dense tensors at equal distances, a page each. */
bool fa_llama_is_dense(const fa_llama_session *session, const fa_chunk *chunk, int64_t *stride);
/* Makes the plans for `batch` single tokens ready, so that an unknown kernel is said at once. */
fa_status fa_llama_plan_decode(fa_llama_session *session, int64_t batch);
void fa_llama_forget_plans(fa_llama_session *session);
void fa_llama_forget_captured(fa_llama_session *session);

#endif
