/* The Volta kernel's layout, proven on the host from the header that the kernel uses (src/cuda/sm70/layout_sm70.h).
 *
 * Conflicts: every shared-memory access of src/cuda/sm70/prefill_sm70.cu is enumerated, lane -> address -> bank. A
 * 32-bit access is served to 32 lanes at a time, a 64-bit one to 16, a 128-bit one to 8. Lanes of a phase that read the
 * same word share it; a bank asked for n different words costs n cycles. The same accesses without the XOR stand
 * beside, and have conflicts, so that the counter is seen to count.
 * Products: m8n8k4 is emulated by its fragment layout (PTX ISA, "Matrix Fragments for mma.m8n8k4 with .f16 floating
 * point type") and fed from an emulated shared memory through the header's addresses; S, the exchange into A operands
 * and O must be the plain matrix products.
 *
 * The load budget is a model: an access costs its registers returned (LDS.128: 4 cycles), an MMA 8 cycles of one of
 * four tensor sub-cores behind one LDS pipe, so 2 LDS cycles an MMA keep them fed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/sm70/layout_sm70.h"

enum { LANES = 32, BANKS = 32 };

/* Cycles beyond one a phase, for `words` (1, 2, 4) words a lane at byte addresses; -1 marks a lane that is off. */
static int conflicts(const int address[LANES], int words) {
  const int phase = LANES / words;
  int extra = 0;
  for (int first = 0; first < LANES; first += phase) {
    int worst = 1;
    for (int bank = 0; bank < BANKS; bank++) {
      int seen[LANES * 4], count = 0;
      for (int lane = first; lane < first + phase; lane++) {
        for (int w = 0; address[lane] >= 0 && w < words; w++) {
          const int word = address[lane] / 4 + w;
          int known = word % BANKS != bank;
          for (int n = 0; n < count; n++) known |= seen[n] == word;
          if (!known) seen[count++] = word;
        }
      }
      if (count > worst) worst = count;
    }
    extra += worst - 1;
  }
  return extra;
}

typedef struct shape {
  int dim, parts, rows, keys, row_bytes, chunks, groups, q_held, q_bytes, k_bytes, shared_bytes;
} shape;

#define SHAPE(D)                                                                                                   \
  {D, FA_SM70_PARTS(D), FA_SM70_ROWS(D), FA_SM70_KEYS(D), FA_SM70_ROW_BYTES(D), FA_SM70_CHUNKS(D), FA_SM70_GROUPS(D), \
   FA_SM70_Q_IN_REGISTERS(D), FA_SM70_Q_BYTES(D), FA_SM70_K_BYTES(D), FA_SM70_SHARED_BYTES(D)}
static const shape shapes[] = {SHAPE(64), SHAPE(96), SHAPE(128), SHAPE(192), SHAPE(256)};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* ------------------------------------------------------------- conflicts */

typedef struct tally {
  long accesses, extra, naive;
} tally;

static void count(tally *t, const int address[LANES], const int naive[LANES]) {
  t->accesses++;
  t->extra += conflicts(address, 4);
  t->naive += conflicts(naive, 4);
}

static int plain(int row, int chunk, const shape *s) { return row * s->row_bytes + chunk * FA_SM70_CHUNK_BYTES; }

/* STS of K or V (rows: keys) and of Q: thread -> row, chunk. */
static tally stores(const shape *s, int rows) {
  tally t = {0, 0, 0};
  int address[LANES], naive[LANES];
  for (int pass = 0; pass < rows * s->chunks / FA_SM70_THREADS; pass++) {
    for (int warp = 0; warp < FA_SM70_WARPS; warp++) {
      for (int lane = 0; lane < LANES; lane++) {
        const int row = fa_sm70_stage_row(warp * LANES + lane, pass, s->chunks);
        const int chunk = fa_sm70_stage_chunk(warp * LANES + lane, pass, s->chunks);
        address[lane] = fa_sm70_offset(row, chunk, s->row_bytes);
        naive[lane] = plain(row, chunk, s);
        assert_true(row < rows && address[lane] < rows * s->row_bytes);
      }
      count(&t, address, naive);
    }
  }
  return t;
}

enum operand { Q_FRAGMENT, K_FRAGMENT, V_FRAGMENT };

/* LDS of one operand by a warp of each part: everything it reads for one tile. */
static tally loads(const shape *s, enum operand operand) {
  tally t = {0, 0, 0};
  int address[LANES], naive[LANES];
  for (int part = 0; part < s->parts; part++) {
    for (int block = 0; block < (operand == Q_FRAGMENT ? 2 : s->keys / 16); block++) {
      for (int x = 0; x < s->groups; x++) {
        for (int b = 0; b < 4; b++) { /* V: own or other key half, k-step */
          for (int lane = 0; lane < LANES; lane++) {
            const int row0 = operand == Q_FRAGMENT   ? fa_sm70_q_row(lane, 0)
                             : operand == K_FRAGMENT ? fa_sm70_k_row(lane, 0)
                                                     : fa_sm70_v_row(lane, 0, 0, b & 1);
            const int below = 16 * block + (operand == V_FRAGMENT ? 8 * (b >> 1) : 0);
            const int from_lane = operand == V_FRAGMENT ? fa_sm70_v_chunk(lane) : 0, step_b = operand == V_FRAGMENT ? 0 : b;
            const int chunk = fa_sm70_chunk(x, part, s->parts, from_lane + step_b);
            const int start = fa_sm70_start(row0, part, from_lane, s->row_bytes);
            address[lane] = fa_sm70_step(start, x, s->parts, step_b) + below * s->row_bytes;
            naive[lane] = plain(row0 + below, chunk, s);
            assert_int_equal(address[lane], fa_sm70_offset(row0 + below, chunk, s->row_bytes));
          }
          count(&t, address, naive);
        }
      }
    }
  }
  return t;
}

/* Partial scores of two parts, written and read alike. The naive layout: each lane's floats one after another. */
static tally sums(const shape *s) {
  tally t = {0, 0, 0};
  int address[LANES], naive[LANES];
  const int slots = s->keys / 16 * 4;
  for (int warp = 0; warp < FA_SM70_WARPS; warp++) {
    for (int slot = 0; slot < slots; slot++) {
      for (int lane = 0; lane < LANES; lane++) {
        address[lane] = fa_sm70_sum_offset(warp, slot, lane);
        naive[lane] = warp * 4096 + lane * slots * 16 + slot * 16;
        assert_true(address[lane] + 16 <= s->shared_bytes - s->q_bytes);
      }
      count(&t, address, naive);
    }
  }
  return t;
}

static void check_tally(const shape *s, const char *what, tally t) {
  printf("  | %3d | %-24s | %8ld | %9ld | %16ld |\n", s->dim, what, t.accesses, t.extra, t.naive);
  assert_true(t.accesses > 0);
  assert_int_equal(t.extra, 0);
}

static void test_no_access_has_conflicts(void **state) {
  (void)state;
  printf("  |   D | access, 128-bit          | accesses | conflicts | naive: conflicts |\n");
  for (int n = 0; n < SHAPES; n++) {
    const shape *s = &shapes[n];
    const tally q = loads(s, Q_FRAGMENT), k = loads(s, K_FRAGMENT), v = loads(s, V_FRAGMENT);
    check_tally(s, "STS Q, a block", stores(s, s->rows));
    check_tally(s, "STS K or V, a tile", stores(s, s->keys));
    check_tally(s, "LDS Q, A operand", q);
    check_tally(s, "LDS K, B operand", k);
    check_tally(s, "LDS V, B operand", v);
    assert_true(q.naive > 0 && k.naive > 0 && v.naive > 0);
    if (s->parts == 2) {
      const tally t = sums(s);
      check_tally(s, "STS, LDS partial scores", t);
      assert_true(t.naive > 0);
    }
    assert_true(s->shared_bytes <= FA_SM70_SHARED);
  }
}

/* The counter itself, for each width: what is known to be free, shared or serialised. */
static void test_the_counter_counts(void **state) {
  (void)state;
  for (int words = 1; words <= 4; words *= 2) {
    const int phase = LANES / words;
    int address[LANES];
    for (int lane = 0; lane < LANES; lane++) address[lane] = lane * words * 4;
    assert_int_equal(conflicts(address, words), 0);
    for (int lane = 0; lane < LANES; lane++) address[lane] = 64;
    assert_int_equal(conflicts(address, words), 0);
    for (int lane = 0; lane < LANES; lane++) address[lane] = lane * 128;
    assert_int_equal(conflicts(address, words), (phase - 1) * words);
    for (int lane = 0; lane < LANES; lane++) address[lane] = lane == 5 ? 128 : lane == 3 ? 0 : -1;
    assert_int_equal(conflicts(address, words), 1);
  }
  int halves[LANES]; /* the two halves of a 64-bit access never meet */
  for (int lane = 0; lane < LANES; lane++) halves[lane] = lane % 16 * 8 + lane / 16 * 128;
  assert_int_equal(conflicts(halves, 2), 0);
}

/* ------------------------------------------------------------- budget */

static void test_load_budget(void **state) {
  (void)state;
  printf("  |   D | LDS cycles an MMA [model]: Q K^T | P V  | all, of 2 | with shuffles and sums |\n");
  for (int n = 0; n < SHAPES; n++) {
    const shape *s = &shapes[n];
    const double blocks = s->keys / 16, groups = s->groups;
    const double qk_mma = groups * 4 * blocks * 4, pv_mma = blocks * 4 * groups * 4;
    const double qk = groups * 4 * ((s->q_held ? 0 : 2) + blocks) * 4, pv = blocks * 4 * groups * 4;
    const double shuffles = blocks * 2 * 2 + blocks * 2 * 4 + 8; /* exchange, partner, row maxima */
    const double partial = s->parts == 2 ? 2 * blocks * 4 * 4 : 0;
    const double all = (qk + pv) / (qk_mma + pv_mma), more = (qk + pv + shuffles + partial) / (qk_mma + pv_mma);
    printf("  | %3d | %32.2f | %4.2f | %8.0f%% | %21.0f%% |\n", s->dim, qk / qk_mma, pv / pv_mma, 50 * all, 50 * more);
    assert_true(qk / qk_mma <= 2 && pv / pv_mma <= 2 && more <= 2);
  }
}

/* ------------------------------------------------------------- products on an emulated m8n8k4 */

/* d += a b for the four quad-pairs. a[lane][k]: A row-major; b[lane][e]: B column-major (n of the lane, k = e) or
 * row-major (k of the lane, n = e + 4 h). Written from the instruction's description, not from the header. */
static void mma(double d[LANES][8], double a[LANES][4], double b[LANES][4], int b_row_major) {
  for (int qp = 0; qp < 4; qp++) {
    double A[8][4], B[4][8];
    for (int h = 0; h < 2; h++) {
      for (int l = 0; l < 4; l++) {
        const int lane = 16 * h + 4 * qp + l;
        for (int e = 0; e < 4; e++) {
          A[l + 4 * h][e] = a[lane][e];
          if (b_row_major) B[l][e + 4 * h] = b[lane][e];
          else B[e][l + 4 * h] = b[lane][e];
        }
      }
    }
    for (int lane = 0; lane < LANES; lane++) {
      if ((lane >> 2 & 3) != qp) continue;
      for (int i = 0; i < 8; i++) {
        const int row = (lane & 1) + (i & 2) + 4 * (lane >= 16), column = (i & 4) + (lane & 2) + (i & 1);
        for (int k = 0; k < 4; k++) d[lane][i] += A[row][k] * B[k][column];
      }
    }
  }
}

static double shared[FA_SM70_SHARED / 2]; /* a half each; small integers, so that every sum is exact */
static double q[256][256], k[64][256], v[64][256], want_s[32][64], want_o[32][256];
static double s_tile[2][2][4][LANES][8], o_tile[2][2][4][2][LANES][8]; /* [part][row block][key block or group].. */

static void lds128(double out[8], int address) { memcpy(out, &shared[address / 2], 8 * sizeof *out); }

static void stage(const shape *s, int base, int rows, double (*from)[256]) {
  for (int pass = 0; pass < rows * s->chunks / FA_SM70_THREADS; pass++) {
    for (int thread = 0; thread < FA_SM70_THREADS; thread++) {
      const int row = fa_sm70_stage_row(thread, pass, s->chunks), chunk = fa_sm70_stage_chunk(thread, pass, s->chunks);
      memcpy(&shared[(base + fa_sm70_offset(row, chunk, s->row_bytes)) / 2], &from[row][8 * chunk], 8 * sizeof(double));
    }
  }
}

static void emulate_scores(const shape *s, int part, int row_tile) {
  double a[2][LANES][8], b[LANES][8], a4[LANES][4], b4[LANES][4];
  const int q_base = row_tile * FA_SM70_WARP_ROWS * s->row_bytes, k_base = s->q_bytes;
  memset(s_tile[part], 0, sizeof s_tile[part]);
  for (int x = 0; x < s->groups; x++) {
    for (int e = 0; e < 4; e++) {
      for (int lane = 0; lane < LANES; lane++) {
        const int start = q_base + fa_sm70_start(fa_sm70_q_row(lane, 0), part, 0, s->row_bytes);
        for (int r = 0; r < 2; r++) lds128(a[r][lane], fa_sm70_step(start, x, s->parts, e) + 16 * r * s->row_bytes);
      }
      for (int c = 0; c < s->keys / 16; c++) {
        for (int lane = 0; lane < LANES; lane++) {
          const int start = k_base + fa_sm70_start(fa_sm70_k_row(lane, 0), part, 0, s->row_bytes);
          lds128(b[lane], fa_sm70_step(start, x, s->parts, e) + 16 * c * s->row_bytes);
        }
        for (int half = 0; half < 2; half++) {
          for (int r = 0; r < 2; r++) {
            for (int lane = 0; lane < LANES; lane++) {
              memcpy(a4[lane], &a[r][lane][4 * half], sizeof a4[lane]);
              memcpy(b4[lane], &b[lane][4 * half], sizeof b4[lane]);
            }
            mma(s_tile[part][r][c], a4, b4, 0);
          }
        }
      }
    }
  }
}

static void emulate_values(const shape *s, int part) {
  double a[2][LANES][4], from[2][LANES][4], b[LANES][8], b4[LANES][4];
  const int v_base = s->q_bytes + s->k_bytes;
  memset(o_tile[part], 0, sizeof o_tile[part]);
  for (int c = 0; c < s->keys / 16; c++) {
    for (int step = 0; step < 2; step++) {
      for (int r = 0; r < 2; r++) { /* the one-shuffle exchange */
        for (int lane = 0; lane < LANES; lane++) {
          const double *mine = &s_tile[part][r][c][lane][4 * step];
          const double *theirs = &s_tile[part][r][c][lane ^ FA_SM70_EXCHANGE][4 * step];
          const int second = fa_sm70_keeps_second(lane);
          /* what the other lane sends: its first pair if it keeps its second */
          const double *got = fa_sm70_keeps_second(lane ^ FA_SM70_EXCHANGE) ? theirs : theirs + 2;
          const double *kept = second ? mine + 2 : mine;
          for (int e = 0; e < 2; e++) a[r][lane][e] = second ? got[e] : kept[e], a[r][lane][2 + e] = second ? kept[e] : got[e];
        }
      }
      for (int other = 0; other < 2; other++) {
        if (other) {
          memcpy(from, a, sizeof from);
          for (int n = 0; n < 2 * LANES; n++) memcpy(a[n / LANES][n % LANES], from[n / LANES][n % LANES ^ FA_SM70_PARTNER], sizeof a[0][0]);
        }
        for (int x = 0; x < s->groups; x++) {
          for (int lane = 0; lane < LANES; lane++) {
            const int start = v_base + fa_sm70_start(fa_sm70_v_row(lane, 0, 0, other), part, fa_sm70_v_chunk(lane), s->row_bytes);
            lds128(b[lane], fa_sm70_step(start + (16 * c + 8 * step) * s->row_bytes, x, s->parts, 0));
          }
          for (int m = 0; m < 2; m++) {
            for (int lane = 0; lane < LANES; lane++) memcpy(b4[lane], &b[lane][4 * m], sizeof b4[lane]);
            for (int r = 0; r < 2; r++) mma(o_tile[part][r][x][m], a[r], b4, 1);
          }
        }
      }
    }
  }
}

static void test_products_through_the_layout(void **state) {
  (void)state;
  srand(7);
  for (int n = 0; n < SHAPES; n++) {
    const shape *s = &shapes[n];
    for (int r = 0; r < 256; r++) {
      for (int d = 0; d < 256; d++) {
        q[r][d] = d < s->dim ? rand() % 7 - 3 : 1e9; /* columns beyond D must not be read */
        if (r < 64) k[r][d] = d < s->dim ? rand() % 7 - 3 : 1e9, v[r][d] = d < s->dim ? rand() % 7 - 3 : 1e9;
      }
    }
    stage(s, 0, s->rows, q);
    stage(s, s->q_bytes, s->keys, k);
    stage(s, s->q_bytes + s->k_bytes, s->keys, v);
    for (int tile = 0; tile < s->rows / 32; tile += s->rows / 32 - 1) { /* the first row tile and the last */
      for (int r = 0; r < 32; r++) {
        for (int j = 0; j < s->keys; j++) {
          want_s[r][j] = 0;
          for (int d = 0; d < s->dim; d++) want_s[r][j] += q[32 * tile + r][d] * k[j][d];
        }
        for (int d = 0; d < s->dim; d++) {
          want_o[r][d] = 0;
          for (int j = 0; j < s->keys; j++) want_o[r][d] += want_s[r][j] * v[j][d];
        }
      }
      for (int part = 0; part < s->parts; part++) emulate_scores(s, part, tile);
      if (s->parts == 2) { /* both hold the sum, value by value at the same lane */
        double *first = &s_tile[0][0][0][0][0], *then = &s_tile[1][0][0][0][0];
        for (size_t e = 0; e < sizeof s_tile[0] / sizeof(double); e++) first[e] = then[e] = first[e] + then[e];
      }
      int wrong = 0, seen_s = 0, seen_o = 0;
      static char done[32][256];
      memset(done, 0, sizeof done);
      for (int part = 0; part < s->parts; part++) {
        for (int e = 0; e < 2 * (s->keys / 16) * LANES * 8; e++) {
          const int i = e % 8, lane = e / 8 % LANES, c = e / 8 / LANES % (s->keys / 16), r = e / 8 / LANES / (s->keys / 16);
          const int row = fa_sm70_accumulator_row(lane, r, i), key = fa_sm70_accumulator_key(lane, c, i);
          wrong += s_tile[part][r][c][lane][i] != want_s[row][key];
          seen_s++;
        }
        emulate_values(s, part);
        for (int e = 0; e < 2 * s->groups * 2 * LANES * 8; e++) {
          const int i = e % 8, lane = e / 8 % LANES, m = e / 8 / LANES % 2, x = e / 512 % s->groups, r = e / 512 / s->groups;
          const int row = fa_sm70_accumulator_row(lane, r, i);
          const int column = fa_sm70_accumulator_column(lane, x * s->parts + part, m, i);
          wrong += o_tile[part][r][x][m][lane][i] != want_o[row][column];
          seen_o += !done[row][column]++;
        }
      }
      assert_int_equal(wrong, 0);
      assert_int_equal(seen_s, s->parts * 32 * s->keys);
      assert_int_equal(seen_o, 32 * s->dim);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_the_counter_counts),
      cmocka_unit_test(test_no_access_has_conflicts),
      cmocka_unit_test(test_load_budget),
      cmocka_unit_test(test_products_through_the_layout),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
