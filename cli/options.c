/* Option parsing over popt, and the one error line. */
#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const char *subcommand; /* of this process; named by error lines */

/* ---------------------------------------------------------------- errors */

static void print_error(const char *format, va_list arguments) __attribute__((format(printf, 1, 0)));
static void print_error(const char *format, va_list arguments) {
  char line[1024];
  vsnprintf(line, sizeof line, format, arguments);
  /* File names and options may hold anything; scripts rely on one line. */
  for (char *c = line; *c; c++) {
    if (iscntrl((unsigned char)*c)) *c = '?';
  }
  fflush(stdout);
  if (subcommand)
    fprintf(stderr, "fastattn %s: %s\n", subcommand, line);
  else
    fprintf(stderr, "fastattn: %s\n", line);
}

int fa_usage_error(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  print_error(format, arguments);
  va_end(arguments);
  return FA_EXIT_USAGE;
}

int fa_failure(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  print_error(format, arguments);
  va_end(arguments);
  return FA_EXIT_FAILURE;
}

int fa_library_error(fa_status status) {
  if (status == FA_ERROR_ARGUMENT) return fa_usage_error("%s", fa_last_error());
  return fa_failure("%s", fa_last_error());
}

/* ------------------------------------------------------------ suggestions */

/* Edit distance with a neighbouring swap counted as one edit (as people mistype); names beyond 63 bytes are
 * never near. */
static int edit_distance(const char *a, const char *b) {
  enum { LONGEST = 63 };
  const size_t length_a = strlen(a), length_b = strlen(b);
  if (length_a > LONGEST || length_b > LONGEST) return LONGEST;
  int rows[3][LONGEST + 1];
  int *before = rows[0], *above = rows[1], *row = rows[2];
  for (size_t j = 0; j <= length_b; j++) above[j] = (int)j;
  for (size_t i = 1; i <= length_a; i++) {
    row[0] = (int)i;
    for (size_t j = 1; j <= length_b; j++) {
      int best = above[j - 1] + (a[i - 1] != b[j - 1]);
      if (above[j] + 1 < best) best = above[j] + 1;
      if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best) {
        best = before[j - 2] + 1;
      }
      row[j] = best;
    }
    int *const recycled = before;
    before = above;
    above = row;
    row = recycled;
  }
  return above[length_b];
}

const char *fa_options_nearest(const char *given, const char *const *candidates, int count) {
  const char *nearest = NULL;
  const int length = (int)strlen(given);
  int best = length < 4 ? 2 : 3; /* one or two edits away is a slip of the finger */
  for (int i = 0; i < count; i++) {
    const int distance = edit_distance(given, candidates[i]);
    if (distance < best) {
      best = distance;
      nearest = candidates[i];
    }
  }
  return nearest;
}

static int unknown_option(const char *given, const struct poptOption *table) {
  enum { MOST = 64 };
  const char *names[MOST];
  int count = 0;
  names[count++] = "help";
  for (const struct poptOption *o = table; (o->longName || o->shortName) && count < MOST; o++) {
    if (o->longName) names[count++] = o->longName;
  }
  char name[64];
  snprintf(name, sizeof name, "%s", given + strspn(given, "-"));
  name[strcspn(name, "=")] = '\0';
  int shown = (int)strcspn(given, "=");
  if (shown > 64) shown = 64;
  const char *const nearest = fa_options_nearest(name, names, count);
  if (nearest) return fa_usage_error("unknown option %.*s; did you mean --%s?", shown, given, nearest);
  return fa_usage_error("unknown option %.*s; `fastattn %s --help` lists them", shown, given, subcommand);
}

/* --------------------------------------------------------------- parsing */

char fa_device_help[160], fa_kernel_help[240];

/* Adds ", word" to a list that begins at `list`; a word once. */
static void add_word(char *text, size_t size, size_t list, const char *word) {
  const size_t length = strlen(word);
  for (const char *at = text + list; (at = strstr(at, word)) != NULL; at += length) {
    if ((at == text + list || at[-1] == ' ') && (at[length] == ',' || at[length] == '\0')) return;
  }
  const size_t end = strlen(text);
  snprintf(text + end, size - end, "%s%s", end == list ? "" : ", ", word);
}

static void list_devices_and_families(void) {
  const int devices = snprintf(fa_device_help, sizeof fa_device_help, "where to run: ");
  const int families = snprintf(fa_kernel_help, sizeof fa_kernel_help, "a kernel by name, or a family: ");
  add_word(fa_device_help, sizeof fa_device_help, (size_t)devices, "cpu");
  for (int32_t i = 0; i < fa_kernel_count(); i++) {
    fa_kernel_info k = FA_KERNEL_INFO_INIT;
    if (fa_kernel_describe(i, &k)) continue;
    add_word(fa_device_help, sizeof fa_device_help, (size_t)devices, k.device);
    add_word(fa_kernel_help, sizeof fa_kernel_help, (size_t)families, k.arch);
  }
  const size_t device_end = strlen(fa_device_help), kernel_end = strlen(fa_kernel_help);
  snprintf(fa_device_help + device_end, sizeof fa_device_help - device_end, "; cuda:N is GPU N, counted from 0 (default cpu)");
  snprintf(fa_kernel_help + kernel_end, sizeof fa_kernel_help - kernel_end, " (default: the fastest that fits)");
}

static void print_help(poptContext context, const fa_command_help *help) {
  list_devices_and_families();
  printf("%s\n\n", help->description);
  fflush(stdout);
  poptSetOtherOptionHelp(context, help->usage);
  poptPrintHelp(context, stdout, 0);
  printf("\nExample:\n%s\n", help->example);
}

/* popt names the option of "--threads=x", but of "--threads x" only the value. */
static int not_a_number(const char *bad, int argc, const char **words) {
  for (int i = 2; i < argc; i++) {
    if (strcmp(words[i], bad) == 0 && words[i - 1][0] == '-')
      return fa_usage_error("%s is '%s'; it must be a number in range", words[i - 1], bad);
  }
  return fa_usage_error("%s is not a number in range", bad);
}

enum { MOST_OPTIONS = 40, HELP = MOST_OPTIONS + 1 };

/* popt's own way with strings forgets, and so leaks, the first of two values for one option. So each string
 * option of the copy stops the parser with its number, and its place is filled here. */
static void hand_back_strings(const struct poptOption *table, struct poptOption copy[MOST_OPTIONS]) {
  int count = 0;
  for (; table[count].longName && count < MOST_OPTIONS - 1; count++) {
    copy[count] = table[count];
    if ((copy[count].argInfo & POPT_ARG_MASK) == POPT_ARG_STRING) {
      copy[count].arg = NULL;
      copy[count].val = count + 1;
    }
  }
  copy[count] = (struct poptOption)POPT_TABLEEND;
}

/* Up to the end, the help option or an error, which is returned. */
static int take_options(poptContext context, const struct poptOption *table) {
  bool is_ours[MOST_OPTIONS] = {false};
  int rc;
  while ((rc = poptGetNextOpt(context)) > 0 && rc != HELP) {
    char **const place = table[rc - 1].arg;
    if (is_ours[rc - 1]) free(*place); /* the last one counts */
    *place = poptGetOptArg(context);
    is_ours[rc - 1] = true;
  }
  return rc;
}

bool fa_options_parse(const fa_command_help *help, const struct poptOption *table, int argc,
                      const char **argv, const char **argument, int *exit_code) {
  struct poptOption copy[MOST_OPTIONS];
  hand_back_strings(table, copy);
  const struct poptOption own[] = {{"help", 'h', POPT_ARG_NONE, NULL, HELP, "print this text", NULL},
                                   POPT_TABLEEND};
  const struct poptOption options[] = {
      {NULL, '\0', POPT_ARG_INCLUDE_TABLE, copy, 0, "Options:", NULL},
      {NULL, '\0', POPT_ARG_INCLUDE_TABLE, (void *)(size_t)own, 0, NULL, NULL},
      POPT_TABLEEND};
  subcommand = help->name;
  *exit_code = FA_EXIT_OK;
  if (argument) *argument = NULL;

  /* popt names the program by argv[0]; and a bare --json means standard output, which popt cannot say. */
  char program[64];
  snprintf(program, sizeof program, "fastattn %s", help->name);
  const char **const words = malloc(((size_t)argc + 1) * sizeof *words);
  if (!words) {
    *exit_code = fa_failure("out of memory");
    return false;
  }
  words[0] = program;
  for (int i = 1; i < argc; i++) {
    const bool bare =
        !strcmp(argv[i], "--json") && (i + 1 == argc || (argv[i + 1][0] == '-' && argv[i + 1][1] != '\0'));
    words[i] = bare ? "--json=-" : argv[i];
  }
  words[argc] = NULL;

  const poptContext context = poptGetContext(NULL, argc, words, options, 0);
  if (!context) {
    *exit_code = fa_failure("out of memory");
    free(words);
    return false;
  }
  bool go_on = true;
  const int rc = take_options(context, table);
  if (rc == HELP) {
    print_help(context, help);
    go_on = false;
  } else if (rc < -1) {
    const char *const bad = poptBadOption(context, POPT_BADOPTION_NOALIAS);
    if (rc == POPT_ERROR_BADOPT)
      *exit_code = unknown_option(bad, table);
    else if (rc == POPT_ERROR_NOARG)
      *exit_code = fa_usage_error("%s needs a value", bad);
    else if (rc == POPT_ERROR_BADNUMBER || rc == POPT_ERROR_OVERFLOW)
      *exit_code = not_a_number(bad, argc, words);
    else
      *exit_code = fa_usage_error("%s: %s", bad, poptStrerror(rc));
    go_on = false;
  } else {
    for (const char *word; go_on && (word = poptGetArg(context)) != NULL;) {
      if (!argument || *argument) {
        *exit_code = fa_usage_error("'%.64s' is not an option; `fastattn %s --help` shows what it takes",
                                    word, help->name);
        go_on = false;
      } else { /* the context owns `word`; argv outlives it */
        for (int i = 1; i < argc; i++) {
          if (!strcmp(argv[i], word)) *argument = argv[i];
        }
      }
    }
  }
  poptFreeContext(context);
  free(words);
  return go_on;
}

int fa_options_integers(const char *text, int least, int most, int64_t *values) {
  int count = 0;
  for (const char *at = text;; at++) {
    char *end;
    errno = 0;
    const long long value = strtoll(at, &end, 10);
    if (end == at || isspace((unsigned char)*at) || errno || count == most) return -1;
    values[count++] = value;
    at = end;
    if (*at == '\0') return count >= least ? count : -1;
    if (*at != ',') return -1;
  }
}

bool fa_options_dtype(const char *text, fa_dtype *dtype) {
  static const fa_dtype all[] = {FA_FLOAT32, FA_FLOAT16, FA_BFLOAT16, FA_INT8, FA_FP8_E4M3};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    if (!strcmp(text, fa_dtype_name(all[i]))) {
      *dtype = all[i];
      return true;
    }
  }
  return false;
}

int fa_options_context(const fa_common_options *common, fa_context **context) {
  fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
  options.device = common->device;
  options.threads = common->threads;
  const fa_status status = fa_context_create(&options, context);
  return status ? fa_library_error(status) : FA_EXIT_OK;
}

bool fa_is_device_of(const char *device, const char *family) {
  const size_t length = strlen(family);
  return strncmp(device, family, length) == 0 && (device[length] == '\0' || device[length] == ':');
}

int fa_options_kernel(const fa_common_options *common, fa_context *context) {
  fa_attention_problem problem = FA_ATTENTION_PROBLEM_INIT;
  problem.max_seqlen_q = problem.max_seqlen_kv = 1;
  problem.head_dim_qk = problem.head_dim_v = 64;
  problem.kernel = common->kernel;
  fa_plan *plan = NULL;
  const fa_status status = fa_plan_create(context, &problem, &plan);
  fa_plan_destroy(plan);
  return status == FA_ERROR_ARGUMENT ? fa_library_error(status) : FA_EXIT_OK;
}

bool fa_options_prints_text(const fa_common_options *common) {
  return !common->json || strcmp(common->json, "-") != 0;
}
