/* What the files behind order.h share. */
#ifndef DV_ORDER_PARTS_H
#define DV_ORDER_PARTS_H

#include "davinci/order.h"

/* An instruction: its queue and its number there, from 1. Number 0 was before everything. */
typedef struct epoch {
  uint32_t queue : 4, number : 28;
} epoch;

typedef struct granule {
  epoch writer;
  uint32_t is_written : 1, has_reader : 1;
  epoch reader;     /* the last one, while all before it had ended when it started */
  uint32_t readers; /* else the set of them, in order->reader_sets */
} granule;

typedef struct space {
  const char *name;
  size_t bytes, size; /* of a granule */
  granule **pages;
  size_t pages_count;
  int is_given; /* bytes that nobody touched were there before the kernel started */
} space;

typedef struct clock {
  uint32_t ended[DV_MOST_QUEUES]; /* of each queue, the last instruction that must have ended */
} clock;

/* Readers since the last write. A queue's last one stands for those before it: none ends later for whoever waits for it. */
typedef struct readers {
  uint32_t last[DV_MOST_QUEUES]; /* 0: none */
  uint32_t before;               /* the latest reader itself does not wait for: its queue's last one before it */
  uint32_t next_free;
} readers;

/* Queues that waited, and the wait's number in each. */
typedef struct waited {
  uint32_t queues, number[DV_MOST_QUEUES];
} waited;

struct dv_flag {
  const char *name;
  int most, sets; /* sets: those that nobody waited for yet */
  uint64_t all_sets, all_waits;
  clock *raised;  /* these three are rings of `most` */
  const dv_site **sites;
  waited *waits;
  int last_queue; /* that set it */
  uint32_t last_count;
  dv_flag *next;
};

typedef struct queue {
  clock now; /* of its next instruction */
  uint32_t count, room;
  const dv_site **sites; /* of instruction n at n - 1 */
  int is_serial;
} queue;

struct dv_order {
  int queues, spaces;
  dv_hazard_report report;
  void *user;
  queue queue[DV_MOST_QUEUES];
  space space[DV_MOST_SPACES];
  dv_flag *flags;
  readers *reader_sets;
  uint32_t reader_sets_count, reader_sets_room, free_set; /* free_set: the first given back, or NO_SET */
  int current; /* queue of the instruction whose reads and writes come */
  int has_failed; /* no memory for a set of readers: issue says so */
};

/* Numbers the next thing a queue does. 0: no memory, or too many. */
int dv_count_up(queue *q, const dv_site *site);
void dv_close_flag(dv_flag *flag);

#endif
