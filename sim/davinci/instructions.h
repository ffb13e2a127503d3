/* The instructions of an emulated Ascend core, as kernel_operator.h issues them: the seam between the Ascend C names (C++)
 * and the emulator (C11). Each call is one instruction of the core that runs just now. It checks what it was given, does
 * its work on the core's real buffers at once, tells the hazard finder what it reads and writes, and posts its time to its
 * queue. An instruction that breaks a rule ends the run with one line (davinci.h).
 *
 * Sizes are in bytes or elements as named; a block is 32 bytes, a repeat 256, a fractal 512. */
#ifndef DV_INSTRUCTIONS_H
#define DV_INSTRUCTIONS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Where in the kernel's source an instruction stands. Strings are kept. */
typedef struct dv_here {
  const char *instruction, *file;
  int line;
} dv_here;

/* The in-order queues of a core. */
typedef enum dv_pipe { DV_S, DV_V, DV_M, DV_MTE1, DV_MTE2, DV_MTE3, DV_FIX, DV_PIPES, DV_PIPE_ALL = DV_PIPES } dv_pipe;

typedef enum dv_memory { DV_GM, DV_L1, DV_L0A, DV_L0B, DV_L0C, DV_UB, DV_MEMORIES } dv_memory;

typedef enum dv_type {
  DV_F32, DV_F16, DV_BF16, DV_S32, DV_U32, DV_S16, DV_U16, DV_S8, DV_U8, DV_S64, DV_U64, DV_TYPES
} dv_type;

static inline uint32_t dv_type_bytes(dv_type type) {
  static const uint8_t bytes[DV_TYPES] = {4, 2, 2, 4, 4, 2, 2, 1, 1, 8, 8};
  return bytes[type];
}

/* In GM `at` is the address itself, elsewhere the offset in the core's memory. end: there, where the buffer of the tensor
 * ends, of which nothing behind it is touched; 0: not known. */
typedef struct dv_address {
  dv_memory memory;
  uint32_t end;
  uint64_t at;
} dv_address;
static inline dv_address dv_further(dv_address address, uint64_t bytes) {
  address.at += bytes;
  return address;
}

/* ------------------------------------------------------------------ moves */

/* `rows` pieces of `bytes`; strides from the start of a piece to the start of the next. Goes GM to UB or L1 (MTE2), UB or L1
 * to GM (MTE3), UB to UB (V). Where fills: behind the piece, up to the next 32 bytes, elements of `fill_bytes` (DataCopyPad). */
typedef struct dv_copy {
  dv_address to, from;
  uint32_t rows, bytes;
  int64_t to_stride, from_stride;
  uint32_t left_pad, right_pad; /* elements of fill_bytes beside each piece in UB */
  uint32_t fill_bytes;          /* 0: what is behind the piece in its last block is undefined */
  uint64_t fill;
  int fills_with_first;         /* with the piece's first element, of fill_bytes, instead of fill */
  int is_byte_granular;         /* DataCopyPad; else whole blocks, aligned addresses in UB and L1 */
  dv_type type;                 /* for SetAtomicAdd */
} dv_copy;
void dv_issue_copy(dv_here here, const dv_copy *copy);

/* ND in GM to Nz in L1 (MTE2). Fields as Nd2NzParams documents them. */
typedef struct dv_nd2nz {
  dv_address to, from;
  uint32_t element_bytes;
  uint32_t matrices, rows, columns;  /* ndNum, nValue, dValue */
  uint32_t from_matrix, from_row;    /* elements: srcNdMatrixStride, srcDValue */
  uint32_t to_column, to_row;        /* blocks of 32 B: dstNzC0Stride, dstNzNStride */
  uint32_t to_matrix;                /* elements: dstNzMatrixStride */
} dv_nd2nz;
void dv_issue_nd2nz(dv_here here, const dv_nd2nz *move);

/* Fractals from L1 to L0A or L0B (MTE1): LoadData with LoadData2DParams. */
typedef struct dv_load2d {
  dv_address to, from;
  uint32_t element_bytes;
  uint32_t start, repeats, from_stride, to_gap; /* fractals of 512 B */
  int transpose;
} dv_load2d;
void dv_issue_load2d(dv_here here, const dv_load2d *load);

/* Squares of fractals, transposed on the way (MTE1): LoadDataWithTranspose. Fields as LoadData2dTransposeParams documents them. */
typedef struct dv_load_transposed {
  dv_address to, from;
  uint32_t element_bytes;
  uint32_t start, repeats, from_stride, to_gap, to_fractal_gap;
} dv_load_transposed;
void dv_issue_load_transposed(dv_here here, const dv_load_transposed *load);

/* L1 or L0 filled with one value (MTE2 into L1, MTE1 into L0): InitConstValue. */
typedef struct dv_fill {
  dv_address to;
  uint32_t repeats, blocks, gap; /* a repeat is `blocks` blocks of 32 B (L1) or 512 B (L0), then a gap */
  uint32_t element_bytes;
  uint32_t value;
} dv_fill;
void dv_issue_fill(dv_here here, const dv_fill *fill);

/* ------------------------------------------------------------------ Cube */

/* C[m,n] (+)= A[m,k] B[k,n]: A Zz in L0A, B Zn in L0B, C Nz in L0C (M). */
typedef struct dv_mmad {
  dv_address c, a, b;
  dv_type type, to; /* f16, bf16, f32 or s8 to f32 or s32 */
  uint32_t m, n, k;
  int begins_at_zero; /* else it adds to what is in C */
  uint32_t unit_flag;
} dv_mmad;
void dv_issue_mmad(dv_here here, const dv_mmad *mmad);

/* Nz in L0C to rows in GM, or to Nz in L1 (FIX), rounded to `type`. */
typedef struct dv_fixpipe {
  dv_address to, from;
  dv_type from_type, type;
  uint32_t columns, rows;
  uint32_t from_stride;  /* between columns of fractals in L0C, units of 16 elements of C0 = 16 (as srcStride documents) */
  uint32_t to_stride;    /* elements between rows in GM; blocks of 32 B between columns of fractals in L1 */
  uint32_t matrices, from_matrix, to_matrix;
  int relu;
  uint32_t unit_flag;
  int keeps_nz;          /* no conversion to rows */
  int saturates;         /* set by the engine: f16 and bf16 have no infinities and NaN, as CTRL[48] says */
} dv_fixpipe;
void dv_issue_fixpipe(dv_here here, const dv_fixpipe *fixpipe);

/* ------------------------------------------------------------------ Vector */

typedef enum dv_operation {
  DV_ADD, DV_SUB, DV_MUL, DV_DIV, DV_MAX, DV_MIN, DV_AND, DV_OR, /* dst = src0 op src1 */
  DV_MULADDDST,                                         /* dst += src0 * src1 */
  DV_ADDS, DV_MULS, DV_MAXS, DV_MINS, DV_SHIFT_LEFT, DV_SHIFT_RIGHT, DV_LEAKY_RELU, /* dst = src0 op scalar */
  DV_AXPY,                                              /* dst += src0 * scalar */
  DV_EXP, DV_LN, DV_SQRT, DV_RSQRT, DV_REC, DV_ABS, DV_RELU, DV_NOT, /* dst = op(src0) */
  DV_CAST, DV_COPY,
  DV_DUPLICATE,                                         /* dst = scalar */
  DV_PROGRESSION,                                       /* dst[i] = scalar + i * scalar2 (CreateVecIndex, ArithProgression) */
  DV_WHOLE_MAX, DV_WHOLE_MIN, DV_WHOLE_SUM,             /* a repeat to one element */
  DV_BLOCK_MAX, DV_BLOCK_MIN, DV_BLOCK_SUM,             /* a block to one element */
  DV_PAIR_SUM,                                          /* neighbours to one element */
  DV_TOTAL_SUM,                                         /* all to one element: repeats' sums, one added after another */
  DV_BRCB,                                              /* each of 8 elements to a block of its own */
  DV_COMPARE, DV_COMPARE_SCALAR,                        /* bits: bit i of dst = src0[i] cmp src1[i] or scalar */
  DV_SELECT, DV_SELECT_SCALAR,                          /* bit i of selector ? src0[i] : src1[i] or scalar */
  DV_OPERATIONS
} dv_operation;

typedef enum dv_compare { DV_LT, DV_GT, DV_EQ, DV_LE, DV_GE, DV_NE } dv_compare;
typedef enum dv_round { DV_ROUND_NONE, DV_RINT, DV_FLOOR, DV_CEIL, DV_ROUND_AWAY, DV_TRUNC, DV_ODD } dv_round;
/* What a WholeReduce of max or min writes: value and index, index and value, value, index. */
typedef enum dv_reduce_order { DV_VALUE_INDEX, DV_INDEX_VALUE, DV_ONLY_VALUE, DV_ONLY_INDEX } dv_reduce_order;

/* One vector instruction. A repeat handles 256 bytes of the widest type. Strides count blocks of 32 B, `block` within a
 * repeat, `repeat` between repeats; reductions and Brcb as their pages say. */
typedef struct dv_vector {
  dv_operation op;
  dv_type type, to; /* of the sources, of dst */
  dv_address dst, src0, src1;
  dv_address selector; /* DV_SELECT* */
  uint32_t repeats;
  uint64_t mask[2]; /* elements of a repeat that take part; not read when counts */
  int counts;       /* counter mode: `count` elements in all, repeats follow from it */
  uint32_t count;
  uint32_t dst_block, src0_block, src1_block, dst_repeat, src0_repeat, src1_repeat;
  float scalar, scalar2;
  uint32_t scalar_bits; /* DV_DUPLICATE and integer scalars: the value itself */
  dv_compare compare;
  dv_round round;
  dv_reduce_order order;
  int selector_repeats; /* 1: the selector goes on from repeat to repeat; 0: each repeat uses the first bits */
  int saturates;        /* as dv_fixpipe's */
} dv_vector;
void dv_issue_vector(dv_here here, const dv_vector *vector);

/* The mask register of the core that runs: SetVectorMask, SetMaskCount. */
typedef struct dv_mask {
  uint64_t bits[2];
  int counts;
} dv_mask;
dv_mask *dv_mask_register(void);
uint64_t *dv_ctrl_register(void); /* CTRL: 0 after launch */

/* ------------------------------------------------------------------ scalar unit */

/* The scalar unit reads and writes GM or its own UB. */
uint64_t dv_scalar_load(dv_here here, dv_address from, uint32_t bytes);
void dv_scalar_store(dv_here here, dv_address to, uint32_t bytes, uint64_t value);

/* ------------------------------------------------------------------ order */

void dv_issue_set_flag(dv_here here, dv_pipe from, dv_pipe to, int id);
void dv_issue_wait_flag(dv_here here, dv_pipe from, dv_pipe to, int id);
void dv_issue_barrier(dv_here here, dv_pipe pipe);
/* Mode 0: all cores of a kind wait for each other; 1: the two AIVs of a group; 2: an AIC and its AIVs. */
void dv_issue_cross_set(dv_here here, int mode, dv_pipe pipe, int id);
void dv_issue_cross_wait(dv_here here, int mode, dv_pipe pipe, int id);
void dv_issue_sync_all(dv_here here, int only_vector);
void dv_issue_atomic_add(dv_here here, int on, dv_type type); /* what MTE3 and FIX write to GM is added from here on */

/* ------------------------------------------------------------------ the core that runs */

int dv_is_aic(void);
int dv_block_index(void);  /* of the group, from 0 */
int dv_block_count(void);
int dv_sub_block_index(void); /* 0 on the AIC, 0 or 1 on the AIVs */
int dv_task_ratio(void);      /* AIVs a group */
uint64_t dv_cycle(void);
uint32_t dv_memory_bytes(dv_memory memory);
/* The buffer itself, for LocalTensor::GetPhyAddr and for tests. */
void *dv_memory_base(dv_memory memory);
/* Ends the run: a rule of the framework (TPipe, TQue) was broken. */
void dv_broken_rule(dv_here here, const char *format, ...) __attribute__((format(printf, 2, 3)));

#ifdef __cplusplus
}
#endif

#endif
