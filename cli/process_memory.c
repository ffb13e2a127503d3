#include "process_memory.h"

#include <stdio.h>
#include <string.h>

/* Value in bytes of the line "<key>  <n> kB". */
static int64_t read_kilobytes(const char *path, const char *key) {
  FILE *const file = fopen(path, "r");
  if (!file) return -1;
  char line[256];
  int64_t bytes = -1;
  const size_t length = strlen(key);
  while (bytes < 0 && fgets(line, sizeof line, file)) {
    long long value;
    if (strncmp(line, key, length) == 0 && sscanf(line + length, " %lld kB", &value) == 1)
      bytes = value * 1024;
  }
  fclose(file);
  return bytes;
}

int64_t fa_memory_available(void) { return read_kilobytes("/proc/meminfo", "MemAvailable:"); }

int64_t fa_memory_peak_begin(void) {
  FILE *const file = fopen("/proc/self/clear_refs", "w");
  if (!file) return -1;
  const int written = fputs("5", file) >= 0; /* 5: set the peak to what is resident now */
  if (fclose(file) != 0 || !written) return -1;
  return read_kilobytes("/proc/self/status", "VmRSS:");
}

int64_t fa_memory_peak_end(int64_t begin) {
  const int64_t peak = read_kilobytes("/proc/self/status", "VmHWM:");
  if (begin < 0 || peak < 0) return -1;
  return peak > begin ? peak - begin : 0;
}
