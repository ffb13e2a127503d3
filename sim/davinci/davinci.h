/* An emulated Ascend 910B: runs an Ascend C kernel (compiled against kernel_operator.h) on x86 with right answers, finds what it
 * does wrong, and says how long it would take (docs/ascend.md; every time from here is a `model`).
 *
 * A chip runs one launch at a time; different chips may be used by different threads. Limits: 32 regions a launch (a name each, which
 * is kept while it runs), 256 KB of stack a core, 2^28 instructions of a queue, 15 sets of a cross-core flag that nobody waited for,
 * 511 bytes of a report's line. */
#ifndef DV_DAVINCI_H
#define DV_DAVINCI_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "davinci/instructions.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dv_chip dv_chip;

/* name: "910b1", "910b2", "910b3" or "910b4". NULL: no such chip, or no memory. */
dv_chip *dv_chip_open(const char *name);
void dv_chip_close(dv_chip *chip);

/* The chip's figures by name (parameters.def). get: NaN if there is no such parameter.
 * set, between launches; 0: no such parameter, or not such a value. Sizes of memories and of L2 stay (*_bytes); groups 1 to those
 * the chip has, queue_depth 1 to 64, both whole; *_rate and clock_ghz above 0; miss_factor above 0, up to 1; all else from 0.
 * All below 1e9. */
double dv_chip_get(const dv_chip *chip, const char *parameter);
int dv_chip_set(dv_chip *chip, const char *parameter, double value);
typedef struct dv_parameter {
  const char *name, *unit;
  double value;
  const char *confidence; /* "documented", "published" (figures other people measured), "fitted", "guess" */
  const char *source;
} dv_parameter;
int dv_chip_parameter(const dv_chip *chip, int index, dv_parameter *parameter); /* 0 behind the last */
const char *dv_chip_name(const dv_chip *chip);
int dv_chip_groups(const dv_chip *chip); /* of one AIC and two AIVs */

/* Calls the kernel's entry with arguments[0], arguments[1], ... */
typedef void (*dv_kernel)(void *const *arguments);

/* Memory of the device that a launch may touch; anything else is out of bounds. */
typedef enum dv_access {
  DV_INPUT,    /* there before, not written */
  DV_OUTPUT,   /* written, and read only where this launch wrote */
  DV_INOUT,    /* there before, read and written */
  DV_WORKSPACE /* as DV_OUTPUT, in blocks of 32 bytes; of no interest afterwards */
} dv_access;
typedef struct dv_region {
  const char *name;
  void *base;
  size_t bytes;
  dv_access access;
} dv_region;

typedef enum dv_cores { DV_CORES_MIX_1_2, DV_CORES_AIC, DV_CORES_AIV } dv_cores;

/* What is left out of a launch (mutation): one synchronisation statement of the kernel's source, or every set and wait of one flag. */
typedef struct dv_skip {
  const char *instruction, *file; /* file: the end of its path. instruction NULL: a flag */
  int line;
  int from, to, id; /* dv_pipes of a flag; from -1: a cross-core flag */
} dv_skip;

typedef struct dv_trace dv_trace;

typedef struct dv_launch {
  const char *name;
  dv_kernel kernel;
  void *const *arguments;
  dv_cores cores;
  int blocks; /* groups, or AICs, or AIVs; at most what the chip has */
  const dv_region *regions;
  int regions_count;
  int auto_sync;    /* 1: as the vendor's compiler does by default, an AIV's vector instructions and scalar accesses of UB are in order */
  int is_queued;    /* 1: it waited in the stream behind another launch */
  int is_strict;    /* 1: only what the vendor leaves to kernels: event ids below 6, cross-core ids up to 10 */
  int only_time;    /* 1: computes and checks nothing but in the groups from first_computed to last_computed */
  int first_computed, last_computed; /* last < first: none */
  const dv_skip *skips;
  int skips_count;
  dv_trace *trace; /* NULL, or where events are added */
} dv_launch;

typedef struct dv_report {
  char line[512];    /* "" or what went wrong: the pair of instructions, where, which bytes */
  const char *hazard; /* its kind, "" when none */
  double cycles, us; /* from the launch to the last core's end, the launch's own cost included */
  double busy[2][DV_PIPES]; /* of AICs and of AIVs: cycles a unit worked, summed over the cores */
  int cores[2];      /* AICs and AIVs that ran */
  uint64_t instructions;
  double mmad_flops; /* fractals times 8192 */
  double gm_read, gm_written, hbm; /* bytes; hbm: read because L2 had them not, or written back by it */
} dv_report;

/* 1: ran to its end and no rule was broken. */
int dv_run(dv_chip *chip, const dv_launch *launch, dv_report *report);

/* The synchronisation statements the chip's last launch came by: instruction, place, how often. 0 behind the last. */
typedef struct dv_synchronisation {
  dv_here here;
  uint64_t count;
} dv_synchronisation;
int dv_last_synchronisation(const dv_chip *chip, int index, dv_synchronisation *found);
/* 1: the chip's last launch used the flag; from and to as in dv_skip. */
int dv_last_flag(const dv_chip *chip, int from, int to, int id);

/* Events of launches, one behind the other; written as a trace that Perfetto and chrome://tracing open, a row a queue. */
dv_trace *dv_trace_open(void); /* NULL: no memory */
void dv_trace_close(dv_trace *trace);
/* 0: there was no memory for all of them, or the file took no more. */
int dv_trace_write(const dv_trace *trace, FILE *file);

#ifdef __cplusplus
}
#endif

#endif
