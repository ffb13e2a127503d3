/* Outputs that appear under their name only when they are whole. */
#include "options.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Temporaries that a signal must not leave behind. One thread opens and closes outputs; the handler only
 * reads. */
enum { MOST_OPEN = 8 };
static const char *volatile pending[MOST_OPEN];

static void remove_pending(int signal_number) {
  for (int i = 0; i < MOST_OPEN; i++) {
    if (pending[i]) unlink(pending[i]);
  }
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

static void watch(const char *temporary) {
  static const int deadly[] = {SIGINT, SIGTERM, SIGHUP};
  for (size_t i = 0; i < sizeof deadly / sizeof deadly[0]; i++) {
    struct sigaction old;
    if (sigaction(deadly[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL) {
      struct sigaction action;
      memset(&action, 0, sizeof action);
      action.sa_handler = remove_pending;
      sigaction(deadly[i], &action, NULL);
    }
  }
  for (int i = 0; i < MOST_OPEN; i++) {
    if (!pending[i]) {
      pending[i] = temporary;
      return;
    }
  }
}

static void unwatch(const char *temporary) {
  for (int i = 0; i < MOST_OPEN; i++) {
    if (pending[i] == temporary) pending[i] = NULL;
  }
}

static void forget(fa_output *output) {
  if (output->temporary) unwatch(output->temporary);
  free(output->temporary);
  free(output->path);
  output->file = NULL;
  output->path = NULL;
  output->temporary = NULL;
}

static int cannot_write(const char *path, int error) {
  return fa_failure("cannot write %s: %s", path, strerror(error));
}

/* mkstemp makes files private; outputs get what any new file of this process gets. */
static mode_t new_file_mode(void) {
  const mode_t mask = umask(0);
  umask(mask);
  return 0666 & ~mask;
}

int fa_output_open(fa_output *output, const char *path) {
  *output = (fa_output)FA_OUTPUT_INIT;
  const bool standard = !strcmp(path, "-");
  output->path = strdup(standard ? "standard output" : path);
  if (!output->path) return fa_failure("out of memory");
  if (standard) {
    output->file = stdout;
    return FA_EXIT_OK;
  }

  struct stat target;
  const bool exists = stat(path, &target) == 0;
  int error = 0;
  if (exists && S_ISDIR(target.st_mode)) {
    error = EISDIR;
  } else if (exists && !S_ISREG(target.st_mode)) {
    output->file = fopen(path, "wb");
    if (!output->file) error = errno;
  } else if (exists && access(path, W_OK) != 0) {
    error = errno;
  } else {
    const size_t length = strlen(path) + sizeof ".XXXXXX";
    output->temporary = malloc(length);
    if (!output->temporary) {
      forget(output);
      return fa_failure("out of memory");
    }
    snprintf(output->temporary, length, "%s.XXXXXX", path);
    const int descriptor = mkstemp(output->temporary);
    if (descriptor < 0) {
      error = errno;
    } else {
      watch(output->temporary);
      output->file = fchmod(descriptor, new_file_mode()) == 0 ? fdopen(descriptor, "wb") : NULL;
      if (!output->file) {
        error = errno;
        close(descriptor);
        unlink(output->temporary);
      }
    }
  }
  if (error) {
    forget(output);
    return cannot_write(path, error);
  }
  return FA_EXIT_OK;
}

int fa_output_commit(fa_output *output) {
  errno = 0;
  bool written = !ferror(output->file) && fflush(output->file) == 0;
  int error = written ? 0 : errno ? errno : EIO;
  if (output->file != stdout) {
    if (fclose(output->file) != 0 && written) {
      error = errno;
      written = false;
    }
    if (output->temporary) {
      if (written && rename(output->temporary, output->path) != 0) {
        error = errno;
        written = false;
      }
      if (!written) unlink(output->temporary);
    }
  }
  const int code = written ? FA_EXIT_OK : cannot_write(output->path, error);
  forget(output);
  return code;
}

void fa_output_discard(fa_output *output) {
  const int error = errno;
  if (output->file && output->file != stdout) {
    fclose(output->file);
    if (output->temporary) unlink(output->temporary);
  }
  forget(output);
  errno = error;
}

int fa_output_json(fa_output *output, const cJSON *rows_or_object) {
  bool complete = true;
  if (cJSON_IsArray(rows_or_object)) {
    fputs("[", output->file);
    const cJSON *row;
    cJSON_ArrayForEach(row, rows_or_object) {
      char *const text = cJSON_PrintUnformatted(row);
      complete = complete && text != NULL;
      fprintf(output->file, "%s\n  %s", row == rows_or_object->child ? "" : ",", text ? text : "null");
      free(text);
    }
    fputs("\n]\n", output->file);
  } else {
    char *const text = cJSON_Print(rows_or_object);
    complete = text != NULL;
    fprintf(output->file, "%s\n", text ? text : "null");
    free(text);
  }
  if (!complete) {
    fa_output_discard(output);
    return fa_failure("out of memory while writing JSON");
  }
  return fa_output_commit(output);
}
