/* Tuning files: what one says, and which of its entries a problem falls under. See fastattention/fa_tuning.h.
 *
 * The file is lines of words, so that core can read it strictly without a library for some richer format:
 *
 *   fastattention tuning 2
 *   version 0.1.0
 *   device cpu
 *   processor Intel(R) Xeon(R) Processor
 *   isa c avx2 avx512
 *   caches 49152 2097152 503316480
 *   prefill bf16 bf16 128 128 4 causal 4096 4096 8 2 prefill_bf16_amx 512 1024 0 11000000 12000000
 *
 * Empty lines and those that begin with # are skipped. An entry: operation, type, type of the cache, head size of q and k,
 * of v, query heads a KV head, causal or full; longest query, longest key sequence, batch x KV heads, each to the nearest
 * power of two; threads; kernel, level-one rows, keys, KV splits (0: the kernel's own); nanoseconds of that and of the
 * rule's choice (integers: no locale changes them), in the layout, B,S,H,D or B,H,S,D, where it gains less.
 *
 * No entry has a layout, which only strides say, and plans are made without: an entry stands for both, so both must have
 * been measured. Files that begin "fastattention tuning 1" had but B,S,H,D in them and are not read. */
#ifndef FA_CORE_TUNING_H
#define FA_CORE_TUNING_H

#include "core/kernel.h"
#include "fastattention/fa_tuning.h"

enum {
  FA_TUNING_MOST_BYTES = 1 << 20,
  FA_TUNING_MOST_LINE = 500,
  FA_TUNING_MOST_ENTRIES = 4096,
  FA_TUNING_NAME = 48 /* bytes of a kernel's name, with its end */
};

/* No padding: classes are compared as bytes. */
typedef struct fa_tuning_class {
  int32_t is_decode, dtype, kv_dtype, causal;
  int64_t head_dim_qk, head_dim_v, group;
  int64_t queries, keys, heads; /* powers of two */
  int64_t threads;
} fa_tuning_class;

typedef struct fa_tuning_entry_line {
  fa_tuning_class of;
  char kernel[FA_TUNING_NAME];
  fa_request request;
  int64_t ns, rule_ns;
  int32_t line; /* of the file, from 1 */
} fa_tuning_entry_line;

/* One block of the context's allocator. */
struct fa_tuning {
  char path[256];
  char why[400];
  int32_t is_used; /* made on this machine by this version */
  int32_t count;
  fa_tuning_entry_line entries[];
};

/* Parses `size` bytes; `path` is for lines. *tuning is to be freed with fa_host_free. */
fa_status fa_tuning_parse(const fa_context *context, const char *path, const char *text, size_t size,
                          fa_tuning **tuning);

/* What the environment names, if anything; part of fa_context_create. */
fa_status fa_tuning_from_environment(fa_context *context);

/* False for problems that entries do not describe. */
int fa_tuning_class_of(const fa_context *context, const fa_attention_problem *problem, fa_tuning_class *of);

/* The entry a plan for this problem should follow, or NULL. */
const fa_tuning_entry_line *fa_tuning_find(const fa_context *context, const fa_attention_problem *problem);

/* What the device describes itself as, in the words of a file's head, without the number of cores, which is the
 * process's and not the processor's. */
typedef struct fa_tuning_machine {
  char device[16], processor[200], isa[200], caches[80];
} fa_tuning_machine;
fa_status fa_tuning_machine_of(const fa_context *context, fa_tuning_machine *machine);

#endif
