/* Inside the emulator: a chip, its groups of cores, their queues and memories. */
#ifndef DV_CORE_H
#define DV_CORE_H

#include <ucontext.h>

#include "davinci/bus.h"
#include "davinci/davinci.h"
#include "davinci/order.h"

enum {
  DV_EVENTS = 8,          /* ids of SetFlag a pair of pipes */
  DV_KERNEL_EVENTS = 6,   /* the framework takes the others */
  DV_CROSS_FLAGS = 16,    /* ids of CrossCoreSetFlag */
  DV_KERNEL_CROSS_FLAGS = 11, /* SyncAll takes those above */
  DV_CROSS_MOST = 15,     /* sets of one that are not waited for yet */
  DV_CROSS_MODES = 5,     /* of CrossCoreSetFlag, and SyncAll of AIVs and of all */
  DV_GROUP_QUEUES = 14,   /* of an AIC and two AIVs */
  DV_MOST_DEPTH = 64,     /* of a queue */
  DV_MOST_GROUPS = 64,
  DV_CORES_A_GROUP = 3,   /* AIC, AIV 0, AIV 1 */
  DV_SCRATCH = 8192,      /* bytes at the end of UB that Select takes in two of its modes */
  DV_CTRL_KEEPS_INF = 48, /* bit of the CTRL register: infinities and NaN of f16 and bf16 stay */
  DV_STACK = 256 * 1024
};

typedef struct dv_figures {
#define DV_PARAMETER(name, unit, b1, b2, b3, b4, confidence, source) double name;
#include "davinci/parameters.def"
#undef DV_PARAMETER
} dv_figures;

/* An in-order queue on the clock. */
typedef struct dv_queue {
  double free;                   /* when its next instruction may start */
  double ended;                  /* when all it started have ended */
  double starts[DV_MOST_DEPTH];  /* of its last instructions, a ring: a full queue holds up the scalar unit */
  unsigned count;
  double busy;
} dv_queue;

typedef struct dv_event {
  int is_set;
  double time;
  dv_flag *flag; /* in the group's order; NULL: not used yet */
} dv_event;

/* What has ended, by its number, of each queue of each group. Not changed once others may hold it. */
typedef struct dv_knowledge {
  int holders;
  uint32_t ended[];
} dv_knowledge;

/* A core's set in a meeting whose other parts are not there yet, and what it tells. */
typedef struct dv_set {
  double time;
  dv_knowledge *told;
} dv_set;
typedef struct dv_sets {
  dv_set set[DV_CROSS_MOST];
  int first, count;
} dv_sets;

/* What a wait takes. */
typedef struct dv_raise {
  double time;
  uint32_t sources; /* cores of the group (bits), whose flags order the rest */
  dv_knowledge *told;
} dv_raise;
typedef struct dv_counter {
  dv_raise raised[DV_CROSS_MOST];
  int first, count;
} dv_counter;

typedef struct dv_group dv_group;
typedef struct dv_run_state dv_run_state;

typedef struct dv_core {
  dv_run_state *run;
  dv_group *group;
  int is_aic, sub;  /* sub: which AIV */
  int block;        /* what GetBlockIdx builds on */
  int is_used;      /* it runs in this launch */
  double now;       /* of the scalar unit */
  dv_queue queue[DV_PIPES];
  dv_event event[DV_PIPES][DV_PIPES][DV_EVENTS];
  dv_sets sets[DV_CROSS_MODES][DV_CROSS_FLAGS + 1]; /* the last id is SyncAll's */
  dv_counter counter[DV_CROSS_FLAGS + 1];
  dv_knowledge *known; /* of other groups, from meetings and from those who met; NULL: nothing */
  dv_flag *automatic[2]; /* V_S and back, with auto_sync */
  dv_mask mask;
  uint64_t ctrl;
  int is_scratch_touched; /* the bytes that Select takes, since a Select took them */
  int atomic_adds;
  dv_type atomic_type;
  unsigned char *memory[DV_MEMORIES];

  ucontext_t context;
  unsigned char *stack;
  void *fiber; /* the sanitizers' idea of the stack */
  int has_started, has_ended, is_blocked;
  dv_here waits; /* where, when blocked */
} dv_core;

struct dv_group {
  int number;
  int computes; /* values and hazards, not only time */
  dv_order *order;
  int space[DV_CORES_A_GROUP][DV_MEMORIES]; /* in order; -1 */
  int gm_space[DV_MOST_SPACES];             /* of each region; -1: an input */
  dv_flag *cross_flag[DV_CORES_A_GROUP][DV_CORES_A_GROUP][DV_CROSS_FLAGS + 1]; /* from, to */
  dv_core core[DV_CORES_A_GROUP];
};

/* Who read a granule of GM, or added to it, since its last write: groups share no flags, only meetings. */
typedef struct dv_reader {
  uint8_t group, queue, adds; /* adds: an atomic add, which others need not be ordered with */
  uint32_t number; /* the queue's last; it stands for those before */
} dv_reader;
typedef struct dv_owner {
  uint8_t writer, writer_queue; /* group + 1; 0: nobody */
  uint16_t readers, room;
  uint32_t written;
  const dv_site *write_site;
  dv_reader *reader;
} dv_owner;
enum { DV_OWNER_PAGE = 4096 };

typedef struct dv_gm_region {
  dv_region given;
  size_t granule;
  dv_owner **owners; /* pages of DV_OWNER_PAGE granules; NULL for inputs */
  size_t pages;
} dv_gm_region;

/* A statement of the kernel. */
typedef struct dv_place {
  dv_site site;
  int is_synchronisation, is_skipped;
  uint64_t count;
  struct dv_place *next; /* of its hash */
} dv_place;

enum { DV_PLACES = 1024 };

struct dv_run_state {
  dv_chip *chip;
  const dv_launch *launch;
  dv_report *report;
  dv_group *groups;
  int groups_count;
  dv_gm_region regions[DV_MOST_SPACES];
  int regions_count;
  dv_core *current;
  ucontext_t scheduler;
  void *scheduler_fiber;
  const void *scheduler_stack;
  size_t scheduler_stack_bytes;
  double horizon; /* the core that runs gives way when its clock passes this */
  int has_failed;
};

struct dv_chip {
  const char *name;
  int number; /* column of parameters.def */
  dv_figures figures;
  dv_group *groups; /* with memories, as they come to be used */
  int groups_room;
  dv_place *places[DV_PLACES];
  dv_place **synchronisations; /* in the order they were come by */
  int synchronisations_count, synchronisations_room;
  unsigned char used_flag[DV_PIPES][DV_PIPES][DV_EVENTS], used_cross_flag[DV_CROSS_FLAGS]; /* by the last launch */
  dv_bus *l2, *hbm;
  struct dv_l2 *l2_state;
};

/* The core whose kernel runs on this thread. */
extern _Thread_local dv_core *dv_current;

/* ------------------------------------------------------------------ core.c */

/* Begins an instruction: its place, kept. */
const dv_place *dv_begin(dv_here here);
/* Notes that a flag is used; 1: the launch leaves it out. */
int dv_skips_flag(int from, int to, int id);
/* Ends the run with a line; does not return. */
_Noreturn void dv_fail(dv_here here, const char *hazard, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Posts to a queue: it keeps the unit for `work` cycles and ends `latency` later; returns its start. */
double dv_post(const dv_place *place, dv_pipe pipe, double work, double latency);
/* The same for `rows` pieces of `bytes` in GM, `stride` from one to the next; moved: bytes that take the move's rate, and work
 * the cycles they do at an L2 hit. */
typedef struct dv_gm_move {
  uint64_t at, bytes;
  uint32_t rows;
  int64_t stride;
  int writes;
  double moved;
} dv_gm_move;
double dv_post_gm(const dv_place *place, dv_pipe pipe, const dv_gm_move *move, double work, double latency);
/* Tells the hazard finder that the next reads and writes are of this instruction. */
void dv_order_begin(const dv_place *place, dv_pipe pipe);
int dv_order_queue(const dv_core *core, dv_pipe pipe);

/* Bytes of a local memory or GM, checked and told to the hazard finder. */
void dv_reads(dv_here here, dv_address from, uint64_t bytes);
void dv_writes(dv_here here, dv_address to, uint64_t bytes);
void dv_adds(dv_here here, dv_address to, uint64_t bytes); /* to GM, atomically */
void *dv_pointer(dv_address address);
/* Whole instruction in bounds of its memory and aligned; fails otherwise. */
void dv_check_local(dv_here here, dv_address address, uint64_t bytes, unsigned alignment);

void dv_give_way(void);  /* lets cores that are behind run */
void dv_block(dv_here here); /* until another core wakes this one */
void dv_wake(dv_core *core, double time); /* what it waits for is there at `time`: the core that runs goes not far beyond that */

uint32_t dv_queues_of(const dv_core *core); /* bits of its queues in the group's order */

/* ------------------------------------------------------------------ cross.c */

/* Whether what the core does now comes behind an instruction of another group. */
int dv_knows(const dv_core *core, int group, int queue, uint32_t number);
/* 1: a set or a counter nobody waited for; its id. */
int dv_cross_left(const dv_core *core, int *id);
void dv_cross_close(dv_core *core);

/* ------------------------------------------------------------------ gm.c */

int dv_gm_open(dv_run_state *run);
void dv_gm_close(dv_run_state *run);
/* The region that holds the bytes; fails when none does. */
int dv_gm_find(dv_here here, uint64_t at, uint64_t bytes);
typedef enum dv_gm_access { DV_GM_READS, DV_GM_WRITES, DV_GM_ADDS } dv_gm_access;
void dv_gm_touch(dv_here here, int region, uint64_t at, uint64_t bytes, dv_gm_access access);
/* What an access costs behind L2: bytes read that it did not hold, and bytes it had to write back to make room. */
typedef struct dv_l2_cost {
  double missed, written_back;
} dv_l2_cost;
dv_l2_cost dv_l2_access(dv_chip *chip, uint64_t at, uint64_t bytes, int writes);
int dv_l2_open(dv_chip *chip);
void dv_l2_close(dv_chip *chip);

/* ------------------------------------------------------------------ trace.c */

void dv_trace_event(dv_trace *trace, const dv_core *core, dv_pipe pipe, const char *name, double begin, double free, double end);
void dv_trace_launch(dv_trace *trace, const dv_chip *chip, double cycles); /* the next begins behind it */

#endif
