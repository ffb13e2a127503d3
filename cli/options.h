/* What every subcommand shares: option parsing, the error line, exit codes, outputs that appear by rename.
 *
 * A subcommand is `int fa_<name>_command(int argc, const char **argv)` with argv[0] its own name; it returns
 * its exit code. Its option structure is static, because popt stores copies of strings there that live until
 * exit. */
#ifndef FA_CLI_OPTIONS_H
#define FA_CLI_OPTIONS_H

#include <popt.h>
#include <stdbool.h>
#include <stdio.h>

#include <cjson/cJSON.h>

#include "fastattention/fastattention.h"

enum {
  FA_EXIT_OK = 0,
  FA_EXIT_FAILURE = 1, /* could not be done: file, memory, device, feature of a kernel, a wrong result */
  FA_EXIT_USAGE = 2    /* asked wrongly: options, names, shapes, types */
};

/* ------------------------------------------------------------------ options every subcommand takes */

typedef struct fa_common_options {
  const char *device;
  int threads;
  const char *kernel;
  const char *json; /* NULL: none; "-": standard output */
} fa_common_options;

#define FA_COMMON_OPTIONS_INIT \
  { "cpu", 0, NULL, NULL }

/* What this build has: lists written before a help is printed. */
extern char fa_device_help[160], fa_kernel_help[240];

/* Lines for the poptOption table of a subcommand; end the table with POPT_TABLEEND. */
#define FA_OPTION_DEVICE(common) \
  { "device", '\0', POPT_ARG_STRING, &(common).device, 0, fa_device_help, "NAME" }
#define FA_OPTION_THREADS(common) \
  { "threads", '\0', POPT_ARG_INT, &(common).threads, 0, "CPU threads; 0 is one per core (default 0)", "N" }
#define FA_OPTION_KERNEL(common) \
  { "kernel", '\0', POPT_ARG_STRING, &(common).kernel, 0, fa_kernel_help, "NAME" }
#define FA_OPTION_JSON(common)                                                                           \
  {                                                                                                      \
    "json", '\0', POPT_ARG_STRING, &(common).json, 0,                                                    \
        "also write the results as JSON to FILE; - is standard output, which then carries nothing else", \
        "FILE"                                                                                           \
  }
#define FA_COMMON_OPTIONS(common) \
  FA_OPTION_DEVICE(common), FA_OPTION_THREADS(common), FA_OPTION_KERNEL(common), FA_OPTION_JSON(common)

/* ------------------------------------------------------------------------------- parsing */

typedef struct fa_command_help {
  const char *name;        /* "run" */
  const char *usage;       /* "--q FILE --k FILE --v FILE --out FILE [OPTION...]" */
  const char *description; /* a paragraph for a newcomer, lines of at most 90 columns, no last newline */
  const char *example;     /* lines that can be pasted into a shell, each indented by two spaces */
} fa_command_help;

/* Parses argv into the places the table names. --help and -h are added, as is a suggestion for a misspelt
 * option. argument: where the one positional argument goes (NULL afterwards if it was not given); NULL if
 * there is none. Returns true to go on; otherwise *exit_code is what the subcommand returns (the help or the
 * error is printed). */
bool fa_options_parse(const fa_command_help *help, const struct poptOption *table, int argc,
                      const char **argv, const char **argument, int *exit_code);

/* "a,b,c" -> values. Returns how many there were, or -1 if that is not `least` .. `most` int64 integers. */
int fa_options_integers(const char *text, int least, int most, int64_t *values);

/* "f32", "f16", "bf16", "int8", "fp8" -> *dtype; false for anything else. */
bool fa_options_dtype(const char *text, fa_dtype *dtype);

/* The candidate nearest to `given` if it is near enough to be what was meant, else NULL. */
const char *fa_options_nearest(const char *given, const char *const *candidates, int count);

/* -------------------------------------------------------------------------------- errors */

/* Print `fastattn <subcommand>: <line>` on stderr, exactly one line whatever the names in it contain,
 * and return the exit code, so that a check is one statement: return fa_usage_error("...", ...). */
int fa_usage_error(const char *format, ...) __attribute__((format(printf, 1, 2), cold));
int fa_failure(const char *format, ...) __attribute__((format(printf, 1, 2), cold));
/* The same for fa_last_error(): ARGUMENT is usage, the rest failure. */
int fa_library_error(fa_status status);

/* Opens the context that --device and --threads ask for. FA_EXIT_OK, or prints and returns the code. */
int fa_options_context(const fa_common_options *common, fa_context **context);

/* Whether `device` ("cuda:1") is `family` ("cuda") or one of it. */
bool fa_is_device_of(const char *device, const char *family);

/* That --kernel names a kernel or a family of the context's device: one that cannot do a problem is an answer, one that
 * nobody knows is wrong use. FA_EXIT_OK, or prints and returns the code. */
int fa_options_kernel(const fa_common_options *common, fa_context *context);

/* ------------------------------------------------------------------------------- outputs */

/* A file that appears under its name only when committed. Open it before the work starts, so that an
 * unwritable place costs nothing. Devices and pipes are written straight; "-" is standard output. */
typedef struct fa_output {
  FILE *file; /* NULL when not open */
  char *path;
  char *temporary; /* NULL when written straight */
} fa_output;

#define FA_OUTPUT_INIT \
  { NULL, NULL, NULL }

/* Both return FA_EXIT_OK, or print and return FA_EXIT_FAILURE; after a failed commit nothing stays. */
int fa_output_open(fa_output *output, const char *path);
int fa_output_commit(fa_output *output);
/* For every way out without a commit; fine on one that is not open or was committed. Leaves errno alone. */
void fa_output_discard(fa_output *output);

/* True unless standard output is taken by --json -. */
bool fa_options_prints_text(const fa_common_options *common);

/* `rows` (a cJSON array) as a JSON array with one row a line, or `object` as it is; then commits. */
int fa_output_json(fa_output *output, const cJSON *rows_or_object);

#endif
