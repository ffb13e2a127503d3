/* Happens-before on an emulated Ascend core (one AIC, two AIVs): of two instructions that touch the same bytes, one writing,
 * does any chain of queues, barriers and flags make the second wait for the first? If not, the kernel is wrong on a device
 * whatever values come out here. Nothing is simulated in time: one run decides for all timings of the same instructions. For
 * that sets of a flag must come in an order of their own, and none before the flag has room whatever the timing: both are
 * found too. (Other groups of cores: gm.c, cross.c.)
 *
 * A queue starts its instructions in the order they were issued and may have several under way, so that also within a queue
 * an instruction sees another's bytes for certain only behind a barrier, or in a `serial` queue, which ends one before it
 * starts the next. A flag is raised when all instructions before it in its queue have ended; who waits for it starts later.
 *
 * Every byte remembers who wrote it and who read it since (vector clocks after FastTrack, Flanagan and Freund 2009, which
 * says: the first instruction that races is found, if there is one). Checked against the transitive closure of random
 * programs by tests/davinci/test_order_random.c. */
#ifndef DV_ORDER_H
#define DV_ORDER_H

#include <stddef.h>
#include <stdint.h>

#include "davinci/instructions.h"

enum { DV_MOST_QUEUES = 16, DV_MOST_SPACES = 64 };

/* Where in the kernel's source an instruction stands. */
typedef dv_here dv_site;

typedef enum dv_hazard_kind {
  DV_READ_UNWRITTEN,  /* bytes nobody wrote */
  DV_READ_TOO_EARLY,  /* bytes whose writer need not have ended */
  DV_WRITE_TOO_EARLY, /* bytes that a reader or writer before need not be done with */
  DV_OUT_OF_SPACE,    /* bytes behind the end of a buffer */
  DV_FLAG_LIMIT,      /* more sets of a flag than its counter holds, in this timing or another */
  DV_FLAG_RACE,       /* two queues set a flag, and neither waits for the other */
  DV_FLAG_LEFT        /* a flag that nobody waited for, at the end */
} dv_hazard_kind;

typedef struct dv_hazard {
  dv_hazard_kind kind;
  const dv_site *first;  /* NULL: there is none */
  const dv_site *second; /* the one that comes too early */
  const char *space;     /* the buffer's name, or the flag's */
  size_t begin, bytes;   /* a granule; behind a buffer the whole access; for flags the number of sets */
} dv_hazard;

typedef struct dv_order dv_order;
typedef void (*dv_hazard_report)(void *user, const dv_hazard *hazard);

/* NULL: no memory, or not 1 to DV_MOST_QUEUES queues. `report` is called for each hazard as it is found; the caller decides to stop. */
dv_order *dv_order_open(int queues, dv_hazard_report report, void *user);
void dv_order_close(dv_order *order);

/* A buffer of `bytes`, followed by granules of `granule` bytes, 1 or more. Returns its number; -1: no memory, or more
 * than DV_MOST_SPACES. `name` is kept. */
int dv_order_space(dv_order *order, const char *name, size_t bytes, size_t granule);

/* Bytes that are there before the kernel starts; or all of a buffer, before its first use. */
void dv_order_given(dv_order *order, int space, size_t begin, size_t bytes);
void dv_order_all_given(dv_order *order, int space);
/* Bytes that somebody outside wrote, behind whom the present instruction is known to come. */
void dv_order_learned(dv_order *order, int space, size_t begin, size_t bytes);

/* The next instruction of a queue; what it reads and writes follows, reads first. `site` is kept. 0: no memory, no such queue,
 * or more than 2^28 instructions of one. */
int dv_order_issue(dv_order *order, int queue, const dv_site *site);
void dv_order_read(dv_order *order, int space, size_t begin, size_t bytes);
void dv_order_write(dv_order *order, int space, size_t begin, size_t bytes);

/* For instructions that move bytes without looking at them: whether all of them were written; and a write of bytes that are
 * undefined still. */
int dv_order_read_any(dv_order *order, int space, size_t begin, size_t bytes);
void dv_order_write_nothing(dv_order *order, int space, size_t begin, size_t bytes);

/* The instruction just issued waits for all before it in its queue. */
void dv_order_barrier_before(dv_order *order, int queue);

/* Behind it a queue starts nothing before all it has started has ended. serial: always so. */
void dv_order_barrier(dv_order *order, int queue);
void dv_order_serial(dv_order *order, int queue);

/* A barrier across queues (bits): none of them starts anything before all that all of them have started has ended. */
void dv_order_join(dv_order *order, uint32_t queues);

/* A flag is a counter: sets wait for waits, `most` at the same time. */
typedef struct dv_flag dv_flag;
dv_flag *dv_flag_open(dv_order *order, const char *name, int most); /* NULL: no memory, or most < 1; closed with the order */
void dv_flag_set(dv_order *order, dv_flag *flag, int queue, const dv_site *site);
/* `queues` (bits) start nothing before. 0: not set yet. The caller runs somebody else, or nobody is left to: a deadlock. */
int dv_flag_wait(dv_order *order, dv_flag *flag, uint32_t queues);

/* For what knows of other orders: what of each queue has ended when `queue` starts its next; that queues (bits) start nothing
 * before that has ended; and the instruction whose reads and writes come. */
void dv_order_clock(const dv_order *order, int queue, uint32_t *ended);
void dv_order_know(dv_order *order, uint32_t queues, const uint32_t *ended);
uint32_t dv_order_present(const dv_order *order, int *queue);
const dv_site *dv_order_site(const dv_order *order);

/* 1: there was no memory for all that it had to keep, and hazards may have been missed. */
int dv_order_has_failed(const dv_order *order);

/* Reports the flags that are still set. */
void dv_order_end(dv_order *order);

#endif
