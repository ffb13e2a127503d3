/* What the attention kernel for Ascend is told: one struct, filled on the host (host/tiling_choice.c), read from GM by
 * the device (kernel/). Plain data of 8 and 4 bytes without padding, the same in C, C++ and Ascend C.
 *
 * Two-level tiling. Level one is what Cube and Vector hand to each other through rings in GM: level1_rows x level1_keys scores
 * (S, fp32), their weights (P, the input type) and the rows of o they give (O, fp32); QK^T runs `preload` tiles ahead of PV.
 * Level two is what fits the units: Cube multiplies cube_rows x cube_keys from L1 through L0, Vector takes level2_rows rows of
 * scores at a time in UB; both double-buffered. */
#ifndef FA_ASCEND_ATTENTION_TILING_H
#define FA_ASCEND_ATTENTION_TILING_H

#include <stdint.h>

typedef struct fa_ascend_strides {
  int64_t batch, seq, head; /* elements; any sign */
} fa_ascend_strides;

typedef struct fa_ascend_attention {
  fa_ascend_strides q, k, v, o;
  int64_t lse_batch, lse_head; /* elements */
  int64_t page_table_stride;
  int64_t window_left, window_right; /* of the problem, causal already in window_right: right = 0; -1: unlimited */

  /* Bytes from the start of the workspace, multiples of 512. Rings are of `ring` tiles a group of cores:
   * S fp32 and P of the input type [level1_rows][level1_keys], O fp32 [level1_rows][head_dim_v rounded up to 16]. */
  int64_t s_ring, p_ring, o_ring;
  int64_t partial_o, partial_lse; /* of kv_splits > 1: fp32 [items][level1_rows][head_dim_v rounded up to 64], [items][level1_rows] */

  int32_t is_bf16; /* else f16 */
  int32_t batch, heads_q, heads_kv, group;
  int32_t max_seqlen_q, max_seqlen_kv, head_dim_qk, head_dim_v;
  int32_t ragged_q, ragged_kv, has_seqlens_kv, has_lse;
  int32_t page_size; /* 0: not paged */
  float scale;

  int32_t packs_group; /* 1: max_seqlen_q is 1 and the rows of an item are the query heads of one KV head */
  int32_t row_blocks;  /* of level1_rows rows, a sequence and head */
  int32_t kv_splits;   /* parts of each key sequence, merged by log-sum-exp */
  int32_t items;       /* units of work: batch x heads (KV heads if packed) x row_blocks x kv_splits */

  int32_t level1_rows, level1_keys; /* rows at most 128; keys a multiple of cube_keys, at most 1024 and mask_m */
  int32_t preload, ring;            /* 1 to 8; ring >= preload + 1 */
  int32_t cube_keys;                /* 128; a smaller power of two >= 16 */
  int32_t level2_rows;              /* of an AIV's half tile, a multiple of 8; level2_rows * level1_keys at most 16320 */
  int32_t mask_m;                   /* the mask is [2 * mask_m, 2 * mask_m] bytes */
  int32_t pairs_at_once;            /* of sequence and head: their items come before the others', so that L2 holds their K and V */
  int32_t reserved[2];
} fa_ascend_attention;

/* ------------------------------------------------------------------ near memory
 * Where the kernel keeps what in UB and L1, in bytes; the host asks whether a tiling fits. Plain C that device code shares. */
#ifndef FA_ASCEND_DEVICE
#define FA_ASCEND_DEVICE /* __aicore__ on a device */
#endif

enum {
  FA_ASCEND_UB_BYTES = 192 * 1024,
  FA_ASCEND_UB_RESERVED = 8 * 1024, /* the end of UB, which Select may use for itself */
  FA_ASCEND_L1_BYTES = 512 * 1024,
  FA_ASCEND_ROW_SCRATCH = 16 * 1024, /* least bytes of a piece of scores: rows computed alone use one (attention_exact.h) */
  FA_ASCEND_LANES = 64               /* fp32 of a vector repeat; rows of an AIV's half tile at most */
};

static inline FA_ASCEND_DEVICE int32_t fa_ascend_up(int32_t n, int32_t unit) { return (n + unit - 1) / unit * unit; }

typedef struct fa_ascend_attention_ub {
  int32_t wide;      /* level1_keys rounded up to 64: elements of a row of scores */
  int32_t dim;       /* head_dim_v rounded up to 64: elements of a row of o */
  int32_t half_rows; /* of an AIV: half of level1_rows, rounded up to 8 */
  int32_t scores, scores_bytes, scores_buffers; /* fp32 [level2_rows][wide]: two, or three where they fit */
  int32_t weights, weights_bytes, weights_buffers; /* [level2_rows][wide] of the input type: one, or two where they fit */
  int32_t acc;                                  /* o so far, fp32 [half_rows][dim] */
  int32_t part, part_rows;                      /* two fp32 [part_rows][dim]: a tile's share of o on its way to acc */
  int32_t masks, mask_slots;                    /* a buffer of scores: [mask_slots][level2_rows][64] bytes */
  int32_t windows, windows_kept;                /* [windows_kept][level2_rows] x 64 bits */
  int32_t reduced;                              /* fp32 [level2_rows][wide / 8] */
  int32_t folded;                               /* four fp32 [level2_rows][8] */
  int32_t stats, stat_slots;                    /* fp32 [stat_slots][64] of maxima, of sums, of what o is scaled by */
  int32_t lanes;                                /* seven fp32 [64] */
  int32_t maxima;                               /* fp32 [level2_rows][8] */
  int32_t factors;                              /* fp32 [half_rows][8] */
  int32_t bytes;                                /* all of it, reserved bytes included */
} fa_ascend_attention_ub;

static inline FA_ASCEND_DEVICE fa_ascend_attention_ub fa_ascend_attention_ub_lay(const fa_ascend_attention *t, int32_t buffers,
                                                                                int32_t weights, int32_t part_rows) {
  fa_ascend_attention_ub ub;
  const int32_t edges = t->packs_group ? 0 : (t->window_left >= 0) + (t->window_right >= 0), row = FA_ASCEND_LANES * 4;
  int32_t end = 0;
  ub.wide = fa_ascend_up(t->level1_keys, FA_ASCEND_LANES);
  ub.dim = fa_ascend_up(t->head_dim_v, FA_ASCEND_LANES);
  ub.half_rows = fa_ascend_up((t->level1_rows + 1) / 2, 8);
  ub.scores = end;
  ub.scores_bytes = t->level2_rows * ub.wide * 4;
  if (ub.scores_bytes < FA_ASCEND_ROW_SCRATCH) ub.scores_bytes = FA_ASCEND_ROW_SCRATCH;
  ub.scores_buffers = buffers;
  end += buffers * ub.scores_bytes;
  ub.weights = end;
  ub.weights_bytes = t->level2_rows * ub.wide * 2;
  if (ub.weights_bytes < 8 * ub.dim * 2) ub.weights_bytes = 8 * ub.dim * 2; /* o leaves through it, 8 rows at least */
  ub.weights_buffers = weights;
  end += weights * ub.weights_bytes;
  end = fa_ascend_up(end, 512);
  ub.acc = end;
  end += ub.half_rows * ub.dim * 4;
  ub.part = fa_ascend_up(end, 512) + 256; /* other banks than acc's, to which it is added */
  ub.part_rows = part_rows;
  end = ub.part + 2 * part_rows * ub.dim * 4;
  ub.masks = end;
  ub.mask_slots = 2 * edges;
  end += buffers * ub.mask_slots * t->level2_rows * 64;
  ub.windows_kept = edges == 0 ? 0 : t->level2_rows > 32 ? 4 : 128 / t->level2_rows;
  ub.windows = end;
  end += ub.windows_kept * t->level2_rows * 8;
  ub.reduced = end;
  end += t->level2_rows * (ub.wide > 256 ? ub.wide / 8 * 4 : 128); /* and a slot of masks as fp16 */
  ub.folded = end;
  end += 4 * t->level2_rows * 32;
  ub.stats = end;
  ub.stat_slots = t->preload + 2;
  end += 3 * ub.stat_slots * row;
  ub.lanes = end;
  end += 7 * row;
  ub.maxima = end;
  end += t->level2_rows * 32;
  ub.factors = end;
  end += ub.half_rows * 32;
  ub.bytes = end + FA_ASCEND_UB_RESERVED;
  return ub;
}

/* The third buffer of scores lets a piece be loaded while Vector works on two. One of weights will do, they leave it within a
 * piece's time. Parts of o are as large as there is room. */
static inline FA_ASCEND_DEVICE fa_ascend_attention_ub fa_ascend_attention_ub_of(const fa_ascend_attention *t) {
  for (int32_t buffers = 3; buffers >= 2; --buffers)
    for (int32_t rows = t->level2_rows; rows >= 8; rows -= 8)
      for (int32_t weights = 2; weights >= 1; --weights) {
        const fa_ascend_attention_ub ub = fa_ascend_attention_ub_lay(t, buffers, weights, rows);
        if (rows * ub.dim <= 255 * FA_ASCEND_LANES && ub.bytes <= FA_ASCEND_UB_BYTES) return ub;
      }
  return fa_ascend_attention_ub_lay(t, 2, 1, 8);
}

/* More than FA_ASCEND_UB_BYTES: the tiling does not fit. */
static inline FA_ASCEND_DEVICE int64_t fa_ascend_attention_ub_bytes(const fa_ascend_attention *t) {
  const fa_ascend_attention_ub ub = fa_ascend_attention_ub_of(t);
  return t->level2_rows * ub.wide > 255 * FA_ASCEND_LANES ? INT64_MAX : ub.bytes;
}

typedef struct fa_ascend_attention_l1 {
  int32_t buffers; /* of each: three where they fit, else two */
  int32_t q_bytes, k_bytes, v_bytes, p_bytes;
  int32_t bytes;
} fa_ascend_attention_l1;

static inline FA_ASCEND_DEVICE fa_ascend_attention_l1 fa_ascend_attention_l1_of(const fa_ascend_attention *t) {
  fa_ascend_attention_l1 l1;
  const int32_t rows = fa_ascend_up(t->level1_rows, 16);
  l1.q_bytes = rows * fa_ascend_up(t->head_dim_qk, 16) * 2;
  l1.k_bytes = t->cube_keys * fa_ascend_up(t->head_dim_qk, 16) * 2;
  l1.v_bytes = t->cube_keys * fa_ascend_up(t->head_dim_v, 16) * 2;
  l1.p_bytes = rows * t->cube_keys * 2;
  l1.bytes = l1.q_bytes + l1.k_bytes + l1.v_bytes + l1.p_bytes;
  l1.buffers = 3 * l1.bytes <= FA_ASCEND_L1_BYTES ? 3 : 2;
  l1.bytes *= l1.buffers;
  return l1;
}

/* Always fits: 448 KB at most, with 128 rows, 128 keys and head sizes of 256. */
static inline FA_ASCEND_DEVICE int64_t fa_ascend_attention_l1_bytes(const fa_ascend_attention *t) {
  return fa_ascend_attention_l1_of(t).bytes;
}

#endif
