/* One problem by one tiling on the emulated Ascend chip: how long the clock says it takes, and whether it is
 * right. */
#ifndef FA_CLI_SIM_RUN_H
#define FA_CLI_SIM_RUN_H

#include "ascend/host/sim_backend.h"
#include "bench_case.h"

/* ------------------------------------------------------------------ chips */

typedef struct fa_sim_setting {
  char parameter[32];
  double value;
} fa_sim_setting;

enum { FA_SIM_MOST_SETTINGS = 64 };

/* A chip with some of its parameters set to other values. */
typedef struct fa_sim_chip {
  const char *name; /* "910b2" */
  char device[24];  /* "ascend-sim:0" */
  int groups;
  double clock_ghz, peak_tflops, hbm_rate /* bytes a cycle */, l2_bytes;
  int settings_count;
  fa_sim_setting settings[FA_SIM_MOST_SETTINGS];
} fa_sim_chip;

/* Fills all but the settings. FA_EXIT_OK, or prints and returns the exit code; so do all functions here that
 * return int. */
int fa_sim_chip_find(const char *name, fa_sim_chip *chip);
/* "gm_ub_rate=49" */
int fa_sim_chip_set(fa_sim_chip *chip, const char *text);
/* A context of its own, so that nothing of an earlier run is left in L2. */
int fa_sim_chip_open(const fa_sim_chip *chip, fa_context **context);

/* ---------------------------------------------------------------- tilings */

typedef struct fa_sim_tiling {
  const char *name;   /* "two-level" */
  const char *kernel; /* "flash_ascend" */
  const char *rule;   /* whose tolerance holds: NULL, "standard" or "eager" */
  bool is_flash, is_one_level;
} fa_sim_tiling;

enum { FA_SIM_TILINGS = 4 };
extern const fa_sim_tiling
    fa_sim_tilings[FA_SIM_TILINGS]; /* the first is the one that others are compared with */

/* ------------------------------------------------------------------- time */

enum { FA_SIM_MOST_PARTS = 12 };

/* What launches added up to. */
typedef struct fa_sim_clock {
  int launches;
  double cycles, us;
  double busy[2][DV_PIPES]; /* of AICs and AIVs, summed over the cores */
  int cores[2];             /* of the launch that had most */
  bool is_warm; /* a second run, which found its tensors in L2 */
  double instructions;
  double gm_read, gm_written, hbm; /* bytes */
  int parts;
  struct {
    char function[48];
    int launches;
    double us;
  } part[FA_SIM_MOST_PARTS]; /* in order of their first launch */
} fa_sim_clock;

/* For fa_ascend_sim_view.watch; user is a fa_sim_clock. */
void fa_sim_clock_add(void *user, const char *function, const dv_report *report);
/* Share of the time that a queue of the cores which took part was busy. */
double fa_sim_clock_use(const fa_sim_clock *clock, int is_aiv, dv_pipe pipe);

/* How much of a run is computed, and not only timed. */
typedef enum fa_sim_extent { FA_SIM_NOTHING, FA_SIM_FIRST_GROUP, FA_SIM_EVERYTHING } fa_sim_extent;

typedef struct fa_sim_job {
  const fa_sim_chip *chip;
  const fa_sim_tiling *tiling;
  const fa_ascend_wish *wish;
  const fa_bench_case *c;
  const fa_bench_data *data; /* of any context of the chip's device */
} fa_sim_job;

/* trace: NULL, or where the events of one more run go, if there are not too many: *is_traced. */
int fa_sim_time(const fa_sim_job *job, fa_sim_extent extent, dv_trace *trace, bool *is_traced,
                fa_sim_clock *clock);
enum { FA_SIM_MOST_EVENTS = 2000000 };

/* Buffers that nothing was put into, for runs that compute nothing: their memory is never touched. */
int fa_sim_data_blank(fa_context *context, const fa_bench_case *c, fa_bench_data *data);

/* ------------------------------------------------------------------ results */

/* What was compared with the oracle before a time is told. */
typedef struct fa_sim_check {
  fa_sim_extent extent;  /* FA_SIM_NOTHING: of this problem nothing, but everything of a smaller one */
  fa_bench_case c;       /* the problem that was computed */
  int64_t rows, written; /* compared; that the run wrote */
  double max_err;
} fa_sim_check;

enum { FA_SIM_CORNERS = 4 };
typedef struct fa_sim_corner {
  double gm_ub_latency, gm_ub_rate, cross_flag_cost, us;
} fa_sim_corner;

typedef struct fa_sim_result {
  fa_sim_clock clock;
  fa_sim_check check;
  fa_plan_info plan;          /* kernel, arch and reason are not kept */
  int64_t preload, cube_keys; /* 0: the kernel has none */
  double flops;
  double mask_bytes,
      full_mask_bytes; /* what the kernel reads of masks; a mask of the input type for each score */
  bool has_corners;
  fa_sim_corner corner[FA_SIM_CORNERS];
} fa_sim_result;

/* Runs what of the problem, or of a smaller one like it, can be computed in reasonable time (or all of it),
 * compares `rows` rows (0: some) and times the problem: clock and check of the result, whose plan and tiles
 * are set. job->data is not read. */
int fa_sim_check_and_time(const fa_sim_job *job, bool computes_all, int64_t rows, dv_trace *trace,
                          bool *is_traced, fa_sim_result *result);

/* The comparison alone, of a smaller problem of the same kind. */
int fa_sim_check_smaller(const fa_sim_job *job, int64_t rows, fa_sim_check *check);

double fa_sim_tflops(const fa_sim_result *result, double us);
double fa_sim_peak_percent(const fa_sim_chip *chip, const fa_sim_result *result, double us);
/* Slowest and fastest corner, the run itself among them. */
void fa_sim_range(const fa_sim_result *result, double *slowest_us, double *fastest_us);

#endif
