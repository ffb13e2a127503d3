#include "sim_rows.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static const double mebi = 1024.0 * 1024.0;

typedef struct queue {
  const char *name;
  int is_aiv;
  dv_pipe pipe;
} queue;
static const queue queues[] = {{"M", 0, DV_M}, {"MTE1", 0, DV_MTE1}, {"MTE2", 0, DV_MTE2}, {"FIX", 0, DV_FIX},
                               {"V", 1, DV_V}, {"MTE2", 1, DV_MTE2}, {"MTE3", 1, DV_MTE3}};
enum { QUEUES = sizeof queues / sizeof queues[0] };

static bool is_believed(const fa_sim_chip *chip, const fa_sim_result *r) {
  double slowest, fastest;
  fa_sim_range(r, &slowest, &fastest);
  return fa_sim_peak_percent(chip, r, fastest) <= (double)FA_SIM_MOST_BELIEVED;
}

/* ------------------------------------------------------------ for people */

void fa_sim_print_chip(const fa_sim_chip *chip) {
  printf("Ascend %s, emulated: %d AIC, %d AIV, %g GHz, at most %.1f TFLOP/s", chip->name, chip->groups,
         2 * chip->groups, chip->clock_ghz, chip->peak_tflops);
  for (int n = 0; n < chip->settings_count; n++)
    printf(", %s=%g", chip->settings[n].parameter, chip->settings[n].value);
  printf("\nAll times and rates are a `model`: computed by the emulator's clock, not taken on an NPU.\n");
}

void fa_sim_print_head(const fa_bench_case *c) {
  char shape[FA_BENCH_SHAPE_TEXT];
  printf("\n%s %s%s", fa_bench_shape_text(c, shape), fa_dtype_name(c->dtype), c->causal ? " causal" : "");
  if (c->window_left >= 0 || c->window_right >= 0)
    printf(" window %" PRId64 ",%" PRId64, c->window_left, c->window_right);
  printf("\n%-10s %-19s %11s %8s %6s  AIC", "tiling", "tiles", "model us", "TFLOP/s", "peak");
  for (int n = 0; n < QUEUES; n++)
    printf("%s%5s", n && queues[n].is_aiv != queues[n - 1].is_aiv ? "  AIV" : "", queues[n].name);
  printf("  %7s %8s\n", "hazards", "mask MiB");
}

static void tiles_text(const fa_sim_result *r, char text[64]) {
  if (r->preload) {
    snprintf(text, 64, "%" PRId64 "x%" PRId64 " %" PRId64 "x%" PRId64 " +%" PRId64, r->plan.level1_rows,
             r->plan.level1_keys, r->plan.level2_rows, r->plan.level2_keys, r->preload);
  } else if (r->plan.level1_rows) {
    snprintf(text, 64, "%" PRId64 "x%" PRId64, r->plan.level1_rows, r->plan.level1_keys);
  } else {
    snprintf(text, 64, "-");
  }
}

static void print_check(const fa_sim_result *r) {
  const fa_sim_check *const k = &r->check;
  char shape[FA_BENCH_SHAPE_TEXT];
  printf("  %" PRId64 " rows agree with the oracle (largest error %.2g), of ", k->rows, k->max_err);
  if (k->extent == FA_SIM_EVERYTHING)
    printf("all\n");
  else if (k->extent == FA_SIM_FIRST_GROUP)
    printf("the %" PRId64 " of the first group of cores; the others' were timed, neither computed nor watched for hazards\n",
           k->written);
  else
    printf("%s; this shape was timed, neither computed nor watched for hazards\n", fa_bench_shape_text(&k->c, shape));
}

/* "fa_eager_cast_ascend" is "eager_cast" here. */
static void print_parts(const fa_sim_clock *clock) {
  static const char begin[] = "fa_", end[] = "_ascend";
  printf("  launches, model us:");
  for (int n = 0; n < clock->parts; n++) {
    const char *const name = clock->part[n].function;
    const size_t skip = strncmp(name, begin, sizeof begin - 1) == 0 ? sizeof begin - 1 : 0;
    const char *const tail = strstr(name, end);
    printf("%s %.*s", n ? "," : "", (int)(tail ? (size_t)(tail - name) - skip : strlen(name) - skip),
           name + skip);
    if (clock->part[n].launches > 1) printf(" x%d", clock->part[n].launches);
    printf(" %.1f", clock->part[n].us);
  }
  printf("\n");
}

void fa_sim_print_row(const fa_sim_chip *chip, const fa_sim_tiling *tiling, const fa_sim_result *r) {
  char tiles[64];
  tiles_text(r, tiles);
  printf("%-10s %-19s %11.1f %8.1f %5.1f%%     ", tiling->name, tiles, r->clock.us,
         fa_sim_tflops(r, r->clock.us), fa_sim_peak_percent(chip, r, r->clock.us));
  for (int n = 0; n < QUEUES; n++)
    printf("%s%4.0f%%", n && queues[n].is_aiv != queues[n - 1].is_aiv ? "     " : "",
           100.0 * fa_sim_clock_use(&r->clock, queues[n].is_aiv, queues[n].pipe));
  printf("  %7s %8.1f\n", r->check.extent == FA_SIM_NOTHING ? "-" : "0", r->mask_bytes / mebi);
  if (r->has_corners) {
    double slowest, fastest;
    fa_sim_range(r, &slowest, &fastest);
    printf(
        "  %.1f to %.1f us, %.1f to %.1f TFLOP/s (model), as GM->UB and cross-core flags cost what they may "
        "cost\n",
        fastest, slowest, fa_sim_tflops(r, slowest), fa_sim_tflops(r, fastest));
  }
  if (r->clock.launches > 1) print_parts(&r->clock);
  print_check(r);
  if (!is_believed(chip, r))
    printf("  warning: more than %d%% of peak; a model that says so is wrong and not to be believed\n",
           FA_SIM_MOST_BELIEVED);
  fflush(stdout);
}

void fa_sim_print_ratio(const fa_sim_tiling *fast, const fa_sim_result *fast_result,
                        const fa_sim_tiling *slow, const fa_sim_result *slow_result) {
  double slow_least, slow_most, fast_least, fast_most;
  fa_sim_range(slow_result, &slow_most, &slow_least);
  fa_sim_range(fast_result, &fast_most, &fast_least);
  printf("%s / %s: %.2fx", slow->name, fast->name, slow_result->clock.us / fast_result->clock.us);
  if (slow_result->has_corners && fast_result->has_corners) {
    double least = INFINITY, most = 0.0; /* corner by corner: it is one chip that both run on */
    for (int n = 0; n < FA_SIM_CORNERS; n++) {
      const double ratio = slow_result->corner[n].us / fast_result->corner[n].us;
      least = fmin(least, ratio);
      most = fmax(most, ratio);
    }
    printf(", swept %.2fx to %.2fx", least, most);
  }
  printf(" (model)\n");
}

/* ---------------------------------------------------------- for programs */

void fa_sim_add_origin(cJSON *row, const fa_sim_chip *chip) {
  cJSON_AddStringToObject(row, "chip", chip->name);
  cJSON_AddStringToObject(row, "label", "model");
  cJSON *const set = cJSON_AddObjectToObject(row, "set");
  for (int n = 0; n < chip->settings_count; n++)
    cJSON_AddNumberToObject(set, chip->settings[n].parameter, chip->settings[n].value);
  cJSON_AddStringToObject(row, "commit", fa_commit());
}

static void add_pair(cJSON *object, const char *name, int64_t rows, int64_t keys) {
  const double pair[] = {(double)rows, (double)keys};
  if (rows)
    cJSON_AddItemToObject(object, name, cJSON_CreateDoubleArray(pair, 2));
  else
    cJSON_AddNullToObject(object, name);
}

static void add_shape(cJSON *row, const char *name, const fa_bench_case *c) {
  const double shape[] = {(double)c->batch,     (double)c->heads_q,   (double)c->heads_kv,
                          (double)c->seqlen_q,  (double)c->seqlen_kv, (double)c->head_dim_qk,
                          (double)c->head_dim_v};
  cJSON_AddItemToObject(row, name, cJSON_CreateDoubleArray(shape, sizeof shape / sizeof shape[0]));
}

static void add_tiles(cJSON *row, const fa_sim_result *r) {
  cJSON *const tiles = cJSON_AddObjectToObject(row, "tiles");
  add_pair(tiles, "level1", r->plan.level1_rows, r->plan.level1_keys);
  add_pair(tiles, "level2", r->plan.level2_rows, r->plan.level2_keys);
  if (r->preload)
    cJSON_AddNumberToObject(tiles, "preload", (double)r->preload);
  else
    cJSON_AddNullToObject(tiles, "preload");
  cJSON_AddNumberToObject(tiles, "kv_splits", (double)r->plan.kv_splits);
}

static void add_use(cJSON *row, const fa_sim_clock *clock) {
  cJSON *const use = cJSON_AddObjectToObject(row, "use");
  cJSON *const cores[] = {cJSON_AddObjectToObject(use, "aic"), cJSON_AddObjectToObject(use, "aiv")};
  for (int n = 0; n < QUEUES; n++)
    cJSON_AddNumberToObject(cores[queues[n].is_aiv], queues[n].name,
                            fa_sim_clock_use(clock, queues[n].is_aiv, queues[n].pipe));
}

static void add_end(cJSON *row, const char *name, const fa_sim_chip *chip, const fa_sim_result *r,
                    double us) {
  if (!r->has_corners) {
    cJSON_AddNullToObject(row, name);
    return;
  }
  cJSON *const end = cJSON_AddObjectToObject(row, name);
  cJSON_AddNumberToObject(end, "us", us);
  cJSON_AddNumberToObject(end, "tflops", fa_sim_tflops(r, us));
  cJSON_AddNumberToObject(end, "peak_percent", fa_sim_peak_percent(chip, r, us));
}

/* low: the least TFLOP/s. */
static void add_range(cJSON *row, const fa_sim_chip *chip, const fa_sim_result *r) {
  double slowest, fastest;
  fa_sim_range(r, &slowest, &fastest);
  add_end(row, "low", chip, r, slowest);
  add_end(row, "high", chip, r, fastest);
  cJSON *const corners = cJSON_AddArrayToObject(row, "corners");
  for (int n = 0; r->has_corners && n < FA_SIM_CORNERS; n++) {
    cJSON *const corner = cJSON_CreateObject();
    cJSON_AddItemToArray(corners, corner);
    cJSON_AddNumberToObject(corner, "gm_ub_latency", r->corner[n].gm_ub_latency);
    cJSON_AddNumberToObject(corner, "gm_ub_rate", r->corner[n].gm_ub_rate);
    cJSON_AddNumberToObject(corner, "cross_flag_cost", r->corner[n].cross_flag_cost);
    cJSON_AddNumberToObject(corner, "us", r->corner[n].us);
  }
}

void fa_sim_add_check(cJSON *row, const fa_sim_check *check) {
  static const char *const extents[] = {
      [FA_SIM_NOTHING] = "smaller", [FA_SIM_FIRST_GROUP] = "first group", [FA_SIM_EVERYTHING] = "all"};
  cJSON *const checked = cJSON_AddObjectToObject(row, "checked");
  cJSON_AddStringToObject(checked, "computed", extents[check->extent]);
  add_shape(checked, "shape", &check->c);
  cJSON_AddNumberToObject(checked, "rows", (double)check->rows);
  cJSON_AddNumberToObject(checked, "rows_computed", (double)check->written);
  cJSON_AddNumberToObject(checked, "max_err", check->max_err);
}

void fa_sim_add_row(cJSON *rows, const fa_sim_chip *chip, const fa_sim_tiling *tiling, const fa_bench_case *c,
                    const fa_sim_result *r) {
  cJSON *const row = cJSON_CreateObject();
  cJSON_AddItemToArray(rows, row);
  cJSON_AddStringToObject(row, "tiling", tiling->name);
  cJSON_AddStringToObject(row, "kernel", tiling->kernel);
  add_tiles(row, r);
  add_shape(row, "shape", c);
  cJSON_AddBoolToObject(row, "causal", c->causal);
  const double window[] = {(double)c->window_left, (double)c->window_right};
  cJSON_AddItemToObject(row, "window", cJSON_CreateDoubleArray(window, 2));
  cJSON_AddStringToObject(row, "dtype", fa_dtype_name(c->dtype));
  cJSON_AddNumberToObject(row, "cycles", r->clock.cycles);
  cJSON_AddNumberToObject(row, "us", r->clock.us);
  cJSON_AddNumberToObject(row, "flops", r->flops);
  cJSON_AddNumberToObject(row, "tflops", fa_sim_tflops(r, r->clock.us));
  cJSON_AddNumberToObject(row, "peak_tflops", chip->peak_tflops);
  cJSON_AddNumberToObject(row, "peak_percent", fa_sim_peak_percent(chip, r, r->clock.us));
  cJSON_AddBoolToObject(row, "believed", is_believed(chip, r));
  add_use(row, &r->clock);
  if (r->check.extent == FA_SIM_NOTHING) /* of this shape none were looked for */
    cJSON_AddNullToObject(row, "hazards");
  else /* a run that has one is not timed; where they were looked for: checked.computed */
    cJSON_AddNumberToObject(row, "hazards", 0);
  cJSON_AddStringToObject(row, "cache", r->clock.is_warm ? "warm" : "cold");
  add_range(row, chip, r);
  cJSON_AddNumberToObject(row, "launches", r->clock.launches);
  cJSON *const parts = cJSON_AddArrayToObject(row, "parts");
  for (int n = 0; n < r->clock.parts; n++) {
    cJSON *const part = cJSON_CreateObject();
    cJSON_AddItemToArray(parts, part);
    cJSON_AddStringToObject(part, "function", r->clock.part[n].function);
    cJSON_AddNumberToObject(part, "launches", r->clock.part[n].launches);
    cJSON_AddNumberToObject(part, "us", r->clock.part[n].us);
  }
  cJSON_AddNumberToObject(row, "instructions", r->clock.instructions);
  cJSON_AddNumberToObject(row, "gm_read_bytes", r->clock.gm_read);
  cJSON_AddNumberToObject(row, "gm_written_bytes", r->clock.gm_written);
  cJSON_AddNumberToObject(row, "hbm_bytes", r->clock.hbm);
  cJSON_AddNumberToObject(row, "workspace_bytes", (double)r->plan.workspace_bytes);
  cJSON_AddNumberToObject(row, "mask_bytes", r->mask_bytes);
  cJSON_AddNumberToObject(row, "full_mask_bytes", r->full_mask_bytes);
  fa_sim_add_check(row, &r->check);
  fa_sim_add_origin(row, chip);
}

/* ------------------------------------------------------------- parameters */

static const char *const chip_names[] = {"910b1", "910b2", "910b3", "910b4"};
enum { CHIPS = sizeof chip_names / sizeof chip_names[0] };

static void show_parameter(bool prints, cJSON *rows, dv_chip *const chips[CHIPS], int index) {
  dv_parameter p[CHIPS];
  for (int n = 0; n < CHIPS; n++) {
    if (!dv_chip_parameter(chips[n], index, &p[n])) return;
  }
  if (prints) {
    printf("%-17s", p[0].name);
    for (int n = 0; n < CHIPS; n++) printf(" %9.9g", p[n].value);
    printf("  %-33s %-18s %s\n", p[0].unit, p[0].confidence, p[0].source);
  }
  if (!rows) return;
  cJSON *const row = cJSON_CreateObject();
  cJSON_AddItemToArray(rows, row);
  cJSON_AddStringToObject(row, "name", p[0].name);
  cJSON_AddStringToObject(row, "unit", p[0].unit);
  cJSON *const values = cJSON_AddObjectToObject(row, "values");
  for (int n = 0; n < CHIPS; n++) cJSON_AddNumberToObject(values, chip_names[n], p[n].value);
  cJSON_AddStringToObject(row, "confidence", p[0].confidence);
  cJSON_AddStringToObject(row, "source", p[0].source);
}

int fa_sim_show_parameters(bool prints, cJSON *rows) {
  dv_chip *chips[CHIPS];
  bool all = true;
  for (int n = 0; n < CHIPS; n++) {
    chips[n] = dv_chip_open(chip_names[n]);
    all = all && chips[n];
  }
  if (prints && all) {
    printf("%-17s", "parameter");
    for (int n = 0; n < CHIPS; n++) printf(" %9s", chip_names[n]);
    printf("  %-33s %-18s %s\n", "unit", "confidence", "source");
  }
  dv_parameter p;
  for (int index = 0; all && dv_chip_parameter(chips[0], index, &p); index++)
    show_parameter(prints, rows, chips, index);
  for (int n = 0; n < CHIPS; n++) dv_chip_close(chips[n]);
  return all ? FA_EXIT_OK : fa_failure("no memory for the emulated chips");
}
