/* A chip: its figures, the memories of its cores, the statements its kernels are made of. */
#include "davinci/core.h"

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
      free(chip->groups[g].core[n].stack);
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

int dv_chip_set(dv_chip *chip, const char *parameter, double value) {
  const int n = find(parameter);
  if (n < 0 || !(value >= 0.0) || !isfinite(value)) return 0;
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

int dv_last_synchronisation(const dv_chip *chip, int index, dv_synchronisation *found) {
  if (index < 0 || index >= chip->synchronisations_count) return 0;
  found->here = chip->synchronisations[index]->site;
  found->count = chip->synchronisations[index]->count;
  return 1;
}

int dv_last_flag(const dv_chip *chip, int from, int to, int id) {
  if (id < 0 || id >= (from < 0 ? DV_CROSS_FLAGS : DV_EVENTS) || from >= DV_PIPES || (from >= 0 && (to < 0 || to >= DV_PIPES))) return 0;
  return from < 0 ? chip->used_cross_flag[id] : chip->used_flag[from][to][id];
}
