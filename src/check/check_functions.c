/* The functions beside attention: merging by log-sum-exp against its formula in double; buffers, copies,
 * streams and events. */
#define _GNU_SOURCE
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check/check_crash.h"
#include "check/check_session.h"
#include "core/status.h"
#include "ref/ref.h"

/* One side of a merge in its own guarded arrays. */
typedef struct side {
  fa_slot o_slot, lse_slot;
  fa_tensor o;
  float *lse;
} side;

typedef struct merge_shape {
  fa_dtype dtype;
  int64_t batch, seqlen, heads, dim;
} merge_shape;

static int64_t row_index(const merge_shape *m, const fa_tensor *o, int64_t row) {
  const int64_t i = row % m->seqlen, h = row / m->seqlen % m->heads, b = row / m->seqlen / m->heads;
  return b * o->stride_batch + i * o->stride_seq + h * o->stride_head;
}

static int draw_side(fa_random *r, const merge_shape *m, side *s) {
  const int64_t gap = fa_random_chance(r, 50) ? fa_random_range(r, 1, 9) : 0, step = m->dim + gap;
  const int64_t rows = m->batch * m->seqlen * m->heads;
  const size_t size = fa_dtype_bytes(m->dtype);
  if (fa_random_chance(r, 50)) {
    s->o.stride_head = step;
    s->o.stride_seq = step * m->heads;
  } else {
    s->o.stride_seq = step;
    s->o.stride_head = step * m->seqlen;
  }
  s->o.stride_batch = step * m->heads * m->seqlen;
  const size_t bytes = (size_t)((rows - 1) * step + m->dim) * size;
  s->o.data = fa_slot_place(&s->o_slot, bytes, size, fa_random_chance(r, 60));
  s->lse = fa_slot_place(&s->lse_slot, (size_t)rows * sizeof(float), sizeof(float), fa_random_chance(r, 60));
  if (!s->o.data || !s->lse) return 0;
  const double level = fa_random_chance(r, 30) ? 300.0 : 3.0;
  for (int64_t row = 0; row < rows; row++) {
    const int empty = fa_random_chance(r, 20);
    s->lse[row] = empty ? -INFINITY : (float)(level * fa_random_normal(r));
    for (int64_t d = 0; d < m->dim; d++)
      fa_ref_store(s->o.data, row_index(m, &s->o, row) + d, empty ? 0.0 : fa_random_normal(r), m->dtype);
  }
  return 1;
}

/* exact[row, dim + 1]: o, then lse. */
static void merge_exactly(const merge_shape *m, const side *a, const side *b, double *exact) {
  const int64_t rows = m->batch * m->seqlen * m->heads;
  for (int64_t row = 0; row < rows; row++) {
    double *out = exact + row * (m->dim + 1);
    const double lse_a = (double)a->lse[row], lse_b = (double)b->lse[row], most = fmax(lse_a, lse_b);
    const double weight_a = isinf(most) ? 0.0 : exp(lse_a - most),
                 weight_b = isinf(most) ? 0.0 : exp(lse_b - most);
    out[m->dim] = isinf(most) ? most : most + log(weight_a + weight_b);
    for (int64_t d = 0; d < m->dim; d++) {
      const double x = fa_ref_load(a->o.data, row_index(m, &a->o, row) + d, m->dtype);
      const double y = fa_ref_load(b->o.data, row_index(m, &b->o, row) + d, m->dtype);
      out[d] = isinf(most) ? 0.0 : (x * weight_a + y * weight_b) / (weight_a + weight_b);
    }
  }
}

/* Half a unit of the type for rounding o, and fp32's for the weights; lse as fa_tolerance_of has it, in fp32.
 */
static int merged_rightly(const merge_shape *m, side *a, const double *exact, char *line, size_t size) {
  const double unit = m->dtype == FA_BFLOAT16 ? 0x1p-8 : m->dtype == FA_FLOAT16 ? 0x1p-11 : 1e-6;
  const int64_t rows = m->batch * m->seqlen * m->heads;
  for (int64_t row = 0; row < rows; row++) {
    const double *want = exact + row * (m->dim + 1), lse = want[m->dim];
    const int64_t at = row_index(m, &a->o, row);
    if (!fa_value_matches((double)a->lse[row], lse, 1e-6 + 1e-6 * fabs(lse))) {
      snprintf(line, size, "lse of row %lld is %.9g, want %.9g", (long long)row, (double)a->lse[row], lse);
      return 0;
    }
    for (int64_t d = 0; d < m->dim; d++) {
      const double got = fa_ref_load(a->o.data, at + d, m->dtype);
      /* An lse of 300 is given in steps of 3e-5, and so are the weights. */
      const double tolerance = unit * fmax(fabs(want[d]), 1.0) + 4.0 * 0x1p-24 * 1000.0;
      if (fa_value_matches(got, want[d], tolerance)) continue;
      snprintf(line, size, "o of row %lld, element %lld is %.9g, want %.9g", (long long)row, (long long)d,
               got, want[d]);
      return 0;
    }
    memset((unsigned char *)a->o.data + (size_t)at * fa_dtype_bytes(m->dtype), FA_POISON,
           (size_t)m->dim * fa_dtype_bytes(m->dtype));
  }
  for (size_t n = 0; n < a->o_slot.bytes; n++) {
    if (a->o_slot.data[n] == FA_POISON) continue;
    snprintf(line, size, "byte %zu of a gap in o_a was overwritten", n);
    return 0;
  }
  if (fa_slot_surroundings_intact(&a->o_slot) && fa_slot_surroundings_intact(&a->lse_slot)) return 1;
  snprintf(line, size, "a guard band next to o_a or lse_a was overwritten");
  return 0;
}

static fa_status merge_mirrored(fa_session *s, fa_context *context, const merge_shape *m, side *a, side *b) {
  fa_slot *const slots[] = {&a->o_slot, &a->lse_slot, &b->o_slot, &b->lse_slot};
  fa_status status = fa_mirror_upload(&s->mirror, context, slots, 4);
  if (status != FA_OK) return status;
  fa_tensor o_a = a->o, o_b = b->o;
  o_a.data = fa_mirror_pointer(&s->mirror, o_a.data);
  o_b.data = fa_mirror_pointer(&s->mirror, o_b.data);
  status = fa_merge(context, m->dtype, m->batch, m->seqlen, m->heads, m->dim, &o_a,
                    fa_mirror_pointer(&s->mirror, a->lse), &o_b, fa_mirror_pointer(&s->mirror, b->lse), NULL);
  if (status == FA_OK) status = fa_mirror_download(&s->mirror);
  if (status == FA_OK && !fa_mirror_gaps_intact(&s->mirror))
    status = fa_fail(FA_ERROR_DEVICE, "merging wrote far beside its arrays on the device");
  return status;
}

void fa_check_merge(fa_session *s, uint64_t seed) {
  static side a, b; /* the guarded memory is used again and again */
  static const int64_t dims[] = {1, 7, 8, 15, 16, 17, 31, 33, 64, 80, 127, 128, 256, 576};
  fa_random random = {seed ^ 0x6d65726765u}, *r = &random;
  const merge_shape m = {(fa_dtype)fa_random_range(r, FA_FLOAT32, FA_BFLOAT16), fa_random_range(r, 1, 3),
                         fa_random_range(r, 1, 40), fa_random_range(r, 1, 5), FA_RANDOM_PICK(r, dims)};
  double *exact = malloc((size_t)(m.batch * m.seqlen * m.heads * (m.dim + 1)) * sizeof *exact);
  char line[200] = "out of memory";
  volatile int passed = 0; /* lives across the jump back from a crash */
  if (exact && draw_side(r, &m, &a) && draw_side(r, &m, &b)) {
    merge_exactly(&m, &a, &b, exact);
    const uint64_t hash = fa_slot_hash(&b.o_slot) ^ fa_slot_hash(&b.lse_slot);
    const int number = sigsetjmp(fa_crash_return, 1);
    if (number)
      snprintf(line, sizeof line, "%s", fa_crash_name(number));
    else {
      fa_crash_arm("  fa_merge\n", 60);
      const fa_status status = merge_mirrored(s, s->contexts[seed % 2], &m, &a, &b);
      fa_crash_disarm();
      if (status != FA_OK)
        snprintf(line, sizeof line, "%s: %.150s", fa_status_name(status), fa_last_error());
      else
        passed = merged_rightly(&m, &a, exact, line, sizeof line);
      if (passed && hash != (fa_slot_hash(&b.o_slot) ^ fa_slot_hash(&b.lse_slot))) {
        passed = 0;
        snprintf(line, sizeof line, "side b was written to");
      }
    }
  }
  fa_session_function(s, passed, "merge, seed %llu: %s batch %lld seq %lld heads %lld dim %lld: %s",
                      (unsigned long long)seed, fa_dtype_name(m.dtype), (long long)m.batch,
                      (long long)m.seqlen, (long long)m.heads, (long long)m.dim, line);
  free(exact);
}

/* ------------------------------------------------------- buffers, streams, events */

static void check_buffers(fa_session *s, size_t bytes) {
  fa_context *context = s->contexts[1];
  unsigned char *host = malloc(bytes), *back = malloc(bytes);
  void *one = NULL, *two = NULL;
  fa_stream stream = NULL;
  int passed = host && back && fa_stream_create(context, &stream) == FA_OK &&
               fa_buffer_allocate(context, bytes, &one) == FA_OK &&
               fa_buffer_allocate(context, bytes, &two) == FA_OK;
  passed = passed && (uintptr_t)one % 64 == 0 && (uintptr_t)two % 64 == 0;
  if (passed) {
    for (size_t n = 0; n < bytes; n++) host[n] = (unsigned char)(n * 7 + 1);
    memset(back, 0, bytes);
    passed = fa_buffer_copy(context, one, host, bytes, FA_COPY_HOST_TO_DEVICE, stream) == FA_OK &&
             fa_buffer_copy(context, two, one, bytes, FA_COPY_DEVICE_TO_DEVICE, stream) == FA_OK &&
             fa_buffer_copy(context, back, two, bytes, FA_COPY_DEVICE_TO_HOST, stream) == FA_OK &&
             fa_stream_synchronize(context, stream) == FA_OK && memcmp(host, back, bytes) == 0;
  }
  fa_session_function(s, passed, "device: %zu bytes to the device, across and back", bytes);
  fa_buffer_free(context, one);
  fa_buffer_free(context, two);
  fa_stream_destroy(context, stream);
  free(host);
  free(back);
}

static void check_events(fa_session *s) {
  fa_context *context = s->contexts[0];
  fa_event *begin = NULL, *end = NULL;
  double ms = -1.0;
  int passed = fa_event_create(context, &begin) == FA_OK && fa_event_create(context, &end) == FA_OK;
  passed = passed && fa_event_elapsed(context, begin, end, &ms) == FA_ERROR_ARGUMENT; /* never recorded */
  passed = passed && fa_event_record(context, begin, NULL) == FA_OK &&
           fa_event_record(context, end, NULL) == FA_OK && fa_stream_synchronize(context, NULL) == FA_OK &&
           fa_event_elapsed(context, begin, end, &ms) == FA_OK;
  fa_session_function(s, passed && ms >= 0.0 && ms < 60000.0, "device: two events, elapsed %g ms", ms);
  fa_event_destroy(context, begin);
  fa_event_destroy(context, end);
}

void fa_check_device_functions(fa_session *s) {
  static const size_t sizes[] = {1, 63, 64, 65, 4096, 100003, (size_t)3 << 20};
  void *nothing = &nothing;
  for (size_t n = 0; n < sizeof sizes / sizeof sizes[0]; n++) check_buffers(s, sizes[n]);
  check_events(s);
  const int passed = fa_buffer_allocate(s->contexts[0], 0, &nothing) == FA_OK && nothing == NULL;
  fa_buffer_free(s->contexts[0], NULL);
  fa_session_function(s, passed, "device: a buffer of 0 bytes is not NULL");
}
