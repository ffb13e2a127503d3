/* A chip: its figures, the memories of its cores, the statements its kernels are made of. */
#include "davinci/core.h"
#include "davinci/launch_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NAMES = 4 };
static const char *const names[NAMES] = {"910b1", "910b2", "910b3", "910b4"};

typedef struct figure {
  const char *name, *unit, *confidence, *source;
  size_t offset;
  double value[NAMES];
} figure;
static const figure known[] = {
#define DV_PARAMETER(name, unit, b1, b2, b3, b4, confidence, source) \
  {#name, unit, confidence, source, offsetof(dv_figures, name), {b1, b2, b3, b4}},
#include "davinci/parameters.def"
#undef DV_PARAMETER
};
enum { FIGURES = sizeof known / sizeof known[0] };

static double *figure_at(dv_figures *figures, int n) { return (double *)(void *)((char *)figures + known[n].offset); }

static int find(const char *name) {
  for (int n = 0; n < FIGURES; ++n)
    if (strcmp(known[n].name, name) == 0) return n;
  return -1;
}

dv_chip *dv_chip_open(const char *name) {
  int number = 0;
  while (number < NAMES && strcmp(names[number], name) != 0) ++number;
  dv_chip *chip = number < NAMES ? calloc(1, sizeof *chip) : NULL;
  if (!chip) return NULL;
  chip->name = names[number];
  chip->number = number;
  for (int n = 0; n < FIGURES; ++n) *figure_at(&chip->figures, n) = known[n].value[number];
  if (!dv_l2_open(chip)) {
    dv_chip_close(chip);
    return NULL;
  }
  return chip;
}

void dv_chip_close(dv_chip *chip) {
  if (!chip) return;
  for (int g = 0; g < chip->groups_room; ++g)
    for (int n = 0; n < DV_CORES_A_GROUP; ++n) {
      dv_stack_close(&chip->groups[g].core[n]);
      for (int m = 0; m < DV_MEMORIES; ++m) free(chip->groups[g].core[n].memory[m]);
    }
  free(chip->groups);
  for (int n = 0; n < DV_PLACES; ++n)
    for (dv_place *place = chip->places[n], *next; place; place = next) {
      next = place->next;
      free(place);
    }
  free(chip->synchronisations);
  dv_l2_close(chip);
  free(chip);
}

double dv_chip_get(const dv_chip *chip, const char *parameter) {
  dv_parameter found;
  const int n = find(parameter);
  return n >= 0 && dv_chip_parameter(chip, n, &found) ? found.value : (double)NAN;
}

/* Memories and L2 are laid out for the size that they have. */
static int may_be(const dv_chip *chip, int n, double value) {
  const char *name = known[n].name;
  if (!(value >= 0.0 && value < 1e9) || dv_ends_with(name, "_bytes")) return 0;
  if (strcmp(name, "groups") == 0) return value >= 1.0 && value <= known[n].value[chip->number] && value == floor(value);
  if (strcmp(name, "queue_depth") == 0) return value >= 1.0 && value <= (double)DV_MOST_DEPTH && value == floor(value);
  if (strcmp(name, "miss_factor") == 0) return value > 0.0 && value <= 1.0;
  return value > 0.0 || !(dv_ends_with(name, "_rate") || strcmp(name, "clock_ghz") == 0);
}

int dv_chip_set(dv_chip *chip, const char *parameter, double value) {
  const int n = find(parameter);
  if (n < 0 || !may_be(chip, n, value)) return 0;
  *figure_at(&chip->figures, n) = value;
  return 1;
}

int dv_chip_parameter(const dv_chip *chip, int index, dv_parameter *parameter) {
  if (index < 0 || index >= FIGURES) return 0;
  const figure *f = &known[index];
  dv_figures copy = chip->figures;
  const dv_parameter found = {f->name, f->unit, *figure_at(&copy, index), f->confidence, f->source};
  *parameter = found;
  return 1;
}

const char *dv_chip_name(const dv_chip *chip) { return chip->name; }
int dv_chip_groups(const dv_chip *chip) { return (int)chip->figures.groups; }
