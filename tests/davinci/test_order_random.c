/* The hazard finder (sim/davinci/order.h) against the transitive closure of random programs' order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "davinci/order.h"

enum { QUEUES = 3 };
enum { OPERATIONS = 60, NODES = 3 * OPERATIONS, BYTES = 16, FLAGS = 3 };

typedef struct program {
  uint8_t before[NODES][NODES];
  int nodes;
  int at[QUEUES];                                   /* the last start of the queue, -1 */
  int ends[QUEUES][OPERATIONS], ends_count[QUEUES]; /* of its instructions */
  int raised[FLAGS][OPERATIONS], first[FLAGS], sets[FLAGS];
  struct {
    int start, end;
    unsigned reads, writes; /* a bit a byte */
  } instructions[OPERATIONS];
  int count;
} program;

static int add_node(program *p) { return p->nodes++; }

/* The next operation of a queue starts behind the one before it. */
static int add_start(program *p, int queue) {
  const int node = add_node(p);
  if (p->at[queue] >= 0) p->before[p->at[queue]][node] = 1;
  return p->at[queue] = node;
}

static int is_before(const program *p, int from, int to) {
  uint8_t seen[NODES] = {0};
  int stack[NODES], depth = 0;
  stack[depth++] = from;
  seen[from] = 1;
  while (depth) {
    const int node = stack[--depth];
    if (node == to) return 1;
    for (int next = 0; next < p->nodes; next++)
      if (p->before[node][next] && !seen[next]) seen[next] = 1, stack[depth++] = next;
  }
  return 0;
}

static unsigned drawn(unsigned *seed, unsigned below) {
  *seed = *seed * 1664525u + 1013904223u;
  return (unsigned)((uint64_t)(*seed >> 8) * below >> 24);
}

/* Their flags are set by anybody, which is a hazard of its own. */
static void report_accesses(void *user, const dv_hazard *hazard) {
  int *found = user;
  *found += hazard->kind != DV_FLAG_RACE;
}

static void random_programs_agree_with_the_closure(void **state) {
  (void)state;
  static const dv_site site = {"any", "random", 1};
  int with = 0, without = 0;
  for (unsigned seed = 1; seed <= 4000; seed++) {
    unsigned draw = seed * 2654435761u;
    int found = 0;
    program *p = calloc(1, sizeof *p);
    dv_order *order = dv_order_open(QUEUES, report_accesses, &found);
    assert_non_null(p);
    assert_non_null(order);
    const int space = dv_order_space(order, "bytes", BYTES, 1);
    dv_order_given(order, space, 0, BYTES);
    dv_flag *flags[FLAGS];
    for (int n = 0; n < FLAGS; n++) flags[n] = dv_flag_open(order, "flag", OPERATIONS);
    memset(p->at, -1, sizeof p->at);
    const unsigned orderly = drawn(&draw, 16), few = 2 + drawn(&draw, 12); /* how much of the program orders, how little writes */
    int is_racing = 0;
    for (int n = 0; n < OPERATIONS && !is_racing; n++) {
      const int queue = (int)drawn(&draw, QUEUES), flag = (int)drawn(&draw, FLAGS);
      const unsigned what = drawn(&draw, 4 + orderly);
      if (what < 2) {
        const int start = add_start(p, queue), end = add_node(p);
        const unsigned reads = 1u << drawn(&draw, BYTES), writes = drawn(&draw, few) ? 0 : 1u << drawn(&draw, BYTES);
        p->before[start][end] = 1;
        for (int other = 0; other < p->count; other++) {
          const unsigned clash = (p->instructions[other].writes & (reads | writes)) | (p->instructions[other].reads & writes);
          if (clash && !is_before(p, p->instructions[other].end, start)) is_racing = 1;
        }
        p->instructions[p->count].start = start;
        p->instructions[p->count].end = end;
        p->instructions[p->count].reads = reads;
        p->instructions[p->count++].writes = writes;
        p->ends[queue][p->ends_count[queue]++] = end;
        assert_true(dv_order_issue(order, queue, &site));
        for (size_t byte = 0; byte < BYTES; byte++)
          if (reads >> byte & 1) dv_order_read(order, space, byte, 1);
        for (size_t byte = 0; byte < BYTES; byte++)
          if (writes >> byte & 1) dv_order_write(order, space, byte, 1);
        assert_int_equal(found > 0, is_racing);
      } else if (what % 3 == 2) {
        const int start = add_start(p, queue), raised = add_node(p);
        p->before[start][raised] = 1;
        for (int e = 0; e < p->ends_count[queue]; e++) p->before[p->ends[queue][e]][raised] = 1;
        p->raised[flag][p->first[flag] + p->sets[flag]++] = raised;
        dv_flag_set(order, flags[flag], queue, &site);
      } else if (what % 3 == 0) {
        const int start = add_start(p, queue);
        const int is_set = dv_flag_wait(order, flags[flag], 1u << queue);
        assert_int_equal(is_set, p->sets[flag] > 0);
        if (is_set) p->before[p->raised[flag][p->first[flag]++]][start] = 1, p->sets[flag]--;
      } else {
        const int start = add_start(p, queue);
        for (int e = 0; e < p->ends_count[queue]; e++) p->before[p->ends[queue][e]][start] = 1;
        dv_order_barrier(order, queue);
      }
    }
    is_racing ? ++with : ++without;
    dv_order_close(order);
    free(p);
  }
  assert_true(with > 200 && without > 200); /* both kinds were drawn */
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(random_programs_agree_with_the_closure)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
